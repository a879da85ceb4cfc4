"""Options and results that the commands ``sbi-run NAME experiments`` of plugins share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sbi_core.cli import options
from sbi_core.cli.targets import checked_folder

if TYPE_CHECKING:
    from sbi_core.pipeline.run import Run

__all__ = ["ExperimentOptions", "experiment_options"]

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class ExperimentOptions:
    """Options of experiments, as :func:`sbi_core.experiment_options` adds them to a command.

    Parameters
    ----------
    out
        Folder of the runs and of the results.
    preset
        Size of the runs.
    run
        A finished run to use instead of training one.
    seed
        Seed of all random numbers.
    overrides
        Options of the runs, ``section.key=value``.
    quiet
        Print no progress.
    """

    out: str | Path = "runs/experiments"
    preset: str = "standard"
    run: str | Path | None = None
    seed: int = 1
    overrides: Sequence[str] = ()
    quiet: bool = False

    def folder(self, name: str) -> Path:
        """Return the folder ``OUT/NAME`` of an experiment, made if it is new.

        Raises
        ------
        ConfigError
            If it cannot be made.
        """
        return checked_folder(Path(self.out) / name)

    def trained(
        self,
        plugin: str,
        folder: str,
        overrides: Sequence[str] = (),
        stages: Sequence[str] | None = None,
    ) -> Run:
        """Return the run of a plugin in ``OUT/FOLDER``, trained if it is not yet.

        Parameters
        ----------
        plugin
            Its name.
        folder
            Name of the folder.
        overrides
            Options that the experiment sets; those of the user go last.
        stages
            Stages to run; default: all.
        """
        from sbi_core.api import run  # imports torch

        return run(
            plugin,
            preset=self.preset,
            out=Path(self.out) / folder,
            overrides=[*overrides, *self.overrides],
            seed=self.seed,
            stages=stages,
            quiet=self.quiet,
        )

    def write(self, name: str, text: str, numbers: Any) -> str:
        """Write ``table.txt`` and ``numbers.json`` of an experiment; return what to print."""
        folder = self.folder(name)
        (folder / "table.txt").write_text(text, encoding="utf-8")
        (folder / "numbers.json").write_text(json.dumps(numbers, indent=1), encoding="utf-8")
        return f"{text}\ntable, numbers and figures: {folder}\n"


_OPTIONS = (
    click.option(
        "--out", metavar="DIR", default="runs/experiments", show_default=True,
        help="Folder of the runs and of the results.",
    ),
    options.preset,
    click.option("--run", metavar="DIR", help="A finished run to use instead of training one."),
    click.option(
        "--seed", metavar="N", type=click.IntRange(min=0), default=1, show_default=True,
        help="Seed of all random numbers.",
    ),
    click.option(
        "--set", "overrides", metavar="KEY=VALUE", multiple=True,
        help="Set an option of the runs (repeatable).",
    ),
    options.quiet,
)  # fmt: skip


def experiment_options(command: Function) -> Function:
    """Add ``--out``, ``--preset``, ``--run``, ``--seed``, ``--set`` and ``--quiet`` to a command.

    They are the fields of :class:`sbi_core.ExperimentOptions`.
    """
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
