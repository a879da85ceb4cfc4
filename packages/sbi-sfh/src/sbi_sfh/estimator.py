r"""Posterior of percentiles that are in order by construction.

The numbers :math:`\eta` of :mod:`sbi_sfh.transform` are standardised by their training mean m and
deviation s, then by a prediction :math:`\mu(h)` and a triangular matrix L(h) given the latents h,
which take the bulk of scale and correlation; a neural spline flow describes what is left,

.. math:: \log q(\theta\,|\,x) = \log q(z\,|\,h) + \sum_k \log \frac{L_{kk}(h)}{s_k}
          + \log\left|\frac{\partial\eta}{\partial\theta}\right|, \qquad
          z = L(h)\,\Big[\frac{\eta - m}{s} - \mu(h)\Big] .

``two_stage``: encoder, prediction and matrix are learned first,

.. math:: \mathrm{loss} = \langle \log\cosh d \rangle
          + \frac1K \Big[\tfrac12 |L d|^2 - \sum_k \log L_{kk}\Big], \qquad
          d = \frac{\eta - m}{s} - \mu

(the second term changes L only, with d as a constant), then the flow on the latents, with fresh
noise and the encoder frozen (or not: ``freeze``). ``end_to_end``: one loss for all.

References:
    | Iglesias-Navarro et al. 2024, A&A 689, A58 (two stages)
    | Durkan et al. 2019, https://arxiv.org/abs/1906.04032 (flow)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from sbi_core import (
    Batch,
    ConfigError,
    Embedding,
    FlowEstimator,
    Head,
    ParameterSpace,
    Rng,
    Trainable,
    Training,
    TrainingRecord,
    get_estimator,
    stream,
    train_network,
)
from sbi_sfh.constants import AUXILIARY, DECILES
from sbi_sfh.percentiles import names_of
from sbi_sfh.transform import SticksAndRanges

__all__ = ["PercentileConfig", "PercentileEstimator", "sticks_of"]

F64 = NDArray[np.float64]
_Callback = Callable[[Mapping[str, float]], None]
_START_ROWS = 8192  # observed spectra that principal components are learned from
_LOG_2 = math.log(2.0)
_LOG_LIMIT = 5.0  # of the log diagonal, softly: standardised eta are of order one
_FRACTION = dict(zip(names_of(DECILES + AUXILIARY), DECILES + AUXILIARY, strict=True))


def sticks_of(space: ParameterSpace) -> SticksAndRanges:
    """Return the map of a space of percentiles and bounded parameters.

    Raises
    ------
    ConfigError
        If percentiles are missing, out of order, or another parameter has no two ends.
    """
    low, high = space.support
    times = [n for n in space.names if n in _FRACTION]
    fractions = tuple(_FRACTION[n] for n in times)
    if tuple(space.names[: len(times)]) != tuple(times) or list(fractions) != sorted(fractions):
        msg = f"percentiles must come first and in order, got {list(space.names)}"
        raise ConfigError(msg)
    if not times:
        msg = f"estimator 'sfh-percentiles' needs percentiles among {list(space.names)}"
        raise ConfigError(msg)
    rest = slice(len(times), None)
    ranges = tuple((float(a), float(b)) for a, b in zip(low[rest], high[rest], strict=True))
    if not np.isfinite(ranges).all():
        msg = f"parameters {list(space.names[rest])} need finite ends"
        raise ConfigError(msg)
    return SticksAndRanges(fractions, float(high[0]), ranges)


class PercentileConfig(BaseModel):
    """Options of the posterior of percentiles."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    training: Literal["two_stage", "end_to_end"] = Field(
        default="two_stage", description="Encoder first and flow on its latents, or both at once."
    )
    encoder_epochs: int = Field(default=20, ge=1, description="Epochs of the first stage.")
    encoder_rate: float = Field(default=4e-3, gt=0, description="Its peak learning rate.")
    encoder_batch: int = Field(default=256, ge=1, description="Its rows per step.")
    freeze: bool = Field(
        default=True, description="Keep the encoder as it is while the flow is trained."
    )
    disjoint: bool = Field(
        default=False, description="Train encoder and flow on different halves of the simulations."
    )
    transforms: int = Field(default=5, ge=1, description="Spline transformations of the flow.")
    hidden: tuple[int, ...] = Field(default=(64, 64), description="Widths of their networks.")
    bins: int = Field(default=8, ge=2, description="Bins of the splines.")


