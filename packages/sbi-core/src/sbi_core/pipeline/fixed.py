"""Runs of a fixed set of simulations: their options, and what they cannot do.

Presets mean time: they set the number of training steps, whatever the number of simulations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sbi_core.data.simulations import Simulations, open_simulations
from sbi_core.errors import ConfigError
from sbi_core.files.directory import sha256_of
from sbi_core.hookspecs import hookimpl
from sbi_core.priors.reading import read_priors
from sbi_core.priors.space import ParameterSpace
from sbi_core.simulate.arrays import NEEDS_SIMULATOR, ArraySimulator, SimulationsConfig
from sbi_core.simulations_plugin import pipeline
from sbi_core.training.config import TrainConfig

if TYPE_CHECKING:
    from sbi_core.components import Simulator
    from sbi_core.hookspecs import Register
    from sbi_core.pipeline.context import Context

__all__ = [
    "InMemory",
    "check_possible",
    "matched",
    "options_of",
    "options_of_files",
    "sized_options",
]

STEPS = {"quick": 300, "standard": 1000, "large": 2400}  # of one of three networks, by preset
_EPOCHS = (2, 500)  # fewest and most
_SHRINKING = 0.75  # log of the shrinkage of weights without gradient: data without fresh noise


def options_of(
    simulations: Simulations,
    space: ParameterSpace,
    preset: str,
    *,
    sha256: str,
    file: str = "",
    prior: str = "",
    group_column: str = "",
    noise: Sequence[float] = (),
) -> dict[str, Any]:
    """Return the ``defaults`` of a run for :func:`sbi_core.pipeline.config.resolve`."""
    n = len(simulations)
    shape = simulations.x.shape[1:]
    names = simulations.observables
    if not names and len(shape) == 1:
        names = tuple(f"x{k + 1}" for k in range(shape[0]))
    return {
        **sized_options(preset, n, shape, space, noise=bool(noise)),
        "simulator.noise": list(noise),
        "simulate.n": n,
        "estimator.parameters": "all",
        "simulator.file": file,
        "simulator.sha256": sha256,
        "simulator.prior": prior,
        "simulator.parameters": space.to_spec()["parameters"],
        "simulator.observables": list(names),
        "simulator.units": list(simulations.units),
        "simulator.shape": list(shape),
        "simulator.errors": simulations.x_err is not None,
        "simulator.group_column": group_column,
    }


def matched(simulations: Simulations, space: ParameterSpace) -> tuple[Simulations, ParameterSpace]:
    """Return simulations with theta in the units of the prior, which takes theirs if it has none.

    Raises
    ------
    ObservationError
        If a unit of theta is not that of the prior and cannot be converted.
    """
    given = simulations.theta_units
    if not any(given):
        return simulations, space
    parameters = []
    for p, columns in space.blocks():
        unit = given[columns.start] if columns.stop <= len(given) else ""
        if unit and not p.unit:
            with suppress(ConfigError):  # not a unit of astropy
                p = replace(p, unit=unit)
        parameters.append(p)
    space = ParameterSpace(tuple(parameters), space.version)
    return simulations.in_units_of(space.names, space.units), space


def options_of_files(
    file: str,
    prior: str,
    preset: str,
    group_column: str = "",
    given: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the ``defaults`` of a run for a file of simulations and one of priors.

    Columns and noise are as given, by key.
    """
    space, given = read_priors(prior), given or {}
    chosen = given.get("simulator.observables", ())
    noise = np.atleast_1d(given.get("simulator.noise", ())).tolist()
    simulations = open_simulations(file, space.names, group_column, chosen)
    simulations, space = matched(simulations, space)
    return options_of(
        simulations,
        space,
        preset,
        sha256=sha256_of(Path(file).expanduser()),
        file=file,
        prior=prior,
        group_column=group_column,
        noise=noise,
    )


class InMemory:
    """The plugin ``simulations`` with simulations in memory."""

    def __init__(self, simulations: Simulations) -> None:
        self.simulations = simulations

    @hookimpl
    def register_simulators(self, register: Register[Simulator]) -> None:
        """Register the simulator that hands them out."""
        make = partial(ArraySimulator, simulations=self.simulations)
        register("simulations", make, config=SimulationsConfig, summary="simulations in memory")

    @hookimpl
    def register_pipelines(self, register: Register[str]) -> None:
        """Register the presets."""
        register("simulations", pipeline, summary="your own simulations -> their parameters")


def sized_options(
    preset: str, n: int, shape: Sequence[int], space: ParameterSpace, *, noise: bool
) -> dict[str, Any]:
    """Return the options that follow from number, shape and noise of the simulations.

    Without fresh noise in every epoch single networks become too narrow: an ensemble does not.
    """
    plain = all(p.prior.continuous and p.scope == "local" for p in space)
    ensemble = plain and not noise
    config = TrainConfig()
    _, size = config.length(math.ceil(0.8 * n))
    steps = math.ceil(0.8 * n / size)
    wanted = math.ceil(STEPS.get(preset, STEPS["standard"]) * (1 if ensemble else 3) / steps)
    epochs = min(max(wanted, _EPOCHS[0]), _EPOCHS[1])
    decay = _SHRINKING / (0.5 * config.peak * epochs * steps)
    return {
        "train.epochs": epochs,
        "train.weight_decay": 0.0 if noise else float(f"{decay:.3g}"),
        "estimator.name": "ensemble" if ensemble else "auto",
        "embedding.name": "mlp" if len(shape) == 1 else "cnn",
    }


def check_possible(context: Context) -> None:
    """Check that a run of a fixed set needs no new simulations.

    Raises
    ------
    ConfigError
        With what needs them, and what does not.
    """
    if not context.simulator.fixed_set:
        return
    config = context.config
    needs, instead = "", ""
    if config.emulate.enabled:
        needs = "the emulator (emulate.enabled)"
    if any(p.scope == "global" for p in context.space.parameters):
        for name in context.combiners:
            rule = context.bare_combiner(name)
            if rule.simulates or rule.takes_emulator or rule.groups_needed:
                needs, instead = f"combiner '{name}'", "; combiner.name = gaussian needs none"
        if config.combine.calibration_groups:
            needs = "the test of combinations (combine.calibration_groups)"
        if config.combine.reference:
            needs = "the check of the model (combine.reference)"
    if needs:
        raise ConfigError(NEEDS_SIMULATOR.format(needs) + instead)
