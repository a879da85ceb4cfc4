"""Shards: a pure function of seed and identity, whole or absent, never mixed."""

import errno
import logging
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
import sbi_toy
import torch
from numpy.testing import assert_array_equal

from sbi_core.data.batch import Batch
from sbi_core.data.writing import write_atomic
from sbi_core.errors import DataFileError, RunDirectoryError, SimulationError
from sbi_core.simulate.executors import ProcessExecutor, SerialExecutor
from sbi_core.simulate.rows import ShardedBatch
from sbi_core.simulate.store import (
    Shard,
    deliver_shard,
    foreign_shards,
    is_complete,
    plan,
    read_all,
    shard_image,
)
from sbi_core.simulate.tolerance import Tolerance


@pytest.fixture
def shards(tmp_path):
    return plan(tmp_path / "sims", 250, 100, seed=5, identity="abc")


def write(simulator, shard):
    image, report = shard_image(simulator, shard)
    write_atomic(shard.path, image)
    return report


def fill(shards, simulator=None):
    for shard in shards:
        write(simulator or sbi_toy.ToySimulator(), shard)
    return shards


def test_the_plan_covers_every_row_once(tmp_path):
    assert [(s.number, s.rows) for s in plan(tmp_path, 250, 100, 1, "x")] == [
        (0, 100), (1, 100), (2, 50),
    ]  # fmt: skip
    assert [s.rows for s in plan(tmp_path, 5, 100, 1, "x")] == [5]
    assert plan(tmp_path, 5, 100, 1, "x")[0].path.name == "part-000000.h5"


def test_all_rows_come_back_in_order(shards):
    fill(shards)
    batch, reports = read_all(shards)
    assert len(batch) == 250
    assert [r.rows for r in reports] == [100, 100, 50]
    first, _ = read_all(shards[:1])
    assert_array_equal(batch.theta[:100], first.theta)
    want = batch.theta[:, :2].numpy() @ sbi_toy.A.T + batch.theta[:, 2:].numpy() * sbi_toy.B
    np.testing.assert_allclose(batch.x, want)


def test_failed_rows_are_kept_with_their_reason(shards):
    fill(shards, sbi_toy.ToySimulator(sbi_toy.ToyConfig(failing=0.3)))
    batch, reports = read_all(shards)
    assert len(batch) == 250
    assert sum(r.failed for r in reports) == int((~batch.ok).sum()) > 20
    assert_array_equal(batch.failure, torch.where(batch.ok, 0, 3))
    assert torch.isnan(batch.x[~batch.ok]).all()


def test_the_order_of_shards_does_not_change_their_bits(shards, tmp_path):
    fill(shards)
    other = plan(tmp_path / "other", 250, 100, seed=5, identity="abc")
    fill(reversed(other))
    one, two = read_all(shards)[0].numpy(), read_all(other)[0].numpy()
    for name, value in one.items():
        assert_array_equal(value, two[name])


def test_threads_do_not_change_the_bits(shards, tmp_path):
    before = torch.get_num_threads()
    other = plan(tmp_path / "other", 250, 100, seed=5, identity="abc")
    try:
        torch.set_num_threads(1)
        fill(shards)
        torch.set_num_threads(4)
        fill(other)
        assert torch.get_num_threads() == 4  # and the setting of the caller is restored
    finally:
        torch.set_num_threads(before)
    assert_array_equal(read_all(shards)[0].x, read_all(other)[0].x)


def test_worker_processes_make_the_same_bits(shards, tmp_path):
    fill(shards)
    other = plan(tmp_path / "other", 250, 100, seed=5, identity="abc")
    shared = (sbi_toy.ToySimulator(), Tolerance(), ())
    for shard, _, image in ProcessExecutor(2).map(deliver_shard, shared, other):
        write_atomic(shard.path, image)
    one, two = read_all(shards)[0].numpy(), read_all(other)[0].numpy()
    for name, value in one.items():
        assert_array_equal(value, two[name])


