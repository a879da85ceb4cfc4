"""Groups of simulated objects: what their combinations are judged by."""

import numpy as np
import pytest

from sbi_core.pipeline.groups import _entry, _judge_ranks
from sbi_core.priors.space import Parameter, ParameterSpace, Prior

SPACE = ParameterSpace((Parameter("a", Prior("normal", {"loc": 0.0, "scale": 1.0})),))


def _triples(rng, groups, shift=0.0):
    """Exact posteriors of width 0.1."""
    for _ in range(groups):
        truth = rng.standard_normal(1)
        yield truth + 0.1 * (rng.standard_normal(1) + shift), np.array([[0.01]]), truth


def test_an_exact_combination_passes(rng):
    entry, verdict = _entry("rule", SPACE, 3, list(_triples(rng, 1000)), 1000)
    assert entry["repeats"] == 1000
    assert entry["z_rms"] == pytest.approx(1.0, abs=0.1)
    assert entry["coverage_68"] == pytest.approx(0.68, abs=0.06)
    assert entry["coverage_95"] == pytest.approx(0.95, abs=0.03)
    assert [v.level for v in [verdict, *_judge_ranks([entry])]] == ["pass", "pass"]


def test_a_bias_that_the_root_mean_square_forgives_is_seen_by_the_ranks(rng):
    entry, verdict = _entry("rule", SPACE, 3, list(_triples(rng, 200, shift=0.5)), 200)
    assert verdict.level == "pass"  # 1.12
    (ranks,) = _judge_ranks([entry])
    assert ranks.level == "warn"
    assert "a (combined, N = 3)" in ranks.sentence
