"""The plugin ``casbi``: light on import, heavy work happens in the factories."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from sbi_casbi.config import CasbiConfig
from sbi_core import hookimpl

if TYPE_CHECKING:
    from click import Command

    from sbi_casbi.simulator import CasbiSimulator
    from sbi_core import Embedding, Estimator, Register

__all__ = [
    "register_commands",
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
    summary = "stellar halos of N accreted dwarf galaxies in the plane [Fe/H]-[O/Fe]"
    register("casbi", _simulator, config=CasbiConfig, summary=summary)


@hookimpl
def register_embeddings(register: Register[Embedding]) -> None:
    """Register the summary networks of a plane of counts."""
    module = "sbi_casbi.embedding"
    register(
        "casbi-mlp",
        f"{module}:PlaneEmbedding",
        config=f"{module}:MlpConfig",
        summary="plane of counts, pooled, to a fully connected network",
    )
    register(
        "casbi-cnn",
        f"{module}:CnnEmbedding",
        config=f"{module}:CnnConfig",
        summary="plane of counts to a convolutional network with skip connections",
    )


@hookimpl
def register_estimators(register: Register[Estimator]) -> None:
    """Register the estimators of sets of members."""
    register(
        "casbi-set",
        "sbi_casbi.estimator:SetEstimator",
        config="sbi_casbi.sets:SetConfig",
        summary="N, then members ordered by mass: ordinal head and one shared spline flow",
    )


@hookimpl
def register_pipelines(register: Register[str]) -> None:
    """Register the pipeline of ``casbi``."""
    register("casbi", _pipeline, summary="halo plane -> number, masses and infall times")


@hookimpl
def register_commands(register: Register[Command]) -> None:
    """Register the commands of ``sbi-run casbi``."""
    module = "sbi_casbi.cli"
    register("build", f"{module}:build", summary="make a template library from snapshots")
    register("import", f"{module}:import_stars", summary="make one from a table of stars")
