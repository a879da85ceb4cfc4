r"""Density of one member given its context: autoregressive rational-quadratic splines.

In whitened coordinates v (:mod:`sbi_casbi.sets.whitening`), one flow for all ranks k,

.. math:: q(v_k \,|\, c_k) = \prod_{j=1}^{d} \mathcal N\big(T_j(v_{kj})\big)\,
          \left|\frac{\mathrm dT_j}{\mathrm dv_{kj}}\right|, \qquad
          T_j = T(\,\cdot\,;\, c_k, v_{k1}, \dots, v_{k,j-1}),

j being the stellar mass, the dark mass and the infall time. A small network predicts the bins and
slopes of each monotonic spline T. The last layers start at zero: an untrained flow is close to the
prior.

References:
    | Durkan et al. 2019, Neural Spline Flows, https://arxiv.org/abs/1906.04032
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from zuko.transforms import MonotonicRQSTransform

from sbi_casbi.sets.sums import zero_last_layer
from sbi_casbi.sets.whitening import Whitening

__all__ = ["MemberFlow"]

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_BOUND = 5.0


class MemberFlow(nn.Module):
    """Conditional density of one whitened member.

    Parameters
    ----------
    hidden
        Width of the context.
    dim
        Numbers per member.
    bins
        Bins of a spline.
    """

    def __init__(self, hidden: int, dim: int, bins: int) -> None:
        super().__init__()
        self.dim, self.bins = dim, bins
        out = 3 * bins - 1
        self.splines = nn.ModuleList(
            nn.Sequential(
                nn.Linear(hidden + 2 * j, hidden // 2), nn.SiLU(), nn.Linear(hidden // 2, out)
            )
            for j in range(dim)
        )
        for spline in self.splines:
            assert isinstance(spline, nn.Sequential)
            zero_last_layer(spline)

    def _spline(self, j: int, context: Tensor, given: list[Tensor]) -> MonotonicRQSTransform:
        raw = self.splines[j](torch.cat([context, *(g[..., None] for g in given)], -1))
        widths, heights, slopes = raw.split([self.bins, self.bins, self.bins - 1], -1)
        return MonotonicRQSTransform(widths, heights, slopes, bound=_BOUND)

    def log_prob(self, v: Tensor, theta: Tensor, context: Tensor) -> Tensor:
        """Return log q(v | context), (...).

        Parameters
        ----------
        v
            Whitened members, (..., dim).
        theta
            The same members, standardised.
        context
            (..., w).
        """
        total = torch.zeros(context.shape[:-1], dtype=context.dtype, device=context.device)
        given: list[Tensor] = []
        for j in range(self.dim):
            spline = self._spline(j, context, given)
            y, log_det = spline.call_and_ladj(v[..., j])
            total = total - 0.5 * y * y - _LOG_SQRT_2PI + log_det
            given += [v[..., j].clamp(-_BOUND, _BOUND), theta[..., j]]
        return total

    def draw(
        self,
        noise: Tensor,
        context: Tensor,
        log_cdf: Tensor,
        remaining: Tensor,
        whitening: Whitening,
    ) -> tuple[Tensor, Tensor]:
        """Return members (m, d) in physical units, float64, and log F of their masses.

        Parameters
        ----------
        noise
            Standard normal numbers, (m, d).
        context
            (m, w).
        log_cdf
            Log F of the previous mass, (m,).
        remaining
            Members not drawn yet, including this one, (m,).
        whitening
            Whitening of the members.
        """
        given, values = list[Tensor](), list[Tensor]()
        for j in range(self.dim):
            v = self._spline(j, context, given).inv(noise[:, j])
            v = v.clamp(-_BOUND, _BOUND) if j in (0, self.dim - 1) else v
            if j == 0:
                value, log_cdf = whitening.unwhiten_mass(v, log_cdf, remaining.double())
            elif j == self.dim - 1:
                value = whitening.unwhiten_tau(v.double())
            else:
                mean, scale = whitening.dark_mass_relation(values[0])
                value = mean + scale * v.double()
            values.append(value)
            standard = ((value - whitening.centre[j]) / whitening.scale[j]).to(context.dtype)
            given += [v.clamp(-_BOUND, _BOUND), standard]
        return torch.stack(values, -1), log_cdf
