r"""Combination by the likelihood: a slow reference for the other rules.

For objects i = 1..N with local parameters :math:`\Theta_i` and draws
:math:`\Theta_{im} \sim q_i`,

.. math:: \log p(\Lambda | x_1 .. x_N) = \log p(\Lambda) + \sum_i \log \frac1M \sum_m
          \frac{p(\Theta_{im})}{q_i(\Theta_{im})}\, p(x_i | \Lambda, \Theta_{im}) + \mathrm{const}.

A network gives the starting point only. Every object has its own proposal :math:`q_i`: a Gaussian
around the local parameters of high likelihood, fitted in a few rounds, mixed with a wider one and
with the prior. The same random numbers are used for all :math:`\Lambda` on a grid, so that the sum
is smooth; they differ between objects, so that their errors average out. Where the local parameters
that explain an object depend on :math:`\Lambda` (small errors, few objects), its proposal is fitted
anew at every grid point, from that of the neighbour. Objects whose weights have a Pareto index k
above 0.7 get more draws; the largest k and the fraction of objects above 0.7 that remains are
reported. The bias of the logarithm of a mean is removed by the jackknife. A polynomial through the
grid gives the moments; the grid moves until its centre is near the mode.

Cost: ``draws`` x ``points ** d`` simulations per object, up to five times as many where proposals
are fitted at every grid point; minutes for hundreds of objects. A run with an emulator uses it
instead of the simulator, with its error added to the noise.

References:
    | Owen 2013, "Monte Carlo theory, methods and examples", ch. 9 (defensive importance sampling)
    | Vehtari et al. 2024, arXiv:1507.02646 (Pareto index of the weights)
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
from scipy import spatial, special
from scipy.stats import qmc

from sbi_core.combiners.gaussian import starting_point
from sbi_core.combiners.moments import Gaussian, object_moments, simulator_of
from sbi_core.components import Combiner, Rng, Simulator
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.diagnostics import pareto_k
from sbi_core.errors import ObservationError
from sbi_core.posterior import CombinedPosterior, Posterior, combined_from_gaussian
from sbi_core.rng import as_generator
from sbi_core.validation import Options

__all__ = ["LikelihoodCombiner", "LikelihoodConfig"]

F64 = NDArray[np.float64]
_LOG = logging.getLogger(__name__)
_ROWS = 500_000  # of simulations held at a time
_WIDER = 1.3  # proposals, relative to the width of the locals that explain an object
_WIDE, _WIDE_SHARE = 2.5, 0.25  # a wider part of the proposals, and its weight
_ROUNDS = 3  # fits of the proposals
_ENOUGH = 0.2  # effective fraction of the draws; with fewer, proposals are fitted at every node
_TAIL = 0.7  # Pareto index above which weights are unreliable
_MORE, _TIMES = 2, 4  # more draws for objects with such weights
_FAR = 4.0  # prior sigma: a Gaussian product beyond cannot be right
_NARROWEST = 0.25  # posterior relative to the width of the grid
_CLOUD = 1.5  # width of the cloud of nodes for more than two parameters
_COUNT = 0.1  # effective fraction of the nodes from which on a polynomial is fitted
_FINE = 1 << 14  # points over which the polynomial is summed there
_DEEP = 20.0  # below the largest log posterior of the grid: of no importance
_SOME = 0.05  # fraction of objects with such weights above which the result is flagged
_BLOCKS = 8  # of the jackknife


class LikelihoodConfig(Options):
    """Options of the likelihood combiner."""

    draws: int = Field(512, ge=32, description="draws of the local parameters per object")
    total: int = Field(
        2048, ge=1, description="draws of all objects together; with few objects, each gets more"
    )
    search: int = Field(4000, ge=100, description="draws of the prior from which proposals start")
    prior_fraction: float = Field(
        0.1, gt=0, le=1, description="weight of the prior in every proposal"
    )
    points: int = Field(
        5, ge=3, description="grid points per shared parameter (3 suffice for many objects)"
    )
    reach: float = Field(3.5, gt=0.5, description="half width of the grid in combined sigma")
    moves: int = Field(8, ge=0, description="largest number of moves of the grid")
    samples: int = Field(4000, ge=1, description="draws of the combined posterior that are kept")


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
        if np.abs(start.mean).max() > _FAR:
            start = Gaussian.standard(len(start.mean))
        found, diagnostics = start, dict[str, float]()
        if len(observations):
            found, diagnostics = self._fit(model, observations.batch, start, gen)
        if diagnostics.get("monte_carlo_sigma", 0.0) > 0.3:
            flags.append("few_draws")
        if diagnostics.get("fraction_large_pareto_k", 0.0) > _SOME:
            flags.append("uneven_weights")
        if diagnostics.get("off_centre_sigma", 0.0) > 1.0:
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
        nodes = _nodes(len(start.mean), c.points, c.reach)
        for move in range(c.moves + 1):
            each = self._all_log_means(model, objects, centre, nodes, rng)
            values = each.log_means.sum(2)
            found = _moments(values[0], centre, nodes, c.points, c.reach)
            parts = [_moments(v, centre, nodes, c.points, c.reach).mean for v in values[1:]]
            chol = np.linalg.cholesky(found.cov)
            noise = np.linalg.solve(chol, parts[0] - parts[1]) / 2
            shift = np.linalg.solve(np.linalg.cholesky(centre.cov), found.mean - centre.mean)
            ratio = np.linalg.slogdet(found.cov)[1] - np.linalg.slogdet(centre.cov)[1]
            facts = {
                "effective_draws": float(np.median(each.effective)) if model.k else 1.0,
                "fewest_effective_draws": float(each.effective.min()) if model.k else 1.0,
                "largest_pareto_k": float(each.pareto_k.max()),
                "fraction_large_pareto_k": float((each.pareto_k > _TAIL).mean()),
                "monte_carlo_sigma": float(np.sqrt((noise**2).mean())),
                "off_centre_sigma": float(np.abs(shift).max()),
                "moves": float(move),
            }
            if facts["off_centre_sigma"] < 0.5 and abs(ratio) < 0.35 * len(found.mean):
                break
            _LOG.info("likelihood grid moves by %.1f sigma", facts["off_centre_sigma"])
            centre = found
        return found, facts

    # -- importance sampling of the locals ---------------------------------------------

    def _all_log_means(
        self, model: _Model, objects: Batch, centre: Gaussian, nodes: F64, rng: np.random.Generator
    ) -> _Estimates:
        """Return the log likelihood of every object at every node; more draws where k > 0.7."""
        grid = centre.mean + nodes @ np.linalg.cholesky(centre.cov).T
        count = self._count(len(objects))
        found = self._log_means(model, objects, centre.mean, grid, nodes, count, rng)
        for _ in range(_MORE):
            poor = np.flatnonzero(found.pareto_k > _TAIL)
            if not len(poor):
                break
            count *= _TIMES
            part = objects[torch.as_tensor(poor)]
            again = self._log_means(model, part, centre.mean, grid, nodes, count, rng)
            found.replace(poor, again)
        return found

    def _count(self, n: int) -> int:
        """Return the number of draws per object."""
        least = 1 << math.ceil(math.log2(max(self.config.total / n, 1.0)))  # whole Sobol nets
        return max(self.config.draws, least)

    def _log_means(
        self,
        model: _Model,
        objects: Batch,
        middle: F64,
        grid: F64,
        nodes: F64,
        count: int,
        rng: np.random.Generator,
    ) -> _Estimates:
        """Return the log likelihood of every object at every node of the grid (G, d)."""
        c, n, k = self.config, len(objects), model.k
        found = _Estimates.empty(n, len(grid))
        if k == 0:
            theta = model.theta(np.zeros((n, 0)))
            for g, z_shared in enumerate(grid):
                like = model.log_likelihood(model.simulate(z_shared, theta), objects)
                found.log_means[:, g] = like[:, 0]
            return found
        net = qmc.Sobol(k + 1, rng=rng).random(count)
        table = rng.standard_normal((c.search, k))
        simulated = model.simulate(middle, model.theta(table))
        inner = np.abs(nodes).max(1) <= 0.6 * c.reach  # where most of the posterior is
        for rows in _chunks(n, max(c.search, count)):
            part = objects[rows]
            draws = _Draws.of(net, rng.random((len(part), 1, k + 1)), c.prior_fraction)
            again = torch.arange(c.search).repeat(len(part))
            weight = _tempered(model.log_likelihood(simulated[again], part), 4.0 * (k + 1))
            start = _Proposal.fit(weight, np.broadcast_to(table, (len(part), *table.shape)))
            start = _adapted(model, part, middle, start, draws, _ROUNDS)
            of_part = _Estimates.empty(len(part), len(grid))
            for g, z_shared in enumerate(grid):
                log_w = _log_weights(model, part, z_shared, start, draws)[0]
                of_part.add(g, log_w, judge=bool(inner[g]))
            poor = np.flatnonzero(of_part.fewest < _ENOUGH * count)
            if len(poor):
                following = part[torch.as_tensor(poor)], start[poor], draws[poor]
                of_part.replace(poor, self._follow(model, *following, grid, nodes, inner))
            found.replace(np.arange(n)[rows], of_part)
        return found

    @staticmethod
    def _follow(
        model: _Model,
        objects: Batch,
        start: _Proposal,
        draws: _Draws,
        grid: F64,
        nodes: F64,
        inner: NDArray[np.bool_],
    ) -> _Estimates:
        """Return log likelihoods, with proposals of every node fitted from those of its neighbour.

        The random numbers are the same at all nodes, so that the sum stays smooth.
        """
        found = _Estimates.empty(len(objects), len(grid))
        proposals: dict[int, _Proposal] = {}
        for g in np.argsort((nodes**2).sum(1), kind="stable").tolist():
            earlier = list(proposals)
            distance = ((nodes[earlier] - nodes[g]) ** 2).sum(1)
            first = proposals[earlier[int(distance.argmin())]] if earlier else start
            proposals[g] = _adapted(model, objects, grid[g], first, draws, _ROUNDS)
            log_w = _log_weights(model, objects, grid[g], proposals[g], draws)[0]
            found.add(g, log_w, judge=bool(inner[g]))
        return found


@dataclass(frozen=True, slots=True)
class _Estimates:
    """Estimates of every object, and how good they are.

    Parameters
    ----------
    log_means : (3, G, n)
        Log likelihoods: of all draws, of either half.
    fewest, effective : (n,)
        Fewest effective draws of all nodes, and of the inner ones.
    pareto_k : (n,)
        Largest Pareto index of the weights at inner nodes.
    """

    log_means: F64
    fewest: F64
    effective: F64
    pareto_k: F64

    @classmethod
    def empty(cls, n: int, nodes: int) -> _Estimates:
        """Return the estimates before the first node."""
        return cls(np.zeros((3, nodes, n)), *(np.full(n, v) for v in (np.inf, np.inf, 0.0)))

    def add(self, node: int, log_weight: F64, *, judge: bool) -> None:
        """Take the log weights (n, M) at one node."""
        self.log_means[:, node] = _log_means(log_weight)
        w = _tempered(log_weight, 0.0)
        some = np.isfinite(log_weight).any(1)
        effective = np.where(some, _effective(w), 0.0)
        np.minimum(self.fewest, effective, out=self.fewest)
        if judge:
            np.minimum(self.effective, effective, out=self.effective)
            k = np.where(some, np.nan_to_num(pareto_k(w.T), nan=np.inf), np.inf)
            np.maximum(self.pareto_k, k, out=self.pareto_k)

    def replace(self, rows: NDArray[np.int64], other: _Estimates) -> None:
        """Take over the estimates of some objects."""
        self.log_means[:, :, rows] = other.log_means
        for name in ("fewest", "effective", "pareto_k"):
            getattr(self, name)[rows] = getattr(other, name)


@dataclass(frozen=True, slots=True)
class _Draws:
    """Random numbers (n, M, k) of the proposals, and which part each comes from (n, M)."""

    noise: F64
    prior: NDArray[np.bool_]
    wide: NDArray[np.bool_]
    share: float

    @classmethod
    def of(cls, net: F64, shift: F64, share: float) -> _Draws:
        """Shift a Sobol net for every object: errors of mean values are a few times smaller."""
        u = (net + shift) % 1.0
        noise = special.ndtri(np.clip(u[..., :-1], 1e-9, 1 - 1e-9))
        kind = u[..., -1]
        return cls(noise, kind < share, kind > 1 - (1 - share) * _WIDE_SHARE, share)

    def __getitem__(self, rows: NDArray[np.int64]) -> _Draws:
        return _Draws(self.noise[rows], self.prior[rows], self.wide[rows], self.share)


@dataclass(frozen=True, slots=True)
class _Proposal:
    """Per object a Gaussian of the locals, mixed with a wider one and with the prior."""

    mean: F64  # (n, k)
    root: F64  # (n, k, k)

    @classmethod
    def fit(cls, weight: F64, draws: F64) -> _Proposal:
        """Take mean and width of weighted draws (n, M) and (n, M, k)."""
        mean = np.einsum("nm,nmk->nk", weight, draws)
        off = draws - mean[:, None]
        cov = np.einsum("nmi,nmj->nij", weight[..., None] * off, off, optimize=True)
        return cls(mean, np.linalg.cholesky(cov * _WIDER**2 + 1e-6 * np.eye(cov.shape[1])))

    def __getitem__(self, rows: NDArray[np.int64]) -> _Proposal:
        return _Proposal(self.mean[rows], self.root[rows])

    def draw(self, draws: _Draws) -> tuple[F64, F64]:
        """Return locals (n, M, k) and log p - log q (n, M)."""
        scale = np.where(draws.wide, _WIDE, 1.0)[..., None]
        near = self.mean[:, None] + np.einsum("nij,nmj->nmi", self.root, draws.noise * scale)
        z = np.where(draws.prior[..., None], draws.noise, near)
        white = np.einsum("nij,nmj->nmi", np.linalg.inv(self.root), z - self.mean[:, None])
        chi2, k = (white**2).sum(2), z.shape[2]
        log_det = np.log(np.einsum("nii->ni", self.root)).sum(1)[:, None]
        log_p = -0.5 * (z**2).sum(2)
        wide = (1 - draws.share) * _WIDE_SHARE
        narrow = np.log(1 - draws.share - wide) - 0.5 * chi2
        broad = np.log(wide) - 0.5 * chi2 / _WIDE**2 - k * np.log(_WIDE)
        log_q = np.logaddexp(np.logaddexp(narrow, broad) - log_det, np.log(draws.share) + log_p)
        return z, log_p - log_q


def _log_weights(
    model: _Model, objects: Batch, z_shared: F64, proposal: _Proposal, draws: _Draws
) -> tuple[F64, F64]:
    """Return log p(z) p(x | z) / q(z) of draws of the locals, (n, M), and the draws (n, M, k)."""
    z, log_ratio = proposal.draw(draws)
    simulated = model.simulate(z_shared, model.theta(z.reshape(-1, model.k)))
    return model.log_likelihood(simulated, objects) + log_ratio, z


def _adapted(
    model: _Model, objects: Batch, z_shared: F64, start: _Proposal, draws: _Draws, rounds: int
) -> _Proposal:
    """Return proposals that were fitted to draws of earlier ones, some times."""
    found = start
    for _ in range(rounds):
        log_w, z = _log_weights(model, objects, z_shared, found, draws)
        # flattened where few draws have any weight, so that no single draw dominates
        found = _Proposal.fit(_tempered(log_w, 4.0 * (model.k + 1)), z)
    return found


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
    finite = np.where(np.isfinite(log_weight), log_weight, -1e300)
    finite = finite - finite.max(1, keepdims=True)
    w = np.exp(finite)
    few = np.flatnonzero(_effective(w) < at_least)
    low, high = np.full(len(few), 1e-4), np.ones(len(few))
    for _ in range(12 if len(few) else 0):
        power = np.sqrt(low * high)
        enough = _effective(np.exp(power[:, None] * finite[few])) >= at_least
        low, high = np.where(enough, power, low), np.where(enough, high, power)
    w[few] = np.exp(low[:, None] * finite[few])
    return np.asarray(w / w.sum(1, keepdims=True))


def _effective(weight: F64) -> F64:
    """Return the number of draws that weights (n, M) are worth."""
    return np.asarray(weight.sum(1) ** 2 / (weight**2).sum(1))


def _log_means(values: F64) -> F64:
    """Return log mean exp along the draws without its first-order bias: (3, n).

    Rows: all draws, their first half, their second half.
    """
    m = values.shape[1]
    whole = _log_sum(values) - np.log(m)
    if m < 2 * _BLOCKS:
        return np.stack([whole, whole, whole])
    halves = values[:, : m // 2], values[:, m // 2 :]
    return np.stack([_jackknife(values), *(_jackknife(h) for h in halves)])


def _jackknife(values: F64) -> F64:
    """Return log mean exp, corrected by leaving out one of several blocks of draws at a time."""
    m = values.shape[1] // _BLOCKS * _BLOCKS
    blocks = _log_sum(values[:, :m].reshape(len(values), _BLOCKS, -1))
    whole = _log_sum(blocks)
    some = np.isfinite(whole)  # where no draw explains the object, the mean is zero
    share = np.exp(blocks - np.where(some, whole, 0.0)[:, None])
    left = np.log1p(-np.minimum(share, 1 - 1e-9)).mean(1) + np.log(_BLOCKS / (_BLOCKS - 1))
    return np.asarray(whole - (_BLOCKS - 1) * left - np.log(m))


def _log_sum(values: F64) -> F64:
    """Return log sum exp along the last axis; scipy's takes twice as long."""
    largest = values.max(-1)
    finite = np.where(np.isfinite(largest), largest, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(finite + np.log(np.exp(values - finite[..., None]).sum(-1)))


def _nodes(d: int, points: int, reach: float) -> F64:
    """Return points of the shared parameters: a cubic grid; beyond two, a quasi-random cloud.

    The cloud has 2.5 points per coefficient of the polynomial.
    """
    if d <= 2:
        return _grid(d, points, reach)
    count = math.ceil(2.5 * math.comb(d + points - 1, d))
    cloud = _CLOUD * _quasi_normal(count, d)
    cloud[0] = 0.0
    return np.clip(cloud, -reach, reach)


def _grid(d: int, points: int, reach: float) -> F64:
    """Return the points of a cubic grid, (points ** d, d)."""
    axis = np.linspace(-reach, reach, points)
    return np.array(list(itertools.product(axis, repeat=d)))


def _quasi_normal(n: int, d: int) -> F64:
    """Return n quasi-random points of N(0, I), always the same."""
    net = qmc.Sobol(d, rng=0).random_base2(math.ceil(math.log2(n)))[:n]
    return np.asarray(special.ndtri(np.clip(net, 1e-9, 1 - 1e-9)))


def _moments(values: F64, centre: Gaussian, nodes: F64, points: int, reach: float) -> Gaussian:
    """Return mean and covariance of prior times exp(values), values given on the grid.

    The polynomial has as many degrees as a grid has points per axis, less one. Its moments are sums
    over many points.
    """
    d = len(centre.mean)
    root = np.linalg.cholesky(centre.cov)
    values = values - 0.5 * ((centre.mean + nodes @ root.T) ** 2).sum(1)  # the prior, N(0, I)
    design = _monomials(nodes, points - 1)
    good = np.isfinite(values)
    if not good.any():
        msg = (
            "no simulation explains all objects at any of the shared parameters that were tried: "
            "leave out objects that are flagged, or raise combiner.draws"
        )
        raise ObservationError(msg)
    depth = np.maximum(values - values[good].max(), -_DEEP)
    if d > 2:  # a polynomial needs nodes of which many count: until then, towards the better ones
        log_w = np.where(good, values, -np.inf) + 0.5 * (nodes**2).sum(1) / _CLOUD**2
        if _effective(_tempered(log_w[None], 0.0))[0] < _COUNT * len(nodes):
            w = _tempered(log_w[None], 2.0 * d)[0]
            off = nodes - w @ nodes
            u_cov = 1.2 * off.T @ (w[:, None] * off) + 1e-6 * np.eye(d)
            return Gaussian(centre.mean + root @ (w @ nodes), root @ u_cov @ root.T)
    weight = np.exp(0.25 * depth)
    coefficients = np.linalg.lstsq(
        design[good] * weight[good, None], depth[good] * weight[good], rcond=None
    )[0]
    if points == 3:
        u_mean, u_cov = _quadratic(coefficients, d)
        u_mean = np.clip(u_mean, -reach, reach)
    else:
        if d <= 2:
            fine = _grid(d, 61 if d == 2 else 401, 1.15 * reach)
            log_q = np.zeros(len(fine))
        else:
            fine = 1.2 * _quasi_normal(_FINE, d)
            log_q = -0.5 * (fine**2).sum(1) / 1.2**2
        log_p = _interpolated(fine, coefficients, nodes, good, points, reach)
        density = special.softmax(log_p - log_q)
        u_mean = density @ fine
        u_cov = np.einsum("n,ni,nj->ij", density, fine - u_mean, fine - u_mean)
    sizes, axes = np.linalg.eigh(u_cov)
    at_the_edge = np.abs(u_mean).max() > 0.7 * reach  # go on before the grid shrinks
    least = 1.0 if at_the_edge else _NARROWEST**2  # a grid resolves no less
    u_cov = axes @ np.diag(np.maximum(sizes, least)) @ axes.T
    return Gaussian(centre.mean + root @ u_mean, root @ u_cov @ root.T)


def _interpolated(
    fine: F64, coefficients: F64, nodes: F64, good: NDArray[np.bool_], points: int, reach: float
) -> F64:
    """Return the polynomial at fine (n, d), where it is backed by nodes.

    Beyond the grid it does not rise above its value at the edge; around a node without a value it
    is -inf.
    """
    inside = np.clip(fine, -reach, reach)
    values = np.minimum(
        _monomials(fine, points - 1) @ coefficients, _monomials(inside, points - 1) @ coefficients
    )
    nearest = spatial.cKDTree(nodes).query(inside)[1]
    return np.where(good[nearest], values, -np.inf)


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
    powers = np.ones((degree + 1, *x.shape))
    for k in range(degree):
        powers[k + 1] = powers[k] * x
    d = x.shape[1]
    exponents = [e for e in itertools.product(range(degree + 1), repeat=d) if sum(e) <= degree]
    return np.stack([np.prod([powers[e[k], :, k] for k in range(d)], 0) for e in exponents], 1)
