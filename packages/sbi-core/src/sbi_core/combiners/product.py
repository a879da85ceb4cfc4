r"""Product of single-object densities.

.. math:: \log p(\Lambda | x_1 .. x_N) = \log p(\Lambda) +
          \sum_i [\log q(\Lambda | x_i) - \log p(\Lambda)] + \mathrm{const}

without the assumption that any factor is Gaussian. For one or two shared parameters on a grid
around the Gaussian combination, moved until no probability lies at its edge; beyond that with
an ensemble sampler (emcee) started there. Errors of q in its tails add up like those of its
mean: the result is not automatically better than that of ``gaussian``. Tails are guarded: no
object can lower the density of a value by more than ``exp(guard)``.

References:
    | docs/calibration.md
    | Foreman-Mackey et al. 2013, PASP 125, 306 (emcee)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import emcee
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sbi_core.combiners.gaussian import starting_point
from sbi_core.combiners.moments import Gaussian, object_moments, shared_alone
from sbi_core.components import Combiner, Rng
from sbi_core.data.observations import Observations
from sbi_core.posterior import CombinedPosterior, Posterior, combined_from_gaussian
from sbi_core.rng import as_generator
from sbi_core.validation import Options

__all__ = ["ProductCombiner", "ProductConfig"]

F64 = NDArray[np.float64]
LogDensity = Callable[[F64], F64]
_ROWS = 200_000  # densities evaluated at a time
_REACH = 6.0  # sigma of the grid
_MOVES = 12


class ProductConfig(Options):
    """Options of the product combiner."""

    points: int = Field(64, ge=16, description="grid points per parameter, for one or two")
    edge: float = Field(1e-6, gt=0, description="largest probability at the edge of the grid")
    guard: float = Field(50.0, gt=0, description="largest log density ratio of one object")
    walkers: int = Field(
        64, ge=8, description="walkers of the ensemble sampler, for three or more parameters"
    )
    steps: int = Field(
        500, ge=50, description="steps of the ensemble sampler; the first half is discarded"
    )
    draws: int = Field(4000, ge=100, description="draws per object without closed-form moments")
    samples: int = Field(4000, ge=1, description="draws of the combined posterior that are kept")


class ProductCombiner(Combiner):
    """Product of densities, the prior divided out (see the module).

    See Also
    --------
    sbi_core.combiners.gaussian : its starting point, with which the result is compared.
    """

    name = "product"

    def __init__(self, config: ProductConfig | None = None) -> None:
        self.config = config or ProductConfig()

    def combine(
        self, posterior: Posterior, observations: Observations, *, rng: Rng = 0
    ) -> CombinedPosterior:
        """Combine the objects.

        Raises
        ------
        ConfigError
            If the estimator infers parameters that are not shared.
        """
        gen = as_generator(rng)
        space = shared_alone(posterior, self.name)
        moments = object_moments(posterior, observations, draws=self.config.draws)
        start, flags = starting_point(moments)
        density = self._density(posterior, observations)
        if space.z_dim <= 2:
            found, diagnostics = self._on_grid(density, start)
        else:
            found, diagnostics = self._by_walkers(density, start, gen)
        if not flags:
            diagnostics["kl_to_gaussian"] = _kl(found, start)
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

    def _density(self, posterior: Posterior, observations: Observations) -> LogDensity:
        """Return the log density of z (n, d), up to a constant."""
        best = np.full(len(observations), -np.inf)

        def log_density(z: F64) -> F64:
            total = -0.5 * (z**2).sum(1)
            n = len(observations)
            step = max(1, _ROWS // max(n, 1))
            for s in range(0, len(z) if n else 0, step):
                theta = posterior.space.from_unconstrained(z[s : s + step])
                prior = posterior.space.log_prob(theta)
                stack = np.broadcast_to(theta[:, None], (len(theta), n, theta.shape[1]))
                # a density ratio does not depend on the coordinates
                ratio = posterior.log_prob(np.ascontiguousarray(stack), observations)
                ratio = ratio - prior[:, None]
                np.maximum(best, np.nanmax(ratio, 0), out=best)
                total[s : s + step] += np.fmax(ratio, best - self.config.guard).sum(1)
            return np.asarray(total)

        return log_density

    def _on_grid(self, density: LogDensity, start: Gaussian) -> tuple[Gaussian, dict[str, float]]:
        d, points, found = len(start.mean), self.config.points, start
        axis = np.linspace(-_REACH, _REACH, points)
        u = np.array(list(itertools.product(axis, repeat=d)))
        edge = (np.abs(u) == _REACH).any(1)
        outside, move = 1.0, 0
        for move in range(_MOVES):
            root = np.linalg.cholesky(found.cov)
            log_p = density(found.mean + u @ root.T)
            p = np.exp(log_p - log_p.max())
            p /= p.sum()
            mean = p @ u
            cov = np.einsum("n,ni,nj->ij", p, u - mean, u - mean)
            # never less than a few grid points wide, never more than thrice as wide as before
            values, vectors = np.linalg.eigh(cov)
            held = np.clip(values, (2 * _REACH / points) ** 2 / 4, 9.0)
            outside = float(p[edge].sum())
            narrow = bool((np.sqrt(values) < 0.4).any())
            moved = Gaussian(found.mean + root @ mean, root @ cov @ root.T)
            if outside <= self.config.edge and not narrow:
                return moved, {"edge_mass": outside, "moves": float(move)}
            wider = 1.5 if outside > self.config.edge else 1.0
            held = (vectors * held) @ vectors.T * wider**2
            found = Gaussian(found.mean + root @ mean, root @ held @ root.T)
        return found, {"edge_mass": outside, "moves": float(move)}

    def _by_walkers(
        self, density: LogDensity, start: Gaussian, rng: np.random.Generator
    ) -> tuple[Gaussian, dict[str, float]]:
        c, d = self.config, len(start.mean)
        walkers = max(c.walkers, 4 * d) // 2 * 2
        root = np.linalg.cholesky(start.cov)
        first = start.mean + rng.standard_normal((walkers, d)) @ root.T
        seed = np.random.MT19937(int(rng.integers(2**32))).state
        sampler = emcee.EnsembleSampler(walkers, d, density, vectorize=True)
        sampler.run_mcmc(emcee.State(first, random_state=seed), c.steps)
        draws = sampler.get_chain(discard=c.steps // 2, flat=True)
        sampled = Gaussian(draws.mean(0), np.atleast_2d(np.cov(draws.T)))
        return sampled, {"accepted": float(sampler.acceptance_fraction.mean())}


def _kl(p: Gaussian, q: Gaussian) -> float:
    """Return KL(p || q) of two normal distributions, nats."""
    inverse, off = np.linalg.inv(q.cov), q.mean - p.mean
    log_det = np.linalg.slogdet(q.cov)[1] - np.linalg.slogdet(p.cov)[1]
    return float(0.5 * (np.trace(inverse @ p.cov) + off @ inverse @ off - len(off) + log_det))