class _StandardHead(Head):
    """A flow of what a conditional affine map leaves; all of it is stored with the weights."""

    mean: Tensor
    scale: Tensor

    def __init__(self, flow: Head, features: int, dim: int) -> None:
        super().__init__()
        self.flow = flow
        self.noise_size = flow.noise_size
        self.rows_per_call = flow.rows_per_call
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.register_buffer("lower", torch.tril_indices(dim, dim, -1), persistent=False)
        last = nn.Linear(64, 2 * dim + self.lower.shape[1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.center = nn.Sequential(
            nn.Linear(features, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), last
        )

    lower: Tensor

    def predict(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mu (..., n, d), log diagonal (..., n, d) and L (..., n, d, d) given latents."""
        d = len(self.mean)
        mu, log_diagonal, rest = self.center(h).split([d, d, self.lower.shape[1]], dim=-1)
        log_diagonal = _LOG_LIMIT * torch.tanh(log_diagonal / _LOG_LIMIT)
        matrix = torch.diag_embed(log_diagonal.exp())
        matrix[..., self.lower[0], self.lower[1]] = rest
        return mu, log_diagonal, matrix

    def log_prob(self, z: Tensor, h: Tensor) -> Tensor:
        """Return log q(eta | h), shape (..., n)."""
        mu, log_diagonal, matrix = self.predict(h)
        off = (z - self.mean) / self.scale - mu
        left = (matrix @ off[..., None])[..., 0]
        return self.flow.log_prob(left, h) + log_diagonal.sum(-1) - self.scale.log().sum()

    def draw(self, noise: Tensor, h: Tensor) -> Tensor:
        """Return eta (..., n, d)."""
        mu, _, matrix = self.predict(h)
        left = self.flow.draw(noise, h)
        off = torch.linalg.solve_triangular(
            matrix.expand(*left.shape, -1), left[..., None], upper=False
        )
        return (off[..., 0] + mu) * self.scale + self.mean


class _Regression(Trainable):
    """First stage: encoder, prediction and matrix of standardised eta."""

    def __init__(self, standardizer: nn.Module, encoder: nn.Module, head: _StandardHead) -> None:
        super().__init__()
        self.standardizer, self.encoder, self.center = standardizer, encoder, head.center
        self._predict = head.predict

    def loss(self, targets: Tensor, batch: Batch) -> Tensor:
        """Return the loss of every row, (n,)."""
        mu, log_diagonal, matrix = self._predict(self.encoder(*self.standardizer(batch)))
        off = targets - mu
        size = off.abs()
        robust = size + nn.functional.softplus(-2.0 * size) - _LOG_2
        left = (matrix @ off.detach()[..., None])[..., 0]
        return (robust + 0.5 * left**2 - log_diagonal).mean(-1)


class PercentileEstimator(FlowEstimator):
    """Spline flow over ordered percentiles and bounded parameters.

    Parameters
    ----------
    config
        Options.

    Examples
    --------
    >>> PercentileEstimator().name
    'sfh-percentiles'
    """

    name = "sfh-percentiles"
    config_type = PercentileConfig
    config: PercentileConfig

    def make_head(self, features: int, space: ParameterSpace) -> Head:
        """Return a fresh density of eta given ``features`` numbers."""
        sticks_of(space)
        c = self.config
        flow: Any = get_estimator("nsf", transforms=c.transforms, hidden=c.hidden, bins=c.bins)
        return _StandardHead(flow.build_head(features, space.dim), features, space.dim)

    def encode(self, theta: F64, space: ParameterSpace) -> F64:
        """Return eta (n, d) of theta (n, d)."""
        return sticks_of(space).encode(theta)

    def decode(self, values: F64, space: ParameterSpace) -> F64:
        """Return theta (..., d) of eta: in order and in range."""
        return sticks_of(space).decode(values)

    def log_volume(self, theta: F64, values: F64, space: ParameterSpace) -> F64:
        """Return log |d eta / d theta|, (n,)."""
        return sticks_of(space).log_volume(theta)

    def inside(self, theta: F64, space: ParameterSpace) -> NDArray[np.bool_]:
        """Return which rows are in order and in range, (n,)."""
        return sticks_of(space).inside(theta)

    def fit(
        self, training: Training, embedding: Embedding, callbacks: Sequence[_Callback] = ()
    ) -> TrainingRecord:
        """Train on simulations with fresh noise; see :meth:`sbi_core.FlowEstimator.fit`.

        Errors of pixels enter through the signal-to-noise ratio of the context only: the network
        does not get them.
        """
        bare = replace(training, observe=_without_errors(training.observe))
        self._with_errors = training.observe
        return super().fit(bare, embedding, callbacks)

    def prepare(self, network: Any, training: Training) -> Training:
        """Learn scales and components, and pre-train the encoder; see the core's hook."""
        batch = training.batch if isinstance(training.batch, Batch) else training.batch.load()
        eta = self.targets(batch, training).double()
        network.head.mean.copy_(eta.mean(0))
        network.head.scale.copy_(eta.std(0).clamp(min=1e-3))
        self._start(network.embedding, batch, training.seed)
        if self.config.training == "end_to_end":
            return training
        first, second = batch, batch
        if self.config.disjoint:
            first, second = _halves(batch)
        self._pretrain(network, replace(training, batch=first))
        if self.config.freeze:
            network.embedding.requires_grad_(False)
        return replace(training, batch=second)

    def _start(self, module: nn.Module, batch: Batch, seed: int) -> None:
        start = getattr(module, "start", None)
        if start is None:
            return
        rng = stream(seed, "sfh", "components")
        rows = np.sort(rng.permutation(len(batch))[:_START_ROWS])
        start(self._with_errors(batch[rows].to("cpu", torch.float32), rng))

    def _pretrain(self, network: Any, training: Training) -> None:
        c = self.config
        model = _Regression(network.standardizer, network.embedding, network.head)
        options = (
            training.config.model_dump()
            if hasattr(training.config, "model_dump")
            else dict(training.config or {})
        )
        options |= {
            "epochs": c.encoder_epochs, "learning_rate": c.encoder_rate,
            "batch_size": c.encoder_batch, "clip": 1.0, "max_seconds": None,
        }  # fmt: skip
        folder = None if training.directory is None else training.directory / "encoder"
        mean, scale = network.head.mean.clone(), network.head.scale.clone()

        def targets(batch: Batch) -> Tensor:
            return (self.targets(batch, training).to(mean) - mean) / scale

        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        train_network(model, replace(training, config=options, directory=folder), targets)


def _halves(batch: Batch) -> tuple[Batch, Batch]:
    """Return rows by the parity of their split key (or row): no history is in both."""
    keys = torch.arange(len(batch)) if batch.split_key is None else batch.split_key
    odd = (keys % 2).to(torch.bool)
    return batch[odd], batch[~odd]


def _without_errors(observe: Callable[[Batch, Rng], Batch]) -> Callable[[Batch, Rng], Batch]:
    def bare(batch: Batch, rng: Rng) -> Batch:
        return observe(batch, rng).with_(x_err=None)

    return bare
