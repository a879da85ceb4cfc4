r"""Encoders of spectra: convolutions with attention, and principal components with an MLP.

``sfh-conv``: three convolutions (5, 11, 21 pixels) with pooling (5, 11), split into values h and
scores a; :math:`\sum_l h_l\,\mathrm{softmax}_l(a)` enters an MLP with layers 128-64-32-16.

``sfh-pca``: relative flux :math:`y = x/\mu - 1` is projected on components of the training spectra,
:math:`f_k = v_k \cdot y / \max(s_k, n)`, with the noise n of a projection, and goes through an MLP.
Components are those of noise-free spectra if these are available, else of noisy ones, with the
known noise subtracted from their covariance,

.. math:: C = \frac{\sum_i w_i\,[y_i y_i^T - \mathrm{diag}(n_i^2)]}{\sum_i w_i}, \qquad
          w_i = \frac{1}{\overline{n_i^2} + 10^{-4}} .

References:
    | Melchior et al. 2023, AJ 166, 74 (attention over spectra)
    | Iglesias-Navarro et al. 2024, A&A 689, A58 (16 latents)
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from sbi_core import Batch, ConfigError, Embedding, InputShape

__all__ = ["ConvConfig", "ConvEmbedding", "PcaConfig", "PcaEmbedding"]

_CHANNELS = {"cpu": (16, 32, 64), "cpu-wide": (32, 64, 128), "paper": (128, 256, 512)}
_POOL = {"cpu": 2, "cpu-wide": 2, "paper": 1}
_FLOOR = 1e-4  # square of the relative noise below which spectra have equal weight
_ITERATIONS = 6
_IDLE = 0.02  # of the noise: weaker components are set to zero
_SEED = 20240658


def _check_spectrum(shape: InputShape, name: str) -> None:
    if len(shape.x) != 1:
        msg = f"embedding '{name}' needs spectra of shape (L,) per object, got {shape.x}"
        raise ConfigError(msg)


class ConvConfig(BaseModel):
    """Options of the convolutional encoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: Literal["cpu", "cpu-wide", "paper"] = Field(
        default="cpu", description="16-32-64, 32-64-128 or 128-256-512 channels (GPU)."
    )
    pool: int | None = Field(
        default=None,
        ge=1,
        description="Pixels averaged before the first layer; default 2, paper 1.",
    )
    instance_norm: bool = Field(
        default=False,
        description="Normalise channels per spectrum; removes information on line strengths.",
    )
    latents: int = Field(default=16, ge=1, description="Number of latents.")


class _Conv(nn.Module):
    def __init__(self, shape: InputShape, config: ConvConfig) -> None:
        super().__init__()
        one, two, three = _CHANNELS[config.preset]
        pool = config.pool or _POOL[config.preset]
        planes = 1 + shape.has_err + shape.has_mask

        def norm(channels: int) -> list[nn.Module]:
            return [nn.InstanceNorm1d(channels)] if config.instance_norm else []

        self.shrink = nn.AvgPool1d(pool) if pool > 1 else nn.Identity()
        self.layers = nn.Sequential(
            nn.Conv1d(planes, one, 5, padding=2), *norm(one), nn.PReLU(one),
            nn.MaxPool1d(5, padding=2),
            nn.Conv1d(one, two, 11, padding=5), *norm(two), nn.PReLU(two),
            nn.MaxPool1d(11, padding=5),
            nn.Conv1d(two, three, 21, padding=10), *norm(three), nn.PReLU(three),
        )  # fmt: skip
        widths = (three // 2 + shape.context, 128, 64, 32)
        layers: list[nn.Module] = []
        for a, b in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(a, b), nn.PReLU()]
        self.last = nn.Sequential(*layers, nn.Linear(widths[-1], config.latents))
        self.out_features = config.latents

    def forward(
        self, x: Tensor, x_err: Tensor | None, mask: Tensor | None, context: Tensor | None
    ) -> Tensor:
        planes = torch.stack([p for p in (x, x_err, mask) if p is not None], -2)
        lead = planes.shape[:-2]
        h = self.layers(self.shrink(planes.reshape(-1, *planes.shape[-2:])))
        values, scores = h.chunk(2, dim=1)
        pooled = (values * scores.softmax(-1)).sum(-1).reshape(*lead, -1)
        joined = pooled if context is None else torch.cat([pooled, context], -1)
        latents: Tensor = self.last(joined)
        return latents


class ConvEmbedding(Embedding):
    """Convolutions with attention, after the published encoder.

    References
    ----------
    Melchior et al. 2023, AJ 166, 74

    Examples
    --------
    >>> ConvEmbedding().build(InputShape((4300,))).out_features
    16
    """

    name = "sfh-conv"
    config_type = ConvConfig
    config: ConvConfig

    def build(self, shape: InputShape) -> nn.Module:
        """Return a new module for spectra of that shape."""
        _check_spectrum(shape, self.name)
        return _Conv(shape, self.config)


