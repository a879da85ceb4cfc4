r"""Posterior of one spectrum from the likelihood: histories of the prior, weighted and moved.

Histories and their random numbers z (:mod:`sbi_sfh.coordinates`), standard normal in the prior, are
drawn once. For a spectrum x with coefficients c,

.. math:: \log L = -\tfrac12 \lVert L^T c - L^{-1} B W x \rVert^2, \qquad B W B^T = L L^T

with the inverse covariance W of the pixels. Sequential Monte Carlo samples
:math:`p(z)\,L(z)^\beta`: with importance weights of the prior up to a :math:`\beta` at which
enough of them are effective, then in steps, each followed by moves that leave the distribution
unchanged: :math:`z' = \sqrt{1 - s^2}\,z + s\,\epsilon` of all or some coordinates, and differences
of two others of the same family. Two populations run side by side, until their means agree to a
fifth of a standard deviation or the limit is reached; they differ by the error of the result.

In mode ``observed`` the nuisances are linear around the spectrum of the amortised posterior:
:math:`W = (\Sigma + D \Lambda D^T)^{-1}`, D the derivatives with respect to amplitude, flux
calibration, velocity and velocity dispersion, :math:`\Lambda` their prior variances.

References:
    | Del Moral, Doucet & Jasra 2006, J. R. Stat. Soc. B 68, 411 (sequential Monte Carlo)
    | Cotter et al. 2013, Statistical Science 28, 424 (moves that keep a Gaussian prior)
    | ter Braak 2006, Stat. Comput. 16, 239 (moves along differences)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy.linalg import solve_triangular
from scipy.optimize import brentq

from sbi_core import ConfigError, Observations, stream
from sbi_sfh.broadening import NODE_STEP
from sbi_sfh.constants import C_KMS
from sbi_sfh.coordinates import Coordinates
from sbi_sfh.histories import draw_family
from sbi_sfh.own_age import at_own_age, delays, possible_draws
from sbi_sfh.recovered import recover_mean
from sbi_sfh.residuals import weighted
from sbi_sfh.simulator import SfhSimulator
from sbi_sfh.ssp import linear_weights

if TYPE_CHECKING:
    from sbi_core import Run

__all__ = [
    "Derived",
    "Refined",
    "RefinedObject",
    "Refiner",
    "Target",
    "refine_objects",
    "row_of",
    "target_of",
]

F64 = NDArray[np.float64]
_BANK = 40_000  # histories of the prior
_PARTICLES = 500  # of each of the two populations
_EFFECTIVE = 0.5  # of the particles, after every step of the temperature
_SWEEPS, _LAST_SWEEPS = 5, 10  # moves of every particle after a step, and in a block at the end
_BLOCKS = 10  # at the end, as long as the populations differ
_AGREE = 0.2  # standard deviations
_SMALLEST = 1e-3  # step of a move, in standard deviations of the prior
_CHUNK = 2000
_FLOOR = 1e-10  # of the diagonal of B W B^T: vectors that masks hide
_AMPLITUDE = 0.1  # standard deviation, mode observed: the median is one of noisy pixels
_NETWORK_DRAWS = 500
_DIFFERENT = 0.5  # standard deviations between the populations
_TESTED_SNR = 10.0  # per pixel: above, both populations may have missed the same histories
_YOUNG = 0.1  # Gyr, of the recent star formation rate


@dataclass(frozen=True)
class Target:
    """Likelihood of coefficients (n, K): a Gaussian in few numbers.

    Parameters
    ----------
    factor : (K, K)
        L, lower triangle.
    data : (K,)
        What L^T c is compared with.
    """

    factor: F64
    data: F64

    def __call__(self, coefficients: F64) -> F64:
        """Return log L (n,), up to a constant."""
        off = coefficients @ self.factor - self.data
        return np.asarray(-0.5 * (off**2).sum(1))


@dataclass(frozen=True)
class Derived:
    """Numbers that follow from a history and a metallicity, (n,) each.

    Parameters
    ----------
    age_mass, age_light
        Mean age of the stars, Gyr, weighted by mass formed, and by light (5000-5500 Angstrom, or
        all wavelengths of the model).
    log_ssfr
        log10 of the star formation rate of the last 100 Myr over the mass formed, 1/yr; -14 at
        least.
    log_ml
        log10 of the mass formed over the luminosity at the median of the spectrum, solar masses per
        L_sun/Angstrom.
    """

    age_mass: F64
    age_light: F64
    log_ssfr: F64
    log_ml: F64


@dataclass(frozen=True)
class Refined:
    """Posterior of one spectrum.

    Parameters
    ----------
    theta : (n, d)
        Equally weighted draws.
    derived
        Derived numbers of the draws.
    efficiency
        Effective share of the histories of the prior, with importance weights alone.
    difference
        Largest difference of the means of both populations, in standard deviations.
    evaluations
        Spectra computed for this galaxy.
    """

    theta: F64
    derived: Derived
    efficiency: float
    difference: float
    evaluations: int


@dataclass(frozen=True)
class RefinedObject:
    """One galaxy of a file.

    Parameters
    ----------
    id
        Its identifier.
    names
        Of the parameters.
    refined
        Posterior from the likelihood.
    network : (S, d)
        Draws of the amortised posterior.
    flags
        Of the amortised posterior, ``not_converged`` and ``snr_above_tested``.
    """

    id: str
    names: tuple[str, ...]
    refined: Refined
    network: F64
    flags: str


@dataclass
class _Population:
    """Particles of one family: coordinates (n, D), spectra's log L (n,)."""

    name: str
    z: F64
    log_l: F64


