import numpy as np
import pytest
import torch

from sbi_casbi.ordered import Whitening
from sbi_casbi.ranks import FEATURES, Ranks

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
    ranks = Ranks(2, SUMS, 8)
    mean = masses(rng, 50_000, 20).mean(0)
    k = torch.arange(1, 21.0)
    found, _ = ranks(
        ranks.see(torch.randn(2), torch.randn(SUMS)), k, torch.full((20,), 20.0), whitening
    )
    np.testing.assert_allclose(whitening.mass_scaled(found).numpy(), mean, atol=0.02)


def test_learns_the_mean_and_the_scatter_of_every_rank(whitening, rng):
    torch.manual_seed(2)
    ranks = Ranks(1, SUMS, 32)
    shift = rng.normal(size=20_000)
    mass = masses(rng, 20_000, 10) + shift[:, None]
    truth = torch.as_tensor((mass - float(whitening.centre[0])) / float(whitening.scale[0])).float()
    h, none = torch.as_tensor(shift)[:, None].float(), torch.zeros(20_000, SUMS)
    k = torch.arange(1, 11.0)
    n = torch.full_like(k, 10.0)
    train = torch.optim.Adam(ranks.parameters(), 5e-3)
    for step in range(400):
        rows = slice(500 * (step % 38), 500 * (step % 38) + 500)
        train.zero_grad()
        seen = ranks.see(h[rows], none[rows])[:, None]
        ranks.loss(
            ranks(seen, k.expand(500, -1), n.expand(500, -1), whitening), truth[rows]
        ).mean().backward()
        train.step()
    with torch.no_grad():
        mean, log_sd = ranks(ranks.see(h[-1000:], none[-1000:])[:, None], k, n, whitening)
    off = ((truth[-1000:] - mean) / log_sd.exp()).numpy()
    assert np.abs(off.mean(0)).max() < 0.2
    assert np.abs(off.std(0) - 1).max() < 0.15


@torch.no_grad()
def test_the_next_member_is_told_how_far_off_the_last_one_was(whitening):
    ranks = Ranks(2, SUMS, 8)
    last = torch.tensor([0.0, 0.7, 0.7])
    log_f = whitening.log_f(whitening.mass_scaled(last)) * torch.tensor([0.0, 1.0, 1.0])
    now = torch.full((3,), 0.2), torch.full((3,), np.log(0.2))
    before = torch.tensor([0.0, 0.5, 0.7]), torch.full((3,), np.log(0.1))
    left = torch.full((3,), 4.0)
    told = ranks.ahead(now, before, last, log_f, left, whitening)
    assert told.shape == (3, FEATURES)
    step, off = told[:, 0], told[:, 2]
    np.testing.assert_allclose(step, [0.2, -0.5, -0.5], atol=1e-6)  # there is no last at first
    np.testing.assert_allclose(off, [0.0, 2.0, 0.0], atol=1e-5)
    # the whitened places are those of the estimate, and of one as far off as the last was
    for j, mass in ((4, now[0]), (5, now[0] + off * 0.2)):
        back, _ = whitening.next_mass(2 * told[:, j], log_f, left.double())
        np.testing.assert_allclose(back, whitening.mass_scaled(mass), atol=1e-4)
