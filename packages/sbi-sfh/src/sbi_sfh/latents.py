"""Latents of spectra from the trained encoder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sbi_core import Batch, ConfigError, FlowEstimator

__all__ = ["latents_of"]

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
