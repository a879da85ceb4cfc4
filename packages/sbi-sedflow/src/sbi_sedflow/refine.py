r"""Refinement of one posterior: importance sampling, adaptive proposals, then MCMC.

1. 4000 draws of the network and of a wider copy, :math:`0.9\,q + 0.1\,t`, with weights
   :math:`w \propto \pi(y) / (0.9\,q(y) + 0.1\,t(y))`, until 200 of them are effective; given up
   when 60 % of the limit would not suffice at their efficiency.
2. Adaptive importance sampling: a mixture of Student-t distributions fitted to weighted draws
   (weights tempered to an effective size of a twentieth) proposes the next 4000, up to ten times.
   If no draw fits (chi-squared with p < 1e-6) after four times, the model cannot describe the
   galaxy: draws of the tempered weights are returned, flagged NOT_CONVERGED.
3. 64 walkers (differential evolution and snooker moves) started from weighted draws, until every
   chain is 15 autocorrelation times long or the limit of calls is reached. In the latter case the
   better of both results is returned, flagged NOT_CONVERGED; draws of the weights, where the limit
   leaves less than 200 steps.

References:
    | Cappe et al. 2008, Stat. Comput. 18, 447 (population Monte Carlo with Student-t mixtures)
    | Vehtari et al. 2024, arXiv:1507.02646 (Pareto index of the weights)
    | ter Braak & Vrugt 2008 (snooker); Foreman-Mackey et al. 2013, PASP 125, 306 (emcee)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import emcee
import numpy as np
from numpy.typing import NDArray
from scipy import special

from sbi_core import Observations, Posterior, diagnostics
from sbi_sedflow.flags import Flag
from sbi_sedflow.target import Target

__all__ = ["Refined", "StudentMixture", "refine_galaxy", "resampled", "sampled"]

F64 = NDArray[np.float64]
_BATCH = 4000
_ENOUGH = 200.0  # effective draws
_SHARE_Q, _SHARE_WIDE = 0.9, 0.1
_ROUNDS = 10
_COMPONENTS = 4
_INFLATE = 1.3
_DOF = 5.0
_NEGLIGIBLE = 1e-9  # of the largest weight
_LIMIT = 300_000  # likelihood calls
_NETWORK_SHARE = 0.6  # of the limit for draws of the network
_TRIED, _NO_FIT = 4, 1e-6  # adaptive rounds before a galaxy is called unfittable; p of chi-squared
_WALKERS, _STEPS = 64, 200  # of MCMC; steps between two looks at its convergence
_TAUS = 15  # autocorrelation times of every walker: about 700 effective draws together
_TAIL = 0.7  # Pareto index above which weights are unreliable


@dataclass(frozen=True)
class Refined:
    """Refined posterior of one galaxy.

    Parameters
    ----------
    theta : (n, 12)
        Equally weighted draws.
    method
        ``npe+is`` (network and weights, or adaptive proposals) or ``emcee``.
    ess
        Effective number of draws behind them.
    efficiency
        ESS / draws of the network alone.
    calls
        Likelihood evaluations.
    flags
        REFINED_IS or REFINED_SAMPLER, and NOT_CONVERGED.
    end
        ``converged``, ``limit`` (of likelihood evaluations) or ``no_fit``.
    """

    theta: F64
    method: str
    ess: float
    efficiency: float
    calls: int
    flags: int
    end: str = "converged"


class StudentMixture:
    """Mixture of multivariate Student-t distributions.

    Parameters
    ----------
    weight : (K,)
        Shares.
    mean : (K, d), cov : (K, d, d)
        Locations and scale matrices.
    dof
        Degrees of freedom.
    """

    def __init__(self, weight: F64, mean: F64, cov: F64, dof: float = _DOF) -> None:
        self.weight, self.mean, self.dof = weight / weight.sum(), mean, dof
        self.root = np.linalg.cholesky(cov)
        self._whiten = np.linalg.inv(self.root)

    @classmethod
    def fit(
        cls, y: F64, weight: F64, rng: np.random.Generator, *, components: int = _COMPONENTS
    ) -> StudentMixture:
        """Fit to weighted draws by 15 rounds of expectation maximisation (dof fixed)."""
        keep = weight > _NEGLIGIBLE * weight.max()
        y, w = y[keep], weight[keep] / weight[keep].sum()
        n, d = y.shape
        centre = w @ y
        whole = (w[:, None] * (y - centre)).T @ (y - centre) + 1e-6 * np.eye(d)
        k = components
        mean = y[rng.choice(n, k, p=w)]
        mixture = cls(np.ones(k), mean, np.repeat(whole[None], k, 0))
        for _ in range(15):
            parts, distance = mixture._parts(y)
            share = np.exp(parts - special.logsumexp(parts, axis=1, keepdims=True)) * w[:, None]
            total = share.sum(0)
            keep = total > 1e-3
            share, total = share[:, keep], total[keep]
            scale = share * (_DOF + d) / (_DOF + distance[:, keep])
            mean = (scale.T @ y) / scale.sum(0)[:, None]
            cov = np.stack([(s[:, None] * (y - m)).T @ (y - m) / t
                            for s, m, t in zip(scale.T, mean, total, strict=True)])  # fmt: skip
            cov = cov + 1e-3 * whole + 1e-8 * np.eye(d)
            mixture = cls(total, mean, cov)
        # wider than the fit, plus the prior: their tails exceed those of the posterior
        weight = np.append(mixture.weight * (1 - _SHARE_WIDE), _SHARE_WIDE)
        scales = np.concatenate([_INFLATE * cov, 0.8 * np.eye(d)[None]])
        return cls(weight, np.concatenate([mean, np.zeros((1, d))]), scales)

    def _parts(self, y: F64) -> tuple[F64, F64]:
        """Return log weighted densities and squared distances, both (n, K)."""
        d = y.shape[1]
        distance = np.stack(
            [(((y - m) @ w.T) ** 2).sum(1) for m, w in zip(self.mean, self._whiten, strict=True)], 1
        )
        log_det = np.log(np.diagonal(self.root, axis1=1, axis2=2)).sum(1)
        norm = special.gammaln((self.dof + d) / 2) - special.gammaln(self.dof / 2)
        norm -= 0.5 * d * math.log(self.dof * math.pi)
        tail = -0.5 * (self.dof + d) * np.log1p(distance / self.dof)
        return np.log(self.weight) + norm - log_det + tail, distance

    def log_prob(self, y: F64) -> F64:
        """Return the log density of y (n, d)."""
        return np.asarray(special.logsumexp(self._parts(y)[0], axis=1))

    def sample(self, n: int, rng: np.random.Generator) -> F64:
        """Return draws (n, d)."""
        k = rng.choice(len(self.weight), n, p=self.weight)
        noise = rng.standard_normal((n, self.mean.shape[1]))
        noise /= np.sqrt(rng.chisquare(self.dof, n) / self.dof)[:, None]
        return self.mean[k] + np.einsum("nij,nj->ni", self.root[k], noise)


def refine_galaxy(
    posterior: Posterior,
    observation: Observations,
    target: Target,
    rng: np.random.Generator,
    *,
    draws: int = 1000,
    limit: int = _LIMIT,
) -> Refined:
    """Return draws of the exact posterior of one galaxy.

    Parameters
    ----------
    posterior, observation
        The network's posterior, and one galaxy.
    target
        Its exact posterior.
    rng
        Random numbers.
    draws
        Draws to return.
    limit
        Likelihood calls after which the best result so far is returned.
    """
    y, log_w, efficiency = _of_network(posterior, observation, target, rng, limit)
    pool, best = [(y, log_w)], (y, log_w)
    rounds = 0
    while not _good(best[1]) and rounds < _ROUNDS and target.calls + _BATCH <= limit:
        mixture = StudentMixture.fit(y, _tempered(log_w), rng)
        y = mixture.sample(_BATCH, rng)
        log_w = _log_weights(target.log_prob(y), mixture.log_prob(y))
        rounds += 1
        pool.append((y, log_w))
        best = _pooled(pool)
        if rounds >= _TRIED and not _good(best[1]) and _unfittable(target, best):
            theta = target.theta(resampled(best[0], _tempered_log(best[1]), draws, rng))
            flags = int(Flag.REFINED_IS | Flag.NOT_CONVERGED)
            size = _ess(best[1])
            return Refined(theta, "npe+is", size, efficiency, target.calls, flags, "no_fit")
    if _good(best[1]):
        theta = target.theta(resampled(*best, draws, rng))
        size = _ess(best[1])
        return Refined(theta, "npe+is", size, efficiency, target.calls, int(Flag.REFINED_IS))
    weighted = Refined(
        target.theta(resampled(*best, draws, rng)), "npe+is", _ess(best[1]), efficiency,
        target.calls, int(Flag.REFINED_IS | Flag.NOT_CONVERGED), "limit",
    )  # fmt: skip
    if target.calls + _STEPS * _WALKERS > limit:  # nothing is left for MCMC
        return weighted
    start = resampled(best[0], _tempered_log(best[1]), _WALKERS, rng)
    chain, tau, converged = _walk(target, start, rng, limit)
    flags = int(Flag.REFINED_SAMPLER) | (0 if converged else int(Flag.NOT_CONVERGED))
    kept = chain[rng.integers(len(chain), size=draws)]
    ess, end = len(chain) / tau, "converged" if converged else "limit"
    if not converged and _tail_index(best[1]) < _TAIL and weighted.ess > ess:
        return weighted
    return Refined(target.theta(kept), "emcee", ess, efficiency, target.calls, flags, end)


def sampled(
    posterior: Posterior,
    observation: Observations,
    target: Target,
    rng: np.random.Generator,
    *,
    limit: int = _LIMIT,
) -> tuple[F64, float, bool]:
    """Return a chain (n, 12) of MCMC, its effective draws, and whether it converged.

    The walkers start from weighted draws of the network, however good these are.
    """
    y, log_w, _ = _of_network(posterior, observation, target, rng, limit)
    start = resampled(y, _tempered_log(log_w), _WALKERS, rng)
    chain, tau, converged = _walk(target, start, rng, limit)
    return target.theta(chain), len(chain) / tau, converged


def _of_network(
    posterior: Posterior,
    observation: Observations,
    target: Target,
    rng: np.random.Generator,
    limit: int,
) -> tuple[F64, F64, float]:
    """Return draws of the network, their log weights, and the efficiency of the first batch."""
    ys, weights, budget, first = [], [], _NETWORK_SHARE * limit, 0.0
    while True:
        y, log_p, log_q, efficiency = _first(posterior, observation, target, rng)
        ys.append(y)
        weights.append(_log_weights(log_p, log_q))
        first = first or efficiency
        log_w = np.concatenate(weights)
        hopeless = _ess(log_w) / len(log_w) * budget < _ENOUGH
        if _good(log_w) or hopeless or target.calls + _BATCH > budget:
            return np.concatenate(ys), log_w, first


def _unfittable(target: Target, weighted: tuple[F64, F64]) -> bool:
    """Return whether the best draw is far from the data."""
    y, log_w = weighted
    likely = y[np.argsort(log_w)[-_WALKERS:]]
    return target.best_p(likely) < _NO_FIT


def _pooled(rounds: list[tuple[F64, F64]]) -> tuple[F64, F64]:
    """Return draws and log weights of all rounds with enough effective draws.

    All weights refer to the same unnormalised posterior, so that rounds can be joined.
    """
    sizes = [_ess(w) for _, w in rounds]
    chosen = [r for r, n in zip(rounds, sizes, strict=True) if n >= 0.25 * max(sizes)]
    return np.concatenate([y for y, _ in chosen]), np.concatenate([w for _, w in chosen])


def _first(
    posterior: Posterior, observation: Observations, target: Target, rng: np.random.Generator
) -> tuple[F64, F64, F64, float]:
    """Return draws of 0.9 q + 0.1 t, log target, log proposal, and the efficiency of q."""
    n_q = int(_SHARE_Q * _BATCH)
    theta = posterior.estimator.sample(observation.batch, n_q, rng)[:, 0]
    y_q = posterior.space.to_unconstrained(theta)
    wide = StudentMixture(np.ones(1), y_q.mean(0)[None], 4 * np.cov(y_q.T)[None] + 1e-4 * np.eye(
        y_q.shape[1]))  # fmt: skip
    y_t = np.clip(wide.sample(_BATCH - n_q, rng), -5.0, 5.0)
    y = np.concatenate([y_q, y_t])
    log_net = network_log_prob(posterior, observation, y, target)
    log_q = np.logaddexp(math.log(_SHARE_Q) + log_net, math.log(_SHARE_WIDE) + wide.log_prob(y))
    log_p = target.log_prob(y)
    efficiency = _ess(_log_weights(log_p[:n_q], log_net[:n_q])) / n_q
    return y, log_p, log_q, efficiency


def network_log_prob(
    posterior: Posterior, observation: Observations, y: F64, target: Target
) -> F64:
    """Return the network's log density of y (n, 11), in unconstrained coordinates."""
    theta = target.theta(y)
    log_q = posterior.log_prob(theta[:, None], observation)[:, 0]
    return np.asarray(log_q - posterior.space.log_abs_det(theta))


