r"""Promises of an estimator: a normalised density, draws that follow it, and a safe memory.

Checked on :math:`x = M\theta + \epsilon` after a training of seconds: everything here holds however
short the training is, except that it must have learned something,

.. math:: E\,[\log q(\theta\,|\,x)] > E\,[\log p(\theta)].
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sbi_core.components import Estimator, Training, TrainingRecord
from sbi_core.data.batch import Batch
from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.errors import ConfigError, DensityUnavailableError
from sbi_core.priors.space import Prior
from sbi_core.rng import stream
from sbi_core.testing.models import ProbeSimulator
from sbi_core.testing.outcome import NotApplicable, bind, require, run_all
from sbi_core.training.loop import TrainConfig

__all__ = ["ESTIMATOR_CHECKS", "EstimatorCase", "check_estimator"]

F64 = NDArray[np.float64]
_NORMAL = Prior("normal", {"loc": 1.0, "scale": 2.0})
_BOUNDED = Prior("uniform", {"low": -1.0, "high": 2.0})
_INTEGER = Prior("integer", {"low": 1, "high": 6})
PROBLEMS: dict[str, tuple[Prior, ...]] = {
    "two continuous parameters": (_NORMAL, _BOUNDED),
    "one continuous parameter": (_BOUNDED,),
    "one integer parameter": (_INTEGER,),
    "an integer and a continuous parameter": (_INTEGER, _BOUNDED),
}
_REACH, _POINTS = 5.0, 81  # grid in unconstrained space, in sigma of the prior
_SAFE = (".safetensors", ".json", ".jsonl", ".md", ".txt")


@dataclass
class EstimatorCase:
    """An estimator trained for seconds on the first problem that it takes.

    Parameters
    ----------
    make
        Returns a new, untrained estimator.
    simulations, epochs
        Length of the training.
    points
        Grid points per parameter, for densities that are slow.
    """

    make: Callable[[], Estimator]
    simulations: int = 3000
    epochs: int = 8
    points: int = _POINTS

    def train(self) -> tuple[Estimator, ProbeSimulator, TrainingRecord, list[Any]]:
        """Return a trained estimator, the problem, the record, and what callbacks were given."""
        refused = []
        for what, priors in PROBLEMS.items():
            simulator = ProbeSimulator(*priors)
            estimator, told = self.make(), list[Any]()
            try:
                record = estimator.fit(self.training(simulator), IdentityEmbedding(), [told.append])
            except ConfigError as error:
                refused.append(f"{what}: {error}")
                continue
            return estimator, simulator, record, told
        require(
            False,
            f"fit refuses every problem ({'; '.join(refused)})",
            "let fit take at least one of these problems",
        )
        raise AssertionError

    def training(self, simulator: ProbeSimulator) -> Training:
        """Return what it is trained on."""
        batch = simulator.draw(self.simulations, stream(1, "simulations"))
        columns = tuple(range(simulator.parameters.dim))
        config = TrainConfig(epochs=self.epochs, batch_size=128, learning_rate=5e-3)
        return Training(batch, simulator.parameters, columns, simulator.observe, config, seed=1)

    @cached_property
    def trained(self) -> tuple[Estimator, ProbeSimulator, TrainingRecord, list[Any]]:
        """The trained estimator and what came with it."""
        return self.train()

    @property
    def estimator(self) -> Estimator:
        """The trained estimator."""
        return self.trained[0]

    def objects(self, n: int, seed: int = 0) -> Batch:
        """Return n observed rows with their theta."""
        simulator = self.trained[1]
        return simulator.observe(simulator.draw(n, stream(seed, "test")), stream(seed, "noise"))

    def grid(self, points: int | None = None) -> tuple[F64, F64]:
        """Return points theta (S, d) over the whole prior, and the log volume of each, (S,)."""
        axes: list[tuple[F64, F64]] = []
        for p in self.trained[1].parameters.parameters:
            if p.prior.continuous:
                z = np.linspace(-_REACH, _REACH, points or self.points)
                theta = p.prior.from_unconstrained(z[:, None])[:, 0]
                # |dtheta| = |dz| p(z) / p(theta)
                volume = -0.5 * z**2 - 0.5 * np.log(2 * np.pi) - p.prior.log_prob(theta)
                axes.append((theta, volume + np.log(z[1] - z[0])))
            else:
                low, high = (float(end[0]) for end in p.prior.support)
                values = np.arange(low, high + 1)
                axes.append((values, np.zeros(len(values))))
        theta = np.stack(np.meshgrid(*(a[0] for a in axes), indexing="ij"), -1)
        volume = sum(np.meshgrid(*(a[1] for a in axes), indexing="ij"))
        return theta.reshape(-1, len(axes)), np.asarray(volume).reshape(-1)

    def density(self, row: Batch, points: int | None = None) -> F64:
        """Return log q times volume over the grid, (S,), for one observed row."""
        theta, volume = self.grid(points)
        try:
            log_q = self.estimator.log_prob(theta[:, None, :], row)
        except DensityUnavailableError as error:
            msg = f"it has no density: {error}"
            raise NotApplicable(msg) from None
        require(
            log_q.shape == (len(theta), 1),
            f"log_prob of theta {(*theta.shape[:1], 1, theta.shape[1])} has shape {log_q.shape}",
            "return (S, n) for theta (S, n, d)",
        )
        return np.asarray(log_q[:, 0] + volume, np.float64)


def check_training_is_recorded(case: EstimatorCase) -> None:
    """Fit returns a record, tells its callbacks every epoch, and sets ``space``."""
    estimator, simulator, record, told = case.trained
    require(
        isinstance(record, TrainingRecord),
        f"fit returns {type(record).__name__}",
        "return a TrainingRecord",
    )
    require(
        getattr(estimator, "space", None) is not None
        and estimator.space.hash == simulator.parameters.hash,
        "after fit `space` is not the space of the training",
        "write self.space = training.space in fit: combiners divide by the prior it records",
    )
    require(
        bool(told) and all(hasattr(line, "keys") for line in told),
        f"callbacks were called {len(told)} times",
        "call every callback with a mapping after every epoch: callback({'epoch': ..., ...})",
    )


def check_density_integrates_to_one(case: EstimatorCase) -> None:
    """The sum of q over the support is 1 to 2e-3, for two observed rows."""
    for row in range(2):
        # a narrow density may need the finer grid; a wrong one fails on both
        for points in (case.points, 2 * case.points):
            total = float(np.exp(case.density(case.objects(2)[row], points)).sum())
            if abs(total - 1) < 2e-3:
                break
        require(
            abs(total - 1) < 2e-3,
            f"q(theta | x) integrates to {total:.5f} over the prior's support",
            "return the log density of theta in physical units: add log|dz/dtheta| "
            "(space.log_abs_det), and normalise inside the support",
        )


def check_draws_follow_the_density(case: EstimatorCase) -> None:
    """Means of draws agree with those of the density: 5 sigma, two false alarms in a million."""
    row = case.objects(1, seed=4)
    log_w = case.density(row)
    weight = np.exp(log_w) / np.exp(log_w).sum()
    theta = case.grid()[0]
    draws = case.estimator.sample(row, 20_000, 1)
    d = theta.shape[1]
    require(
        draws.shape == (20_000, 1, d),
        f"sample returns {draws.shape} for 20000 draws of 1 object",
        f"return (draws, objects, {d})",
    )
    names = case.estimator.space.names
    for k in range(d):
        for power in (1, 2):
            want = float((weight * theta[:, k] ** power).sum())
            values = draws[:, 0, k] ** power
            # a grid of spacing h resolves a mean to much better than h / 20
            step = float(np.ptp(theta[:, k])) / case.points / 20
            error = 5 * float(values.std()) / np.sqrt(len(values)) + step**power
            require(
                abs(float(values.mean()) - want) < error,
                f"the mean of {names[k]}^{power} over draws is {values.mean():.4f}, "
                f"over the density {want:.4f}, and they may differ by {error:.2g}",
                "sample and log_prob must describe one distribution",
            )


def check_draws_stay_in_the_support(case: EstimatorCase) -> None:
    """Every draw lies in the prior's support; the density outside is zero."""
    space, batch = case.estimator.space, case.objects(20)
    draws = case.estimator.sample(batch, 200, 2).reshape(-1, space.dim)
    outside = int((~space.inside(draws)).sum())
    require(
        outside == 0,
        f"{outside} of {len(draws)} draws lie outside the prior",
        "work in unconstrained space (space.to_unconstrained / from_unconstrained), or reject",
    )
    k = space.dim - 1  # bounded in every problem
    beyond = draws[:1].copy()
    beyond[0, k] = space.support[1][k] + 1.0
    try:
        log_q = float(case.estimator.log_prob(beyond, batch[0])[0])
    except DensityUnavailableError:
        return
    require(
        log_q == -np.inf,
        f"log_prob at {space.names[k]} = {beyond[0, k]:g}, outside the prior, is {log_q:.3g}",
        "return -inf there",
    )


