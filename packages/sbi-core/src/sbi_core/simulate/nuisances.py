r"""Groups of objects whose nuisance parameters are drawn, too: one draw per group.

What a simulator assumes is the same for all objects, so that its errors do not average out with
their number. Families of nuisance parameters :math:`\phi` describe them: those of
``Simulator.nuisances`` and, in every simulator, the *population*: the distribution of each local
parameter in unconstrained space, where it is N(0, 1) in the prior, becomes

.. math:: z \sim N(\delta, e^{2\lambda}), \qquad
          \delta \sim N(0, \sigma_\delta^2),\; \lambda \sim N(0, \sigma_\lambda^2) .

For training, each family is on in some groups and has its nominal value in the others; which, is
added to theta as columns of 1 and 0, so that results can be given with and without it.

Three families belong to the data: *zero points*, a shift of each observable with the standard
deviation ``Simulator.zero_point``; *outliers*, a fraction of up to 10 % of the objects whose
errors are five times larger than given; and *selection*: objects were chosen by a range of one of
``Simulator.selected_by``.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from sbi_core.components import Simulator
from sbi_core.data.batch import Batch
from sbi_core.priors.space import Parameter, ParameterSpace, Prior, canonical_hash

__all__ = [
    "OUTLIERS",
    "POPULATION",
    "SELECTION",
    "ZERO_POINTS",
    "disturbed",
    "draw_groups",
    "extended",
    "families",
    "nuisance_hash",
    "selected",
    "switch_name",
    "switches",
]

F64 = NDArray[np.float64]
POPULATION, ZERO_POINTS, OUTLIERS = "population", "zero points", "outliers"
SELECTION = "selection"
_ON = 0.8  # fraction of the groups in which a family is on
_WIDTHS = (0.3, 0.2)  # of shift and logarithmic width of a local parameter, prior sigma
_LARGEST = 5.0  # prior sigma, of a local parameter
_FRACTION, _INFLATED = 0.1, 5.0  # largest fraction of outliers, and factor of their errors
_SELECTED = 0.1  # smallest fraction of a group that is selected


def families(simulator: Simulator) -> tuple[str, ...]:
    """Return the names of the families of nuisance parameters of a simulator."""
    return (*simulator.nuisances, *([POPULATION] if _local(simulator) else []))


def nuisance_hash(simulator: Simulator) -> str:
    """Return a hash of the distributions of all nuisance parameters of a simulator."""
    return canonical_hash(
        {
            "families": {name: space.hash for name, space in simulator.nuisances.items()},
            "population": {p.name: _widths(simulator, p) for p in _local(simulator)},
            "zero_point": float(simulator.zero_point),
            "constants": [_ON, _LARGEST, _FRACTION, _INFLATED],
        }
    )


def switch_name(family: str) -> str:
    """Return the name of the column of theta that is 1 where a family is on."""
    return f"nuisance: {family}"


def switches(simulator: Simulator) -> tuple[Parameter, ...]:
    """Return the columns that are added to theta, one per family."""
    coin = Prior("discrete", {"values": [0.0, 1.0]})
    return tuple(Parameter(switch_name(f), coin, scope="global") for f in families(simulator))


def draw_groups(
    simulator: Simulator,
    theta: F64,
    group: NDArray[np.int64],
    rng: np.random.Generator,
    *,
    all_on: bool = False,
) -> Batch:
    """Simulate groups with nuisance parameters.

    Parameters
    ----------
    simulator
        Its ``nuisances`` and ``population`` are used.
    theta : (n, d)
        Parameters; those of scope global are equal within a group.
    group : (n,)
        Number of the group of each row, 0, 1, ...
    rng
        Where randomness comes from.
    all_on
        No family has its nominal value in any group.

    Returns
    -------
    Batch
        Noise-free rows; theta has the columns of :func:`switches`, too.
    """
    count = int(group[-1]) + 1
    on = rng.random((count, len(families(simulator)))) < (1.0 if all_on else _ON)
    values = {}
    for k, (name, space) in enumerate(simulator.nuisances.items()):
        drawn = space.sample(count, rng)
        drawn[~on[:, k]] = np.nan
        values[name] = drawn[group]
    if _local(simulator):
        theta = _population(simulator, theta, group, on[:, -1], rng)
    if values:
        batch = simulator.simulate_nuisances(theta, values, rng)
    else:
        batch = simulator.simulate(theta, rng)
    assert batch.theta is not None
    flags = torch.as_tensor(on[group], dtype=batch.theta.dtype, device=batch.theta.device)
    return batch.with_(theta=torch.cat([batch.theta, flags], 1))


def disturbed(
    value: F64, error: F64, zero_point: float, rng: np.random.Generator, *, outliers: bool = True
) -> F64:
    """Return observed values (n, k) of a group with a zero point each, and with outliers.

    Parameters
    ----------
    value, error : (n, k)
        Observed values and their standard deviations; NaN where missing.
    zero_point
        Standard deviation of the zero points; 0: none.
    rng
        Where randomness comes from.
    outliers
        Some objects have larger errors than given.
    """
    if outliers:
        odd = rng.random((len(value), 1)) < rng.uniform(0.0, _FRACTION)
        extra = np.sqrt(_INFLATED**2 - 1) * error * rng.standard_normal(value.shape)
        value = value + np.where(odd, extra, 0.0)
    return value + zero_point * rng.standard_normal(value.shape[1])


def selected(value: F64, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the objects (m,), in order, in a random range of an observable (n,).

    A fraction of the objects, log-uniform between 0.1 and 1; a third of the ranges are open below,
    a third above. Missing values count as the largest.
    """
    n = len(value)
    count = max(1, round(n * float(np.exp(rng.uniform(np.log(_SELECTED), 0.0)))))
    first = (0, n - count, int(rng.integers(n - count + 1)))[rng.integers(3)]
    rank = np.argsort(np.where(np.isfinite(value), value, np.inf), kind="stable")
    return np.sort(rank[first : first + count])


def _local(simulator: Simulator) -> list[Parameter]:
    """Return the local parameters whose distribution can be shifted and stretched."""
    return [
        p
        for p in simulator.parameters.parameters
        if p.scope == "local" and p.prior.continuous and p.prior.has_density and p.prior.z_size
    ]


def _widths(simulator: Simulator, parameter: Parameter) -> list[float]:
    """Return the widths of shift and logarithmic width of a local parameter."""
    return [float(w) for w in simulator.population.get(parameter.name, _WIDTHS)]


def _population(
    simulator: Simulator,
    theta: F64,
    group: NDArray[np.int64],
    on: NDArray[np.bool_],
    rng: np.random.Generator,
) -> F64:
    """Return theta with local parameters from the distribution of the group."""
    theta = theta.copy()
    for p in _local(simulator):
        columns = np.asarray(simulator.parameters.index(p.columns))
        shift, width = _widths(simulator, p)
        size = (len(on), p.prior.z_size)
        delta = shift * rng.standard_normal(size) * on[:, None]
        stretch = np.exp(width * rng.standard_normal(size) * on[:, None])
        z = p.prior.to_unconstrained(theta[:, columns])
        moved = np.clip(delta[group] + stretch[group] * z, -_LARGEST, _LARGEST)
        rows = on[group]
        theta[np.ix_(rows, columns)] = p.prior.from_unconstrained(moved[rows])
    return theta


def extended(simulator: Simulator) -> ParameterSpace:
    """Return the parameters of a simulator with the switches of its families."""
    space = simulator.parameters
    return ParameterSpace((*space.parameters, *switches(simulator)), space.version, space.members)
