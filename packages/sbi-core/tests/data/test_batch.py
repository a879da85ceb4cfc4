"""Batches: shapes are checked, rows stay together."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from sbi_core.data.batch import Batch
from sbi_core.errors import SimulationError


@pytest.fixture
def batch(rng):
    return Batch(
        x=rng.normal(size=(6, 3)).astype(np.float32),
        theta=rng.normal(size=(6, 2)),
        x_err=np.full((6, 3), 0.1),
        mask=rng.random((6, 3)) < 0.7,
        context=rng.normal(size=(6, 1)),
        ok=np.array([1, 1, 0, 1, 0, 1], bool),
        failure=np.array([0, 0, 2, 0, 5, 0]),
        split_key=np.arange(6) // 2,
    )


def test_all_rows_succeed_unless_said_otherwise():
    plain = Batch(x=np.zeros((3, 2)))
    assert plain.ok.all()
    assert not plain.failure.any()
    assert plain.observed.all()
    assert plain.succeeded is plain


def test_kinds_of_numbers_are_kept(batch):
    assert batch.x.dtype == torch.float32
    assert batch.theta.dtype == torch.float64
    assert batch.mask.dtype == batch.ok.dtype == torch.bool
    assert batch.failure.dtype == batch.split_key.dtype == torch.int64
    assert Batch(x=[[1, 2]]).x.dtype == torch.float32  # integers become floats


@pytest.mark.parametrize("field", ["theta", "x_err", "mask", "context", "ok", "failure"])
def test_fields_of_another_length_are_refused(field):
    with pytest.raises(SimulationError, match=f"batch field '{field}' has 2 rows, x has 3"):
        Batch(x=np.zeros((3, 2)), **{field: np.ones(2)})


@pytest.mark.parametrize("field", ["x_err", "mask"])
def test_errors_and_mask_have_the_shape_of_x(field):
    with pytest.raises(SimulationError, match=rf"'{field}' has shape \(3, 4\), x \(3, 2\)"):
        Batch(x=np.zeros((3, 2)), **{field: np.ones((3, 4))})


@pytest.mark.parametrize("rows", [slice(1, 4), [4, 0], np.array([2, 2]), np.arange(6) % 2 == 0])
def test_rows_take_every_field_with_them(rows, batch):
    part = batch[rows]
    for name, value in batch.numpy().items():
        assert_array_equal(part.numpy()[name], value[rows])


def test_one_row_stays_a_batch(batch):
    assert len(batch[3]) == 1
    assert len(batch[-1]) == 1
    assert_array_equal(batch[-1].x[0], batch.x[5])
    with pytest.raises(IndexError):
        batch[6]


def test_failed_rows_can_be_left_out(batch):
    assert_array_equal(batch.succeeded.x, batch.x[[0, 1, 3, 5]])
    assert len(batch) == 6


def test_joining_the_parts_gives_the_whole(batch):
    again = Batch.cat([batch[:2], batch[2:]])
    for name, value in batch.numpy().items():
        assert_array_equal(again.numpy()[name], value)


def test_parts_with_different_fields_are_not_joined(batch):
    with pytest.raises(SimulationError, match="field 'x_err' is missing in some of them"):
        Batch.cat([batch, batch.with_(x_err=None)])


def test_a_precision_applies_to_numbers_only(batch):
    moved = batch.to("cpu", torch.float64)
    assert moved.x.dtype == moved.x_err.dtype == moved.context.dtype == torch.float64
    assert moved.mask.dtype == torch.bool
    assert moved.split_key.dtype == torch.int64


def test_with_changes_one_field_of_a_copy(batch):
    other = batch.with_(x=batch.x + 1)
    assert_array_equal(other.x, batch.x + 1)
    assert other.theta is batch.theta


def test_sets_carry_their_own_mask():
    sets = Batch(
        x=np.zeros((2, 4)), theta=np.zeros((2, 3, 5)), theta_mask=[[True, False, False]] * 2
    )
    assert sets.theta_mask.dtype == torch.bool
    assert sets[:1].theta_mask.shape == (1, 3)


def test_images_and_no_rows_are_fine():
    assert Batch(x=np.zeros((2, 3, 8, 8))).observed.shape == (2, 3, 8, 8)
    assert len(Batch(x=np.zeros((0, 3)))) == 0


def test_the_repr_names_shape_and_fields(batch):
    assert repr(batch).startswith("Batch(n=6, x=(3,), x, theta, x_err, mask, context")
