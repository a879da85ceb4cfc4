"""The plugin ``sedflow``: light on import, heavy work happens in the factories."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from sbi_core import hookimpl
from sbi_sedflow.config import SedflowConfig

if TYPE_CHECKING:
    from click import Command

    from sbi_core import Analysis, Embedding, Estimator, Register
    from sbi_sedflow.simulator import SedflowSimulator

__all__ = [
    "register_analyses",
    "register_commands",
    "register_embeddings",
    "register_estimators",
    "register_pipelines",
    "register_simulators",
]


def _simulator(config: SedflowConfig) -> SedflowSimulator:
    from sbi_sedflow.simulator import SedflowSimulator

    return SedflowSimulator(config)


def _pipeline() -> str:
    return files("sbi_sedflow").joinpath("pipeline.toml").read_text(encoding="utf-8")


@hookimpl
def register_simulators(register: Register[SedflowSimulator]) -> None:
    """Register ``sedflow``."""
    summary = "stellar populations from GALEX and SDSS photometry (PROVABGS model)"
    register("sedflow", _simulator, config=SedflowConfig, summary=summary)


@hookimpl
def register_embeddings(register: Register[Embedding]) -> None:
    """Register ``sed-mlp``."""
    module = "sbi_sedflow.embedding"
    summary = "colours, magnitude, errors, mask and redshift of a galaxy"
    register("sed-mlp", f"{module}:SedEmbedding", config=f"{module}:SedConfig", summary=summary)


@hookimpl
def register_estimators(register: Register[Estimator]) -> None:
    """Register ``sed-flow``."""
    module = "sbi_sedflow.estimator"
    summary = "linear map with full covariance, then coupling splines"
    register(
        "sed-flow", f"{module}:SedFlowEstimator", config=f"{module}:SedFlowConfig", summary=summary
    )


@hookimpl
def register_analyses(register: Register[Analysis]) -> None:
    """Register ``sedflow``."""
    module = "sbi_sedflow.analysis"
    summary = "star formation rate, mass and age; fit quality; refinement"
    register(
        "sedflow",
        f"{module}:SedflowAnalysis",
        config=f"{module}:SedflowAnalysisConfig",
        summary=summary,
    )


@hookimpl
def register_pipelines(register: Register[str]) -> None:
    """Register the pipeline of ``sedflow``."""
    register("sedflow", _pipeline, summary="galaxy photometry -> PROVABGS parameters per galaxy")


@hookimpl
def register_commands(register: Register[Command]) -> None:
    """Register the commands of ``sbi-run sedflow``."""
    module = "sbi_sedflow.cli"
    summary = "draw the training set with a catalogue, and network with MCMC"
    register("figures", f"{module}:figures", summary=summary)
    summary = "write draws in the layout of the SEDflow catalogue"
    register("catalogue", f"{module}:catalogue", summary=summary)
    register("ssp", f"{module}:ssp", summary="build, describe or verify the stellar spectra")
    register("bases", f"{module}:bases", summary="fit the bases of the histories")
    register("emulator", f"{module}:emulator", summary="convert the emulator of PROVABGS")
