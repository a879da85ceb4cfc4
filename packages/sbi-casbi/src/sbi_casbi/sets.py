r"""A density of ordered sets of members: N, then one member after the other.

.. math::
    q(N, \theta_{1..N}\,|\,x) = q(N\,|\,h) \prod_{k=1}^{N} q(\theta_k\,|\,\theta_{<k}, k, N, h)

N is a mixture of discretised logistics in log N. All members share one flow in whitened
coordinates (:mod:`sbi_casbi.ordered`): three conditional rational-quadratic splines, for the mass,
the dark mass given it, and the infall time given both. What they are given is the business of
:mod:`sbi_casbi.turn`. Every factor is a normalised density of what it describes, hence so is the
product: estimates that enter the context are functions of the data, not variables.

In the end all members are scaled together, so that their sum scatters about its estimate as much
as the estimate does (:mod:`sbi_casbi.settling`); the density of a set is then one integral over
its scale.

References:
    | Durkan et al. 2019, Neural Spline Flows, https://arxiv.org/abs/1906.04032
    | Salimans et al. 2017, PixelCNN++, https://arxiv.org/abs/1701.05517
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from zuko.transforms import MonotonicRQSTransform

from sbi_casbi.budget import Budget, member_sums, start_at_zero
from sbi_casbi.number_heads import NumberKind, number_head
from sbi_casbi.ordered import Whitening
from sbi_casbi.settling import Estimate, Settling
from sbi_casbi.turn import Known, Prefix, Turn, TurnContext, gather
from sbi_core import Head

__all__ = ["SetConfig", "SetHead"]

F64 = NDArray[np.float64]
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_BOUND = 5.0
_AUXILIARY = 0.2  # weight of each auxiliary regression
_VALIDATED = (1, 2, 3, 5, 10, 20, 40, 80)  # members that the validation loss looks at


class SetConfig(BaseModel):
    """Options of the estimator of sets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    design: Literal["joint", "two_step"] = Field(
        "joint",
        description="joint: one summary of the plane for N and members; two_step: N first, then "
        "members given N, each from a network of its own",
    )
    number: NumberKind = Field(
        "ordinal",
        description="p(N | x): ordinal (logistics), classes (softmax), flow (dequantised N)",
    )
    number_transforms: int = Field(3, ge=1, le=20, description="splines of number = 'flow'")
    number_hidden: int = Field(64, ge=8, le=512, description="width of number = 'flow'")
    hidden: int = Field(128, ge=16, le=512, description="width of the shared flow")
    bins: int = Field(16, ge=4, le=64, description="bins of a spline")
    components: int = Field(5, ge=1, description="logistics of N")
    members_per_row: int = Field(
        4, ge=1, description="members of a halo that a training step looks at, the first included"
    )


@dataclass
class _State:
    """What draws know when they come to the next member, one row per set in use."""

    rows: Tensor
    count: Tensor
    known: Known
    prefix: Prefix
    last: Tensor  # standardised member before, (m, dim)
    first: Tensor  # standardised log10 mass of the first member
    top: Tensor  # the same in log10 Msun, float64
    log_f: Tensor
    expected: Tensor  # mean and log sd of the mass of the member before, (m, 2)

    def take(self, keep: Tensor) -> _State:
        """Return the state of some rows."""
        own = {k: v[keep] for k, v in vars(self).items() if isinstance(v, Tensor)}
        return _State(known=self.known.take(keep), prefix=self.prefix.take(keep), **own)