def _log_weights(log_p: F64, log_q: F64) -> F64:
    return np.where(np.isfinite(log_p) & np.isfinite(log_q), log_p - log_q, -np.inf)


def _ess(log_w: F64) -> float:
    w = np.exp(log_w - log_w.max()) if np.isfinite(log_w.max()) else np.zeros_like(log_w)
    return float(w.sum() ** 2 / max((w**2).sum(), 1e-300))


def _tail_index(log_w: F64) -> float:
    if not np.isfinite(log_w.max()):
        return math.inf
    zeros = np.zeros_like(log_w)
    return float(diagnostics.importance_weights(log_w, zeros, zeros).pareto_k[0])


def _good(log_w: F64) -> bool:
    return _ess(log_w) >= _ENOUGH and _tail_index(log_w) < _TAIL


def _tempered_log(log_w: F64, share: float = 0.05) -> F64:
    """Return log weights raised to the largest power that keeps ``share`` of the draws."""
    low, high = 0.0, 1.0
    finite = np.where(np.isfinite(log_w), log_w, log_w[np.isfinite(log_w)].min() - 50)
    if _ess(finite) >= share * len(log_w):
        return finite
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _ess(middle * finite) > share * len(log_w) else (low, middle)
    return low * finite


def _tempered(log_w: F64) -> F64:
    log = _tempered_log(log_w)
    return np.exp(log - log.max())


