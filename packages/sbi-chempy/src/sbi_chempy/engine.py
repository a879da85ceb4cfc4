r"""One-zone chemical evolution of a galaxy, for batches of parameter rows.

Gas (element masses :math:`m_e`), a corona of mass C (:math:`c_e`) and stars exchange mass on 28
time steps between 0 and the birth time T of the observed star. With star formation
:math:`s_n`, efficiency :math:`\epsilon` per step and the mass return F of all earlier
populations,

.. math::

    E_e(n) &= \sum_{j<n} s_j F_e^{(j)}(n-j) \\
    m_e &\leftarrow m_e + (1-x_{out}) E_e, \qquad
    c_e \leftarrow c_e + x_{out} E_e + p_e f_{cos} s_n \\
    I &= \max(0, s_n/\epsilon - \textstyle\sum m_e), \qquad
    m_e \leftarrow m_e + I c_e/C, \qquad m_e \leftarrow m_e (1 - s_n/\textstyle\sum m_e) ,

and the outputs are the abundances of the gas at the last step. The 28 points are part of the
model. Masses are in units of all stellar mass formed up to T, times are in Gyr.

Rows are independent: a row gives the same bits in any batch, at any chunk size.

*Yield factors* change the tables of a row. Channel c makes the net yield :math:`\nu_e` of element
e: y itself, or :math:`y_e - X_e \sum y` in a gross table, which contains material of the birth
composition X. With the metallicity Z of the population,

.. math::

    y_e \leftarrow y_e + (10^{a_{ce}} - 1) \max(\nu_e, 0), \qquad
    a_{ce} = \phi_{ce} + s_{ce} \log_{10}(Z/0.0134)

for all elements but hydrogen, which takes the difference: the returned mass does not change. What
a star destroys (:math:`\nu_e < 0`) is not scaled, since no factor may remove more than there is.

References:
    | Rybizki, Just & Rix 2017, A&A 605, A59
    | Philcox, Rybizki & Gutcke 2018, ApJ 861, 40
    | docs/chempy-model.md
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Literal

import torch
from torch import Tensor

from sbi_chempy.constants import (
    ATOMIC_MASS,
    CO_CORE_MSUN,
    ELEMENTS,
    FACTOR_CHANNELS,
    FACTOR_ELEMENTS,
    FACTOR_LOG_Z,
    N_STEPS,
    PARAMETERS,
    PRIMORDIAL,
    SN_IA_DELAY_GYR,
    SN_IA_END_GYR,
    SN_IA_SLOPE,
    SOLAR_A,
    T_END_GYR,
    T_MIN_GYR,
    Z_SUN,
)
from sbi_chempy.imf import N_GRID, cumulative_mass
from sbi_chempy.lifetimes import (
    interpolated_lifetime,
    log10_metallicity,
    turnoff_fraction,
    turnoff_grid_position,
)
from sbi_chempy.return_grid import ReturnGrid
from sbi_chempy.yields.tables import YieldSet

__all__ = ["ChempyEngine", "Schedule", "State"]

_H, _HE, _FE = (ELEMENTS.index(e) for e in ("H", "He", "Fe"))
_SN_IA = FACTOR_CHANNELS.index("sn1a")
_LN10 = math.log(10)
_PAD_ROWS = 16  # blocks hold a multiple of this many rows, so that no SIMD tail differs
_MAX_IA_STEPS = int(SN_IA_END_GYR / (T_MIN_GYR / N_STEPS)) + 3

Kernel = Literal["auto", "torch", "numba"]


@dataclass(frozen=True)
class Schedule:
    """Quantities of a parameter row that do not depend on the gas; all float64.

    Parameters
    ----------
    dt : (B,) Gyr
        Time step T/27.
    sfr : (B, 28)
        Stellar mass s_n formed at each step; sums to 1.
    corona : (B,)
        Initial mass of gas outside the galaxy, 1/R.
    sn_ia : (B, 28)
        SN Ia at each step per unit stellar mass formed up to T.
    efficiency : (B,)
        Star-formation efficiency per step.
    x_out : (B,)
        Fraction of the feedback that leaves to the corona.
    too_quiet : (B,) bool
        Rows of status 1.
    """

    dt: Tensor
    sfr: Tensor
    corona: Tensor
    sn_ia: Tensor
    efficiency: Tensor
    x_out: Tensor
    too_quiet: Tensor


@dataclass(frozen=True)
class State:
    """Galaxy after one time step.

    Parameters
    ----------
    gas : (B, 9)
        Element masses of the gas after star formation.
    gas_mass : (B,)
        Their sum G as the recursion carries it.
    corona : (B, 9), corona_mass : (B,)
        Element masses and total mass of the corona.
    infall : (B,)
        Mass that fell from the corona to the gas in this step.
    feedback : (B, 9)
        Mass returned by stars in this step.
    metallicity : (B,)
        Metal mass fraction of the gas.
    """

    gas: Tensor
    gas_mass: Tensor
    corona: Tensor
    corona_mass: Tensor
    infall: Tensor
    feedback: Tensor
    metallicity: Tensor


class ChempyEngine:
    r"""Batched one-zone model: theta (B, 6) to abundances (B, 8) and status (B,).

    Parameters
    ----------
    yields : YieldSet
    cosmic_accretion : float
        Primordial gas that reaches the corona per unit star formation (f_cos). 1 is Chempy's
        default and that of Buck et al. 2025; Philcox & Rybizki 2019 used 1e-6.
    clamp_low_z : bool
        Hold yields constant below Z = 1e-10. False extrapolates as the original code does,
        which makes masses negative in some rows, and reproduces its failure flags.
    smooth : bool
        Interpolate the returned mass linearly within a cell of the mass grid instead of
        counting whole cells. Moves outputs by 3e-5 dex (median; 1e-3 at the 99th percentile,
        up to 6e-3) and lets gradients flow through stellar lifetimes; needed for a useful
        derivative with respect to T.
    dtype : torch.float64 or torch.float32
        Of the results and of the torch recursion.
    device : str or torch.device
    chunk : int, optional
        Rows evaluated at once; chosen for cache (CPU) or memory (CUDA) if not given. Does not
        change results.
    kernel : "auto", "torch" or "numba"
        ``auto`` takes the compiled kernel when the device is the CPU and no gradient is needed;
        it always computes in float64, and uses :func:`sbi_core.available_threads` threads.

    Notes
    -----
    Source: docs/chempy-model.md; Chempy of Rybizki et al. 2017.

    Example
    -------
    >>> import torch
    >>> from sbi_chempy.yields import load_yields
    >>> engine = ChempyEngine(load_yields("default"))
    >>> theta = torch.tensor([[-2.3, -2.89, -0.3, 0.55, 0.5, 10.0]], dtype=torch.float64)
    >>> abundances, status = engine(theta)
    >>> round(abundances[0, 1].item(), 3)  # [Fe/H]
    0.146
    """

    def __init__(
        self,
        yields: YieldSet,
        *,
        cosmic_accretion: float = 1.0,
        clamp_low_z: bool = True,
        smooth: bool = False,
        dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
        chunk: int | None = None,
        kernel: Kernel = "auto",
    ) -> None:
        if dtype not in (torch.float32, torch.float64):
            raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
        if not cosmic_accretion >= 0:
            raise ValueError(f"cosmic_accretion must be >= 0, got {cosmic_accretion}")
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be at least 1, got {chunk}")
        if kernel not in ("auto", "torch", "numba"):
            raise ValueError(f"kernel must be 'auto', 'torch' or 'numba', got {kernel!r}")
        self.yields = yields
        self.cosmic_accretion = float(cosmic_accretion)
        self.clamp_low_z = bool(clamp_low_z)
        self.smooth = bool(smooth)
        self.dtype = dtype
        self.device = torch.device(device)
        if kernel == "numba" and self.device.type != "cpu":
            raise ValueError("kernel='numba' needs device='cpu'")
        self.kernel: Kernel = kernel
        self.chunk = chunk or (512 if self.device.type == "cpu" else 16384)
        self.grid = ReturnGrid.merge(yields)
        self._build_constants()

    def _build_constants(self) -> None:
        def const(value: object) -> Tensor:
            # a copy: products of arrays that start anywhere in memory may round differently
            return torch.as_tensor(value, dtype=self.dtype, device=self.device).clone()

        grid = self.grid
        self._bounds = torch.as_tensor(grid.bounds, device=self.device)
        self._log_z = const(grid.log_z)
        self._table = const(grid.table).reshape(len(grid.log_z), -1)
        self._channel = torch.as_tensor(grid.channel, device=self.device)
        self._gross = const(grid.gross)
        self._steps = torch.arange(N_STEPS + 1, dtype=torch.float64, device=self.device)
        self._log_steps = const(torch.log10(self._steps[1:]))
        self._primordial = const(PRIMORDIAL)
        self._atomic_mass = const(ATOMIC_MASS)
        self._solar = const(SOLAR_A)
        event = torch.as_tensor(self.yields.sn1a.yields).clone()
        event[_H] -= self.yields.sn1a.total - CO_CORE_MSUN
        self.sn_ia_event = const(event)
        lags = torch.arange(1, _MAX_IA_STEPS + 1, dtype=torch.float64, device=self.device)
        self._delay = lags**SN_IA_SLOPE
        self._delay_sum = torch.nn.functional.pad(self._delay.cumsum(0), (1, 0))

    def __repr__(self) -> str:
        return (
            f"ChempyEngine({self.yields.label!r}, cosmic_accretion={self.cosmic_accretion:g}, "
            f"clamp_low_z={self.clamp_low_z}, smooth={self.smooth}, dtype={self.dtype}, "
            f"device={str(self.device)!r})"
        )

    # ------------------------------------------------------------------------ public

    def __call__(
        self, theta: Tensor, factors: Tensor | None = None, *, strict: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Evaluate the model.

        Parameters
        ----------
        theta : (B, 6)
            Columns as in :data:`sbi_chempy.constants.PARAMETERS`.
        factors : (B, 3, 8, 2), optional
            Yield factors of each row: axes :data:`~sbi_chempy.constants.FACTOR_CHANNELS`,
            :data:`~sbi_chempy.constants.FACTOR_ELEMENTS`, and (log10 factor phi at Z = 0.0134,
            slope s per dex of metallicity, constant outside 0.01-3.16 times this Z). The slopes
            of SN Ia must be zero.
        strict : bool
            Raise on rows that are not finite or out of range instead of flagging them.

        Returns
        -------
        abundances : (B, 8) dex
            Columns as in :data:`sbi_chempy.constants.ABUNDANCES`; NaN where status is not 0.
        status : (B,) int64
            See :data:`sbi_chempy.constants.STATUS`.

        Raises
        ------
        ValueError
            If theta is not (B, 6), or (strict) naming row and column of a bad value; or if
            ``factors`` have another shape, are not finite, or give SN Ia a slope.
        """
        valid = self.check(theta, strict=strict)
        theta = _in_double(theta)
        if factors is not None:
            _check_factors(factors, len(theta))
        if self._use_numba(theta, factors):
            abundances, status = self._compiled(theta, valid, factors)
            return abundances.to(self.dtype), status
        blocks = [self._evaluate_block(*part) for part in self._blocks(theta, valid, factors)]
        if not blocks:
            empty = torch.empty(0, 8, dtype=self.dtype, device=self.device)
            return empty, torch.empty(0, dtype=torch.int64, device=self.device)
        abundances, status = (torch.cat(parts) for parts in zip(*blocks, strict=True))
        return abundances, status

    def check(self, theta: Tensor, *, strict: bool = True) -> Tensor:
        """Rows the model accepts.

        Parameters
        ----------
        theta : (B, 6)
        strict : bool
            Raise on the first bad row.

        Returns
        -------
        (B,) bool

        Raises
        ------
        ValueError
            If theta is not (B, 6), or (strict) naming row and column of a bad value.
        """
        if theta.ndim != 2 or theta.shape[1] != len(PARAMETERS):
            raise ValueError(f"theta must have shape (B, 6), got {tuple(theta.shape)}")
        if not theta.is_floating_point():
            raise ValueError(f"theta must be floating point, got {theta.dtype}")
        value = theta.detach().to(torch.float64)
        bad = ~torch.isfinite(value)
        # The ends of the range, rounded to float32, are not a user error.
        slack = 0.0 if theta.dtype == torch.float64 else 1e-6
        bad[:, 4] |= (value[:, 4] < 0) | (value[:, 4] > 1)
        bad[:, 5] |= (value[:, 5] < T_MIN_GYR - slack) | (value[:, 5] > T_END_GYR + slack)
        if strict and bool(bad.any()):
            row, column = (int(i) for i in bad.nonzero()[0])
            raise ValueError(
                f"theta row {row}, column {column} ({PARAMETERS[column]}) is "
                f"{float(value[row, column]):g}; needs finite values, x_out in [0, 1] and "
                f"t_birth in [{T_MIN_GYR}, {T_END_GYR}] Gyr"
            )
        return ~bad.any(dim=1)

    def schedule(self, theta: Tensor) -> Schedule:
        """Star-formation history, SN Ia rate and corona of each row.

        Parameters
        ----------
        theta : (B, 6) float64

        Returns
        -------
        Schedule

        Notes
        -----
        With a = dt/peak and q = exp(-a) the sum of n q^n to the end of time is
        q (1 - q^(N-1) (1 + (N-1)(1-q))) / (1-q)^2. Source: sections 2.3 and 2.6 (d).
        """
        _, log_n_ia, log_sfe, log_peak, x_out, t_birth = theta.unbind(dim=1)
        peak = 10**log_peak
        dt = t_birth / N_STEPS
        time = dt[:, None] * self._steps
        rate = time / peak[:, None] ** 2 * torch.exp(-time / peak[:, None])
        rate = torch.cat([torch.full_like(rate[:, :1], 1e-10), rate[:, 1:]], dim=1)
        formed = _sum_columns(rate)
        n_ext = torch.floor(N_STEPS * T_END_GYR / t_birth.detach() + 1)
        fresh = -torch.expm1(-dt / peak)  # 1 - q
        decay = torch.exp(-(n_ext - 1) * dt / peak)
        series = (1 - fresh) * (1 - decay * (1 + (n_ext - 1) * fresh)) / fresh**2
        total = 1e-10 + dt / peak**2 * series
        sfr = rate / formed[:, None]
        return Schedule(
            dt=dt,
            sfr=sfr,
            corona=total / formed,
            sn_ia=10 ** log_n_ia[:, None] * self._sn_ia_rate(sfr, dt.detach()),
            efficiency=10**log_sfe * dt,
            x_out=x_out,
            too_quiet=rate[:, -1] * (n_ext - 1) / total < 0.05,
        )

    def sn_ia_delays(self, dt: Tensor) -> Tensor:
        """Fraction of a population's SN Ia that explode in each of its first 27 steps.

        Parameters
        ----------
        dt : (B,) Gyr, float64, at least 0.797617/27

        Returns
        -------
        (B, 27)
            p_k for ages k dt, proportional to k^-1.12 from the first age >= 0.04 Gyr on and
            normalised up to the first age >= 13.8 Gyr. Source: section 2.6 (d).
        """
        last = torch.ceil(SN_IA_END_GYR / dt).to(torch.int64)
        first = torch.ceil(SN_IA_DELAY_GYR / dt).to(torch.int64).clamp_min(1)
        norm = self._delay_sum[last] - self._delay_sum[first - 1]
        started = first[:, None] <= self._steps[1:]
        return torch.where(started, self._delay[:N_STEPS] / norm[:, None], 0.0)

    def imf(self, alpha: Tensor) -> Tensor:
        """Cumulative IMF (B, 5001) of each row in the engine's dtype, summed in float64."""
        return cumulative_mass(alpha).to(self.dtype)

    def population_return(
        self,
        imf: Tensor,
        dt: Tensor,
        metallicity: Tensor,
        birth_mix: Tensor,
        n_ages: int,
        factors: Tensor | None = None,
    ) -> Tensor:
        """SN II and AGB mass returned by a population per unit mass formed.

        Parameters
        ----------
        imf : (B, 5001)
            From :meth:`imf`.
        dt : (B,) Gyr
        metallicity : (B,)
            Metal mass fraction that sets lifetimes and yields.
        birth_mix : (B, 9)
            Element mass fractions X_e that the unprocessed wind returns.
        n_ages : int
            Number K of steps.
        factors : (B, 3, 8, 2), optional
            Yield factors.

        Returns
        -------
        (B, K, 9)
            Entry k-1 is the return between the ages (k-1) dt and k dt.

        Notes
        -----
        Source: section 2.6 (a)-(c); the weights are the overlap of [C(M_k), C(M_{k-1})) with
        the segments of :class:`sbi_chempy.return_grid.ReturnGrid`.
        """
        alive = self._cumulative_at_turnoff(imf, dt, metallicity, n_ages)
        before = torch.cat([imf[:, N_GRID - 1, None], alive[:, :-1]], dim=1)
        bounds = imf[:, self._bounds]
        upper = torch.minimum(before[:, :, None], bounds[:, None, 1:])
        lower = torch.maximum(alive[:, :, None], bounds[:, None, :-1])
        weights = (upper - lower).clamp_min(0)
        columns = self._yields_at(metallicity)
        made, mix = columns[:, :, :9], birth_mix[:, None, :]
        if factors is not None:
            net = made - (self._gross * made.sum(2))[:, :, None] * mix
            made = made + _extra(_growth(factors, metallicity)[:, self._channel], net)
        released = made + columns[:, :, 9:] * mix
        return torch.bmm(weights, released)

    def steps(
        self, theta: Tensor, factors: Tensor | None = None
    ) -> tuple[Schedule, list[State], Tensor]:
        """Run the recursion and keep every step.

        Parameters
        ----------
        theta : (B, 6)
            Valid rows; a gradient flows through all columns (T needs ``smooth=True``).
        factors : (B, 3, 8, 2), optional
            Yield factors, as for the engine itself; a gradient flows through them, too.

        Returns
        -------
        Schedule
        list of State
            28 entries, one per time point.
        status : (B,) int64
            0 to 3.
        """
        theta = _in_double(theta).to(self.device)
        schedule = self.schedule(theta)
        sfr = schedule.sfr.to(self.dtype)
        sn_ia = schedule.sn_ia.to(self.dtype)
        gas_wanted = schedule.sfr / schedule.efficiency[:, None]
        imf = self.imf(theta[:, 0])
        dt = schedule.dt.to(self.dtype)
        x_out = schedule.x_out.to(self.dtype)[:, None]
        status = schedule.too_quiet.to(torch.int64)
        states = [self._first_state(schedule)]
        mix = _mix(states[0])
        event = self.sn_ia_event
        if factors is not None:
            factors = factors.to(self.device, self.dtype)
            growth = torch.exp(_LN10 * factors[:, _SN_IA, :, 0]) - 1
            event = event + _extra(growth, event.expand(len(theta), -1))
        # pending[:, i]: mass the populations born so far return i+1 steps from now.
        pending = sfr.new_zeros(len(theta), N_STEPS, len(ELEMENTS))
        for n in range(1, N_STEPS + 1):
            last = states[-1]
            released = self.population_return(
                imf, dt, last.metallicity, mix, N_STEPS + 1 - n, factors
            )
            mix = _mix(last)  # the original hands populations the mix of the step before
            pending = pending + sfr[:, n - 1, None, None] * released
            feedback = pending[:, 0] + sn_ia[:, n, None] * event
            pending = pending[:, 1:]
            state, dry = self._next_state(
                last, feedback, sfr[:, n], gas_wanted[:, n].to(self.dtype), x_out
            )
            status = torch.where((status == 0) & dry, 3, status)
            if n < N_STEPS:  # the original never checks the last step
                status = torch.where((status == 0) & _negative(state), 2, status)
            states.append(state)
        return schedule, states, status

    def abundances(self, gas: Tensor) -> Tensor:
        """Abundances of a gas mix relative to the Sun.

        Parameters
        ----------
        gas : (..., 9)
            Element masses, any unit.

        Returns
        -------
        (..., 8) dex
            [Fe/H] in column 1, [X/Fe] elsewhere.

        Notes
        -----
        A_e = log10[(m_e/mu_e)/(m_H/mu_H)] + 12 - A_sun. Source: section 2.8.
        """
        number = gas / self._atomic_mass
        bracket = torch.log10(number / number[..., _H, None]) + 12 - self._solar
        iron = bracket[..., _FE, None]
        c, rest = (bracket - iron)[..., :1], (bracket - iron)[..., _HE:]
        return torch.cat([c, iron, rest], dim=-1)

    # ---------------------------------------------------------------------- batching

    def _use_numba(self, theta: Tensor, factors: Tensor | None) -> bool:
        if self.kernel == "torch" or self.device.type != "cpu":
            return False
        inputs = (theta, theta if factors is None else factors)
        if any(t.requires_grad for t in inputs) and torch.is_grad_enabled():
            if self.kernel == "numba":
                raise ValueError("kernel='numba' has no gradient; use 'auto' or 'torch'")
            return False
        return True

    @cached_property
    def _compiled(self) -> Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]:
        """The compiled kernel with the tables of this engine."""
        from sbi_chempy.kernel_numba import evaluate, kernel_tables  # numba is slow to import

        tables = kernel_tables(
            self.grid,
            self.yields.sn1a,
            cosmic_accretion=self.cosmic_accretion,
            clamp_low_z=self.clamp_low_z,
            smooth=self.smooth,
        )
        return partial(evaluate, tables)

    def _blocks(
        self, theta: Tensor, valid: Tensor, factors: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        for start in range(0, len(theta), self.chunk):
            part = slice(start, start + self.chunk)
            yield theta[part], valid[part], None if factors is None else factors[part]

    def _evaluate_block(
        self, theta: Tensor, valid: Tensor, factors: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        rows = len(theta)
        safe = torch.where(valid[:, None], theta, theta.new_tensor(_SAFE_ROW))
        extra = -rows % _PAD_ROWS
        padded = torch.cat([safe, safe.new_tensor(_SAFE_ROW).expand(extra, -1)])
        if factors is not None:
            factors = torch.cat([factors, factors.new_zeros(extra, *factors.shape[1:])])
        _, states, status = self.steps(padded, factors)
        output = self.abundances(states[-1].gas[:rows])
        status = status[:rows]
        infinite = ~torch.isfinite(output).all(dim=1)
        status = torch.where((status == 0) & infinite, 4, status)
        status = torch.where(valid.to(status.device), status, 5)
        return torch.where((status == 0)[:, None], output, math.nan), status

    # ----------------------------------------------------------------------- physics

    def _sn_ia_rate(self, sfr: Tensor, dt: Tensor) -> Tensor:
        """SN Ia at each step for a total of one per unit mass formed, (B, 28)."""
        delays = self.sn_ia_delays(dt)
        rate = torch.zeros_like(sfr)
        for k in range(1, N_STEPS + 1):
            late = delays[:, k - 1, None] * sfr[:, : N_STEPS + 1 - k]
            rate = rate + torch.nn.functional.pad(late, (k, 0))
        return rate

    def _cumulative_at_turnoff(
        self, imf: Tensor, dt: Tensor, metallicity: Tensor, n_ages: int
    ) -> Tensor:
        """C(M_k) for k = 1..K, (B, K)."""
        log_z = log10_metallicity(metallicity)
        if not self.smooth:
            log_z = log_z.detach()
        ages = self._steps[1 : n_ages + 1].to(dt.dtype)
        log_age = torch.log10(dt)[:, None] + self._log_steps[:n_ages]
        # Once M_k is below the AGB range a step returns nothing, not even its part above:
        # the turn-off index stays where the last complete step left it.
        last_step = torch.floor(interpolated_lifetime(self.grid.agb_low_msun, log_z) / dt)
        last_step = last_step.detach()[:, None]
        gone = ages > last_step
        log_last = torch.log10(dt[:, None] * last_step.clamp_min(1))
        age_used = torch.where(gone, dt[:, None] * last_step, dt[:, None] * ages)
        index = turnoff_grid_position(torch.where(gone, log_last, log_age), log_z[:, None])
        index = torch.where(last_step < 1, N_GRID - 1, index)
        capped = gone & (index > self.grid.agb_high)
        index = torch.where(capped, self.grid.agb_high, index)
        upper = imf.gather(1, index)
        if not self.smooth:
            return upper
        fraction = turnoff_fraction(age_used, log_z[:, None], index)
        inside = upper + (1 - fraction) * (imf.gather(1, (index - 1).clamp_min(0)) - upper)
        return torch.where(capped, upper, inside)

    def _yields_at(self, metallicity: Tensor) -> Tensor:
        """Segment columns at a metallicity, linear in log10 Z between nodes, (B, G, 10)."""
        segments = (len(metallicity), *self.grid.table.shape[1:])
        if len(self._log_z) == 1:
            return self._table.expand(len(metallicity), -1).reshape(segments)
        positive = metallicity > 0
        safe = torch.where(positive, metallicity, torch.ones_like(metallicity))
        log_z = torch.where(positive, torch.log10(safe), self._log_z[0])
        node = torch.searchsorted(self._log_z, log_z.detach().contiguous(), right=True) - 1
        node = node.clamp(0, len(self._log_z) - 2)
        low, high = self._log_z[node], self._log_z[node + 1]
        weight = ((high - log_z) / (high - low)).clamp_min(0)
        if self.clamp_low_z or not self.grid.extrapolates:
            weight = weight.clamp_max(1)
        left = self._table.index_select(0, node)
        right = self._table.index_select(0, node + 1)
        return (weight[:, None] * left + (1 - weight)[:, None] * right).reshape(segments)

    def _first_state(self, schedule: Schedule) -> State:
        s0 = schedule.sfr[:, 0]
        infall = torch.maximum(1.0000001 * s0, s0 / schedule.efficiency)
        corona = self.cosmic_accretion * s0 + schedule.corona - infall
        gas_mass = (infall - s0).to(self.dtype)
        infall, corona = infall.to(self.dtype), corona.to(self.dtype)
        return State(
            gas=gas_mass[:, None] * self._primordial,
            gas_mass=gas_mass,
            corona=corona[:, None] * self._primordial,
            corona_mass=corona,
            infall=infall,
            feedback=torch.zeros_like(gas_mass[:, None] * self._primordial),
            metallicity=torch.zeros_like(gas_mass),
        )

    def _next_state(
        self, last: State, feedback: Tensor, stars: Tensor, gas_wanted: Tensor, x_out: Tensor
    ) -> tuple[State, Tensor]:
        """Steps 2-7 of section 2.7; also rows where star formation exceeds the gas."""
        gas = last.gas + (1 - x_out) * feedback
        cosmic = self.cosmic_accretion * stars
        corona = last.corona + x_out * feedback + self._primordial * cosmic[:, None]
        corona_mass = last.corona_mass + x_out[:, 0] * _sum_columns(feedback) + cosmic
        have = _sum_columns(gas)
        infall = (1.00000001 * (gas_wanted - have)).clamp_min(0)
        infall = torch.where(infall + have <= stars, 1.01 * (stars - have), infall)
        infall = torch.minimum(infall, corona_mass)
        moved = (infall / corona_mass)[:, None] * corona
        gas, corona, corona_mass = gas + moved, corona - moved, corona_mass - infall
        gas_mass = _sum_columns(gas)
        dry = gas_mass < stars
        gas = gas * (1 - stars / gas_mass)[:, None]
        gas_mass = gas_mass - stars
        metals = _sum_columns(torch.cat([gas[:, :_H], gas[:, _HE + 1 :]], dim=1))
        return State(gas, gas_mass, corona, corona_mass, infall, feedback, metals / gas_mass), dry


_SAFE_ROW = (-2.3, -2.89, -0.3, 0.55, 0.5, 10.0)  # stands in for rows of status 5


def _in_double(theta: Tensor) -> Tensor:
    """Parameters in float64, with float32 rounding at the end of the time range removed."""
    if theta.dtype == torch.float64:
        return theta
    theta = theta.to(torch.float64)
    time = theta[:, 5:]
    near = torch.where((time - T_END_GYR).abs() <= 1e-6, T_END_GYR, time)
    near = torch.where((time - T_MIN_GYR).abs() <= 1e-6, T_MIN_GYR, near)
    return torch.cat([theta[:, :5], near], dim=1)


def _check_factors(factors: Tensor, rows: int) -> None:
    shape = (rows, len(FACTOR_CHANNELS), len(FACTOR_ELEMENTS), 2)
    if tuple(factors.shape) != shape or not factors.is_floating_point():
        raise ValueError(
            f"factors must be floating point of shape {shape}, got {factors.dtype} of shape "
            f"{tuple(factors.shape)}"
        )
    if not torch.isfinite(factors).all():
        raise ValueError("factors must be finite")
    if factors[:, _SN_IA, :, 1].any():
        raise ValueError("factors of SN Ia have no slope with metallicity: their slopes must be 0")


def _growth(factors: Tensor, metallicity: Tensor) -> Tensor:
    """10^(phi + s log10(Z/Zsun)) - 1 for populations of a metallicity, (B, 3, 8)."""
    z = torch.where(metallicity > 0, metallicity / Z_SUN, 10 ** FACTOR_LOG_Z[0])
    log_z = torch.log10(z).clamp(*FACTOR_LOG_Z)
    return torch.exp(_LN10 * (factors[..., 0] + factors[..., 1] * log_z[:, None, None])) - 1


def _extra(growth: Tensor, net: Tensor) -> Tensor:
    """Change (B, ..., 9) of net yields (B, ..., 9) by growth (B, ..., 8): zero in sum."""
    more = growth * torch.cat([net[..., :_H], net[..., _H + 1 :]], dim=-1).clamp_min(0)
    hydrogen = -_sum_columns(more.movedim(-1, 1))[..., None]
    return torch.cat([more[..., :_H], hydrogen, more[..., _H:]], dim=-1)


def _sum_columns(x: Tensor) -> Tensor:
    """Sum over dim 1 in a fixed order, whatever the batch size."""
    total = x[:, 0]
    for i in range(1, x.shape[1]):
        total = total + x[:, i]
    return total


def _mix(state: State) -> Tensor:
    """Element mass fractions of the gas, (B, 9)."""
    return state.gas / state.gas_mass[:, None]


def _negative(state: State) -> Tensor:
    return (state.gas < 0).any(dim=1) | (state.gas_mass < 0) | (state.corona_mass < 0)
