import numpy as np
import pytest
import torch

from sbi_sfh.autoregressive import AutoregressiveMixture


@pytest.fixture
def density():
    torch.manual_seed(3)
    head = AutoregressiveMixture(4, 3, components=3, hidden=(16,))
    with torch.no_grad():
        for p in head.parameters():
            p += 0.3 * torch.randn_like(p)
    return head.double()


def test_density_of_two_numbers_integrates_to_one():
    torch.manual_seed(1)
    head = AutoregressiveMixture(2, 2, components=4, hidden=(16,)).double()
    axis = torch.linspace(-9, 9, 401, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)[:, None]
    h = torch.tensor([[0.3, -1.0]], dtype=torch.float64)
    total = head.log_prob(grid, h).exp().sum() * (axis[1] - axis[0]) ** 2
    assert float(total) == pytest.approx(1.0, abs=1e-6)


def test_no_number_depends_on_later_ones(density):
    z = torch.randn(1, 3, dtype=torch.float64)
    h = torch.randn(1, 4, dtype=torch.float64)
    rows = torch.cat([h, z], -1)[None] * density.before
    reference = density._mixtures(rows, slice(None))[1]
    for k in range(3):
        moved = z.clone()
        moved[:, k] += 1.0
        rows = torch.cat([h, moved], -1)[None] * density.before
        changed = (density._mixtures(rows, slice(None))[1] != reference).any(-1)[:, 0]
        assert not changed[: k + 1].any()
        assert changed[k + 1 :].all()


def test_draws_follow_the_density(density):
    """Mean of q'/q over draws of q is one, for another density q' of the same numbers."""
    generator = torch.Generator().manual_seed(5)
    h = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(40_000, 2, density.noise_size, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        z = density.draw(noise, h)
        log_q = density.log_prob(z, h)
        narrow = torch.distributions.Normal(z.mean(0), 0.5 * z.std(0)).log_prob(z).sum(-1)
    ratio = (narrow - log_q).exp().numpy()
    error = ratio.std(0) / np.sqrt(len(ratio))
    assert (np.abs(ratio.mean(0) - 1.0) < 5 * error + 0.02).all()  # 5 sigma: 1e-6 per galaxy


def test_draws_do_not_depend_on_the_rows_beside_them(density):
    h = torch.randn(3, 4, dtype=torch.float64)
    noise = torch.randn(7, 3, density.noise_size, dtype=torch.float64)
    with torch.no_grad():
        together = density.draw(noise, h)
        alone = density.draw(noise[:, 1:2], h[1:2])
    np.testing.assert_allclose(together[:, 1:2], alone, rtol=1e-10)


def test_draws_have_gradients(density):
    h = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    noise = torch.randn(5, 2, density.noise_size, dtype=torch.float64)
    density.draw(noise, h).sum().backward()
    assert torch.isfinite(h.grad).all()


def test_blur_of_training_is_taken_away_again():
    torch.manual_seed(2)
    head = AutoregressiveMixture(2, 1, components=1, hidden=(8,), blur=0.3).double()
    h, z = torch.randn(1, 2, dtype=torch.float64), torch.randn(50, 1, 1, dtype=torch.float64)
    with torch.no_grad():
        _, mu, log_sigma = head.train()._mixtures(torch.cat([h, z[0]], 1)[None] * head.before,
                                                  slice(None))  # fmt: skip
        sigma = float(log_sigma.exp())
        blurred, sharp = head.train().log_prob(z, h), head.eval().log_prob(z, h)
    normal = torch.distributions.Normal
    np.testing.assert_allclose(blurred, normal(float(mu), sigma).log_prob(z)[..., 0])
    left = float(np.sqrt(sigma**2 - 0.3**2))
    np.testing.assert_allclose(sharp, normal(float(mu), left).log_prob(z)[..., 0], rtol=1e-6)


def test_what_is_thinner_than_the_blur_stays_finite():
    head = AutoregressiveMixture(2, 1, components=1, hidden=(8,), blur=3.0).double().eval()
    h, noise = torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 1, 2, dtype=torch.float64)
    with torch.no_grad():
        assert torch.isfinite(head.log_prob(torch.zeros(1, 1, 1, dtype=torch.float64), h)).all()
        assert torch.isfinite(head.draw(noise, h)).all()
