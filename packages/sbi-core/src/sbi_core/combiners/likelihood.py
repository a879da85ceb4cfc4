r"""Combination by the likelihood: a slow reference for the other rules.

For objects i = 1..N with local parameters :math:`\Theta_i` and draws
:math:`\Theta_{im} \sim q_i`,

.. math:: \log p(\Lambda | x_1 .. x_N) = \log p(\Lambda) + \sum_i \log \frac1M \sum_m
          \frac{p(\Theta_{im})}{q_i(\Theta_{im})}\, p(x_i | \Lambda, \Theta_{im}) + \mathrm{const}.

A network gives the starting point only. Every object has its own proposal :math:`q_i`: a widened
Gaussian around the local parameters of high likelihood, mixed with the prior. The same draws are
used for all :math:`\Lambda` on a grid (common random numbers), so that the sum is smooth; they
differ between objects, so that their errors average out. The bias of the logarithm of a mean is
removed by the jackknife. A polynomial through the grid gives the moments; the grid moves until its
centre is near the mode.

Cost: ``draws`` x ``points ** d`` simulations per object, minutes for hundreds of objects. A run
with an emulator uses it instead of the simulator, with its error added to the noise.

References:
    | Owen 2013, "Monte Carlo theory, methods and examples", ch. 9 (defensive importance sampling)
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import special
from scipy.stats import qmc

from sbi_core.combiners.gaussian import starting_point
from sbi_core.combiners.moments import Gaussian, object_moments, simulator_of
from sbi_core.components import Combiner, Rng, Simulator
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.errors import ObservationError
from sbi_core.posterior import CombinedPosterior, Posterior, combined_from_gaussian
from sbi_core.rng import as_generator
from sbi_core.validation import Options

__all__ = ["LikelihoodCombiner", "LikelihoodConfig"]

F64 = NDArray[np.float64]
_LOG = logging.getLogger(__name__)
_ROWS = 500_000  # of simulations held at a time
_WIDER = 1.3  # proposals, relative to the width of the locals that explain an object
_BLOCKS = 8  # of the jackknife


class LikelihoodConfig(Options):
    """Options of the likelihood combiner."""

    draws: int = Field(512, ge=32, description="draws of the local parameters per object")
    total: int = Field(
        8192, ge=1, description="draws of all objects together; with few objects, each gets more"
    )
    search: int = Field(4000, ge=100, description="draws of the prior from which proposals start")
    prior_fraction: float = Field(
        0.1, gt=0, le=1, description="weight of the prior in every proposal"
    )
    points: int = Field(
        5, ge=3, description="grid points per shared parameter (3 suffice for many objects)"
    )
    reach: float = Field(3.0, gt=0.5, description="half width of the grid in combined sigma")
    moves: int = Field(4, ge=0, description="largest number of moves of the grid")
    samples: int = Field(4000, ge=1, description="draws of the combined posterior that are kept")


@dataclass(frozen=True, slots=True)
class _Locals:
    """Draws of the local parameters, and their weights relative to the prior."""

    z: F64  # (n, M, k), unconstrained
    log_weight: F64  # (n, M)


class LikelihoodCombiner(Combiner):
    """Marginal likelihood of every object on a grid of the shared parameters (see the module).

    See Also
    --------
    sbi_core.combiners.gaussian : starting point of the grid.
    """

    name = "likelihood"
    takes_emulator = True

    def __init__(self, config: LikelihoodConfig | None = None) -> None:
        self.config = config or LikelihoodConfig()
        self._simulator: Simulator | None = None

    def attach(self, simulator: Simulator) -> None:
        """Take the simulator whose likelihood is used."""
        self._simulator = simulator

    def combine(
        self, posterior: Posterior, observations: Observations, *, rng: Rng = 0
    ) -> CombinedPosterior:
        """Combine the objects.

        Raises
        ------
        ConfigError
            If no simulator was attached, or its noise has no density.
        PriorMismatchError
            If the estimator was trained under another prior than the simulator has.
        ObservationError
            If no simulation explains the objects.
        """
        gen = as_generator(rng)
        simulator, space = simulator_of(self.name, self._simulator, posterior)
        model = _Model.of(simulator)
        start, flags = starting_point(object_moments(posterior, observations))
        found, diagnostics = start, dict[str, float]()
        if len(observations):
            found, diagnostics = self._fit(model, observations.batch, start, gen)
        if diagnostics.get("monte_carlo_sigma", 0.0) > 0.3:
            flags.append("few_draws")
        if diagnostics.get("off_centre_sigma", 0.0) > 1.5:
            flags.append("grid_not_centred")
        return combined_from_gaussian(
            self.name,
            space,
            len(observations),
            found.mean,
            found.cov,
            draws=self.config.samples,
            rng=gen,
            diagnostics=diagnostics,
            flags=tuple(flags),
        )

    def _fit(
        self, model: _Model, objects: Batch, start: Gaussian, rng: np.random.Generator
    ) -> tuple[Gaussian, dict[str, float]]:
        c = self.config
        centre, facts = start, dict[str, float]()
        for move in range(c.moves + 1):
            draws, ess = self._propose(model, objects, centre.mean, rng)
            values = self._log_likelihoods(model, objects, centre, draws)
            found = _moments(values[0], centre, c.points, c.reach)
            parts = [_moments(v, centre, c.points, c.reach).mean for v in values[1:]]
            chol = np.linalg.cholesky(found.cov)
            noise = np.linalg.solve(chol, parts[0] - parts[1]) / 2
            shift = np.linalg.solve(np.linalg.cholesky(centre.cov), found.mean - centre.mean)
            ratio = np.linalg.slogdet(found.cov)[1] - np.linalg.slogdet(centre.cov)[1]
            facts = {
                "effective_draws": float(np.median(ess)),
                "fewest_effective_draws": float(ess.min()),
                "monte_carlo_sigma": float(np.sqrt((noise**2).mean())),
                "off_centre_sigma": float(np.abs(shift).max()),
                "moves": float(move),
            }
            if facts["off_centre_sigma"] < 1.0 and abs(ratio) < 0.7 * len(found.mean):
                break
            _LOG.info("likelihood grid moves by %.1f sigma", facts["off_centre_sigma"])
            centre = found
        return found, facts

    # -- importance sampling of the locals ---------------------------------------------

    def _propose(
        self, model: _Model, objects: Batch, z_shared: F64, rng: np.random.Generator
    ) -> tuple[_Locals, F64]:
        """Return draws of the locals near the best fit of each object at one Lambda, and ESS."""
        c, n, k = self.config, len(objects), model.k
        if k == 0:
            return _Locals(np.zeros((n, 1, 0)), np.zeros((n, 1))), np.ones(n)
        # weights are flattened where few draws have any, so that no single draw dominates
        enough = 4.0 * (k + 1)
        table = rng.standard_normal((c.search, k))
        simulated = model.simulate(z_shared, model.theta(table))
        mean, root, ess = np.empty((n, k)), np.empty((n, k, k)), np.empty(n)
        for rows in _chunks(n, c.search):
            part = objects[rows]
            again = torch.arange(c.search).repeat(len(part))
            weight = _tempered(model.log_likelihood(simulated[again], part), enough)
            draws = np.broadcast_to(table, (len(part), *table.shape))
            _fitted(mean[rows], root[rows], weight, draws)
        z, log_weight = self._draw(mean, root, rng)
        for final in (False, True):  # once more at the resolution of the data
            for rows in _chunks(n, z.shape[1]):
                theta = model.theta(z[rows].reshape(-1, k))
                like = model.log_likelihood(model.simulate(z_shared, theta), objects[rows])
                like = like + log_weight[rows]
                w = _tempered(like, 1.0)
                ess[rows] = np.where(np.isfinite(like).any(1), 1 / (w**2).sum(1), 0.0)
                if not final:
                    _fitted(mean[rows], root[rows], _tempered(like, enough), z[rows])
            if not final:
                z, log_weight = self._draw(mean, root, rng)
        return _Locals(z, log_weight), ess

    def _count(self, n: int) -> int:
        """Return the number of draws per object."""
        least = 1 << math.ceil(math.log2(max(self.config.total / n, 1.0)))  # whole Sobol nets
        return max(self.config.draws, least)

    def _draw(self, mean: F64, root: F64, rng: np.random.Generator) -> tuple[F64, F64]:
        """Return draws (n, M, k) of the mixture of Gaussian and prior, and log p - log q."""
        m, k = self._count(len(mean)), mean.shape[1]
        share = self.config.prior_fraction
        # a Sobol net, shifted for every object: errors of mean values are a few times smaller
        net = qmc.Sobol(k + 1, rng=rng).random(m)
        u = (net + rng.random((len(mean), 1, k + 1))) % 1.0
        noise = special.ndtri(np.clip(u[..., :k], 1e-9, 1 - 1e-9))
        near = mean[:, None] + np.einsum("nij,nmj->nmi", root, noise)
        z = np.where(u[..., k:] < share, noise, near)
        white = np.einsum("nij,nmj->nmi", np.linalg.inv(root), z - mean[:, None])
        log_det = np.log(np.einsum("nii->ni", root)).sum(1)
        log_p = -0.5 * (z**2).sum(2)
        log_near = -0.5 * (white**2).sum(2) - log_det[:, None]
        log_q = np.logaddexp(np.log1p(-share) + log_near, np.log(share) + log_p)
        return z, log_p - log_q

    def _log_likelihoods(
        self, model: _Model, objects: Batch, centre: Gaussian, draws: _Locals
    ) -> F64:
        """Return the summed log likelihood on the grid, (3, G): of all draws, of either half."""
        nodes = _nodes(len(centre.mean), self.config.points, self.config.reach)
        grid = centre.mean + nodes @ np.linalg.cholesky(centre.cov).T
        total = np.zeros((3, len(grid)))
        for rows in _chunks(len(objects), draws.z.shape[1]):
            z = draws.z[rows]
            theta = model.theta(z.reshape(z.shape[0] * z.shape[1], model.k))  # k may be 0
            for g, z_shared in enumerate(grid):
                like = model.log_likelihood(model.simulate(z_shared, theta), objects[rows])
                total[:, g] += _log_means(like + draws.log_weight[rows]).sum(1)
        return total


# -- the simulator as a likelihood -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Model:
    simulator: Simulator
    shared: tuple[int, ...]  # columns of theta
    local: tuple[int, ...]  # unconstrained coordinates

    @classmethod
    def of(cls, simulator: Simulator) -> _Model:
        space = simulator.parameters
        coordinates = np.arange(space.z_dim)
        local = [coordinates[s] for p, s in space.blocks(z=True) if p.scope != "global"]
        shared = tuple(k for k, scope in enumerate(space.scopes) if scope == "global")
        return cls(simulator, shared, tuple(np.concatenate([*local, coordinates[:0]]).tolist()))

    @property
    def k(self) -> int:
        return len(self.local)

    def theta(self, z: F64) -> F64:
        """Return theta with locals z (n, k); the shared columns are filled in by `simulate`."""
        full = np.zeros((len(z), self.simulator.parameters.z_dim))
        full[:, list(self.local)] = z
        return self.simulator.parameters.from_unconstrained(full)

    def simulate(self, z_shared: F64, theta: F64) -> Batch:
        """Return noise-free data for these locals at one value of the shared parameters."""
        theta = theta.copy()
        space = self.simulator.parameters.select("global")
        theta[:, list(self.shared)] = space.from_unconstrained(z_shared[None])
        # the same random numbers at every value of the shared parameters
        return self.simulator.simulate(theta, as_generator(0))

    def log_likelihood(self, simulated: Batch, objects: Batch) -> F64:
        """Return log p(x_i | simulation m), (n, M), of n x M simulations, M per object."""
        m = len(simulated) // len(objects)
        rows = torch.arange(len(objects)).repeat_interleave(m)
        values = self.simulator.log_likelihood(simulated, objects[rows])
        ok = simulated.ok.cpu().numpy()
        return np.where(ok, values, -np.inf).reshape(len(objects), m)


# -- numerics --------------------------------------------------------------------------------


def _chunks(n: int, each: int) -> Iterator[slice]:
    step = max(1, _ROWS // each)
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def _tempered(log_weight: F64, at_least: float) -> F64:
    """Return normalised weights (n, M), flattened until they are worth ``at_least`` draws."""
    power = np.ones(len(log_weight))
    finite = np.where(np.isfinite(log_weight), log_weight, -1e300)
    while True:
        w = np.exp(power[:, None] * (finite - finite.max(1, keepdims=True)))
        w /= w.sum(1, keepdims=True)
        few = 1 / (w**2).sum(1) < at_least
        if not few.any() or power.min() < 1e-4:
            return np.asarray(w)
        power = np.where(few, 0.8 * power, power)


def _fitted(mean: F64, root: F64, weight: F64, draws: F64) -> None:
    """Set mean (n, k) and Cholesky factor (n, k, k) of the proposals from weighted draws."""
    mean[:] = np.einsum("nm,nmk->nk", weight, draws)
    off = draws - mean[:, None]
    cov = np.einsum("nm,nmi,nmj->nij", weight, off, off)
    root[:] = np.linalg.cholesky(cov * _WIDER**2 + 1e-6 * np.eye(cov.shape[1]))


def _log_means(values: F64) -> F64:
    """Return log mean exp along the draws without its first-order bias: (3, n).

    Rows: all draws, their first half, their second half.
    """
    m = values.shape[1]
    whole = special.logsumexp(values, 1) - np.log(m)
    if m < 2 * _BLOCKS:
        return np.stack([whole, whole, whole])
    halves = values[:, : m // 2], values[:, m // 2 :]
    return np.stack([_jackknife(values), *(_jackknife(h) for h in halves)])


def _jackknife(values: F64) -> F64:
    """Return log mean exp, corrected by leaving out one of several blocks of draws at a time."""
    m = values.shape[1] // _BLOCKS * _BLOCKS
    blocks = special.logsumexp(values[:, :m].reshape(len(values), _BLOCKS, -1), 2)
    whole = special.logsumexp(blocks, 1)
    some = np.isfinite(whole)  # where no draw explains the object, the mean is zero
    share = np.exp(blocks - np.where(some, whole, 0.0)[:, None])
    left = np.log1p(-np.minimum(share, 1 - 1e-9)).mean(1) + np.log(_BLOCKS / (_BLOCKS - 1))
    return np.asarray(whole - (_BLOCKS - 1) * left - np.log(m))


def _nodes(d: int, points: int, reach: float) -> F64:
    """Return the points of a cubic grid, (points ** d, d)."""
    axis = np.linspace(-reach, reach, points)
    return np.array(list(itertools.product(axis, repeat=d)))


def _moments(values: F64, centre: Gaussian, points: int, reach: float) -> Gaussian:
    """Return mean and covariance of prior times exp(values), values given on the grid.

    The polynomial has as many degrees as the grid has points per axis, less one. For one or two
    parameters its moments are sums over a fine grid, beyond it is quadratic.
    """
    d = len(centre.mean)
    nodes, root = _nodes(d, points, reach), np.linalg.cholesky(centre.cov)
    values = values - 0.5 * ((centre.mean + nodes @ root.T) ** 2).sum(1)  # the prior, N(0, I)
    weight = np.exp(-0.125 * (nodes**2).sum(1))
    degree = points - 1 if d <= 2 else 2
    design = _monomials(nodes, degree)
    good = np.isfinite(values)
    if not good.any():
        msg = (
            "no simulation explains all objects at any of the shared parameters that were tried: "
            "leave out objects that are flagged, or raise combiner.draws"
        )
        raise ObservationError(msg)
    coefficients = np.linalg.lstsq(
        design[good] * weight[good, None],
        (values - values[good].max())[good] * weight[good],
        rcond=None,
    )[0]
    if degree == 2:
        u_mean, u_cov = _quadratic(coefficients, d)
    else:
        fine = _nodes(d, 61 if d == 2 else 401, 1.15 * reach)
        density = np.exp(_capped(_interpolated(fine, coefficients, good, points, reach)))
        density /= density.sum()
        u_mean = density @ fine
        u_cov = np.einsum("n,ni,nj->ij", density, fine - u_mean, fine - u_mean)
    return Gaussian(centre.mean + root @ u_mean, root @ u_cov @ root.T)


def _interpolated(
    fine: F64, coefficients: F64, good: NDArray[np.bool_], points: int, reach: float
) -> F64:
    """Return the polynomial at fine (n, d), where it is backed by nodes.

    Beyond the grid it does not rise above its value at the edge; around a node without a value it
    is -inf.
    """
    inside = np.clip(fine, -reach, reach)
    values = np.minimum(
        _monomials(fine, points - 1) @ coefficients, _monomials(inside, points - 1) @ coefficients
    )
    nearest = np.rint((inside + reach) * (points - 1) / (2 * reach)).astype(int)
    known = good.reshape((points,) * fine.shape[1])[tuple(nearest.T)]
    return np.where(known, values, -np.inf)


def _capped(values: F64) -> F64:
    return np.asarray(values - values.max())


def _quadratic(coefficients: F64, d: int) -> tuple[F64, F64]:
    """Return maximum and inverse curvature of a quadratic in d variables."""
    exponents = [e for e in itertools.product(range(3), repeat=d) if sum(e) <= 2]
    slope, curvature = np.zeros(d), np.zeros((d, d))
    for e, c in zip(exponents, coefficients, strict=True):
        axes = np.repeat(np.arange(d), e)
        if len(axes) == 1:
            slope[axes[0]] = c
        elif len(axes) == 2:
            i, j = axes
            curvature[i, j] -= c
            curvature[j, i] -= c
    values, vectors = np.linalg.eigh(curvature)
    cov = vectors @ np.diag(1 / np.clip(values, 0.05, None)) @ vectors.T  # at most 4.5 times wider
    return cov @ slope, cov


def _monomials(x: F64, degree: int) -> F64:
    """Return the monomials of x (n, d) up to a total degree, (n, terms); the constant first."""
    exponents = [
        e for e in itertools.product(range(degree + 1), repeat=x.shape[1]) if sum(e) <= degree
    ]
    return np.stack([np.prod(x ** np.array(e), axis=1) for e in exponents], 1)
