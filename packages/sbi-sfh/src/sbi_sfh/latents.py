"""Latents of spectra, as the trained encoder sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sbi_core import Batch, ConfigError, FlowEstimator

__all__ = ["latents_of", "mahalanobis_percentile"]

F64 = NDArray[np.float64]
_ROWS = 2048


@torch.no_grad()
def latents_of(estimator: Any, batch: Batch) -> F64:
    """Return the latents (n, k) of observed spectra.

    Raises
    ------
    ConfigError
        If the estimator is not a flow with an encoder.
    """
    if not isinstance(estimator, FlowEstimator):
        msg = f"estimator '{getattr(estimator, 'name', estimator)}' has no encoder with latents"
        raise ConfigError(msg)
    bare = batch.with_(x_err=None, theta=None)
    parts = [
        estimator.network.features(bare[slice(s, s + _ROWS)]).double().cpu().numpy()
        for s in range(0, len(bare), _ROWS)
    ]
    return np.concatenate(parts)


def mahalanobis_percentile(latents: F64, cloud: F64) -> F64:
    """Return the percentile (n,) of the Mahalanobis distance of latents among a cloud (m, k)."""
    mean = cloud.mean(0)
    inverse = np.linalg.pinv(np.cov(cloud.T))

    def distance(z: F64) -> F64:
        off = z - mean
        return np.asarray(np.einsum("ni,ij,nj->n", off, inverse, off))

    known = np.sort(distance(cloud))
    return np.asarray(100.0 * np.searchsorted(known, distance(latents)) / len(known))
