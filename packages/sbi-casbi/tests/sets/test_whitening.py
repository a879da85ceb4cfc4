import numpy as np
import pytest
import torch
from scipy import stats

from sbi_casbi.sets.whitening import Whitening


@pytest.fixture(scope="module")
def sets():
    rng = np.random.default_rng(3)
    count = rng.integers(1, 21, 4000)
    mass = np.sort(stats.beta.rvs(2, 3, size=(4000, 20), random_state=rng) * 5 + 4.7, axis=1)
    used = np.arange(20) < count[:, None]
    # the largest N of N, not of 20: draw again inside each row
    for row, n in enumerate(count):
        mass[row, :n] = np.sort(rng.permutation(mass[row])[:n])[::-1]
    dark = 8 + 0.5 * mass + (0.2 + 0.02 * mass) * rng.standard_normal(mass.shape)
    tau = rng.beta(1.6, 2, mass.shape) * 13 + 0.7
    members = np.where(used[..., None], np.stack([mass, dark, tau], -1), 0.0)
    return members, count, used


@pytest.fixture(scope="module")
def whitening(sets):
    members, _, used = sets
    return Whitening(3).fit(members, used, (4.6, 9.8), (0.6, 13.8))


def test_members_of_the_prior_become_standard_normal(sets, whitening):
    members, count, used = sets
    v = whitening.whiten(torch.as_tensor(members), torch.as_tensor(count)).numpy()
    for j in range(3):
        flat = v[..., j][used]
        # 42 000 numbers: a distance of 0.015 is a bias of 0.04 sigma
        assert stats.kstest(flat, "norm").statistic < 0.015
    first, second = v[count > 1, 0, 0], v[count > 1, 1, 0]
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.06


def test_masses_come_back(sets, whitening):
    members, count, _ = sets
    n = torch.as_tensor(count)
    v = whitening.whiten(torch.as_tensor(members), n)
    log_cdf = torch.zeros(len(n), dtype=torch.float64)
    for k in range(5):
        remaining = (n - k).clamp(min=1).double()
        mass, log_cdf = whitening.unwhiten_mass(v[:, k, 0], log_cdf, remaining)
        there = (n > k).numpy()
        assert np.abs(mass.numpy()[there] - members[there, k, 0]).max() < 2e-3
    tau = whitening.unwhiten_tau(v[..., 2])
    used = np.arange(20) < count[:, None]
    assert np.abs(tau.numpy()[used] - members[..., 2][used]).max() < 2e-2


def test_whatever_v_is_masses_are_ordered_and_inside(whitening):
    v = 10 * torch.randn(1000, 20, generator=torch.Generator().manual_seed(1))
    log_cdf = torch.zeros(1000, dtype=torch.float64)
    last = torch.full((1000,), 9.8, dtype=torch.float64)
    for k in range(20):
        mass, log_cdf = whitening.unwhiten_mass(
            v[:, k], log_cdf, torch.full((1000,), 20.0 - k).double()
        )
        assert (mass <= last + 1e-9).all()
        assert (mass >= 4.6).all()
        last = mass


def test_padding_changes_no_bit(sets, whitening):
    members, count, used = sets
    noisy = np.where(used[..., None], members, 1e3 * np.random.default_rng(1).random(members.shape))
    a, b = (whitening.whiten(torch.as_tensor(m), torch.as_tensor(count)) for m in (members, noisy))
    assert (a == b).all()


def test_the_jacobian_is_the_derivative_of_the_map(sets, whitening):
    members, count, _ = sets
    x = torch.as_tensor(members[:50]).clone().requires_grad_()
    n = torch.as_tensor(count[:50])
    v = whitening.whiten(x, n)
    want = torch.zeros(50, 20, dtype=torch.float64)
    for j in range(3):  # triangular: the diagonal is enough
        for k in range(3):
            grad = torch.autograd.grad(v[:, k, j].sum(), x, retain_graph=True)[0]
            there = n > k
            want[there, k] += grad[there, k, j].abs().log()
    got = whitening.log_det_jacobian(x, n).detach()
    there = np.arange(3) < count[:50, None]
    v = v.detach().numpy()[:, :3]
    inner = there & (np.abs(v) < 4.5).all(-1)
    assert np.abs(got.numpy()[:, :3] - want.numpy()[:, :3])[inner].max() < 1e-6
