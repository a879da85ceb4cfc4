"""Density estimators of the sbi package as heads: the only module that imports sbi.

Any callable ``(theta, x) -> ConditionalDensityEstimator`` will do (:func:`head_from`); it is
shown standard normal numbers of the right shapes, because our input is standardised already.

References:
    | sbi, https://sbi.readthedocs.io
    | nflows, https://github.com/bayesiains/nflows
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from sbi_core.errors import ConfigError
from sbi_core.networks import Head

__all__ = ["SbiHead", "head_from", "maf_head"]


class SbiHead(Head):
    """A flow of sbi over nflows as a head.

    Parameters
    ----------
    estimator
        ``sbi.neural_nets.estimators.NFlowsFlow``.
    dim
        Numbers it is the density of.
    """

    def __init__(self, estimator: Any, dim: int) -> None:
        super().__init__()
        self.estimator = estimator
        self.noise_size = dim

    def log_prob(self, z: Tensor, h: Tensor) -> Tensor:
        """Return log q(z | h), shape (..., n)."""
        log_q: Tensor = self.estimator.log_prob(z.reshape(-1, *z.shape[-2:]), h)
        return log_q.reshape(z.shape[:-1])

    def draw(self, noise: Tensor, h: Tensor) -> Tensor:
        """Return z (..., n, d): the inverse flow at the noise."""
        # nflows has no public inverse at given noise; its sampler draws its own.
        context = h.expand(*noise.shape[:-1], h.shape[-1]).reshape(-1, h.shape[-1])
        transform = self.estimator.net._transform
        z: Tensor = transform.inverse(noise.reshape(-1, self.noise_size), context=context)[0]
        return z.reshape(noise.shape)


def head_from(build: Callable[[Tensor, Tensor], Any], features: int, dim: int) -> Head:
    """Return what an sbi builder makes for ``dim`` numbers given ``features`` numbers.

    Parameters
    ----------
    build
        Callable ``(theta, x) -> ConditionalDensityEstimator`` over nflows.
    features, dim
        Sizes.
    """
    return SbiHead(build(torch.randn(16, dim), torch.randn(16, features)), dim)


def maf_head(features: int, dim: int, *, hidden: int, transforms: int) -> Head:
    """Return sbi's masked autoregressive flow without its own standardisation.

    Raises
    ------
    ConfigError
        If sbi is not installed.
    """
    try:
        from sbi.neural_nets import posterior_nn
    except ImportError as error:
        msg = f"estimator 'sbi-maf' needs the sbi package: pip install 'sbi-core[sbi]' ({error})"
        raise ConfigError(msg) from None
    build = posterior_nn(
        model="maf",
        z_score_theta="none",
        z_score_x="none",
        hidden_features=hidden,
        num_transforms=transforms,
    )
    return head_from(build, features, dim)
