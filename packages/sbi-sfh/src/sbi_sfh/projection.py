r"""Noise of principal components in place of noise of pixels: the same training, faster.

The encoder ``sfh-pca`` uses only the features :math:`f = (x/\mu - 1)\,A` of a spectrum. If
observations of a galaxy differ only by their noise, x = clean + err * eps, features are Gaussian,

.. math:: f \sim N\big(f_0,\ \Sigma\big), \qquad
          \Sigma_{jk} = \sum_\lambda A_{\lambda j} A_{\lambda k}\,
                        \frac{\mathrm{err}_\lambda^2}{\mu_\lambda^2},

and a draw needs K numbers instead of L pixels. The Cholesky factor of every galaxy is computed
once; noise is redrawn at every step, with the distribution it has in pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sbi_core import Batch, Rng, Training, torch_generator
from sbi_sfh.encoder import PcaModule

__all__ = ["FeatureNoise", "PixelNoise", "project_training"]

PixelNoise = Callable[[Batch], tuple[Tensor, Tensor | None] | None]
_CHUNK = 2048  # galaxies whose pixels are in memory together
_JITTER = 1e-6  # of the variance of a feature: keeps the factorisation of float32 positive


@dataclass(frozen=True)
class FeatureNoise:
    """Makes noisy features of rows that hold features and packed Cholesky factors.

    Parameters
    ----------
    features
        K, the leading columns.
    live
        Number of features with noise.
    """

    features: int
    live: int

    def __call__(self, batch: Batch, rng: Rng) -> Batch:
        """Return the batch with noisy features (n, K) as ``x``."""
        clean = batch.x[:, : self.features]
        if batch.x.shape[1] == self.features:
            return batch.with_(x=clean)
        generator = torch_generator(rng, clean.device)
        shape = (len(clean), self.live, self.live)
        factor = clean.new_zeros(shape)
        rows, columns = torch.tril_indices(self.live, self.live, device=clean.device)
        factor[:, rows, columns] = batch.x[:, self.features :]
        eps = torch.randn(shape[:2], generator=generator, device=clean.device, dtype=torch.float32)
        noise = (factor @ eps[..., None])[..., 0]
        padded = torch.nn.functional.pad(noise, (0, self.features - self.live))
        return batch.with_(x=clean + padded)


def project_training(module: PcaModule, training: Training, noise: PixelNoise) -> Training | None:
    """Return the training with features in place of pixels; None if observations vary otherwise.

    Parameters
    ----------
    module
        Encoder with its components.
    training
        Simulations in memory.
    noise
        Noise-free spectra (n, L) and errors (n, L), or None in place of errors without noise, of
        simulations; None in place of both if that is not how they are observed.
    """
    batch = training.batch
    assert isinstance(batch, Batch)
    live = int((module.components.abs().sum(1) > 0).sum())
    parts = []
    for start in range(0, len(batch), _CHUNK):
        found = noise(batch[slice(start, start + _CHUNK)].to("cpu", torch.float32))
        if found is None:
            return None
        parts.append(_packed(module, *found, live))
    observe = FeatureNoise(len(module.components), live)
    return replace(training, batch=batch.with_(x=torch.cat(parts)), observe=observe)


@torch.no_grad()
def _packed(module: PcaModule, clean: Tensor, err: Tensor | None, live: int) -> Tensor:
    """Return features (n, K) and, with errors, their factors (n, K + live (live + 1) / 2)."""
    features = module.project(clean, None)
    if err is None:
        return features
    rows, columns = torch.tril_indices(live, live)
    axes = module.components[:live] / (module.scale[:live, None] * module.mean)
    covariance = clean.new_empty(len(clean), live, live)
    pairs = axes[rows] * axes[columns]
    covariance[:, rows, columns] = err.expand_as(clean) ** 2 @ pairs.T
    covariance[:, columns, rows] = covariance[:, rows, columns]
    diagonal = torch.diagonal(covariance, dim1=1, dim2=2)
    diagonal += _JITTER * diagonal.clone()
    factor = torch.linalg.cholesky(covariance.double()).to(features)
    return torch.cat([features, factor[:, rows, columns]], 1)
