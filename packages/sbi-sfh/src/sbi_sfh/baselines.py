r"""Other ways to the same numbers: inversion by non-negative least squares, and MCMC.

NNLS decomposes the spectrum into SSPs,

.. math:: \min_{w \ge 0} \sum_i \left(\frac{x_i - \sum_l w_l S_{li}}{\sigma_i}\right)^2
          + \rho \sum (\Delta^2 w)^2 ,

and reads percentiles off the masses by age; it has no posterior. MCMC samples the generative model
that also made the simulations (Gaussian-process histories, noise proportional to the flux), in
coordinates in which the prior is standard normal:

.. math:: \log p = -\tfrac12 |z|^2 - \sum_i \left[\tfrac12
          \Big(\frac{S\,(x_i - f_i)}{f_i}\Big)^2 + \log f_i\right] .

References:
    | Lawson & Hanson 1974 (NNLS); Cappellari 2017, MNRAS 466, 798 (pPXF)
    | Foreman-Mackey et al. 2013, PASP 125, 306 (emcee)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls
from scipy.special import betaincinv, ndtr

from sbi_core import ConfigError
from sbi_sfh.gaussian_process import growth_curves
from sbi_sfh.histories import POINTS
from sbi_sfh.percentiles import crossing_times
from sbi_sfh.simulator import SfhSimulator

__all__ = ["Inversion", "McmcResult", "emcee_posterior", "invert", "log_posterior", "ppxf_fit"]

F64 = NDArray[np.float64]
_POWERS = tuple(np.geomspace(1e-5, 0.5, 12))  # of the likelihood, before the posterior itself
_STEPS_PER_POWER = 40


@dataclass(frozen=True, slots=True)
class Inversion:
    """Result of a non-negative inversion.

    Parameters
    ----------
    percentiles
        Times (k,) Gyr since the Big Bang.
    mh
        Mean [M/H] by mass.
    chi2
        Per pixel.
    """

    percentiles: F64
    mh: float
    chi2: float


def invert(
    simulator: SfhSimulator, flux: F64, err: F64, *, regularisation: float = 0.0
) -> Inversion:
    """Return percentiles and [M/H] of one spectrum (L,) by NNLS on the SSPs of the library.

    Parameters
    ----------
    simulator
        Its library at its own resolution, [alpha/Fe] of the first plane.
    flux, err
        Median-normalised spectrum and errors, (L,).
    regularisation
        Weight of the second differences along age and [M/H].
    """
    library = simulator.library
    templates = library.spectra(0)
    scale = np.median(templates, axis=-1)
    design = (templates / scale[..., None] / err).reshape(-1, len(flux)).T
    target = flux / err
    shape = scale.shape
    if regularisation > 0:
        rows = _second_differences(shape) * regularisation
        design = np.concatenate([design, rows])
        target = np.concatenate([target, np.zeros(len(rows))])
    light, _ = nnls(design, target, maxiter=20 * design.shape[1])
    mass = light.reshape(shape) / scale
    mass /= mass.sum()
    order = np.argsort(-library.age_gyr)
    end = simulator.config.t_end
    formed = np.clip(end - library.age_gyr[order], 0.0, end)
    edges = np.concatenate([[0.0], 0.5 * (formed[1:] + formed[:-1]), [end]])
    curve = np.concatenate([[0.0], np.cumsum(mass.sum(0)[order])])
    grid = np.maximum.accumulate(edges + 1e-9 * np.arange(len(edges)))
    times = crossing_times(curve[None], grid, simulator.recovery.fractions)[0]
    left = target[: len(flux)] - design[: len(flux)] @ light
    return Inversion(times, float(mass.sum(1) @ library.mh), float((left**2).mean()))


def _second_differences(shape: tuple[int, ...]) -> F64:
    index = np.arange(np.prod(shape)).reshape(shape)
    rows = []
    for axis in (0, 1):
        part = np.moveaxis(index, axis, 0)
        triples = np.stack([part[:-2], part[1:-1], part[2:]], -1).reshape(-1, 3)
        block = np.zeros((len(triples), index.size))
        for column, weight in enumerate((1.0, -2.0, 1.0)):
            block[np.arange(len(triples)), triples[:, column]] += weight
        rows.append(block)
    return np.concatenate(rows)


def ppxf_fit(simulator: SfhSimulator, flux: F64, err: F64, regul: float) -> Any:
    """Return a fit of pPXF with all templates of the library, without gas and polynomials.

    Parameters
    ----------
    simulator
        Its library at its own resolution.
    flux, err
        Spectrum and errors, (L,).
    regul
        Regularisation of the weights, as in pPXF.
    """
    from ppxf import ppxf_util
    from ppxf.ppxf import ppxf

    library = simulator.library
    ends = simulator.wave[[0, -1]]
    logged, ln_lam, velscale = ppxf_util.log_rebin(ends, flux)
    noise = ppxf_util.log_rebin(ends, err, velscale=velscale)[0]
    cube = library.spectra()
    templates = np.array(
        [
            ppxf_util.log_rebin(ends, s, velscale=velscale)[0]
            for s in cube.reshape(-1, cube.shape[-1])
        ]
    )
    templates = (templates / np.median(templates)).T
    shape = (templates.shape[0], len(library.age_gyr), len(library.mh))
    grid = templates.reshape(shape[0], len(library.mh), len(library.age_gyr)).transpose(0, 2, 1)
    return ppxf(
        grid, logged, noise, float(velscale), [0.0, 50.0], moments=2, degree=-1, mdegree=0,
        lam=np.exp(ln_lam), regul=regul, reg_dim=shape[1:], quiet=True,
    )  # fmt: skip


# -- MCMC --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class McmcResult:
    """Samples of the generative model.

    Parameters
    ----------
    theta
        Percentiles and [M/H], (S, d), thinned.
    autocorrelation
        Longest integrated autocorrelation time, steps.
    steps
        Steps after burn-in.
    converged
        Whether there are 50 autocorrelation times.
    """

    theta: F64
    autocorrelation: float
    steps: int
    converged: bool


def _require(simulator: SfhSimulator) -> None:
    c = simulator.config
    plain = c.family == "gp" and c.max_overshoot is None and c.grid == "continuous"
    if not (plain and c.mode == "mock" and c.noise == "relative" and c.noise_shape is None):
        msg = (
            "MCMC is written for family 'gp', mode 'mock', noise 'relative' and the continuous grid"
        )
        raise ConfigError(msg)
    if c.afe:
        msg = "MCMC is written for libraries without [alpha/Fe] as a parameter"
        raise ConfigError(msg)


def theta_of(simulator: SfhSimulator, z: F64) -> tuple[F64, F64]:
    """Return theta (n, d) and noise-free spectra (n, L) of standard normal z (n, 6).

    z: three sticks of the Dirichlet, log SFR, log M, [M/H].
    """
    config = simulator.config
    u = np.clip(ndtr(z), 1e-12, 1 - 1e-12)
    alpha = 5.0 if config.sfh_prior == "iyer19" else 1.0
    sticks = _beta_sticks(u[:, :3], alpha)
    remaining = np.cumprod(1.0 - sticks, axis=1)
    times: F64 = np.asarray(1.0 - remaining, np.float64)
    if config.sfh_prior == "iyer19":
        log_ssfr = -12.0 + 4.5 * u[:, 3]
    else:
        log_ssfr = -50.0 + 50.0 * u[:, 3] - (9.0 + 3.0 * u[:, 4])
    low, high = simulator.library.mh[0], simulator.library.mh[-1]
    mh = low + (high - low) * u[:, 5]
    curves = growth_curves(times, log_ssfr, config.t_end, points=POINTS, interp=config.interp)
    c, _, _ = simulator.synthesis.coefficients(curves.cumulative, mh)
    t = crossing_times(curves.cumulative, simulator.synthesis.time, simulator.recovery.fractions)
    return np.concatenate([t, mh[:, None]], 1), c @ simulator.library.basis


def _beta_sticks(u: F64, alpha: float) -> F64:
    """Fractions of what is left, of a symmetric Dirichlet with four parts: Beta(a, a (3 - k))."""
    rest = alpha * np.array([3.0, 2.0, 1.0])
    if alpha == 1.0:
        return np.asarray(1.0 - (1.0 - u) ** (1.0 / rest))
    return np.asarray(betaincinv(alpha, rest, u))


def log_posterior(
    simulator: SfhSimulator, flux: F64, snr: float, *, power: float = 1.0
) -> Callable[[F64], F64]:
    """Return a function z (n, 6) -> log of likelihood**power times prior, up to a constant."""

    def value(z: F64) -> F64:
        _, f = theta_of(simulator, z)
        positive = np.asarray((f > 0).all(axis=1))
        f = np.where(positive[:, None], f, 1.0)
        chi2 = ((snr * (flux / f - 1.0)) ** 2).sum(1)
        log_p = power * (-0.5 * chi2 - np.log(f).sum(1)) - 0.5 * (z**2).sum(1)
        return np.where(positive & np.isfinite(log_p), log_p, -np.inf)

    return value


def emcee_posterior(
    simulator: SfhSimulator,
    flux: F64,
    rng: np.random.Generator,
    *,
    walkers: int = 64,
    steps: int = 4000,
    burn: int = 500,
) -> McmcResult:
    """Sample the posterior of one spectrum (L,) with emcee.

    Walkers start from the prior and follow the posterior through growing powers of the likelihood,
    so that they settle in the modes by their mass. Half of the moves are stretches, half are
    differences of two other walkers, some of them long enough to go from mode to mode.

    Raises
    ------
    ConfigError
        If the configuration is not the one this is written for.
    """
    import emcee

    _require(simulator)
    moves = [
        (emcee.moves.StretchMove(), 0.4),
        (emcee.moves.DEMove(), 0.4),
        (emcee.moves.DEMove(gamma0=1.0), 0.1),
        (emcee.moves.DESnookerMove(), 0.1),
    ]

    def sampler_of(power: float) -> Any:
        target = log_posterior(simulator, flux, simulator.config.snr, power=power)
        made = emcee.EnsembleSampler(walkers, 6, target, vectorize=True, moves=moves)
        made.random_state = np.random.RandomState(int(rng.integers(2**31))).get_state()
        return made

    state: Any = rng.standard_normal((walkers, 6))
    for power in _POWERS:
        state = sampler_of(power).run_mcmc(state, _STEPS_PER_POWER).coords
    sampler = sampler_of(1.0)
    sampler.run_mcmc(state, burn + steps)
    length = float(np.max(sampler.get_autocorr_time(discard=burn, quiet=True, tol=0)))
    length = length if np.isfinite(length) else float(steps)  # a walker that never moved
    thin = max(1, int(min(length, steps / 20) / 4))
    z = sampler.get_chain(discard=burn, thin=thin, flat=True)
    theta, _ = theta_of(simulator, z)
    return McmcResult(theta, length, steps, steps > 50 * length)
