"""The correction that depends on the quality of every object, on posteriors with planted errors."""

from dataclasses import replace

import numpy as np
import pytest
import sbi_toy
from biased import (
    SPACE,
    Biased,
    assert_few_objects_are_not_corrected,
    assert_order_does_not_matter,
    groups,
    z_rms,
)
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.combiners.amortised import AmortisedCombiner, AmortisedConfig
from sbi_core.combiners.gaussian import GaussianCombiner
from sbi_core.combiners.moments import quality_of_values
from sbi_core.combiners.recalibrated import RecalibratedCombiner
from sbi_core.data.batch import Batch
from sbi_core.errors import ConfigError, DataFileError
from sbi_core.posterior import Posterior
from sbi_core.report.view import FLAGS

COUNT, SIZE = 300, 200
OTHER = {"errors": (0.2, 2.0), "missing": 0.3}


def alternating(toy, rng, count=COUNT, size=SIZE):
    """In turn groups with errors of 0.5 and complete, and with other errors and gaps."""
    plain, other = groups(toy, rng, count, size), groups(toy, rng, count, size, **OTHER)
    for one, two in zip(plain, other, strict=True):
        yield one
        yield two


@pytest.fixture(scope="module")
def prepared():
    posterior = Posterior(Biased())
    rule = AmortisedCombiner(AmortisedConfig(groups=2 * COUNT, max_objects=SIZE))
    toy, rng = sbi_toy.ToySimulator(), np.random.default_rng(1)
    return rule, posterior, rule.prepare(posterior, alternating(toy, rng))


def test_the_planted_error_is_removed_for_data_like_those_of_the_run(prepared, toy, rng):
    rule, posterior, facts = prepared
    assert 0.03 < facts["f"] < 0.15
    mocks = list(groups(toy, rng, 60, 500, spread=1.0))
    plain = z_rms(GaussianCombiner(), posterior, mocks, (500,))
    got = z_rms(rule, posterior, mocks, (3, 30, 500))
    assert plain[500] > 1.3
    assert not rule.combine(posterior, mocks[0]).flags
    # 60 groups of two parameters: 1 +- 0.065; 4 sigma
    assert all(0.74 < z < 1.26 for z in got.values()), got


def test_and_for_other_errors_and_gaps_without_new_simulations(prepared, toy, rng):
    rule, posterior, _ = prepared
    mocks = list(groups(toy, rng, 60, 500, spread=1.0, **OTHER))
    got = z_rms(rule, posterior, mocks, (30, 500))
    assert all(0.7 < z < 1.26 for z in got.values()), got
    one = rule.combine(posterior, mocks[0])
    assert "untested_errors" in one.flags
    assert "unlike_trained_groups" not in one.flags
    assert (one.sd / GaussianCombiner().combine(posterior, mocks[0]).sd < 1.4).all()


def test_a_search_that_does_not_converge_is_flagged(prepared, toy, rng, monkeypatch):
    rule, posterior, _ = prepared
    monkeypatch.setattr("sbi_core.combiners.score_networks._STEPS", 1)
    got = rule.combine(posterior, next(groups(toy, rng, 1, 50)))
    assert "combination_not_converged" in got.flags
    assert "combination_not_converged" in FLAGS


def test_errors_that_no_simulation_had_are_flagged(prepared, toy, rng):
    rule, posterior, _ = prepared
    other = next(groups(toy, rng, 1, 50, errors=(0.01, 0.01)))
    assert "unlike_trained_groups" in rule.combine(posterior, other).flags


def test_one_and_two_objects_are_not_corrected(prepared, toy, rng):
    assert_few_objects_are_not_corrected(*prepared[:2], toy, rng)


def test_order_of_objects_does_not_matter(prepared, toy, rng):
    assert_order_does_not_matter(*prepared[:2], toy, rng)


def test_what_is_read_combines_as_what_was_written(prepared, toy, rng, tmp_path):
    rule, posterior, _ = prepared
    rule.save(tmp_path)
    again = AmortisedCombiner()
    again.restore(tmp_path)
    group = next(groups(toy, rng, 1, 50))
    one, two = rule.combine(posterior, group), again.combine(posterior, group)
    assert_array_equal(one.z_mean, two.z_mean)
    assert_array_equal(one.z_cov, two.z_cov)
    with pytest.raises(DataFileError, match="damaged"):  # the state of another rule
        RecalibratedCombiner().restore(tmp_path)
    with pytest.raises(ConfigError, match="amortised combiner is not trained"):
        AmortisedCombiner().combine(posterior, group)


def test_a_value_that_no_object_has_does_no_harm(toy, rng):
    def without(group):
        mask = group.batch.observed.clone()
        mask[:, 2] = False
        return replace(group, batch=group.batch.with_(mask=mask))

    posterior, rule = Posterior(Biased()), AmortisedCombiner()
    rule.prepare(posterior, (without(g) for g in groups(toy, rng, 40, 60)))
    complete = next(groups(toy, rng, 1, 60))
    got = rule.combine(posterior, without(complete))
    assert np.isfinite(got.z_mean).all()
    assert "unlike_trained_groups" not in got.flags
    assert "unlike_trained_groups" in rule.combine(posterior, complete).flags


def test_same_seed_same_networks(toy):
    facts = []
    for _ in range(2):
        rule = AmortisedCombiner()
        mocks = alternating(toy, np.random.default_rng(3), 15, 40)
        facts.append(rule.prepare(Posterior(Biased()), mocks, seed=4))
    assert facts[0] == facts[1]


def test_without_usable_groups_nothing_is_corrected(toy, rng):
    class Broad(sbi_toy.ExactEstimator):
        def gaussian_moments(self, batch):
            return np.zeros((len(batch), 2)), np.tile(2.0 * np.eye(2), (len(batch), 1, 1))

    estimator = Broad()
    estimator.space = SPACE
    rule = AmortisedCombiner()
    assert rule.prepare(Posterior(estimator), groups(toy, rng, 25, 50)) == {"groups": 0}
    got = rule.combine(Posterior(estimator), next(iter(groups(toy, rng, 1, 50))))
    assert {"not_corrected", "broader_than_prior"} <= set(got.flags)


def test_the_quality_of_values_does_not_depend_on_them():
    x = np.ones((2, 2))
    err, mask = np.full((2, 2), 0.1), np.array([[1, 1], [1, 0]], bool)
    batch = Batch(x=x, x_err=err, mask=mask, context=np.array([[5.0], [0.0]]))
    want = [[1, 1, -1, -1, 5], [1, 0, -1, np.nan, 0]]
    assert_allclose(quality_of_values(batch), want)
    assert_allclose(quality_of_values(batch.with_(x=7 * batch.x)), want)
