r"""Truncated sequential posterior estimation for one observation.

Round r draws parameters from the prior restricted to where the current posterior of the
observation :math:`x_o` has density,

.. math:: \tilde p_r(z) \propto N(z; 0, I)\; \mathbf 1[z \in B_r]\;
          \mathbf 1[\,q_{r-1}(z \mid x_o) > \tau_r] ,

with :math:`\tau_r` the :math:`\epsilon` quantile of :math:`q_{r-1}(z \mid x_o)` at its own draws,
so that :math:`1 - \epsilon` of the mass stays, and :math:`B_r` the box around the draws above it.
Inside, :math:`\tilde p_r` is proportional to the prior: the plain training loss, on simulations of
this round and those of earlier ones that fall inside, is optimal for the posterior under the
*original* prior, without a correction. Posterior draws outside the region are rejected.

The network of every round works in coordinates that are standard normal under the prior inside the
box (a truncated normal for every z), so that a narrow posterior has a width of order one.

Limits: a mode that the first posterior misses is lost; the check of a round covers only simulations
inside its region. Only continuous parameters with a prior density are supported.

References:
    | Deistler, Goncalves & Macke 2022, "Truncated proposals for scalable and hassle-free
      simulation-based inference", arXiv:2210.04815
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from scipy import special, stats

from sbi_core.components import (
    Callback,
    Embedding,
    Estimator,
    Rng,
    RowSource,
    Simulator,
    Training,
)
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.diagnostics import Verdict, combine_verdicts, judge_sbc_all
from sbi_core.errors import ConfigError, ObservationError, SimulationError, counted
from sbi_core.posterior import PosteriorSamples
from sbi_core.priors.space import Parameter, ParameterSpace, Prior, as_float64
from sbi_core.rng import as_generator, stream, torch_defaults
from sbi_core.training.config import TrainConfig
from sbi_core.training.splits import splits_of
from sbi_core.validation import Options

__all__ = ["RefineConfig", "RefinedPosterior", "Round", "refine"]

F64 = NDArray[np.float64]
_CHUNK = 10_000
_MARGIN = 0.02  # of the box's width, at either end
_EDGE = 5.2  # largest |z| of a draw
_CHECKED = 300  # simulations of the coverage check
_CHECK_DRAWS = 200


class RefineConfig(Options):
    """Options of the refinement."""

    rounds: int = Field(
        default=4, ge=1, description="Largest number of rounds, including the first."
    )
    simulations: int = Field(default=5000, ge=100, description="New simulations per round.")
    epsilon: float = Field(
        default=1e-4, gt=0, lt=0.1, description="Posterior mass that truncation may cut off."
    )
    draws: int = Field(
        default=20_000, ge=1000, description="Posterior draws that set threshold and box."
    )
    stop_shrinking: float = Field(
        default=0.8,
        gt=0,
        le=1,
        description="Stop when a region holds more than this share of the last one's prior mass.",
    )
    max_tries: int = Field(
        default=1000, ge=1, description="Tries per accepted draw before giving up."
    )


@dataclass(frozen=True)
class Round:
    """Results of one round.

    Parameters
    ----------
    number
        From 1, the round with the whole prior.
    simulations
        New simulations.
    trained_on
        All simulations inside the region.
    prior_mass
        Share of the prior inside the region; 1 in the first round.
    test_nll
        Held-out negative log density in z, nats.
    coverage_p
        p-values of the uniformity of ranks of held-out simulations inside the region.
    verdict
        Verdict of the coverage check.
    """

    number: int
    simulations: int
    trained_on: int
    prior_mass: float
    test_nll: float
    coverage_p: tuple[float, ...]
    verdict: Verdict

    def to_spec(self) -> dict[str, Any]:
        """Return the round as a JSON-serialisable table."""
        return asdict(self)


@dataclass(frozen=True)
class _Region:
    """Region of the proposal of a round: a box in z, and inside it a density above a threshold."""

    low: F64
    high: F64
    estimator: Estimator | None = None  # of the round before, over its own box
    threshold: float = -math.inf
    x_o: Batch | None = None
    within: _Region | None = None  # the region of the round before: simulations exist only there

    @staticmethod
    def everything(d: int) -> _Region:
        return _Region(np.full(d, -np.inf), np.full(d, np.inf))

    def inside(self, z: F64) -> NDArray[np.bool_]:
        """Return which rows of z (n, d) lie in the region."""
        inside: NDArray[np.bool_] = np.all((z >= self.low) & (z <= self.high), axis=1)
        if self.within is not None and inside.any():
            inside[inside] = self.within.inside(z[inside])
        if self.estimator is not None and inside.any():
            assert self.x_o is not None
            log_q = self.estimator.log_prob(z[inside][:, None], self.x_o)[:, 0]
            inside[inside] = log_q > self.threshold
        return inside

    def proposal(self) -> ParameterSpace:
        """Return the z coordinates as parameters with their prior inside the box."""
        ends = zip(self.low, self.high, strict=True)
        return ParameterSpace(
            tuple(Parameter(f"z{k + 1}", _normal(a, b)) for k, (a, b) in enumerate(ends))
        )

    def sample(self, n: int, rng: np.random.Generator, tries: int) -> tuple[F64, float]:
        """Return n draws of the prior inside, and the share of the prior that is inside.

        Raises
        ------
        SimulationError
            If hardly any draw falls into the region.
        """
        # the upper tail mirrored into the lower one, where the distribution function is precise
        sign = np.where(self.low > 0, -1.0, 1.0)
        a, b = np.where(sign > 0, self.low, -self.high), np.where(sign > 0, self.high, -self.low)
        start, stop = special.ndtr(a), special.ndtr(b)
        kept: list[F64] = []
        accepted = tried = 0
        while accepted < n:
            u = rng.uniform(start, stop, size=(_CHUNK, len(a)))
            z = np.clip(sign * special.ndtri(u), -_EDGE, _EDGE)
            z = z[self.inside(z)]
            kept.append(z)
            accepted, tried = accepted + len(z), tried + _CHUNK
            if tried > tries * max(accepted, 1) and tried >= 10 * _CHUNK:
                msg = (
                    f"only {accepted} of {tried} draws of the prior fall into the region of the "
                    "posterior: raise max_tries, or infer fewer parameters"
                )
                raise SimulationError(msg)
        return np.concatenate(kept)[:n], float(np.prod(stop - start)) * accepted / tried


def _normal(low: float, high: float) -> Prior:
    ends = {k: float(v) for k, v in (("low", low), ("high", high)) if np.isfinite(v)}
    return Prior("truncnormal" if ends else "normal", {"loc": 0.0, "scale": 1.0, **ends})


@dataclass(frozen=True)
class RefinedPosterior:
    """The posterior of one observation under the original prior.

    Parameters
    ----------
    space
        The parameters with the prior.
    observation
        The one object.
    rounds
        Results of every round; the last ``verdict`` is that of the coverage check.
    """

    space: ParameterSpace
    observation: Observations
    rounds: tuple[Round, ...]
    _estimator: Estimator = field(repr=False)
    _region: _Region = field(repr=False)
    _max_tries: int = field(default=1000, repr=False)

    def sample(self, draws: int, rng: Rng = 0) -> PosteriorSamples:
        """Return draws inside the region, (draw, 1, parameter)."""
        z = self._z(draws, as_generator(rng))
        theta = self.space.from_unconstrained(z)
        return PosteriorSamples(theta[:, None], self.space, self.observation.id)

    def _z(self, draws: int, rng: np.random.Generator) -> F64:
        kept: list[F64] = []
        accepted = tried = 0
        while accepted < draws:
            n = max(draws - accepted, 100)
            z = self._estimator.sample(self.observation.batch, n, rng)[:, 0]
            z = z[self._region.inside(z)]
            kept.append(z)
            accepted, tried = accepted + len(z), tried + n
            if tried > self._max_tries * max(accepted, 1):
                msg = f"only {accepted} of {tried} posterior draws lie in the region of the round"
                raise SimulationError(msg)
        return np.concatenate(kept)[:draws]

    def log_prob(self, theta: ArrayLike, *, leakage_draws: int = 10_000) -> F64:
        """Return log q(theta | x_o) of theta (n, d); -inf outside the region.

        Parameters
        ----------
        theta
            (n, d), physical units.
        leakage_draws
            Draws that measure the mass of q inside the region, by which it is normalised.
        """
        rows = as_float64(theta)
        batch = self.observation.batch
        out = np.full(len(rows), -np.inf)
        ok = self.space.inside(rows)
        if not ok.any():
            return out
        z = self.space.to_unconstrained(rows[ok])
        log_q = np.full(len(z), -np.inf)
        inside = self._region.inside(z)
        if inside.any():
            log_q[inside] = self._estimator.log_prob(z[inside][:, None], batch)[:, 0]
            trial = self._estimator.sample(batch, leakage_draws, 0)[:, 0]
            log_q[inside] -= np.log(max(self._region.inside(trial).mean(), 1 / leakage_draws))
            log_q[inside] += self.space.log_abs_det(rows[ok][inside])
        out[ok] = log_q
        return out

    def __repr__(self) -> str:
        last = self.rounds[-1]
        total = sum(r.simulations for r in self.rounds)
        return (
            f"RefinedPosterior({list(self.space.names)} of '{self.observation.id[0]}'; "
            f"{counted(len(self.rounds), 'round')}, {counted(total, 'simulation')}, prior mass "
            f"{last.prior_mass:.2g})"
        )


@torch_defaults()
def refine(
    simulator: Simulator,
    make_estimator: Callable[[], Estimator],
    embedding: Embedding,
    observation: Observations,
    *,
    config: RefineConfig | None = None,
    train: TrainConfig | None = None,
    parameters: str | Sequence[str] = "all",
    first: Batch | RowSource | None = None,
    seed: int = 0,
    device: str = "cpu",
    callbacks: Sequence[Callback] = (),
    report: Callable[[Round], None] | None = None,
) -> RefinedPosterior:
    """Refine the posterior of one object by simulations in its region of the prior.

    Parameters
    ----------
    simulator
        Draws the simulations; noise like the object's own (``observe_like``).
    make_estimator
        Returns an untrained estimator; a fresh one is trained in every round.
    embedding
        Its embedding.
    observation
        One object.
    config, train
        Options of the rounds and of the training loop.
    parameters
        Parameters to infer; the others are drawn from the prior and integrated out.
    first
        Noise-free simulations from the prior, all parameters in ``theta``, instead of those of
        the first round.
    seed
        Root seed.
    device
        Torch device.
    callbacks
        Receive the metrics of every epoch.
    report
        Receives every round when it is done.

    Raises
    ------
    ObservationError
        If there is more than one object.
    ConfigError
        If a parameter is discrete.
    SimulationError
        If all simulations fail, or hardly any draw falls into the region.
    """
    config, train = config or RefineConfig(), train or TrainConfig()
    if len(observation) != 1:
        msg = f"refinement is for one object, got {len(observation)}: choose one by its id"
        raise ObservationError(msg)
    space = simulator.parameters.select(parameters)
    discrete = [p.name for p in space.parameters if not p.prior.continuous]
    if discrete:
        msg = f"parameter '{discrete[0]}' is discrete: refinement is for continuous parameters"
        raise ConfigError(msg)
    work = _Work(simulator, make_estimator, embedding, observation, config, train, space)
    work = replace(work, seed=seed, device=device, callbacks=tuple(callbacks))
    region, mass = _Region.everything(space.z_dim), 1.0
    pool: list[tuple[F64, Batch]] = []
    if first is not None:
        pool.append(work.prepared(first if isinstance(first, Batch) else first.load()))
    rounds: list[Round] = []
    while True:
        number = len(rounds) + 1
        new = 0
        if number > 1 or first is None:
            z, mass = region.sample(
                config.simulations, stream(seed, "refine", number), config.max_tries
            )
            pool.append(work.simulated(z, number))
            new = len(z)
        pool = [_only(region, *part) for part in pool]
        z, batch = np.concatenate([p[0] for p in pool]), Batch.cat([p[1] for p in pool])
        estimator, nll, p = work.trained(z, batch, region, number)
        verdict = combine_verdicts(judge_sbc_all([f"z{k + 1}" for k in range(len(p))], p))
        rounds.append(Round(number, new, len(z), mass, nll, tuple(map(float, p)), verdict))
        if report is not None:
            report(rounds[-1])
        done = RefinedPosterior(
            space, observation, tuple(rounds), estimator, region, config.max_tries
        )
        if number >= config.rounds:
            return done
        following = work.truncated(done, estimator, number)
        _, next_mass = following.sample(
            _CHUNK // 10, stream(seed, "refine", "mass", number), config.max_tries
        )
        if next_mass > config.stop_shrinking * mass:
            return done
        region = following


def _only(region: _Region, z: F64, batch: Batch) -> tuple[F64, Batch]:
    rows = np.flatnonzero(region.inside(z))
    return z[rows], batch[rows]


@dataclass(frozen=True)
class _Work:
    simulator: Simulator
    make_estimator: Callable[[], Estimator]
    embedding: Embedding
    observation: Observations
    config: RefineConfig
    train: TrainConfig
    space: ParameterSpace
    seed: int = 0
    device: str = "cpu"
    callbacks: tuple[Callback, ...] = ()

    @property
    def columns(self) -> list[int]:
        return self.simulator.parameters.index(self.space.names)

    def prepared(self, batch: Batch) -> tuple[F64, Batch]:
        """Return z of the rows that succeeded, and the rows."""
        batch = batch.succeeded
        if len(batch) == 0 or batch.theta is None:
            msg = "all simulations of this round failed"
            raise SimulationError(msg)
        return self.space.to_unconstrained(as_float64(batch.theta)[:, self.columns]), batch

    def simulated(self, z: F64, number: int) -> tuple[F64, Batch]:
        """Return z and simulations at it; parameters that are not inferred come from the prior."""
        rng = stream(self.seed, "refine", "simulate", number)
        whole = self.simulator.parameters
        theta = (
            np.empty((len(z), whole.dim))
            if self.space.dim == whole.dim
            else whole.sample(len(z), rng)
        )
        theta[:, self.columns] = self.space.from_unconstrained(z)
        batch = self.simulator.simulate(theta, rng)
        if batch.theta is None:
            batch = batch.with_(theta=theta)
        ok = np.flatnonzero(batch.ok.cpu().numpy())
        if len(ok) == 0:
            msg = f"all {len(z)} simulations of round {number} failed; look at prior and options"
            raise SimulationError(msg)
        return z[ok], batch[ok]

    def observe(self, batch: Batch, rng: Rng) -> Batch:
        """Noise like the object's."""
        return self.simulator.observe_like(batch, self.observation.batch, rng)

    def trained(
        self, z: F64, batch: Batch, region: _Region, number: int
    ) -> tuple[Estimator, float, F64]:
        """Return a trained estimator, its test loss and the p-values of its ranks."""
        space = region.proposal()
        rows = batch.with_(theta=z, split_key=None)
        training = Training(
            batch=rows,
            space=space,
            columns=tuple(range(space.dim)),
            observe=self.observe,
            config=self.train,
            seed=int(stream(self.seed, "refine", "train", number).integers(2**31)),
            device=self.device,
        )
        estimator = self.make_estimator()
        record = estimator.fit(training, self.embedding, self.callbacks)
        test = splits_of(training).test[:_CHECKED]
        rng = stream(self.seed, "refine", "check", number)
        held = self.observe(rows[test], rng)
        return estimator, record.test_nll, self._ranks(estimator, region, z[test], held, rng)

    def _ranks(
        self, estimator: Estimator, region: _Region, z: F64, held: Batch, rng: np.random.Generator
    ) -> F64:
        """p-values of uniform ranks among the draws inside the region."""
        draws = estimator.sample(held.with_(theta=None), _CHECK_DRAWS, rng)
        inside = region.inside(draws.reshape(-1, z.shape[1])).reshape(draws.shape[:2])
        below = ((draws < z) & inside[..., None]).sum(0)
        u = (below + rng.random(z.shape)) / (inside.sum(0)[:, None] + 1)
        return np.array([stats.kstest(column, "uniform").pvalue for column in u.T])

    def truncated(self, posterior: RefinedPosterior, estimator: Estimator, number: int) -> _Region:
        """Return the region that holds all but epsilon of the posterior's mass."""
        z = posterior._z(self.config.draws, stream(self.seed, "refine", "region", number))
        batch = self.observation.batch
        log_q = estimator.log_prob(z[:, None], batch)[:, 0]
        threshold = float(np.quantile(log_q, self.config.epsilon))
        kept = z[log_q > threshold]
        margin = _MARGIN * np.ptp(kept, axis=0)
        low, high = kept.min(0) - margin, kept.max(0) + margin
        low = np.maximum(low, posterior._region.low)
        high = np.minimum(high, posterior._region.high)
        return _Region(low, high, estimator, threshold, batch, posterior._region)
