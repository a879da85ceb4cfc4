"""Moments of groups: against exact values, stacked groups, and what is left out in training."""

import numpy as np
import pytest

from sbi_core.combiners.group_summaries import GroupData, GroupMoments, UsualMoments
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
    value = 5 * rng.random((200_000, 2)) ** 2 + rng.standard_normal((200_000, 2))
    value[:, 1] += value[:, 0]
    names, one = ("a", "b"), np.ones(2)
    moments = GroupMoments(names, 0 * one, one, (), 0.0, noisy=True, most=100, noisiest=2 * one)
    data = GroupData(value, np.ones_like(value) * [1.0, 2**0.5], value < np.inf)
    third = moments.inputs(data, moments.switches())[5:9]
    # <x^3>/s^3 of the square of a uniform number; b = a + another one: twice that, variance 2
    g = (1 / 7 - 1 / 5 + 1 / 9 - 1 / 27) / (4 / 45) ** 1.5
    expected = [g, g / 2**0.5, g / 2, 2 * g / 2**1.5]
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


def test_one_strange_object_moves_no_moment_by_much(rng):
    names, one = ("a", "b"), np.ones(2)
    moments = GroupMoments(names, 0 * one, one, (), 0.0, noisy=True, most=100, noisiest=2 * one)
    value = rng.standard_normal((100, 2))
    strange = value.copy()
    strange[0] = 60.0, -40.0
    plain, moved = (
        moments.inputs(GroupData(v, 0.1 * np.ones((100, 2)), v < np.inf), moments.switches())
        for v in (value, strange)
    )
    off = np.abs(plain - moved)
    assert off[:2].max() < 0.1  # means; not cut: 0.6
    assert off.max() < 0.7  # a third moment; not cut: its bound of 4
    few = GroupData(strange[:5], np.zeros((5, 2)), strange[:5] < np.inf)  # too few to judge
    assert moments.inputs(few, moments.switches())[0] == pytest.approx(strange[:5, 0].mean())


def test_usual_means_allow_for_few_objects_and_large_errors(tests, rng):
    """Of groups of the model, about 1 in 1000 is said to be unusual."""
    moments = GroupMoments.of(tests, MODEL, SIZE)
    names = extended(MODEL).names
    source = GroupSimulator(MODEL, SIZE, marginalise=True, all_on=True)
    batch = source.draw(400 * SIZE, stream(5, "usual"))
    seen = MODEL.observe(batch.with_(theta=batch.theta[:, :3]), rng).with_(theta=batch.theta)
    every = [
        Observations.from_batch(seen[k * SIZE : (k + 1) * SIZE], truth_names=names)
        for k in range(400)
    ]
    usual = UsualMoments.of(moments, every[:200], rng)
    for size, factor in ((1, 1.0), (1, 6.0), (3, 6.0), (20, 6.0)):
        found = []
        for group in every[200:]:
            data = GroupData.of(group.batch)[:size]
            larger = factor * data.error
            extra = np.sqrt(larger**2 - data.error**2) * rng.standard_normal(data.value.shape)
            part = GroupData(data.value + extra, larger, data.there)
            found.append(usual.probability(moments, part))
        assert np.mean(np.array(found) < 0.001) <= 0.02
        assert 0.2 < np.median(found) < 0.95
    strange = GroupData.of(every[-1].batch)
    strange = GroupData(strange.value + 30 * moments.scale, strange.error, strange.there)
    assert usual.probability(moments, strange) < 1e-6
    assert UsualMoments.from_spec(usual.to_spec()).probability(moments, strange) < 1e-6
