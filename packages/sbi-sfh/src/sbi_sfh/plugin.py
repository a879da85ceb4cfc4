"""The plugin ``sfh``: light on import, heavy work happens in the factories."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from sbi_core import hookimpl
from sbi_sfh.config import SfhConfig

if TYPE_CHECKING:
    from click import Command

    from sbi_core import Analysis, Embedding, Estimator, Register, Simulator
    from sbi_sfh.simulator import SfhSimulator

__all__ = [
    "register_analyses",
    "register_commands",
    "register_embeddings",
    "register_estimators",
    "register_pipelines",
    "register_simulators",
]


def _simulator(config: SfhConfig) -> SfhSimulator:
    from sbi_sfh.simulator import SfhSimulator

    return SfhSimulator(config)


def _pipeline() -> str:
    return files("sbi_sfh").joinpath("pipeline.toml").read_text(encoding="utf-8")


@hookimpl
def register_simulators(register: Register[Simulator]) -> None:
    """Register ``sfh``."""
    summary = "optical galaxy spectra from star formation histories and metallicities"
    register("sfh", _simulator, config=SfhConfig, summary=summary)


@hookimpl
def register_embeddings(register: Register[Embedding]) -> None:
    """Register ``sfh-pca`` and ``sfh-conv``."""
    register(
        "sfh-pca",
        "sbi_sfh.encoder:PcaEmbedding",
        config="sbi_sfh.encoder:PcaConfig",
        summary="principal components of spectra and an MLP: 16 latents",
    )
    register(
        "sfh-conv",
        "sbi_sfh.encoder:ConvEmbedding",
        config="sbi_sfh.encoder:ConvConfig",
        summary="convolutions with attention over spectra: 16 latents",
    )


@hookimpl
def register_estimators(register: Register[Estimator]) -> None:
    """Register ``sfh-percentiles``."""
    register(
        "sfh-percentiles",
        "sbi_sfh.estimator:PercentileEstimator",
        config="sbi_sfh.estimator:PercentileConfig",
        summary="density of percentiles that are ordered by construction",
    )


@hookimpl
def register_analyses(register: Register[Analysis]) -> None:
    """Register ``sfh``."""
    summary = "residuals, support of the latents, recovered histories"
    register("sfh", "sbi_sfh.analysis:SfhAnalysis", summary=summary)


@hookimpl
def register_pipelines(register: Register[str]) -> None:
    """Register the pipeline of ``sfh``."""
    register("sfh", _pipeline, summary="one optical spectrum -> formation times and [M/H]")


@hookimpl
def register_commands(register: Register[Command]) -> None:
    """Register the commands of ``sbi-run sfh``."""
    module = "sbi_sfh.cli"
    register("recover", f"{module}:recover", summary="histories and spectra of observed galaxies")
    register(
        "refine", f"{module}:refine", summary="posteriors from the likelihood of single spectra"
    )
    register("map", f"{module}:map_cube", summary="maps of formation times and [M/H] of a cube")
    register("sensitivity", f"{module}:sensitivity", summary="the same spectra under several runs")
    register("experiments", f"{module}:experiments", summary="timing and early types, with figures")
    register("interpret", f"{module}:interpret", summary="features that the latents respond to")
    register("library", f"{module}:library", summary="check and describe a library of SSP spectra")
