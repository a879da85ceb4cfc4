import numpy as np
import torch
from numpy.testing import assert_allclose

from sbi_core.estimators.mixture import MixtureHead
from sbi_core.rng import stream


def head(d=3, k=4):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = MixtureHead(5, d, k, (16,))
        for p in net.parameters():
            p.data += 0.3 * torch.randn_like(p)
    return net.double()


def test_log_prob_is_that_of_torch_distributions():
    net, h, z = head(), torch.randn(7, 5).double(), torch.randn(9, 7, 3).double()
    log_w, mean, d, n = net(h)
    a = torch.diag_embed(d) @ (torch.eye(3) + n)
    components = torch.distributions.MultivariateNormal(mean, precision_matrix=a.mT @ a)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=log_w), components
    )
    assert_allclose(net.log_prob(z, h).detach(), mixture.log_prob(z).detach(), rtol=1e-9)


def test_moments_are_those_of_torch_distributions_and_of_draws():
    net, h = head(), torch.randn(2, 5).double()
    mean, cov = (t.detach().numpy() for t in net.moments(h))
    noise = torch.as_tensor(stream(1).standard_normal((400_000, 2, net.noise_size)))
    z = net.draw(noise, h).detach().numpy()
    error = z.std(0) / np.sqrt(len(z))
    assert_allclose(z.mean(0), mean, atol=5 * error.max())
    for k in range(2):
        assert_allclose(np.cov(z[:, k].T), cov[k], atol=0.02 * np.trace(cov[k]))


def test_weights_of_an_untrained_mixture_are_equal_and_its_width_that_of_the_prior():
    net = MixtureHead(5, 2, 8, (16,))
    log_w, _, d, _ = net(torch.zeros(1, 5))
    assert_allclose(log_w.exp().detach(), 1 / 8, atol=0.05)
    assert_allclose(d.detach(), 1, atol=0.2)


def test_it_recovers_the_conjugate_posterior(gaussian, fit_small):
    estimator = fit_small("mixture", gaussian, n=20_000, epochs=20)
    batch = gaussian.observe(gaussian.simulate(400, stream(5)), stream(6))
    want_mean, want_cov = gaussian.posterior(batch)
    z_mean, z_cov = estimator.gaussian_moments(batch)
    loc, scale = gaussian.space.moments()
    want_sd = np.sqrt(np.diagonal(want_cov, axis1=1, axis2=2))
    off = (loc + scale * z_mean - want_mean) / want_sd
    ratio = scale * np.sqrt(np.diagonal(z_cov, axis1=1, axis2=2)) / want_sd
    assert z_mean.dtype == z_cov.dtype == np.float64
    # measured 0.06-0.08 and 0.99-1.01: tolerance about twice that of a small training
    assert np.sqrt((off**2).mean(0)).max() < 0.2
    assert_allclose(np.median(ratio, axis=0), 1, atol=0.06)


def test_moments_agree_with_draws(barely, gaussian):
    estimator = barely("mixture")
    batch = gaussian.observe(gaussian.simulate(3, stream(5)), stream(6))
    mean, cov = estimator.gaussian_moments(batch)
    draws = estimator.sample(batch, 100_000, 2)
    z = gaussian.space.to_unconstrained(draws.reshape(-1, 2)).reshape(draws.shape)
    assert_allclose(z.mean(0), mean, atol=5 * z.std() / np.sqrt(len(z)))
    for k in range(3):
        assert_allclose(np.cov(z[:, k].T), cov[k], atol=0.03 * np.trace(cov[k]))