@dataclass(frozen=True)
class _Made:
    """Populations of coordinates: coefficients, which are usable, theta, growth, median flux."""

    z: F64
    coefficients: F64
    good: NDArray[np.bool_]
    theta: F64
    growth: F64
    median: F64


class Refiner:
    """Samples posteriors under the prior of a simulator.

    Parameters
    ----------
    simulator
        Its library, families and mode.
    bank
        Histories drawn from the prior; the same for all spectra.

    Raises
    ------
    ConfigError
        If options make the prior one without coordinates: grid ``readme`` or ``max_overshoot``.
    """

    def __init__(self, simulator: SfhSimulator, *, bank: int = _BANK) -> None:
        c = simulator.config
        if c.grid != "continuous" or c.max_overshoot is not None or c.copies != 1:
            msg = (
                "refinement needs the prior of simulator.grid=continuous, without max_overshoot "
                "and copies; train such a run"
            )
            raise ConfigError(msg)
        self.simulator, self.size = simulator, bank
        self._metals = 2 if c.afe else 1

    # -- prior ----------------------------------------------------------------------

    def populations(self, name: str, z: F64, rng: np.random.Generator | None = None) -> _Made:
        """Return the populations of coordinates z (n, D) of a family."""
        synthesis, library = self.simulator.synthesis, self.simulator.library
        numbers = Coordinates(z, rng)
        u = numbers.random((len(z), self._metals))
        mh = library.mh[0] + (library.mh[-1] - library.mh[0]) * u[:, 0]
        afe = None
        if self._metals > 1:
            afe = library.afe[0] + (library.afe[-1] - library.afe[0]) * u[:, 1]
        drawn = draw_family(name, len(z), self.simulator.config, cast("Any", numbers))
        c, median, _ = synthesis.coefficients(drawn.cumulative, mh, afe)
        good = drawn.ok & (median > 0) & np.isfinite(c).all(1)
        theta = np.column_stack([drawn.percentiles, mh, *([] if afe is None else [afe])])
        return _Made(
            numbers.z, np.where(good[:, None], c, 0.0), good, theta, drawn.cumulative, median
        )

    @cached_property
    def bank(self) -> Mapping[str, tuple[F64, F64]]:
        """Coordinates and coefficients of histories of the prior, family by family."""
        rng = stream(0, "sfh", "refine", "bank")
        shares = self.simulator.config.families
        found: dict[str, tuple[F64, F64]] = {}
        for name, count in zip(
            shares, rng.multinomial(self.size, list(shares.values())), strict=True
        ):
            parts = [
                self.populations(name, np.empty((min(_CHUNK, count - start), 0)), rng)
                for start in range(0, count, _CHUNK)
            ]
            if parts:
                good = np.concatenate([p.good for p in parts])
                z = np.concatenate([p.z for p in parts])[good]
                found[name] = z, np.concatenate([p.coefficients for p in parts])[good]
        return found

    # -- one spectrum ----------------------------------------------------------------

    def __call__(
        self, target: Target, rng: np.random.Generator, *, particles: int = _PARTICLES
    ) -> Refined:
        """Return the posterior of one spectrum."""
        log_l = {name: target(c) for name, (_, c) in self.bank.items()}
        every = np.concatenate(list(log_l.values()))
        efficiency = _effective(every) / len(every)
        self._evaluations = 0
        both = [self._sample(target, log_l, half, particles, rng) for half in (0, 1)]
        for _ in range(_BLOCKS):
            for population in both:
                self._sweep(population, target, 1.0, _LAST_SWEEPS, rng)
            made = [[self.populations(p.name, p.z) for p in population] for population in both]
            theta = [np.concatenate([m.theta for m in of]) for of in made]
            sd = np.concatenate(theta).std(0)
            off = np.abs(theta[0].mean(0) - theta[1].mean(0)) / np.maximum(sd, 1e-12)
            if off.max() < _AGREE:
                break
        flat = [m for of in made for m in of]
        return Refined(
            theta=np.concatenate(theta),
            derived=self._derived(flat),
            efficiency=efficiency,
            difference=float(off.max()),
            evaluations=self._evaluations,
        )

    def _sample(
        self, target: Target, log_l: Mapping[str, F64], half: int, n: int, rng: np.random.Generator
    ) -> list[_Population]:
        """Return one population of the posterior, from every other history of the bank."""
        particles = [
            _Population(name, z[half::2], log_l[name][half::2])
            for name, (z, _) in self.bank.items()
        ]
        beta, effective = 0.0, float(n)
        while beta < 1.0:
            after = _next_power(_joined(particles), beta, effective)
            particles = _resampled(particles, after - beta, n, rng)
            beta, effective = after, _EFFECTIVE * n
            self._sweep(particles, target, beta, _SWEEPS, rng)
        return particles

    def _sweep(
        self,
        particles: list[_Population],
        target: Target,
        beta: float,
        times: int,
        rng: np.random.Generator,
    ) -> None:
        for _ in range(times):
            for family in particles:
                self._move(family, target, beta, rng)

    def _move(self, p: _Population, target: Target, beta: float, rng: np.random.Generator) -> None:
        """Move every particle once: half of them with the help of the other half."""
        order = rng.permutation(len(p.z))
        for some, others in ((order[::2], order[1::2]), (order[1::2], order[::2])):
            if not len(some):
                continue
            z = p.z[some]
            proposed, log_ratio = _proposal(z, p.z[others], rng)
            made = self.populations(p.name, proposed)
            self._evaluations += len(z)
            log_l = np.where(made.good, target(made.coefficients), -np.inf)
            log_a = beta * (log_l - p.log_l[some]) + log_ratio
            taken = np.log(rng.random(len(z))) < log_a
            p.z[some[taken]], p.log_l[some[taken]] = proposed[taken], log_l[taken]

    def _derived(self, made: list[_Made]) -> Derived:
        synthesis, library = self.simulator.synthesis, self.simulator.library
        growth = np.concatenate([m.growth for m in made])
        theta = np.concatenate([m.theta for m in made])
        median = np.concatenate([m.median for m in made])
        k = len(self.simulator.recovery.fractions)
        band = (library.wave > 5000.0) & (library.wave < 5500.0)
        if not band.any():
            band = np.ones(len(library.wave), bool)
        mean = library.basis[:, band].mean(1)
        weights, _ = synthesis.weights(growth)
        each = library.coeff @ mean  # (P, Z, A): light of every stellar population
        zeta = linear_weights(theta[:, k], library.mh)
        afe = theta[:, k + 1] if self._metals > 1 else np.full(len(theta), library.afe[0])
        alpha = linear_weights(afe, library.afe)
        light = weights * np.einsum("pza,np,nz->na", each, alpha, zeta)
        age = library.age_gyr
        end = synthesis.time[-1]
        recent = 1.0 - np.array([np.interp(end - _YOUNG, synthesis.time, g) for g in growth])
        return Derived(
            age_mass=weights @ age / weights.sum(1),
            age_light=light @ age / light.sum(1),
            log_ssfr=np.log10(np.maximum(recent / (_YOUNG * 1e9), 1e-14)),
            log_ml=-np.log10(median),
        )


