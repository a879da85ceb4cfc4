import h5py
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from sbi_core.data.batch import Batch
from sbi_core.errors import RunDirectoryError, SimulationError
from sbi_core.rng import stream
from sbi_core.simulate.rows import ShardedBatch


@pytest.fixture
def shards(tmp_path):
    """Three files of 40, 7 and 25 rows, some failed, and the same rows in memory."""
    rng, paths, batches = stream(1), [], []
    for k, n in enumerate((40, 7, 25)):
        ok = np.ones(n, bool) if k == 1 else rng.random(n) > 0.2
        batch = Batch.of_arrays(
            x=rng.normal(size=(n, 3)),
            theta=rng.normal(size=(n, 2)),
            mask=rng.random((n, 3)) > 0.1,
            ok=ok,
            split_key=rng.integers(0, 30, n),
        )
        paths.append(tmp_path / f"part-{k:06d}.h5")
        with h5py.File(paths[-1], "w") as f:
            for name, value in batch.numpy().items():
                f.create_dataset(name, data=value)
        batches.append(batch)
    return paths, Batch.cat(batches).succeeded


def assert_same(a, b):
    for name in ("x", "theta"):
        assert torch.equal(getattr(a, name), getattr(b, name).float())
    assert torch.equal(a.mask, b.mask)
    assert torch.equal(a.split_key, b.split_key)


def test_it_holds_the_rows_that_succeeded(shards):
    paths, whole = shards
    rows = ShardedBatch(paths, block_rows=16)
    assert len(rows) == len(whole)
    assert rows.succeeded is rows
    assert_same(rows.load(), whole)
    assert rows.nbytes == len(whole) * (3 * 4 + 2 * 4 + 3 + 8)
    assert_array_equal(np.concatenate([rows.keys(k) for k in range(rows.blocks)]), whole.split_key)


@pytest.mark.parametrize("chosen", [slice(3, 50, 7), [5, 60, 5, 0], slice(0, 0)])
def test_rows_are_those_of_the_batch_in_memory(shards, chosen):
    paths, whole = shards
    chosen = np.asarray(chosen) if isinstance(chosen, list) else chosen
    rows = ShardedBatch(paths, block_rows=11)
    assert_same(rows[chosen], whole[chosen])
    if not isinstance(chosen, slice):
        assert_same(rows[torch.as_tensor(chosen)], whole[chosen])


def test_only_what_is_asked_for_is_read(shards):
    paths, _ = shards
    part = ShardedBatch(paths).read(0, ("theta",))
    assert part.theta.shape[1] == 2
    assert part.x.shape[1] == 0


def test_its_identity_is_that_of_the_rows(shards):
    paths, _ = shards
    assert ShardedBatch(paths).identity == ShardedBatch(paths, block_rows=3).identity
    assert ShardedBatch(paths).identity != ShardedBatch(paths[:2]).identity


def test_what_cannot_be_read_is_named(shards, tmp_path):
    paths, _ = shards
    with pytest.raises(IndexError):
        ShardedBatch(paths)[np.array([1000])]
    with pytest.raises(RunDirectoryError, match="missing"):
        ShardedBatch([*paths, tmp_path / "part-000003.h5"])
    with h5py.File(paths[0], "r+") as f:
        f["ok"][...] = False
    with pytest.raises(SimulationError, match="no valid simulation"):
        ShardedBatch(paths[:1])
