r"""Density of a set of members: training loss, log probability, sampling.

.. math::
    q(N, \theta_{1..N}\,|\,x) = q(N\,|\,h) \prod_{k=1}^{N} q(\theta_k\,|\,\theta_{<k}, k, N, h)

See :mod:`sbi_casbi.sets` for the terms and the modules that hold them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from sbi_casbi.sets.context import ContextNetwork, HaloEncoding, PrefixSums, Step, gather
from sbi_casbi.sets.member_flow import MemberFlow
from sbi_casbi.sets.number import NumberKind, number_head
from sbi_casbi.sets.sums import SumRegression, member_sums
from sbi_casbi.sets.total_mass import MassEstimate, TotalMass
from sbi_casbi.sets.whitening import Whitening
from sbi_core import Head

__all__ = ["SetConfig", "SetDensity"]

F64 = NDArray[np.float64]
_AUXILIARY = 0.2  # weight of each auxiliary regression loss
_MEMBERS_PER_ROW = 4  # members of a halo in one training step, including the first
_VALIDATED = (1, 2, 3, 5, 10, 20, 40, 80)  # ranks in the validation loss


class SetConfig(BaseModel):
    """Options of the estimator of sets."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    design: Literal["joint", "two_step"] = Field(
        "joint",
        description="joint: one summary of the plane for N and members; two_step: separate "
        "networks for N and for the members given N",
    )
    number: NumberKind = Field(
        "ordinal",
        description="p(N | x): ordinal (discretised logistics), classes (softmax), or flow "
        "(dequantised N)",
    )
    hidden: int = Field(128, ge=16, le=512, description="width of the context of a member")
    bins: int = Field(16, ge=4, le=64, description="number of bins of a spline")


@dataclass
class _SamplerState:
    """State before the next member is drawn, one row per set that has one."""

    rows: Tensor
    count: Tensor
    halo: HaloEncoding
    prefix: PrefixSums
    last: Tensor  # standardised previous member, (m, dim)
    first: Tensor  # standardised log10 mass of the first member
    top: Tensor  # the same in log10 Msun, float64
    log_cdf: Tensor  # log F of the previous mass

    def take(self, keep: Tensor) -> _SamplerState:
        """Return the state of some rows."""
        own = {k: v[keep] for k, v in vars(self).items() if isinstance(v, Tensor)}
        return _SamplerState(halo=self.halo.take(keep), prefix=self.prefix.take(keep), **own)


