r"""Rescale a sampled set to the calibrated total mass.

Members drawn one after the other add up to a mass that scatters more than the data allow. With
:math:`\hat t \pm s` the estimate of its log10 from the data
(:mod:`sbi_casbi.sets.sums`), the rescaled set keeps its mass ratios r and has the total
mass

.. math:: t \sim \mathcal N\left(\hat t,\; s^2\right),

truncated to the masses at which all members stay inside the library. Offset and width of the
estimate are calibrated on validation halos after training. Rescaling is switched off if it makes
the accreted mass worse there, as in surveys, where the star count carries no information on the
mass. Dark masses follow the mean relation. With :math:`q^*` the density before, that of a set is

.. math:: q(t, r) = \int q^*(t^*, r)\, p(t\,|\,r)\, \mathrm dt^* .
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from sbi_casbi.sets.sums import log_total_mass
from sbi_casbi.sets.whitening import Whitening

__all__ = [
    "MassEstimate",
    "TotalMass",
    "draw_truncated_normal",
    "quadrature_nodes",
    "truncated_normal_log_prob",
]

MassEstimate = tuple[Tensor, Tensor]  # log10 of the accreted mass (m,), its standard deviation
_NODES = 97
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


class TotalMass(nn.Module):
    """Calibration of the estimated total mass, and the map of drawn sets to rescaled ones."""

    calibration: Tensor
    enabled: Tensor

    def __init__(self) -> None:
        super().__init__()
        # offset, in standard deviations, and factor of the width of the estimated mass
        self.register_buffer("calibration", torch.tensor([0.0, 1.0]))
        self.register_buffer("enabled", torch.tensor(True))

    def calibrated(self, mean: Tensor, log_sd: Tensor, whitening: Whitening) -> MassEstimate:
        """Return log10 of the accreted mass and its scatter, float64, of standardised ones (m,)."""
        sd = log_sd.double().exp() * whitening.scale[0]
        offset, factor = self.calibration.double()
        return whitening.unstandardise_mass(mean) + offset * sd, factor * sd

    def fit_calibration(self, mass: Tensor, count: Tensor, estimate: MassEstimate) -> None:
        """Update offset and width of the estimate.

        Parameters
        ----------
        mass, count
            True log10 masses (m, K) and N (m,) of validation halos.
        estimate
            Estimates for their planes, with the current calibration.
        """
        centre, sd = estimate
        residual = (log_total_mass(mass, count) - centre) / sd
        levels = torch.tensor([0.16, 0.5, 0.84], dtype=residual.dtype)
        low, middle, high = residual.quantile(levels)
        offset, factor = self.calibration.double()
        self.calibration.copy_(torch.stack([offset + factor * middle, factor * (high - low) / 2]))

    def disable_if_worse(
        self,
        members: Tensor,
        count: Tensor,
        estimate: MassEstimate,
        noise: Tensor,
        truth: Tensor,
        whitening: Whitening,
    ) -> None:
        """Switch rescaling off if it raises the continuous ranked probability score of the mass.

        Gneiting & Raftery 2007, J. Am. Stat. Assoc. 102, 359 (eq. 21), in units of the standard
        deviation of the estimate. It must be higher by two standard errors of its mean over
        validation halos: where both scores are equal, rescaled sets have the calibrated scatter.

        Parameters
        ----------
        members, count, estimate, noise, whitening
            As for :meth:`rescale`; rows are (halo, draw).
        truth
            True log10 accreted masses of the halos, (n,).
        """
        self.enabled.fill_(True)
        rescaled = self.rescale(members, count, estimate, noise, whitening)
        sd = estimate[1].reshape(len(truth), -1)[:, 0]
        before, after = (
            _crps(log_total_mass(m[..., 0], count).reshape(len(truth), -1), truth) / sd
            for m in (members, rescaled)
        )
        worse = after - before
        self.enabled.fill_(bool(worse.mean() < 2 * worse.std() / len(worse) ** 0.5))

    def rescale(
        self,
        members: Tensor,
        count: Tensor,
        estimate: MassEstimate,
        noise: Tensor,
        whitening: Whitening,
    ) -> Tensor:
        """Return the sets with a total mass that scatters as its estimate does.

        Parameters
        ----------
        members, count
            Drawn sets (m, K, d), float64, of N (m,) members.
        estimate
            Estimates of their total mass.
        noise
            Standard normal numbers, (m,).
        whitening
            Its mass range and its dark-mass relation apply.
        """
        if not self.enabled:
            return members
        centre, sd = estimate
        drawn, low, high = _range(members[..., 0], count, whitening)
        u = torch.special.ndtr(noise.double()).clamp(1e-12, 1 - 1e-12)
        new = draw_truncated_normal(centre, sd, low, high, u)
        return _shifted(members, count, new - drawn, whitening)[0]

    def preimages(
        self, members: Tensor, count: Tensor, estimate: MassEstimate, whitening: Whitening
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield drawn sets (m, K, d) that are rescaled to ``members``, with log weights (m,).

        The weights contain the density of the rescaling, the Jacobian and the quadrature weight.
        """
        if not self.enabled:
            yield members, torch.zeros(len(count), dtype=torch.float64, device=count.device)
            return
        centre, sd = estimate
        now, low, high = _range(members[..., 0], count, whitening)
        nodes, log_w = quadrature_nodes(centre, sd, low, high)
        step = truncated_normal_log_prob(now, centre, sd, low, high)
        for node, weight in zip(nodes, log_w, strict=True):
            before, log_det = _shifted(members, count, node - now, whitening)
            yield before, weight + step + log_det


