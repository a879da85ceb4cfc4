"""The contract of a stage: its declaration, and the result it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sbi_core.diagnostics import Verdict
from sbi_core.files.directory import RunDirectory
from sbi_core.pipeline.config import Stage
from sbi_core.pipeline.context import Context

__all__ = ["StageResult", "StageSpec"]


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
    """

    name: Stage
    uses: tuple[str, ...]
    after: tuple[Stage, ...]
    outputs: Callable[[RunDirectory], tuple[Path, ...]]
    inputs: Callable[[Context], Mapping[str, str]] = _no_inputs
    arrays: Callable[[RunDirectory], Path] | None = None
    optional: bool = False
    cheap: bool = False

    def execute(self, context: Context) -> StageResult:
        """Run the stage; its module is imported only now."""
        import importlib

        module = importlib.import_module(f"sbi_core.pipeline.stages.{self.name}")
        result: StageResult = module.execute(context)
        return result
