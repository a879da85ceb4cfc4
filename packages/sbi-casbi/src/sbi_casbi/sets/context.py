r"""Conditioning context of the k-th member.

.. math:: c_k = \mathrm{MLP}\left[h,\; k, N,\; \theta_{k-1},\;
          \langle\phi(\theta_{<k})\rangle,\; R_k\right]

with :math:`\langle\phi\rangle` means of learned features over the earlier members, unweighted and
weighted by mass (a deep set); :math:`R_k` the part of the estimated sums over members
(:mod:`sbi_casbi.sets.sums`) that earlier members leave over. All of these follow from sums over the
earlier members. Training computes them for all k at once (cumulative sums); sampling updates them
member by member.

References:
    | Zaheer et al. 2017, Deep Sets, https://arxiv.org/abs/1703.06114
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sbi_casbi.sets.sums import Gaussian, SumRegression
from sbi_casbi.sets.whitening import Whitening

__all__ = ["ContextNetwork", "HaloEncoding", "PrefixSums", "Step", "gather"]

_FEATURES = 16
_RANK_FEATURES = 6
_REMAINING_FEATURES = 4


@dataclass
class PrefixSums:
    """Sums over the earlier members, (..., f)."""

    plain: Tensor  # learned features
    weighted: Tensor  # learned features times mass
    mass: Tensor  # linear, in units of the first member
    theta: Tensor  # standardised members times mass, (..., dim)

    def take(self, keep: Tensor) -> PrefixSums:
        """Return the sums of some rows."""
        return PrefixSums(*(v[keep] for v in vars(self).values()))

    def gather(self, index: Tensor) -> PrefixSums:
        """Return the sums (B, T) at positions ``index`` of sums (B, K)."""
        return PrefixSums(*(gather(v, index) for v in vars(self).values()))


@dataclass
class HaloEncoding:
    """Parts of the context that depend on the data alone, not on members."""

    summary: Tensor  # (..., w)
    sums: Tensor  # mean and log sd of the sums over members, (..., 2 (1 + dim))

    def take(self, keep: Tensor) -> HaloEncoding:
        """Return some rows."""
        return HaloEncoding(*(v[keep] for v in vars(self).values()))

    def per_member(self) -> HaloEncoding:
        """Return the rows with a dimension for members, (n, 1, f)."""
        return HaloEncoding(*(v[:, None] for v in vars(self).values()))


@dataclass
class Step:
    """One step of the autoregressive sequence: rank of the member, and the members before it.

    All tensors have the same leading shape (...).
    """

    k: Tensor  # from 1
    n: Tensor
    prefix: PrefixSums
    last: Tensor  # standardised previous member, zeros for k = 1, (..., dim)
    first: Tensor  # standardised log10 mass of the first member, 0 for k = 1


class ContextNetwork(nn.Module):
    """Context of the k-th member, from the plane and the members before it.

    Parameters
    ----------
    features
        Size of the summary of a plane.
    dim
        Numbers per member.
    hidden
        w, width of the context.
    """

    def __init__(self, features: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.member_features = nn.Sequential(
            nn.Linear(dim, hidden // 4), nn.SiLU(), nn.Linear(hidden // 4, 2 * _FEATURES)
        )
        size = 2 * _FEATURES + dim + _RANK_FEATURES
        size += _REMAINING_FEATURES + 2 * dim
        self.from_summary = nn.Linear(features, hidden)
        self.from_members = nn.Linear(size, hidden)
        self.trunk = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.sums = SumRegression(features, dim, hidden // 2)

    def encode(self, h: Tensor, sums: Gaussian | None = None) -> HaloEncoding:
        """Return the encoding of planes with summaries h (..., features).

        ``sums`` is the output of :attr:`sums`, if already computed. Gradients of the density stop
        at these estimates, which are trained by their own loss.
        """
        both = torch.cat(self.sums(h) if sums is None else sums, -1).detach()
        return HaloEncoding(self.from_summary(h), both)

    def forward(self, halo: HaloEncoding, step: Step, whitening: Whitening) -> Tensor:
        """Return the context (..., w)."""
        k, n, before = step.k, step.n, step.prefix
        remaining, mass = n - k + 1, step.last[..., 0]
        rank = [k == 1, k.log() / 2, k / n, n.log() / 2 - 1, remaining.log() / 2 - 1]
        rank.append(before.mass.clamp(min=1.0).log10())
        parts = [
            before.plain / (k - 1).clamp(min=1.0)[..., None],
            before.weighted / before.mass.clamp(min=1e-30)[..., None],
            step.last,
            torch.stack([v.to(mass) for v in rank], -1),
            self._remaining(halo.sums, step, remaining, float(whitening.scale[0])),
        ]
        h: Tensor = self.trunk(halo.summary + self.from_members(torch.cat(parts, -1)))
        return h

    def _remaining(self, sums: Tensor, step: Step, remaining: Tensor, scale: float) -> Tensor:
        """Return features of the sums left for this and later members, (..., 4 + 2 dim).

        Parameters
        ----------
        sums
            Estimate of the sums over all members, (..., 2 (1 + dim)).
        step
            The members before.
        remaining
            Members not drawn yet, including this one.
        scale
            Standard deviation of log10 M_star used for standardising.
        """
        prefix = step.prefix
        mean, log_sd = sums.expand(*remaining.shape, -1).chunk(2, -1)
        # masses in units of the first member (of the estimated total for k = 1)
        unit = torch.where(prefix.mass > 0, step.first, mean[..., 0])
        total = 10 ** ((mean[..., 0] - unit) * scale).clamp(-3, 4)
        rest = total - prefix.mass
        log_rest = unit + rest.clamp(min=1e-4).log10() / scale
        mean_rest = (mean[..., 1:] * total[..., None] - prefix.theta) / torch.maximum(
            rest, 0.02 * total
        )[..., None]
        parts = [log_rest, log_rest - remaining.log10() / scale, log_rest - step.last[..., 0]]
        return torch.cat(
            [
                torch.stack([*parts, log_sd[..., 0]], -1),
                mean_rest.clamp(-4, 4),
                mean[..., 1:],
            ],
            -1,
        )

    # -- sums over the earlier members ---------------------------------------------------

    def empty_prefix(self, rows: int, dim: int, like: Tensor) -> PrefixSums:
        """Return the sums before the first member."""
        f, none = like.new_zeros(rows, _FEATURES), like.new_zeros(rows)
        return PrefixSums(f, f, none, like.new_zeros(rows, dim))

    def extend(self, prefix: PrefixSums, theta: Tensor, relative: Tensor) -> PrefixSums:
        """Return the sums with one more standardised member (m, dim) of relative mass (m,)."""
        plain, weighted = self.member_features(theta).split(_FEATURES, -1)
        return PrefixSums(
            prefix.plain + plain,
            prefix.weighted + weighted * relative[:, None],
            prefix.mass + relative,
            prefix.theta + theta * relative[:, None],
        )

    def all_prefixes(self, theta: Tensor, relative: Tensor, used: Tensor) -> PrefixSums:
        """Return the sums (n, K, f) over the members before each of K members."""
        phi = self.member_features(theta) * used[..., None]
        plain, weighted = phi.split(_FEATURES, -1)
        return PrefixSums(
            _exclusive_cumsum(plain),
            _exclusive_cumsum(weighted * relative[..., None]),
            _exclusive_cumsum(relative),
            _exclusive_cumsum(theta * relative[..., None]),
        )


def gather(x: Tensor, index: Tensor) -> Tensor:
    """Return positions (B, T) of x (B, K) or (B, K, f)."""
    if x.ndim == 2:
        return x.gather(1, index)
    return x.gather(1, index[..., None].expand(*index.shape, x.shape[-1]))


def _exclusive_cumsum(x: Tensor) -> Tensor:
    """Return sums over earlier positions, (n, K, ...)."""
    return x.cumsum(1) - x
