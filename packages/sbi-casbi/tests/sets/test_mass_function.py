import numpy as np
import pytest
import torch

from sbi_casbi.sets.mass_function import FEATURES, MassFunction
from sbi_casbi.sets.whitening import Whitening

SUMS = 8


def masses(rng, n, count):
    """Sets of ``count`` masses, uniform over 5..9 and sorted."""
    return -np.sort(-rng.uniform(5.0, 9.0, (n, count)), axis=1)


@pytest.fixture(scope="module")
def whitening():
    rng = np.random.default_rng(1)
    mass = masses(rng, 4000, 20)
    sets = np.stack([mass, mass + 2, rng.uniform(1, 13, mass.shape)], -1)
    return Whitening(3).fit(sets, np.ones(mass.shape, bool), (5.0, 9.0), (1.0, 13.0))


@torch.no_grad()
def test_untrained_estimates_are_the_expectation_of_the_prior(whitening, rng):
    model = MassFunction(2, SUMS, 8)
    mean = masses(rng, 50_000, 20).mean(0)
    k = torch.arange(1, 21.0)
    found, _ = model(
        model.encode(torch.randn(2), torch.randn(SUMS)), k, torch.full((20,), 20.0), whitening
    )
    np.testing.assert_allclose(whitening.unstandardise_mass(found).numpy(), mean, atol=0.02)


def test_learns_the_mean_and_the_scatter_of_every_rank(whitening, rng):
    torch.manual_seed(2)
    model = MassFunction(1, SUMS, 32)
    shift = rng.normal(size=20_000)
    mass = masses(rng, 20_000, 10) + shift[:, None]
    truth = torch.as_tensor((mass - float(whitening.centre[0])) / float(whitening.scale[0])).float()
    h, none = torch.as_tensor(shift)[:, None].float(), torch.zeros(20_000, SUMS)
    k = torch.arange(1, 11.0)
    n = torch.full_like(k, 10.0)
    train = torch.optim.Adam(model.parameters(), 5e-3)
    for step in range(400):
        rows = slice(500 * (step % 38), 500 * (step % 38) + 500)
        train.zero_grad()
        encoded = model.encode(h[rows], none[rows])[:, None]
        model.loss(
            model(encoded, k.expand(500, -1), n.expand(500, -1), whitening), truth[rows]
        ).mean().backward()
        train.step()
    with torch.no_grad():
        mean, log_sd = model(model.encode(h[-1000:], none[-1000:])[:, None], k, n, whitening)
    off = ((truth[-1000:] - mean) / log_sd.exp()).numpy()
    assert np.abs(off.mean(0)).max() < 0.2
    assert np.abs(off.std(0) - 1).max() < 0.15


@torch.no_grad()
def test_features_hold_the_residual_of_the_last_member(whitening):
    model = MassFunction(2, SUMS, 8)
    last = torch.tensor([0.0, 0.7, 0.7])
    log_cdf = whitening.log_cdf(whitening.unstandardise_mass(last)) * torch.tensor([0.0, 1.0, 1.0])
    now = torch.full((3,), 0.2), torch.full((3,), np.log(0.2))
    before = torch.tensor([0.0, 0.5, 0.7]), torch.full((3,), np.log(0.1))
    remaining = torch.full((3,), 4.0)
    features = model.features(now, before, last, log_cdf, remaining, whitening)
    assert features.shape == (3, FEATURES)
    step, off = features[:, 0], features[:, 2]
    np.testing.assert_allclose(step, [0.2, -0.5, -0.5], atol=1e-6)  # there is no last at first
    np.testing.assert_allclose(off, [0.0, 2.0, 0.0], atol=1e-5)
    # the whitened places are those of the estimate, and of one as far off as the last was
    for j, mass in ((4, now[0]), (5, now[0] + off * 0.2)):
        back, _ = whitening.unwhiten_mass(2 * features[:, j], log_cdf, remaining.double())
        np.testing.assert_allclose(back, whitening.unstandardise_mass(mass), atol=1e-4)
