"""Whether a fixed set of simulations is what it is taken for: its prior, its digits.

Both are tested on rows that come in blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sbi_core.errors import ObservationError, counted
from sbi_core.priors.space import Parameter, ParameterSpace

__all__ = ["Digits", "PriorFollowed"]

F64 = NDArray[np.float64]
_ROWS = 20_000  # of theta that are compared with the prior
_DISTANCE = 0.05  # of Kolmogorov and Smirnov, at least
_CHANCE = 1e-6
_LOST = 2e-3  # step of single precision in units of the range of a column: refused above
_COARSE = 1e-5  # told above


class PriorFollowed:
    """Compares the parameters of n simulations with their prior, one by one."""

    def __init__(self, space: ParameterSpace, n: int) -> None:
        self._space = space
        self._stride = -(-n // _ROWS)
        self._rows: list[F64] = []

    def add(self, theta: F64, start: int) -> None:
        """Take the next rows (n, d), of which the first is row ``start`` of all."""
        self._rows.append(theta[-start % self._stride :: self._stride])

    def notes(self, units: NDArray[np.int64]) -> list[str]:
        """Return a sentence for every parameter whose simulations do not follow its prior.

        Of every unit of copies and groups (n,), one simulation is compared.
        """
        first = np.unique(units[:: self._stride], return_index=True)[1]
        theta, found = np.concatenate(self._rows)[first], []
        for p, columns in self._space.blocks():
            if p.prior.continuous and p.prior.has_density:
                z = p.prior.to_unconstrained(theta[:, columns])
                if any(map(_differs, z.T)):
                    found.append(_sentence(p, theta[:, columns]))
        return found


def _differs(z: F64) -> bool:
    """Return True if the different values of z are not those of N(0, 1)."""
    test = stats.kstest(np.unique(z), "norm")
    return bool(test.statistic > _DISTANCE and test.pvalue < _CHANCE)


def _sentence(parameter: Parameter, theta: F64) -> str:
    where = ""
    if parameter.prior.size == 1:
        ends = parameter.prior.from_unconstrained(np.asarray([[-1.0], [1.0]]))[:, 0]
        low, high = np.quantile(theta, [0.159, 0.841])
        where = (
            f": 68 % lie in {low:.4g} ... {high:.4g}, of the prior in {ends[0]:.4g} ... "
            f"{ends[1]:.4g}"
        )
    return (
        f"the simulations do not follow the prior of '{parameter.name}'{where}; "
        "give the prior that they were drawn from: the posterior is that for the simulations, and "
        "prior curves and combinations would be wrong"
    )


class Digits:
    """Finds columns that lose digits in single precision, such as Julian dates."""

    def __init__(self) -> None:
        self._low: F64 = np.empty(0)
        self._high: F64 = np.empty(0)
        self._exact: NDArray[np.bool_] = np.empty(0, bool)

    def add(self, x: F64) -> None:
        """Take the next rows (n, m)."""
        with np.errstate(over="ignore", invalid="ignore"):
            exact = ((x == x.astype(np.float32)) | ~np.isfinite(x)).all(0)
        low, high = np.fmin.reduce(x, axis=0), np.fmax.reduce(x, axis=0)
        if len(self._low):
            low, high = np.fmin(low, self._low), np.fmax(high, self._high)
            exact &= self._exact
        self._low, self._high, self._exact = low, high, exact

    def notes(self, source: str, names: Sequence[str]) -> list[str]:
        """Return a sentence if columns are rounded.

        Raises
        ------
        ObservationError
            If little is left of a column.
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            largest = np.maximum(np.abs(self._low), np.abs(self._high)).astype(np.float32)
            step = np.spacing(largest).astype(np.float64) / (self._high - self._low)
            step[self._exact | ~np.isfinite(step) | np.isinf(largest)] = 0.0
        rounded = np.flatnonzero(step > _COARSE)
        if not len(rounded):
            return []
        k = int(np.argmax(step))
        low, high = self._low[k], self._high[k]
        more = f" (and {counted(len(rounded) - 1, 'other column')})" if len(rounded) > 1 else ""
        middle = np.round((low + high) / 2, -int(np.ceil(np.log10(high - low))))
        name = f"'{names[k]}'" if names else f"number {k}"
        note = (
            f"{name} of x{more} lies between {low:.10g} and "
            f"{high:.10g}, where single precision, in which networks compute, has steps of "
            f"{step[k] * (high - low):.2g}; subtract {middle:.10g}, also from the objects"
        )
        if step[k] > _LOST:
            raise ObservationError(f"{source}: {note}")
        return [note]
