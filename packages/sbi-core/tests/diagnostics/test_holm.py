import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_core.diagnostics import holm, judge_sbc_all


def test_steps_of_the_definition():
    assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert_allclose(holm([0.7]), [0.7])
    assert holm([]).size == 0


def test_false_alarms_of_all_tests_together_are_as_stated(rng):
    p = rng.random((4000, 10))
    alarms = np.mean([(holm(row) < 0.05).any() for row in p])
    assert alarms < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 4000)  # false alarms of this test: 0.1 %
    assert alarms > 0.03  # not needlessly blunt: independent tests reach 0.049


def test_it_is_never_weaker_than_bonferroni(rng):
    p = rng.random(20) ** 4
    assert (holm(p) <= np.minimum(1, 20 * p) + 1e-15).all()
    assert holm(p).min() == pytest.approx(20 * p.min())


def test_a_missing_number_stays_one():
    got = holm([0.001, np.nan])
    assert np.isnan(got[1])
    assert got[0] == pytest.approx(0.002)


def test_verdicts_of_several_parameters_share_the_false_alarms():
    levels = [v.level for v in judge_sbc_all("abc", [0.006, 0.3, 0.002])]
    assert levels == ["pass", "pass", "fail"]
    with pytest.raises(ValueError, match="p-values"):
        holm([1.5])
