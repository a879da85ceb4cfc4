"""Calls of a run's analysis, and checks of what it returns."""

from __future__ import annotations

from typing import Any

import numpy as np

from sbi_core.analyses import Analysis
from sbi_core.data.observations import Observations
from sbi_core.errors import PluginError, SbiError, raised
from sbi_core.posterior import Posterior, PosteriorSamples
from sbi_core.priors.space import is_unit

__all__ = ["called", "described"]


def called(analysis: Analysis, method: str, *given: Any) -> Any:
    """Return what a method of an analysis returns.

    Raises
    ------
    PluginError
        If it raises an exception that is not meant for the user.
    """
    try:
        return getattr(analysis, method)(*given)
    except (SbiError, MemoryError):
        raise
    except Exception as error:  # code of a plugin may fail in any way
        msg = f"analysis '{analysis.name}': {method} raised {raised(error)}"
        raise PluginError(msg) from error


def described(
    analysis: Analysis,
    posterior: Posterior,
    objects: Observations,
    samples: PosteriorSamples,
    seed: int,
) -> PosteriorSamples:
    """Return what ``describe`` makes of the draws of some objects.

    Raises
    ------
    PluginError
        If it fails, or returns something that is no result for these objects.
    """
    got = called(analysis, "describe", posterior, objects, samples, seed)
    if fault := _fault(got, samples):
        msg = f"analysis '{analysis.name}': describe {fault}"
        raise PluginError(msg)
    assert isinstance(got, PosteriorSamples)
    return got


def _fault(got: Any, given: PosteriorSamples) -> str:
    """Return what is wrong with described draws; empty if nothing is."""
    if not isinstance(got, PosteriorSamples):
        return f"returned {type(got).__name__}; return samples.described(...), or samples"
    draws, n, dim = got.values.shape
    if (n, dim) != given.values.shape[1:] or not np.array_equal(got.id, given.id):
        return (
            f"returned other objects or parameters (shape {got.values.shape}) than it was given "
            f"({given.values.shape}); flag objects, and leave none out"
        )
    if len(got.flags) not in (0, n):
        return f"returned {len(got.flags)} flags for {n} objects; give one per object, '' for none"
    for name, drawn in got.derived.items():
        shape = np.shape(drawn)
        if name in got.space.names:
            return f"returned a derived quantity '{name}', the name of a parameter; rename it"
        if len(shape) not in (2, 3) or shape[:2] != (draws, n):
            return (
                f"returned derived quantity '{name}' of shape {shape}; expected (draw, object), "
                f"here {(draws, n)}"
            )
    for name, column in got.columns.items():
        if np.shape(column) != (n,):
            return f"returned column '{name}' of shape {np.shape(column)}; expected {(n,)}"
    for name, unit in got.units.items():
        if unit and not is_unit(unit):
            return f"returned unit '{unit}' of '{name}', which astropy does not know"
    return ""
