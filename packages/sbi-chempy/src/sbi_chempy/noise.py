r"""Observation model: Gaussian errors, missing elements, optional birth times.

Abundances :math:`x_e \sim N(x_e^\mathrm{true}, \sigma_e^2)`; birth times
:math:`t \sim N(T, (f T)^2)` with relative error f. For training, errors, missing elements and
ages are drawn afresh at every call, so that one network serves every data set: half of the rows
have the default error, the others errors log-uniform in 0.002-0.3 dex (one value for the row, or
one per element); half are complete, in the others each element is missing with a probability
drawn from U(0, 0.5); half have a birth time, with f log-uniform in 0.01-0.4.

Errors of [X/Fe] are independent; those relative to another element are not (see
:mod:`sbi_chempy.frame`). Where covariances are given, noise follows them and the errors are the
roots of their diagonals.

Context columns: observed birth time [Gyr], its standard deviation [Gyr], 1 when observed; zeros
otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from sbi_core import Batch

__all__ = [
    "AGE_COLUMNS",
    "ERROR_RANGE",
    "add_noise",
    "age_errors_like",
    "check_covariance",
    "covariant_noise",
    "draw_errors",
    "draw_mask",
    "observe_ages",
    "training_ages",
]

AGE_COLUMNS = ("t_obs", "e_t_obs", "t_observed")
ERROR_RANGE = (0.002, 0.3)  # dex
_AGE_ERROR_RANGE = (0.01, 0.4)  # relative


def _uniform(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    return torch.rand(shape, generator=generator, device=like.device, dtype=like.dtype)


def _log_uniform(
    between: tuple[float, float],
    shape: tuple[int, ...],
    generator: torch.Generator,
    like: Tensor,
) -> Tensor:
    low, high = (math.log(e) for e in between)
    return torch.exp(low + (high - low) * _uniform(shape, generator, like))


def draw_errors(x: Tensor, default: float, generator: torch.Generator) -> Tensor:
    """Return standard deviations [dex] like x (n, k), mixed as described in the module."""
    n, k = x.shape
    each = _log_uniform(ERROR_RANGE, (n, k), generator, x)
    row = _log_uniform(ERROR_RANGE, (n, 1), generator, x).expand(n, k)
    kind = _uniform((n, 1), generator, x)
    free = torch.where(kind < 0.75, row, each)
    return torch.where(kind < 0.5, torch.full_like(x, default), free)


def draw_mask(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return which elements are observed, like x; at least one in every row."""
    n, k = x.shape
    p = 0.5 * _uniform((n, 1), generator, x)
    complete = _uniform((n, 1), generator, x) < 0.5
    mask = complete | (_uniform((n, k), generator, x) >= p)
    one = torch.randint(k, (n, 1), generator=generator, device=x.device)
    return mask | torch.zeros_like(mask).scatter(1, one, value=True)


def observe_ages(t_birth: Tensor, error: Tensor, observed: Tensor, noise: Tensor) -> Tensor:
    """Return the context columns (n, 3).

    Parameters
    ----------
    t_birth, error
        True birth time and its standard deviation, (n,) Gyr.
    observed
        Which stars have one, (n,) bool.
    noise
        Standard normal numbers, (n,).
    """
    value = t_birth + error * noise
    columns = torch.stack([value, error, torch.ones_like(value)], 1)
    return torch.where(observed[:, None], columns, torch.zeros_like(columns))


def training_ages(t_birth: Tensor, generator: torch.Generator) -> Tensor:
    """Return context columns with random presence and relative errors."""
    shape = tuple(t_birth.shape)
    error = t_birth * _log_uniform(_AGE_ERROR_RANGE, shape, generator, t_birth)
    observed = _uniform(shape, generator, t_birth) < 0.5
    noise = torch.randn(shape, generator=generator, device=t_birth.device, dtype=t_birth.dtype)
    return observe_ages(t_birth, error, observed, noise)


def age_errors_like(t_birth: Tensor, like: Tensor, generator: torch.Generator) -> Tensor:
    """Return errors of birth times (n,) [Gyr], each of a star of ``like`` with a similar time.

    They are taken as they are, since errors of ages scale neither with the birth time nor without
    limit: the error of a star as old as the Universe, divided by its birth time, has none.

    Parameters
    ----------
    t_birth
        True birth times, (n,) Gyr.
    like
        Context columns of real stars, (m, 3).
    generator
        Chooses among the tenth of the stars that is nearest in birth time.
    """
    known = like[like[:, 2] > 0]
    if len(known) == 0:
        return torch.zeros_like(t_birth)
    known = known[known[:, 0].argsort()]
    near = max(1, len(known) // 20)
    shift = torch.randint(-near, near + 1, t_birth.shape, generator=generator)
    place = torch.searchsorted(known[:, 0].contiguous(), t_birth.contiguous()) + shift
    return known[place.clamp(0, len(known) - 1), 1]


def add_noise(
    batch: Batch,
    err: Tensor,
    mask: Tensor,
    generator: torch.Generator,
    noise: Tensor | None = None,
) -> Batch:
    """Return the batch with noise, errors and mask; NaN where not observed.

    Without ``noise`` (like x, dex) it is Gaussian, independent, with standard deviation ``err``.
    """
    x = batch.x
    if noise is None:
        noise = err * torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype)
    noisy = torch.where(mask, x + noise, torch.nan)
    return batch.with_(x=noisy, x_err=torch.where(mask, err, torch.nan), mask=mask)


def check_covariance(covariance: ArrayLike, names: Sequence[str]) -> Tensor:
    """Return covariances (k, k) or (n, k, k) [dex^2] as a float64 tensor.

    Raises
    ------
    ValueError
        If the shape is another, values are not finite, or a matrix is not symmetric and
        positive definite; the message names the star.
    """
    c = torch.as_tensor(np.asarray(covariance, dtype=np.float64))
    k = len(names)
    if c.ndim not in (2, 3) or tuple(c.shape[-2:]) != (k, k) or len(c) == 0:
        raise ValueError(
            f"covariance has shape {tuple(c.shape)}; the {k} observed abundances "
            f"({', '.join(names)}) need ({k}, {k}), or (n, {k}, {k}) for n stars"
        )
    for star, matrix in enumerate(c if c.ndim == 3 else c[None]):
        where = f"covariance of star {star}" if c.ndim == 3 else "covariance"
        if not bool(torch.isfinite(matrix).all()):
            raise ValueError(f"{where} is not finite")
        if not torch.allclose(matrix, matrix.T, rtol=1e-6, atol=1e-12):
            raise ValueError(f"{where} is not symmetric")
        if int(torch.linalg.cholesky_ex(matrix).info) != 0:
            raise ValueError(f"{where} is not positive definite")
    return c


def covariant_noise(covariance: Tensor, generator: torch.Generator, like: Tensor) -> Tensor:
    """Return noise (n, k) [dex] like ``like`` with these covariances, (k, k) or (n, k, k)."""
    root = torch.linalg.cholesky(covariance).to(like)
    unit = torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)
    return (root @ unit[..., None])[..., 0]
