"""The plugin ``casbi``. Modules are imported when a component is built."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from sbi_casbi.config import CasbiConfig
from sbi_core import hookimpl

if TYPE_CHECKING:
    from click import Command

    from sbi_casbi.simulator import CasbiSimulator
    from sbi_core import Analysis, Embedding, Estimator, Register

__all__ = [
    "register_commands",
    "register_analyses",
    "register_embeddings",
    "register_estimators",
    "register_pipelines",
    "register_simulators",
]


def _simulator(config: CasbiConfig) -> CasbiSimulator:
    from sbi_casbi.simulator import CasbiSimulator

    return CasbiSimulator(config)


def _pipeline() -> str:
    return files("sbi_casbi").joinpath("pipeline.toml").read_text(encoding="utf-8")


@hookimpl
def register_simulators(register: Register[CasbiSimulator]) -> None:
    """Register ``casbi``."""
    summary = "stellar halo of N accreted dwarf galaxies in the [Fe/H]-[O/Fe] plane"
    register("casbi", _simulator, config=CasbiConfig, summary=summary)


@hookimpl
def register_embeddings(register: Register[Embedding]) -> None:
    """Register the embedding networks of a plane of counts."""
    module = "sbi_casbi.embedding"
    register(
        "casbi-mlp",
        f"{module}:PlaneEmbedding",
        config=f"{module}:MlpConfig",
        summary="fully connected network on pooled star counts",
    )
    register(
        "casbi-cnn",
        f"{module}:CnnEmbedding",
        config=f"{module}:CnnConfig",
        summary="convolutional network with skip connections on star counts",
    )


@hookimpl
def register_estimators(register: Register[Estimator]) -> None:
    """Register the estimators of sets of members."""
    register(
        "casbi-set",
        "sbi_casbi.estimator:SetEstimator",
        config="sbi_casbi.sets:SetConfig",
        summary="density of sets: N, then members in order of mass from a shared spline flow",
    )


@hookimpl
def register_analyses(register: Register[Analysis]) -> None:
    """Register ``casbi``."""
    module = "sbi_casbi.analysis"
    register(
        "casbi",
        f"{module}:CasbiAnalysis",
        config=f"{module}:CasbiAnalysisConfig",
        summary="members of every halo, predictive planes, support",
    )


@hookimpl
def register_pipelines(register: Register[str]) -> None:
    """Register the pipeline of ``casbi``."""
    register(
        "casbi",
        _pipeline,
        summary="[Fe/H]-[O/Fe] plane -> number, masses and infall times of accreted galaxies",
    )


@hookimpl
def register_commands(register: Register[Command]) -> None:
    """Register the commands of ``sbi-run casbi``."""
    module = "sbi_casbi.cli"
    register("build", f"{module}:build", summary="make a template library from snapshots")
    register("import", f"{module}:import_stars", summary="make one from a table of stars")
