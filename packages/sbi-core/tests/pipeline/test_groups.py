"""Groups of simulated objects: what their combinations are judged by."""

import numpy as np
import pytest

from sbi_core.pipeline.groups import _entry, _judge_ranks
from sbi_core.priors.space import Parameter, ParameterSpace, Prior

SPACE = ParameterSpace((Parameter("a", Prior("normal", {"loc": 0.0, "scale": 1.0})),))


def _triples(rng, groups, subsets, shift=0.0):
    """Exact posteriors of width 0.1; the subsets of a group share its truth."""
    for number in range(groups):
        truth = rng.standard_normal(1)
        for _ in range(subsets):
            mean = truth + 0.1 * (rng.standard_normal(1) + shift)
            yield number, (mean, np.array([[0.01]]), truth)


def test_an_exact_combination_passes(rng):
    entry, verdict = _entry("rule", SPACE, 3, list(_triples(rng, 200, 5)), 200)
    assert entry["repeats"] == 1000
    assert entry["z_rms"] == pytest.approx(1.0, abs=0.1)
    assert entry["coverage_68"] == pytest.approx(0.68, abs=0.06)
    assert entry["coverage_95"] == pytest.approx(0.95, abs=0.03)
    assert [v.level for v in [verdict, *_judge_ranks([entry])]] == ["pass", "pass"]


def test_a_bias_that_the_root_mean_square_forgives_is_seen_by_the_ranks(rng):
    entry, verdict = _entry("rule", SPACE, 3, list(_triples(rng, 200, 1, shift=0.5)), 200)
    assert verdict.level == "pass"  # 1.12
    (ranks,) = _judge_ranks([entry])
    assert ranks.level == "warn"
    assert "a (combined, N = 3)" in ranks.sentence


def test_ranks_take_one_subset_of_each_group():
    triples = [
        (number, (np.array([float(number == 0 and part > 0)]), np.eye(1), np.zeros(1)))
        for number in range(8)
        for part in range(5)
    ]
    alone = [t for t in triples if t[1][0][0] == 0.0][:8]
    with_parts, _ = _entry("rule", SPACE, 3, triples, 8)
    without, _ = _entry("rule", SPACE, 3, [(k, t) for k, (_, t) in enumerate(alone)], 8)
    assert with_parts["parameters"]["a"]["sbc_p"] == without["parameters"]["a"]["sbc_p"]
    assert with_parts["z_rms"] != without["z_rms"]
