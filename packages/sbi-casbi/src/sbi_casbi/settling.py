r"""The last step of a draw: all members scaled together, so that their sum is what the data say.

Members drawn one after the other add up to a mass that scatters more than the data allow. With
:math:`t^*` = log10 of that mass, :math:`\hat t \pm s` what the plane says about it
(:mod:`sbi_casbi.budget`) and w the scatter of draws about :math:`\hat t`, the set keeps its ratios
and gets a mass :math:`t \sim p(t\,|\,t^*)` (:mod:`sbi_casbi.total`). Centre and width of the
estimate and the scatter of draws,

.. math:: \log w = a + b \log N + c \log s ,

are measured on validation halos after training; where settling does not sharpen the accreted mass
there (survey stars, whose number says nothing), it is left out. Dark masses follow along their mean
relation. In coordinates (t, ratios) the density of a set is one integral over its origins,

.. math:: q(t, r) = \int q^*(t^*, r)\, p(t\,|\,t^*, r)\, \mathrm dt^* .
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sbi_casbi import total
from sbi_casbi.budget import MEAN_LOG_NORMAL, least_squares, log_total
from sbi_casbi.ordered import Whitening

__all__ = ["Estimate", "Settling"]

Estimate = tuple[Tensor, Tensor]  # log10 of the accreted mass (m,), its standard deviation


class Settling(nn.Module):
    """Calibration of the accreted mass, and the map of drawn sets to settled ones."""

    correction: Tensor
    spread: Tensor
    used: Tensor

    def __init__(self) -> None:
        super().__init__()
        # offset, in standard deviations, and factor of the width of the estimated mass
        self.register_buffer("correction", torch.tensor([0.0, 1.0]))
        # log scatter of the mass of draws: a line in log N and the log scatter of the estimate
        self.register_buffer("spread", torch.tensor([0.0, 0.0, 1.0]))
        self.register_buffer("used", torch.tensor(True))

    def estimate(self, mean: Tensor, log_sd: Tensor, whitening: Whitening) -> Estimate:
        """Return log10 of the accreted mass and its scatter, float64, of standardised ones (m,)."""
        sd = log_sd.double().exp() * whitening.scale[0]
        offset, factor = self.correction.double()
        return whitening.mass_scaled(mean) + offset * sd, factor * sd

    def fit_correction(self, mass: Tensor, count: Tensor, estimate: Estimate) -> None:
        """Centre and widen the estimate.

        Parameters
        ----------
        mass, count
            True log10 masses (m, K) and N (m,) of validation halos.
        estimate
            Of their planes, with the correction so far.
        """
        centre, sd = estimate
        off = (log_total(mass, count) - centre) / sd
        low, middle, high = off.quantile(torch.tensor([0.16, 0.5, 0.84], dtype=off.dtype))
        offset, factor = self.correction.double()
        self.correction.copy_(torch.stack([offset + factor * middle, factor * (high - low) / 2]))

    def fit_spread(self, mass: Tensor, count: Tensor, estimate: Estimate) -> None:
        """Measure how much the mass of draws (m, K), (m,) scatters about its estimate."""
        centre, sd = estimate
        rest = (log_total(mass, count) - centre).abs().clamp(min=1e-6).log() + MEAN_LOG_NORMAL
        design = torch.stack([torch.ones_like(rest), count.double().log(), sd.log()], 1)
        self.spread.copy_(least_squares(design, rest, torch.ones_like(rest)).float())

    def decide(
        self,
        members: Tensor,
        count: Tensor,
        estimate: Estimate,
        noise: Tensor,
        truth: Tensor,
        w: Whitening,
    ) -> None:
        """Use settling if it lowers the continuous ranked probability score of the accreted mass.

        Gneiting & Raftery 2007, J. Am. Stat. Assoc. 102, 359 (eq. 21), in units of the estimate's
        standard deviation, mean over validation halos.

        Parameters
        ----------
        members, count, estimate, noise, w
            As for :meth:`settle`; rows are (halo, draw).
        truth
            True log10 accreted masses of the halos, (n,).
        """
        self.used.fill_(True)
        settled = self.settle(members, count, estimate, noise, w)
        sd = estimate[1].reshape(len(truth), -1)[:, 0]
        before, after = (
            (_crps(log_total(m[..., 0], count).reshape(len(truth), -1), truth) / sd).mean()
            for m in (members, settled)
        )
        self.used.fill_(bool(after < before))

    def _wide(self, count: Tensor, sd: Tensor) -> Tensor:
        a, b, c = self.spread.double()
        return (a + b * count.double().log() + c * sd.log()).exp()

    def settle(
        self, members: Tensor, count: Tensor, estimate: Estimate, noise: Tensor, w: Whitening
    ) -> Tensor:
        """Return sets whose accreted mass scatters as the data say.

        Parameters
        ----------
        members, count
            Drawn sets (m, K, d), float64, of N (m,) members.
        estimate
            Of their accreted mass.
        noise
            Standard normal numbers, (m,).
        w
            Whose mass range and relation of dark masses members keep.
        """
        if not self.used:
            return members
        centre, sd = estimate
        drawn, low, high = _range(members[..., 0], count, w)
        u = torch.special.ndtr(noise.double()).clamp(1e-12, 1 - 1e-12)
        mean, scatter = total.conditional(drawn, centre, sd, self._wide(count, sd))
        new = total.draw_total(mean, scatter, low, high, u)
        return _moved(members, count, new - drawn, w)[0]

    def origins(
        self, members: Tensor, count: Tensor, estimate: Estimate, w: Whitening
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield drawn sets (m, K, d) that settle to ``members``, with log weights (m,).

        The weights hold the density of the step, the Jacobian and the width of the node.
        """
        if not self.used:
            yield members, torch.zeros(len(count), dtype=torch.float64, device=count.device)
            return
        centre, sd = estimate
        wide = self._wide(count, sd)
        now, low, high = _range(members[..., 0], count, w)
        places, log_w = total.nodes(centre, wide, low, high)
        for place, weight in zip(places, log_w, strict=True):
            before, volume = _moved(members, count, place - now, w)
            mean, scatter = total.conditional(place, centre, sd, wide)
            step = total.log_density(now, mean, scatter, low, high)
            yield before, weight + step + volume