def target_of(simulator: SfhSimulator, observations: Observations, k: int, theta: F64) -> Target:
    """Return the likelihood of object k.

    Parameters
    ----------
    simulator
        Library and options.
    observations
        The spectra.
    k
        Row.
    theta : (d,)
        Where the nuisances are linear: the mean of the amortised posterior.

    Raises
    ------
    ConfigError
        If the spectrum has no errors.
    """
    row = observations.batch[k]
    if row.x_err is None:
        msg = "refinement needs the errors of the spectra: give them, or simulator.assumed_snr"
        raise ConfigError(msg)
    flux, weight, _ = weighted(row)
    basis = simulator.library.basis
    nuisances = np.empty((0, len(flux)))
    if simulator.telescope.observed_mode:
        basis, nuisances = _nuisances(simulator, row, theta)
    scaled = basis * weight
    gram, right = scaled @ scaled.T, scaled @ (flux * weight)
    if len(nuisances):
        d = nuisances * weight
        inner = np.linalg.inv(np.eye(len(d)) + d @ d.T)
        mixed = scaled @ d.T
        gram = gram - mixed @ inner @ mixed.T
        right = right - mixed @ inner @ (d @ (flux * weight))
    gram[np.diag_indices_from(gram)] += _FLOOR * np.trace(gram) / len(gram)
    factor = np.asarray(np.linalg.cholesky(gram), np.float64)
    return Target(factor, np.asarray(solve_triangular(factor, right, lower=True), np.float64))


