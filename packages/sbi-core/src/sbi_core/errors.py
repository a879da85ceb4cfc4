"""Errors a user may meet: one clear sentence each, exit code 2 on the command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "ComponentNotFoundError",
    "ConfigError",
    "DataFileError",
    "DensityUnavailableError",
    "NotPositiveDefiniteError",
    "NothingObservedError",
    "ObservationError",
    "PluginError",
    "PriorMismatchError",
    "RunDirectoryError",
    "SbiError",
    "SimulationError",
    "TrainingError",
    "near_matches",
]


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
    """A data file that is missing, truncated, or not what its name promises."""


class ObservationError(SbiError, ValueError):
    """Observations that cannot be used as given."""


class NothingObservedError(ObservationError):
    """Objects none of which has any observed value."""


class PriorMismatchError(SbiError):
    """Posterior and analysis disagree about the prior."""


class DensityUnavailableError(SbiError):
    """A density was asked of a prior that only has a sampler, or of an object without one."""


class NotPositiveDefiniteError(SbiError):
    """A combined precision is not positive definite."""


class RunDirectoryError(SbiError):
    """A run directory that holds something else, cannot be written, or is damaged."""


class SimulationError(SbiError):
    """A simulator returned something that breaks the contract."""


class TrainingError(SbiError):
    """Training cannot start or cannot go on."""


def near_matches(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'a' or 'b'?"``, or an empty string when nothing is near.

    Parameters
    ----------
    name
        What the user wrote.
    known
        The names that exist.
    """
    folded = {k.casefold(): k for k in sorted(set(known))}
    close = difflib.get_close_matches(name.casefold(), folded, n=3, cutoff=0.5)
    if not close:
        return ""
    return "; did you mean " + " or ".join(f"'{folded[c]}'" for c in close) + "?"
