r"""A trained surrogate of a simulator that is itself a simulator.

.. math:: \hat x(\theta) = \bar x + s_x\,f\!\left(\frac{\theta - \bar\theta}{s_\theta}\right)

with *f* a multilayer perceptron trained on the mean squared (or Huber) error of standardised
outputs. Its error is measured on rows it never saw. It refuses where it would extrapolate: outside
the box that its training rows span, and in holes of that box where the simulator fails, which a
second network learns,

.. math:: P(\mathrm{ok}\,|\,\theta) = \mathrm{sigmoid}\,g\!\left(
          \frac{\theta - \bar\theta}{s_\theta}\right).

References:
    | Buck et al. 2025, https://arxiv.org/abs/2503.02456 (a 100-40 tanh network)
    | The Road Less Scheduled (Defazio et al., 2024), https://arxiv.org/abs/2405.15682
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, ValidationError
from torch import Tensor, nn

from sbi_core.components import Callback, Rng, Simulator, Training, TrainingRecord
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.data.writing import write_atomic
from sbi_core.errors import ConfigError, DataFileError, SimulationError, TrainingError
from sbi_core.files.tensors import load_weights, read_json, read_tensors, write_tensors
from sbi_core.priors.space import ParameterSpace, as_float64
from sbi_core.rng import as_generator, seeded, stream, torch_defaults, torch_generator
from sbi_core.training.config import TrainConfig
from sbi_core.training.loop import Trainable, train_network
from sbi_core.training.networks import mlp
from sbi_core.training.splits import splits_of

__all__ = ["INVALID", "OUTSIDE", "Emulator", "EmulatorConfig", "EmulatorSimulator", "draw_box"]

F64 = NDArray[np.float64]
OUTSIDE = 100  # failure code of theta outside the training box
INVALID = 101  # failure code of theta where the simulator would fail
_SCHEMA = 1
_HUBER_DELTA = 0.05  # standard deviations: beyond it the error counts linearly
_FEWEST_FAILURES = 50  # fewer failed rows do not show where the holes are
_VALIDITY_HIDDEN = (64, 64)
_VALIDITY_EPOCHS = 10
_ACTIVATIONS: Mapping[str, type[nn.Module]] = {"tanh": nn.Tanh, "silu": nn.SiLU}


class EmulatorConfig(TrainConfig):
    """Options of the emulator: its network, and those of the training loop."""

    hidden: tuple[int, ...] = Field(
        default=(100, 40), min_length=1, description="Widths of the layers."
    )
    activation: Literal["tanh", "silu"] = Field(default="tanh", description="Between the layers.")
    batch_size: int = Field(default=1024, ge=1, description="Rows per step.")
    optimizer: Literal["adam-onecycle", "schedulefree"] = Field(
        default="schedulefree", description="Schedule-free AdamW, or Adam with one-cycle schedule."
    )
    learning_rate: float | None = Field(default=1e-3, gt=0, description="(Peak) learning rate.")
    loss: Literal["squared", "huber"] = Field(
        default="squared",
        description="huber: errors beyond 0.05 standard deviations count linearly.",
    )
    box_rows: int = Field(
        default=0,
        ge=0,
        description="Further simulations, uniform in a box around the prior, to train on.",
    )
    box_sigmas: float = Field(
        default=5.0, gt=0, description="Half width of that box, standard deviations of the prior."
    )
    validity: bool = Field(
        default=True, description="Learn where the simulator fails (needs 50 failed simulations)."
    )


class _Surrogate(Trainable):
    """theta (n, d) to flattened x (n, k), with the scales of both."""

    theta_mean: Tensor
    theta_scale: Tensor
    x_mean: Tensor
    x_scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, dim: int, outputs: int, config: EmulatorConfig) -> None:
        super().__init__()
        self.delta = _HUBER_DELTA if config.loss == "huber" else None
        activation = _ACTIVATIONS[config.activation]
        self.layers = mlp(dim, config.hidden, outputs, activation=activation)
        for name, size in (("theta", dim), ("x", outputs)):
            self.register_buffer(f"{name}_mean", torch.zeros(size, dtype=torch.float64))
            self.register_buffer(f"{name}_scale", torch.ones(size, dtype=torch.float64))
        self.register_buffer("low", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("high", torch.zeros(dim, dtype=torch.float64))

    def set_scales(self, theta: Tensor, x: Tensor) -> None:
        """Take means, scales and the box from training rows; x may be a part of them."""
        _set_scale(self.theta_mean, self.theta_scale, theta)
        _set_scale(self.x_mean, self.x_scale, x)
        self.low.copy_(theta.double().amin(0))
        self.high.copy_(theta.double().amax(0))

    def forward(self, theta: Tensor) -> Tensor:
        """Return x (n, k); differentiable; in the precision of theta outside the network."""
        y: Tensor = self.layers(((theta - self.theta_mean) / self.theta_scale).float())
        return self.x_mean + self.x_scale * y

    def loss(self, targets: Tensor, batch: Batch) -> Tensor:
        """Return the mean squared (or Huber) error of standardised outputs, (n,)."""
        assert batch.theta is not None
        theta = ((batch.theta - self.theta_mean) / self.theta_scale).float()
        wrong: Tensor = self.layers(theta) - targets
        if self.delta is None:
            return (wrong**2).mean(1)
        size = wrong.abs()
        near, far = size**2, self.delta * (2 * size - self.delta)
        return torch.where(size < self.delta, near, far).mean(1)


class _Validity(Trainable):
    """theta (n, d) to the log odds that the simulator succeeds (n,)."""

    theta_mean: Tensor
    theta_scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layers = mlp(dim, _VALIDITY_HIDDEN, 1)
        self.register_buffer("theta_mean", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("theta_scale", torch.ones(dim, dtype=torch.float64))

    def forward(self, theta: Tensor) -> Tensor:
        """Return log odds (n,); differentiable."""
        z = ((theta - self.theta_mean) / self.theta_scale).float()
        odds: Tensor = self.layers(z)[:, 0]
        return odds

    def loss(self, targets: Tensor, batch: Batch) -> Tensor:
        """Return the cross entropy, (n,), of targets (n, 1): 1 where the simulator succeeded."""
        assert batch.theta is not None
        return nn.functional.binary_cross_entropy_with_logits(
            self(batch.theta), targets[:, 0], reduction="none"
        )


def _set_scale(mean: Tensor, scale: Tensor, values: Tensor) -> None:
    """Set mean and scale to those of values (n, k); 1 where they are constant."""
    sd = values.double().std(0, correction=0)
    mean.copy_(values.double().mean(0))
    scale.copy_(torch.where(sd > 0, sd, 1.0))


def draw_box(space: ParameterSpace, n: int, rng: Rng, sigmas: float = 5.0) -> F64:
    """Return n rows of theta (n, d), uniform in the prior mean +- ``sigmas`` standard deviations.

    The box ends where the support of the prior ends.
    """
    mean, sd = space.moments()
    low, high = space.support
    low, high = np.maximum(low, mean - sigmas * sd), np.minimum(high, mean + sigmas * sd)
    return np.asarray(low + (high - low) * as_generator(rng).random((n, space.dim)))


class Emulator:
    """A multilayer perceptron from parameters to noise-free data.

    Parameters
    ----------
    config
        Options; defaults (the published network) when left out.

    Attributes
    ----------
    errors
        Absolute errors on test rows: ``{"median" | "p95" | "p99": {output: value}}``, units of
        the data.
    wide_errors
        The same for test rows of the wider proposal; empty when there was none.
    rms
        Root mean square error on test rows, ``{output: value}``.
    holes
        About the validity network on its test rows: ``failed``, how many failed; ``found``, the
        share of them it predicts; ``false_alarms``, the share of good rows it refuses. Empty
        without one.
    record
        What came out of training; ``test_nll`` is the mean squared error of standardised outputs.
    """

    def __init__(self, config: EmulatorConfig | None = None) -> None:
        self.config = config or EmulatorConfig()
        self.errors: dict[str, dict[str, float]] = {}
        self.wide_errors: dict[str, dict[str, float]] = {}
        self.rms: dict[str, float] = {}
        self.holes: dict[str, float] = {}
        self.record: TrainingRecord | None = None
        self.shape: tuple[int, ...] = ()
        self.names: tuple[str, ...] = ()
        self._network: _Surrogate | None = None
        self._validity: _Validity | None = None

    @torch_defaults()
    def fit(
        self,
        simulator: Simulator,
        batch: Batch,
        *,
        wide: Batch | None = None,
        seed: int = 0,
        directory: Path | None = None,
        callbacks: Sequence[Callback] = (),
        device: str = "cpu",
    ) -> TrainingRecord:
        """Train on simulations and measure the error on rows that took no part.

        Parameters
        ----------
        simulator
            Where the simulations come from.
        batch
            Noise-free simulations from the prior; failed rows only show where the holes are.
        wide
            Further ones from a wider proposal (:func:`draw_box`), with errors of their own.
        seed, directory, callbacks, device
            As in :class:`~sbi_core.components.Training`.

        Raises
        ------
        TrainingError
            If no simulation is valid, one is not finite, or they carry masks or context, which
            are not functions of the parameters.
        """
        everything = _joined(batch, wide)
        good = everything.succeeded
        theta, x = _checked(good)
        training = Training(
            batch=Batch(x=good.x, theta=good.theta, split_key=good.split_key),
            space=simulator.parameters,
            columns=tuple(range(simulator.parameters.dim)),
            observe=lambda b, _: b,
            config=self.config,
            seed=seed,
            directory=directory,
            device=device,
        )
        splits = splits_of(training)
        n_prior = int(batch.ok.sum())
        from_prior = splits.train[splits.train < n_prior]
        with seeded(stream(seed, "emulate", "weights")):
            network = _Surrogate(theta.shape[1], x.shape[1], self.config)
        network.set_scales(theta[splits.train], x[from_prior if len(from_prior) else splits.train])
        targets = (x.double() - network.x_mean) / network.x_scale
        self.record, _ = train_network(network, training, targets, callbacks)
        self._network, self.shape = network.cpu(), tuple(batch.x.shape[1:])
        named = tuple(o.name for o in simulator.observables)
        plain = tuple(f"x{k + 1}" for k in range(x.shape[1]))
        self.names = named if len(named) == x.shape[1] else plain
        near = splits.test[splits.test < n_prior]
        far = splits.test[splits.test >= n_prior]
        near = near if len(near) else splits.test
        self.errors, self.rms = self._measure(theta[near], x[near])
        self.wide_errors = self._measure(theta[far], x[far])[0] if len(far) else {}
        self._fit_validity(everything, training)
        return self.record

    def _measure(
        self, theta: Tensor, x: Tensor
    ) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        wrong = np.abs(self.predict(theta).reshape(len(x), -1) - as_float64(x))
        levels = {"median": 50, "p95": 95, "p99": 99}
        values = {name: np.percentile(wrong, level, axis=0) for name, level in levels.items()}
        errors = {k: dict(zip(self.names, v.tolist(), strict=True)) for k, v in values.items()}
        rms = np.sqrt((wrong**2).mean(0))
        return errors, dict(zip(self.names, rms.tolist(), strict=True))

    def _fit_validity(self, batch: Batch, like: Training) -> None:
        """Learn where the simulator fails, when enough rows did."""
        self._validity, self.holes = None, {}
        theta, ok = batch.theta, batch.ok
        assert theta is not None
        failed = int((~ok).sum())
        if not self.config.validity or failed < _FEWEST_FAILURES:
            return
        config = TrainConfig(
            epochs=_VALIDITY_EPOCHS, batch_size=512, threads=self.config.threads, learning_rate=1e-2
        )
        training = replace(
            like,
            batch=Batch(x=torch.zeros(len(ok), 1), theta=theta, split_key=batch.split_key),
            config=config,
            directory=None,  # seconds: not worth a checkpoint
        )
        with seeded(stream(like.seed, "emulate", "validity")):
            network = _Validity(theta.shape[1])
        _set_scale(network.theta_mean, network.theta_scale, theta)
        _, splits = train_network(network, training, ok[:, None].float())
        self._validity = network.cpu()
        test = torch.as_tensor(splits.test)
        refused = torch.as_tensor(self.valid_probability(theta[test]) < 0.5)
        bad = ~ok[test]
        self.holes = {
            "failed": int(bad.sum()),
            "found": float(refused[bad].double().mean()) if bool(bad.any()) else 1.0,
            "false_alarms": float(refused[~bad].double().mean()),
        }

    @property
    def network(self) -> _Surrogate:
        """The network: a differentiable map from theta (n, d) to flattened x (n, k)."""
        if self._network is None:
            msg = "this emulator is not trained yet: call fit, or load a trained one"
            raise ConfigError(msg)
        return self._network

    @property
    def box(self) -> tuple[F64, F64]:
        """Lower and upper ends of the training parameters, each (d,)."""
        return as_float64(self.network.low), as_float64(self.network.high)

    def inside(self, theta: ArrayLike | Tensor) -> NDArray[np.bool_]:
        """Return which rows of theta (n, d) lie in the training box, (n,)."""
        low, high = self.box
        rows = as_float64(theta)
        return np.asarray(((rows >= low) & (rows <= high)).all(1))

    @property
    def validity(self) -> nn.Module | None:
        """The network of validity: theta (n, d) to log odds (n,), differentiable; or None."""
        return self._validity

    @torch_defaults()
    @torch.no_grad()
    def valid_probability(self, theta: ArrayLike | Tensor) -> F64:
        """Return the probability that the simulator succeeds, (n,); 1 where it never failed."""
        rows = torch.as_tensor(as_float64(theta))
        if self._validity is None:
            return np.ones(len(rows))
        return as_float64(torch.sigmoid(self._validity(rows)))

    @torch_defaults()
    @torch.no_grad()
    def predict(self, theta: ArrayLike | Tensor) -> F64:
        """Return data (n, ...) of theta (n, d), also outside the box."""
        x = self.network(torch.as_tensor(as_float64(theta)))
        return as_float64(x).reshape(-1, *self.shape)

    def save(self, directory: str | Path) -> None:
        """Write ``weights.safetensors`` and ``config.json``, and ``validity.safetensors``."""
        directory = Path(directory)
        content = {
            "schema": _SCHEMA,
            "kind": "emulator",
            "options": self.config.model_dump(mode="json"),
            "dim": self.network.theta_mean.numel(),
            "shape": list(self.shape),
            "names": list(self.names),
            "errors": self.errors,
            "wide_errors": self.wide_errors,
            "rms": self.rms,
            "holes": self.holes,
            "training": None if self.record is None else asdict(self.record),
        }
        write_tensors(directory / "weights.safetensors", self.network.state_dict())
        if self._validity is not None:
            write_tensors(directory / "validity.safetensors", self._validity.state_dict())
        write_atomic(directory / "config.json", json.dumps(content, indent=1).encode())

    @classmethod
    @torch_defaults()
    def load(cls, directory: str | Path) -> Emulator:
        """Read what :meth:`save` wrote; executes nothing that is stored there.

        Raises
        ------
        DataFileError
            If a file is missing, damaged, or belongs to something else.
        """
        path = Path(directory) / "config.json"
        spec = read_json(path)
        if spec.get("kind") != "emulator" or spec.get("schema") != _SCHEMA:
            msg = f"{path} does not describe an emulator (schema {_SCHEMA})"
            raise DataFileError(msg)
        try:
            emulator = cls(EmulatorConfig.model_validate(spec["options"]))
            emulator.shape, emulator.names = tuple(spec["shape"]), tuple(spec["names"])
            network = _Surrogate(int(spec["dim"]), len(emulator.names), emulator.config)
            emulator.errors = spec["errors"]
            emulator.wide_errors = spec.get("wide_errors", {})
            emulator.rms, emulator.holes = spec.get("rms", {}), spec.get("holes", {})
            validity = _Validity(int(spec["dim"])) if emulator.holes else None
            if spec["training"] is not None:
                history = tuple(spec["training"]["history"])
                emulator.record = TrainingRecord(**{**spec["training"], "history": history})
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            msg = f"{path} is incomplete or was altered ({type(error).__name__}: {error})"
            raise DataFileError(msg) from None
        weights = Path(directory) / "weights.safetensors"
        load_weights(network, read_tensors(weights)[0], weights)
        emulator._network = network.eval()
        if validity is not None:
            holes = Path(directory) / "validity.safetensors"
            load_weights(validity, read_tensors(holes)[0], holes)
            emulator._validity = validity.eval()
        return emulator

    def __repr__(self) -> str:
        sizes = "-".join(str(h) for h in self.config.hidden)
        state = "not trained" if self._network is None else f"{len(self.names)} outputs"
        return f"Emulator({sizes} {self.config.activation}; {state})"


def _joined(batch: Batch, wide: Batch | None) -> Batch:
    """Return theta, x, ok and split keys of both; rows of the wide one come last."""
    if wide is None:
        return batch
    n = len(batch)
    keys = torch.arange(n) if batch.split_key is None else batch.split_key
    later = int(keys.max()) + 1 + torch.arange(len(wide)) if n else torch.arange(len(wide))
    return Batch.cat([batch.with_(split_key=keys), wide.with_(split_key=later)])


def _checked(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return theta (n, d) and flattened x (n, k) of simulations an emulator can learn."""
    if len(batch) == 0:
        msg = "there is no valid simulation to train the emulator on: all of them failed"
        raise TrainingError(msg)
    if batch.theta is None or batch.theta.ndim != 2:
        msg = "the emulator needs simulations with theta of shape (n, d)"
        raise TrainingError(msg)
    if batch.mask is not None or batch.context is not None:
        msg = "an emulator cannot replace a simulator whose noise-free data carry mask or context"
        raise TrainingError(msg)
    x = batch.x.reshape(len(batch), -1)
    for name, value in (("theta", batch.theta), ("x", x)):
        bad = torch.nonzero(~torch.isfinite(value).all(1))
        if len(bad):
            msg = f"{name} is not finite in simulation {int(bad[0, 0])} ({len(bad)} such rows)"
            raise TrainingError(msg)
    if bool((x == x[0]).all()):
        msg = "all simulations have the same outputs: there is nothing to learn from"
        raise TrainingError(msg)
    return batch.theta, x


