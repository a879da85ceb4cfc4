"""A trained and a loaded estimator hold their weights at addresses that all processors treat alike.

Some processors round matrix products differently when an operand does not start at a multiple of
64 bytes. In training all weights are slices of one tensor, which start anywhere.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sbi_core.components import InputShape
from sbi_core.embeddings.cnn import CnnConfig, CnnEmbedding
from sbi_core.embeddings.conv1d_attention import Conv1dAttentionEmbedding
from sbi_core.embeddings.deepset import DeepsetEmbedding
from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.embeddings.mlp import MlpEmbedding
from sbi_core.embeddings.transformer import TransformerEmbedding
from sbi_core.estimators import load_estimator
from sbi_core.estimators.mixture import MixtureConfig, MixtureEstimator
from sbi_core.priors.space import Prior
from sbi_core.registry import Registry
from sbi_core.rng import stream
from sbi_core.training.networks import Standardizer

INTEGER = Prior("integer", {"low": 1, "high": 6})
NORMAL = Prior("normal", {"loc": 1.0, "scale": 2.0})
NAMES = [c.name for c in Registry([]).components("estimator")]
PRIORS = {"ordinal": (INTEGER,), "categorical": (INTEGER,), "mixed": (INTEGER, NORMAL)}
EMBEDDINGS = {
    "cnn": ((1, 16, 16), lambda: CnnEmbedding(CnnConfig(channels=(4,), hidden=(8,)))),
    "conv1d_attention": ((300,), Conv1dAttentionEmbedding),
    "deepset": ((5, 2), DeepsetEmbedding),
    "identity": ((3,), IdentityEmbedding),
    "mlp": ((3,), MlpEmbedding),
    "transformer": ((5, 2), TransformerEmbedding),
}


def tensors_of(estimator):
    networks = [m.network for m in getattr(estimator, "members", [estimator])]
    return [t for n in networks for t in (*n.parameters(), *n.buffers())]


def all_aligned(estimator):
    return all(t.data_ptr() % 64 == 0 for t in tensors_of(estimator))


def misalign(estimator):
    """Make every weight and buffer a view that starts 4 bytes after an aligned address."""
    for tensor in tensors_of(estimator):
        flat = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
        view = flat[1:].view(tensor.shape)
        tensor.data = view.copy_(tensor.data)
    assert not all_aligned(estimator)


def observed(problem, n=50):
    return problem.observe(problem.simulate(n, stream(0, "test")), stream(0, "noise"))


@pytest.fixture(scope="module")
def trained(problem_of):
    made = {}

    def get(name):
        if name not in made:
            problem = problem_of(PRIORS.get(name, (NORMAL, NORMAL)))
            estimator = Registry([]).build("estimator", name, {})
            estimator.fit(problem.training(n=300, epochs=1), IdentityEmbedding())
            made[name] = estimator, observed(problem)
        return made[name]

    return get


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_aligned_after_training_and_after_loading(name, trained, tmp_path):
    estimator, batch = trained(name)
    assert all_aligned(estimator)
    estimator.save(tmp_path)
    again = load_estimator(tmp_path)
    assert all_aligned(again)
    assert (estimator.sample(batch, 20, 1) == again.sample(batch, 20, 1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_misaligned_weights_are_aligned_by_saving_and_loading_and_by_to(name, trained, tmp_path):
    estimator, batch = trained(name)
    before = estimator.sample(batch, 20, 1)
    misalign(estimator)
    estimator.save(tmp_path)
    again = load_estimator(tmp_path)
    assert all_aligned(again)
    assert all_aligned(estimator.to("cpu"))
    assert (estimator.sample(batch, 20, 1) == before).all()
    assert (again.sample(batch, 20, 1) == before).all()


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_every_embedding_is_aligned_and_its_features_do_not_depend_on_addresses(
    name, problem_of, tmp_path
):
    shape, make = EMBEDDINGS[name]
    problem = problem_of((NORMAL, NORMAL))
    training = problem.training(n=200, epochs=1)
    size = int(np.prod(shape))

    def spread(batch):
        x = batch.x.repeat(1, -(-size // 3))[:, :size].reshape(-1, *shape)
        return replace(batch, x=x.float())

    def observe(batch, rng):
        gen = torch.Generator().manual_seed(int(rng.integers(2**31)))
        return batch.with_(x=batch.x + torch.randn(batch.x.shape, generator=gen))

    training = replace(training, batch=spread(training.batch), observe=observe)
    estimator = MixtureEstimator(MixtureConfig(components=2, hidden=(16,)))
    estimator.fit(training, make())
    assert all_aligned(estimator)
    estimator.save(tmp_path)
    assert all_aligned(load_estimator(tmp_path))
    batch = observe(spread(problem.simulate(41, stream(3))), stream(4))
    rows = batch[1:].with_(x=batch.x[1:], theta=None)
    alone = rows.with_(x=rows.x.clone())
    assert (estimator._features(rows) == estimator._features(alone)).all()
    assert (estimator.sample(rows, 9, 1) == estimator.sample(alone, 9, 1)).all()


def test_the_standardizer_returns_new_aligned_tensors(gaussian):
    batch = observed(gaussian)
    context = torch.randn(len(batch), 2)
    standardizer = Standardizer(replace(InputShape.of(batch), context=2))
    rows = batch.with_(context=context, theta=None)[1:]
    assert rows.x.data_ptr() % 64
    for tensor in standardizer(rows):
        assert tensor.data_ptr() % 64 == 0
