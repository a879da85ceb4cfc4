"""Errors a user may meet, one sentence each (exit code 2), and words for such sentences."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "ComponentNotFoundError",
    "ConfigError",
    "DataFileError",
    "DensityUnavailableError",
    "NothingObservedError",
    "ObservationError",
    "PluginError",
    "PriorMismatchError",
    "RunDirectoryError",
    "SbiError",
    "SimulationError",
    "TrainingError",
    "WorkerLostError",
    "counted",
    "first_line",
    "near_matches",
    "raised",
]


MAIN_THREAD_ENDED = "the main thread has ended; join the threads that use sbi_core before it does"


class SbiError(Exception):
    """Base of every error whose message is meant for the user.

    ``exit_code`` is what the command line returns.
    """

    exit_code: int = 2


class ConfigError(SbiError):
    """A configuration key or value that cannot be used."""


class PluginError(SbiError):
    """A plugin that failed to load, or two plugins that clash."""


class ComponentNotFoundError(PluginError, LookupError):
    """No component of that kind has that name."""


class DataFileError(SbiError):
    """A data file that is missing, truncated, or of another kind than its name."""


class ObservationError(SbiError, ValueError):
    """Observations that cannot be used as given."""


class NothingObservedError(ObservationError):
    """Objects none of which has any observed value."""


class PriorMismatchError(SbiError):
    """Posterior and analysis have different priors."""


class DensityUnavailableError(SbiError):
    """A density of a prior that only has a sampler, or of an estimator without one."""


class RunDirectoryError(SbiError):
    """A run directory that holds something else, cannot be written, or is damaged."""


class SimulationError(SbiError):
    """A simulator returned something that violates the contract."""


class WorkerLostError(SimulationError):
    """A worker process died; finished items are kept."""


class TrainingError(SbiError):
    """Training cannot start or cannot go on."""


def counted(n: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun.

    >>> counted(1, "object"), counted(0, "object"), counted(2, "galaxy", "galaxies")
    ('1 object', '0 objects', '2 galaxies')
    """
    return f"{n} {noun if n == 1 else plural or noun + 's'}"


def first_line(error: BaseException) -> str:
    """Return the first line of the message of an error."""
    return str(error).strip().split("\n")[0]


def raised(error: BaseException) -> str:
    """Return type, message and line of an exception that code of a plugin raised."""
    text = " ".join(f"{type(error).__name__}: {first_line(error)}".rstrip(": ").split())
    text = text if len(text) <= 300 else f"{text[:297]}..."
    calls = [
        (Path(f.filename), f.lineno)
        for f in traceback.extract_tb(error.__traceback__)
        if not f.filename.startswith("<frozen")
    ]
    theirs = [c for c in calls if not {"importlib", "sbi_core"} & set(c[0].parts[:-1])]
    return f"{text} ({theirs[-1][0].name}, line {theirs[-1][1]})" if theirs else text


def near_matches(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'a' or 'b'?"``, or an empty string when nothing is near."""
    folded = {k.casefold(): k for k in sorted(set(known))}
    close = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)
    if not close:
        return ""
    return "; did you mean " + " or ".join(f"'{folded[c]}'" for c in close) + "?"