class EmulatorSimulator(Simulator):
    r"""A simulator whose ``simulate`` is an emulator; all else is the original's.

    Parameters
    ----------
    simulator
        The original: parameters, observables, noise.
    emulator
        Trained on it.
    carry_error
        Add the emulator's rms error per output to the noise: what is observed then scatters by
        :math:`\sqrt{\sigma^2 + \mathrm{rms}^2}` around emulated data, while ``x_err`` stays
        the error that the data claim. An estimator trained that way allows for the emulator.
    """

    def __init__(
        self, simulator: Simulator, emulator: Emulator, *, carry_error: bool = False
    ) -> None:
        self.original, self.emulator, self.carry_error = simulator, emulator, carry_error
        self.name, self.version = f"{simulator.name}-emulator", simulator.version
        self.parameters, self.observables = simulator.parameters, simulator.observables
        self.context_names, self.citations = simulator.context_names, simulator.citations
        self.default_error = simulator.default_error
        self.failures = {
            **simulator.failures,
            OUTSIDE: "outside the emulator's training box",
            INVALID: "where the simulator would fail, by the emulator's validity network",
        }
        if emulator.network.theta_mean.numel() != self.parameters.dim:
            d = emulator.network.theta_mean.numel()
            msg = f"the emulator has {d} parameters, simulator '{simulator.name}' has others"
            raise ConfigError(msg)

    def simulate(self, theta: ArrayLike | Tensor, rng: Rng) -> Batch:
        """Return emulated data for theta (n, d).

        Rows outside the box fail with code 100, those where the simulator would fail with 101.
        """
        rows = as_float64(theta)
        if rows.ndim != 2 or rows.shape[1] != self.parameters.dim:
            msg = f"theta must have shape (n, {self.parameters.dim}), got {rows.shape}"
            raise SimulationError(msg)
        inside = torch.as_tensor(self.emulator.inside(rows))
        valid = torch.as_tensor(self.emulator.valid_probability(rows) >= 0.5)
        ok = inside & valid
        x = torch.as_tensor(self.emulator.predict(rows)).float()
        x[~ok] = torch.nan
        failure = torch.where(inside, torch.where(valid, 0, INVALID), OUTSIDE)
        return Batch(x=x, theta=torch.as_tensor(rows).float(), ok=ok, failure=failure)

    def observe(self, batch: Batch, rng: Rng) -> Batch:
        """Return the batch with the original simulator's noise, errors and masks."""
        gen = as_generator(rng) if self.carry_error else rng
        return self.original.observe(self._scattered(batch, gen), gen)

    def observe_like(self, batch: Batch, like: Batch, rng: Rng) -> Batch:
        """Return the batch observed with errors and missing values as in ``like``."""
        gen = as_generator(rng) if self.carry_error else rng
        return self.original.observe_like(self._scattered(batch, gen), like, gen)

    def _scattered(self, batch: Batch, rng: Rng) -> Batch:
        """Add the emulator's own error to noise-free data."""
        if not self.carry_error:
            return batch
        noise = torch.randn(batch.x.shape, generator=torch_generator(rng)).to(batch.x)
        return batch.with_(x=batch.x + self._rms(batch.x) * noise)

    def _rms(self, like: Tensor) -> Tensor:
        """Return the emulator's rms error, shaped like one object's data."""
        rms = torch.tensor([self.emulator.rms[name] for name in self.emulator.names])
        return rms.reshape(self.emulator.shape).to(like)

    def log_likelihood(self, simulated: Batch, observed: Batch) -> F64:
        """Return the original simulator's log likelihood, with the emulator's error if carried."""
        if self.carry_error and observed.x_err is not None:
            rms = self._rms(observed.x_err)
            observed = observed.with_(x_err=(observed.x_err**2 + rms**2).sqrt())
        return self.original.log_likelihood(simulated, observed)

    def observations_of(self, table: Any, source: str) -> Observations:
        """Return the objects of a table as the original simulator does."""
        return self.original.observations_of(table, source)

    def read_observations(self, path: str | Path) -> Observations:
        """Return the objects of a file as the original simulator does."""
        return self.original.read_observations(path)

    @property
    def identity(self) -> dict[str, Any]:
        """Identity of the original and the emulator's weights."""
        total = hashlib.sha256()
        for network in (self.emulator.network, self.emulator.validity):
            weights = {} if network is None else network.state_dict()
            for name, value in sorted(weights.items()):
                total.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return {**self.original.identity, "emulator": total.hexdigest()}