def _crps(draws: Tensor, truth: Tensor) -> Tensor:
    """Return E|X - t| - E|X - X'| / 2 of draws (n, s), fair to a finite s, (n,)."""
    s = draws.shape[1]
    apart = (draws[:, :, None] - draws[:, None]).abs().sum((1, 2)) / (s * (s - 1))
    return (draws - truth[:, None]).abs().mean(1) - 0.5 * apart


def _range(mass: Tensor, count: Tensor, w: Whitening) -> tuple[Tensor, Tensor, Tensor]:
    """Return log10 mass of sets (m, K), and its ends at which a member leaves the library."""
    now = log_total(mass, count)
    last = mass.gather(1, (count.long() - 1)[:, None])[:, 0]
    return now, w.mass_grid[0] + now - last, w.mass_grid[-1] + now - mass[:, 0]


def _moved(members: Tensor, count: Tensor, shift: Tensor, w: Whitening) -> tuple[Tensor, Tensor]:
    """Return sets (m, K, d) with all log10 masses shifted by (m,), and the log Jacobian (m,).

    A member keeps its place in the scatter of dark masses.
    """
    used = torch.arange(members.shape[1], device=members.device) < count[:, None]
    out, volume = members.double().clone(), torch.zeros_like(shift)
    out[..., 0] += torch.where(used, shift[:, None], 0.0)
    if w.dim == 3:
        (mean, scale), (to, wide) = (w.dark_of(m[..., 0]) for m in (members, out))
        dark = to + wide * (out[..., 1] - mean) / scale
        out[..., 1] = torch.where(used, dark, out[..., 1])
        volume = torch.where(used, (wide / scale).log(), 0.0).sum(1)
    return out, volume
