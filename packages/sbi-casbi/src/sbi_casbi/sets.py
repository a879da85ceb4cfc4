r"""A density of ordered sets of members: N, then one member after the other.

.. math::
    q(N, T, \theta_{1..N}\,|\,x) = q(N\,|\,h)\, q(T\,|\,N, h)
    \prod_{k=1}^{N} q(\theta_k\,|\,\theta_{<k}, T, k, N, h)

N is a mixture of discretised logistics in log N. T are the sums of the set, the accreted mass and
the mass-weighted mean member, which the data know better than any single member: they are drawn
first, by a flow of their own, and every member is told what is left of them. (T is a function of
the set; the last factors learn to fill it up.) All members share one flow in whitened coordinates
(:mod:`sbi_casbi.ordered`): three conditional rational-quadratic splines, for the mass, the dark
mass given it, and the infall time given both. What came before a member enters as its predecessor,
as means of learned features over :math:`\theta_{<k}` (plain and weighted by mass), and as what is
left: sums that training computes for all k at once.

References:
    | Durkan et al. 2019, Neural Spline Flows, https://arxiv.org/abs/1906.04032
    | Zaheer et al. 2017, Deep Sets, https://arxiv.org/abs/1703.06114
    | Salimans et al. 2017, PixelCNN++, https://arxiv.org/abs/1701.05517
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import zuko
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from zuko.transforms import MonotonicRQSTransform

from sbi_casbi.ordered import Whitening
from sbi_core import Head, get_estimator

__all__ = ["SetConfig", "SetHead"]

F64 = NDArray[np.float64]
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_BOUND = 5.0
_VALIDATED = (1, 2, 3, 5, 10, 20, 40, 80)  # members that the validation loss looks at
_FEATURES = 16


class SetConfig(BaseModel):
    """Options of the estimator of sets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: int = Field(128, ge=16, le=512, description="width of the shared flow")
    bins: int = Field(16, ge=4, le=64, description="bins of a spline")
    components: int = Field(5, ge=1, description="logistics of N")
    members_per_row: int = Field(
        4, ge=1, description="members of a halo that a training step looks at, the first included"
    )


@dataclass
class _Prefix:
    """Sums over the members before one, (..., f): they grow member by member."""

    plain: Tensor
    weighted: Tensor
    mass: Tensor  # linear, in units of the first member
    theta: Tensor  # standardised members times mass, (..., dim)


