"""Estimators with networks of the sbi package: flows, scores and flow matching."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.adapters.sbi import build_head
from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.errors import ConfigError, DensityUnavailableError
from sbi_core.estimators import load_estimator
from sbi_core.estimators.sbi import (
    SbiFmpeConfig,
    SbiFmpeEstimator,
    SbiMafEstimator,
    SbiNpseConfig,
    SbiNpseEstimator,
    SbiNsfConfig,
    SbiNsfEstimator,
)
from sbi_core.rng import stream

SMALL = {
    "sbi-fmpe": lambda: SbiFmpeEstimator(SbiFmpeConfig(hidden=24, layers=2, steps=20)),
    "sbi-npse": lambda: SbiNpseEstimator(SbiNpseConfig(hidden=24, layers=2, steps=30)),
}


# -- vector fields --------------------------------------------------------------------------


@pytest.fixture(scope="module", params=sorted(SMALL))
def fitted(request, gaussian):
    estimator = SMALL[request.param]()
    training = gaussian.training(n=3000, epochs=6, learning_rate=2e-3)
    estimator.fit(training, IdentityEmbedding())
    return estimator


def observed(problem, n=1, seed=0):
    return problem.observe(problem.simulate(n, stream(seed, "test")), stream(seed, "noise"))


def test_the_density_integrates_to_one_and_draws_follow_it(fitted, gaussian):
    batch = observed(gaussian)
    draws = fitted.sample(batch, 1000, 1)
    mean, sd = draws[:, 0].mean(0), draws[:, 0].std(0)
    a, b = (np.linspace(m - 6 * s, m + 6 * s, 41) for m, s in zip(mean, sd, strict=True))
    grid = np.stack(np.meshgrid(a, b, indexing="ij"), -1).reshape(-1, 1, 2)
    q = np.exp(fitted.log_prob(grid, batch))[:, 0] * (a[1] - a[0]) * (b[1] - b[0])
    assert_allclose(q.sum(), 1, atol=0.02)
    want = (q[:, None] * grid[:, 0]).sum(0)
    assert (np.abs(mean - want) < 5 * sd / np.sqrt(1000) + 0.02 * sd).all()
    spread = np.sqrt((q[:, None] * (grid[:, 0] - want) ** 2).sum(0))
    assert_allclose(sd, spread, rtol=0.12)  # 5 standard errors of 1000 draws


def test_its_test_nll_is_a_density_and_its_losses_repeat(fitted, gaussian):
    batch = observed(gaussian, 200, seed=3)
    fresh = -fitted.log_prob(batch.theta[:, :2], batch)
    # 256 test rows against 200 others
    assert_allclose(fitted.record.test_nll, fresh.mean(), atol=5 * fresh.std() / 10)
    h, z = torch.randn(5, 9), torch.randn(5, 2)
    head = fitted.network.head.eval()
    with torch.no_grad():
        assert torch.equal(head.loss(z, h), head.loss(z, h))


def test_draws_of_an_object_do_not_depend_on_its_company(fitted, gaussian):
    batch = observed(gaussian, 4)
    together = fitted.sample(batch, 20, [stream(1, k) for k in range(4)])
    alone = fitted.sample(batch[2], 20, [stream(1, 2)])
    assert_allclose(alone[:, 0], together[:, 2], rtol=1e-3, atol=1e-3)


def test_a_saved_estimator_draws_the_same_bits(fitted, gaussian, tmp_path):
    fitted.save(tmp_path)
    batch = observed(gaussian, 2)
    assert_array_equal(load_estimator(tmp_path).sample(batch, 5, 1), fitted.sample(batch, 5, 1))


def test_densities_of_many_parameters_are_refused():
    head = SbiFmpeEstimator(SbiFmpeConfig(hidden=8, layers=1, steps=2)).build_head(3, 17)
    assert head.draw(torch.randn(2, 3, 17), torch.randn(3, 3)).shape == (2, 3, 17)
    with pytest.raises(DensityUnavailableError, match="17 parameters"):
        head.log_prob(torch.randn(3, 17), torch.randn(3, 3))


def test_training_is_repeatable(gaussian):
    training = replace(gaussian.training(n=400, epochs=1), seed=3)
    a, b = (SMALL["sbi-fmpe"]().fit(training, IdentityEmbedding()).test_nll for _ in range(2))
    assert a == b


# -- flows --------------------------------------------------------------------------------


def test_the_default_is_the_published_configuration():
    head = SbiMafEstimator().build_head(8, 6)
    # 8 hidden units, 4 transforms, 6 parameters, 8 abundances (inference.md 3: "1 520 weights")
    assert sum(p.numel() for p in head.parameters()) == 1520


def test_the_density_of_sbi_maf_is_that_of_sbi(barely):
    head = barely("sbi-maf").network.head
    h, noise = torch.randn(5, 9), torch.randn(3, 5, 2)
    z = head.draw(noise, h)
    back = head.estimator.inverse_transform(z, h)
    assert torch.allclose(back, noise, atol=1e-4)
    assert torch.allclose(head.log_prob(z, h), head.estimator.log_prob(z, h))


def test_every_parameter_depends_on_the_data_whatever_the_seed():
    """sbi shuffles coordinates at random; unlucky shuffles leave one without the features."""
    for seed in range(40):
        torch.manual_seed(seed)
        head = build_head("sbi-maf", 3, 2, {"hidden": 8, "transforms": 2})
        noise = torch.randn(1, 2)
        changed = head.draw(noise, torch.randn(1, 3)) != head.draw(noise, torch.randn(1, 3))
        assert changed.all(), seed


def test_one_transformation_and_one_parameter_are_refused():
    with pytest.raises(ConfigError, match="use 'nsf'"):
        SbiMafEstimator().build_head(3, 1)
    with pytest.raises(ConfigError, match="transforms >= 2"):
        build_head("sbi-maf", 3, 2, {"hidden": 8, "transforms": 1})


def test_the_density_of_sbi_nsf_is_that_of_sbi(barely):
    head = barely("sbi-nsf").network.head
    h, noise = torch.randn(5, 9), torch.randn(3, 5, 2)
    with torch.no_grad():
        z = head.draw(noise, h)
        assert torch.allclose(head.estimator.inverse_transform(z, h), noise, atol=1e-3)
        assert torch.allclose(head.log_prob(z, h), head.estimator.log_prob(z, h))


def test_one_parameter_has_a_spline_too():
    head = SbiNsfEstimator(SbiNsfConfig(hidden=8, transforms=2)).build_head(3, 1)
    h, noise = torch.randn(5, 3), torch.randn(4, 5, 1)
    with torch.no_grad():
        z = head.draw(noise, h)
        assert z.shape == (4, 5, 1)
        assert torch.isfinite(head.log_prob(z, h)).all()
