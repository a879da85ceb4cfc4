"""Conformance tests of components, as classes to inherit, and models with a known posterior.

In a test file, one class tests a whole plugin, one test per requirement::

    from sbi_core.testing import PluginChecks


    class TestLotka(PluginChecks):
        plugin = "lotka"

or a single component::

    class TestLotkaSimulator(SimulatorChecks):
        def make(self):
            return LotkaSimulator()

Without pytest, ``SimulatorChecks.of(LotkaSimulator).run()`` runs the same tests.
"""

from sbi_core.testing.checks import Checks
from sbi_core.testing.combiners import CombinerChecks
from sbi_core.testing.embeddings import EmbeddingChecks
from sbi_core.testing.estimators import EstimatorChecks
from sbi_core.testing.models import ExactEstimator, LinearGaussian
from sbi_core.testing.pipelines import PipelineChecks
from sbi_core.testing.plugins import AnalysisChecks, CommandChecks, PluginChecks
from sbi_core.testing.priors import PriorChecks
from sbi_core.testing.simulators import SimulatorChecks

__all__ = [
    "AnalysisChecks",
    "Checks",
    "CombinerChecks",
    "CommandChecks",
    "EmbeddingChecks",
    "EstimatorChecks",
    "ExactEstimator",
    "LinearGaussian",
    "PipelineChecks",
    "PluginChecks",
    "PriorChecks",
    "SimulatorChecks",
]
