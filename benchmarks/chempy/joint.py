r"""The joint posterior of all parameters of N stars of one galaxy, with its gradient.

Shared parameters :math:`\Lambda` (IMF slope, SN Ia rate) and four per star enter as standard
normal variables z (non-centred), :math:`\theta = F^{-1}(\Phi(z))` with F the cumulative prior:

.. math:: \log p(z\,|\,x) = -\tfrac12 |z|^2
          - \tfrac12 \sum_{i,e} m_{ie} \frac{(x_{ie} - f_e(\theta_i))^2}{\sigma_{ie}^2 + \rho_e^2}
          + \mathrm{const},

with mask m and model error :math:`\rho` (e.g. the emulator's rms). f is the engine or an emulator;
2 + 4 N variables.

References:
    | Philcox & Rybizki 2019, ApJ 887, 9, section 3
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sbi_chempy.engine import ChempyEngine
from sbi_core import Batch, ParameterSpace

__all__ = ["JointPosterior", "differentiable", "from_standard_normal"]

F64 = NDArray[np.float64]
Forward = Callable[[Tensor], Tensor]


def differentiable(engine: ChempyEngine) -> ChempyEngine:
    """Return the engine with smooth masses and the torch path in float64: useful gradients."""
    return ChempyEngine(
        engine.yields,
        cosmic_accretion=engine.cosmic_accretion,
        clamp_low_z=engine.clamp_low_z,
        smooth=True,
        dtype=torch.float64,
        device=engine.device,
        kernel="torch",
    )


def from_standard_normal(z: Tensor, space: ParameterSpace) -> Tensor:
    """Return theta (n, d) of standard normal z (n, d), differentiable.

    Parameters
    ----------
    z : (n, d) float64
    space
        Parameters with normal, truncated normal or uniform priors.
    """
    priors = [p.prior for p in space.parameters]
    columns = [_quantile(z[:, k], p.family, p.values) for k, p in enumerate(priors)]
    return torch.stack(columns, dim=1)


def _quantile(z: Tensor, family: str, values: Any) -> Tensor:
    if family == "normal":
        return values["loc"] + values["scale"] * z
    u = torch.special.ndtr(z)
    if family == "uniform":
        return values["low"] + (values["high"] - values["low"]) * u
    if family != "truncnormal":
        raise ValueError(f"no differentiable quantile of a '{family}' prior")
    loc, scale = values["loc"], values["scale"]
    ends = [(values.get(k, d) - loc) / scale for k, d in (("low", -np.inf), ("high", np.inf))]
    low, high = torch.special.ndtr(torch.tensor(ends, dtype=z.dtype))
    inside = (low + (high - low) * u).clamp(1e-15, 1 - 1e-15)
    quantile: Tensor = loc + scale * torch.special.ndtri(inside)
    return quantile


class JointPosterior:
    """Log density and gradient of the 2 + 4 N standard normal variables of N stars.

    Parameters
    ----------
    stars
        Observed abundances with errors and mask.
    space
        The six parameters; those of scope ``global`` are shared.
    forward
        theta (n, 6) to abundances (n, k), differentiable: an engine's (see
        :func:`differentiable`) or an emulator's network.
    model_error : (k,) dex, optional
        Added to the errors in quadrature.
    """

    def __init__(
        self,
        stars: Batch,
        space: ParameterSpace,
        forward: Forward | ChempyEngine,
        *,
        model_error: F64 | None = None,
    ) -> None:
        self.space, self.n = space, len(stars)
        self.forward = forward
        self.shared = np.array([scope == "global" for scope in space.scopes])
        self.dim = int(self.shared.sum() + self.n * (~self.shared).sum())
        self.mask = stars.observed
        self.x = torch.where(self.mask, stars.x.double(), 0.0)
        assert stars.x_err is not None
        variance = torch.where(self.mask, stars.x_err.double() ** 2, 1.0)
        rho = 0.0 if model_error is None else torch.as_tensor(model_error, dtype=torch.float64)
        self.weight = self.mask.double() / (variance + rho**2)

    def theta(self, z: Tensor) -> Tensor:
        """Return theta (n, 6) of the variables z (dim,)."""
        k = int(self.shared.sum())
        rows = z.new_zeros(self.n, len(self.shared))
        shared = torch.as_tensor(np.flatnonzero(self.shared))
        own = torch.as_tensor(np.flatnonzero(~self.shared))
        rows = rows.index_copy(1, shared, z[:k].expand(self.n, k))
        rows = rows.index_copy(1, own, z[k:].reshape(self.n, -1))
        return from_standard_normal(rows, self.space)

    def globals(self, z: F64) -> F64:
        """Return the shared parameters (S, 2) of draws z (S, dim)."""
        k = int(self.shared.sum())
        prior = self.space.select("global")
        return from_standard_normal(torch.as_tensor(z[:, :k]), prior).numpy()

    def log_prob(self, z: Tensor) -> Tensor:
        """Return the log density of z (dim,) up to a constant; NaN where the model fails."""
        x = self.forward(self.theta(z))
        x = x[0] if isinstance(x, tuple) else x
        chi2 = (self.weight * (self.x - x) ** 2).sum()
        return -0.5 * (z @ z + chi2)

    def __call__(self, z: F64) -> tuple[float, F64]:
        """Return log density and gradient (dim,); -inf and zeros where the model fails."""
        point = torch.tensor(z, dtype=torch.float64, requires_grad=True)
        value = self.log_prob(point)
        if not bool(torch.isfinite(value)):
            return -np.inf, np.zeros_like(z)
        (gradient,) = torch.autograd.grad(value, point)
        if not bool(torch.isfinite(gradient).all()):
            return -np.inf, np.zeros_like(z)
        return float(value.detach()), gradient.numpy()
