r"""Regression of sums over members: the accreted mass and the mass-weighted mean member.

A Gaussian density with a scatter that depends on the data (a mixture density network of one
component) for every sum t, given the summary h of the plane and its four scalars S (stars outside
the plane, number of stars, both errors):

.. math:: \hat t = a \cdot S + b + e^{c \cdot S + d}\,f(h), \qquad
          \log s = c \cdot S + d + g(h).

The linear coefficients a, b, c, d are fitted once, before training; the network (f, g) learns the
residuals with the Gaussian loss :math:`\tfrac12 (t - \hat t)^2 / s^2 + \log s`. In a complete
sample the number of stars determines the accreted mass to its Poisson error, a precision that
training alone would not reach.

References:
    | Nix & Weigend 1994, Proc. IEEE ICNN 1, 55 (mean and variance by one network)
    | Davidian & Carroll 1987, J. Am. Stat. Assoc. 82, 1079 (regression for the scatter)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "MEAN_LOG_ABS_NORMAL",
    "SCALARS",
    "Gaussian",
    "SumRegression",
    "gaussian_nll",
    "log_total_mass",
    "member_sums",
    "weighted_least_squares",
    "zero_last_layer",
]

Gaussian = tuple[Tensor, Tensor]  # mean and log standard deviation
SCALARS = 4  # last numbers of every summary: overflow, log10 of the star count, both errors
MEAN_LOG_ABS_NORMAL = 0.6352  # -E log |z|, z standard normal
_ITERATIONS = 4
_RIDGE = 1e-6


class SumRegression(nn.Module):
    """Mean and scatter of the standardised log10 accreted mass and mean member.

    Parameters
    ----------
    features
        Size of the summary; its last numbers are the scalars.
    dim
        Numbers per member.
    hidden
        Width of the network.
    """

    linear: Tensor

    def __init__(self, features: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, 2 * (1 + dim))
        )
        zero_last_layer(self.network)
        # coefficients of mean and log sd on the scalars; not trained
        self.register_buffer("linear", torch.zeros(2, 1 + dim, SCALARS + 1))

    def forward(self, h: Tensor) -> Gaussian:
        """Return mean and log sd (n, 1 + dim) of the sums given summaries (n, features)."""
        scalars = h[..., -SCALARS:]
        linear = self.linear.to(h.dtype)
        mean, log_sd = scalars @ linear[..., 1:].transpose(-1, -2) + linear[..., 0][:, None]
        log_sd = log_sd.clamp(-8.0, 2.0)
        shift, stretch = self.network(h).chunk(2, -1)
        return mean + log_sd.exp() * shift, log_sd + stretch.clamp(-3.0, 2.0)

    def loss(self, estimate: Gaussian, truth: Tensor) -> Tensor:
        """Return the Gaussian -log density of true sums (n, 1 + dim), (n,)."""
        return gaussian_nll(estimate, truth).sum(1)

    def fit_linear(self, truth: Tensor, scalars: Tensor) -> None:
        """Fit the linear coefficients.

        Iterates weighted least squares for the mean and a log-linear fit to its residuals for the
        scatter.

        Parameters
        ----------
        truth
            True sums, (n, 1 + dim).
        scalars
            Scalars of the planes, (n, 4).
        """
        design = torch.cat([torch.ones_like(scalars[:, :1]), scalars], 1).double()
        for j, values in enumerate(truth.double().T):
            log_sd = torch.zeros_like(values)
            for _ in range(_ITERATIONS):
                mean = weighted_least_squares(design, values, (-2 * log_sd).exp())
                residual = values - design @ mean
                log_abs = residual.abs().clamp(min=1e-6).log() + MEAN_LOG_ABS_NORMAL
                scatter = weighted_least_squares(design, log_abs, torch.ones_like(log_abs))
                log_sd = (design @ scatter).clamp(-8.0, 2.0)
            self.linear[0, j], self.linear[1, j] = mean.float(), scatter.float()


def gaussian_nll(estimate: Gaussian, truth: Tensor) -> Tensor:
    """Return the Gaussian -log density (...), without its constant, given mean and log sd."""
    mean, log_sd = estimate
    return 0.5 * ((truth - mean) / log_sd.exp()).square() + log_sd


def zero_last_layer(layers: nn.Sequential) -> None:
    """Set the last layer to zero, so that an untrained network returns zeros."""
    last: Any = layers[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


def member_sums(theta: Tensor, relative: Tensor, scale: float) -> Tensor:
    """Return standardised log10 total mass and mass-weighted mean member of sets, (n, 1 + dim).

    Parameters
    ----------
    theta
        Standardised members, (n, K, dim).
    relative
        Their masses in units of the first member, 0 for padding, (n, K).
    scale
        Standard deviation of log10 M_star used for standardising.
    """
    total = relative.sum(1)
    mass = theta[:, 0, 0] + total.log10() / scale
    member = (relative[..., None] * theta).sum(1) / total[:, None]
    return torch.cat([mass[:, None], member], 1)


def log_total_mass(mass: Tensor, count: Tensor) -> Tensor:
    """Return log10 of the summed mass of the first ``count`` (m,) of log10 masses (m, K)."""
    used = torch.arange(mass.shape[1], device=mass.device) < count[:, None]
    mass = mass.double()
    relative = torch.where(used, 10 ** (mass - mass[:, :1]), 0.0)
    return mass[:, 0] + relative.sum(1).log10()


def weighted_least_squares(design: Tensor, values: Tensor, weight: Tensor) -> Tensor:
    """Return coefficients (p,) of weighted least squares; 0 for redundant constant columns."""
    scaled = design * weight[:, None]
    normal = scaled.T @ design
    ridge = _RIDGE * normal.diagonal().mean() * torch.eye(len(normal), dtype=normal.dtype)
    ridge[0, 0] = 0.0
    return torch.linalg.solve(normal + ridge, scaled.T @ values)