def check_missing_values_change_no_bit(case: EstimatorCase) -> None:
    """What stands where mask is False, NaN included, changes no bit of the draws."""
    batch = case.objects(8)
    assert batch.mask is not None
    assert batch.x_err is not None
    other = batch.with_(
        x=torch.where(batch.mask, batch.x, 123.0),
        x_err=torch.where(batch.mask, batch.x_err, torch.nan),
    )
    one, two = (case.estimator.sample(b, 5, 1) for b in (batch, other))
    changed = int((one != two).any((0, 2)).sum())
    require(
        changed == 0,
        f"draws of {changed} of 8 objects change with values that mask calls missing",
        "replace them before anything is computed: torch.where(batch.observed, x, 0)",
    )


def check_same_seed_same_draws(case: EstimatorCase) -> None:
    """One seed, one set of draws; an object's own generator makes it independent of company."""
    batch = case.objects(5)
    one, two = (case.estimator.sample(batch, 9, 3) for _ in range(2))
    require(
        bool(np.array_equal(one, two)),
        "sample with one seed gives two sets of draws",
        "take all random numbers from the argument rng",
    )
    together = case.estimator.sample(batch, 50, [stream(1, k) for k in range(5)])
    alone = case.estimator.sample(batch[3], 50, [stream(1, 3)])
    off = float(np.abs(alone[:, 0] - together[:, 3]).max())
    scale = float(together.std())
    require(
        off <= 1e-2 * scale,
        f"draws of an object change by {off:.2g} (all draws: sd {scale:.2g}) with the objects "
        "beside it",
        "with a sequence of generators, take the numbers of row k from generator k",
    )


