r"""Posterior of percentiles that are in order by construction.

The numbers :math:`\eta` of :mod:`sbi_sfh.transform` are standardised by their training mean m and
deviation s, then by a prediction :math:`\mu(h)` and a width :math:`\sigma(h)` given the latents h;
a density network describes the residuals,

.. math:: \log q(\theta\,|\,x) = \log q(z\,|\,h) - \sum_k \log (s_k\,\sigma_k(h))
          + \log\left|\frac{\partial\eta}{\partial\theta}\right|, \qquad
          z_k = \frac{(\eta_k - m_k)/s_k - \mu_k(h)}{\sigma_k(h)} .

Histories have few degrees of freedom, so that percentiles are strongly correlated and their joint
density is nearly singular. A network trained on it fits the thin direction and gets the marginal
posteriors too wide. It is therefore trained on

.. math:: z_k + \kappa\,\epsilon_k, \qquad \epsilon_k \sim N(0, 1)

with fresh noise at every step. Mixtures of Gaussians subtract its variance outside of training
(:mod:`sbi_sfh.autoregressive`); a spline flow keeps it.

``two_stage``: encoder, prediction and width are learned first,

.. math:: \mathrm{loss} = \Big\langle \tfrac12 \Big(\frac{d}{\sigma}\Big)^2
          + \log\sigma \Big\rangle, \qquad d = \frac{\eta - m}{s} - \mu ,

then the density, with fresh noise; encoder and prediction are trained further or frozen
(``freeze``). ``end_to_end``: both losses from the start. Only the first loss trains the width,
because it scales the jitter: the second loss could decrease without bound by shrinking it.

References:
    | Iglesias-Navarro et al. 2024, A&A 689, A58 (two stages)
    | Kim et al. 2020, SoftFlow, https://arxiv.org/abs/2006.04604 (nearly singular densities)
    | Durkan et al. 2019, https://arxiv.org/abs/1906.04032 (spline flow)
"""

from __future__ import annotations

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
from sbi_sfh.autoregressive import AutoregressiveMixture
from sbi_sfh.constants import AUXILIARY, DECILES
from sbi_sfh.encoder import PcaModule
from sbi_sfh.percentiles import names_of
from sbi_sfh.projection import PixelNoise, project_training
from sbi_sfh.transform import SticksAndRanges

__all__ = ["PercentileConfig", "PercentileEstimator", "sticks_of"]

F64 = NDArray[np.float64]
Callback = Callable[[Mapping[str, Any]], None]
_START_ROWS = 8192  # observed spectra from which principal components are learned
_LOG_LIMIT = 4.0  # of log sigma, softly: standardised eta are of order one
_OUTLIER = 50.0  # largest loss of a parameter
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
        default="two_stage",
        description="Train the encoder first and the density on its latents, or both together.",
    )
    encoder_epochs: int = Field(default=20, ge=1, description="Epochs of the first stage.")
    encoder_rate: float = Field(
        default=4e-3, gt=0, description="Peak learning rate of the first stage."
    )
    encoder_batch: int = Field(default=256, ge=1, description="Batch size of the first stage.")
    freeze: bool = Field(
        default=False, description="Freeze the encoder while the density is trained."
    )
    disjoint: bool = Field(
        default=False,
        description="Train encoder and density on different halves of the simulations.",
    )
    jitter: float = Field(
        default=0.05,
        ge=0,
        le=0.5,
        description="Noise added to percentiles in training, in units of their posterior width: "
        "regularises their strong correlations.",
    )
    density: Literal["mixture", "nsf"] = Field(
        default="mixture",
        description="Autoregressive mixtures of Gaussians, or a coupling spline flow.",
    )
    components: int = Field(default=8, ge=1, description="Gaussians per parameter (mixture).")
    hidden: tuple[int, ...] = Field(
        default=(64, 64), description="Widths of the hidden layers of the density network."
    )
    transforms: int = Field(default=5, ge=1, description="Spline transformations (nsf).")
    bins: int = Field(default=8, ge=2, description="Bins of the splines (nsf).")


