"""Promises of a pipeline: its presets resolve, and the whole machine runs on it."""

from __future__ import annotations

import json
import tempfile
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sbi_core.errors import ConfigError
from sbi_core.files.schema import check_report
from sbi_core.pipeline.config import PRESETS, RunConfig, resolve
from sbi_core.pipeline.runner import execute
from sbi_core.registry import Registry
from sbi_core.testing.outcome import bind, require, run_all

__all__ = ["PIPELINE_CHECKS", "PipelineCase", "check_pipeline"]

# Trained as long as its author wants; the calibration is what `sbi-run --preset quick` shows.
_SMALL = {"simulate.executor": "serial", "combine.calibration_groups": 0}
_AT_MOST = {
    "diagnose.objects": 60,
    "diagnose.draws": 100,
    "infer.n_example": 10,
    "infer.draws": 100,
    "combine.reference": 0,
}


@dataclass
class PipelineCase:
    """A plugin's pipeline and where its components are found."""

    name: str
    registry: Registry

    @cached_property
    def spec(self) -> dict[str, Any]:
        """Its TOML, parsed."""
        text = self.registry.build("pipeline", self.name)
        require(
            isinstance(text, str), f"the factory returns {type(text).__name__}", "return TOML text"
        )
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            require(False, f"its text is not TOML: {error}", "mend the line it names")
        raise AssertionError

    def small(self) -> RunConfig:
        """Return its quick preset, with few objects to diagnose and infer."""
        config = resolve(self.registry, self.name, preset="quick")
        overrides: dict[str, Any] = dict(_SMALL)
        for key, most in _AT_MOST.items():
            section, field = key.split(".")
            overrides[key] = min(most, getattr(getattr(config, section), field))
        overrides["combine.sizes"] = [n for n in config.combine.sizes if n <= 10] or [1]
        if config.combiner.name == "recalibrated":  # simulates thousands of objects
            overrides["combiner.name"] = "gaussian"
        return resolve(self.registry, self.name, preset="quick", overrides=overrides)


def check_it_has_a_quick_and_a_standard_preset(case: PipelineCase) -> None:
    """Tables base and presets, no other; quick and standard are among the presets."""
    odd = sorted(set(case.spec) - {"base", "presets", "data"})
    require(not odd, f"unknown tables {odd}", "use [base], [presets.NAME] and [data.NAME]")
    presets = case.spec.get("presets", {})
    missing = [p for p in ("quick", "standard") if p not in presets]
    require(not missing, f"presets {missing} are missing", "add [presets.quick] and so on")
    unknown = sorted(set(presets) - set(PRESETS))
    require(not unknown, f"unknown presets {unknown}", f"use {', '.join(PRESETS)}")


def check_every_preset_resolves(case: PipelineCase) -> None:
    """Components are known and options valid, in every preset."""
    for preset in case.spec.get("presets", {}):
        try:
            resolve(case.registry, case.name, preset=preset)
        except ConfigError as error:
            require(False, f"preset '{preset}': {error}", "mend that option")


def check_it_runs_from_end_to_end(case: PipelineCase) -> None:
    """All stages of the quick preset run, the report is complete, and a rerun does nothing."""
    config = case.small()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        run = execute(config, out, case.registry)
        check_report(run.report)
        page = (out / "report.html").read_text(encoding="utf-8")
        require(case.name in page, "report.html does not name the plugin", "name the pipeline so")
        before = json.loads((out / "provenance.json").read_text(encoding="utf-8"))["stages"]
        execute(config, out, case.registry)
        after = json.loads((out / "provenance.json").read_text(encoding="utf-8"))["stages"]
    again = [s for s in before if s != "report" and before[s] != after[s]]
    require(
        not again,
        f"stages {again} were done again in a second, identical run",
        "identity and parameters of the simulator must be the same every time it is built",
    )


PIPELINE_CHECKS = (
    check_it_has_a_quick_and_a_standard_preset,
    check_every_preset_resolves,
    check_it_runs_from_end_to_end,
)


def check_pipeline(name: str, registry: Registry | None = None) -> None:
    """Run all checks of a plugin's pipeline.

    Parameters
    ----------
    name
        Name of the plugin.
    registry
        Where components are found; default: what is installed.

    Raises
    ------
    ConformanceError
        With every promise that is broken.
    """
    case = PipelineCase(name, registry or Registry([name]))
    run_all(bind("pipeline", name, PIPELINE_CHECKS, lambda: case))
