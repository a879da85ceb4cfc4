import numpy as np
import torch
from numpy.testing import assert_allclose

from sbi_core.components import Training
from sbi_core.data.batch import Batch
from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.estimators.flows import NsfConfig, NsfEstimator
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.rng import stream
from sbi_core.training.config import TrainConfig


def test_two_modes_are_found():
    """x = |theta|: the posterior has two equal narrow modes at +x and -x."""
    space = ParameterSpace((Parameter("t", Prior("uniform", {"low": -3.0, "high": 3.0})),))
    theta = space.sample(6000, stream(1))
    batch = Batch(x=torch.as_tensor(np.abs(theta)).float(), theta=torch.as_tensor(theta))
    noise = lambda b, rng: b.with_(x=b.x + 0.1 * torch.as_tensor(rng.normal(size=b.x.shape)))  # noqa: E731
    config = TrainConfig(epochs=12, batch_size=128)
    estimator = NsfEstimator(NsfConfig(transforms=2, hidden=(32, 32)))
    estimator.fit(Training(batch, space, (0,), noise, config), IdentityEmbedding())
    draws = estimator.sample(Batch(x=torch.full((1, 1), 1.5)), 4000, 1)[:, 0, 0]
    assert_allclose((draws > 0).mean(), 0.5, atol=0.15)
    assert_allclose(np.median(np.abs(draws)), 1.5, atol=0.1)
    assert (np.abs(draws) < 1).mean() < 0.1


def test_coupling_is_the_default_and_autoregressive_is_zero_passes():
    for passes, made in ((2, 2), (0, 6)):
        head = NsfEstimator(NsfConfig(passes=passes)).build_head(3, 6)
        assert {t.passes for t in head.flow.transform.transforms} == {made}
