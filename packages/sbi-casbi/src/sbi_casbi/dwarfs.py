r"""The embedded library: dwarf galaxies of a one-zone model, each at several infall times.

A *stem* is one galaxy with its own star-formation history, :math:`\psi \propto s e^{-s/\tau}`,
:math:`s = t - t_0`, its own outflow

.. math:: \eta(t) = \min\left[\eta_f \left(\frac{M_*(t)}{M_{*,f}}\right)^{-p}, 30\,\eta_f\right],
          \qquad p \sim U(0.25, 0.45),

and its own halo. Its snapshots, at multiples of 0.2158 Gyr (``Galaxy_name`` = ``dw00123.00512``),
are possible building blocks, since star formation stops at infall. The outflow strength is
determined by bisection, so that the mean [Fe/H] of the median snapshot follows the relation in
:mod:`sbi_casbi.relations` with 0.15 dex of scatter.

References:
    | Weinberg, Andrews & Freudenburg 2017, ApJ 837, 183; Kirby et al. 2013, ApJ 779, 102
    | Kravtsov & Manwadkar 2022, MNRAS 514, 2667 (outflows of the regulator variant)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from sbi_casbi.abundances import Element
from sbi_casbi.cosmology import redshift
from sbi_casbi.library import Library, make_templates, split_stems
from sbi_casbi.onezone import ALPHA, Constants, abundances, evolve
from sbi_casbi.plane import Plane
from sbi_casbi.relations import MASS_RANGE, dark_mass, dark_mass_scatter, mean_fe_h
from sbi_core import stream

__all__ = ["CLOCK_GYR", "DwarfConfig", "build_dwarfs", "grumpy_eta"]

F64 = NDArray[np.float64]
CLOCK_GYR = 13.8127 / 64  # 16 of 1024 steps
MIXING = (0.20, 0.04)  # [Fe/H], [O/Fe] of stars born together [dex]
_STEPS, _STEPS_CALIBRATION, _BISECTIONS = 128, 32, 14
_LOG_LOADING = (-0.55, 4.5)  # log10(1 + eta_f - r) that the bisection searches
_FIRST_INFALL = 1.0  # Gyr
_BLOCK = 4096  # galaxies evolved at a time


class DwarfConfig(BaseModel):
    """Options of the embedded library."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stems: int = Field(5000, ge=10, description="number of galaxies")
    cuts: int = Field(6, ge=1, le=10, description="number of infall times per galaxy")
    seed: int = Field(1, ge=0, description="random seed of the library")
    backend: str = Field(
        "onezone",
        pattern="^(onezone|grumpy)$",
        description="onezone (outflow calibrated on the mass-metallicity relation) or grumpy "
        "(regulator model)",
    )
    dm_coupling: float = Field(0.25, description="d[Fe/H] / d(log M_dm at fixed M_star)")
    y_ia_factor: float = Field(
        1.0, gt=0, description="factor on the iron yield of type Ia supernovae"
    )
    alpha: Element = Field("o", description="element beside iron: o (oxygen) or mg (magnesium)")


@dataclass(frozen=True)
class _Stems:
    """Latent properties of n galaxies; masses in log10 Msun, times in Gyr."""

    log_mstar: F64  # at the reference infall
    reference: F64  # age at the reference infall
    delta: F64
    scatter: F64
    tau_star: F64
    tau_sfh: F64
    start: F64
    power: F64
    infall: F64  # (n, cuts), on the clock, increasing

    @property
    def last(self) -> F64:
        return np.asarray(self.infall[:, -1])

    def formed(self, t: F64) -> F64:
        """Return the stars formed before t (n, ...), relative to t -> infinity."""
        shape = (len(self.start),) + (1,) * (t.ndim - 1)
        s = np.maximum(t - self.start.reshape(shape), 0.0) / self.tau_sfh.reshape(shape)
        return np.asarray(1.0 - (1.0 + s) * np.exp(-s))

    def rate(self, t: F64) -> F64:
        """Return the star-formation rate at t (n, ...) [1/Gyr] of unit total mass."""
        shape = (len(self.start),) + (1,) * (t.ndim - 1)
        tau = self.tau_sfh.reshape(shape)
        s = np.maximum(t - self.start.reshape(shape), 0.0)
        return np.asarray(s * np.exp(-s / tau) / tau**2)

    def mass(self, t: F64) -> F64:
        """Return log10 M_star at t (n, k)."""
        ratio = self.formed(t) / self.formed(self.reference[:, None])
        return np.asarray(self.log_mstar[:, None] + np.log10(np.maximum(ratio, 1e-30)))


