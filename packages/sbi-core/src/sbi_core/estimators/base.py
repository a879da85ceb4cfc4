r"""What the built-in estimators share: a head q(z | h) in the unconstrained space of the proposal.

.. math:: \log q(\theta\,|\,x) = \log q(z\,|\,x) + \log p(\theta) - \log N(z; 0, I)

so that no draw leaves the support and the density is normalised inside it. The network works in
float32, the map between z and theta in float64.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ValidationError
from torch import Tensor

from sbi_core.components import (
    Callback,
    Embedding,
    Estimator,
    InputShape,
    Rng,
    Training,
    TrainingRecord,
)
from sbi_core.data.alignment import align_weights, aligned
from sbi_core.data.batch import Batch
from sbi_core.errors import (
    ConfigError,
    DataFileError,
    DensityUnavailableError,
    ObservationError,
    TrainingError,
)
from sbi_core.files.tensors import (
    load_weights,
    read_json,
    read_tensors,
    write_atomic,
    write_tensors,
)
from sbi_core.hookspecs import HOOK_API
from sbi_core.priors.space import ParameterSpace, as_float64
from sbi_core.registry import Registry
from sbi_core.rng import as_generator, seeded, stream, torch_defaults
from sbi_core.training.loop import observed_rows, resident, splits_of, train
from sbi_core.training.networks import ConditionalNetwork, Head, Standardizer, pooling_of
from sbi_core.training.splits import Splits
from sbi_core.validation import checked_device

__all__ = ["FlowEstimator", "snap_to_support", "versions"]

F64 = NDArray[np.float64]
_LOG = logging.getLogger(__name__)
_TRIES = 100  # to replace draws that no number can hold
_ROWS_PER_CALL = 16_384  # objects whose features are computed in one call
_MEASURED_NLL = 256  # test rows of estimators whose loss is not -log q
_STANDARDIZE_ROWS = 100_000  # rows of the training split that set means and scales
_STANDARDIZE_NUMBERS = 60_000_000  # of their data: images and spectra need fewer rows
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_SCHEMA = 1


class FlowEstimator(Estimator):
    """A conditional density made of a standardizer, an embedding and a head.

    Subclasses give ``name``, ``config_type`` and :meth:`build_head`. The network describes the
    unconstrained coordinates of theta; those that describe something else override
    :meth:`make_head`, :meth:`encode`, :meth:`decode`, :meth:`log_volume` and :meth:`inside`.

    Parameters
    ----------
    config
        Options; defaults when left out.

    Attributes
    ----------
    record
        What came out of training; None before.
    plugin
        Identity of the plugins involved, written to ``config.json`` as it is.
    renamed
        First parts of the names of stored tensors that changed: old name, new name.
    """

    name: str = ""
    config_type: type[BaseModel] = BaseModel
    renamed: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config: BaseModel | None = None) -> None:
        self.config = config or self.config_type()
        self.record: TrainingRecord | None = None
        self.plugin: dict[str, Any] = {}
        self._network: ConditionalNetwork | None = None
        self._embedding: dict[str, Any] = {}

    def build_head(self, features: int, dim: int) -> Head:
        """Return a fresh density of ``dim`` numbers given ``features`` numbers."""
        raise NotImplementedError

    # -- theta and the numbers the network describes -------------------------------

    def make_head(self, features: int, space: ParameterSpace) -> Head:
        """Return a fresh density of the parameters given ``features`` numbers.

        Raises
        ------
        ConfigError
            If the estimator cannot describe one of the parameters.
        """
        discrete = [p.name for p in space.parameters if not p.prior.continuous]
        if discrete:
            other = "'ordinal'" if len(discrete) == len(space.parameters) else "'mixed'"
            msg = (
                f"parameter '{discrete[0]}' is discrete and has no unconstrained coordinate: "
                f"estimator '{self.name}' is for continuous parameters, use {other}"
            )
            raise ConfigError(msg)
        if space.z_dim == 0:
            msg = f"nothing to infer: {list(space.names)} have no unconstrained coordinate"
            raise ConfigError(msg)
        return self.build_head(features, space.z_dim)

    def encode(self, theta: F64, space: ParameterSpace) -> F64:
        """Return the numbers (n, k) the network describes, of theta (n, d) in the support."""
        return space.to_unconstrained(theta)

    def decode(self, values: F64, space: ParameterSpace) -> F64:
        """Return theta (..., d) of what :meth:`encode` returns."""
        return space.from_unconstrained(values)

    def log_volume(self, theta: F64, values: F64, space: ParameterSpace) -> F64:
        """Return log |d values / d theta|, (n,)."""
        return np.asarray(space.log_prob(theta) - _log_normal(values))

    def inside(self, theta: F64, space: ParameterSpace) -> NDArray[np.bool_]:
        """Return which rows of theta (n, d) may have a density, (n,)."""
        return space.inside(theta)

    # -- training ------------------------------------------------------------------

    @torch_defaults()
    def fit(
        self, training: Training, embedding: Embedding, callbacks: Sequence[Callback] = ()
    ) -> TrainingRecord:
        """Train on simulations with fresh noise; see :func:`sbi_core.training.loop.train`.

        Raises
        ------
        TrainingError
            If there is nothing to learn from (no valid simulation, NaN among the parameters,
            constant outputs), a simulation lies outside the prior, or the loss is not finite.
        ConfigError
            If the estimator cannot describe a parameter, or the device is not there.
        """
        checked_device(training.device)
        training = resident(replace(training, batch=training.batch.succeeded))
        space = training.space
        _check_theta(training, lambda theta: self.inside(theta, space))
        observed = _observed_sample(training)
        rng = stream(training.seed, "train", "weights")
        embedding = Embedding.of(embedding)
        network = self._build(InputShape.of(observed), embedding, space, rng)
        network.standardizer.fit(observed)
        del observed
        training = self.prepare(network, training)

        def targets(batch: Batch) -> Tensor:
            return self.targets(batch, training)

        def log_det(batch: Batch) -> Tensor:
            return self.log_det(batch, training)

        record, splits = train(network, training, targets, callbacks, log_det=log_det)
        self._network, self.space, self._embedding = network, space, _embedding_spec(embedding)
        if not network.head.loss_is_nll:
            record = replace(record, test_nll=self._measured_nll(training, splits))
        self.record = record
        return record

    def prepare(self, network: ConditionalNetwork, training: Training) -> Training:
        """Start the network from something better than random weights.

        Called once by :meth:`fit`, after the standardizer was fitted and before the training loop;
        what it does must follow from ``training.seed``. Weights that no longer require gradients
        stay as they are. Returns the training to go on with. Default: nothing.
        """
        return training

    def targets(self, batch: Batch, training: Training) -> Tensor:
        """Return what the head describes, (n, k): here :meth:`encode` of the inferred columns.

        Estimators of set-valued parameters make it from ``batch.theta_set``.
        """
        return torch.as_tensor(self.encode(_theta_of(batch, training), training.space))

    def log_det(self, batch: Batch, training: Training) -> Tensor:
        """Return the logarithm of the Jacobian determinant of the targets, (n,).

        It turns the loss into a density of theta.
        """
        theta, space = _theta_of(batch, training), training.space
        return torch.as_tensor(self.log_volume(theta, self.encode(theta, space), space))

    def _measured_nll(self, training: Training, splits: Splits) -> float:
        """Return the mean of -log q over some test rows; NaN where log q is not available."""
        batch = observed_rows(training, splits.test[:_MEASURED_NLL], "test")
        try:
            return float(-self.log_prob(_theta_of(batch, training), batch).mean())
        except DensityUnavailableError:
            return math.nan

    def _build(
        self, shape: InputShape, embedding: Embedding, space: ParameterSpace, rng: Rng
    ) -> ConditionalNetwork:
        with seeded(as_generator(rng)):
            module = embedding.build(shape)
            features: Any = module.out_features
            head = self.make_head(int(features), space)
        return ConditionalNetwork(Standardizer(shape, pooling_of(shape, embedding)), module, head)

    # -- density and draws ---------------------------------------------------------

    @property
    def network(self) -> ConditionalNetwork:
        """The trained network.

        Raises
        ------
        ConfigError
            Before ``fit`` or ``load``.
        """
        if self._network is None:
            msg = f"estimator '{self.name}' is not trained yet: call fit, or load a trained one"
            raise ConfigError(msg)
        return self._network

    @torch_defaults()
    def to(self, device: str | torch.device) -> Self:
        """Move the network to a device and return self.

        Raises
        ------
        ConfigError
            If the device is not there.
        """
        align_weights(self.network.to(checked_device(device)))
        return self

    @torch_defaults()
    @torch.no_grad()
    def _features(self, batch: Batch) -> Tensor:
        device = next(self.network.parameters()).device
        self.network.standardizer.check(batch)
        moved = replace(batch, theta=None).to(device, torch.float32)
        step = _ROWS_PER_CALL
        starts = range(0, max(len(batch), 1), step)
        return torch.cat([self.network.features(moved[s : s + step]) for s in starts])

    def summaries(self, batch: Batch) -> F64:
        """Return the summaries (n, k) that the embedding makes of observed data."""
        return np.asarray(self._features(batch).double().cpu().numpy())

    @torch_defaults()
    def log_prob(self, theta: ArrayLike | Tensor, batch: Batch) -> F64:
        """Return log q of theta (n, d) -> (n,), or (S, n, d) -> (S, n); -inf outside."""
        values = as_float64(theta)
        if values.shape[-2:] != (len(batch), self.space.dim) or values.ndim not in (2, 3):
            n, d = len(batch), self.space.dim
            msg = f"theta must have shape ({n}, {d}) or (S, {n}, {d}), got {values.shape}"
            raise ConfigError(msg)
        rows = snap_to_support(values.reshape(-1, self.space.dim), self.space)
        inside = self.inside(rows, self.space)
        log_q = np.full(len(rows), -np.inf)
        if inside.any():
            found = self.encode(rows[inside], self.space)
            z = np.zeros((len(rows), found.shape[1]))
            z[inside] = found
            shaped = z.reshape(*values.shape[:-1], -1)
            log_q[inside] = self._log_q(shaped, self._features(batch)).reshape(-1)[inside]
            log_q[inside] += self.log_volume(rows[inside], found, self.space)
        return log_q.reshape(values.shape[:-1])

    @torch.no_grad()
    def _log_q(self, z: F64, h: Tensor) -> F64:
        """Return log q(z | h) of z (..., n, k), shape (..., n), some objects at a time."""
        step = max(1, self.network.head.rows_per_call // (len(z) if z.ndim == 3 else 1))
        out = np.empty(z.shape[:-1])
        for start in range(0, len(h), step):
            part = slice(start, start + step)
            values = _tensor_like(h, z[..., part, :])
            log_q = self.network.head.log_prob(values, aligned(h[part]))
            out[..., part] = log_q.double().cpu().numpy()
        return out

    @torch_defaults()
    @torch.no_grad()
    def sample(self, batch: Batch, draws: int, rng: Rng | Sequence[np.random.Generator]) -> F64:
        """Return draws (S, n, d).

        With one generator per row, base noise comes from each row's own: what is drawn for an
        object does not depend on the objects beside it, up to floating-point rounding.

        Draws so far out that no number holds them (a network's own doing: the prior has next to
        nothing there) are drawn again, and counted in the log.

        Raises
        ------
        ObservationError
            If an object has hardly any other draws.
        """
        gen = rng if isinstance(rng, Sequence) else as_generator(rng)
        head, h = self.network.head, self._features(batch)
        noise = _noise(gen, draws, len(batch), head.noise_size)
        out = np.empty((draws, len(batch), self.space.dim))
        step = max(1, head.rows_per_call // max(draws, 1))
        many = max(1, head.rows_per_call // step)  # many draws of one object: in parts, too
        for start in range(0, len(batch), step):
            given = aligned(h[start : start + step])
            for first in range(0, draws, many):
                part = slice(first, first + many), slice(start, start + step)
                z = head.draw(_tensor_like(h, noise[part]), given).double().cpu().numpy()
                out[part] = self.decode(z, self.space)
        self._draw_again(out, h, gen)
        return out

    def _draw_again(
        self, out: F64, h: Tensor, rng: np.random.Generator | Sequence[np.random.Generator]
    ) -> None:
        """Replace infinite draws (S, n, d), object by object."""
        total = 0
        for k in np.flatnonzero(np.isinf(out).any((0, 2))).tolist():
            gen = rng[k] if isinstance(rng, Sequence) else rng
            for _ in range(_TRIES):
                bad = np.flatnonzero(np.isinf(out[:, k]).any(1))
                if not len(bad):
                    break
                total += len(bad)
                noise = gen.standard_normal((len(bad), 1, self.network.head.noise_size))
                z = self.network.head.draw(_tensor_like(h, noise), aligned(h[k : k + 1]))
                out[bad, k] = self.decode(z.double().cpu().numpy(), self.space)[:, 0]
            else:
                msg = (
                    f"the posterior of row {k} lies where no number can hold its parameters: the "
                    "object is unlike all simulations, or the training went wrong"
                )
                raise ObservationError(msg)
        if total:
            _LOG.warning("%d draws were too large for any number and were drawn again", total)

    # -- files ---------------------------------------------------------------------

    def save(self, directory: str | Path) -> None:
        """Write ``weights.safetensors`` and ``config.json``."""
        directory = Path(directory)
        shape = self.network.standardizer.shape
        content = {
            "schema": _SCHEMA,
            "estimator": self.name,
            "options": self.config.model_dump(mode="json"),
            "HOOK_API": HOOK_API,
            "versions": versions(),
            "plugin": self.plugin,
            "space": self.space.to_spec(),
            "space_hash": self.space.hash,
            "embedding": self._embedding,
            "input": asdict(shape),
            "training": None if self.record is None else asdict(self.record),
        }
        weights = self.network.state_dict()
        write_tensors(directory / "weights.safetensors", weights, {"space_hash": self.space.hash})
        write_atomic(directory / "config.json", json.dumps(content, indent=1).encode())

    @classmethod
    @torch_defaults()
    def load(cls, directory: str | Path, *, registry: Registry | None = None) -> Self:
        """Read what :meth:`save` wrote; executes nothing that is stored there.

        Parameters
        ----------
        directory
            Folder with ``weights.safetensors`` and ``config.json``.
        registry
            Where the embedding is found by name; default: the installed plugins.

        Raises
        ------
        ComponentNotFoundError
            If no installed plugin has the embedding.
        DataFileError
            If a file is missing, damaged, or belongs to something else.
        """
        path = Path(directory) / "config.json"
        spec = read_json(path)
        if spec.get("estimator") != cls.name or spec.get("schema") != _SCHEMA:
            found = f"'{spec.get('estimator')}' (schema {spec.get('schema')})"
            msg = f"{path} describes an estimator {found}, expected '{cls.name}' (schema {_SCHEMA})"
            raise DataFileError(msg)
        try:
            estimator = cls(cls.config_type.model_validate(spec["options"]))
            estimator._restore(spec, Path(directory), registry or Registry([]))
        except (KeyError, TypeError, ValidationError) as error:
            msg = f"{path} is incomplete or was altered ({type(error).__name__}: {error})"
            raise DataFileError(msg) from None
        return estimator

    def _restore(self, spec: Mapping[str, Any], directory: Path, registry: Registry) -> None:
        self.space = ParameterSpace.from_spec(spec["space"])
        weights = directory / "weights.safetensors"
        tensors, meta = read_tensors(weights)
        if not self.space.hash == spec["space_hash"] == meta["space_hash"]:
            msg = f"{directory}: the prior in config.json is not the one the weights belong to"
            raise DataFileError(msg)
        shape = InputShape(**{**spec["input"], "x": tuple(spec["input"]["x"])})
        stored = spec["embedding"]
        made = registry.build("embedding", stored["name"], stored["options"])
        embedding = Embedding.of(made)
        network = self._build(shape, embedding, self.space, 0)
        for old, new in self.renamed.items():
            tensors = {
                new + name.removeprefix(old) if name.startswith(old) else name: value
                for name, value in tensors.items()
            }
        load_weights(network, tensors, weights)
        self._network = network.eval()
        self._embedding, self.plugin = dict(spec["embedding"]), dict(spec["plugin"])
        if spec["training"] is not None:
            history = tuple(spec["training"]["history"])
            self.record = TrainingRecord(**{**spec["training"], "history": history})

    def __repr__(self) -> str:
        state = "not trained" if self._network is None else f"q({', '.join(self.space.names)} | x)"
        return f"{type(self).__name__}({self.config}; {state})"


# -- helpers -------------------------------------------------------------------------------


def snap_to_support(theta: F64, space: ParameterSpace) -> F64:
    """Move values that float32 rounded out of the support back to it.

    Only the ends of continuous parameters and the values of discrete ones are looked at.

    Parameters
    ----------
    theta
        (n, d).
    space
        Its parameters.
    """
    low, high = space.support
    with np.errstate(invalid="ignore"):
        below = (theta < low) & (theta >= low - 1.2e-7 * np.abs(low))
        above = (theta > high) & (theta <= high + 1.2e-7 * np.abs(high))
    theta = np.where(below, low, np.where(above, high, theta))
    for p, s in space.blocks():
        if not p.prior.continuous:
            values, _ = p.prior.outcomes()
            middles = (values[1:] + values[:-1]) / 2
            near = values[np.searchsorted(middles, theta[:, s]).clip(max=len(values) - 1)]
            close = np.abs(theta[:, s] - near) <= 1.2e-7 * np.abs(near)
            theta[:, s] = np.where(close, near, theta[:, s])
    return theta


def _tensor_like(like: Tensor, values: F64) -> Tensor:
    """Return an aligned tensor of the type and on the device of another one."""
    return aligned(torch.as_tensor(values, dtype=like.dtype, device=like.device))


def _log_normal(z: F64) -> F64:
    return np.asarray(-0.5 * (z**2).sum(-1) - z.shape[-1] * _LOG_SQRT_2PI)


def _noise(rng: Rng | Sequence[np.random.Generator], draws: int, n: int, size: int) -> F64:
    """Return standard normal numbers (draws, n, size)."""
    if not isinstance(rng, Sequence):
        return as_generator(rng).standard_normal((draws, n, size))
    if len(rng) != n:
        msg = f"{len(rng)} generators for {n} objects: give one per object, or a single one"
        raise ConfigError(msg)
    out = np.empty((draws, n, size))
    for k, g in enumerate(rng):
        out[:, k] = g.standard_normal((draws, size))
    return out


def _theta_of(batch: Batch, training: Training) -> F64:
    """Return the inferred columns of theta, (n, d), float64."""
    assert batch.theta is not None
    return snap_to_support(as_float64(batch.theta)[:, list(training.columns)], training.space)


def _check_theta(training: Training, inside: Callable[[F64], NDArray[np.bool_]]) -> None:
    """Raise TrainingError unless every simulation has parameters that may be trained on."""
    batch, names = training.batch, training.space.names
    if len(batch) == 0:
        msg = "there is no valid simulation to train on: all of them failed"
        raise TrainingError(msg)
    if len(training.columns) != len(names):
        msg = f"{len(training.columns)} columns of theta for {len(names)} parameters {list(names)}"
        raise TrainingError(msg)
    parts: Iterable[Batch] = (
        (batch,)
        if isinstance(batch, Batch)
        else (batch.read(k, ("theta",)) for k in range(len(batch.ends) - 1))
    )
    start, wrong, first, outside, example = 0, 0, "", 0, ""
    for part in parts:
        if part.theta is None or part.theta.ndim != 2:
            msg = "training needs simulations with theta of shape (n, d)"
            raise TrainingError(msg)
        if part.theta.shape[1] <= max(training.columns):
            msg = (
                f"theta has {part.theta.shape[1]} columns, parameter "
                f"'{names[int(np.argmax(training.columns))]}' is column {max(training.columns)}"
            )
            raise TrainingError(msg)
        theta = _theta_of(part, training)
        bad = ~np.isfinite(theta)
        if bad.any() and not first:
            row, column = np.argwhere(bad)[0]
            first = f"parameter '{names[column]}' is not finite in simulation {start + row}"
        wrong += int(bad.any(1).sum())
        out = ~inside(theta) & ~bad.any(1)
        if out.any() and not example:
            row = int(np.flatnonzero(out)[0])
            example = f"simulation {start + row}: {_offender(theta[row], training.space)}"
        outside += int(out.sum())
        start += len(part)
    if wrong:
        msg = f"{first} ({wrong} such rows)"
        raise TrainingError(msg)
    if outside:
        msg = f"{example} ({outside} such rows): give the prior the simulations were drawn from"
        raise TrainingError(msg)


def _offender(theta: F64, space: ParameterSpace) -> str:
    """Say which parameter of one row lies outside its prior."""
    for p, s in space.blocks():
        value = theta[s]
        if not p.prior.inside(value[None])[0]:
            shown = value[0] if len(value) == 1 else value
            return f"{p.name} = {shown} lies outside the prior to train with, {p.prior}"
    return "a parameter has no probability under the prior to train with"


def _observed_sample(training: Training) -> Batch:
    """Return observed rows of the training split, after checking that they can teach anything."""
    rng = stream(training.seed, "train", "standardize")
    rows = splits_of(training).train
    generator = stream(training.seed, "train", "shape")
    one = training.observe(training.batch[rows[:1]].to("cpu", torch.float32), generator)
    most = min(_STANDARDIZE_ROWS, max(1000, _STANDARDIZE_NUMBERS // max(one.x[0].numel(), 1)))
    if len(rows) > most:
        rows = np.sort(rng.choice(rows, most, replace=False))
    clean = training.batch[rows].to("cpu", torch.float32)
    batch = training.observe(clean, rng)
    bad = (~torch.isfinite(batch.x) & batch.observed).reshape(len(batch), -1).any(1)
    if batch.x_err is not None:
        wrong = ~((batch.x_err > 0) & torch.isfinite(batch.x_err)) & batch.observed
        bad |= wrong.reshape(len(batch), -1).any(1)
    if bool(bad.any()):
        first = int(rows[int(torch.nonzero(bad)[0, 0])])
        msg = (
            f"observed data or errors are not finite (or errors not positive) in simulation "
            f"{first} ({int(bad.sum())} such rows): mark them as failed or mask them"
        )
        raise TrainingError(msg)
    outputs = clean.x.reshape(len(clean), -1)
    if bool((outputs == outputs[0]).all()) and clean.context is None:
        msg = "all simulations have the same outputs: there is nothing to learn from"
        raise TrainingError(msg)
    return batch


def _embedding_spec(embedding: Embedding) -> dict[str, Any]:
    """Return name and options of an embedding, JSON-serialisable."""
    config = embedding.config
    options = {} if config is None else config.model_dump(mode="json")
    return {"name": embedding.name, "options": options}


def versions() -> dict[str, str]:
    """Return versions of the packages that matter to an estimator."""
    found = {}
    for name in ("sbi-core", "torch", "zuko", "sbi", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
