r"""What a plane says about sums over members: accreted mass and mass-weighted mean member.

With S the scalars of the plane (stars outside, number of stars, both errors) and h its summary,

.. math:: \hat t = a \cdot S + b + e^{c \cdot S + d}\,f(h), \qquad
          \log s = c \cdot S + d + g(h),

for every sum t. The lines a, b, c, d are fitted once, before training; a network (f, g) describes
the rest with the Gaussian loss :math:`\tfrac12 (t - \hat t)^2 / s^2 + \log s`. The number of stars
of a complete sample gives the accreted mass to the Poisson error, which no network would learn to
that many digits.

References:
    | Davidian & Carroll 1987, J. Am. Stat. Assoc. 82, 1079 (regression for the scatter)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "SCALARS",
    "Budget",
    "gaussian_loss",
    "least_squares",
    "log_total",
    "member_sums",
    "start_at_zero",
]

SCALARS = 4  # numbers that end every summary: overflow, log10 of the stars, both errors
MEAN_LOG_NORMAL = 0.6352  # -E log |z|, z standard normal
_TURNS = 4
_RIDGE = 1e-6


class Budget(nn.Module):
    """Mean and scatter of the standardised log10 accreted mass and mean member.

    Parameters
    ----------
    features
        Numbers of the summary, the last of them the scalars.
    dim
        Numbers per member.
    hidden
        Width of the network.
    """

    lines: Tensor

    def __init__(self, features: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, 2 * (1 + dim))
        )
        start_at_zero(self.network)
        # mean and log sd as lines in the scalars; not trained
        self.register_buffer("lines", torch.zeros(2, 1 + dim, SCALARS + 1))

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log sd (n, 1 + dim) of the sums given summaries (n, features)."""
        scalars = h[..., -SCALARS:]
        lines = self.lines.to(h.dtype)
        mean, log_sd = scalars @ lines[..., 1:].transpose(-1, -2) + lines[..., 0][:, None]
        log_sd = log_sd.clamp(-8.0, 2.0)
        shift, stretch = self.network(h).chunk(2, -1)
        return mean + log_sd.exp() * shift, log_sd + stretch.clamp(-3.0, 2.0)

    def loss(self, estimate: tuple[Tensor, Tensor], truth: Tensor) -> Tensor:
        """Return the Gaussian -log density of true sums (n, 1 + dim), (n,)."""
        return gaussian_loss(estimate, truth).sum(1)

    def fit_lines(self, truth: Tensor, scalars: Tensor) -> None:
        """Set the lines: weighted least squares for the mean, a log-linear fit to its residuals
        for the scatter, in turns.

        Parameters
        ----------
        truth
            True sums, (n, 1 + dim).
        scalars
            Of their planes, (n, 4).
        """
        design = torch.cat([torch.ones_like(scalars[:, :1]), scalars], 1).double()
        for j, values in enumerate(truth.double().T):
            log_sd = torch.zeros_like(values)
            for _ in range(_TURNS):
                mean = least_squares(design, values, (-2 * log_sd).exp())
                rest = (values - design @ mean).abs().clamp(min=1e-6).log() + MEAN_LOG_NORMAL
                spread = least_squares(design, rest, torch.ones_like(rest))
                log_sd = (design @ spread).clamp(-8.0, 2.0)
            self.lines[0, j], self.lines[1, j] = mean.float(), spread.float()


def gaussian_loss(estimate: tuple[Tensor, Tensor], truth: Tensor) -> Tensor:
    """Return the Gaussian -log density (...), less a constant, given mean and log sd."""
    mean, log_sd = estimate
    return 0.5 * ((truth - mean) / log_sd.exp()).square() + log_sd


def start_at_zero(layers: nn.Sequential) -> None:
    """Let a network return zeros before it is trained."""
    last: Any = layers[-1]
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


def member_sums(theta: Tensor, relative: Tensor, scale: float) -> Tensor:
    """Return standardised log10 mass and mass-weighted mean member of sets, (n, 1 + dim).

    Parameters
    ----------
    theta
        Standardised members, (n, K, dim).
    relative
        Their masses in units of the first, 0 where there is none, (n, K).
    scale
        Standard deviation of log10 M_star that standardises it.
    """
    total = relative.sum(1)
    mass = theta[:, 0, 0] + total.log10() / scale
    member = (relative[..., None] * theta).sum(1) / total[:, None]
    return torch.cat([mass[:, None], member], 1)


def log_total(mass: Tensor, count: Tensor) -> Tensor:
    """Return log10 of the sum of the first ``count`` (m,) members of log10 masses (m, K)."""
    used = torch.arange(mass.shape[1], device=mass.device) < count[:, None]
    mass = mass.double()
    relative = torch.where(used, 10 ** (mass - mass[:, :1]), 0.0)
    return mass[:, 0] + relative.sum(1).log10()


def least_squares(design: Tensor, values: Tensor, weight: Tensor) -> Tensor:
    """Return coefficients (p,) of weighted least squares; constant columns get none."""
    scaled = design * weight[:, None]
    normal = scaled.T @ design
    ridge = _RIDGE * normal.diagonal().mean() * torch.eye(len(normal), dtype=normal.dtype)
    ridge[0, 0] = 0.0
    return torch.linalg.solve(normal + ridge, scaled.T @ values)
