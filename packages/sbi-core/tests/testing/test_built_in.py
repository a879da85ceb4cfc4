"""Every built-in component keeps the promises that plugins are held to."""

import pytest

from sbi_core.registry import Registry
from sbi_core.testing import conformance_checks
from sbi_core.testing.combiners import COMBINER_CHECKS, CombinerCase
from sbi_core.testing.estimators import ESTIMATOR_CHECKS, EstimatorCase
from sbi_core.testing.outcome import bind, run_all

SMALL = {
    "mixture": {"components": 3, "hidden": [32, 32]},
    "maf": {"transforms": 2, "hidden": [32, 32]},
    "nsf": {"transforms": 2, "hidden": [32, 32]},
    "ordinal": {},
    "categorical": {},
    "mixed": {"continuous": "mixture"},
    "ensemble": {"members": 2, "of": "mixture", "options": {"components": 2, "hidden": [32]}},
    "sbi-maf": {"hidden": 16, "transforms": 2},
    "sbi-nsf": {"hidden": 12, "transforms": 2, "bins": 5},
    "sbi-npse": {},
    "sbi-fmpe": {},
}
# Densities by integration of a differential equation take minutes on a grid.
SLOW = ("sbi-npse", "sbi-fmpe")
QUICK_ONLY = ("training-is-recorded", "stored-it-draws-the-same-bits")
REGISTRY = Registry([])


def names(kind):
    return sorted(c.name for c in REGISTRY.components(kind) if c.distribution == "sbi-core")


@pytest.mark.sbi_plugin("sbi-core", only="embedding")
def test_embedding(sbi_check):
    sbi_check()


@pytest.mark.parametrize("name", names("estimator"))
def test_estimator(name, one_thread):
    slow = name in SLOW
    make = lambda: REGISTRY.build("estimator", name, SMALL.get(name, {}))  # noqa: E731
    case = EstimatorCase(make, 400 if slow else 2000, 2 if slow else 8)
    checks = bind("estimator", name, ESTIMATOR_CHECKS, lambda: case)
    results = run_all(c for c in checks if not slow or c.name in QUICK_ONLY)
    assert len(results) == (len(QUICK_ONLY) if slow else len(ESTIMATOR_CHECKS))


# Networks on sets and scores train for minutes; their own tests do that.
TRAINED = ("deepset", "score")


@pytest.mark.parametrize("name", [n for n in names("combiner") if n not in TRAINED])
def test_combiner(name, one_thread):
    options = {"recalibrated": {"groups": 200, "max_objects": 150}, "likelihood": {"draws": 128}}
    case = CombinerCase(
        lambda: REGISTRY.build("combiner", name, options.get(name)), name == "gaussian"
    )
    checks = bind("combiner", name, COMBINER_CHECKS, lambda: case)
    passed = [r.check.name for r in run_all(checks) if r.outcome == "passed"]
    assert "divides-the-prior-out" in passed


def test_the_wrong_sign_is_found():
    """A rule with the wrong sign passes only as one for comparison."""
    from sbi_toy import WrongSignCombiner

    from sbi_core.testing import ConformanceError

    checks = bind("combiner", "p", COMBINER_CHECKS, lambda: CombinerCase(WrongSignCombiner))
    assert "divides-the-prior-out" not in [
        r.check.name for r in run_all(checks) if r.outcome == "passed"
    ]
    combiner = WrongSignCombiner()
    combiner.comparison_only = False
    checks = bind("combiner", "p", COMBINER_CHECKS, lambda: CombinerCase(lambda: combiner))
    with pytest.raises(ConformanceError) as raised:
        run_all(checks)
    text = str(raised.value)
    for name in ("divides-the-prior-out", "halves-combine-to-the-whole"):
        assert f"check {name}: " in text
    assert "P = sum_i P_i - (N - 1) P_0" in text


def test_every_component_has_checks():
    found = {(c.kind, c.component) for c in conformance_checks("sbi-core")}
    want = {(c.kind, c.name) for c in REGISTRY.components() if c.distribution == "sbi-core"}
    assert want <= found
    assert len({str(c) for c in conformance_checks("sbi-core")}) == len(
        conformance_checks("sbi-core")
    )
