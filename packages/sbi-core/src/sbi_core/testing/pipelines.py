"""Requirements on a pipeline: presets resolve, the machine runs, all ways to infer agree."""

from __future__ import annotations

import json
import shutil
import tempfile
import tomllib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from astropy.table import Table

from sbi_core.errors import ConfigError
from sbi_core.files.directory import RunDirectory
from sbi_core.files.schema import check_report
from sbi_core.pipeline.catalogue import infer_catalogue
from sbi_core.pipeline.config import PRESETS, RunConfig, resolve
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.runner import Run, execute
from sbi_core.pipeline.stages import infer
from sbi_core.progress import Progress
from sbi_core.registry import Registry
from sbi_core.testing.checks import Checks, fail, once

__all__ = ["PipelineChecks", "assert_one_product"]

# Trained as long as its author wants; the calibration is what `sbi-run --preset quick` shows.
_SMALL = {"simulate.executor": "serial", "combine.calibration_groups": 0}
_AT_MOST = {
    "diagnose.objects": 60,
    "diagnose.draws": 100,
    "infer.n_example": 10,
    "infer.draws": 100,
    "combine.reference": 0,
}


class PipelineChecks(Checks[Registry]):
    """A pipeline resolves and runs; ``make`` returns the registry that has it.

    Attributes
    ----------
    pipeline
        Name of the pipeline.
    """

    pipeline: ClassVar[str] = ""

    def make(self) -> Registry:
        """Return the registry that has it: what is installed, unless overridden."""
        return Registry([self.pipeline])

    @once
    def spec(self) -> dict[str, Any]:
        """Its TOML, parsed."""
        text = self.subject.build("pipeline", self.pipeline)
        assert isinstance(text, str), f"the factory returns {type(text).__name__}; return TOML text"
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            fail(f"its text is not TOML: {error}; correct that line")
        raise AssertionError

    def small(self) -> RunConfig:
        """Return its quick preset, with few objects to diagnose and infer."""
        config = resolve(self.subject, self.pipeline, preset="quick")
        overrides: dict[str, Any] = dict(_SMALL)
        for key, most in _AT_MOST.items():
            section, field = key.split(".")
            overrides[key] = min(most, getattr(getattr(config, section), field))
        overrides["combine.sizes"] = [n for n in config.combine.sizes if n <= 10] or [1]
        # these simulate thousands of objects
        if config.combiner.name in ("simulated-moments", "group-moments"):
            overrides["combiner.name"] = "gaussian"
        return resolve(self.subject, self.pipeline, preset="quick", overrides=overrides)

    def test_it_has_a_quick_and_a_standard_preset(self) -> None:
        """Tables base and presets, no other; quick and standard are among the presets."""
        odd = sorted(set(self.spec) - {"base", "presets", "data", "minutes"})
        assert not odd, f"unknown tables {odd}; use [base], [presets.NAME], [data.NAME] and minutes"
        presets = self.spec.get("presets", {})
        missing = [p for p in ("quick", "standard") if p not in presets]
        assert not missing, f"presets {missing} are missing; add [presets.quick] and so on"
        unknown = sorted(set(presets) - set(PRESETS))
        assert not unknown, f"unknown presets {unknown}; use {', '.join(PRESETS)}"

    def test_every_preset_resolves(self) -> None:
        """Components are known and options valid, in every preset."""
        for preset in self.spec.get("presets", {}):
            try:
                resolve(self.subject, self.pipeline, preset=preset)
            except ConfigError as error:
                fail(f"{error}; correct that option")

    def test_presets_with_a_run_time_fix_the_length_of_the_training(self) -> None:
        """A preset in the table minutes sets train.epochs."""
        for preset in self.spec.get("minutes", {}):
            train = resolve(self.subject, self.pipeline, preset=preset).train
            assert train["epochs"] is not None, (
                f"preset '{preset}' gives its minutes, but the length of its training depends on "
                "the number of simulations; set train.epochs"
            )

    def test_it_runs_from_end_to_end(self) -> None:
        """All stages of the quick preset run, the report is complete, and a rerun does nothing."""
        config = self.small()
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            run = execute(config, out, self.subject)
            check_report(run.report)
            page = (out / "report.html").read_text(encoding="utf-8")
            assert self.pipeline in page, (
                "report.html does not name the plugin; name the pipeline so"
            )
            before = json.loads((out / "provenance.json").read_text(encoding="utf-8"))["stages"]
            execute(config, out, self.subject)
            after = json.loads((out / "provenance.json").read_text(encoding="utf-8"))["stages"]
        again = [s for s in before if s != "report" and before[s] != after[s]]
        assert not again, (
            f"stages {again} were done again in a second, identical run; "
            "identity and parameters of the simulator must be the same every time it is built"
        )


def assert_one_product(run: Run, observations: str | Path, folder: Path) -> Table:
    """Raise AssertionError where the three ways to infer a file differ; return the table.

    Compared are ``summary.ecsv`` of a run with these observations, the table of
    ``sbi-run infer``, and ``Run.infer(...).summary()``: columns, units, flags and numbers.

    Parameters
    ----------
    run
        A finished run.
    observations
        File of objects.
    folder
        An empty folder for copies.
    """
    directory = RunDirectory(folder / "run")
    shutil.copytree(run.directory.root, directory.root)
    config = run.config.model_copy(deep=True)
    config.infer.observations = str(observations)
    context = run._context
    infer.execute(Context(config, context.registry, directory, Progress()))
    by_run = Table.read(directory.summary, format="ascii.ecsv")
    target = folder / "infer.ecsv"
    infer_catalogue(context, observations, target, draws=config.infer.draws)
    by_command = Table.read(target, format="ascii.ecsv")
    in_python = run.infer(observations).summary()
    _same(by_run, by_command, "sbi-run infer")
    _same(by_run, in_python, "Python")
    assert by_run.meta == in_python.meta, "Python: other metadata"
    assert directory.posterior.exists()
    return by_run


def _same(one: Table, other: Table, name: str) -> None:
    assert one.colnames == other.colnames, f"{name}: other columns"
    for column in one.colnames:
        a, b = one[column], other[column]
        assert a.unit == b.unit, f"{name}: other unit of {column}"
        if a.dtype.kind == "f":
            x, y = (np.ma.filled(np.ma.asarray(v).astype(float), np.nan) for v in (a, b))
            close = np.isclose(x, y, rtol=1e-9, atol=0, equal_nan=True)
            assert close.all(), f"{name}: other numbers in {column}"
        else:
            same = [str(v) for v in a] == [str(v) for v in b]
            assert same, f"{name}: other values in {column}"
