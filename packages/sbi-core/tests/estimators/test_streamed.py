"""Every built-in estimator trains from files that are never loaded as a whole."""

import h5py
import numpy as np
import pytest
import torch

from sbi_core.components import Training
from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.registry import Registry
from sbi_core.rng import stream, torch_generator
from sbi_core.simulate.rows import ShardedBatch
from sbi_core.training.config import TrainConfig
from sbi_core.training.rows import resident

REGISTRY = Registry([])
SMALL = {
    "mixture": {"components": 2, "hidden": [16]},
    "maf": {"transforms": 2, "hidden": [16]},
    "nsf": {"transforms": 2, "hidden": [16]},
    "mixed": {"continuous": "mixture"},
    "ensemble": {"members": 2, "of": "mixture", "options": {"components": 2, "hidden": [16]}},
    "sbi-maf": {"hidden": 12, "transforms": 2},
    "sbi-nsf": {"hidden": 12, "transforms": 2, "bins": 5},
}
NUMBER = Parameter("n", Prior("integer", {"low": 0, "high": 4}))
REAL = (
    Parameter("a", Prior("normal", {"loc": 0.0, "scale": 1.0})),
    Parameter("b", Prior("uniform", {"low": -1.0, "high": 1.0})),
)
DISCRETE = {"ordinal": (NUMBER,), "categorical": (NUMBER,), "mixed": (NUMBER, REAL[0])}
NAMES = sorted(c.name for c in REGISTRY.components("estimator") if c.distribution == "sbi-core")


def _files(folder, space):
    theta = space.sample(600, stream(1)).astype(np.float32)
    paths = []
    for k, rows in enumerate(np.array_split(np.arange(len(theta)), 4)):
        paths.append(folder / f"part-{k:06d}.h5")
        with h5py.File(paths[-1], "w") as f:
            f["theta"], f["x"] = theta[rows], theta[rows]
    return ShardedBatch(paths, block_rows=64)


def _observe(batch, rng):
    noise = torch.randn(batch.x.shape, generator=torch_generator(rng))
    return batch.with_(x=batch.x + 0.2 * noise)


@pytest.mark.parametrize("name", NAMES)
def test_it_trains_from_files(name, tmp_path, one_thread):
    space = ParameterSpace(DISCRETE.get(name, REAL))
    config = TrainConfig(epochs=2, batch_size=64, max_memory_gb=1e-9)
    columns = tuple(range(space.dim))
    training = Training(_files(tmp_path, space), space, columns, _observe, config, seed=5)
    assert isinstance(resident(training).batch, ShardedBatch)
    estimator = REGISTRY.build("estimator", name, SMALL.get(name, {}))
    record = estimator.fit(training, IdentityEmbedding())
    assert np.isfinite(record.test_nll)
    assert record.epochs >= 2
    objects = _observe(training.batch.load()[:3], stream(2))
    draws = estimator.sample(objects.with_(theta=None), 20, stream(3))
    assert draws.shape == (20, 3, space.dim)
    assert np.isfinite(draws).all()
