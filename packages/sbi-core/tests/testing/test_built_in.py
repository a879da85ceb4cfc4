"""Every built-in component passes the tests that plugins are held to."""

import pytest
from sbi_toy import WrongSignCombiner

from sbi_core.registry import Registry
from sbi_core.testing import CombinerChecks, EmbeddingChecks, EstimatorChecks, PluginChecks

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
    "simulated-moments": {},
    "likelihood": {"draws": 64, "total": 512},
}
# Densities by integration of a differential equation take minutes on a grid.
SLOW = ("sbi-npse", "sbi-fmpe")
QUICK_ONLY = ("training-is-recorded", "stored-estimator-draws-the-same-bits")
# Networks on sets, groups and scores train for minutes; their own tests do that.
TRAINED = ("deepset", "group-moments", "score")
REGISTRY = Registry([])


def names(kind):
    return sorted(c.name for c in REGISTRY.components(kind) if c.distribution == "sbi-core")


def conformance(base, kind, name, **attributes):
    return base.of(lambda: REGISTRY.build(kind, name, SMALL.get(name)), **attributes)


@pytest.mark.parametrize("name", names("embedding"))
def test_embedding(name):
    conformance(EmbeddingChecks, "embedding", name).run()


@pytest.mark.parametrize("name", names("estimator"))
def test_estimator(name, one_thread):
    slow = name in SLOW
    length = {"simulations": 400, "epochs": 2} if slow else {"simulations": 2000}
    tests = conformance(EstimatorChecks, "estimator", name, **length)
    assert len(tests.run(*(QUICK_ONLY if slow else ()))) == (2 if slow else 9)


@pytest.mark.parametrize("name", [n for n in names("combiner") if n not in TRAINED])
def test_combiner(name, one_thread):
    outcomes = conformance(CombinerChecks, "combiner", name, exact=name == "gaussian").run()
    assert outcomes["divides-the-prior-out"] == "passed"


def test_the_wrong_sign_is_found():
    """A rule with the wrong sign passes only as one for comparison."""
    outcomes = CombinerChecks.of(WrongSignCombiner).run()
    assert outcomes["divides-the-prior-out"] == "skipped: it is for comparison only"
    combiner = WrongSignCombiner()
    combiner.comparison_only = False
    with pytest.raises(AssertionError) as raised:
        CombinerChecks.of(lambda: combiner).run()
    text = str(raised.value)
    for name in ("divides-the-prior-out", "halves-combine-to-the-whole"):
        assert f"{name}: " in text
    assert "P = sum_i P_i - (N - 1) P_0" in text


def test_every_component_has_checks():
    class BuiltIn(PluginChecks):
        plugin = "sbi-core"

    checks = BuiltIn.checks()
    for c in REGISTRY.components():
        if c.distribution == "sbi-core":
            assert [name for name in checks if name.startswith(f"{c.kind}-{c.name}-")]