def refine_objects(run: Run, objects: Observations, particles: int) -> Iterator[RefinedObject]:
    """Yield the refined posteriors of the objects of a run, one after the other."""
    simulator = run.simulator_of(SfhSimulator)
    refiner = Refiner(simulator)
    samples = run.infer(objects, _NETWORK_DRAWS)
    late = delays(objects.labels, len(objects), simulator.config.t_end)
    times = len(simulator.recovery.fractions)
    for k, name in enumerate(map(str, samples.id)):
        draws = samples.values[:, k]
        target = target_of(simulator, objects, k, at_own_age(draws, -late[k], times).mean(0))
        refined = refiner(target, stream(run.config.seed, "refine", name), particles=particles)
        refined = _seen_at(refined, float(late[k]), times)
        words = [str(samples.flags[k])]
        if refined.difference > _DIFFERENT:
            words.append("not_converged")
        flux, weight, used = weighted(objects.batch[k])
        if float(np.median((flux * weight)[used])) > _TESTED_SNR:
            words.append("snr_above_tested")
        flags = ",".join(filter(None, words))
        yield RefinedObject(name, tuple(samples.names), refined, draws, flags)


def _seen_at(refined: Refined, delay: float, times: int) -> Refined:
    """Return a posterior with formation times since the Big Bang at the redshift of the galaxy."""
    rows, _ = possible_draws(refined.theta[:, 0], delay)
    derived = Derived(**{name: values[rows] for name, values in asdict(refined.derived).items()})
    return replace(refined, theta=at_own_age(refined.theta[rows], delay, times), derived=derived)


def row_of(found: RefinedObject) -> dict[str, Any]:
    """Return the row of a table: percentiles of parameters, of derived numbers, of the network."""
    row: dict[str, Any] = {"id": found.id}
    columns = dict(zip(found.names, found.refined.theta.T, strict=True))
    columns |= asdict(found.refined.derived)
    for name, values in columns.items():
        for level in (16, 50, 84):
            row[f"{name}_p{level}"] = float(np.percentile(values, level))
    for name, values in zip(found.names, found.network.T, strict=True):
        row[f"{name}_network_p50"] = float(np.median(values))
        row[f"{name}_network_sd"] = float(values.std())
    return row | {
        "efficiency": found.refined.efficiency,
        "difference": found.refined.difference,
        "evaluations": found.refined.evaluations,
        "flags": found.flags,
    }