def _draw(config: DwarfConfig) -> _Stems:
    rng, n = stream(config.seed, "dwarfs"), config.stems
    log_mstar = rng.uniform(*MASS_RANGE, n)
    # more times than cuts, because several can fall on the same multiple of the time step
    tau = 0.7 + 13.0 * rng.beta(1.6, 2.0, (n, 4 * config.cuts + 16))
    tick = np.clip(np.ceil(tau / CLOCK_GYR), np.ceil(_FIRST_INFALL / CLOCK_GYR), 63).astype(int)
    infall = np.array([_first_distinct(row, config.cuts) for row in tick]) * CLOCK_GYR
    reference = infall[:, 0].copy()
    infall.sort(axis=1)
    above = log_mstar - 5.0
    latest = np.minimum(1.0, infall[:, 0] - 0.5)
    return _Stems(
        log_mstar=log_mstar,
        reference=reference,
        delta=rng.standard_normal(n) * dark_mass_scatter(log_mstar),
        scatter=0.15 * rng.standard_normal(n),
        tau_star=np.clip(12.0 - 0.9 * above, 3.0, 12.0) * 10 ** (0.15 * rng.standard_normal(n)),
        tau_sfh=np.clip(1.0 + 1.2 * above, 0.6, 8.0) * 10 ** (0.20 * rng.standard_normal(n)),
        start=rng.uniform(0.2, 1.0, n).clip(max=latest),
        power=rng.uniform(0.25, 0.45, n),
        infall=infall,
    )


