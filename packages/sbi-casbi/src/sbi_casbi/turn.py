r"""What is known when the turn of the k-th member comes.

.. math:: c_k = \mathrm{MLP}\left[h,\; k, N,\; \theta_{k-1},\;
          \langle\phi(\theta_{<k})\rangle,\; \text{left}_k,\; \text{ahead}_k\right]

with :math:`\langle\phi\rangle` means of learned features over the members so far, plain and
weighted by mass (a deep set); *left* what an estimate of the sums over all members
(:mod:`sbi_casbi.budget`) leaves for those to come, with the whitened place of a member that would
take all, half or a quarter of it; *ahead* what an estimate of the mass function
(:mod:`sbi_casbi.ranks`) expects next. All of these are sums, so that training computes them for all
k at once and draws carry them along.

References:
    | Zaheer et al. 2017, Deep Sets, https://arxiv.org/abs/1703.06114
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sbi_casbi import ranks
from sbi_casbi.budget import Budget
from sbi_casbi.ordered import Whitening
from sbi_casbi.ranks import Ranks

__all__ = ["Known", "Prefix", "Turn", "TurnContext", "gather"]

_FEATURES = 16
_SHARES = (1.0, 0.5, 0.25)  # of what is left: where a member would lie that takes it
_PLACE = 6
_LEFT = 4
Estimate = tuple[Tensor, Tensor]  # mean and log sd


@dataclass
class Prefix:
    """Sums over the members before one, (..., f): they grow member by member."""

    plain: Tensor
    weighted: Tensor
    mass: Tensor  # linear, in units of the first member
    theta: Tensor  # standardised members times mass, (..., dim)

    def take(self, keep: Tensor) -> Prefix:
        """Return the sums of some rows."""
        return Prefix(*(v[keep] for v in vars(self).values()))

    def gather(self, at: Tensor) -> Prefix:
        """Return the sums (B, T) at places ``at`` of sums (B, K)."""
        return Prefix(*(gather(v, at) for v in vars(self).values()))


@dataclass
class Known:
    """What the network makes of planes, before any member."""

    summary: Tensor  # (..., w)
    sums: Tensor  # mean and log sd of sums over members, (..., 2 (1 + dim))
    seen: Tensor  # by the network of ranks, (..., w)

    def take(self, keep: Tensor) -> Known:
        """Return some rows."""
        return Known(*(v[keep] for v in vars(self).values()))

    def for_places(self) -> Known:
        """Return rows with a dimension for places of a set, (n, 1, f)."""
        return Known(*(v[:, None] for v in vars(self).values()))


@dataclass
class Turn:
    """Which member it is, and those before it; all (...) alike."""

    k: Tensor  # from 1
    n: Tensor
    prefix: Prefix
    last: Tensor  # standardised member before, zeros where there is none, (..., dim)
    first: Tensor  # standardised log10 mass of the first member, 0 where there is none yet
    log_f: Tensor | None = None  # log F of the mass of the last, where it is known; 0 if none


class TurnContext(nn.Module):
    """Context of the k-th member, from a plane and the members before.

    Parameters
    ----------
    features
        Numbers of the summary of a plane.
    dim
        Numbers per member.
    hidden
        w, width of the context.
    """

    def __init__(self, features: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.before = nn.Sequential(
            nn.Linear(dim, hidden // 4), nn.SiLU(), nn.Linear(hidden // 4, 2 * _FEATURES)
        )
        rest = 2 * _FEATURES + dim + _PLACE + _LEFT + 2 * dim + len(_SHARES) + ranks.FEATURES
        self.from_summary = nn.Linear(features, hidden)
        self.from_rest = nn.Linear(rest, hidden)
        self.trunk = nn.Sequential(nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.budget = Budget(features, dim, hidden // 2)
        self.ranks = Ranks(features, 2 * (1 + dim), hidden)

    def know(self, h: Tensor, sums: Estimate | None = None) -> Known:
        """Return what is known of planes with summaries h (..., features).

        ``sums`` is the estimate of :attr:`budget`, where it has been made already.
        """
        both = torch.cat(self.budget(h) if sums is None else sums, -1).detach()
        return Known(self.from_summary(h), both, self.ranks.see(h, both))

    def expect(self, known: Known, k: Tensor, n: Tensor, w: Whitening) -> tuple[Estimate, Estimate]:
        """Return estimates of the mass of member k (...) and of the one before it."""
        previous = (k - 1).clamp(min=1.0)
        return self.ranks(known.seen, k, n, w), self.ranks(known.seen, previous, n, w)

    def forward(
        self, known: Known, expected: tuple[Estimate, Estimate], turn: Turn, w: Whitening
    ) -> Tensor:
        """Return the context (..., w).

        No gradient flows through estimates: they learn from their own loss.
        """
        k, n, before = turn.k, turn.n, turn.prefix
        left, mass = n - k + 1, turn.last[..., 0]
        log_f = turn.log_f
        if log_f is None:
            log_f = torch.where(k > 1, w.log_f(w.mass_scaled(mass)), 0.0)
        place = [k == 1, k.log() / 2, k / n, n.log() / 2 - 1, left.log() / 2 - 1]
        place.append(before.mass.clamp(min=1.0).log10())
        now, previous = ((mean.detach(), log_sd.detach()) for mean, log_sd in expected)
        parts = [
            before.plain / (k - 1).clamp(min=1.0)[..., None],
            before.weighted / before.mass.clamp(min=1e-30)[..., None],
            turn.last,
            torch.stack([v.to(mass) for v in place], -1),
            self._left(known.sums, turn, log_f, left, w),
            self.ranks.ahead(now, previous, mass, log_f, left, w),
        ]
        h: Tensor = self.trunk(known.summary + self.from_rest(torch.cat(parts, -1)))
        return h

    def _left(self, sums: Tensor, turn: Turn, log_f: Tensor, left: Tensor, w: Whitening) -> Tensor:
        """Return what is left for the members to come, (..., 4 + 2 dim + shares).

        Parameters
        ----------
        sums
            Estimate, (..., 2 (1 + dim)).
        turn
            The members so far.
        log_f
            Log F of the mass of the last (0 where there is none).
        left
            Members to come.
        w
            The whitening.
        """
        prefix = turn.prefix
        mean, log_sd = sums.expand(*left.shape, -1).chunk(2, -1)
        scale = float(w.scale[0])
        # accreted mass in units of the first member (of the estimate, before there is one)
        unit = torch.where(prefix.mass > 0, turn.first, mean[..., 0])
        total = 10 ** ((mean[..., 0] - unit) * scale).clamp(-3, 4)
        rest = total - prefix.mass
        log_rest = unit + rest.clamp(min=1e-4).log10() / scale
        mean_rest = (mean[..., 1:] * total[..., None] - prefix.theta) / torch.maximum(
            rest, 0.02 * total
        )[..., None]
        parts = [log_rest, log_rest - left.log10() / scale, log_rest - turn.last[..., 0]]
        return torch.cat(
            [
                torch.stack([*parts, log_sd[..., 0]], -1),
                mean_rest.clamp(-4, 4),
                mean[..., 1:],
                _places(log_rest, log_f, left, w),
            ],
            -1,
        )

    # -- the members so far --------------------------------------------------------------

    def nothing(self, rows: int, dim: int, like: Tensor) -> Prefix:
        """Return the sums before the first member."""
        f, none = like.new_zeros(rows, _FEATURES), like.new_zeros(rows)
        return Prefix(f, f, none, like.new_zeros(rows, dim))

    def add(self, prefix: Prefix, theta: Tensor, relative: Tensor) -> Prefix:
        """Return the sums with one more standardised member (m, dim) of relative mass (m,)."""
        plain, weighted = self.before(theta).split(_FEATURES, -1)
        return Prefix(
            prefix.plain + plain,
            prefix.weighted + weighted * relative[:, None],
            prefix.mass + relative,
            prefix.theta + theta * relative[:, None],
        )

    def prefixes(self, theta: Tensor, relative: Tensor, used: Tensor) -> Prefix:
        """Return sums (n, K, f) over the members before each of K places."""
        phi = self.before(theta) * used[..., None]
        plain, weighted = phi.split(_FEATURES, -1)
        return Prefix(
            _exclusive(plain),
            _exclusive(weighted * relative[..., None]),
            _exclusive(relative),
            _exclusive(theta * relative[..., None]),
        )


def gather(x: Tensor, at: Tensor) -> Tensor:
    """Return places (B, T) of x (B, K) or (B, K, f)."""
    if x.ndim == 2:
        return x.gather(1, at)
    return x.gather(1, at[..., None].expand(*at.shape, x.shape[-1]))


def _exclusive(x: Tensor) -> Tensor:
    """Return sums over earlier places (n, K, ...)."""
    return x.cumsum(1) - x


def _places(log_rest: Tensor, log_f: Tensor, left: Tensor, w: Whitening) -> Tensor:
    """Return whitened masses of members that take shares of what is left, (..., shares)."""
    shares = torch.tensor(_SHARES, dtype=torch.float64, device=left.device).log10()
    mass = w.mass_scaled(log_rest)[..., None] + shares
    v = w.mass_v(mass, log_f[..., None], left.double()[..., None])
    return v.to(log_rest.dtype) / 2