class PcaConfig(BaseModel):
    """Options of the principal-component encoder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    components: int = Field(default=60, ge=2, description="Principal components.")
    hidden: tuple[int, ...] = Field(
        default=(256, 256, 256), description="Widths of the hidden layers."
    )
    latents: int = Field(default=16, ge=1, description="Number of latents.")


class PcaModule(nn.Module):
    """Projection on components (learned by :meth:`start`) and an MLP."""

    mean: Tensor
    components: Tensor
    scale: Tensor

    def __init__(self, shape: InputShape, config: PcaConfig) -> None:
        super().__init__()
        length = shape.x[0]
        self.register_buffer("mean", torch.ones(length))
        self.register_buffer("components", torch.zeros(config.components, length))
        self.register_buffer("scale", torch.ones(config.components))
        widths = (config.components + shape.context, *config.hidden)
        layers: list[nn.Module] = []
        for a, b in zip(widths[:-1], widths[1:], strict=True):
            layers += [nn.Linear(a, b), nn.SiLU()]
        self.last = nn.Sequential(*layers, nn.Linear(widths[-1], config.latents))
        self.out_features = config.latents

    @torch.no_grad()
    def start(self, observed: Batch, clean: Tensor | None = None) -> None:
        """Learn mean, components and scales from observed spectra (n, L) with their errors.

        Parameters
        ----------
        observed
            Spectra, errors, masks.
        clean
            The same without noise (n, L), if available: components are then those of the
            signal, and components far below the noise are set to zero.

        Raises
        ------
        ConfigError
            If there are fewer spectra than components.
        """
        count = len(self.components)
        if len(observed) <= count:
            msg = f"{len(observed)} spectra cannot give {count} principal components: simulate more"
            raise ConfigError(msg)
        seen = observed.observed
        weight = seen.to(torch.float32)
        flux = torch.where(seen, observed.x if clean is None else clean, 0.0)
        used = weight.sum(0)
        mean = torch.where(used > 0, flux.sum(0) / used.clamp(min=1), 1.0)
        y = torch.where(seen, flux / mean - 1.0, 0.0)
        noise = torch.zeros_like(y)
        if observed.x_err is not None:
            noise = torch.where(seen, observed.x_err / mean, 0.0) ** 2
        typical = noise.sum(1) / weight.sum(1).clamp(min=1)
        w = 1.0 / (typical + _FLOOR)
        w /= w.sum()
        diagonal = (w[:, None] * noise).sum(0)
        if clean is not None:
            diagonal = torch.zeros_like(diagonal)
        values, rows = _leading(y * w.sqrt()[:, None], diagonal, count)
        floor = max(float((w * typical).sum().sqrt()), 1e-4)
        size = values.clamp(min=0).sqrt()
        if clean is not None:
            rows = torch.where((size > _IDLE * floor)[:, None], rows, 0.0)
        self.mean.copy_(mean)
        self.components.copy_(rows)
        self.scale.copy_(size.clamp(min=floor))

    def project(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return scaled features (..., K) of spectra (..., L); features are returned unchanged."""
        if x.shape[-1] == len(self.components) != len(self.mean):
            return x  # training projects before it adds noise: sbi_sfh.projection
        y = x / self.mean - 1.0
        if mask is not None:
            # observed spectra hold NaN where a pixel is masked
            y = torch.where(mask > 0, y, 0.0)
        return (y @ self.components.T) / self.scale

    def forward(
        self, x: Tensor, x_err: Tensor | None, mask: Tensor | None, context: Tensor | None
    ) -> Tensor:
        """Return latents (..., k)."""
        features = self.project(x, mask)
        joined = features if context is None else torch.cat([features, context], -1)
        latents: Tensor = self.last(joined)
        return latents


def _leading(y: Tensor, diagonal: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return leading eigenvalues (K,) and vectors (K, L) of y^T y - diag: subspace iteration."""
    generator = torch.Generator().manual_seed(_SEED)
    guess = torch.randn(y.shape[1], count + 20, generator=generator).to(y)
    for _ in range(_ITERATIONS):
        guess, _ = torch.linalg.qr(y.T @ (y @ guess) - diagonal[:, None] * guess)
    small = guess.T @ (y.T @ (y @ guess) - diagonal[:, None] * guess)
    values, vectors = torch.linalg.eigh(0.5 * (small + small.T))
    order = values.argsort(descending=True)[:count]
    return values[order], (guess @ vectors[:, order]).T


class PcaEmbedding(Embedding):
    """Principal components of the training spectra and an MLP: fast on a CPU.

    Examples
    --------
    >>> PcaEmbedding(PcaConfig(components=8)).build(InputShape((4300,))).out_features
    16
    """

    name = "sfh-pca"
    config_type = PcaConfig
    config: PcaConfig
    raw_input = True

    def build(self, shape: InputShape) -> nn.Module:
        """Return a new module for spectra of that shape."""
        _check_spectrum(shape, self.name)
        return PcaModule(shape, self.config)
