r"""Unconstrained coordinates of ordered percentiles: each as a share of the next one.

.. math:: u_k = \frac{t_k}{t_{k+1}} \in (0, 1), \qquad
          \eta_k = \mathrm{logit}\,u_k - \mathrm{logit}\,\frac{q_k}{q_{k+1}}, \qquad
          t_k = T \prod_{j \ge k} u_j

with :math:`t_{K+1} = T` and :math:`q_{K+1} = 1`: any real eta gives times that are in order and
before T, and eta = 0 is a constant star formation rate. Sticks are broken from the late end because
a spectrum fixes late times best: their errors then do not add up from those of the early ones. A
parameter with two ends is the logit of its place between them. The density of theta is that of eta
times

.. math:: \prod_k \frac{1}{t_{k+1}\,u_k (1 - u_k)} .
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["SticksAndRanges"]

F64 = NDArray[np.float64]
_STICK = 1e-6  # clip of u
_EDGE = 1e-4  # clip of the place between two ends


def _logit(p: F64) -> F64:
    return np.asarray(np.log(p) - np.log1p(-p))


def _sigmoid(x: F64) -> F64:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


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

    @property
    def _offset(self) -> F64:
        q = np.array([*self.fractions, 1.0])
        return _logit(q[:-1] / q[1:])

    def _sticks(self, theta: F64) -> tuple[F64, F64]:
        """Return u (n, k), clipped, and the next time of each, (n, k)."""
        t = theta[:, : len(self.fractions)]
        after = np.concatenate([t[:, 1:], np.full((len(t), 1), self.end)], axis=1)
        after = np.maximum(after, 1e-12 * self.end)
        return np.clip(t / after, _STICK, 1.0 - _STICK), after

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
        x = values[..., :k] + self._offset
        log_u = -np.logaddexp(0.0, -x)
        t = self.end * np.exp(np.flip(np.cumsum(np.flip(log_u, -1), axis=-1), -1))
        ends = np.array(self.ranges).reshape(-1, 2)
        v = _sigmoid(values[..., k:])
        return np.concatenate([t, ends[:, 0] + v * (ends[:, 1] - ends[:, 0])], axis=-1)

    def log_volume(self, theta: ArrayLike) -> F64:
        """Return log |d eta / d theta| at theta (n, d), (n,)."""
        values = np.asarray(theta, np.float64)
        u, after = self._sticks(values)
        v, width = self._places(values)
        sticks = -np.log(after) - np.log(u) - np.log1p(-u)
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