class SetHead(Head):
    """Density of N and of N ordered members.

    Parameters
    ----------
    features
        Numbers of the summary.
    counts
        Values of N, increasing.
    size
        K, places of a set.
    dim
        Numbers per member: 3, or 2 without the dark mass.
    config
        Options.
    """

    rows_per_call = 16_384

    def __init__(self, features: int, counts: F64, size: int, dim: int, config: SetConfig) -> None:
        super().__init__()
        self.size, self.dim, self.config = size, dim, config
        ordinal: Any = get_estimator("ordinal", components=config.components, scale="log")
        self.number = ordinal.discrete_head(features, [counts])
        self.lowest = int(counts[0])
        self.noise_size = self.number.noise_size + size * dim
        self.whitening = Whitening(dim)
        w = config.hidden
        self.before = nn.Sequential(
            nn.Linear(dim, w // 4), nn.SiLU(), nn.Linear(w // 4, 2 * _FEATURES)
        )
        self.from_summary = nn.Linear(features, w)
        self.from_rest = nn.Linear(2 * _FEATURES + dim + 6 + 3 + 2 * dim, w)
        self.sums = zuko.flows.NSF(
            1 + dim, features + 1, transforms=2, bins=8, hidden_features=[w // 2, w // 2]
        )
        self.trunk = nn.Sequential(nn.SiLU(), nn.Linear(w, w), nn.SiLU())
        out = 3 * config.bins - 1
        self.splines = nn.ModuleList(
            nn.Sequential(nn.Linear(w + 2 * j, w // 2), nn.SiLU(), nn.Linear(w // 2, out))
            for j in range(dim)
        )
        for spline in self.splines:
            last: Any = spline[-1]  # type: ignore[index]
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    # -- context of a member -----------------------------------------------------------

    def _sums(self, h: Tensor, n: Tensor) -> Any:
        """Return the distribution of the standardised sums (n, 1 + dim) given N (n,)."""
        return self.sums(torch.cat([h, (n.to(h).log() / 2 - 1)[..., None]], -1))

    def _true_sums(self, theta: Tensor, relative: Tensor) -> Tensor:
        """Return the sums (n, 1 + dim) of sets: log10 mass and mass-weighted mean member."""
        total = relative.sum(1)
        mass = theta[:, 0, 0] + total.log10() / float(self.whitening.scale[0])
        member = (relative[..., None] * theta).sum(1) / total[:, None]
        return torch.cat([mass[:, None], member], 1)

    def _left(self, sums: Tensor, prefix: _Prefix, first: Tensor, left: Tensor) -> Tensor:
        """Return what is left for the members to come, (..., 3 + 2 dim).

        Parameters
        ----------
        sums
            Of the whole set, (..., 1 + dim).
        prefix
            Sums over the members so far.
        first
            Standardised log10 mass of the first member (0 where there is none yet), (...).
        left
            Members to come, (...).
        """
        scale = float(self.whitening.scale[0])
        # accreted mass in units of the first member (of itself, before there is one)
        there = prefix.mass > 0
        unit = torch.where(there, first, sums[..., 0])
        total = 10 ** ((sums[..., 0] - unit) * scale).clamp(-3, 4)
        rest = total - prefix.mass
        log_rest = unit + rest.clamp(min=1e-4).log10() / scale
        mean_rest = (sums[..., 1:] * total[..., None] - prefix.theta) / torch.maximum(
            rest, 0.02 * total
        )[..., None]
        parts = [
            torch.stack([log_rest, log_rest - left.log10() / scale, sums[..., 0]], -1),
            mean_rest.clamp(-4, 4),
            sums[..., 1:],
        ]
        return torch.cat(parts, -1)

    def _context(
        self,
        summary: Tensor,
        sums: Tensor,
        prefix: _Prefix,
        last: Tensor,
        first: Tensor,
        k: Tensor,
        n: Tensor,
    ) -> Tensor:
        """Return what the splines of member k (from 1) are given, (..., w)."""
        done = (k - 1).clamp(min=1.0)
        parts = [
            (prefix.plain / done[..., None]),
            prefix.weighted / prefix.mass.clamp(min=1e-30)[..., None],
            last,
            torch.stack(
                [
                    (k == 1).to(last),
                    k.log() / 2,
                    k / n,
                    n.log() / 2 - 1,
                    (n - k + 1).log() / 2 - 1,
                    prefix.mass.clamp(min=1.0).log10(),
                ],
                -1,
            ),
            self._left(sums, prefix, first, n - k + 1),
        ]
        h: Tensor = self.trunk(summary + self.from_rest(torch.cat(parts, -1)))
        return h

    def _spline(self, j: int, h: Tensor, given: list[Tensor]) -> MonotonicRQSTransform:
        raw = self.splines[j](torch.cat([h, *(g[..., None] for g in given)], -1))
        b = self.config.bins
        widths, heights, slopes = raw.split([b, b, b - 1], -1)
        return MonotonicRQSTransform(widths, heights, slopes, bound=_BOUND)

    def _member_log_prob(self, h: Tensor, v: Tensor, theta: Tensor) -> Tensor:
        """Return log q of whitened v (..., dim) of a member whose standardised value is theta."""
        total = torch.zeros(h.shape[:-1], dtype=h.dtype, device=h.device)
        given: list[Tensor] = []
        for j in range(self.dim):
            spline = self._spline(j, h, given)
            y, log_det = spline.call_and_ladj(v[..., j])
            total = total - 0.5 * y * y - _LOG_SQRT_2PI + log_det
            given += [v[..., j].clamp(-_BOUND, _BOUND), theta[..., j]]
        return total

    def _prefixes(self, theta: Tensor, relative: Tensor, used: Tensor) -> _Prefix:
        """Return sums over the members before each of K places."""
        phi = self.before(theta) * used[..., None]
        plain, weighted = phi.split(_FEATURES, -1)
        return _Prefix(
            _exclusive(plain, 1),
            _exclusive(weighted * relative[..., None], 1),
            _exclusive(relative, 1),
            _exclusive(theta * relative[..., None], 1),
        )

    # -- training ------------------------------------------------------------------------

    def unpack(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return place of N (n, 1), v and standardised members (n, K, d), relative mass (n, K)."""
        place, v, theta, relative = z.split(
            [1, self.size * self.dim, self.size * self.dim, self.size], -1
        )
        shape = (len(z), self.size, self.dim)
        return place, v.reshape(shape), theta.reshape(shape), relative

    def pack(self, members: Tensor, count: Tensor) -> Tensor:
        """Return targets of sets (n, K, d) of ``count`` (n,) members: what :meth:`loss` takes."""
        used = torch.arange(self.size) < count[:, None]
        clean = torch.where(used[..., None], members.double(), 0.0)
        v = self.whitening.whiten(clean, count)
        theta = torch.where(used[..., None], self.whitening.standardised(clean), 0.0)
        relative = torch.where(used, 10 ** (clean[..., 0] - clean[:, :1, 0]), 0.0)
        parts = [(count - self.lowest)[:, None].double(), v.flatten(1), theta.flatten(1), relative]
        return torch.cat(parts, 1).float()

    def _chosen(self, n: Tensor) -> tuple[Tensor, Tensor]:
        """Return members (B, T), from 1, that the loss looks at, and their weights."""
        if self.training:
            more = self.config.members_per_row - 1
            u = torch.rand((len(n), more), device=n.device)
            some = (u * n[:, None]).floor().clamp(max=self.size - 1) + 1
            k = torch.cat([torch.ones_like(n[:, None]), torch.minimum(some, n[:, None])], 1)
            return k, torch.ones_like(k)
        fixed = torch.tensor(_VALIDATED, dtype=n.dtype, device=n.device).expand(len(n), -1)
        k = torch.cat([fixed.clamp(max=self.size), n[:, None]], 1)
        there = k <= n[:, None]
        return torch.where(there, k, 1.0), there.to(n)

    def loss(self, z: Tensor, h: Tensor) -> Tensor:
        """Return -log q(N) - log q(T) - mean over some members of log q(theta_k), (n,).

        Every (N, k) is a conditional density of its own: weighting them changes no optimum.
        """
        place, v, theta, relative = self.unpack(z)
        n = place[:, 0] + self.lowest
        most = int(n.max())
        v, theta, relative = v[:, :most], theta[:, :most], relative[:, :most]
        used = torch.arange(most, device=z.device) < n[:, None]
        prefix = self._prefixes(theta, relative, used)
        k, weight = self._chosen(n)
        at = k.long() - 1
        mine = _Prefix(
            _take(prefix.plain, at),
            _take(prefix.weighted, at),
            prefix.mass.gather(1, at),
            _take(prefix.theta, at),
        )
        last = _take(theta, (at - 1).clamp(min=0)) * (at > 0)[..., None]
        first = theta[:, :1, 0] * (at > 0)
        sums = self._true_sums(theta, relative)
        given = sums[:, None].expand(-1, at.shape[1], -1)
        context = self._context(
            self.from_summary(h)[:, None], given, mine, last, first, k, n[:, None].expand_as(k)
        )
        log_q = self._member_log_prob(context, _take(v, at), _take(theta, at))
        mean = (weight * log_q).sum(1) / weight.sum(1)
        loss: Tensor = self.number.loss(place, h) - self._sums(h, n).log_prob(sums) - mean
        return loss

    # -- density -------------------------------------------------------------------------

    def log_pmf(self, h: Tensor) -> Tensor:
        """Return log q(N | h) of all values, (n, R)."""
        rows = self.number.sizes[0]
        places = torch.arange(rows, device=h.device, dtype=h.dtype)
        shaped = places[:, None, None].expand(rows, len(h), 1)
        log_p: Tensor = self.number.log_prob(shaped, h)
        return log_p.T.log_softmax(-1)

    def log_prob(self, z: Tensor, h: Tensor) -> Tensor:
        """Return log q of N, T and all members, (n,), in whitened coordinates of packed sets."""
        place, v, theta, relative = self.unpack(z)
        n = place[:, 0] + self.lowest
        used = torch.arange(self.size, device=z.device) < n[:, None]
        prefix = self._prefixes(theta, relative, used)
        k = torch.arange(1, self.size + 1, device=z.device).to(h).expand(len(z), -1)
        last = torch.cat([torch.zeros_like(theta[:, :1]), theta[:, :-1]], 1)
        first = theta[:, :1, 0] * (k > 1)
        n_all = torch.maximum(n[:, None].expand_as(k), k)
        sums = self._true_sums(theta, relative)
        given = sums[:, None].expand(-1, self.size, -1)
        context = self._context(self.from_summary(h)[:, None], given, prefix, last, first, k, n_all)
        log_q = self._member_log_prob(context, v, theta)
        total: Tensor = self.number.log_prob(place, h) + self._sums(h, n).log_prob(sums)
        return total + torch.where(used, log_q, 0.0).sum(1)

    # -- draws ---------------------------------------------------------------------------

    def draw_members(
        self, noise: Callable[[int], Tensor], h: Tensor, n: Tensor, most: int | None = None
    ) -> Iterator[Tensor]:
        """Yield members (m, d), physical units, one place after the other.

        Parameters
        ----------
        noise
            Gives standard normal numbers (m, k) for k: first for the sums, then for every place.
        h
            Summaries, (m, features).
        n
            N of every set, (m,); rows beyond their N hold numbers without meaning.
        most
            Stop after so many places; default: the largest N.
        """
        w = self.whitening
        m, dtype = len(h), h.dtype
        count = n.to(dtype)
        summary = self.from_summary(h)
        zeros = torch.zeros(m, _FEATURES, dtype=dtype, device=h.device)
        none = torch.zeros(m, dtype=dtype, device=h.device)
        last = torch.zeros(m, self.dim, dtype=dtype, device=h.device)
        prefix = _Prefix(zeros, zeros, none, last)
        sums = self._sums(h, count).transform.inv(noise(1 + self.dim))
        standard_first = none
        log_f = torch.zeros(m, dtype=torch.float64, device=h.device)
        first: Tensor | None = None
        for place in range(1, int(most or n.max()) + 1):
            k = torch.full_like(count, float(place))
            total = torch.maximum(count, k)
            context = self._context(summary, sums, prefix, last, standard_first, k, total)
            theta, log_f = self._next(context, noise(self.dim), log_f, total - k + 1)
            yield theta
            first = theta[:, 0] if first is None else first
            last = w.standardised(theta).to(dtype)
            standard_first = last[:, 0] if place == 1 else standard_first
            relative = (10 ** (theta[:, 0] - first)).to(dtype)
            plain, weighted = self.before(last).split(_FEATURES, -1)
            prefix = _Prefix(
                prefix.plain + plain,
                prefix.weighted + weighted * relative[:, None],
                prefix.mass + relative,
                prefix.theta + last * relative[:, None],
            )

    def _next(
        self, context: Tensor, noise: Tensor, log_f: Tensor, left: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return one member (m, d), float64, and log F of its mass."""
        w, given, values = self.whitening, list[Tensor](), list[Tensor]()
        for j in range(self.dim):
            v = self._spline(j, context, given).inv(noise[:, j])
            v = v.clamp(-_BOUND, _BOUND) if j in (0, self.dim - 1) else v
            if j == 0:
                value, log_f = w.next_mass(v, log_f, left.double())
            elif j == self.dim - 1:
                value = w.tau_of(v.double())
            else:
                mean, scale = w.dark_of(values[0])
                value = mean + scale * v.double()
            values.append(value)
            standard = ((value - w.centre[j]) / w.scale[j]).to(context.dtype)
            given += [v.clamp(-_BOUND, _BOUND), standard]
        return torch.stack(values, -1), log_f


def _exclusive(x: Tensor, dim: int) -> Tensor:
    """Return sums over earlier places."""
    return x.cumsum(dim) - x


def _take(x: Tensor, at: Tensor) -> Tensor:
    """Return places (B, T) of x (B, K, f)."""
    return x.gather(1, at[..., None].expand(*at.shape, x.shape[-1]))
