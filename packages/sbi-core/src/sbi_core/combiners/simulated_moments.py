r"""Combination by simulated moments: scores of the network, centred by simulations.

An object with posterior q has, in unconstrained space, where the prior is N(0, I), the score

.. math:: s(x) = \nabla_\Lambda \left[\log q(\Lambda\,|\,x) +
          \tfrac12\Lambda^T\Lambda\right]_{\Lambda = v}

of its likelihood at v. For an exact q its mean over objects with :math:`\Lambda = v` is zero. No
network is exact, and an error of f sigma per object becomes :math:`f\sqrt N` combined sigma.
Therefore s is only used as a statistic: M objects are simulated at v with the errors, missing
values and context of the data; they give its mean m, covariance V and, simulated again at shifted
values with the same random numbers, its derivative :math:`D = \partial m/\partial\Lambda` (V for
exact scores, towards which noisy estimates are drawn). The sum over N observed objects,

.. math:: \sum_i s(x_i)\ |\ \Lambda\ \sim\ N\!\left(N\,[m + D\,(\Lambda - v)],\
          N V + N^2 V / M\right),

times the prior is the combined posterior. It is repeated at the new mean until the steps are small.
An inexact network makes the result wider, not biased; nothing is learned from other data before, so
that objects with any errors can be combined. Far from the solution s is the score of the normal
distribution with mean and covariance of q, which is well defined everywhere. The scores of a poor
network may have further solutions, or little information: more than six sigma from the solution of
the normal distribution, or 1.5 times wider, the latter is refined instead. Large values of s are
bounded. Linear regression on errors and missing values, and on the simulated local parameters,
whose means are known, reduces the noise of m. Each object is simulated once and observed four times
where most of the noise is that of the observation. The noise of the last round tells how many
objects the next one needs.

Up to 30 objects may have a posterior that is far from normal. If no more than 1 % of the
simulations fail, which may depend on the shared parameters, its mean and covariance are those of

.. math:: p(\Lambda) \prod_i \frac{q(\Lambda\,|\,x_i)}{p(\Lambda)}\;
          e^{-N m^T (\Lambda - v)} .

References:
    | McFadden 1989, Econometrica 57, 995 (simulated moments)
    | Gallant & Tauchen 1996, Econometric Theory 12, 657 (the score of another model as moments)
    | docs/calibration.md
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import special

from sbi_core.combiners.gaussian import GaussianCombiner, GaussianConfig
from sbi_core.combiners.moments import (
    Gaussian,
    data_quality,
    digest,
    object_moments,
    quality_of_values,
    shared_space,
    simulator_of,
)
from sbi_core.components import Rng, Simulator
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.errors import DensityUnavailableError, SimulationError
from sbi_core.posterior import CombinedPosterior, Posterior, combined_from_gaussian
from sbi_core.priors.space import ParameterSpace
from sbi_core.progress import Progress
from sbi_core.rng import as_generator, stream

__all__ = ["SimulatedMomentsCombiner", "SimulatedMomentsConfig"]

_LOG = logging.getLogger(__name__)

F64 = NDArray[np.float64]
_SMALLEST = 3  # fewer objects are combined without simulations
_FIRST = 500  # objects that are simulated at least
_LAST = 5000  # plain ones, whose precision the last round has at least
_SLOPE = 10  # one of so many simulated objects is simulated again for the derivative
_CHUNK = 5000  # objects per call of the simulator
_OBSERVED = 4  # observations of a simulated object, where at least
_NOISE = 0.5  # of the variance of its score is noise of the observation
_SPARE = 1.2  # more objects than the noise of the last round tells
_ENOUGH, _TRIES = 100, 20  # valid ones that are tried for, with up to so many times the calls
_OTHER_ERRORS = 0.3  # dex, of the mean error of simulated objects; a factor of two
_LONG = 60.0  # seconds of expected time that are announced
_EDGE = 4.0  # prior sigma: largest value that is tried
_LONGEST = 1.0  # prior sigma: longest step
_ROUNDS = 10  # of each kind
_FAR, _NEAR = 3.0, 1.5  # combined sigma: the step after which a kind ends
_APART = 6.0  # sigma between the solutions for both statistics, above which scores are not used
_WIDER = 1.5  # ratio of their widths, likewise
_BOUND = 6.0  # in sigma of the simulated scores: larger ones are bounded
_RARE = 0.2  # percent of the scores on each side that do not set the bound
_SHIFT, _WIDE = 0.5, 2.0  # combined sigma: shifts that give the derivative, within
_SHIFTS = (0.02, 0.5)  # prior sigma
_NETWORK = 0.2  # expected relative difference between derivative and covariance
_NOISY = 0.15  # relative error of the derivative above which objects are simulated on both sides
_LEAST = 1e-8  # variance of scores, in units of the prior
_FEW = 30  # most objects whose posterior may be far from normal
_DRAWS, _DOF, _BROADER = 4000, 6, 1.5  # of the proposal for it, Student's t
_DRAWS_EACH = 200  # of a simulated object without closed-form moments; any number is unbiased
_FAILED = 0.01  # of the simulations: above, means of local parameters and selection are not known
_ROWS_PER_COLUMN = 25  # simulated objects per coefficient of a regression


class SimulatedMomentsConfig(GaussianConfig):
    """Options of the combination by simulated moments."""

    simulations: int = Field(
        12,
        ge=1,
        description="precision of the simulated mean in the last round: that of so many simulated "
        "objects per combined object; it widens the result by half of the inverse",
    )
    max_simulations: int = Field(
        100_000, ge=_FIRST, description="most simulated objects in one round"
    )


class SimulatedMomentsCombiner(GaussianCombiner):
    """Scores of the objects, centred by objects simulated at the solution (see the module).

    Needs the simulator. Fewer than three objects are combined by the Gaussian rule.

    See Also
    --------
    sbi_core.combiners.gaussian : without simulations; starting point of this rule.
    """

    name = "simulated-moments"
    simulates = True
    config: SimulatedMomentsConfig

    def __init__(self, config: SimulatedMomentsConfig | None = None) -> None:
        self.config = config or SimulatedMomentsConfig()
        self._simulator: Simulator | None = None

    def attach(self, simulator: Simulator) -> None:
        """Take the simulator."""
        self._simulator = simulator

    def combine_subsets(
        self,
        posterior: Posterior,
        observations: Observations,
        subsets: Sequence[slice],
        *,
        rng: Rng = 0,
    ) -> list[CombinedPosterior]:
        """Combine several subsets; each is solved by simulations."""
        space, gen = shared_space(posterior), as_generator(rng)
        solved = self._solved(posterior, observations, subsets, self.progress)
        return [
            combined_from_gaussian(
                self.name,
                space,
                len(observations[rows]),
                found.mean,
                found.cov,
                draws=self.config.samples,
                rng=gen,
                diagnostics=diagnostics,
                flags=flags,
            )
            for rows, (found, diagnostics, flags) in zip(subsets, solved, strict=True)
        ]

    def subset_moments(
        self, posterior: Posterior, observations: Observations, subsets: Sequence[slice]
    ) -> list[tuple[F64, F64]]:
        """Return mean and covariance of several subsets, unconstrained; nothing is drawn."""
        return [(g.mean, g.cov) for g, _, _ in self._solved(posterior, observations, subsets)]

    def _solved(
        self,
        posterior: Posterior,
        observations: Observations,
        subsets: Sequence[slice],
        progress: Progress | None = None,
    ) -> list[tuple[Gaussian, dict[str, float], tuple[str, ...]]]:
        simulator, space = simulator_of(self.name, self._simulator, posterior)
        moments = object_moments(posterior, observations, draws=self.config.draws)
        solved = []
        for rows in subsets:
            objects = moments[rows]
            start, facts, flags = self.solve(objects)
            if len(objects) < _SMALLEST:
                solved.append((start, facts, flags))
                continue
            data = observations.batch[rows].with_(theta=None)
            progress = progress or Progress()
            equation = _Equation(posterior, simulator, space, data, self.config, progress)
            found, more, converged = equation.solve(start)
            solved.append((found, facts | more, equation.flags(converged)))
        return solved


@dataclass(frozen=True, slots=True)
class _Rows:
    """Simulated objects with r observations each.

    Scores (n, r, d), quality (n, r, k), local parameters (n, l), valid or not (n,).
    """

    score: F64
    quality: F64
    local: F64
    ok: NDArray[np.bool_]

    def to_mean(self, rows: NDArray[np.bool_]) -> F64:
        """Return contributions (k, d) of the first rows, a mask, to the mean of the valid ones.

        Their mean is that mean, and their scatter gives its error, in which the number of valid
        ones counts.
        """
        ok, score = self.ok[: len(rows)][rows], self.score[: len(rows)][rows].mean(1)
        weight = (ok / ok.mean())[:, None]
        return np.asarray(score * weight - score[ok].mean(0) * (weight - 1))


@dataclass(frozen=True, slots=True)
class _Moments:
    """Mean (d,), derivative, covariance, and covariance of the mean (d, d) of the scores."""

    mean: F64
    slope: F64
    variance: F64
    error: F64
    total: F64  # sum over the observed objects, (d,)
    objects: int  # simulated for the mean, valid
    noise: float  # fraction of the variance that is noise of the observation

    @property
    def relative_error(self) -> float:
        """Variance of the mean per variance of one score, times the simulated objects."""
        share = np.trace(np.linalg.solve(self.variance, self.error)) / len(self.mean)
        return float(self.objects * share)


@dataclass(frozen=True, slots=True)
class _State:
    """Value (d,), covariance, and the last step: from which value, moments there, its length."""

    value: F64
    cov: F64
    at: F64 = field(default_factory=lambda: np.zeros(0))
    moments: _Moments | None = None
    step: float = np.inf


@dataclass
class _Equation:
    """The equation of the module for one group of objects."""

    posterior: Posterior
    simulator: Simulator
    space: ParameterSpace
    data: Batch
    config: SimulatedMomentsConfig
    progress: Progress = field(default_factory=Progress)
    simulated: int = field(default=0, init=False)
    expected: int = field(default=0, init=False)
    steps: int = field(default=0, init=False)
    noisy: bool = field(default=False, init=False)
    errors_differ: bool = field(default=False, init=False)
    failing: bool = field(default=False, init=False)
    observed: int = field(default=_OBSERVED, init=False)

    def __post_init__(self) -> None:
        names = [p.name for p in self.space.parameters]
        parameters = self.simulator.parameters
        self.keep = self.posterior.select(names)
        self.shared = parameters.index(names)
        self.local = [
            p.name
            for p in parameters.parameters
            if p.name not in names and p.prior.continuous and p.prior.has_density
        ]
        self.clock: tuple[float, int] | None = None  # time and number of simulated objects
        self.announced = False
        if not self.simulator.order_matters:
            self.data = _sorted(self.data)  # the order of the objects does not matter
        self.word = digest(self.data)
        self.finest = max(_LAST, self.config.simulations * len(self.data))
        self.columns = quality_of_values
        if self._quality(self.data).shape[1] * _ROWS_PER_COLUMN > _FIRST:
            self.columns = data_quality
        self.quality = self._quality(self.data)
        self.scores = self._has_scores()

    def solve(self, start: Gaussian) -> tuple[Gaussian, dict[str, float], bool]:
        """Return the posterior, numbers about the search, and whether it converged."""
        n, d = len(self.data), self.space.z_dim
        state = _State(np.clip(start.mean, -_EDGE, _EDGE), start.cov)
        if self.scores:
            near = self._search(state, False, _FIRST, _FAR)
            state = self._search(near, True, 2 * n, _NEAR)
            state = self._search(state, True, self.finest, _NEAR)
            sd = np.sqrt(np.diag(near.cov))
            apart = np.abs((state.value - near.value) / sd).max() > _APART
            wider = (np.sqrt(np.diag(state.cov)) / sd).max() > _WIDER
            if apart or wider or state.step >= _NEAR:
                self.scores, state = False, near
        if not self.scores:
            state = self._search(state, False, 2 * n, _NEAR)
            state = self._search(state, False, self.finest, _NEAR)
        moments = state.moments
        assert moments is not None
        share = n * np.trace(np.linalg.solve(moments.variance, moments.error)) / d
        ratio = np.trace(np.linalg.solve(moments.variance, moments.slope)) / d
        facts = {
            "simulated_objects": float(self.simulated),
            "simulation_share": float(share),
            "information_ratio": float(ratio),
        }
        found = Gaussian(state.value, state.cov)
        if self.scores and n <= _FEW and not self.failing:
            found = self._product(found, moments.mean, state.at)
        return found, facts, state.step < _NEAR

    def flags(self, converged: bool) -> tuple[str, ...]:
        """Return the flags of the result."""
        facts = {
            "combination_not_converged": not converged,
            "errors_not_simulated": self.errors_differ,
        }
        return tuple(flag for flag, present in facts.items() if present)

    def _needed(self, precision: int, moments: _Moments | None) -> int:
        """Return how many objects give the mean the ``precision`` of so many plain ones."""
        relative = 1.0 if moments is None else min(1.0, _SPARE * moments.relative_error)
        return min(max(_FIRST, int(precision * relative)), self.config.max_simulations)

    def _search(self, state: _State, scores: bool, precision: int, enough: float) -> _State:
        """Return the state after steps, each with the precision of so many simulated objects."""
        value, cov, moments = state.value, state.cov, state.moments
        for _ in range(_ROUNDS):
            self.steps, at = self.steps + 1, value
            count = self._needed(precision, moments)
            # before the first moments, the number for the last round is not known
            self.last = self._needed(self.finest, moments) if moments else _FIRST
            moments = self._moments(value, cov, scores, count, self.steps)
            self.observed = _OBSERVED if moments.noise > _NOISE else 1
            move, cov = _step(moments, value, len(self.data))
            step = float(np.abs(move / np.sqrt(np.diag(cov))).max())
            move *= min(1.0, _LONGEST / max(float(np.abs(move).max()), 1e-12))
            value = np.clip(value + move, -_EDGE, _EDGE)
            if step < enough:
                break
        return _State(value, cov, at, moments, step)

    def _product(self, near: Gaussian, mean: F64, at: F64) -> Gaussian:
        """Return mean and covariance of the product of the densities, less its mean slope.

        The product has the shape of the posterior where that is not normal; its error, n times the
        ``mean`` score at a value ``at``, still matters little. By importance sampling.
        """
        n, d = len(self.data), len(at)
        rng = stream(self.posterior.seed, "simulated-moments", self.word, "product")
        t = rng.standard_normal((_DRAWS, d)) / np.sqrt(rng.chisquare(_DOF, (_DRAWS, 1)) / _DOF)
        z = near.mean + t @ np.linalg.cholesky(_BROADER * near.cov).T
        theta = self.space.from_unconstrained(z)
        repeated = np.broadcast_to(theta[:, None], (_DRAWS, n, theta.shape[1]))
        log_q = self.posterior.estimator.log_prob(repeated, self.data).sum(1)
        log_p = log_q - n * self.space.log_prob(theta) - 0.5 * (z**2).sum(1) - n * (z - at) @ mean
        weight = special.softmax(log_p + 0.5 * (_DOF + d) * np.log1p((t**2).sum(1) / _DOF))
        if 1 / (weight**2).sum() < _DRAWS / 20:
            return near
        centre = weight @ z
        return Gaussian(centre, (z - centre).T @ (weight[:, None] * (z - centre)))

    # -- simulations ---------------------------------------------------------------

    def _moments(self, value: F64, cov: F64, scores: bool, count: int, number: int) -> _Moments:
        """Return the moments of the scores at a value (d,) from ``count`` simulated objects."""
        size = min(max(_FIRST // 2, -(-count // _SLOPE)), _CHUNK)
        chunks = -(-count // size)
        further = [count] if count >= self.last else [count, self.last]
        self.expected = self.simulated + sum(map(self._cost, further))
        rows = self._simulate(value, value, chunks, size, scores, number)
        bound = _Bound.of(rows.score[rows.ok].reshape(-1, len(value)))
        rows = replace(rows, score=bound(rows.score))
        mean, variance, error = self._mean(rows)
        shift = np.clip(np.sqrt(np.diag(cov)) * _SHIFT, *_SHIFTS) * np.where(value > 0, -1.0, 1.0)
        valid = rows.ok.cumsum()
        pairs = 1 + int(np.searchsorted(valid, min(_ENOUGH, valid[-1]))) // size  # chunks

        def scored(moved: F64, many: int) -> _Rows:
            other = self._simulate(moved, value, many, size, scores, number)
            return replace(other, score=bound(other.score))

        sides = [(scored(moved, pairs), rows) for moved in value + np.diag(shift)]
        slope, doubt = self._slope(sides, shift, variance)
        self.noisy = doubt > _NOISY
        if self.noisy:  # the same random numbers do not give similar objects
            shift = np.clip(np.sqrt(np.diag(cov)) * _WIDE, *_SHIFTS)
            both = zip(value + np.diag(shift), value - np.diag(shift), strict=True)
            sides = [(scored(up, chunks), scored(down, chunks)) for up, down in both]
            slope, _ = self._slope(sides, 2 * shift, variance)
        total = bound(self._score(self.data, value, scores)).sum(0)
        noise = float((rows.score[rows.ok].var(1).mean(0) / np.diag(variance)).mean())
        if self.observed > 1:
            noise *= self.observed / (self.observed - 1)
        return _Moments(mean, slope, variance, error, total, int(valid[-1]), noise)

    def _simulate(
        self, value: F64, at: F64, chunks: int, size: int, scores: bool, number: int
    ) -> _Rows:
        """Return objects simulated with shared parameters ``value``; their scores at ``at``.

        Where few are valid, further blocks are simulated.
        """
        simulator, parameters = self.simulator, self.simulator.parameters
        parts = list[tuple[F64, F64, F64, NDArray[np.bool_]]]()
        valid = 0
        while len(parts) < chunks or (valid < _ENOUGH and len(parts) < _TRIES * chunks):
            rng = stream(self.posterior.seed, "simulated-moments", self.word, number, len(parts))
            theta = parameters.sample(size, rng)
            theta[:, self.shared] = self.space.from_unconstrained(value[None])
            batch = simulator.simulate(theta, rng)
            ok = batch.ok.cpu().numpy()
            score = np.zeros((size, self.observed, len(value)))
            quality = np.zeros((size, self.observed, self.quality.shape[1]))
            local = np.empty((size, 0))
            if ok.any():
                # copies replace failed rows, so that the others keep their random numbers
                copied = np.where(ok, np.arange(size), np.flatnonzero(ok)[0])
                batch = batch[torch.as_tensor(copied)]
                for k in range(self.observed):
                    observed = simulator.observe_like(batch, self.data, rng)
                    self.errors_differ = _errors_differ(observed, self.data)
                    score[:, k] = self._score(observed, at, scores)
                    quality[:, k] = self._quality(observed)
            if self.local:
                space = parameters.select(self.local)
                local = space.to_unconstrained(theta[:, parameters.index(space.names)])
            parts.append((score, quality, local, ok))
            valid += int(ok.sum())
            self.simulated += size
            self._show()
        if valid <= 2 * len(value):
            msg = (
                f"too few objects could be simulated with the combined parameters "
                f"({self._physical(value)}): {valid} of {size * len(parts)}"
            )
            raise SimulationError(msg)
        self.failing = valid < (1 - _FAILED) * size * len(parts)
        return _Rows(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _cost(self, count: int) -> int:
        """Return about how many objects are simulated for the moments from ``count``."""
        d = self.space.z_dim
        return count * (1 + 2 * d) if self.noisy else count + d * count // _SLOPE

    def _show(self) -> None:
        """Show how many objects are simulated, and announce a long time once."""
        self.expected = max(self.expected, self.simulated)
        self.progress.advance(0, f"{self.simulated} of about {self.expected} simulated objects")
        if self.clock is None:  # the first block may take longer
            self.clock = perf_counter(), self.simulated
            return
        began, first = self.clock
        rate = (perf_counter() - began) / (self.simulated - first)
        seconds = rate * (self.expected - self.simulated)
        if seconds > _LONG and not self.announced:
            self.announced = True
            _LOG.warning(
                "the combination of %d objects simulates about %d: %d min left; "
                "combiner.simulations or combiner.max_simulations reduce the number",
                len(self.data),
                self.expected,
                -(-seconds // 60),
            )

    def _score(self, batch: Batch, value: F64, scores: bool) -> F64:
        """Return s (n, d): the score of q, or that of its normal approximation."""
        if scores:
            return self.posterior.estimator.score(value, batch) + value
        rng = stream(self.posterior.seed, "simulated-moments", "draws")
        draws = min(self.config.draws, _DRAWS_EACH)
        mean, cov, _ = self.posterior.gaussian_moments(batch, draws=draws, rng=rng)
        cov = cov[:, self.keep][:, :, self.keep]
        try:
            precision = np.linalg.inv(cov)
        except np.linalg.LinAlgError:  # absurd errors of an object
            precision = np.linalg.pinv(cov, hermitian=True)
        return np.asarray(np.einsum("nij,nj->ni", precision, mean[:, self.keep] - value) + value)

    def _quality(self, batch: Batch) -> F64:
        """Return errors and missing values (n, k); a linear function of context can be far off."""
        return _finite(self.columns(batch.with_(context=None)))

    def _has_scores(self) -> bool:
        """Return whether the estimator has scores, of the shared parameters alone."""
        if self.posterior.space.z_dim != self.space.z_dim:
            return False
        try:
            self.posterior.estimator.score(np.zeros(self.space.z_dim), self.data[:1])
        except DensityUnavailableError:
            return False
        return True

    def _mean(self, rows: _Rows) -> tuple[F64, F64, F64]:
        """Return mean, covariance, and covariance of the mean, at the quality of the data."""
        score, quality = rows.score[rows.ok], rows.quality[rows.ok]
        flat = score.reshape(-1, score.shape[-1]), quality.reshape(-1, quality.shape[-1])
        variance = np.atleast_2d(np.cov(self._fit(*flat)[1].T))
        least = max(_LEAST, _LEAST**2 * float(np.trace(variance)))
        if np.linalg.eigvalsh(variance)[0] < least:  # no information, in some direction
            variance = variance + least * np.eye(len(variance))
        known = _controls(rows.local, rows.ok)
        coefficients, residual, share = self._fit(score.mean(1), quality.mean(1), known)
        spread = residual.T @ residual / len(residual)
        return coefficients[0], variance, share * spread

    def _slope(
        self, sides: list[tuple[_Rows, _Rows]], shift: F64, variance: F64
    ) -> tuple[F64, float]:
        """Return the derivative of the mean score, and its error relative to the covariance.

        For exact scores the derivative equals their covariance. Where it is noisy, it is drawn
        towards it, with a prior of a fifth. Objects that fail on one side only count: shared
        parameters change the mean of valid objects also through the choice of these.
        """
        d = len(shift)
        root = np.linalg.cholesky(variance)
        slope, noise = np.empty((d, d)), np.zeros((d, d))
        inverse = np.linalg.inv(root)
        for k, (up, down) in enumerate(sides):
            n = min(len(up.ok), len(down.ok))
            both = up.ok[:n] & down.ok[:n]
            if both.sum() <= 2 * d:  # different objects fail: as for exact scores
                slope[:, k] = variance[:, k]
                noise += np.outer(np.full(d, 1e9), inverse[:, k] ** 2)
                continue
            either = up.ok[:n] | down.ok[:n]
            change = (up.to_mean(either) - down.to_mean(either)) / shift[k]
            quality = np.where(up.ok[:n, None, None], up.quality[:n], down.quality[:n])
            coefficients, residual, share = self._fit(change, quality[either].mean(1))
            slope[:, k] = coefficients[0]
            white = (residual @ inverse.T).var(0) * share
            noise += np.outer(white, inverse[:, k] ** 2)
        relative = inverse @ slope @ inverse.T
        weight = _NETWORK**2 / (_NETWORK**2 + noise)
        relative = np.eye(d) + weight * (relative - np.eye(d))
        return root @ relative @ root.T, float(np.sqrt(noise.mean()))

    def _fit(self, score: F64, quality: F64, *known: F64) -> tuple[F64, F64, float]:
        """Regress scores (n, d) on quality and functions of mean zero.

        Returns
        -------
        tuple
            Coefficients, the first row at the mean quality of the data; residuals (n, d); variance
            of the first row in units of that of the residuals.
        """
        relative = _scaled(quality, self.quality.mean(0))
        design = np.concatenate([np.ones((len(score), 1)), relative, *known], 1)
        inverse = np.linalg.pinv(design.T @ design, rcond=1e-10, hermitian=True)
        coefficients = inverse @ (design.T @ score)
        return coefficients, score - design @ coefficients, float(inverse[0, 0])

    def _physical(self, value: F64) -> str:
        values = self.space.from_unconstrained(value[None])[0]
        return ", ".join(f"{k} = {v:.4g}" for k, v in zip(self.space.names, values, strict=True))


def _step(moments: _Moments, value: F64, n: int) -> tuple[F64, F64]:
    """Return the step to the mean of the posterior, and its covariance."""
    variance = n * moments.variance + n**2 * moments.error
    off = moments.total - n * moments.mean
    weighted = np.linalg.solve(variance, n * moments.slope)
    cov = np.linalg.inv(np.eye(len(value)) + n * moments.slope.T @ weighted)
    cov = 0.5 * (cov + cov.T)
    return cov @ (weighted.T @ off - value), cov


@dataclass(frozen=True, slots=True)
class _Bound:
    """Shortens scores that are far from those of simulated objects."""

    centre: F64
    root: F64

    @classmethod
    def of(cls, score: F64) -> _Bound:
        """Return the bound for simulated scores (n, d): their centre and covariance.

        The most extreme ones do not count. Scores of rare events are far from most others, and
        remain.
        """
        low, high = np.percentile(score, [_RARE, 100 - _RARE], axis=0)
        score = np.clip(score, low, high)
        cov = np.atleast_2d(np.cov(score.T))
        cov += np.diag(1e-9 * np.diag(cov) + 1e-30)
        return cls(score.mean(0), np.asarray(np.linalg.cholesky(cov), np.float64))

    def __call__(self, score: F64) -> F64:
        white = (score - self.centre) @ np.linalg.inv(self.root).T
        radius = np.sqrt((white**2).mean(-1, keepdims=True))
        shorter = np.minimum(1.0, _BOUND / np.maximum(radius, 1e-12))
        return np.asarray(self.centre + (white * shorter) @ self.root.T)


def _sorted(data: Batch) -> Batch:
    """Return the objects in an order that depends on their values alone."""
    columns = [data.x, data.x_err, data.context]
    flat = [_finite(c.flatten(1).double().cpu().numpy()) for c in columns if c is not None]
    return data[torch.as_tensor(np.lexsort(np.concatenate(flat, 1).T))]


def _errors_differ(simulated: Batch, data: Batch) -> bool:
    """Return whether simulated errors are of another order than those of the data.

    Raises
    ------
    SimulationError
        If there are none, where the data have errors.
    """
    if data.x_err is None:
        return False
    if simulated.x_err is None:
        msg = (
            "simulated objects have no errors, the data have them: observe_like of the simulator "
            "must take the errors of the objects that it is given"
        )
        raise SimulationError(msg)
    if not (bool(simulated.observed.any()) and bool(data.observed.any())):
        return False
    mean, other = (
        float(err[b.observed].double().log10().mean())
        for b, err in ((simulated, simulated.x_err), (data, data.x_err))
    )
    return abs(mean - other) > _OTHER_ERRORS


def _finite(values: F64) -> F64:
    return np.asarray(np.nan_to_num(values))


def _scaled(values: F64, centre: F64) -> F64:
    """Return columns that vary, relative to a centre, in units of their scatter."""
    sd = values.std(0)
    varies = sd > 1e-6
    return np.asarray((values - centre)[:, varies] / sd[varies])


def _controls(local: F64, ok: NDArray[np.bool_]) -> F64:
    """Return functions of the local parameters (n, l), N(0, I), of valid objects; mean zero.

    The mean of all objects is known; that of the valid ones follows from the failed ones, if these
    are few.
    """
    n, count = local.shape
    if count * _ROWS_PER_COLUMN > n or (~ok).mean() > _FAILED:
        return np.empty((int(ok.sum()), 0))
    values = local
    if (count + count * (count + 1) // 2) * _ROWS_PER_COLUMN <= n:
        i, j = np.triu_indices(count)
        values = np.concatenate([local, local[:, i] * local[:, j] - (i == j)], 1)
    return np.asarray(values[ok] + values[~ok].sum(0) / ok.sum())
