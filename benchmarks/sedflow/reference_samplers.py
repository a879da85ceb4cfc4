"""Samplers of the exact posterior of one galaxy, on the batched likelihood that refinement uses.

    pip install -c constraints.txt nautilus-sampler

References:
    | Foreman-Mackey et al. 2013, PASP 125, 306 (emcee); Lange 2023, MNRAS 525, 3181 (nautilus)
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import emcee
import numpy as np
from nautilus import Prior, Sampler
from numpy.typing import NDArray
from scipy import special

from sbi_sedflow.target import Target

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Sampled:
    """What a sampler found.

    Parameters
    ----------
    theta : (n, 12)
        Equally weighted draws.
    name
        The sampler.
    seconds, cpu_seconds
        Wall-clock and processor time.
    calls
        Likelihood evaluations.
    ess
        Effective number of draws, by the sampler's own measure.
    log_evidence
        Natural logarithm; NaN where the sampler has none.
    """

    theta: F64
    name: str
    seconds: float
    cpu_seconds: float
    calls: int
    ess: float
    log_evidence: float = float("nan")


def run_emcee(
    target: Target, rng: np.random.Generator, *, walkers: int = 64, steps: int = 3000
) -> Sampled:
    """Sample with differential-evolution and snooker moves from the prior's middle.

    Parameters
    ----------
    target
        The posterior.
    rng
        Where randomness comes from.
    walkers, steps
        Size of the run; the first third is dropped.
    """
    start, cpu, before = time.perf_counter(), time.process_time(), target.calls
    moves = [(emcee.moves.DEMove(), 0.8), (emcee.moves.DESnookerMove(), 0.2)]
    sampler = emcee.EnsembleSampler(
        walkers, target.dim, target.log_prob, moves=moves, vectorize=True
    )
    seeds = np.random.RandomState(int(rng.integers(2**32 - 1)))  # noqa: NPY002
    first = _start(target, rng, walkers)
    sampler.run_mcmc(emcee.State(first, random_state=seeds.get_state()), steps)
    chain = sampler.get_chain(discard=steps // 3, flat=True)
    tau = float(np.max(sampler.get_autocorr_time(tol=0, discard=steps // 3)))
    ess = len(chain) / tau if np.isfinite(tau) else float("nan")
    theta = target.theta(chain[rng.permutation(len(chain))[:4000]])
    return Sampled(
        theta, "emcee", time.perf_counter() - start, time.process_time() - cpu,
        target.calls - before, ess,
    )  # fmt: skip


def _start(target: Target, rng: np.random.Generator, walkers: int) -> F64:
    """Return the best of 20,000 prior draws, as many as walkers."""
    y = rng.standard_normal((20_000, target.dim))
    best = np.argsort(-target.log_prob(y))[: walkers // 2]
    start = np.concatenate([y[best], y[best]])[:walkers]
    return np.asarray(start + 0.1 * rng.standard_normal(start.shape))


def run_nautilus(
    target: Target, seed: int, *, n_live: int = 1000, n_eff: int = 2000, networks: int = 4
) -> Sampled:
    """Sample with nautilus; its networks, not the likelihood, take most of the time."""
    start, cpu, before = time.perf_counter(), time.process_time(), target.calls
    prior = Prior()
    for k in range(target.dim):
        prior.add_parameter(f"u{k}", dist=(0.0, 1.0))
    sampler = Sampler(
        prior, target.log_likelihood_cube, n_live=n_live, vectorized=True, pass_dict=False,
        seed=seed, n_batch=500, n_networks=networks,
    )  # fmt: skip
    sampler.run(n_eff=n_eff, verbose=False)
    points, log_w, _ = sampler.posterior()
    return _weighted("nautilus", target, points, log_w, start, cpu, before, sampler.log_z, seed)


def _weighted(
    name: str,
    target: Target,
    points: F64,
    log_w: F64,
    start: float,
    cpu: float,
    before: int,
    log_z: float,
    seed: int,
) -> Sampled:
    rng = np.random.default_rng(seed)
    w = np.exp(log_w - special.logsumexp(log_w))
    chosen = rng.choice(len(points), 4000, p=w / w.sum())
    theta = target.theta(special.ndtri(np.clip(points[chosen], 1e-9, 1 - 1e-9)))
    seconds, used = time.perf_counter() - start, time.process_time() - cpu
    return Sampled(
        theta, name, seconds, used, target.calls - before, float(1 / (w**2).sum()), float(log_z)
    )