def _crps(draws: Tensor, truth: Tensor) -> Tensor:
    """Return the unbiased estimate of E|X - t| - E|X - X'| / 2 from draws (n, s), (n,)."""
    s = draws.shape[1]
    apart = (draws[:, :, None] - draws[:, None]).abs().sum((1, 2)) / (s * (s - 1))
    return (draws - truth[:, None]).abs().mean(1) - 0.5 * apart


def _range(mass: Tensor, count: Tensor, whitening: Whitening) -> tuple[Tensor, Tensor, Tensor]:
    """Return log10 total mass of sets (m, K), and its limits for members inside the library."""
    now = log_total_mass(mass, count)
    last = mass.gather(1, (count.long() - 1)[:, None])[:, 0]
    return now, whitening.mass_grid[0] + now - last, whitening.mass_grid[-1] + now - mass[:, 0]


def _shifted(
    members: Tensor, count: Tensor, shift: Tensor, whitening: Whitening
) -> tuple[Tensor, Tensor]:
    """Return sets (m, K, d) with all log10 masses shifted by (m,), and the log Jacobian (m,).

    A member keeps its standardised residual from the dark-mass relation.
    """
    used = torch.arange(members.shape[1], device=members.device) < count[:, None]
    out, log_det = members.double().clone(), torch.zeros_like(shift)
    out[..., 0] += torch.where(used, shift[:, None], 0.0)
    if whitening.dim == 3:
        (mean, scale), (to, wide) = (
            whitening.dark_mass_relation(m[..., 0]) for m in (members, out)
        )
        dark = to + wide * (out[..., 1] - mean) / scale
        out[..., 1] = torch.where(used, dark, out[..., 1])
        log_det = torch.where(used, (wide / scale).log(), 0.0).sum(1)
    return out, log_det


# -- the truncated normal distribution of the total mass ---------------------------------------


def draw_truncated_normal(mean: Tensor, sd: Tensor, low: Tensor, high: Tensor, u: Tensor) -> Tensor:
    """Return draws (...) of the normal distribution truncated to low..high, from uniform u."""
    a, b = (low - mean) / sd, (high - mean) / sd
    # work in the lower tail, where no digits are lost
    flip = a + b > 0
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    u = torch.where(flip, 1 - u, u)
    below, above = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    log_p = torch.logaddexp(below + torch.log1p(-u), above + u.log())
    z = _ndtri_exp(log_p)
    z = torch.minimum(torch.maximum(z, a), b)
    return mean + sd * torch.where(flip, -z, z)


def truncated_normal_log_prob(
    t: Tensor, mean: Tensor, sd: Tensor, low: Tensor, high: Tensor
) -> Tensor:
    """Return the log density (...) of :func:`draw_truncated_normal` at t."""
    a, b = (low - mean) / sd, (high - mean) / sd
    flip = a + b > 0
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    below, above = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    span = above + torch.log(-torch.expm1((below - above).clamp(max=-1e-12)))
    z = (t - mean) / sd
    return -0.5 * z * z - _LOG_SQRT_2PI - sd.log() - span


def quadrature_nodes(
    estimate: Tensor, sd: Tensor, low: Tensor, high: Tensor
) -> tuple[Tensor, Tensor]:
    """Return nodes (J, ...) and log weights of the integral over the drawn mass, low to high.

    Trapezoidal rule in x, with t = estimate + sd sinh x: dense where drawn masses lie.
    """
    ends = [torch.asinh((v - estimate) / sd) for v in (low, high)]
    share = torch.linspace(0, 1, _NODES, dtype=sd.dtype, device=sd.device)
    share = share.reshape(-1, *[1] * sd.ndim)
    x = ends[0] + share * (ends[1] - ends[0])
    weight = torch.ones_like(share)
    weight[0] = weight[-1] = 0.5
    step = (ends[1] - ends[0]).clamp(min=1e-9) / (_NODES - 1)
    return estimate + sd * torch.sinh(x), (weight * step * sd * torch.cosh(x)).log()


def _ndtri_exp(log_p: Tensor) -> Tensor:
    """Return the normal quantile of exp(log_p), (...), by Newton steps deep in the lower tail."""
    z = torch.special.ndtri(log_p.exp().clamp(1e-300, 1 - 1e-16))
    deep = log_p < -600.0
    start = -torch.sqrt(-2 * log_p.clamp(max=-1.0))
    for _ in range(4):
        value = torch.special.log_ndtr(start)
        slope = (-0.5 * start * start - _LOG_SQRT_2PI - value).exp()
        start = start - (value - log_p) / slope
    return torch.where(deep, start, z)