def resampled(y: F64, log_w: F64, n: int, rng: np.random.Generator) -> F64:
    """Return n draws with the probabilities of the weights (systematic resampling)."""
    w = np.exp(log_w - log_w.max())
    edges = np.cumsum(w / w.sum())
    chosen = np.searchsorted(edges, (np.arange(n) + rng.random()) / n)
    return np.asarray(y[rng.permutation(np.minimum(chosen, len(y) - 1))])


def _walk(
    target: Target, start: F64, rng: np.random.Generator, limit: int
) -> tuple[F64, float, bool]:
    """Return chain (n, d), its longest autocorrelation time in draws, and whether it converged."""
    jitter = 1e-3 * rng.standard_normal(start.shape)
    moves = [(emcee.moves.DEMove(), 0.8), (emcee.moves.DESnookerMove(), 0.2)]
    sampler = emcee.EnsembleSampler(
        len(start), target.dim, target.log_prob, moves=moves, vectorize=True
    )
    seeds = np.random.RandomState(int(rng.integers(2**32 - 1)))  # noqa: NPY002
    state = emcee.State(np.clip(start + jitter, -5, 5), random_state=seeds.get_state())
    tau = math.inf
    while target.calls + _STEPS * len(start) <= limit:
        state = sampler.run_mcmc(state, _STEPS)
        steps = sampler.iteration
        with np.errstate(invalid="ignore", divide="ignore"):  # walkers that never moved: tau is NaN
            tau = float(np.max(emcee.autocorr.integrated_time(sampler.get_chain(), tol=0)))
        if math.isfinite(tau) and steps > _TAUS * tau:
            break
    steps = sampler.iteration
    if steps == 0:
        return start, float(len(start)), False
    chain = sampler.get_chain(discard=steps // 4, flat=True)
    time = tau if math.isfinite(tau) else float(steps)
    return np.asarray(chain), max(time, 1.0), bool(math.isfinite(tau) and steps > _TAUS * tau)
