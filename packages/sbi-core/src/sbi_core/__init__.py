"""Simulation-based inference with plugins: the machine without the astronomy.

Public names are imported on first use, so that ``import sbi_core`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sbi_core.hookspecs import HOOK_API, Register, hookimpl

if TYPE_CHECKING:
    from sbi_core import diagnostics, plot
    from sbi_core.analyses.base import Analysis
    from sbi_core.analyses.findings import Drawing, Findings, Grid, Section
    from sbi_core.api import (
        get_combiner,
        get_embedding,
        get_estimator,
        get_simulator,
        load_run,
        plugins,
        run,
    )
    from sbi_core.combiners.comparison import ModelComparison
    from sbi_core.combiners.moments import Gaussian, MomentCombiner, MomentConfig, ObjectMoments
    from sbi_core.components import (
        Combiner,
        Embedding,
        Estimator,
        InputShape,
        Rng,
        Simulator,
        Training,
        TrainingRecord,
    )
    from sbi_core.data.batch import Batch
    from sbi_core.data.fetch import DataFile, Dataset, data_dirs, find_data, require_data
    from sbi_core.data.observations import Excluded, Observable, Observations
    from sbi_core.data.tables import (
        ColumnReader,
        observations_from_columns,
        read_observations,
        read_table,
    )
    from sbi_core.errors import (
        ConfigError,
        DataFileError,
        ObservationError,
        PriorMismatchError,
        SbiError,
    )
    from sbi_core.estimators.base import FlowEstimator
    from sbi_core.pipeline.runner import Run
    from sbi_core.posterior import CombinedPosterior, Posterior, PosteriorSamples
    from sbi_core.priors.space import Parameter, ParameterSpace, Prior
    from sbi_core.registry import Registry
    from sbi_core.rng import as_generator, seeded, stream, torch_defaults, torch_generator
    from sbi_core.simulate.mixture import MixtureSimulator
    from sbi_core.training.loop import Trainable, TrainConfig, train_network
    from sbi_core.training.networks import Head

__version__ = "0.1.0"

_HOME = {
    "sbi_core.api": (
        "get_combiner",
        "get_embedding",
        "get_estimator",
        "get_simulator",
        "load_run",
        "plugins",
        "run",
    ),
    "sbi_core.data.batch": ("Batch",),
    "sbi_core.combiners.comparison": ("ModelComparison",),
    "sbi_core.combiners.moments": (
        "Gaussian",
        "MomentCombiner",
        "MomentConfig",
        "ObjectMoments",
    ),
    "sbi_core.components": (
        "Combiner",
        "Embedding",
        "Estimator",
        "InputShape",
        "Rng",
        "Simulator",
        "Training",
        "TrainingRecord",
    ),
    "sbi_core.data.fetch": ("DataFile", "Dataset", "data_dirs", "find_data", "require_data"),
    "sbi_core.errors": (
        "ConfigError",
        "DataFileError",
        "DensityUnavailableError",
        "ObservationError",
        "PriorMismatchError",
        "SbiError",
    ),
    "sbi_core.estimators.base": ("FlowEstimator",),
    "sbi_core.analyses.base": ("Analysis",),
    "sbi_core.analyses.findings": ("Drawing", "Findings", "Grid", "Section"),
    "sbi_core.simulate.mixture": ("MixtureSimulator",),
    "sbi_core.training.networks": ("Head",),
    "sbi_core.data.observations": ("Excluded", "Observable", "Observations"),
    "sbi_core.posterior": ("CombinedPosterior", "Posterior", "PosteriorSamples"),
    "sbi_core.priors.space": ("Parameter", "ParameterSpace", "Prior"),
    "sbi_core.rng": ("as_generator", "seeded", "stream", "torch_defaults", "torch_generator"),
    "sbi_core.pipeline.runner": ("Run",),
    "sbi_core.registry": ("Registry",),
    "sbi_core.training.loop": ("TrainConfig", "Trainable", "train_network"),
    "sbi_core.data.tables": (
        "ColumnReader",
        "observations_from_columns",
        "read_observations",
        "read_table",
    ),
}
_SUBMODULES = ("diagnostics", "plot")  # imported on first use, too
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Analysis",
    "Batch",
    "ColumnReader",
    "CombinedPosterior",
    "Combiner",
    "ConfigError",
    "DataFile",
    "DataFileError",
    "Dataset",
    "DensityUnavailableError",
    "Drawing",
    "Embedding",
    "Estimator",
    "Excluded",
    "Findings",
    "FlowEstimator",
    "Gaussian",
    "Grid",
    "HOOK_API",
    "Head",
    "InputShape",
    "MixtureSimulator",
    "ModelComparison",
    "MomentCombiner",
    "MomentConfig",
    "ObjectMoments",
    "Observable",
    "ObservationError",
    "Observations",
    "Parameter",
    "ParameterSpace",
    "Posterior",
    "PosteriorSamples",
    "Prior",
    "PriorMismatchError",
    "Register",
    "Registry",
    "Rng",
    "Run",
    "SbiError",
    "Section",
    "Simulator",
    "TrainConfig",
    "Trainable",
    "Training",
    "TrainingRecord",
    "__version__",
    "as_generator",
    "data_dirs",
    "diagnostics",
    "find_data",
    "get_combiner",
    "get_embedding",
    "get_estimator",
    "get_simulator",
    "hookimpl",
    "load_run",
    "observations_from_columns",
    "plot",
    "plugins",
    "read_observations",
    "read_table",
    "require_data",
    "run",
    "seeded",
    "stream",
    "torch_defaults",
    "torch_generator",
    "train_network",
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"sbi_core.{name}")
    if name not in _MODULE_OF:
        msg = f"module 'sbi_core' has no attribute '{name}'"
        raise AttributeError(msg)
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