def _first_distinct(ticks: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Return the first k distinct values."""
    distinct = list(dict.fromkeys(ticks.tolist()))
    while len(distinct) < k:  # practically never: there are 60 values
        distinct.append(next(t for t in range(5, 64) if t not in distinct))
    return np.asarray(distinct[:k])


def grumpy_eta(mass: F64) -> F64:
    """Return the mass loading of regulator models at M_star [Msun]; same shape as ``mass``.

    Kravtsov & Manwadkar 2022, MNRAS 514, 2667: 1.8 (M/1e10)^-0.45 - 4.5, not below zero.
    """
    loading = 1.8 * (np.maximum(mass, 1.0) / 1e10) ** -0.45 - 4.5
    return np.asarray(np.maximum(0.0, loading))


def _grid(stems: _Stems, end: F64, steps: int) -> tuple[F64, F64]:
    """Return midpoints and lengths of time steps (n, steps) [Gyr], shorter at early times."""
    edges = np.linspace(0.0, 1.0, steps + 1) ** 1.5
    t = stems.start[:, None] + (end - stems.start)[:, None] * edges
    return 0.5 * (t[:, 1:] + t[:, :-1]), np.diff(t, axis=1)


def _tracks(
    stems: _Stems, end: F64, steps: int, eta: Callable[[F64], F64], constants: Constants
) -> tuple[F64, F64, F64, F64, F64]:
    """Return midpoints, lengths, stars formed per step, [Fe/H] and [O/Fe], each (n, steps)."""
    middle, dt = _grid(stems, end, steps)
    psi = stems.rate(middle)
    delayed = stems.rate(middle - constants.delay)
    z_o, z_fe = evolve(psi, delayed, dt, stems.tau_star, eta(middle), constants)
    fe_h, o_fe = abundances(z_o, z_fe, constants)
    return middle, dt, psi * dt, fe_h, o_fe


def _outflow(stems: _Stems, eta_f: F64) -> Callable[[F64], F64]:
    final = stems.formed(_median_cut(stems)[:, None])

    def eta(t: F64) -> F64:
        ratio = np.maximum(stems.formed(t) / final, 1e-12)
        power = np.minimum(ratio ** -stems.power[:, None], 30.0)
        return np.asarray(eta_f[:, None] * power)

    return eta


def _regulator(stems: _Stems) -> Callable[[F64], F64]:
    def eta(t: F64) -> F64:
        return grumpy_eta(10 ** stems.mass(t))

    return eta


def _median_cut(stems: _Stems) -> F64:
    k = stems.infall.shape[1]
    return np.asarray(stems.infall[:, (k - 1) // 2])


def _calibrated(stems: _Stems, coupling: float, constants: Constants) -> F64:
    """Return eta_f (n,) for which the median cut has the mean [Fe/H] of the relation."""
    end = _median_cut(stems)
    target = stems.scatter + mean_fe_h(
        stems.mass(end[:, None])[:, 0], redshift(end), stems.delta, coupling
    )
    low = np.full(len(end), _LOG_LOADING[0])
    high = np.full(len(end), _LOG_LOADING[1])
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        eta_f = 10**middle - 1.0 + constants.recycling
        _, _, formed, fe_h, _ = _tracks(
            stems, end, _STEPS_CALIBRATION, _outflow(stems, eta_f), constants
        )
        rich = (formed * fe_h).sum(1) / formed.sum(1) > target
        low, high = np.where(rich, middle, low), np.where(rich, high, middle)
    return np.asarray(10 ** (0.5 * (low + high)) - 1.0 + constants.recycling)


def build_dwarfs(
    config: DwarfConfig | None = None,
    plane: Plane | None = None,
    *,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
) -> Library:
    """Return the embedded library, which is reproducible bit by bit.

    Parameters
    ----------
    config
        Options.
    plane
        Pixels of the templates; default [-4.5, 0.6] x [-0.4, 0.8].
    fractions
        Fractions of stems for training, validation and test.
    """
    config, plane = config or DwarfConfig(), plane or Plane()
    y_alpha, solar_alpha = ALPHA[config.alpha]
    stems = _draw(config)
    constants = Constants(
        y_o=y_alpha, solar_o=solar_alpha, y_ia=Constants().y_ia * config.y_ia_factor
    )
    parts = [
        _snapshots(_rows(stems, slice(k, k + _BLOCK)), config, constants)
        for k in range(0, config.stems, _BLOCK)
    ]
    index = np.concatenate([p[0] + k * _BLOCK for k, p in enumerate(parts)])
    cut, fe_h, o_fe, weight = (np.concatenate([p[j] for p in parts]) for j in range(1, 5))
    tau = stems.infall[index, cut]
    log_mstar = stems.mass(stems.infall)[index, cut]
    names = np.char.add("dw", np.char.zfill(np.arange(config.stems).astype(str), 5))[index]
    step = np.rint(tau / CLOCK_GYR).astype(int) * 16
    split = split_stems(names, log_mstar, config.seed, fractions)
    return Library(
        plane=plane,
        templates=make_templates(plane, fe_h, o_fe, weight),
        galaxy_name=np.char.add(names + ".", np.char.zfill(step.astype(str), 5)),
        stem=names,
        log_mstar=log_mstar,
        log_mdm=dark_mass(log_mstar) + stems.delta[index],
        log_mgas=np.log10(_gas(stems, index, tau)) + log_mstar,
        tau=tau,
        z=redshift(tau),
        n_star=np.zeros(len(index), np.int64),
        split=split,
        mixing=MIXING,
        solar="embedded",
        alpha=config.alpha,
        tau_width=CLOCK_GYR,
        source=f"embedded {config.backend} dwarf galaxies (library_seed {config.seed})",
        options=config.model_dump(mode="json"),
    )


def _rows(stems: _Stems, rows: slice | NDArray[np.int64]) -> _Stems:
    return _Stems(**{name: getattr(stems, name)[rows] for name in stems.__dataclass_fields__})


def _gas(stems: _Stems, index: NDArray[np.int64], tau: F64) -> F64:
    """Return the ratio of gas to stellar mass at infall."""
    one = _rows(stems, index)
    formed = np.maximum(one.formed(tau[:, None])[:, 0], 1e-12)
    return np.asarray(one.tau_star * one.rate(tau[:, None])[:, 0] / formed)


def _snapshots(
    stems: _Stems, config: DwarfConfig, constants: Constants
) -> tuple[NDArray[np.int64], NDArray[np.int64], F64, F64, F64]:
    """Return stem and cut of every snapshot inside the mass range, and its track.

    The track: [Fe/H], [O/Fe] and the share of stars formed, each (snapshots, steps).
    """
    eta = _regulator(stems)
    if config.backend == "onezone":
        eta = _outflow(stems, _calibrated(stems, config.dm_coupling, constants))
    middle, dt, formed, fe_h, o_fe = _tracks(stems, stems.last, _STEPS, eta, constants)
    mass = stems.mass(stems.infall)
    index, cut = np.nonzero((mass > MASS_RANGE[0]) & (mass < MASS_RANGE[1]))
    # of the step that contains the infall, only the part before it counts
    before = (stems.infall[index, cut][:, None] - (middle - 0.5 * dt)[index]) / dt[index]
    weight = formed[index] * np.clip(before, 0.0, 1.0)
    return index, cut, fe_h[index], o_fe[index], weight / weight.sum(1, keepdims=True)
