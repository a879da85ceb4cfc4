r"""Parametric star formation histories: bases that start, rise, decline or stop, and bursts.

With s the time since the start and M the mass formed,

=============  =====================================================================
``delayed``    SFR :math:`\propto s\,e^{-s/\tau}` (delayed exponential)
``declining``  SFR :math:`\propto e^{-s/\tau}`
``constant``   SFR constant until T
``rising``     SFR :math:`\propto e^{s/\tau}` until T
``quenching``  one of these until a time, then :math:`\propto e^{-s/\tau_q}`
``bursts``     one of these with one to three bursts of constant SFR, or the bursts alone
=============  =====================================================================

Ranges (:data:`RANGES`) are wide: a posterior is calibrated for histories that its prior has.
Starts, times of bursts and of quenching are uniform, time scales and durations log-uniform, the
share of the bursts uniform; four in five of them (:data:`BURSTS`) have no base. A smooth random
factor of 3-60 % (standard deviation of ln SFR) multiplies all rates: histories of two or three
numbers would make the prior a set of thin sheets.

Separate bursts are common in the prior because their spectra are also those of continuous
histories: with few of them, the posterior of a galaxy that formed in two bursts is continuous, and
too narrow.

References:
    | Carnall et al. 2019, ApJ 873, 44 (priors that parametric histories imply)
    | Leja et al. 2019, ApJ 876, 3 (the prior sets the width of posteriors of histories)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["BASES", "BURSTS", "PARAMETRIC", "RANGES", "growth"]

F64 = NDArray[np.float64]
BASES = ("delayed", "declining", "constant", "rising")
PARAMETRIC = (*BASES, "quenching", "bursts")
RANGES: dict[str, tuple[float, float]] = {
    "start": (0.0, 0.8),  # of T
    "tau_gyr": (0.1, 20.0),
    "rising_gyr": (1.0, 20.0),  # tau of rising histories
    "quenching_gyr": (0.1, 2.0),
    "burst_gyr": (0.1, 2.0),
    "variability": (0.03, 0.6),  # standard deviation of ln SFR
    "coherence_gyr": (0.2, 5.0),
}
BURSTS = {"most": 3, "bare": 0.8}  # largest number of bursts, and share of those without a base
_WAVES = 6


def growth(name: str, n: int, time: F64, rng: np.random.Generator) -> F64:
    """Return the mass formed before each time, as a fraction of the last, (n, m).

    Parameters
    ----------
    name
        One of :data:`PARAMETRIC`.
    n
        Number of histories.
    time : (m,) Gyr
        Increasing; the last one is T.
    rng
        Random numbers.
    """
    if name == "quenching":
        mass = _quenching(n, time, rng)
    elif name == "bursts":
        mass = _bursts(n, time, rng)
    else:
        mass = _base(np.full(n, BASES.index(name)), time, rng)[0]
    formed = np.diff(mass, axis=1, prepend=0.0) * _variability(n, time, rng)
    mass = np.cumsum(formed, axis=1)
    return np.asarray(mass / mass[:, -1:])


def _variability(n: int, time: F64, rng: np.random.Generator) -> F64:
    """Return smooth random factors (n, m) of the SFR: cosines of random frequency and phase."""
    scale = _log_uniform(n, "variability", rng)
    speed = rng.normal(size=(n, _WAVES)) / _log_uniform(n, "coherence_gyr", rng)
    phase = rng.uniform(0.0, 2 * np.pi, (n, _WAVES))
    log = np.zeros((n, len(time)), np.float32)
    for k in range(_WAVES):
        log += np.cos((speed[:, k : k + 1] * time + phase[:, k : k + 1]).astype(np.float32))
    return np.asarray(np.exp(scale * np.sqrt(2.0 / _WAVES) * log))


def _log_uniform(n: int, name: str, rng: np.random.Generator) -> F64:
    low, high = np.log(RANGES[name])
    return np.asarray(np.exp(rng.uniform(low, high, (n, 1))))


def _base(kind: NDArray[np.int64], time: F64, rng: np.random.Generator) -> tuple[F64, F64, F64]:
    """Return mass (n, m), SFR (n, m) and start (n, 1) of bases by their number in BASES."""
    n = len(kind)
    start = rng.uniform(*RANGES["start"], (n, 1)) * time[-1]
    which = kind[:, None]
    rising = which == BASES.index("rising")
    tau = np.where(rising, _log_uniform(n, "rising_gyr", rng), _log_uniform(n, "tau_gyr", rng))
    u = np.maximum(time - start, 0.0) / tau
    decay, on = np.exp(-u), (time > start).astype(float)
    # (1 - (1 + u) exp(-u)) cancels for small u, where the mass is u^2 / 2
    delayed = np.where(u < 1e-3, 0.5 * u**2, -np.expm1(-u) - u * decay)
    mass = np.choose(which, [delayed, -np.expm1(-u), u, np.expm1(u)])
    rate = np.choose(which, [u * decay, on * decay, on, on * np.exp(u)]) / tau
    return mass, rate, start


def _any_base(n: int, time: F64, rng: np.random.Generator) -> tuple[F64, F64, F64]:
    return _base(rng.integers(len(BASES), size=n), time, rng)


def _quenching(n: int, time: F64, rng: np.random.Generator) -> F64:
    mass, rate, start = _any_base(n, time, rng)
    stop = start + rng.uniform(0.0, 1.0, (n, 1)) * (time[-1] - start)
    scale = _log_uniform(n, "quenching_gyr", rng)
    at = np.clip(np.searchsorted(time, stop[:, 0]), 1, len(time) - 1)[:, None]
    formed, last = np.take_along_axis(mass, at, 1), np.take_along_axis(rate, at, 1)
    after = np.maximum(time - time[at], 0.0)
    tail = formed - last * scale * np.expm1(-after / scale)
    return np.where(after > 0, tail, mass)


def _bursts(n: int, time: F64, rng: np.random.Generator) -> F64:
    base = _any_base(n, time, rng)[0]
    most = int(BURSTS["most"])
    number = rng.integers(1, most + 1, size=(n, 1))
    parts = rng.exponential(size=(n, most)) * (np.arange(most) < number)
    parts /= parts.sum(1, keepdims=True)
    share = np.where(rng.random((n, 1)) < BURSTS["bare"], 1.0, rng.random((n, 1)))
    mass = (1.0 - share) * base / base[:, -1:]
    for k in range(most):
        length = _log_uniform(n, "burst_gyr", rng)
        begin = rng.random((n, 1)) * (time[-1] - length)
        mass += share * parts[:, k : k + 1] * np.clip((time - begin) / length, 0.0, 1.0)
    return mass