def check_moments_are_those_of_the_draws(case: EstimatorCase) -> None:
    """``gaussian_moments``, where there are any, are the moments of q: 6 sigma."""
    batch = case.objects(2, seed=6)
    try:
        mean, cov = case.estimator.gaussian_moments(batch)
    except DensityUnavailableError as error:
        raise NotApplicable(str(error)) from None
    space = case.estimator.space
    draws = case.estimator.sample(batch, 20_000, 4)
    for row in range(2):
        z = space.to_unconstrained(draws[:, row])
        sd = z.std(0)
        off = np.abs(z.mean(0) - mean[row]) / sd
        require(
            bool((off < 6 / np.sqrt(len(z)) + 1e-3).all()),
            f"gaussian_moments has mean {mean[row]}, draws {z.mean(0)} in unconstrained space",
            "return moments in unconstrained space, or do not override gaussian_moments",
        )
        ratio = np.sqrt(np.diag(cov[row])) / sd
        require(
            bool((np.abs(ratio - 1) < 0.1).all()),
            f"gaussian_moments has sd {np.sqrt(np.diag(cov[row]))}, draws {sd}",
            "return moments in unconstrained space, or do not override gaussian_moments",
        )


def check_it_learns(case: EstimatorCase) -> None:
    """On simulations it never saw, q gives the truth a higher density than the prior does."""
    batch = case.objects(200, seed=7)
    assert batch.theta is not None
    truth = batch.theta.double().numpy()
    try:
        gain = case.estimator.log_prob(truth, batch) - case.estimator.space.log_prob(truth)
    except DensityUnavailableError:
        draws = case.estimator.sample(batch, 100, 5)
        gain = np.abs(truth - truth.mean(0)).mean(1) - np.abs(truth - draws.mean(0)).mean(1)
    error = float(gain.std()) / np.sqrt(len(gain))
    require(
        float(gain.mean()) > 3 * error,
        f"log q(truth | x) - log p(truth) is {gain.mean():.2f} +- {error:.2f} on 200 simulations: "
        "it has learned nothing",
        "check columns and units of theta in the loss, and that x reaches the network",
    )


def check_stored_it_draws_the_same_bits(case: EstimatorCase) -> None:
    """Saved and loaded: same draws, same prior; no file that could execute anything."""
    estimator, batch = case.estimator, case.objects(3)
    with tempfile.TemporaryDirectory() as folder:
        estimator.save(folder)
        files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
        odd = [p.name for p in files if p.suffix not in _SAFE or _is_pickle(p)]
        require(
            bool(files) and not odd,
            f"save wrote {odd or 'nothing'}",
            "write weights.safetensors and config.json: pickled files execute code when read",
        )
        loaded = type(estimator).load(folder)
    same = np.array_equal(loaded.sample(batch, 9, 5), estimator.sample(batch, 9, 5))
    require(
        bool(same),
        "a saved and loaded estimator draws other numbers",
        "store all that matters: weights, standardisation, options, prior",
    )
    require(
        loaded.space.hash == estimator.space.hash,
        "the loaded estimator has another prior",
        "store training.space (to_spec) and read it back",
    )


def _is_pickle(path: Path) -> bool:
    head = path.read_bytes()[:4]
    return head[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


ESTIMATOR_CHECKS = (
    check_training_is_recorded,
    check_density_integrates_to_one,
    check_draws_follow_the_density,
    check_draws_stay_in_the_support,
    check_missing_values_change_no_bit,
    check_same_seed_same_draws,
    check_moments_are_those_of_the_draws,
    check_it_learns,
    check_stored_it_draws_the_same_bits,
)


def check_estimator(
    make: Callable[[], Estimator],
    *,
    without: Sequence[str] = (),
    simulations: int = 3000,
    epochs: int = 8,
) -> None:
    """Run all checks of an estimator, after a training of seconds.

    Parameters
    ----------
    make
        Returns a new, untrained estimator: its class will do.
    without
        Names of checks to leave out, for densities that take minutes.
    simulations, epochs
        Length of the training.

    Raises
    ------
    ConformanceError
        With every promise that is broken.
    """
    case = EstimatorCase(make, simulations, epochs)
    name = str(getattr(make, "name", "") or getattr(make, "__name__", "estimator"))
    checks = bind("estimator", name, ESTIMATOR_CHECKS, lambda: case)
    run_all(check for check in checks if check.name not in without)
