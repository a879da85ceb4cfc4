r"""A trained surrogate of a simulator that is itself a simulator.

.. math:: \hat x(\theta) = \bar x + s_x\,f\!\left(\frac{\theta - \bar\theta}{s_\theta}\right)

with *f* a multilayer perceptron trained on the mean squared error of standardised outputs. Its
error is measured on rows it never saw. Outside the box that its training rows span it refuses.

References:
    | Buck et al. 2025, https://arxiv.org/abs/2503.02456 (a 100-40 tanh network)
    | The Road Less Scheduled (Defazio et al., 2024), https://arxiv.org/abs/2405.15682
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, ValidationError
from torch import Tensor, nn

from sbi_core.batch import Batch
from sbi_core.components import Callback, Rng, Simulator, Training, TrainingRecord
from sbi_core.errors import ConfigError, DataFileError, SimulationError, TrainingError
from sbi_core.observations import Observations
from sbi_core.priors import as_float64
from sbi_core.rng import stream
from sbi_core.tensorfile import load_weights, read_json, read_tensors, write_atomic, write_tensors
from sbi_core.train import Trainable, TrainConfig, seeded, splits_of, train

__all__ = ["OUTSIDE", "Emulator", "EmulatorConfig", "EmulatorSimulator"]

F64 = NDArray[np.float64]
OUTSIDE = 100  # failure code of theta outside the training box
_SCHEMA = 1
_ACTIVATIONS: Mapping[str, type[nn.Module]] = {"tanh": nn.Tanh, "silu": nn.SiLU}


class EmulatorConfig(TrainConfig):
    """Options of the emulator: its network, and those of the training loop."""

    hidden: tuple[int, ...] = Field(
        default=(100, 40), min_length=1, description="Widths of the layers."
    )
    activation: Literal["tanh", "silu"] = Field(default="tanh", description="Between the layers.")
    epochs: int = Field(default=30, ge=1, description="Epochs; with max_seconds, at most so many.")
    batch_size: int = Field(default=1024, ge=1, description="Rows per step.")
    optimizer: Literal["adam-onecycle", "schedulefree"] = Field(
        default="schedulefree", description="Schedule-free AdamW, or Adam with one-cycle schedule."
    )
    learning_rate: float | None = Field(default=1e-3, gt=0, description="(Peak) learning rate.")


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
        sizes = (dim, *config.hidden)
        layers: list[nn.Module] = []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), _ACTIVATIONS[config.activation]()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], outputs))
        for name, size in (("theta", dim), ("x", outputs)):
            self.register_buffer(f"{name}_mean", torch.zeros(size, dtype=torch.float64))
            self.register_buffer(f"{name}_scale", torch.ones(size, dtype=torch.float64))
        self.register_buffer("low", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("high", torch.zeros(dim, dtype=torch.float64))

    def set_scales(self, theta: Tensor, x: Tensor) -> None:
        """Take means, scales and the box from training rows."""
        for name, value in (("theta", theta.double()), ("x", x.double())):
            scale = value.std(0, correction=0)
            getattr(self, f"{name}_mean").copy_(value.mean(0))
            getattr(self, f"{name}_scale").copy_(torch.where(scale > 0, scale, 1.0))
        self.low.copy_(theta.double().amin(0))
        self.high.copy_(theta.double().amax(0))

    def forward(self, theta: Tensor) -> Tensor:
        """Return x (n, k); differentiable; in the precision of theta outside the network."""
        y: Tensor = self.layers(((theta - self.theta_mean) / self.theta_scale).float())
        return self.x_mean + self.x_scale * y

    def loss(self, targets: Tensor, batch: Batch) -> Tensor:
        """Return the mean squared error of standardised outputs, (n,)."""
        assert batch.theta is not None
        theta = ((batch.theta - self.theta_mean) / self.theta_scale).float()
        error: Tensor = (self.layers(theta) - targets) ** 2
        return error.mean(1)


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
    record
        What came out of training; ``test_nll`` is the mean squared error of standardised outputs.
    """

    def __init__(self, config: EmulatorConfig | None = None) -> None:
        self.config = config or EmulatorConfig()
        self.errors: dict[str, dict[str, float]] = {}
        self.record: TrainingRecord | None = None
        self.shape: tuple[int, ...] = ()
        self.names: tuple[str, ...] = ()
        self._network: _Surrogate | None = None

    def fit(
        self,
        simulator: Simulator,
        batch: Batch,
        *,
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
            Noise-free simulations; failed rows are left out.
        seed, directory, callbacks, device
            As in :class:`~sbi_core.components.Training`.

        Raises
        ------
        TrainingError
            If no simulation is valid, one is not finite, or they carry masks or context, which
            are not functions of the parameters.
        """
        batch = batch.succeeded
        theta, x = _checked(batch)
        training = Training(
            batch=Batch(x=batch.x, theta=batch.theta, split_key=batch.split_key),
            space=simulator.parameters,
            columns=tuple(range(simulator.parameters.dim)),
            observe=lambda b, _: b,
            config=self.config,
            seed=seed,
            directory=directory,
            device=device,
        )
        splits = splits_of(training)
        with seeded(stream(seed, "emulate", "weights")):
            network = _Surrogate(theta.shape[1], x.shape[1], self.config)
        network.set_scales(theta[splits.train], x[splits.train])
        targets = (x.double() - network.x_mean) / network.x_scale
        self.record, _ = train(network, training, targets, callbacks)
        self._network, self.shape = network.cpu(), tuple(batch.x.shape[1:])
        named = tuple(o.name for o in simulator.observables)
        plain = tuple(f"x{k + 1}" for k in range(x.shape[1]))
        self.names = named if len(named) == x.shape[1] else plain
        self.errors = self._measure(theta[splits.test], x[splits.test])
        return self.record

    def _measure(self, theta: Tensor, x: Tensor) -> dict[str, dict[str, float]]:
        wrong = np.abs(self.predict(theta).reshape(len(x), -1) - as_float64(x))
        levels = {"median": 50, "p95": 95, "p99": 99}
        values = {name: np.percentile(wrong, level, axis=0) for name, level in levels.items()}
        return {k: dict(zip(self.names, v.tolist(), strict=True)) for k, v in values.items()}

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

    @torch.no_grad()
    def predict(self, theta: ArrayLike | Tensor) -> F64:
        """Return data (n, ...) of theta (n, d), also outside the box."""
        x = self.network(torch.as_tensor(as_float64(theta)))
        return as_float64(x).reshape(-1, *self.shape)

    def save(self, directory: str | Path) -> None:
        """Write ``weights.safetensors`` and ``config.json``."""
        directory = Path(directory)
        content = {
            "schema": _SCHEMA,
            "kind": "emulator",
            "options": self.config.model_dump(mode="json"),
            "dim": self.network.theta_mean.numel(),
            "shape": list(self.shape),
            "names": list(self.names),
            "errors": self.errors,
            "training": None if self.record is None else asdict(self.record),
        }
        write_tensors(directory / "weights.safetensors", self.network.state_dict())
        write_atomic(directory / "config.json", json.dumps(content, indent=1).encode())

    @classmethod
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
            if spec["training"] is not None:
                history = tuple(spec["training"]["history"])
                emulator.record = TrainingRecord(**{**spec["training"], "history": history})
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            msg = f"{path} is incomplete or was altered ({type(error).__name__}: {error})"
            raise DataFileError(msg) from None
        weights = Path(directory) / "weights.safetensors"
        load_weights(network, read_tensors(weights)[0], weights)
        emulator._network = network.eval()
        return emulator

    def __repr__(self) -> str:
        sizes = "-".join(str(h) for h in self.config.hidden)
        state = "not trained" if self._network is None else f"{len(self.names)} outputs"
        return f"Emulator({sizes} {self.config.activation}; {state})"


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
    """A simulator whose ``simulate`` is an emulator; all else is the original's.

    Parameters
    ----------
    simulator
        The original: parameters, observables, noise.
    emulator
        Trained on it.
    """

    def __init__(self, simulator: Simulator, emulator: Emulator) -> None:
        self.original, self.emulator = simulator, emulator
        self.name, self.version = f"{simulator.name}-emulator", simulator.version
        self.parameters, self.observables = simulator.parameters, simulator.observables
        self.context_names, self.citations = simulator.context_names, simulator.citations
        self.default_error = simulator.default_error
        outside = {OUTSIDE: "outside the emulator's training box"}
        self.failures = {**simulator.failures, **outside}
        if emulator.network.theta_mean.numel() != self.parameters.dim:
            d = emulator.network.theta_mean.numel()
            msg = f"the emulator has {d} parameters, simulator '{simulator.name}' has others"
            raise ConfigError(msg)

    def simulate(self, theta: ArrayLike | Tensor, rng: Rng) -> Batch:
        """Return emulated data for theta (n, d); rows outside the box fail with code 100."""
        rows = as_float64(theta)
        if rows.ndim != 2 or rows.shape[1] != self.parameters.dim:
            msg = f"theta must have shape (n, {self.parameters.dim}), got {rows.shape}"
            raise SimulationError(msg)
        ok = torch.as_tensor(self.emulator.inside(rows))
        x = torch.as_tensor(self.emulator.predict(rows)).float()
        x[~ok] = torch.nan
        failure = torch.where(ok, 0, OUTSIDE)
        return Batch(x=x, theta=torch.as_tensor(rows).float(), ok=ok, failure=failure)

    def observe(self, batch: Batch, rng: Rng) -> Batch:
        """Return the batch with the original simulator's noise, errors and masks."""
        return self.original.observe(batch, rng)

    def read_observations(self, path: str | Path) -> Observations:
        """Read objects as the original simulator does."""
        return self.original.read_observations(path)

    @property
    def identity(self) -> dict[str, Any]:
        """Identity of the original and the emulator's weights."""
        total = hashlib.sha256()
        for name, value in sorted(self.emulator.network.state_dict().items()):
            total.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return {**self.original.identity, "emulator": total.hexdigest()}
