import numpy as np
import pytest
from numpy.testing import assert_allclose
from pydantic import ValidationError

from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.errors import ConfigError, DensityUnavailableError
from sbi_core.estimators.flows import MafConfig, MafEstimator
from sbi_core.priors.space import Prior
from sbi_core.rng import stream


def test_it_recovers_the_conjugate_posterior(problem_of, gaussian, fit_small):
    problem = problem_of(gaussian.space_priors, error=(0.3, 0.3), nuisance=1)
    estimator = fit_small("maf", problem, n=10_000, epochs=10)
    batch = problem.observe(problem.simulate(200, stream(5)), stream(6))
    want_mean, want_cov = problem.posterior(batch)
    draws = estimator.sample(batch, 2000, 3)
    want_sd = np.sqrt(np.diagonal(want_cov, axis1=1, axis2=2))
    off = (draws.mean(0) - want_mean) / want_sd
    ratio = draws.std(0) / want_sd
    # a small training; 2000 draws alone contribute 0.02
    assert np.sqrt((off**2).mean(0)).max() < 0.2
    assert_allclose(np.median(ratio, axis=0), 1, atol=0.06)


def test_one_parameter_is_refused_because_the_flow_would_be_a_gaussian(problem_of):
    problem = problem_of((Prior("uniform", {"low": 0.0, "high": 1.0}),))
    with pytest.raises(ConfigError, match="use 'nsf'"):
        MafEstimator().fit(problem.training(n=200), IdentityEmbedding())


def test_one_pass_is_refused():
    with pytest.raises(ValidationError, match="at least 2"):
        MafConfig(passes=1)


def test_coupling_makes_draws_in_two_passes():
    head = MafEstimator(MafConfig(passes=2)).build_head(3, 6)
    assert {t.passes for t in head.flow.transform.transforms} == {2}


def test_it_has_no_closed_form_moments(barely, gaussian):
    batch = gaussian.observe(gaussian.simulate(2, stream(1)), stream(2))
    with pytest.raises(DensityUnavailableError, match="maf"):
        barely("maf").gaussian_moments(batch)
