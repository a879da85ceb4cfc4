"""Moments of groups: against exact values, stacked groups, and what is left out in training."""

import numpy as np
import pytest

from sbi_core.combiners.group_summaries import GroupData, GroupMoments
from sbi_core.data.observations import Observations
from sbi_core.pipeline.groups import GroupSimulator
from sbi_core.rng import stream
from sbi_core.simulate.nuisances import extended
from sbi_core.testing.models import OffsetModel

MODEL = OffsetModel()
SIZE = 60


@pytest.fixture(scope="module")
def tests():
    rng = stream(2, "groups")
    batch = GroupSimulator(MODEL, SIZE, marginalise=True, all_on=True).draw(20 * SIZE, rng)
    seen = MODEL.observe(batch.with_(theta=batch.theta[:, :3]), rng).with_(theta=batch.theta)
    names = extended(MODEL).names
    rows = [slice(k * SIZE, (k + 1) * SIZE) for k in range(20)]
    return [Observations.from_batch(seen[r], truth_names=names) for r in rows]


def test_third_moments_are_those_of_the_values_without_noise(rng):
    value = rng.exponential(size=(200_000, 2)) + rng.standard_normal((200_000, 2))
    value[:, 1] += value[:, 0]
    names, one = ("a", "b"), np.ones(2)
    moments = GroupMoments(names, 0 * one, one, (), 0.0, noisy=True, most=100, noisiest=2 * one)
    data = GroupData(value, np.ones_like(value) * [1.0, 2**0.5], value < np.inf)
    third = moments.inputs(data, moments.switches())[5:9]
    # <x^3>/s^3 of an exponential is 2; b = a + another one: <b^3> = 4, variance 2
    expected = [2, 2 / 2**0.5, 2 / 2, 4 / 2**1.5]
    assert third == pytest.approx(np.array(expected), rel=0.1)


def test_moments_of_several_groups_at_once_are_those_of_each(tests, rng):
    moments = GroupMoments.of(tests, MODEL, SIZE)
    on = dict.fromkeys(moments.simulated, True)
    parts = [moments.altered(GroupData.of(g.batch), on, rng) for g in tests[:9]]
    stacked = GroupData.stacked([p for p, _ in parts])
    together = moments.inputs(stacked, np.stack([s for _, s in parts]))
    alone = [moments.inputs(*part) for part in parts]
    assert len({len(p) for p, _ in parts}) > 1
    assert together == pytest.approx(np.stack(alone))


def test_training_lacks_any_number_of_observables(tests, rng):
    moments = GroupMoments.of(tests, MODEL, SIZE)
    data, on = GroupData.of(tests[0].batch), dict.fromkeys(moments.simulated, True)
    there = [moments.altered(data, on, rng)[0].there.any(0).sum() for _ in range(400)]
    assert np.bincount(there, minlength=4)[1:].min() > 40
