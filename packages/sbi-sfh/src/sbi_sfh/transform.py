r"""Unconstrained coordinates of ordered percentiles: places between two others.

The first is t90 between 0 and T; each further one lies between two that are known,
:math:`t_a < t_k < t_b`, and is the one next to the middle of its fractions:

.. math:: u_k = \frac{t_k - t_a}{t_b - t_a} \in (0, 1), \qquad
          \eta_k = \mathrm{logit}\,u_k - \mathrm{logit}\,\frac{q_k - q_a}{q_b - q_a}

with t = 0 for q = 0 and t = T for q = 1: any real eta gives times that are in order and before T,
and eta = 0 is a constant star formation rate. The order begins with what a spectrum fixes best, and
a percentile depends on at most five of nine numbers, so that errors of their densities hardly add
up. A parameter with two ends is the logit of its place between them. The density of theta is that
of eta times

.. math:: \prod_k \frac{1}{(t_b - t_a)\,u_k (1 - u_k)} .
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["SticksAndRanges"]

F64 = NDArray[np.float64]
_STICK = 1e-6  # clip of u
_FIRST = 0.9  # the fraction whose time a spectrum fixes best
_EDGE = 1e-4  # clip of the place between two ends


def _logit(p: F64) -> F64:
    return np.asarray(np.log(p) - np.log1p(-p))


def _sigmoid(x: F64) -> F64:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def _splits(q: Sequence[float]) -> Iterator[tuple[int, int, int]]:
    """Yield an index and those of the ends that it lies between: 0.9, then halves in turn."""
    last = len(q) - 1
    first = min(range(1, last), key=lambda i: abs(q[i] - _FIRST))
    yield first, 0, last
    open_ = [(0, first), (first, last)]
    for a, b in open_:
        if b - a > 1:
            k = min(range(a + 1, b), key=lambda i: abs(q[i] - 0.5 * (q[a] + q[b])))
            open_ += [(a, k), (k, b)]
            yield k, a, b


@dataclass(frozen=True)
class SticksAndRanges:
    """The map between theta and eta.

    Parameters
    ----------
    fractions
        Mass fractions of the leading columns, increasing, (k,).
    end
        T [Gyr].
    ranges
        Ends of the columns after them.
    """

    fractions: tuple[float, ...]
    end: float
    ranges: tuple[tuple[float, float], ...]

    @cached_property
    def _tree(self) -> tuple[tuple[int, int, int], ...]:
        """Column of each percentile and of those before and after it, in order of eta.

        Columns count from 1; 0 is the Big Bang, the last is T.
        """
        return tuple(_splits((0.0, *self.fractions, 1.0)))

    @property
    def columns(self) -> tuple[int, ...]:
        """The column of theta of each column of eta."""
        times = tuple(k - 1 for k, _, _ in self._tree)
        return times + tuple(range(len(times), len(times) + len(self.ranges)))

    @cached_property
    def _offset(self) -> F64:
        q = np.array([0.0, *self.fractions, 1.0])
        return _logit(np.array([(q[k] - q[a]) / (q[b] - q[a]) for k, a, b in self._tree]))

    def _sticks(self, theta: F64) -> tuple[F64, F64]:
        """Return u (n, k), clipped, and the length of the stick of each, (n, k)."""
        t = theta[:, : len(self.fractions)]
        ends = np.zeros((len(t), 1)), np.full((len(t), 1), self.end)
        t = np.concatenate([ends[0], t, ends[1]], axis=1)
        which, before, after = np.array(self._tree).T
        length = np.maximum(t[:, after] - t[:, before], 1e-12 * self.end)
        return np.clip((t[:, which] - t[:, before]) / length, _STICK, 1.0 - _STICK), length

    def _places(self, theta: F64) -> tuple[F64, F64]:
        ends = np.array(self.ranges).reshape(-1, 2)
        width = ends[:, 1] - ends[:, 0]
        place = (theta[:, len(self.fractions) :] - ends[:, 0]) / width
        return np.clip(place, _EDGE, 1.0 - _EDGE), width

    def encode(self, theta: ArrayLike) -> F64:
        """Return eta (n, d) of theta (n, d)."""
        values = np.asarray(theta, np.float64)
        u, _ = self._sticks(values)
        v, _ = self._places(values)
        return np.concatenate([_logit(u) - self._offset, _logit(v)], axis=1)

    def decode(self, eta: ArrayLike) -> F64:
        """Return theta (..., d) of eta (..., d): ordered and in range for any eta."""
        values = np.asarray(eta, np.float64)
        k = len(self.fractions)
        u = _sigmoid(values[..., :k] + self._offset)
        t = np.zeros((*values.shape[:-1], k + 2))
        t[..., -1] = self.end
        for j, (which, before, after) in enumerate(self._tree):
            low, high = t[..., before], t[..., after]
            t[..., which] = np.minimum(low + u[..., j] * (high - low), high)  # rounding
        ends = np.array(self.ranges).reshape(-1, 2)
        v = _sigmoid(values[..., k:])
        return np.concatenate([t[..., 1:-1], ends[:, 0] + v * (ends[:, 1] - ends[:, 0])], axis=-1)

    def log_volume(self, theta: ArrayLike) -> F64:
        """Return log |d eta / d theta| at theta (n, d), (n,)."""
        values = np.asarray(theta, np.float64)
        u, length = self._sticks(values)
        v, width = self._places(values)
        sticks = -np.log(length) - np.log(u) - np.log1p(-u)
        return np.asarray(sticks.sum(1) - (np.log(width) + np.log(v) + np.log1p(-v)).sum(1))

    def inside(self, theta: ArrayLike) -> NDArray[np.bool_]:
        """Return which rows of theta (n, d) are in order and in range, (n,)."""
        values = np.asarray(theta, np.float64)
        t = values[:, : len(self.fractions)]
        ends = np.array(self.ranges).reshape(-1, 2)
        rest = values[:, len(self.fractions) :]
        slack = 1e-6 * np.maximum(np.abs(ends).max(1), 1.0)  # float32 rounds the ends
        ordered = (np.diff(t, axis=1) >= -2e-6).all(1) & (t[:, 0] >= 0) & (t[:, -1] <= self.end)
        in_range = (rest >= ends[:, 0] - slack) & (rest <= ends[:, 1] + slack)
        return np.asarray(ordered & in_range.all(1) & np.isfinite(values).all(1))
