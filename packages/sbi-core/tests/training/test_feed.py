"""Rows from memory and through the shuffle buffer: the same rows, once each, per epoch."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.components import Training
from sbi_core.data.batch import Batch
from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.errors import TrainingError
from sbi_core.estimators.mixture import MixtureConfig, MixtureEstimator
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.rng import stream, torch_generator
from sbi_core.simulate.rows import ShardedBatch
from sbi_core.training.config import TrainConfig
from sbi_core.training.feed import InMemory, Streamed, slice_sizes
from sbi_core.training.rows import known_rows, resident
from sbi_core.training.splits import split_blocks, split_by_key, splits_of

SPACE = ParameterSpace((Parameter("a", Prior("normal", {"loc": 0.0, "scale": 1.0})),))
TINY = 1e-9  # GiB: everything is streamed


@pytest.fixture
def source(tmp_path):
    """700 rows in three files; x is the row number and theta."""
    return written(tmp_path, stream(1).standard_normal((700, 1)).astype(np.float32))


def written(folder, theta):
    paths = []
    for k, rows in enumerate(np.array_split(np.arange(len(theta)), 3)):
        paths.append(folder / f"part-{k:06d}.h5")
        with h5py.File(paths[-1], "w") as f:
            f["theta"] = theta[rows]
            f["x"] = np.hstack([theta[rows], rows[:, None]]).astype(np.float32)
    return ShardedBatch(paths, block_rows=64)


def training_of(batch, **options):
    def observe(batch, rng):
        noise = torch.randn(len(batch), 1, generator=torch_generator(rng))
        return batch.with_(x=batch.x[:, :1] + 0.3 * noise)

    config = TrainConfig(**{"epochs": 6, "batch_size": 50, "max_memory_gb": TINY, **options})
    return Training(batch, SPACE, (0,), observe, config, seed=5)


def estimator():
    return MixtureEstimator(MixtureConfig(components=1, hidden=(16,)))


def test_slices_differ_by_at_most_one_row():
    assert slice_sizes(10, 3).tolist() == [4, 3, 3]


def test_splits_of_blocks_are_those_of_all_keys():
    keys = stream(1).integers(0, 200, 5000)
    whole, parts = split_by_key(keys, 3), split_blocks(np.array_split(keys, 7), 3)
    for a, b in zip(whole, parts, strict=True):
        assert_array_equal(a, b)


@pytest.mark.parametrize("buffer", [1, 130, 10_000])
def test_every_epoch_has_every_row_once_in_slices_of_the_same_size(source, buffer):
    feed = Streamed(source, lambda b: b.theta, torch.device("cpu"), 1.0)
    feed.buffer = buffer
    memory = InMemory(source.load(), source.load().theta, torch.device("cpu"))
    train = splits_of(training_of(source)).train
    orders = []
    for made in (feed, memory):
        for epoch in range(2):
            slices = list(made.slices(train, stream(2, epoch), 11))
            assert [len(s.rows) for s in slices] == slice_sizes(len(train), 11).tolist()
            rows = np.concatenate([s.rows for s in slices])
            assert_array_equal(np.sort(rows), train)
            assert_array_equal(np.concatenate([s.batch.x[:, 1] for s in slices]), rows)
            assert all(torch.equal(s.targets, s.batch.theta) for s in slices)
            orders.append(rows.tolist())
    assert orders[0] != orders[1]
    again = [s.rows for s in feed.slices(train, stream(2, 0), 11)]
    assert np.concatenate(again).tolist() == orders[0]


def test_what_fits_is_loaded_and_trained_to_the_bits_of_memory(source):
    fits = training_of(source, max_memory_gb=1.0)
    assert isinstance(resident(fits).batch, Batch)
    a, b = estimator(), estimator()
    first = a.fit(fits, IdentityEmbedding())
    second = b.fit(replace(fits, batch=source.load()), IdentityEmbedding())
    assert first.test_nll == second.test_nll


def test_a_streamed_training_learns_as_much(source):
    streamed = estimator().fit(training_of(source), IdentityEmbedding())
    memory = estimator().fit(training_of(source.load()), IdentityEmbedding())
    assert streamed.split == memory.split
    assert_allclose(streamed.test_nll, memory.test_nll, atol=0.1)


def test_a_streamed_training_resumes_to_the_same_bits(source, tmp_path):
    def run(folder, callbacks=()):
        made = estimator()
        made.fit(replace(training_of(source), directory=folder), IdentityEmbedding(), callbacks)
        return made.network.state_dict()

    whole = run(tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(line):
        if line["epoch"] == 3:
            raise Stop

    with pytest.raises(Stop):
        run(tmp_path / "parts", [stop])
    for name, value in run(tmp_path / "parts").items():
        assert torch.equal(value, whole[name]), name


def test_rows_that_cannot_be_used_are_named_by_their_number(tmp_path):
    theta = stream(1).standard_normal((700, 1)).astype(np.float32)
    theta[611] = np.nan
    with pytest.raises(TrainingError, match="'a' is not finite in simulation 611"):
        estimator().fit(training_of(written(tmp_path, theta)), IdentityEmbedding())


def test_a_sample_of_what_is_on_disk_is_evenly_spread(source):
    rows = known_rows(training_of(source), 8).x[:, 1]
    assert rows.tolist() == [0, 99, 199, 299, 399, 499, 599, 699]
