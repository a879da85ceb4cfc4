"""The contract of a stage: its declaration, and the result it returns."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sbi_core.diagnostics import Verdict
from sbi_core.files.directory import RunDirectory
from sbi_core.pipeline.config import Stage
from sbi_core.pipeline.context import Context

__all__ = ["Job", "StageResult", "StageSpec"]


@dataclass(frozen=True, slots=True)
class StageResult:
    """Outcome of a stage.

    Parameters
    ----------
    facts
        Numbers and words for the report; JSON-serialisable, kept in ``provenance.json``.
    verdicts
        Verdicts on the result.
    arrays
        Arrays for the report; kept in the file that :attr:`StageSpec.arrays` names.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    verdicts: Sequence[Verdict] = ()
    arrays: Mapping[str, Any] = field(default_factory=dict)


Job = Callable[[Context], StageResult | None]


def _no_inputs(context: Context) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class StageSpec:
    """Declaration of a stage; its code is ``execute(context) -> StageResult`` in its own module.

    Parameters
    ----------
    name
        Name on the command line, and of the module in :mod:`sbi_core.pipeline.stages`.
    uses
        Configuration keys (prefixes) that decide about the result.
    after
        Earlier stages whose results it uses.
    outputs
        Files and folders it writes in the run directory.
    inputs
        Hashes of further inputs that decide about the result, by name.
    arrays
        File of the arrays it returns.
    optional
        Whether stages of ``after`` may be missing.
    cheap
        Whether it is simply repeated after a change of its input; other stages are refused
        until the user restarts them.
    ahead
        Stages after which part of its work can be done in the background; its module then has
        a function ``ahead`` (see :mod:`sbi_core.pipeline.ahead`).
    """

    name: Stage
    uses: tuple[str, ...]
    after: tuple[Stage, ...]
    outputs: Callable[[RunDirectory], tuple[Path, ...]]
    inputs: Callable[[Context], Mapping[str, str]] = _no_inputs
    arrays: Callable[[RunDirectory], Path] | None = None
    optional: bool = False
    cheap: bool = False
    ahead: tuple[Stage, ...] = ()

    def execute(self, context: Context) -> StageResult:
        """Run the stage."""
        result: StageResult = self._module().execute(context)
        return result

    def work_ahead(self, context: Context, after: Stage) -> Job | None:
        """Return the job that can be done after another stage, if there is any."""
        job: Job | None = self._module().ahead(context, after)
        return job

    def _module(self) -> Any:
        """Import the module of the stage, which may be slow."""
        return importlib.import_module(f"sbi_core.pipeline.stages.{self.name}")