class SetHead(Head):
    """Density of N and of N ordered members.

    Parameters
    ----------
    features
        Numbers of the summary; for ``two_step`` the first half is for N, the second for members.
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
        self.halves = config.design == "two_step"
        features = features // 2 if self.halves else features
        self.number: Any = number_head(
            config.number,
            features,
            counts,
            components=config.components,
            transforms=config.number_transforms,
            hidden=config.number_hidden,
        )
        self.lowest = int(counts[0])
        self.noise_size = self.number.noise_size + size * dim
        self.whitening = Whitening(dim)
        w = config.hidden
        self.context = TurnContext(features, dim, w)
        self.settling = Settling()
        out = 3 * config.bins - 1
        self.splines = nn.ModuleList(
            nn.Sequential(nn.Linear(w + 2 * j, w // 2), nn.SiLU(), nn.Linear(w // 2, out))
            for j in range(dim)
        )
        for spline in self.splines:
            assert isinstance(spline, nn.Sequential)
            start_at_zero(spline)

    def of_number(self, h: Tensor) -> Tensor:
        """Return the part of summaries (..., features) that N is inferred from."""
        return h[..., : h.shape[-1] // 2] if self.halves else h

    def of_members(self, h: Tensor) -> Tensor:
        """Return the part of summaries (..., features) that members are inferred from."""
        return h[..., h.shape[-1] // 2 :] if self.halves else h

    @property
    def budget(self) -> Budget:
        """The estimate of sums over members."""
        return self.context.budget

    # -- one member ----------------------------------------------------------------------

    def _context(self, known: Known, turn: Turn) -> Tensor:
        """Return what the splines of a member are given, (..., w)."""
        expected = self.context.expect(known, turn.k, turn.n, self.whitening)
        context: Tensor = self.context(known, expected, turn, self.whitening)
        return context

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

    # -- training ------------------------------------------------------------------------

    def unpack(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return place of N (n, 1), v and standardised members (n, K, d), relative mass (n, K)."""
        size = (z.shape[1] - 1) // (2 * self.dim + 1)
        place, v, theta, relative = z.split([1, size * self.dim, size * self.dim, size], -1)
        shape = (len(z), size, self.dim)
        return place, v.reshape(shape), theta.reshape(shape), relative

    def pack(self, members: Tensor, count: Tensor) -> Tensor:
        """Return targets of sets (n, K, d) of ``count`` (n,) members: what :meth:`loss` takes."""
        used = torch.arange(members.shape[1]) < count[:, None]
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
            # about as 1/k: the data say most about the first members
            u = torch.rand((len(n), more), device=n.device)
            some = ((n + 1).log()[:, None] * u).exp().floor()
            k = torch.cat([torch.ones_like(n[:, None]), torch.minimum(some, n[:, None])], 1)
            return k, torch.ones_like(k)
        fixed = torch.tensor(_VALIDATED, dtype=n.dtype, device=n.device).expand(len(n), -1)
        k = torch.cat([fixed.clamp(max=self.size), n[:, None]], 1)
        there = k <= n[:, None]
        return torch.where(there, k, 1.0), there.to(n)

    def loss(self, z: Tensor, h: Tensor) -> Tensor:
        """Return -log q(N) - mean over some members of log q(theta_k), (n,), whitened units.

        Every (N, k) is a conditional density of its own: weighting them changes no optimum.
        """
        place, v, theta, relative = self.unpack(z)
        about_n, h = self.of_number(h), self.of_members(h)
        n = place[:, 0] + self.lowest
        most = int(n.max())
        v, theta, relative = v[:, :most], theta[:, :most], relative[:, :most]
        used = torch.arange(most, device=z.device) < n[:, None]
        k, weight = self._chosen(n)
        at = k.long() - 1
        turn = Turn(
            k=k,
            n=n[:, None].expand_as(k),
            prefix=self.context.prefixes(theta, relative, used).gather(at),
            last=gather(theta, (at - 1).clamp(min=0)) * (at > 0)[..., None],
            first=theta[:, :1, 0] * (at > 0),
        )
        sums = self.budget(h)
        known = self.context.know(h, sums).for_places()
        expected = self.context.expect(known, turn.k, turn.n, self.whitening)
        context = self.context(known, expected, turn, self.whitening)
        log_q = self._member_log_prob(context, gather(v, at), gather(theta, at))
        mean = (weight * log_q).sum(1) / weight.sum(1)
        loss: Tensor = self.number.loss(place, about_n) - mean
        if self.training:  # what the estimates learn from; no part of the density
            of_sums = self.budget.loss(sums, self._sums(theta, relative))
            of_rank = self.context.ranks.loss(expected[0], gather(theta[..., 0], at))
            loss = loss + _AUXILIARY * (of_sums + (weight * of_rank).sum(1) / weight.sum(1))
        return loss

    def _sums(self, theta: Tensor, relative: Tensor) -> Tensor:
        return member_sums(theta, relative, float(self.whitening.scale[0]))

    def fit_lines(self, z: Tensor, scalars: Tensor) -> None:
        """Set the lines of the budget from packed sets z (n, k) and scalars (n, 4) of planes."""
        _, _, theta, relative = self.unpack(z)
        self.budget.fit_lines(self._sums(theta, relative), scalars)

    # -- density -------------------------------------------------------------------------

    def log_pmf(self, h: Tensor) -> Tensor:
        """Return log q(N | h) of all values, (n, R)."""
        rows, h = self.number.sizes[0], self.of_number(h)
        places = torch.arange(rows, device=h.device, dtype=h.dtype)
        shaped = places[:, None, None].expand(rows, len(h), 1)
        log_p: Tensor = self.number.log_prob(shaped, h)
        return log_p.T.log_softmax(-1)

    def log_prob(self, z: Tensor, h: Tensor) -> Tensor:
        """Return log q* of N and all members, (n,), whitened, before :meth:`settle`."""
        place, v, theta, relative = self.unpack(z)
        about_n, h = self.of_number(h), self.of_members(h)
        n = place[:, 0] + self.lowest
        used = torch.arange(v.shape[1], device=z.device) < n[:, None]
        k = torch.arange(1, v.shape[1] + 1, device=z.device).to(h).expand(len(z), -1)
        turn = Turn(
            k=k,
            n=torch.maximum(n[:, None].expand_as(k), k),
            prefix=self.context.prefixes(theta, relative, used),
            last=torch.cat([torch.zeros_like(theta[:, :1]), theta[:, :-1]], 1),
            first=theta[:, :1, 0] * (k > 1),
        )
        context = self._context(self.context.know(h).for_places(), turn)
        log_q = self._member_log_prob(context, v, theta)
        total: Tensor = self.number.log_prob(place, about_n) + torch.where(used, log_q, 0.0).sum(1)
        return total

    # -- the accreted mass ---------------------------------------------------------------

    def mass_estimate(self, h: Tensor) -> Estimate:
        """Return log10 of the accreted mass (m,) [Msun] and its scatter, of summaries (m, f)."""
        mean, log_sd = self.budget(self.of_members(h))
        return self.settling.estimate(mean[:, 0], log_sd[:, 0], self.whitening)

    def settle(self, members: Tensor, count: Tensor, h: Tensor, noise: Tensor) -> Tensor:
        """Return drawn sets (m, K, d) with masses as the data say; see :class:`Settling`."""
        estimate = self.mass_estimate(h)
        return self.settling.settle(members, count, estimate, noise, self.whitening)

    def log_prob_sets(self, members: Tensor, count: Tensor, h: Tensor) -> Tensor:
        """Return log q of N and of sets (m, K, d), per log10 Msun and Gyr, (m,), float64."""
        members = members[:, : int(count.max())]
        parts = []
        for before, log_w in self.settling.origins(
            members, count, self.mass_estimate(h), self.whitening
        ):
            log_q = self.log_prob(self.pack(before, count).to(h), h).double()
            parts.append(log_q + self.whitening.log_volume(before, count).sum(1) + log_w)
        return torch.stack(parts).logsumexp(0)

    # -- draws ---------------------------------------------------------------------------

    def draw_members(
        self, noise: Callable[[int], Tensor], h: Tensor, n: Tensor, most: int | None = None
    ) -> Iterator[Tensor]:
        """Yield members (m, d), physical units, one place after the other.

        Parameters
        ----------
        noise
            Gives standard normal numbers (m, d) for d, place after place.
        h
            Summaries, (m, features).
        n
            N of every set, (m,); what is yielded beyond it has no meaning.
        most
            Stop after so many places; default: the largest N.
        """
        s = self._start(self.of_members(h), n)
        m = len(n)
        for place in range(1, int(most or n.max()) + 1):
            eps = noise(self.dim)  # of all rows, so that the rows in use do not matter
            active = s.count >= place
            if int(active.sum()) < 0.8 * len(active):
                s = s.take(active)
            k = torch.full_like(s.count, float(place))
            total = torch.maximum(s.count, k)
            turn = Turn(k, total, s.prefix, s.last, s.first, s.log_f)
            now = self.context.ranks(s.known.seen, k, total, self.whitening)
            before = now if place == 1 else s.expected.unbind(-1)
            context = self.context(s.known, (now, before), turn, self.whitening)
            s.expected = torch.stack(now, -1)
            theta, log_f = self._next(context, eps[s.rows], s.log_f, total - k + 1)
            out = torch.zeros(m, self.dim, dtype=theta.dtype, device=theta.device)
            out[s.rows] = theta
            yield out
            self._add(s, theta, log_f, place)

    def _start(self, h: Tensor, n: Tensor) -> _State:
        """Return the state before the first member."""
        m, dtype, device = len(h), h.dtype, h.device
        none = torch.zeros(m, dtype=dtype, device=device)
        return _State(
            rows=torch.arange(m, device=device),
            count=n.to(dtype),
            known=self.context.know(h),
            prefix=self.context.nothing(m, self.dim, h),
            last=torch.zeros(m, self.dim, dtype=dtype, device=device),
            first=none,
            top=none.double(),
            log_f=none.double(),
            expected=h.new_zeros(m, 2),
        )

    def _add(self, s: _State, theta: Tensor, log_f: Tensor, place: int) -> None:
        """Add a member (m, d) to the state."""
        last = self.whitening.standardised(theta).to(s.last.dtype)
        if place == 1:
            s.first, s.top = last[:, 0], theta[:, 0]
        relative = (10 ** (theta[:, 0] - s.top)).to(last.dtype)
        s.prefix = self.context.add(s.prefix, last, relative)
        s.last, s.log_f = last, log_f

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
