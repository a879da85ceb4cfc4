r"""Base of the built-in estimators: a head q(z | h) in the unconstrained space of the proposal.

.. math:: \log q(\theta\,|\,x) = \log q(z\,|\,x) + \log p(\theta) - \log N(z; 0, I)

Draws therefore lie inside the support, where the density is normalised. The network works in
float32, the map between z and theta in float64.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel
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
)
from sbi_core.estimators.stored import read_spec, record_of, restoring, write_spec
from sbi_core.files.tensors import load_weights, read_tensors, write_tensors
from sbi_core.priors.space import ParameterSpace, as_float64
from sbi_core.registry import Registry
from sbi_core.rng import as_generator, seeded, stream, torch_defaults
from sbi_core.training.loop import train_network
from sbi_core.training.networks import ConditionalNetwork, Head, Standardizer, pooling_of
from sbi_core.training.rows import (
    check_theta,
    observed_sample,
    observed_test,
    resident,
    snap_to_support,
    theta_of,
)
from sbi_core.training.splits import Splits
from sbi_core.validation import checked_device

__all__ = ["FlowEstimator"]

F64 = NDArray[np.float64]
_LOG = logging.getLogger(__name__)
_TRIES = 100  # attempts to replace draws that overflow
_ROWS_PER_CALL = 16_384  # objects per call of the embedding
_MEASURED_NLL = 256  # test rows of estimators whose loss is not -log q
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class FlowEstimator(Estimator):
    """A conditional density made of a standardizer, an embedding and a head.

    Subclasses give ``name``, ``config_type`` and :meth:`build_head`. The network describes the
    unconstrained coordinates of theta; estimators of other coordinates override :meth:`make_head`,
    ``encode``, ``decode``, ``log_volume`` and ``inside``.

    Attributes
    ----------
    record
        Record of the training; None before.
    renamed
        First parts of the names of stored tensors that changed: old name, new name.
    """

    name: str = ""
    config_type: type[BaseModel] = BaseModel
    renamed: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config: BaseModel | None = None) -> None:
        self.config = config or self.config_type()
        self.record: TrainingRecord | None = None
        self._network: ConditionalNetwork | None = None
        self._embedding: dict[str, Any] = {}

    def build_head(self, features: int, dim: int) -> Head:
        """Return a new density of ``dim`` numbers given ``features`` numbers."""
        raise NotImplementedError

    # -- theta and the numbers the network describes -------------------------------

    def make_head(self, features: int, space: ParameterSpace) -> Head:
        """Return a new density of the parameters given ``features`` numbers.

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
        """Return the coordinates (n, k) that the network describes, for theta (n, d)."""
        return space.to_unconstrained(theta)

    def decode(self, values: F64, space: ParameterSpace) -> F64:
        """Return theta (..., d) for coordinates (..., k); the inverse of :meth:`encode`."""
        return space.from_unconstrained(values)

    def log_volume(self, theta: F64, values: F64, space: ParameterSpace) -> F64:
        """Return log |d values / d theta|, (n,), for theta (n, d) and its coordinates (n, k)."""
        return np.asarray(space.log_prob(theta) - _log_normal(values))

    def inside(self, theta: F64, space: ParameterSpace) -> NDArray[np.bool_]:
        """Return which rows of theta (n, d) may have a density, (n,)."""
        return space.inside(theta)

    # -- training ------------------------------------------------------------------

    @torch_defaults()
    def fit(
        self, training: Training, embedding: Embedding, callbacks: Sequence[Callback] = ()
    ) -> TrainingRecord:
        """Train on simulations with fresh noise; see :func:`sbi_core.train_network`.

        Returns
        -------
        TrainingRecord
            Also kept as ``record``.

        Raises
        ------
        TrainingError
            If the simulations cannot be used (none is valid, NaN among the parameters, constant
            outputs), one of them lies outside the prior, or the loss is not finite.
        ConfigError
            If the estimator cannot describe a parameter, or the device does not exist.
        """
        checked_device(training.device)
        training = resident(replace(training, batch=training.batch.succeeded))
        space = training.space
        check_theta(training, lambda theta: self.inside(theta, space))
        observed = observed_sample(training)
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

        record, splits = train_network(network, training, targets, callbacks, log_det=log_det)
        self._network, self.space, self._embedding = network, space, _embedding_spec(embedding)
        if not network.head.loss_is_nll:
            record = replace(record, test_nll=self._measured_nll(training, splits))
        self.record = record
        return record

    def prepare(self, network: ConditionalNetwork, training: Training) -> Training:
        """Initialise the network from the simulations, before the training loop; default: nothing.

        Called once by :meth:`fit`, after the standardizer was fitted. The result must be a function
        of ``training.seed``. Weights without ``requires_grad`` are not trained afterwards.

        Returns
        -------
        Training
            The training to continue with.
        """
        return training

    def targets(self, batch: Batch, training: Training) -> Tensor:
        """Return the coordinates that the head describes, (n, k).

        Default: ``encode`` of the inferred columns of theta. Estimators of set-valued
        parameters use ``batch.theta_set``.
        """
        return torch.as_tensor(self.encode(theta_of(batch, training), training.space))

    def log_det(self, batch: Batch, training: Training) -> Tensor:
        """Return ``log |d targets / d theta|``, (n,), which makes the loss a density of theta."""
        theta, space = theta_of(batch, training), training.space
        return torch.as_tensor(self.log_volume(theta, self.encode(theta, space), space))

    def _measured_nll(self, training: Training, splits: Splits) -> float:
        """Return the mean of -log q over some test rows; NaN if the estimator has no density."""
        batch = observed_test(training, splits.test[:_MEASURED_NLL])
        try:
            return float(-self.log_prob(theta_of(batch, training), batch).mean())
        except DensityUnavailableError:
            return math.nan

    def _build(
        self, shape: InputShape, embedding: Embedding, space: ParameterSpace, rng: Rng
    ) -> ConditionalNetwork:
        with seeded(as_generator(rng)):
            module = embedding.build(shape)
            features: Any = module.out_features
            head = self.make_head(int(features), space)
        standardizer = Standardizer(shape, pooling_of(shape, embedding))
        return ConditionalNetwork(standardizer, module, head, embedding.name)

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
            If the device does not exist.
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
        """Return log q, (n,) or (S, n), of theta (n, d) or (S, n, d); -inf outside the support."""
        values = as_float64(theta)
        if values.shape[-2:] != (len(batch), self.space.dim) or values.ndim not in (2, 3):
            n, d = len(batch), self.space.dim
            msg = f"theta must have shape ({n}, {d}) or (S, {n}, {d}), got {values.shape}"
            raise ConfigError(msg)
        rows = snap_to_support(values.reshape(-1, self.space.dim), self.space)
        inside = self.inside(rows, self.space)
        if inside.any():
            coordinates = self.encode(rows[inside], self.space)
            known = np.isfinite(coordinates).all(1)  # else so far out that it is no number
            coordinates, inside[inside] = coordinates[known], known
        log_q = np.full(len(rows), -np.inf)
        if inside.any():
            z = np.zeros((len(rows), coordinates.shape[1]))
            z[inside] = coordinates
            shaped = z.reshape(*values.shape[:-1], -1)
            log_q[inside] = self._log_q(shaped, self._features(batch)).reshape(-1)[inside]
            log_q[inside] += self.log_volume(rows[inside], coordinates, self.space)
        return log_q.reshape(values.shape[:-1])

    @torch.no_grad()
    def _log_q(self, z: F64, h: Tensor) -> F64:
        """Return log q(z | h) of z (..., n, k), shape (..., n), in chunks of objects."""
        step = max(1, self.network.head.rows_per_call // (len(z) if z.ndim == 3 else 1))
        out = np.empty(z.shape[:-1])
        for start in range(0, len(h), step):
            part = slice(start, start + step)
            values = _tensor_like(h, z[..., part, :])
            log_q = self.network.head.log_prob(values, aligned(h[part]))
            out[..., part] = log_q.double().cpu().numpy()
        return out

    @torch_defaults()
    def score(self, value: F64, batch: Batch) -> F64:
        """Return the gradient of log q(z | x), (n, k), at one z (k,).

        Raises
        ------
        DensityUnavailableError
            If the density of the estimator is slow.
        """
        if not self.network.head.loss_is_nll:
            return super().score(value, batch)
        with torch.no_grad():
            h = self._features(batch)
        head, step = self.network.head, self.network.head.rows_per_call
        out = np.empty((len(h), len(value)))
        for start in range(0, len(h), step):
            given = aligned(h[start : start + step])
            z = _tensor_like(h, np.tile(value, (len(given), 1))).requires_grad_()
            (gradient,) = torch.autograd.grad(head.log_prob(z, given).sum(), z)
            out[start : start + step] = gradient.double().cpu().numpy()
        return out

    @torch_defaults()
    @torch.no_grad()
    def sample(self, batch: Batch, draws: int, rng: Rng | Sequence[np.random.Generator]) -> F64:
        """Return draws (S, n, d) in physical units.

        Draws that overflow are drawn again; the log counts them.

        Parameters
        ----------
        rng
            Source of randomness. With one generator per object, its draws do not depend on the
            objects beside it, up to floating-point rounding.

        Raises
        ------
        ObservationError
            If nearly all draws of an object overflow.
        """
        gen = rng if isinstance(rng, Sequence) else as_generator(rng)
        head, h = self.network.head, self._features(batch)
        noise = _noise(gen, draws, len(batch), head.noise_size)
        out = np.empty((draws, len(batch), self.space.dim))
        step = max(1, head.rows_per_call // max(draws, 1))
        many = max(1, head.rows_per_call // step)  # many draws of one object come in parts, too
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
        """Replace draws that overflowed in ``out`` (S, n, d), object by object."""
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
                    f"posterior samples of object {k} overflow: it is far outside the training "
                    "set, or training diverged"
                )
                raise ObservationError(msg)
        if total:
            _LOG.warning("%d draws overflowed and were drawn again", total)

    # -- files ---------------------------------------------------------------------

    def save(self, directory: str | Path) -> None:
        """Write ``weights.safetensors`` and ``config.json``."""
        directory = Path(directory)
        more = {"embedding": self._embedding, "input": asdict(self.network.standardizer.shape)}
        weights = self.network.state_dict()
        write_tensors(directory / "weights.safetensors", weights, {"space_hash": self.space.hash})
        write_spec(directory, self.name, self.config, self.space, self.record, **more)

    @classmethod
    @torch_defaults()
    def load(cls, directory: str | Path, *, registry: Registry | None = None) -> Self:
        """Read what :meth:`save` wrote onto the CPU; executes nothing that is stored there.

        Raises
        ------
        ComponentNotFoundError
            If no installed plugin has the embedding.
        DataFileError
            If a file is missing, damaged, or belongs to something else.
        """
        directory = Path(directory)
        spec = read_spec(directory, cls.name)
        with restoring(directory):
            estimator = cls(cls.config_type.model_validate(spec["options"]))
            estimator._restore(spec, directory, registry or Registry([]))
        return estimator

    def _restore(self, spec: Mapping[str, Any], directory: Path, registry: Registry) -> None:
        self.space = ParameterSpace.from_spec(spec["space"])
        weights = directory / "weights.safetensors"
        tensors, meta = read_tensors(weights)
        if not self.space.hash == spec["space_hash"] == meta["space_hash"]:
            msg = f"{directory}: the prior in config.json is not the one of the weights"
            raise DataFileError(msg)
        shape = InputShape(**{**spec["input"], "x": tuple(spec["input"]["x"])})
        stored = spec["embedding"]
        made = registry.build("embedding", stored["name"], stored["options"])
        network = self._build(shape, Embedding.of(made), self.space, 0)
        for old, new in self.renamed.items():
            tensors = {
                new + name.removeprefix(old) if name.startswith(old) else name: value
                for name, value in tensors.items()
            }
        load_weights(network, tensors, weights)
        self._network, self._embedding = network.eval(), dict(stored)
        self.record = record_of(spec)

    def __repr__(self) -> str:
        state = "not trained" if self._network is None else f"q({', '.join(self.space.names)} | x)"
        return f"{type(self).__name__}({self.config}; {state})"


# -- helpers -------------------------------------------------------------------------------


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


def _embedding_spec(embedding: Embedding) -> dict[str, Any]:
    """Return name and options of an embedding, JSON-serialisable."""
    config = embedding.config
    options = {} if config is None else config.model_dump(mode="json")
    return {"name": embedding.name, "options": options}
