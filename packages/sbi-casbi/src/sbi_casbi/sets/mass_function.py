r"""The expected mass function: a Gaussian for the mass of the k-th of N members, given the data.

.. math:: \log M_k \,|\, N, x \;\approx\; \mathcal N(\mu_k, \sigma_k^2), \qquad
          (\mu_k, \log\sigma_k) = g(h, k, N) + \left(\mu_k^0, 0\right),

with :math:`\mu_k^0` the mass at which the prior distribution function equals its expectation,
:math:`E\,F(M_k) = (N - k + 1) / (N + 1)`. Members are drawn one after the other, each given the one
before it. Small errors accumulate along this sequence: every transition can be nearly right and the
30th mass much too uncertain, because returning to the expected mass function gains too little in a
single transition for training to learn it. These estimates give the sequence a reference. The
context of the next member contains the standardised residual of the last one,

.. math:: r_{k-1} = \frac{\log M_{k-1} - \mu_{k-1}}{\sigma_{k-1}},

so that a return is linear in :math:`r_{k-1}`. The estimates are functions of the data and of
earlier members, not random variables: the density of a set remains exact.

References:
    | David & Nagaraja 2003, Order Statistics, section 2.3 (expectation of F)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sbi_casbi.sets.sums import Gaussian, gaussian_nll, zero_last_layer
from sbi_casbi.sets.whitening import Whitening

__all__ = ["FEATURES", "MassFunction"]

FEATURES = 6  # size of MassFunction.features
_LARGEST_RESIDUAL = 5.0
_RANK_FEATURES = 5


class MassFunction(nn.Module):
    """Mean and scatter of the standardised log10 mass of the k-th member.

    Parameters
    ----------
    features
        Size of the summary.
    sums
        Size of the estimate of sums over members.
    hidden
        Width of the network.
    """

    def __init__(self, features: int, sums: int, hidden: int) -> None:
        super().__init__()
        self.from_data = nn.Linear(features + sums, hidden)
        self.from_rank = nn.Linear(_RANK_FEATURES, hidden)
        self.network = nn.Sequential(
            nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 2)
        )
        zero_last_layer(self.network)

    def encode(self, h: Tensor, sums: Tensor) -> Tensor:
        """Return the encoding (..., w) of summaries (..., f) and of their estimated sums."""
        encoded: Tensor = self.from_data(torch.cat([h, sums], -1))
        return encoded

    def forward(self, encoded: Tensor, k: Tensor, n: Tensor, whitening: Whitening) -> Gaussian:
        """Return mean and log sd (...) of member k (...) of n (...), given :meth:`encode`."""
        remaining = n - k + 1
        prior = whitening.mass_quantile((remaining.double() / (n + 1)).log())
        start = ((prior - whitening.centre[0]) / whitening.scale[0]).to(encoded.dtype)
        rank = [k.log() / 2, k / n, n.log() / 2 - 1, remaining.log() / 2 - 1, start]
        output = self.network(encoded + self.from_rank(torch.stack(rank, -1)))
        shift, log_sd = output.unbind(-1)
        return start + shift, log_sd.clamp(-6.0, 2.0)

    def loss(self, estimate: Gaussian, truth: Tensor) -> Tensor:
        """Return the Gaussian -log density of true standardised masses (...)."""
        return gaussian_nll(estimate, truth)

    def features(
        self,
        current: Gaussian,
        previous: Gaussian,
        last: Tensor,
        log_cdf: Tensor,
        remaining: Tensor,
        whitening: Whitening,
    ) -> Tensor:
        """Return the features of the context of the next member, (..., FEATURES).

        Parameters
        ----------
        current, previous
            Estimates for this member and for the one before it.
        last
            Standardised log10 mass of the previous member, (...).
        log_cdf
            Log F at that mass; exactly 0 for the first member.
        remaining
            Members not drawn yet, including this one, (...).
        whitening
            Whitening of the members.
        """
        exists = log_cdf < 0
        mean, log_sd = current
        residual = (last - previous[0]) * (-previous[1]).exp()
        residual = torch.where(exists, residual.clamp(-_LARGEST_RESIDUAL, _LARGEST_RESIDUAL), 0.0)
        expected = torch.stack([mean, mean + residual * log_sd.exp()], -1)
        v = whitening.whiten_mass(
            whitening.unstandardise_mass(expected),
            log_cdf[..., None],
            remaining.double()[..., None],
        )
        step = torch.where(exists, mean - last, mean)
        own = torch.stack([step, log_sd / 2, residual, previous[1] / 2], -1)
        return torch.cat([own, v.to(own.dtype) / 2], -1)