def test_seed_and_number_decide_about_the_draws(shards, tmp_path):
    fill(shards)
    other = fill(plan(tmp_path / "other", 250, 100, seed=6, identity="abc"))
    theta, others = read_all(shards)[0].theta, read_all(other)[0].theta
    assert not torch.isclose(theta, others).any()
    assert not torch.isclose(theta[:50], theta[100:150]).any()


def test_a_shard_is_there_or_not(shards):
    assert not is_complete(shards[0])
    fill(shards[:1])
    assert is_complete(shards[0])
    assert [p.name for p in shards[0].directory.iterdir()] == ["part-000000.h5"]


@pytest.mark.parametrize("kept", [0, 100, 0.3, 0.7, 0.99])
def test_a_truncated_shard_is_found_removed_and_said_so(kept, shards, caplog):
    fill(shards)
    path = shards[1].path
    size = path.stat().st_size
    os.truncate(path, int(kept * size) if isinstance(kept, float) else kept)
    with pytest.raises(RunDirectoryError, match="part-000001.h5' is missing or damaged"):
        read_all(shards)
    with caplog.at_level(logging.WARNING):
        assert not is_complete(shards[1])
    assert "part-000001.h5 is damaged and will be computed again" in caplog.text
    assert not path.exists()
    write(sbi_toy.ToySimulator(), shards[1])
    assert len(read_all(shards)[0]) == 250


def test_a_shard_that_another_process_holds_is_read(shards):
    """Other processes that open it for writing (by mistake) lock it."""
    fill(shards)
    with h5py.File(shards[0].path, "r+"):
        code = (
            "import sys; from pathlib import Path; from sbi_core.simulate.store import *; "
            "print(is_complete(Shard(Path(sys.argv[1]), 0, 100, 5, 'abc')))"
        )
        command = [sys.executable, "-c", code, str(shards[0].directory)]
        done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize(
    ("code", "hint"),
    [(errno.ENOLCK, True), (errno.EAGAIN, True), (errno.EMFILE, False), (errno.EIO, False)],
)
def test_a_shard_that_cannot_be_opened_is_named_and_kept(code, hint, shards, monkeypatch):
    fill(shards)

    def refuse(*args, **kwargs):
        raise OSError(code, "unable to open file")

    monkeypatch.setattr(h5py, "File", refuse)
    for read in (is_complete, lambda shard: read_all([shard])):
        with pytest.raises(DataFileError, match="part-000000.h5' cannot be read now") as raised:
            read(shards[0])
        assert ("HDF5_USE_FILE_LOCKING" in str(raised.value)) == hint
    with pytest.raises(DataFileError):
        ShardedBatch([shards[0].path])
    assert shards[0].path.exists()


def test_an_altered_byte_of_the_data_is_found(shards):
    fill(shards)
    path = shards[0].path
    with h5py.File(path) as f:
        offset = f["x"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset + 100] ^= 0x01
    path.write_bytes(bytes(content))
    with pytest.raises(RunDirectoryError, match="part-000000.h5' is missing or damaged"):
        read_all(shards)
    assert not is_complete(shards[0])


@pytest.mark.parametrize("name", ["x", "theta", "ok", "failure"])
def test_every_dataset_carries_a_checksum(name, shards):
    fill(shards[:1])
    with h5py.File(shards[0].path) as f:
        assert f[name].fletcher32


def test_a_shard_without_a_dataset_is_damaged(shards):
    fill(shards)
    with h5py.File(shards[0].path, "a") as f:
        del f["x"]
    assert not is_complete(shards[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"identity": "another"}, r"made by another simulator, prior or seed \(abc, seed 5"),
        ({"seed": 6}, "made by another simulator, prior or seed"),
        ({"rows": 99}, "has other rows or another schema"),
    ],
)
def test_a_shard_of_another_run_is_refused_not_replaced(change, message, shards):
    from dataclasses import replace

    fill(shards)
    other = replace(shards[0], **change)
    for action in (is_complete, lambda s: read_all([s])):
        with pytest.raises(RunDirectoryError, match=message):
            action(other)
    assert shards[0].path.exists()