class SetDensity(Head):
    """Density of N and of N ordered members.

    Parameters
    ----------
    features
        Size of the summary; for ``two_step`` the first half is for N, the second for members.
    counts
        Values of N, increasing.
    size
        K, largest number of members.
    dim
        Numbers per member: 3, or 2 without the dark mass.
    config
        Options.
    """

    rows_per_call = 16_384

    def __init__(self, features: int, counts: F64, size: int, dim: int, config: SetConfig) -> None:
        super().__init__()
        self.size, self.dim, self.config = size, dim, config
        self.separate = config.design == "two_step"
        features = features // 2 if self.separate else features
        self.number: Any = number_head(config.number, features, counts)
        self.lowest = int(counts[0])
        self.noise_size = self.number.noise_size + size * dim
        self.whitening = Whitening(dim)
        self.context = ContextNetwork(features, dim, config.hidden)
        self.total_mass = TotalMass()
        self.member_flow = MemberFlow(config.hidden, dim, config.bins)

    def number_summary(self, h: Tensor) -> Tensor:
        """Return the part of summaries (..., features) from which N is inferred."""
        return h[..., : h.shape[-1] // 2] if self.separate else h

    def member_summary(self, h: Tensor) -> Tensor:
        """Return the part of summaries (..., features) from which members are inferred."""
        return h[..., h.shape[-1] // 2 :] if self.separate else h

    @property
    def sums(self) -> SumRegression:
        """The regression of sums over members."""
        return self.context.sums

    # -- training ------------------------------------------------------------------------

    def pack(self, members: Tensor, count: Tensor) -> Tensor:
        """Return the targets of :meth:`loss` for sets (n, K, d) of ``count`` (n,) members."""
        used = torch.arange(members.shape[1]) < count[:, None]
        clean = torch.where(used[..., None], members.double(), 0.0)
        v = self.whitening.whiten(clean, count)
        theta = torch.where(used[..., None], self.whitening.standardise(clean), 0.0)
        relative = torch.where(used, 10 ** (clean[..., 0] - clean[:, :1, 0]), 0.0)
        parts = [(count - self.lowest)[:, None].double(), v.flatten(1), theta.flatten(1), relative]
        return torch.cat(parts, 1).float()

    def unpack(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return index of N (n, 1), v and standardised members (n, K, d), relative mass (n, K)."""
        size = (z.shape[1] - 1) // (2 * self.dim + 1)
        index, v, theta, relative = z.split([1, size * self.dim, size * self.dim, size], -1)
        shape = (len(z), size, self.dim)
        return index, v.reshape(shape), theta.reshape(shape), relative

    def _ranks_in_loss(self, n: Tensor) -> tuple[Tensor, Tensor]:
        """Return ranks (B, T), from 1, that enter the loss, and their weights."""
        if self.training:
            more = _MEMBERS_PER_ROW - 1
            # density about 1/k: the data constrain the first members most
            u = torch.rand((len(n), more), device=n.device)
            some = ((n + 1).log()[:, None] * u).exp().floor()
            k = torch.cat([torch.ones_like(n[:, None]), torch.minimum(some, n[:, None])], 1)
            return k, torch.ones_like(k)
        fixed = torch.tensor(_VALIDATED, dtype=n.dtype, device=n.device).expand(len(n), -1)
        k = torch.cat([fixed.clamp(max=self.size), n[:, None]], 1)
        exists = k <= n[:, None]
        return torch.where(exists, k, 1.0), exists.to(n)

    def loss(self, z: Tensor, h: Tensor) -> Tensor:
        """Return -log q(N) - mean over some members of log q(theta_k), (n,), whitened units.

        Every (N, k) has a separate conditional density, so that weights do not move the optimum.
        Training adds the gradient of the regression of sums, but not its value: training and
        validation loss are comparable.
        """
        index, v, theta, relative = self.unpack(z)
        number_h, h = self.number_summary(h), self.member_summary(h)
        n = index[:, 0] + self.lowest
        most = int(n.max())
        v, theta, relative = v[:, :most], theta[:, :most], relative[:, :most]
        used = torch.arange(most, device=z.device) < n[:, None]
        k, weight = self._ranks_in_loss(n)
        at = k.long() - 1
        step = Step(
            k=k,
            n=n[:, None].expand_as(k),
            prefix=self.context.all_prefixes(theta, relative, used).gather(at),
            last=gather(theta, (at - 1).clamp(min=0)) * (at > 0)[..., None],
            first=theta[:, :1, 0] * (at > 0),
        )
        sums = self.sums(h)
        halo = self.context.encode(h, sums).per_member()
        context = self.context(halo, step, self.whitening)
        log_q = self.member_flow.log_prob(gather(v, at), gather(theta, at), context)
        mean = (weight * log_q).sum(1) / weight.sum(1)
        loss: Tensor = self.number.loss(index, number_h) - mean
        if self.training:  # the regression of sums is not part of the density
            extra = _AUXILIARY * self.sums.loss(sums, self._sums(theta, relative))
            loss = loss + (extra - extra.detach())
        return loss

    def _sums(self, theta: Tensor, relative: Tensor) -> Tensor:
        return member_sums(theta, relative, float(self.whitening.scale[0]))

    def fit_sums(self, z: Tensor, scalars: Tensor) -> None:
        """Fit the linear part of :attr:`sums` to packed sets z (n, k) and scalars (n, 4)."""
        _, _, theta, relative = self.unpack(z)
        self.sums.fit_linear(self._sums(theta, relative), scalars)

    # -- density -------------------------------------------------------------------------

    def log_pmf(self, h: Tensor) -> Tensor:
        """Return log q(N | h) of all values, (n, R)."""
        rows, h = self.number.sizes[0], self.number_summary(h)
        index = torch.arange(rows, device=h.device, dtype=h.dtype)
        shaped = index[:, None, None].expand(rows, len(h), 1)
        log_p: Tensor = self.number.log_prob(shaped, h)
        return log_p.T.log_softmax(-1)

    def log_prob(self, z: Tensor, h: Tensor) -> Tensor:
        """Return log q* of N and all members, (n,), whitened, before :meth:`rescale`."""
        index, v, theta, relative = self.unpack(z)
        number_h, h = self.number_summary(h), self.member_summary(h)
        n = index[:, 0] + self.lowest
        used = torch.arange(v.shape[1], device=z.device) < n[:, None]
        k = torch.arange(1, v.shape[1] + 1, device=z.device).to(h).expand(len(z), -1)
        step = Step(
            k=k,
            n=torch.maximum(n[:, None].expand_as(k), k),
            prefix=self.context.all_prefixes(theta, relative, used),
            last=torch.cat([torch.zeros_like(theta[:, :1]), theta[:, :-1]], 1),
            first=theta[:, :1, 0] * (k > 1),
        )
        log_q = self.member_log_prob(step, v, theta, h)
        total: Tensor = self.number.log_prob(index, number_h)
        return total + torch.where(used, log_q, 0.0).sum(1)

    def member_log_prob(self, step: Step, v: Tensor, theta: Tensor, h: Tensor) -> Tensor:
        """Return log q (n, K) of whitened members v (n, K, d), standardised theta, at their steps.

        Parameters
        ----------
        step
            Ranks and earlier members, (n, K).
        v, theta
            Whitened and standardised members.
        h
            Summaries for members, (n, features).
        """
        halo = self.context.encode(h).per_member()
        return self.member_flow.log_prob(v, theta, self.context(halo, step, self.whitening))

    # -- the accreted mass ---------------------------------------------------------------

    def mass_estimate(self, h: Tensor) -> MassEstimate:
        """Return log10 of the accreted mass (m,) [Msun] and its scatter, of summaries (m, f)."""
        mean, log_sd = self.sums(self.member_summary(h))
        return self.total_mass.calibrated(mean[:, 0], log_sd[:, 0], self.whitening)

    def rescale(self, members: Tensor, count: Tensor, h: Tensor, noise: Tensor) -> Tensor:
        """Return drawn sets (m, K, d), rescaled to the calibrated total mass."""
        estimate = self.mass_estimate(h)
        return self.total_mass.rescale(members, count, estimate, noise, self.whitening)

    def log_prob_sets(self, members: Tensor, count: Tensor, h: Tensor) -> Tensor:
        """Return log q of N and of sets (m, K, d), per log10 Msun and Gyr, (m,), float64."""
        members = members[:, : int(count.max())]
        parts = []
        for before, log_w in self.total_mass.preimages(
            members, count, self.mass_estimate(h), self.whitening
        ):
            log_q = self.log_prob(self.pack(before, count).to(h), h).double()
            log_det = self.whitening.log_det_jacobian(before, count).sum(1)
            parts.append(log_q + log_det + log_w)
        return torch.stack(parts).logsumexp(0)

    # -- sampling ------------------------------------------------------------------------

    def draw_members(
        self, noise: Callable[[int], Tensor], h: Tensor, n: Tensor, most: int | None = None
    ) -> Iterator[Tensor]:
        """Yield the k-th members (m, d), physical units, for k = 1, 2, ...

        Parameters
        ----------
        noise
            Called with d for every k, returns standard normal numbers (m, d).
        h
            Summaries, (m, features).
        n
            N of every set, (m,); values yielded beyond it are to be ignored.
        most
            Stop after this many members; default: the largest N.
        """
        s = self._start(self.member_summary(h), n)
        m = len(n)
        for rank in range(1, int(most or n.max()) + 1):
            eps = noise(self.dim)  # for all rows: the active rows do not change the random stream
            active = s.count >= rank
            if int(active.sum()) < 0.8 * len(active):
                s = s.take(active)
            k = torch.full_like(s.count, float(rank))
            total = torch.maximum(s.count, k)
            step = Step(k, total, s.prefix, s.last, s.first)
            context = self.context(s.halo, step, self.whitening)
            theta, log_cdf = self.member_flow.draw(
                eps[s.rows], context, s.log_cdf, total - k + 1, self.whitening
            )
            out = torch.zeros(m, self.dim, dtype=theta.dtype, device=theta.device)
            out[s.rows] = theta
            yield out
            self._append(s, theta, log_cdf, rank)

    def _start(self, h: Tensor, n: Tensor) -> _SamplerState:
        """Return the state before the first member."""
        m, dtype, device = len(h), h.dtype, h.device
        none = torch.zeros(m, dtype=dtype, device=device)
        return _SamplerState(
            rows=torch.arange(m, device=device),
            count=n.to(dtype),
            halo=self.context.encode(h),
            prefix=self.context.empty_prefix(m, self.dim, h),
            last=torch.zeros(m, self.dim, dtype=dtype, device=device),
            first=none,
            top=none.double(),
            log_cdf=none.double(),
        )

    def _append(self, s: _SamplerState, theta: Tensor, log_cdf: Tensor, rank: int) -> None:
        """Add a member (m, d) to the state."""
        last = self.whitening.standardise(theta).to(s.last.dtype)
        if rank == 1:
            s.first, s.top = last[:, 0], theta[:, 0]
        relative = (10 ** (theta[:, 0] - s.top)).to(last.dtype)
        s.prefix = self.context.extend(s.prefix, last, relative)
        s.last, s.log_cdf = last, log_cdf