class _StandardHead(Head):
    """Density of the standardised residuals; mean and width are stored with the weights."""

    mean: Tensor
    scale: Tensor
    columns: Tensor

    def __init__(
        self, density: Head, features: int, columns: tuple[int, ...], jitter: float
    ) -> None:
        super().__init__()
        dim = len(columns)
        self.density, self.jitter = density, jitter
        self.noise_size = density.noise_size
        self.rows_per_call = density.rows_per_call
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        # stored with the weights: those of other coordinates are not loaded by mistake
        self.register_buffer("columns", torch.tensor(columns))
        last = nn.Linear(64, 2 * dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.center = nn.Sequential(
            nn.Linear(features, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), last
        )

    def predict(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return mu and log sigma (..., n, d) given latents."""
        mu, log_sigma = self.center(h).chunk(2, dim=-1)
        return mu, _LOG_LIMIT * torch.tanh(log_sigma / _LOG_LIMIT)

    def log_prob(self, z: Tensor, h: Tensor) -> Tensor:
        """Return log q(eta | h), shape (..., n)."""
        mu, log_sigma = self.predict(h)
        left = ((z - self.mean) / self.scale - mu) * torch.exp(-log_sigma)
        return self.density.log_prob(left, h) - log_sigma.sum(-1) - self.scale.log().sum()

    def draw(self, noise: Tensor, h: Tensor) -> Tensor:
        """Return eta (..., n, d)."""
        mu, log_sigma = self.predict(h)
        left = self.density.draw(noise, h)
        return (left * log_sigma.exp() + mu) * self.scale + self.mean

    def loss(self, z: Tensor, h: Tensor) -> Tensor:
        """Return what training minimises, (n,); outside of training -log q(eta | h)."""
        if not self.training:
            return -self.log_prob(z, h)
        mu, log_sigma = self.predict(h)
        y = (z - self.mean) / self.scale
        left = (y - mu) * torch.exp(-log_sigma.detach())
        if self.jitter:
            left = left + self.jitter * torch.randn_like(left)
        volume = log_sigma.detach().sum(-1) + self.scale.log().sum()
        width = gaussian_loss((y - mu.detach()) * torch.exp(-log_sigma), log_sigma)
        return width - self.density.log_prob(left, h) + volume


def gaussian_loss(off: Tensor, log_sigma: Tensor) -> Tensor:
    """Return the mean over parameters of -log N(off; 0, 1) + log sigma, limited, (n,)."""
    return (0.5 * off**2).clamp(max=_OUTLIER).add(log_sigma).mean(-1)


class _Regression(Trainable):
    """First stage: encoder, mean and width of standardised eta."""

    def __init__(self, standardizer: nn.Module, encoder: nn.Module, head: _StandardHead) -> None:
        super().__init__()
        self.standardizer, self.encoder, self.center = standardizer, encoder, head.center
        self._predict = head.predict

    def loss(self, targets: Tensor, batch: Batch) -> Tensor:
        """Return the loss of every row, (n,)."""
        mu, log_sigma = self._predict(self.encoder(*self.standardizer(batch)))
        return gaussian_loss((targets - mu) * torch.exp(-log_sigma), log_sigma)


class PercentileEstimator(FlowEstimator):
    """Density of ordered percentiles and bounded parameters.

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
        columns = sticks_of(space).columns
        c = self.config
        density: Head
        if c.density == "mixture":
            density = AutoregressiveMixture(
                features, space.dim, c.components, c.hidden, blur=c.jitter
            )
        else:
            flow: Any = get_estimator("nsf", transforms=c.transforms, hidden=c.hidden, bins=c.bins)
            density = flow.build_head(features, space.dim)
        return _StandardHead(density, features, columns, c.jitter)

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
        self, training: Training, embedding: Embedding, callbacks: Sequence[Callback] = ()
    ) -> TrainingRecord:
        """Train on simulations with fresh noise; see :meth:`sbi_core.FlowEstimator.fit`.

        Errors of pixels enter only through the signal-to-noise ratio of the context.
        """
        bare = replace(training, observe=_without_errors(training.observe))
        self._observe, self._callbacks = training.observe, tuple(callbacks)
        return super().fit(bare, embedding, callbacks)

    def prepare(self, network: Any, training: Training) -> Training:
        """Learn scales and components, and pre-train the encoder; see the core's hook."""
        batch = training.batch if isinstance(training.batch, Batch) else training.batch.load()
        training = replace(training, batch=batch)  # coefficients: a hundredth of the spectra
        eta = self.targets(batch, training).double()
        network.head.mean.copy_(eta.mean(0))
        network.head.scale.copy_(eta.std(0).clamp(min=1e-3))
        training = self._start(network.embedding, training)
        if self.config.training == "end_to_end":
            return training
        assert isinstance(training.batch, Batch)
        first = second = training.batch
        if self.config.disjoint:
            first, second = _halves(training.batch)
        self._pretrain(network, replace(training, batch=first))
        if self.config.freeze:
            network.embedding.requires_grad_(False)
            network.head.center.requires_grad_(False)
        return replace(training, batch=second)

    def _start(self, module: nn.Module, training: Training) -> Training:
        """Learn components; return the training with features in place of pixels if exact."""
        if not isinstance(module, PcaModule):
            return training
        batch = training.batch
        assert isinstance(batch, Batch)
        rng = stream(training.seed, "sfh", "components")
        rows = np.sort(rng.permutation(len(batch))[:_START_ROWS])
        some = batch[rows].to("cpu", torch.float32)
        owner = getattr(self._observe, "__self__", None)  # the simulator, if this is its method
        noise: PixelNoise | None = getattr(owner, "pixel_noise", None)
        noisy = None if noise is None else noise(some)
        module.start(self._observe(some, rng), None if noisy is None else noisy[0])
        if noise is None or noisy is None:
            return training
        return project_training(module, training, noise) or training

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
        shown = [_of_stage(callback, "encoder") for callback in self._callbacks]
        train_network(model, replace(training, config=options, directory=folder), targets, shown)


def _of_stage(callback: Callback, stage: str) -> Callback:
    def show(line: Mapping[str, Any]) -> None:
        callback({**line, "stage": stage})

    return show


def _halves(batch: Batch) -> tuple[Batch, Batch]:
    """Return rows by the parity of their split key (or row): no history is in both."""
    keys = torch.arange(len(batch)) if batch.split_key is None else batch.split_key
    odd = (keys % 2).to(torch.bool)
    return batch[odd], batch[~odd]


def _without_errors(observe: Callable[[Batch, Rng], Batch]) -> Callable[[Batch, Rng], Batch]:
    def bare(batch: Batch, rng: Rng) -> Batch:
        return observe(batch, rng).with_(x_err=None)

    return bare