def test_a_shard_in_the_place_of_another_is_refused(shards):
    fill(shards)
    shards[1].path.write_bytes(shards[0].path.read_bytes())
    with pytest.raises(RunDirectoryError, match="part-000001.h5 holds shard number 0"):
        read_all(shards)


def test_a_missing_shard_is_named(shards):
    fill(shards[:2])
    with pytest.raises(RunDirectoryError, match="part-000002.h5' is missing .*run simulate"):
        read_all(shards)


def test_shards_that_nobody_planned_are_listed(shards, tmp_path):
    fill(shards)
    (shards[0].directory / "notes.txt").touch()
    (shards[0].directory / "part-x.h5").touch()
    assert [p.name for p in foreign_shards(shards[0].directory, shards[:2])] == ["part-000002.h5"]
    assert list(foreign_shards(tmp_path / "nothing", shards)) == []


def test_an_interrupted_shard_leaves_nothing_behind(shards, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("sbi_core.data.writing.os.replace", stop)
    with pytest.raises(KeyboardInterrupt):
        write(sbi_toy.ToySimulator(), shards[0])
    assert list(shards[0].directory.iterdir()) == []


# -- simulators that break the contract -----------------------------------------------------------


class Breaks(sbi_toy.ToySimulator):
    def __init__(self, how):
        super().__init__()
        self.how = how

    def draw(self, n, rng):
        return self.how(super().draw(n, rng))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (lambda b: b[:-1], "'toy': draw returned 99 rows for 100"),
        (lambda b: b.with_(theta=None), "'toy': draw returned no theta"),
        (lambda b: b.with_(x=b.x.fill_(torch.nan)), "x that is not finite in rows marked ok"),
        (lambda b: b.with_(theta=b.theta * torch.inf), "returned theta that is not finite"),
        (lambda b: b.x, "draw returned Tensor; return sbi_core.Batch"),
        (lambda b: b.with_(x=b.x[:, 0]), r"x of shape \(100,\); return \(rows, columns\)"),
        (lambda b: b.with_(theta=b.theta[:, :1]), r"theta of shape \(100, 1\), not \(100, 3\)"),
        (
            lambda b: b.with_(x=torch.cat([b.x, b.x], 1)),
            r"x with \d+ columns, but `observables` names \d+; name every column",
        ),
    ],
)
def test_a_broken_simulator_is_named_before_anything_is_written(how, message, shards):
    with pytest.raises(SimulationError, match=message):
        write(Breaks(how), shards[0])
    assert not shards[0].directory.exists()


def test_a_simulator_may_return_context_errors_masks_and_images(shards):
    class Images(sbi_toy.ToySimulator):
        def draw(self, n, rng):
            theta = self.parameters.sample(n, rng)
            x = rng.normal(size=(n, 1, 4, 4)).astype(np.float32)
            return Batch(
                x=x, theta=theta, x_err=np.ones_like(x), mask=x > 0, context=theta[:, :1],
                split_key=np.arange(n) // 2,
            )  # fmt: skip

    fill(shards, Images())
    batch, _ = read_all(shards)
    assert batch.x.shape == (250, 1, 4, 4)
    assert batch.mask.dtype == torch.bool
    assert batch.split_key.dtype == torch.int64
    assert batch.x.dtype == torch.float32


def test_no_rows_of_a_one_shard_plan_are_lost_by_a_serial_executor(tmp_path):
    (shard,) = plan(tmp_path / "sims", 7, 100, 1, "x")
    (report,) = SerialExecutor().map(write, sbi_toy.ToySimulator(), [shard])
    assert (report.number, report.rows, report.failed) == (0, 7, 0)
    assert isinstance(shard, Shard)