def _nuisances(simulator: SfhSimulator, row: Any, theta: F64) -> tuple[F64, F64]:
    """Return the basis (K, L) as observed, and directions (m, L) of one prior deviation each."""
    telescope, config = simulator.telescope, simulator.config
    mean = recover_mean(simulator, row, theta, 0.0)
    fit, c = mean.fit, mean.coefficients
    node, grid = round(fit.sigma / NODE_STEP), telescope.broadened
    shape = fit.model / (c @ grid[node].double().numpy())
    low, high = max(node - 1, 0), min(node + 1, len(grid) - 1)
    per_kms = (c @ (grid[high] - grid[low]).double().numpy()) / ((high - low) * NODE_STEP)
    spread = (config.sigma_range[1] - config.sigma_range[0]) / np.sqrt(12.0)
    legendre = telescope.legendre.double().numpy()
    size = config.polynomial_sd / np.arange(1, len(legendre) + 1)[:, None]
    velocity = np.gradient(fit.model) * telescope.wave / np.gradient(telescope.wave)
    rows = [
        _AMPLITUDE * fit.model[None],
        size * legendre * fit.model,
        config.velocity_sd / C_KMS * velocity[None],
        spread * (per_kms * shape)[None],
    ]
    if config.dust is not None:  # E(B-V) is uniform
        colour = -0.4 * np.log(10.0) * telescope.extinction.double().numpy()
        rows.append(config.dust / np.sqrt(12.0) * (colour * fit.model)[None])
    return mean.basis, np.concatenate(rows)


def _proposal(z: F64, others: F64, rng: np.random.Generator) -> tuple[F64, F64]:
    """Return proposals (n, D) and the log of prior ratio and asymmetry, (n,)."""
    n, d = z.shape
    share = rng.choice([1.0, 0.3, 1.0 / d], (n, 1))
    moved = rng.random((n, d)) < share
    moved[np.arange(n), rng.integers(d, size=n)] = True
    size = np.exp(rng.uniform(np.log(_SMALLEST), 0.0, (n, 1)))
    walk = np.sqrt(1.0 - size**2) * z + size * rng.standard_normal((n, d))
    if len(others) < 2:
        return np.where(moved, walk, z), np.zeros(n)
    one = rng.integers(len(others), size=n)
    two = (one + 1 + rng.integers(len(others) - 1, size=n)) % len(others)
    scale = 2.38 / np.sqrt(2.0 * moved.sum(1, keepdims=True)) * rng.choice([0.3, 1.0], (n, 1))
    scale = np.where(rng.random((n, 1)) < 0.1, 1.0, scale)
    step = z + scale * (others[one] - others[two]) + 1e-5 * rng.standard_normal((n, d))
    along = np.asarray(rng.random(n) < 0.5)
    proposed = np.where(moved, np.where(along[:, None], step, walk), z)
    # the walk keeps the prior by itself
    log_prior = 0.5 * (z**2 - proposed**2).sum(1)
    return proposed, np.where(along, log_prior, 0.0)


def _joined(particles: list[_Population]) -> F64:
    return np.concatenate([p.log_l for p in particles])


def _effective(log_w: F64) -> float:
    w = special.softmax(log_w)
    return float(1.0 / (w**2).sum())


def _next_power(log_l: F64, beta: float, effective: float) -> float:
    """Return the power of the likelihood at which so many are still effective; at most 1."""

    def missing(step: float) -> float:
        return _effective(step * log_l) - effective

    most = 1.0 - beta
    if missing(most) >= 0:
        return 1.0
    low = 1e-12
    if missing(low) <= 0:
        return beta + low
    return beta + float(brentq(missing, low, most, xtol=1e-9, rtol=1e-4))


def _resampled(
    particles: list[_Population], power: float, n: int, rng: np.random.Generator
) -> list[_Population]:
    """Return n equally weighted particles: systematic resampling by L**power."""
    weight = special.softmax(power * _joined(particles))
    places = (rng.random() + np.arange(n)) / n
    rows = np.minimum(np.searchsorted(np.cumsum(weight), places), len(weight) - 1)
    out, first = [], 0
    for p in particles:
        own = rows[(rows >= first) & (rows < first + len(p.z))] - first
        first += len(p.z)
        if len(own):
            out.append(_Population(p.name, p.z[own], p.log_l[own]))
    return out
