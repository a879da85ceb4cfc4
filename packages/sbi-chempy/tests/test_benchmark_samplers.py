"""Joint posterior and No-U-Turn sampler of the benchmarks, with gradients of the engine."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats

from sbi_core import get_simulator

SOURCE = Path(__file__).resolve().parents[3] / "benchmarks" / "chempy"
if not SOURCE.is_dir():
    pytest.skip("the folder benchmarks/ is not there", allow_module_level=True)
sys.path.insert(0, str(SOURCE))
from joint import JointPosterior, differentiable, from_standard_normal  # noqa: E402
from no_u_turn import energy, leapfrog, nuts, start  # noqa: E402

sys.path.remove(str(SOURCE))


@pytest.fixture(scope="module")
def chempy():
    return get_simulator("chempy")


@pytest.fixture(scope="module")
def stars(chempy):
    return chempy.example_observations(3, 3).batch


@pytest.fixture(scope="module")
def posterior(chempy, stars):
    return JointPosterior(stars, chempy.parameters, differentiable(chempy.engine))


@pytest.fixture(scope="module")
def truth(chempy, stars):
    z = chempy.parameters.to_unconstrained(stars.theta)
    return np.concatenate([z[0, :2], z[:, 2:].ravel()])


def test_standard_normal_variables_are_the_cores_unconstrained_ones(chempy, rng):
    z = rng.standard_normal((50, 6))
    got = from_standard_normal(torch.as_tensor(z), chempy.parameters)
    assert_allclose(got, chempy.parameters.from_unconstrained(z), rtol=1e-9)


def test_stars_share_the_globals_and_own_the_rest(posterior):
    assert posterior.dim == 2 + 4 * 3
    theta = posterior.theta(torch.arange(14, dtype=torch.float64) / 10)
    assert len(torch.unique(theta[:, 0])) == len(torch.unique(theta[:, 1])) == 1
    assert all(len(torch.unique(theta[:, k])) == 3 for k in range(2, 6))


def test_log_density_is_prior_times_likelihood(posterior, chempy, rng):
    z = rng.standard_normal(14) * 0.3
    value, _ = posterior(z)
    theta = posterior.theta(torch.as_tensor(z))
    x = differentiable(chempy.engine)(theta)[0].numpy()
    stars = posterior.x.numpy()
    want = stats.norm.logpdf(z).sum() + stats.norm.logpdf(stars, x, 0.05).sum()
    constant = stats.norm.logpdf(0) * 14 + stats.norm.logpdf(0, 0, 0.05) * 24
    assert_allclose(value, want - constant, rtol=1e-5)


def test_gradient_of_the_joint_posterior_equals_finite_differences(posterior, rng):
    z = rng.standard_normal(14) * 0.3
    _, gradient = posterior(z)
    for k in (0, 1, 2, 3, 8, 13):
        shift = torch.zeros(14, dtype=torch.float64)
        shift[k] = 1e-5
        with torch.no_grad():
            ahead, behind = (posterior.log_prob(torch.as_tensor(z) + s) for s in (shift, -shift))
        assert_allclose(gradient[k], float(ahead - behind) / 2e-5, rtol=1e-3, atol=1e-3)


def test_the_model_error_widens_the_likelihood(chempy):
    stars = chempy.example_observations(3, 2).batch
    made = [
        JointPosterior(stars, chempy.parameters, differentiable(chempy.engine), model_error=e)
        for e in (None, np.full(8, 0.05))
    ]
    assert_allclose(made[1].weight, made[0].weight / 2, rtol=1e-6)


def test_failing_parameters_have_no_density(posterior):
    z = np.zeros(14)
    z[0] = np.nan
    assert posterior(z)[0] == -np.inf


def test_a_hamiltonian_path_with_engine_gradients_conserves_energy(posterior, truth, rng):
    """Up to the small jumps of the model (whole time steps of AGB stars and SNe Ia)."""
    r, unit = rng.standard_normal(14), np.ones(14)
    for step, steps in ((0.02, 5), (0.005, 20)):
        state = start(posterior, truth, r)
        before = energy(state, unit)
        for _ in range(steps):
            state = leapfrog(posterior, state, step, unit)
        assert abs(energy(state, unit) - before) < 0.5
        assert np.abs(state.z - truth).max() > 0.05


def test_a_nuts_transition_with_engine_gradients_moves_and_is_accepted(posterior, truth, rng):
    chain = nuts(posterior, truth, draws=2, warmup=0, rng=rng, step=0.03, max_depth=3)
    assert not chain.divergent.any()
    assert chain.accept.min() > 0.6
    assert np.abs(chain.draws[-1] - truth).max() > 0.01
    assert chain.gradients > 2


# -- the sampler itself, where the answer is known ------------------------------------------------


def correlated(z):
    precision = np.linalg.inv([[1.0, 0.6], [0.6, 1.0]])
    return -0.5 * z @ precision @ z, -precision @ z


def test_nuts_samples_a_correlated_gaussian(rng):
    chain = nuts(correlated, np.array([3.0, -3.0]), draws=4000, warmup=400, rng=rng)
    # about 1000 independent draws at least: five sigma
    assert np.abs(chain.draws.mean(0)).max() < 5 / np.sqrt(1000)
    assert_allclose(np.cov(chain.draws.T), [[1, 0.6], [0.6, 1]], atol=0.2)
    assert abs(chain.accept.mean() - 0.8) < 0.1
    assert not chain.divergent.any()


def test_a_wrong_gradient_shows_in_the_acceptance(rng):
    """Guards the guard: the energy check sees a gradient that is off by a factor."""

    def wrong(z):
        value, gradient = correlated(z)
        return value, 0.2 * gradient

    unit, errors = np.ones(2), []
    for density in (correlated, wrong):
        state = start(density, np.array([1.0, -1.0]), np.array([1.0, 0.5]))
        before = energy(state, unit)
        for _ in range(20):
            state = leapfrog(density, state, 0.05, unit)
        errors.append(abs(energy(state, unit) - before))
    assert errors[0] < 0.01 < errors[1]


def test_a_start_without_density_is_refused(rng):
    with pytest.raises(ValueError, match="zero at the start"):
        nuts(lambda z: (-np.inf, z), np.zeros(2), draws=1, warmup=0, rng=rng)
