"""The built-in plugin ``simulations``: a fixed set of simulations in place of a simulator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sbi_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from sbi_core.components import Simulator
    from sbi_core.hookspecs import Register

__all__ = ["PIPELINE", "pipeline", "register_pipelines", "register_simulators"]

# the length of the training follows from the preset, not from the number of simulations: see
# sbi_core.pipeline.fixed
PIPELINE = """
[base]
simulate = { executor = "serial", shard_size = 20000 }
estimator = { name = "auto", parameters = "all" }

[presets.quick]
train = { retries = 0 }
diagnose = { objects = 500, draws = 500 }

[presets.standard]
train = { retries = 1 }

[presets.large]
diagnose = { objects = 4000 }
"""


def pipeline() -> str:
    """Return the presets."""
    return PIPELINE


@hookimpl
def register_simulators(register: Register[Simulator]) -> None:
    """Register the simulator that hands out the simulations of a file."""
    path = "sbi_core.simulate.arrays"
    register(
        "simulations",
        f"{path}:ArraySimulator",
        config=f"{path}:SimulationsConfig",
        summary="a fixed set of simulations",
    )


@hookimpl
def register_pipelines(register: Register[str]) -> None:
    """Register the presets."""
    register("simulations", pipeline, summary="your own simulations -> their parameters")
