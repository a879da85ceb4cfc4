r"""Requirements on an estimator: a normalised density, draws that follow it, and safe storage.

Checked on :math:`x = M\theta + \epsilon` after a training of seconds: everything here holds however
short the training is, except that it must have learned something,

.. math:: E\,[\log q(\theta\,|\,x)] > E\,[\log p(\theta)].
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from sbi_core.components import Estimator, Training, TrainingRecord
from sbi_core.data.batch import Batch
from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.errors import ConfigError, DensityUnavailableError
from sbi_core.priors.space import Prior
from sbi_core.rng import stream
from sbi_core.testing.checks import Checks, fail, once, skip
from sbi_core.testing.models import ProbeSimulator
from sbi_core.training.config import TrainConfig

__all__ = ["EstimatorChecks"]

F64 = NDArray[np.float64]
_NORMAL = Prior("normal", {"loc": 1.0, "scale": 2.0})
_BOUNDED = Prior("uniform", {"low": -1.0, "high": 2.0})
_INTEGER = Prior("integer", {"low": 1, "high": 6})
_PROBLEMS: dict[str, tuple[Prior, ...]] = {
    "two continuous parameters": (_NORMAL, _BOUNDED),
    "one continuous parameter": (_BOUNDED,),
    "one integer parameter": (_INTEGER,),
    "an integer and a continuous parameter": (_INTEGER, _BOUNDED),
}
_REACH = 5.0  # of the grid in unconstrained space, in sigma of the prior
_SAFE = (".safetensors", ".json", ".jsonl", ".md", ".txt")
_PICKLE = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class _Trained(NamedTuple):
    estimator: Estimator
    simulator: ProbeSimulator
    record: TrainingRecord
    messages: list[Any]  # to the callbacks


class EstimatorChecks(Checks[Estimator]):
    """An estimator, trained for seconds on the first problem that it takes.

    ``make`` returns a new, untrained one.

    Attributes
    ----------
    simulations, epochs
        Length of the training.
    points
        Grid points per parameter; fewer for densities that are slow.
    """

    simulations: ClassVar[int] = 3000
    epochs: ClassVar[int] = 8
    points: ClassVar[int] = 81

    @once
    def trained(self) -> _Trained:
        """The trained estimator and what came with it."""
        refused = []
        for problem, priors in _PROBLEMS.items():
            simulator, estimator, messages = ProbeSimulator(*priors), self.make(), list[Any]()
            batch = simulator.draw(self.simulations, stream(1, "simulations"))
            columns = tuple(range(simulator.parameters.dim))
            config = TrainConfig(epochs=self.epochs, batch_size=128, learning_rate=5e-3)
            training = Training(
                batch, simulator.parameters, columns, simulator.observe, config, seed=1
            )
            try:
                record = estimator.fit(training, IdentityEmbedding(), [messages.append])
            except ConfigError as error:
                refused.append(f"{problem}: {error}")
                continue
            return _Trained(estimator, simulator, record, messages)
        fail(
            f"fit refuses every problem ({'; '.join(refused)}); "
            "let fit take at least one of these problems"
        )
        raise AssertionError

    @property
    def estimator(self) -> Estimator:
        """The trained estimator."""
        return self.trained.estimator

    def objects(self, n: int, seed: int = 0) -> Batch:
        """Return n observed rows with their theta."""
        simulator = self.trained.simulator
        return simulator.observe(simulator.draw(n, stream(seed, "test")), stream(seed, "noise"))

    def grid(self, points: int) -> tuple[F64, F64]:
        """Return points theta (S, d) over the whole prior, and the log volume of each, (S,)."""
        axes: list[tuple[F64, F64]] = []
        for p in self.trained.simulator.parameters:
            if p.prior.continuous:
                z = np.linspace(-_REACH, _REACH, points)
                theta = p.prior.from_unconstrained(z[:, None])[:, 0]
                # |dtheta| = |dz| p(z) / p(theta)
                volume = -0.5 * z**2 - 0.5 * np.log(2 * np.pi) - p.prior.log_prob(theta)
                axes.append((theta, volume + np.log(z[1] - z[0])))
            else:
                values, _ = p.prior.outcomes()
                axes.append((values, np.zeros(len(values))))
        theta = np.stack(np.meshgrid(*(a[0] for a in axes), indexing="ij"), -1)
        volume = sum(np.meshgrid(*(a[1] for a in axes), indexing="ij"))
        return theta.reshape(-1, len(axes)), np.asarray(volume).reshape(-1)

    def density(self, row: Batch, points: int) -> F64:
        """Return log q times volume over the grid, (S,), for one observed row."""
        theta, volume = self.grid(points)
        try:
            log_q = self.estimator.log_prob(theta[:, None, :], row)
        except DensityUnavailableError as error:
            skip(f"it has no density: {error}")
        assert log_q.shape == (len(theta), 1), (
            f"log_prob of theta {(*theta.shape[:1], 1, theta.shape[1])} has shape {log_q.shape}; "
            "return (S, n) for theta (S, n, d)"
        )
        return np.asarray(log_q[:, 0] + volume, np.float64)

    def test_training_is_recorded(self) -> None:
        """Fit returns a record, calls its callbacks every epoch, and sets ``space``."""
        estimator, simulator, record, messages = self.trained
        assert isinstance(record, TrainingRecord), (
            f"fit returns {type(record).__name__}; return a TrainingRecord"
        )
        space = getattr(estimator, "space", None)
        assert getattr(space, "hash", "") == simulator.parameters.hash, (
            "after fit `space` is not the space of the training; "
            "write self.space = training.space in fit: combiners divide by the prior it records"
        )
        assert [m for m in messages if hasattr(m, "keys")], (
            f"callbacks were called {len(messages)} times; "
            "call every callback with a mapping after every epoch: callback({'epoch': ..., ...})"
        )

    def test_density_integrates_to_one(self) -> None:
        """The sum of q over the support is 1 to 2e-3, for two observed rows."""
        for row in range(2):
            # a narrow density may need the finer grid; a wrong one fails on both
            for points in (self.points, 2 * self.points):
                total = float(np.exp(self.density(self.objects(2)[row], points)).sum())
                if abs(total - 1) < 2e-3:
                    break
            assert abs(total - 1) < 2e-3, (
                f"q(theta | x) integrates to {total:.5f} over the prior's support; "
                "return the log density of theta in physical units: add log|dz/dtheta| "
                "(space.log_abs_det), and normalise inside the support"
            )

    def test_draws_follow_the_density(self) -> None:
        """Means of draws agree with those of the density, to 5 sigma (false alarm 6e-7 each)."""
        row = self.objects(1, seed=4)
        log_w = self.density(row, self.points)
        weight = np.exp(log_w) / np.exp(log_w).sum()
        theta = self.grid(self.points)[0]
        draws = self.estimator.sample(row, 20_000, 1)
        d = theta.shape[1]
        assert draws.shape == (20_000, 1, d), (
            f"sample returns {draws.shape} for 20000 draws of 1 object; "
            f"return (draws, objects, {d})"
        )
        for k, name in enumerate(self.estimator.space.names):
            for power in (1, 2):
                want = float((weight * theta[:, k] ** power).sum())
                values = draws[:, 0, k] ** power
                # a grid of spacing h resolves a mean to much better than h / 20
                step = float(np.ptp(theta[:, k])) / self.points / 20
                error = 5 * float(values.std()) / np.sqrt(len(values)) + step**power
                assert abs(float(values.mean()) - want) < error, (
                    f"the mean of {name}^{power} over draws is {values.mean():.4f}, "
                    f"over the density {want:.4f}, and they may differ by {error:.2g}; "
                    "sample and log_prob must describe one distribution"
                )

    def test_draws_stay_in_the_support(self) -> None:
        """Every draw lies in the prior's support; the density outside is zero."""
        space, batch = self.estimator.space, self.objects(20)
        draws = self.estimator.sample(batch, 200, 2).reshape(-1, space.dim)
        outside = int((~space.inside(draws)).sum())
        assert outside == 0, (
            f"{outside} of {len(draws)} draws lie outside the prior; "
            "work in unconstrained space (space.to_unconstrained / from_unconstrained), or reject"
        )
        k = space.dim - 1  # bounded in every problem
        beyond = draws[:1].copy()
        beyond[0, k] = space.support[1][k] + 1.0
        try:
            log_q = float(self.estimator.log_prob(beyond, batch[0])[0])
        except DensityUnavailableError:
            return
        assert log_q == -np.inf, (
            f"log_prob at {space.names[k]} = {beyond[0, k]:g}, outside the prior, is {log_q:.3g}; "
            "return -inf there"
        )

    def test_masked_values_are_ignored(self) -> None:
        """Masked values, NaN included, change no bit of the draws."""
        batch = self.objects(8)
        assert batch.mask is not None
        assert batch.x_err is not None
        other = batch.with_(
            x=torch.where(batch.mask, batch.x, 123.0),
            x_err=torch.where(batch.mask, batch.x_err, torch.nan),
        )
        one, two = (self.estimator.sample(b, 5, 1) for b in (batch, other))
        changed = int((one != two).any((0, 2)).sum())
        assert changed == 0, (
            f"draws of {changed} of 8 objects change with masked values; "
            "replace them before anything is computed: torch.where(batch.observed, x, 0)"
        )

    def test_same_seed_same_draws(self) -> None:
        """One seed, one set of draws; its own generator makes an object independent of others."""
        batch = self.objects(5)
        one, two = (self.estimator.sample(batch, 9, 3) for _ in range(2))
        assert np.array_equal(one, two), (
            "sample with one seed gives two sets of draws; "
            "take all random numbers from the argument rng"
        )
        together = self.estimator.sample(batch, 50, [stream(1, k) for k in range(5)])
        alone = self.estimator.sample(batch[3], 50, [stream(1, 3)])
        off, scale = float(np.abs(alone[:, 0] - together[:, 3]).max()), float(together.std())
        assert off <= 1e-2 * scale, (
            f"draws of an object change by {off:.2g} (all draws: sd {scale:.2g}) with the other "
            "objects; with a sequence of generators, take the numbers of row k from generator k"
        )

    def test_moments_are_those_of_the_draws(self) -> None:
        """``gaussian_moments``, where there are any, are the moments of q: 6 sigma."""
        batch = self.objects(2, seed=6)
        try:
            mean, cov = self.estimator.gaussian_moments(batch)
        except DensityUnavailableError as error:
            skip(str(error))
        draws = self.estimator.sample(batch, 20_000, 4)
        fix = "return moments in unconstrained space, or none"
        for row in range(2):
            z = self.estimator.space.to_unconstrained(draws[:, row])
            sd = z.std(0)
            off = np.abs(z.mean(0) - mean[row]) / sd
            assert (off < 6 / np.sqrt(len(z)) + 1e-3).all(), (
                f"gaussian_moments has mean {mean[row]}, draws have {z.mean(0)}; {fix}"
            )
            ratio = np.sqrt(np.diag(cov[row])) / sd
            assert (np.abs(ratio - 1) < 0.1).all(), (
                f"gaussian_moments has sd {np.sqrt(np.diag(cov[row]))}, draws have {sd}; {fix}"
            )

    def test_it_learns(self) -> None:
        """On simulations it never saw, q gives the truth a higher density than the prior does."""
        batch = self.objects(200, seed=7)
        assert batch.theta is not None
        truth = batch.theta.double().numpy()
        try:
            gain = self.estimator.log_prob(truth, batch) - self.estimator.space.log_prob(truth)
        except DensityUnavailableError:
            draws = self.estimator.sample(batch, 100, 5)
            gain = np.abs(truth - truth.mean(0)).mean(1) - np.abs(truth - draws.mean(0)).mean(1)
        error = float(gain.std()) / np.sqrt(len(gain))
        assert float(gain.mean()) > 3 * error, (
            f"log q(truth | x) - log p(truth) is {gain.mean():.2f} +- {error:.2f} on 200 "
            "simulations: it has learned nothing; "
            "check columns and units of theta in the loss, and that x reaches the network"
        )

    def test_stored_estimator_draws_the_same_bits(self) -> None:
        """Saved and loaded: same draws, same prior; no file that could execute anything."""
        estimator, batch = self.estimator, self.objects(3)
        with tempfile.TemporaryDirectory() as folder:
            estimator.save(folder)
            files = sorted(p for p in Path(folder).rglob("*") if p.is_file())
            odd = [p.name for p in files if p.suffix not in _SAFE or p.read_bytes()[:2] in _PICKLE]
            if odd or not files:
                fail(
                    f"save wrote {odd or 'nothing'}; "
                    "write weights.safetensors and config.json: a pickle executes code when read"
                )
            loaded = type(estimator).load(folder)
        same = np.array_equal(loaded.sample(batch, 9, 5), estimator.sample(batch, 9, 5))
        assert same, (
            "a saved and loaded estimator draws other numbers; "
            "store all that matters: weights, standardisation, options, prior"
        )
        assert loaded.space.hash == estimator.space.hash, (
            "the loaded estimator has another prior; "
            "store training.space (to_spec) and read it back"
        )
