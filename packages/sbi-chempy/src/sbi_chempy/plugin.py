"""The plugin ``chempy``: light on import, heavy work happens in the factories."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from sbi_chempy.config import ChempyConfig
from sbi_core import hookimpl

if TYPE_CHECKING:
    from click import Command

    from sbi_chempy.published import PublishedCombiner
    from sbi_chempy.simulator import ChempySimulator
    from sbi_core import Analysis, Register

__all__ = [
    "register_analyses",
    "register_combiners",
    "register_commands",
    "register_pipelines",
    "register_simulators",
]


def _simulator(config: ChempyConfig) -> ChempySimulator:
    from sbi_chempy.simulator import ChempySimulator

    return ChempySimulator(config)


def _pipeline() -> str:
    return files("sbi_chempy").joinpath("pipeline.toml").read_text(encoding="utf-8")


@hookimpl
def register_simulators(register: Register[ChempySimulator]) -> None:
    """Register ``chempy``."""
    summary = "one-zone chemical evolution: IMF slope and SN Ia rate from stellar abundances"
    register("chempy", _simulator, config=ChempyConfig, summary=summary)
    register(
        "chempy-marginal",
        "sbi_chempy.marginal:ChempyMarginalSimulator",
        config="sbi_chempy.marginal:ChempyMarginalConfig",
        summary="chempy with several yield sets in equal shares, one per galaxy",
    )


@hookimpl
def register_combiners(register: Register[PublishedCombiner]) -> None:
    """Register ``published``, for comparison."""
    register(
        "published",
        "sbi_chempy.published:PublishedCombiner",
        config="sbi_chempy.published:PublishedConfig",
        summary="Buck et al. 2025 eqs. 8-9; comparison only",
    )


@hookimpl
def register_analyses(register: Register[Analysis]) -> None:
    """Register ``chempy``."""
    summary = "flags stars older than the Universe"
    register("chempy", "sbi_chempy.analysis:ChempyAnalysis", summary=summary)


@hookimpl
def register_pipelines(register: Register[str]) -> None:
    """Register the pipeline of ``chempy``."""
    register("chempy", _pipeline, summary="stars of one galaxy -> IMF slope and SN Ia rate")


@hookimpl
def register_commands(register: Register[Command]) -> None:
    """Register the command of ``sbi-run chempy``."""
    summary = "repeat the experiments of Buck et al. 2025"
    register("experiments", "sbi_chempy.cli:experiments", summary=summary)
