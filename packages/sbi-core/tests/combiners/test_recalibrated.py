"""The learned correction, on an exact posterior with a planted error."""

import json

import numpy as np
import pytest
import sbi_toy
from biased import (
    Biased,
    assert_few_objects_are_not_corrected,
    assert_order_does_not_matter,
    groups,
    z_rms,
)
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.combiners.gaussian import GaussianCombiner
from sbi_core.combiners.moments import data_quality
from sbi_core.combiners.recalibrated import RecalibratedCombiner, RecalibratedConfig
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.errors import ConfigError, DataFileError, PriorMismatchError
from sbi_core.posterior import Posterior
from sbi_core.priors.space import Parameter, ParameterSpace, Prior


@pytest.fixture(scope="module")
def prepared():
    rng = np.random.default_rng(1)
    posterior = Posterior(Biased())
    rule = RecalibratedCombiner(RecalibratedConfig(groups=200, max_objects=200))
    facts = rule.prepare(posterior, groups(sbi_toy.ToySimulator(), rng, 200, 200))
    return rule, posterior, facts


def test_the_planted_error_is_removed_for_any_number_of_objects(prepared, toy, rng):
    rule, posterior, facts = prepared
    assert 0.03 < facts["f"] < 0.15
    mocks = list(groups(toy, rng, 100, 2000, spread=1.0))
    sizes = (3, 30, 300, 2000)  # learned from groups of 200
    plain = z_rms(GaussianCombiner(), posterior, mocks, sizes)
    got = z_rms(rule, posterior, mocks, sizes)
    assert plain[2000] > 2
    # 100 groups of two parameters: 1 +- 0.05; 5 sigma
    assert all(0.75 < z < 1.25 for z in got.values()), got


def test_it_stays_nearly_as_sharp(prepared, toy, rng):
    rule, posterior, _ = prepared
    group = next(groups(toy, rng, 1, 200, spread=0.5))
    got = rule.combine(posterior, group)
    plain = GaussianCombiner().combine(posterior, group)
    assert (got.sd / plain.sd < 1.15).all()
    assert got.diagnostics["correction_uncertainty"] < 0.3


def test_what_was_not_learned_widens_the_result_and_is_flagged(prepared, toy, rng):
    rule, posterior, _ = prepared
    theta = sbi_toy.SPACE.sample(20_000, rng)
    theta[:, :2] = sbi_toy.LOC + 6 * sbi_toy.SCALE  # far from all simulated groups
    batch = toy.observe(toy.simulate(theta, rng), rng)
    got = rule.combine(posterior, Observations.from_batch(batch))
    plain = GaussianCombiner().combine(posterior, Observations.from_batch(batch))
    assert "more_objects_than_trained" in got.flags
    assert (got.sd > 1.4 * plain.sd).all()


def test_without_an_error_nothing_much_changes(toy, rng):
    posterior = Posterior(Biased(0.0))
    rule = RecalibratedCombiner(RecalibratedConfig(groups=100, max_objects=100))
    facts = rule.prepare(posterior, groups(toy, rng, 100, 100))
    assert facts["f"] < 0.02
    assert facts["spread"] == pytest.approx(1.0, abs=0.05)
    group = next(groups(toy, rng, 1, 100))
    got = rule.combine(posterior, group)
    plain = GaussianCombiner().combine(posterior, group)
    assert_allclose((got.z_mean - plain.z_mean) / np.sqrt(np.diag(plain.z_cov)), 0, atol=0.3)
    assert_allclose(got.sd, plain.sd, rtol=0.1)


def test_errors_and_missing_values_that_differ_between_objects(toy, rng):
    posterior = Posterior(Biased())
    rule = RecalibratedCombiner(RecalibratedConfig(groups=200, max_objects=200))
    mixed = {"errors": (0.2, 2.0), "missing": 0.3}
    rule.prepare(posterior, groups(toy, rng, 200, 200, **mixed))
    got = z_rms(rule, posterior, groups(toy, rng, 100, 1000, spread=1.0, **mixed), (10, 1000))
    assert all(0.75 < z < 1.25 for z in got.values()), got
    other = next(groups(toy, rng, 1, 50, errors=(0.01, 0.01)))
    assert "unlike_trained_groups" in rule.combine(posterior, other).flags


def test_one_and_two_objects_are_not_corrected(prepared, toy, rng):
    assert_few_objects_are_not_corrected(*prepared[:2], toy, rng)


def test_order_of_objects_does_not_matter(prepared, toy, rng):
    assert_order_does_not_matter(*prepared[:2], toy, rng)


def test_what_is_read_combines_as_what_was_written(prepared, toy, rng, tmp_path):
    rule, posterior, _ = prepared
    rule.save(tmp_path)
    again = RecalibratedCombiner()
    again.restore(tmp_path)
    group = next(groups(toy, rng, 1, 50))
    one, two = rule.combine(posterior, group), again.combine(posterior, group)
    assert_array_equal(one.z_mean, two.z_mean)
    assert_array_equal(one.z_cov, two.z_cov)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataFileError, match="damaged"):
        again.restore(tmp_path)


def test_an_unprepared_rule_and_another_prior_are_refused(prepared, toy, rng):
    group = next(groups(toy, rng, 1, 5))
    with pytest.raises(ConfigError, match="is not trained"):
        RecalibratedCombiner().combine(Posterior(Biased()), group)
    other = Biased()
    other.space = ParameterSpace(
        (
            Parameter("slope", Prior("normal", {"loc": 9.0, "scale": 0.5}), scope="global"),
            Parameter("offset", Prior("normal", {"loc": -2.0, "scale": 2.0}), scope="global"),
        )
    )
    with pytest.raises(PriorMismatchError):
        prepared[0].combine(Posterior(other), group)


def test_without_usable_groups_nothing_is_corrected(toy, rng, tmp_path):
    """Posteriors broader than the prior: a correction cannot be learned."""

    class Broad(sbi_toy.ExactEstimator):
        def gaussian_moments(self, batch):
            return np.zeros((len(batch), 2)), np.tile(2.0 * np.eye(2), (len(batch), 1, 1))

    estimator = Broad()
    estimator.space = sbi_toy.SPACE.select("global")
    posterior = Posterior(estimator)
    rule = RecalibratedCombiner()
    assert rule.prepare(posterior, groups(toy, rng, 25, 50)) == {"groups": 0}
    rule.save(tmp_path)
    again = RecalibratedCombiner()
    again.restore(tmp_path)
    for r in (rule, again):
        got = r.combine(posterior, next(iter(groups(toy, rng, 1, 50))))
        assert {"not_corrected", "broader_than_prior"} <= set(got.flags)
        assert_allclose(got.z_cov, np.eye(2), atol=1e-12)
    rewritten = json.loads((tmp_path / "config.json").read_text()) | {"corrected": True}
    (tmp_path / "config.json").write_text(json.dumps(rewritten))
    with pytest.raises(DataFileError, match="weights"):
        RecalibratedCombiner().restore(tmp_path)


def test_the_quality_of_data_does_not_depend_on_their_values():
    x = np.ones((2, 3))
    err, mask = np.full((2, 3), 0.1), np.array([[1, 1, 1], [1, 0, 0]], bool)
    batch = Batch(x=x, x_err=err, mask=mask, context=np.array([[5.0, 1.0], [0.0, 0.0]]))
    want = [[-1, 1, 1, 1], [-1, 1 / 3, 0, 0]]
    assert_allclose(data_quality(batch), want)
    assert_allclose(data_quality(batch.with_(x=7 * batch.x)), want)
