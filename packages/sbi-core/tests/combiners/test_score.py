"""Score composition with exact scores of Gaussian posteriors, and with a trained network."""

import numpy as np
import pytest
import sbi_toy
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.combiners.gaussian import GaussianCombiner
from sbi_core.combiners.score import ScoreCombiner, ScoreConfig
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.errors import ConfigError
from sbi_core.estimators.sbi import SbiNpseEstimator
from sbi_core.posterior import Posterior

SPACE = sbi_toy.SPACE.select("global")


def analytic():
    """A score network of sbi that knows the score of N(mean, cov), given as its condition."""
    from sbi.neural_nets.estimators import ConditionalScoreEstimator
    from sbi.neural_nets.estimators.score_estimator import VPScoreEstimator

    from sbi_core.adapters.sbi import VectorFieldHead

    class Analytic(VPScoreEstimator):
        def forward(self, input, condition, time):  # noqa: A002
            mean, cov = condition[..., :2], condition[..., 2:].unflatten(-1, (2, 2))
            m, s = (f(time.reshape(-1)[:1]) for f in (self.mean_t_fn, self.std_fn))
            total = m**2 * cov + s**2 * torch.eye(2)
            return -torch.linalg.solve(total, (input - m * mean).unsqueeze(-1)).squeeze(-1)

    net = Analytic(torch.nn.Linear(1, 1), torch.Size([2]), torch.Size([6]), torch.nn.Identity())
    assert isinstance(net, ConditionalScoreEstimator)
    return VectorFieldHead(net, 2, steps=40)


class Exact(SbiNpseEstimator):
    """Exact moments and scores of the toy."""

    def __init__(self):
        super().__init__()
        self.space = SPACE
        self._network = torch.nn.Module()
        self._network.head = analytic()

    def gaussian_moments(self, batch):
        return sbi_toy.exact_moments(batch)

    def sample(self, batch, draws, rng):
        return sbi_toy.ExactEstimator.sample(self, batch, draws, [rng] * len(batch))

    def _features(self, batch):
        mean, cov = sbi_toy.exact_moments(batch)
        return torch.as_tensor(np.concatenate([mean, cov.reshape(-1, 4)], 1), dtype=torch.float32)


def objects(toy, n, rng, shift=2.0):
    theta = sbi_toy.SPACE.sample(max(n, 1), rng)
    theta[:, :2] = sbi_toy.LOC + shift * sbi_toy.SCALE
    batch = toy.simulate(theta, rng)
    err = np.exp(rng.uniform(np.log(0.3), np.log(1.0), batch.x.shape))
    x = batch.x.numpy() + err * rng.standard_normal(err.shape)
    return Observations.from_batch(Batch(x=x, x_err=err))[np.arange(n)]


@pytest.mark.parametrize("n_obs", [1, 2, 100])
def test_exact_scores_give_the_exact_posterior_off_the_prior_mean(n_obs, toy, rng):
    posterior, group = Posterior(Exact()), objects(toy, n_obs, rng)
    got = ScoreCombiner(ScoreConfig(samples=1000)).combine(posterior, group, rng=1)
    want = GaussianCombiner().combine(posterior, group)
    sd = np.sqrt(np.diag(want.z_cov))
    assert_allclose((got.z_mean - want.z_mean) / sd, 0, atol=0.17)  # 5 standard errors
    assert_allclose(np.sqrt(np.diag(got.z_cov)) / sd, 1, atol=0.13)
    assert got.samples.shape == (1000, 2)
    assert (got.combiner, got.n) == ("score", n_obs)


def test_order_of_objects_does_not_matter(toy, rng):
    posterior, group = Posterior(Exact()), objects(toy, 20, rng)
    rule = ScoreCombiner(ScoreConfig(samples=100))
    one = rule.combine(posterior, group, rng=1)
    other = rule.combine(posterior, group[rng.permutation(20)], rng=1)
    assert_allclose(one.z_mean, other.z_mean, atol=1e-4)
    assert_allclose(one.z_cov, other.z_cov, rtol=1e-2)


def test_no_object_gives_the_prior_and_the_same_seed_the_same_draws(toy, rng):
    posterior, group = Posterior(Exact()), objects(toy, 4, rng)
    none = ScoreCombiner().combine(posterior, group[np.arange(0)])
    assert_allclose(none.z_mean, 0)
    assert_allclose(none.z_cov, np.eye(2))
    rule = ScoreCombiner(ScoreConfig(samples=100, steps=50))
    one, two = (rule.combine(posterior, group, rng=3) for _ in range(2))
    assert_array_equal(one.samples, two.samples)


def test_what_it_cannot_work_with_is_refused(toy, rng):
    group = objects(toy, 3, rng)
    estimator = sbi_toy.ExactEstimator()
    estimator.space = SPACE
    with pytest.raises(ConfigError, match="needs the estimator 'sbi-npse'"):
        ScoreCombiner().combine(Posterior(estimator), group)

    class WithLocal(Exact):
        def gaussian_moments(self, batch):
            return np.zeros((len(batch), 3)), np.tile(0.5 * np.eye(3), (len(batch), 1, 1))

    local = WithLocal()
    local.space = sbi_toy.SPACE
    with pytest.raises(ConfigError, match="shared parameters alone"):
        ScoreCombiner().combine(Posterior(local), group)


def test_a_trained_network_combines(toy):
    from sbi_core.components import Training
    from sbi_core.embeddings.identity import IdentityEmbedding
    from sbi_core.estimators.sbi import SbiNpseConfig
    from sbi_core.rng import stream
    from sbi_core.training.config import TrainConfig

    gen = stream(1, "npse")
    estimator = SbiNpseEstimator(SbiNpseConfig(hidden=32, layers=2, steps=20))
    config = TrainConfig(epochs=12, learning_rate=3e-3)
    estimator.fit(
        Training(toy.draw(6000, gen), SPACE, (0, 1), toy.observe, config, seed=1),
        IdentityEmbedding(),
    )
    theta = sbi_toy.SPACE.sample(8, gen)
    theta[:, :2] = sbi_toy.LOC + sbi_toy.SCALE
    group = Observations.from_batch(toy.observe(toy.simulate(theta, gen), gen))
    rule = ScoreCombiner(ScoreConfig(samples=300, draws=300, steps=60))
    got = rule.combine(Posterior(estimator), group, rng=2)
    want = GaussianCombiner().combine(Posterior(Exact()), group)
    sd = np.sqrt(np.diag(want.z_cov))
    assert_allclose((got.z_mean - want.z_mean) / sd, 0, atol=1.5)
    assert_allclose(np.sqrt(np.diag(got.z_cov)) / sd, 1, atol=0.5)
