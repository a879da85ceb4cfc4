r"""Whitening of sets ordered by mass: an invertible map to standard normal numbers.

For N independent members with distribution function F of log M, sorted
:math:`M_1 \ge \dots \ge M_N`, and with :math:`F(M_0) = 1`,

.. math:: u_k = \left[\frac{F(M_k)}{F(M_{k-1})}\right]^{N - k + 1}

are independent and uniform on (0, 1) (Rényi's representation of order statistics), so that
:math:`v_k = \Phi^{-1}(u_k)` are independent standard normal numbers under the prior. The inverse
map returns masses in decreasing order and inside the support of F for every v. The dark mass is
whitened with its mean and scatter at given :math:`M_*`, the infall time with its distribution
function:

.. math:: v_\mathrm{dm} = \frac{\log M_\mathrm{dm} - \mu(M)}{s(M)}, \qquad
          v_\tau = \Phi^{-1}(F_\tau(\tau)).

References:
    | Rényi 1953, Acta Math. Acad. Sci. Hung. 4, 191
    | David & Nagaraja 2003, Order Statistics, section 2.5
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

__all__ = ["Whitening"]

F64 = NDArray[np.float64]
_KNOTS = 513
_DARK_KNOTS = 33
_FLOOR = 1e-3  # share of a uniform distribution in every F, so that F increases strictly
_LOG_SMALLEST = -30.0
_LARGEST_V = 5.0
_LOG_SQRT_2PI = 0.9189385332046727


class Whitening(nn.Module):
    """Map between members and standard normal numbers v; tables are float64 buffers.

    Parameters
    ----------
    dim
        3 for (log M_star, log M_dm, tau), 2 for (log M_star, tau).
    """

    mass_grid: Tensor
    mass_cdf: Tensor
    tau_grid: Tensor
    tau_cdf: Tensor
    dark_grid: Tensor
    dark_mean: Tensor
    dark_scale: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        for name, size in (
            ("mass_grid", _KNOTS),
            ("mass_cdf", _KNOTS),
            ("tau_grid", _KNOTS),
            ("tau_cdf", _KNOTS),
            ("dark_grid", _DARK_KNOTS),
            ("dark_mean", _DARK_KNOTS),
            ("dark_scale", _DARK_KNOTS),
            ("centre", dim),
            ("scale", dim),
        ):
            start = torch.linspace(0, 1, size) if name.endswith(("grid", "cdf")) else None
            values = torch.ones(size) if start is None else start
            self.register_buffer(name, values.double())

    def fit(
        self,
        members: F64,
        mask: NDArray[np.bool_],
        mass_span: tuple[float, float],
        tau_span: tuple[float, float],
    ) -> Whitening:
        """Fit the distributions to training sets (n, K, dim) and return self.

        Parameters
        ----------
        members, mask
            Sets, and their mask (True: member).
        mass_span, tau_span
            Support of log10 M_star [Msun] and tau [Gyr].
        """
        flat = np.asarray(members[mask], float)
        for name, values, span in (
            ("mass", flat[:, 0], mass_span),
            ("tau", flat[:, -1], tau_span),
        ):
            grid, cdf = _tabulated_cdf(values, span)
            getattr(self, f"{name}_grid").copy_(torch.as_tensor(grid))
            getattr(self, f"{name}_cdf").copy_(torch.as_tensor(cdf))
        self.centre.copy_(torch.as_tensor(flat.mean(0)))
        self.scale.copy_(torch.as_tensor(np.maximum(flat.std(0), 1e-6)))
        if self.dim == 3:
            self._fit_dark_mass_relation(flat[:, 0], flat[:, 1], mass_span)
        return self

    def _fit_dark_mass_relation(self, mass: F64, dark: F64, span: tuple[float, float]) -> None:
        grid = np.linspace(*span, _DARK_KNOTS)
        width = grid[1] - grid[0]
        line = np.polyfit(mass, dark, 1)
        mean, scale = np.polyval(line, grid), np.full(_DARK_KNOTS, np.std(dark) or 1.0)
        overall = float(np.std(dark - np.polyval(line, mass))) or 1.0
        for k, centre in enumerate(grid):
            near = np.abs(mass - centre) < width
            # distinct galaxies, not members: one galaxy occurs in many halos
            if len(np.unique(mass[near])) >= 20 and np.std(mass[near]) > 0.05 * width:
                # a local linear fit is unbiased at the ends of the range, too
                fit = np.polyfit(mass[near] - centre, dark[near], 1)
                mean[k] = fit[1]
                spread = float(np.std(dark[near] - np.polyval(fit, mass[near] - centre)))
                scale[k] = max(spread, 0.05)
            else:
                scale[k] = overall
        self.dark_grid.copy_(torch.as_tensor(grid))
        self.dark_mean.copy_(torch.as_tensor(mean))
        self.dark_scale.copy_(torch.as_tensor(scale))

    # -- distribution functions ------------------------------------------------------

    def log_cdf(self, mass: Tensor) -> Tensor:
        """Return log F at log10 M_star (...), float64."""
        cdf = _interpolate(mass, self.mass_grid, self.mass_cdf)
        return cdf.clamp(min=1e-13).log()

    def mass_quantile(self, log_cdf: Tensor) -> Tensor:
        """Return log10 M_star at which log F has the given value (...)."""
        return _interpolate(log_cdf.exp(), self.mass_cdf, self.mass_grid)

    def dark_mass_relation(self, mass: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and scatter of log10 M_dm at log10 M_star (...)."""
        mean = _interpolate(mass, self.dark_grid, self.dark_mean)
        return mean, _interpolate(mass, self.dark_grid, self.dark_scale)

    def unwhiten_tau(self, v: Tensor) -> Tensor:
        """Return tau [Gyr] of whitened infall times v (...)."""
        u = torch.special.ndtr(v.clamp(-_LARGEST_V, _LARGEST_V))
        return _interpolate(u, self.tau_cdf, self.tau_grid)

    def whiten_tau(self, tau: Tensor) -> Tensor:
        """Return whitened infall times v of tau (...) [Gyr]."""
        u = _interpolate(tau, self.tau_grid, self.tau_cdf)
        return torch.special.ndtri(u.clamp(1e-6, 1 - 1e-6))

    def standardise(self, members: Tensor) -> Tensor:
        """Return members (..., dim) shifted and scaled to zero mean and unit variance."""
        return (members - self.centre) / self.scale

    def unstandardise_mass(self, standard: Tensor) -> Tensor:
        """Return log10 M_star, float64, of standardised masses (...)."""
        return standard.double() * self.scale[0] + self.centre[0]

    def whiten_mass(self, mass: Tensor, log_cdf_before: Tensor, remaining: Tensor) -> Tensor:
        """Return v (...) of log10 M_star: the inverse of :meth:`unwhiten_mass`, clipped at 5."""
        log_u = ((self.log_cdf(mass) - log_cdf_before) * remaining).clamp(_LOG_SMALLEST, -1e-9)
        return _ndtri_exp(log_u).clamp(-_LARGEST_V, _LARGEST_V)

    # -- whole sets ---------------------------------------------------------------------

    def whiten(self, members: Tensor, count: Tensor) -> Tensor:
        """Return v (n, K, dim), float64, of members (n, K, dim) by decreasing mass.

        Padding beyond ``count`` (n,) is ignored and comes back as zeros.
        """
        members = members.double()
        k = torch.arange(members.shape[1], device=members.device)
        used = k < count[:, None]
        mass = torch.where(used, members[..., 0], self.mass_grid[-1])
        log_cdf = self.log_cdf(mass)
        before = torch.cat([torch.zeros_like(log_cdf[:, :1]), log_cdf[:, :-1]], 1)
        parts = [self.whiten_mass(mass, before, (count[:, None] - k).clamp(min=1))]
        if self.dim == 3:
            mean, scale = self.dark_mass_relation(mass)
            parts.append((members[..., 1] - mean) / scale)
        parts.append(self.whiten_tau(torch.where(used, members[..., -1], self.tau_grid[0])))
        return torch.where(used[..., None], torch.stack(parts, -1), 0.0)

    def unwhiten_mass(
        self, v: Tensor, log_cdf_before: Tensor, remaining: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return log10 M_star (...) of the next member, and log F there.

        Parameters
        ----------
        v
            Whitened mass (...).
        log_cdf_before
            log F at the mass of the previous member; 0 for the first member.
        remaining
            N - k + 1: members not drawn yet, including this one.
        """
        log_u = torch.special.log_ndtr(v.double().clamp(-_LARGEST_V, _LARGEST_V))
        log_cdf = log_cdf_before + log_u / remaining
        return self.mass_quantile(log_cdf), log_cdf

    def log_det_jacobian(self, members: Tensor, count: Tensor) -> Tensor:
        """Return log |det dv / d member| per member, (n, K); zero for padding."""
        members = members.double()
        k = torch.arange(members.shape[1], device=members.device)
        used = k < count[:, None]
        mass = torch.where(used, members[..., 0], self.mass_grid[-1])
        v = self.whiten(members, count)
        log_cdf = self.log_cdf(mass)
        before = torch.cat([torch.zeros_like(log_cdf[:, :1]), log_cdf[:, :-1]], 1)
        remaining = (count[:, None] - k).clamp(min=1)
        # dv/dM = u (N - k + 1) f / F / phi(v)
        total = (log_cdf - before) * remaining + remaining.log() - log_cdf
        total = (
            total + _slope(mass, self.mass_grid, self.mass_cdf).log() + _minus_log_phi(v[..., 0])
        )
        if self.dim == 3:
            total = total - self.dark_mass_relation(mass)[1].log()
        tau = torch.where(used, members[..., -1], self.tau_grid[0])
        slope = _slope(tau, self.tau_grid, self.tau_cdf).log()
        total = total + slope + _minus_log_phi(v[..., -1])
        return torch.where(used, total, 0.0)


def _tabulated_cdf(values: F64, span: tuple[float, float]) -> tuple[F64, F64]:
    grid = np.linspace(*span, _KNOTS)
    counts, _ = np.histogram(values, grid)
    share = counts / max(counts.sum(), 1) * (1 - _FLOOR) + _FLOOR / (_KNOTS - 1)
    cdf = np.concatenate([[0.0], np.cumsum(share)])
    return grid, cdf / cdf[-1]


def _cell(x: Tensor, grid: Tensor) -> Tensor:
    return (torch.searchsorted(grid, x.contiguous(), right=True) - 1).clamp(0, len(grid) - 2)


def _interpolate(x: Tensor, grid: Tensor, values: Tensor) -> Tensor:
    """Return the linear interpolation of the knots at x (...), constant outside."""
    k = _cell(x, grid)
    t = ((x - grid[k]) / (grid[k + 1] - grid[k])).clamp(0, 1)
    return values[k] + t * (values[k + 1] - values[k])


def _slope(x: Tensor, grid: Tensor, values: Tensor) -> Tensor:
    k = _cell(x, grid)
    return (values[k + 1] - values[k]) / (grid[k + 1] - grid[k])


def _minus_log_phi(v: Tensor) -> Tensor:
    return 0.5 * v * v + _LOG_SQRT_2PI


def _ndtri_exp(log_u: Tensor) -> Tensor:
    """Return Phi^-1(exp(log_u)), accurate for u near 0 and near 1, float64."""
    small = torch.special.ndtri(log_u.exp().clamp(min=1e-300))
    large = -torch.special.ndtri((-torch.expm1(log_u)).clamp(min=1e-300))
    return torch.where(log_u < -0.6931471805599453, small, large)
