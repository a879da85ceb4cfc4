"""Parameter spaces from what users write: a file of priors, distributions by name, or nothing.

A file of priors is TOML, a table per parameter in the order of the columns of theta: the name of
the family with its numbers, and optionally ``unit``, ``label``, ``scope`` and ``description``::

    omega_m = { family = "uniform", low = 0.1, high = 0.5 }
    sigma_8 = { family = "normal", loc = 0.8, scale = 0.1, unit = "" }
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sbi_core.data.gate import read_text
from sbi_core.errors import ConfigError, DataFileError, near_matches
from sbi_core.priors.space import Parameter, ParameterSpace, Prior

__all__ = ["guessed_space", "read_priors", "space_of"]

F64 = NDArray[np.float64]
_ABOUT = ("label", "unit", "scope", "description")
_UNIFORM = 0.01  # p-value of the test against a uniform distribution


def read_priors(path: str | Path) -> ParameterSpace:
    """Return the parameters of a file of priors.

    Raises
    ------
    ConfigError
        If it cannot be read, or a prior is wrong; the message names file and parameter.
    """
    try:
        table = tomllib.loads(read_text(Path(path).expanduser(), "toml"))
    except FileNotFoundError:
        msg = f"file of priors '{path}' does not exist"
        raise ConfigError(msg) from None
    except (OSError, ValueError, RecursionError, DataFileError) as error:
        msg = f"file of priors '{path}' cannot be read: {error}"
        raise ConfigError(msg) from None
    if not table:
        msg = f"'{path}' holds no prior; write e.g. a = {{ family = 'uniform', low = 0, high = 1 }}"
        raise ConfigError(msg)
    for name, prior in table.items():
        if not isinstance(prior, dict):
            msg = (
                f"'{path}': {name} = {prior!r} is no prior; write e.g. {name} = "
                "{ family = 'uniform', low = 0, high = 1 }"
            )
            raise ConfigError(msg)
    return space_of(table)


def space_of(prior: Any, names: Sequence[str] = ()) -> ParameterSpace:
    """Return the parameter space of priors in any form.

    Parameters
    ----------
    prior
        A :class:`ParameterSpace`; the name of a file; priors by name, or one after the other. A
        prior is a :class:`Prior`, a :class:`Parameter`, a distribution of scipy or torch, or a
        table such as ``{"family": "uniform", "low": 0, "high": 1}``. Also a distribution of torch
        for all columns, for example ``BoxUniform`` or
        ``MultipleIndependent`` of sbi.
    names
        Names of the columns of theta, where they are known; priors by name are put in this order.

    Raises
    ------
    ConfigError
        If names and priors do not fit, or a prior is wrong.
    """
    if isinstance(prior, ParameterSpace):
        space = prior
    elif isinstance(prior, (str, Path)):
        space = read_priors(prior)
    elif isinstance(prior, Mapping):
        space = ParameterSpace(tuple(_parameter(str(k), v) for k, v in prior.items()))
    else:
        parts = _parts(prior)
        given = list(names) or [f"theta{k + 1}" for k in range(len(parts))]
        if len(given) != len(parts) and len(parts) > 1:
            msg = f"{len(parts)} priors for the {len(given)} columns {given} of theta"
            raise ConfigError(msg)
        if len(given) > len(parts):  # one prior of all columns numbers them itself
            stem = given[0].removesuffix("1")
            if given != [f"{stem}{k + 1}" for k in range(len(given))]:
                msg = f"one prior for all columns {given} of theta: give theta without names"
                raise ConfigError(msg)
            given = [stem]
        space = ParameterSpace(tuple(map(_parameter, given, parts)))
    if names and set(names) == set(space.names):
        order = [p for name in names for p in space if name == p.columns[0]]
        return ParameterSpace(tuple(order), space.version)
    if names:
        lost = next((n for n in space.names if n not in names), "")
        extra = next((n for n in names if n not in space.names), "")
        what = f"'{lost}'" if lost else f"no prior for '{extra}'"
        near = near_matches(lost, names) if lost else near_matches(extra, space.names)
        problem = f"the prior has {what}, theta has the columns" if lost else f"{what}, a column of"
        msg = f"{problem} {list(names)}{near}; give every column of theta its prior, by name"
        raise ConfigError(msg)
    return space


def _parts(prior: Any) -> list[Any]:
    """Return the priors of the columns: independent components of a distribution one by one."""
    if isinstance(prior, (list, tuple)):
        return list(prior)
    if isinstance(dists := getattr(prior, "dists", None), (list, tuple)):  # MultipleIndependent
        return [part for one in dists for part in _parts(one)]
    base = getattr(prior, "base_dist", prior)
    if hasattr(prior, "base_dist") and hasattr(prior, "reinterpreted_batch_ndims"):
        return _components(base)
    if hasattr(base, "event_shape") and len(getattr(base, "batch_shape", ())):
        return _components(base)
    return [prior]


def _components(base: Any) -> list[Any]:
    """Return the components of a distribution of torch with one batch axis."""
    names = [n for n in base.arg_constraints if n in vars(base)]
    made = []
    for k in range(int(base.batch_shape[0])):
        values = {n: getattr(base, n).expand(base.batch_shape)[k] for n in names}
        made.append(type(base)(**values))
    return made


def _parameter(name: str, prior: Any) -> Parameter:
    if isinstance(prior, Parameter):
        return prior
    if isinstance(prior, Prior):
        return Parameter(name, prior)
    try:
        if isinstance(prior, Mapping):
            about = {k: prior[k] for k in _ABOUT if k in prior}
            rest = {k: v for k, v in prior.items() if k not in _ABOUT}
            return Parameter(name, Prior.from_spec(rest), **about)
        return Parameter(name, Prior.of(prior))
    except ConfigError as error:
        if f"'{name}'" in str(error):
            raise
        msg = f"parameter '{name}': {error}"
        raise ConfigError(msg) from None


def guessed_space(theta: F64, names: Sequence[str]) -> ParameterSpace:
    """Return priors that describe the columns of theta (n, d), where none are given.

    Uniform between the ends, widened by one spacing, where a Kolmogorov-Smirnov test does not
    reject it; normal otherwise.

    Raises
    ------
    ConfigError
        If a column is constant, or of whole numbers.
    """
    parameters = []
    for name, column in zip(names, theta.T, strict=True):
        low, high = float(column.min()), float(column.max())
        if not low < high:
            msg = f"theta: column '{name}' has the same value in all rows; leave it out"
            raise ConfigError(msg)
        values = np.unique(column)
        if len(values) <= 0.5 * len(column) and (values == np.round(values)).all():
            msg = (
                f"theta: column '{name}' holds the whole numbers {low:g} to {high:g}; give its "
                f"prior, e.g. {{'family': 'integer', 'low': {low:g}, 'high': {high:g}}}, and those "
                "of the other columns"
            )
            raise ConfigError(msg)
        u = (values - low) / (high - low)
        if stats.kstest(u, "uniform").pvalue > _UNIFORM:
            step = (high - low) / max(len(values) - 1, 1)
            prior = Prior("uniform", {"low": low - step, "high": high + step})
        else:
            prior = Prior("normal", {"loc": float(column.mean()), "scale": float(column.std())})
        parameters.append(Parameter(name, prior))
    return ParameterSpace(tuple(parameters))
