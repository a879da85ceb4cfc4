import numpy as np
import pytest
import torch

from sbi_casbi.sets import SetConfig, SetDensity
from sbi_casbi.sets.sums import log_total_mass
from sbi_casbi.sets.total_mass import TotalMass

PLACES = 3


@pytest.fixture(scope="module")
def head(simulator):
    """A density with random weights, so that nothing is close to the prior."""
    batch = simulator.draw(500, 1)
    torch.manual_seed(4)
    made = SetDensity(12, np.arange(2, 101.0), 100, 3, SetConfig(hidden=16, bins=4))
    mask = batch.theta_mask.numpy()
    made.whitening.fit(batch.theta_set.double().numpy(), mask, (4.6, 9.8), (0.9, 13.8))
    with torch.no_grad():
        for spline in made.member_flow.splines:
            spline[-1].weight.normal_(std=0.1)
            spline[-1].bias.normal_(std=0.1)
        # the mass of a set is estimated as 8.5 +- 0.4
        made.sums.linear[0, 0, 0] = (8.5 - made.whitening.centre[0]) / made.whitening.scale[0]
        made.sums.linear[1, 0, 0] = float(np.log(0.4)) - made.whitening.scale[0].log()
    return made.eval()


def prior_sets(head, m, seed=2):
    """Sets of two or three members of the prior, and their density under it."""
    gen = torch.Generator().manual_seed(seed)
    n = torch.randint(2, PLACES + 1, (m,), generator=gen)
    v = torch.randn((m, PLACES, 3), generator=gen).clamp(-4.9, 4.9).double()
    w, log_cdf, theta = head.whitening, torch.zeros(m).double(), []
    for k in range(PLACES):
        mass, log_cdf = w.unwhiten_mass(v[:, k, 0], log_cdf, (n - k).clamp(min=1).double())
        mean, scale = w.dark_mass_relation(mass)
        theta.append(torch.stack([mass, mean + scale * v[:, k, 1], w.unwhiten_tau(v[:, k, 2])], -1))
    used = torch.arange(PLACES) < n[:, None]
    sets = torch.stack(theta, 1) * used[..., None]
    log_prior = torch.where(used, (-0.5 * v**2 - 0.9189385).sum(-1), 0.0).sum(1)
    return sets, n, log_prior + w.log_det_jacobian(sets, n).sum(1)


@torch.no_grad()
def test_the_density_of_a_set_integrates_to_one(head):
    """The mean of q / prior over prior draws is the probability that q gives to all sets."""
    sets, n, log_prior = prior_sets(head, 8000)
    h = torch.zeros(len(n), 12)
    log_n = head.log_pmf(h[:1])[0].double().exp()
    assert abs(float(log_n.sum()) - 1.0) < 1e-5
    volume = head.whitening.log_det_jacobian(sets, n).sum(1)
    members = head.log_prob(head.pack(sets, n), h).double() + volume
    for log_q in (members, head.log_prob_sets(sets, n, h)):
        ratio = (log_q - log_prior).exp()
        for k in (2, 3):
            mine = ratio[n == k] / log_n[k - 2]
            spread = float(mine.std() / len(mine) ** 0.5)
            assert spread < 0.15
            assert abs(float(mine.mean()) - 1.0) < 5 * spread, (k, mine.mean(), spread)


@torch.no_grad()
def test_draws_follow_the_density(head):
    """Means of log q over draws and over weighted prior sets are the same number."""
    m = 2000
    gen = torch.Generator().manual_seed(5)
    n, h = torch.full((m,), 3), torch.zeros(m, 12)

    def noise(size):
        return torch.randn((m, size), generator=gen)

    drawn = torch.stack(list(head.draw_members(noise, h, n)), 1)
    drawn = head.rescale(drawn, n, h, noise(1)[:, 0])
    sets, count, log_prior = prior_sets(head, 5000)
    three = count == 3
    sets, log_prior = sets[three], log_prior[three]
    weight = (head.log_prob_sets(sets, count[three], torch.zeros(len(sets), 12)) - log_prior).exp()
    weight /= weight.sum()
    for value in (lambda s: s[:, 0, 0], lambda s: s[:, 1, 0], lambda s: s[:, 2, 0]):
        mine, theirs = value(drawn), value(sets)
        want = float((weight * theirs).sum())
        spread = float((weight**2 * (theirs - want) ** 2).sum().sqrt() + mine.std() / m**0.5)
        assert abs(float(mine.mean()) - want) < 4 * spread


@torch.no_grad()
def test_rescaled_sets_keep_ratios_order_and_bounds(head):
    sets, n, _ = prior_sets(head, 500)
    h = torch.zeros(500, 12)
    moved = head.rescale(sets, n, h, torch.randn(500, generator=torch.Generator().manual_seed(1)))
    used = torch.arange(PLACES) < n[:, None]
    shift = (moved - sets)[..., 0]
    np.testing.assert_allclose(shift[used], shift[:, :1].expand(-1, PLACES)[used], atol=1e-9)
    assert (moved[~used] == 0).all()
    assert moved[..., 0][used].min() >= 4.6 - 1e-9
    assert moved[..., 0][used].max() <= 9.8 + 1e-9
    assert (moved[..., 2] == sets[..., 2]).all()
    place = [head.whitening.whiten(s, n)[..., 1] for s in (sets, moved)]
    np.testing.assert_allclose(*place, atol=1e-9)


@torch.no_grad()
def test_sets_are_not_rescaled_where_that_makes_the_mass_worse(head):
    """Truths as the estimate says, or as the draws say: the better of both is used."""
    halos, draws = 300, 20
    gen = torch.Generator().manual_seed(7)
    sets, n, _ = prior_sets(head, halos * draws)
    estimate = torch.full((len(n),), 8.5).double(), torch.full((len(n),), 0.05).double()
    noise = torch.randn(len(n), generator=gen)
    made = TotalMass()
    exact = 8.5 + 0.05 * torch.randn(halos, generator=gen).double()
    made.disable_if_worse(sets, n, estimate, noise, exact, head.whitening)
    assert made.enabled
    drawn = log_total_mass(sets[..., 0], n).reshape(halos, draws)[:, 0]
    made.disable_if_worse(sets, n, estimate, noise, drawn, head.whitening)
    assert not made.enabled
    assert made.rescale(sets, n, estimate, noise, head.whitening) is sets
    places = list(made.preimages(sets, n, estimate, head.whitening))
    assert len(places) == 1
    assert (places[0][1] == 0).all()
