"""Conformance: does a component keep the promises that the machine builds on?

Every check is a function that returns when all is well and raises :class:`ConformanceError`
otherwise, with the values found and what to do about them. For a whole plugin, in a test file::

    @pytest.mark.sbi_plugin("lotka")
    def test_conformance(sbi_check):
        sbi_check()

which pytest shows as one test per check. Without pytest, ``check_plugin("lotka")`` does the same.
Names are imported on first use: pytest loads this package's plugin in every session.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbi_core.testing.combiners import CombinerCase, check_combiner
    from sbi_core.testing.embeddings import check_embedding
    from sbi_core.testing.estimators import EstimatorCase, check_estimator
    from sbi_core.testing.models import ExactEstimator, LinearGaussian
    from sbi_core.testing.outcome import Check, ConformanceError, NotApplicable, Result
    from sbi_core.testing.pipelines import check_pipeline
    from sbi_core.testing.plugins import check_plugin, conformance_checks
    from sbi_core.testing.priors import check_prior
    from sbi_core.testing.simulators import check_simulator

_HOME = {
    "outcome": ("Check", "ConformanceError", "NotApplicable", "Result"),
    "models": ("ExactEstimator", "LinearGaussian"),
    "priors": ("check_prior",),
    "simulators": ("check_simulator",),
    "embeddings": ("check_embedding",),
    "estimators": ("EstimatorCase", "check_estimator"),
    "combiners": ("CombinerCase", "check_combiner"),
    "pipelines": ("check_pipeline",),
    "plugins": ("check_plugin", "conformance_checks"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Check",
    "CombinerCase",
    "ConformanceError",
    "EstimatorCase",
    "ExactEstimator",
    "LinearGaussian",
    "NotApplicable",
    "Result",
    "check_combiner",
    "check_embedding",
    "check_estimator",
    "check_pipeline",
    "check_plugin",
    "check_prior",
    "check_simulator",
    "conformance_checks",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        msg = f"module 'sbi_core.testing' has no attribute '{name}'"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"sbi_core.testing.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
