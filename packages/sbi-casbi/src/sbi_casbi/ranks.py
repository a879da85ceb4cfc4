r"""What a plane says about the mass of the k-th member of N, member by member.

.. math:: \log M_k \,|\, N, x \;\approx\; \mathcal N(\mu_k, \sigma_k^2), \qquad
          (\mu_k, \log\sigma_k) = g(h, k, N) + \left(\mu_k^0, 0\right),

with :math:`\mu_k^0` the mass at which the prior distribution function is its expectation,
:math:`E\,F(M_k) = (N - k + 1) / (N + 1)`. A chain of members, each drawn given the one before it,
walks at random: every transition may be nearly right and the 30th mass be far too uncertain,
because what a single transition could gain by turning back to the expected mass function is too
small for training to find. The estimates say where that is, and how far off the last member was,

.. math:: r_{k-1} = \frac{\log M_{k-1} - \mu_{k-1}}{\sigma_{k-1}},

so that turning back is a line in :math:`r_{k-1}`. They are functions of the data and of the members
so far, not variables: the density of a set stays exact.

References:
    | David & Nagaraja 2003, Order Statistics, section 2.3 (expectation of F)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sbi_casbi.budget import gaussian_loss, start_at_zero
from sbi_casbi.ordered import Whitening

__all__ = ["FEATURES", "Ranks"]

FEATURES = 6  # what :meth:`Ranks.ahead` returns
_LARGEST = 5.0
_PLACE = 5


class Ranks(nn.Module):
    """Mean and scatter of the standardised log10 mass of the k-th member.

    Parameters
    ----------
    features
        Numbers of the summary.
    sums
        Numbers of the estimate of sums over members.
    hidden
        Width of the network.
    """

    def __init__(self, features: int, sums: int, hidden: int) -> None:
        super().__init__()
        self.of_data = nn.Linear(features + sums, hidden)
        self.of_place = nn.Linear(_PLACE, hidden)
        self.rest = nn.Sequential(
            nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 2)
        )
        start_at_zero(self.rest)

    def see(self, h: Tensor, sums: Tensor) -> Tensor:
        """Return what the network makes of summaries (..., f) and their sums, (..., w)."""
        found: Tensor = self.of_data(torch.cat([h, sums], -1))
        return found

    def forward(self, seen: Tensor, k: Tensor, n: Tensor, w: Whitening) -> tuple[Tensor, Tensor]:
        """Return mean and log sd (...) of member k (...) of n (...), given :meth:`see`."""
        left = n - k + 1
        prior = w.mass_of((left.double() / (n + 1)).log())
        start = ((prior - w.centre[0]) / w.scale[0]).to(seen.dtype)
        place = torch.stack([k.log() / 2, k / n, n.log() / 2 - 1, left.log() / 2 - 1, start], -1)
        shift, log_sd = self.rest(seen + self.of_place(place)).unbind(-1)
        return start + shift, log_sd.clamp(-6.0, 2.0)

    def loss(self, estimate: tuple[Tensor, Tensor], truth: Tensor) -> Tensor:
        """Return the Gaussian -log density of true standardised masses (...)."""
        return gaussian_loss(estimate, truth)

    def ahead(
        self,
        now: tuple[Tensor, Tensor],
        before: tuple[Tensor, Tensor],
        last: Tensor,
        log_f: Tensor,
        left: Tensor,
        w: Whitening,
    ) -> Tensor:
        """Return what the next member is told, (..., FEATURES).

        Parameters
        ----------
        now, before
            Estimates of this member and of the one before it.
        last
            Standardised log10 mass of the member before, (...).
        log_f
            Log F of that mass; exactly 0 where there is none yet.
        left
            Members to come with this one, (...).
        """
        there = log_f < 0
        mean, log_sd = now
        off = ((last - before[0]) * (-before[1]).exp()).clamp(-_LARGEST, _LARGEST)
        off = torch.where(there, off, 0.0)
        likely = torch.stack([mean, mean + off * log_sd.exp()], -1)
        v = w.mass_v(w.mass_scaled(likely), log_f[..., None], left.double()[..., None])
        step = torch.where(there, mean - last, mean)
        own = torch.stack([step, log_sd / 2, off, before[1] / 2], -1)
        return torch.cat([own, v.to(own.dtype) / 2], -1)
