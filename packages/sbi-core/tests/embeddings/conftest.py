"""A small training on sets."""

import pytest
import torch

from sbi_core.components import Training
from sbi_core.data.batch import Batch
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.rng import stream, torch_generator
from sbi_core.training.config import TrainConfig


@pytest.fixture(scope="session")
def bounded_sets():
    """theta is the mean of sets of up to five members of two features."""
    space = ParameterSpace((Parameter("t", Prior("uniform", {"low": -1.0, "high": 1.0})),))
    theta = torch.as_tensor(space.sample(300, stream(1))).float()

    def observe(batch, rng):
        gen = torch_generator(rng)
        x = batch.x + torch.randn(batch.x.shape, generator=gen)
        count = torch.randint(0, 6, (len(x), 1), generator=gen)
        mask = (torch.arange(5) < count)[..., None].expand(x.shape)
        return batch.with_(x=torch.where(mask, x, torch.nan), mask=mask)

    batch = Batch(x=theta[:, :, None].expand(300, 5, 2), theta=theta)
    return Training(batch, space, (0,), observe, TrainConfig(epochs=1, batch_size=64))
