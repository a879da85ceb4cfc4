"""The length of a training whose epochs are not given."""

import math

import pytest

from sbi_core.components import TrainingRecord
from sbi_core.training.config import TrainConfig


@pytest.mark.parametrize(
    ("rows", "length"),
    [(1, (300, 32)), (800, (80, 32)), (8000, (63, 256)), (80_000, (50, 512)), (10**7, (50, 512))],
)
def test_length_follows_from_the_number_of_rows(rows, length):
    assert TrainConfig().length(rows) == length


@pytest.mark.parametrize("rows", [600, 2000, 8000, 30_000, 70_000, 10**6])
def test_few_rows_get_as_many_steps_as_many(rows):
    epochs, size = TrainConfig().length(rows)
    assert epochs * math.ceil(rows / size) >= 2000


def test_given_numbers_are_kept():
    assert TrainConfig(epochs=7, batch_size=100).length(8000) == (7, 100)
    assert TrainConfig(epochs=7).length(8000) == (7, 256)
    assert TrainConfig(batch_size=500).length(8000) == (125, 500)


def record(*losses, **more):
    history = tuple({"val_loss": v, **more} for v in losses)
    return TrainingRecord(len(losses), 0.0, 0.0, 1, history)


@pytest.mark.parametrize(
    ("losses", "improving"),
    [
        ([3.0, 2.0, 1.0], True),
        ([3.0, 1.0, 1.0], False),
        ([3.0, 1.0, 0.995], False),
        ([*range(20, 0, -1), *[1.02] * 9], False),
        ([*[2.0] * 18, 1.0, 1.5], True),  # the lowest is not the last
        ([1.0], False),
        ([], False),
    ],
)
def test_a_loss_that_still_falls_is_told(losses, improving):
    assert record(*losses).still_improving is improving


def test_the_members_of_an_ensemble_are_told_apart():
    one, two = record(2.0, 1.0, 1.0), record(1.0, 0.9, member=1)
    assert TrainingRecord(5, 0.0, 0.0, 1, one.history + two.history).still_improving
    assert not TrainingRecord(6, 0.0, 0.0, 1, one.history * 2).still_improving
