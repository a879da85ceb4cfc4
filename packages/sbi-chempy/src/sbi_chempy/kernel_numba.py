r"""Compiled CPU kernel of the one-zone model: the fast path without gradients.

Same model and same numbers (1e-12 dex) as :class:`sbi_chempy.engine.ChempyEngine`, which stays
the reference; one row at a time, float64 throughout, no temporaries larger than a cache line
set. Two things are done differently from the torch path:

* the IMF is summed point by point only up to 12 Msun, where turn-off masses fall; above, the
  sum of f(x) = x^(1+alpha) over grid points is its Euler-Maclaurin expansion

  .. math:: \sum_{a \le x_i < b} f(x_i) = \frac1h\int_a^b f + \frac{f(a) - f(b)}{2}
            + \frac{h}{12}\,(f'(b) - f'(a)) + O(h^3 f'''),

  with h = 0.02 Msun, whose next term is below 1e-14 of the sum;
* segments of the return grid are visited in order of falling mass instead of forming all
  (age, segment) overlaps.

Constants are frozen into the compiled code, which is kept on disk: after editing a constant in
another module, touch this file (``test_compiled_kernel_equals_torch`` notices otherwise).

See docs/chempy-model.md.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from sbi_chempy import imf, lifetimes
from sbi_chempy.constants import (
    ATOMIC_MASS,
    CO_CORE_MSUN,
    ELEMENTS,
    FACTOR_CHANNELS,
    FACTOR_LOG_Z,
    N_STEPS,
    PRIMORDIAL,
    SN_IA_DELAY_GYR,
    SN_IA_END_GYR,
    SN_IA_SLOPE,
    SOLAR_A,
    T_END_GYR,
    T_MIN_GYR,
    Z_SUN,
)
from sbi_chempy.return_grid import ReturnGrid
from sbi_chempy.yields.tables import SnIaYield
from sbi_core import available_threads

__all__ = ["evaluate", "kernel_tables"]

_NE = len(ELEMENTS)
_H, _HE = ELEMENTS.index("H"), ELEMENTS.index("He")
_SN_IA = FACTOR_CHANNELS.index("sn1a")
_LOG_Z_MIN, _LOG_Z_MAX = FACTOR_LOG_Z
_NO_FACTORS = np.zeros((1, len(FACTOR_CHANNELS), _NE - 1, 2))
_LN10 = math.log(10.0)
_STEP = imf.GRID_STEP_MSUN
_M_MIN, _M_MAX = imf.M_MIN_MSUN, imf.M_MAX_MSUN
_TOP = imf.N_GRID - 1  # index of 100 Msun
_J1 = int(imf.grid_index(1.0))  # first grid point of the power law
_JT = int(imf.grid_index(12.0))  # end of the table of cumulative sums
_A0, _A1, _ = lifetimes._A
_B0, _B1, _B2 = lifetimes._B
_C0, _C1, _C2 = lifetimes._C
_TINY = 1e-12
_IA_STEPS = int(SN_IA_END_GYR / (T_MIN_GYR / N_STEPS)) + 3
_MIN_ROWS_PER_THREAD = 64
_POWER_B = imf._B


def evaluate(
    tables: tuple[Any, ...], theta: Tensor, valid: Tensor, factors: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return abundances and status of theta, as ``ChempyEngine.__call__`` does.

    Parameters
    ----------
    tables
        From :func:`kernel_tables`.
    theta : (B, 6)
    valid : (B,) bool
        Rows to run; the others get status 5.
    factors : (B, 3, 8, 2), optional
        Yield factors.

    Returns
    -------
    abundances : (B, 8) dex, float64
    status : (B,) int64

    Notes
    -----
    Rows are shared among :func:`sbi_core.available_threads` threads.
    """
    rows = np.ascontiguousarray(theta.detach().cpu().numpy(), dtype=np.float64)
    accepted = valid.cpu().numpy()
    gas = np.full((len(rows), _NE), np.nan)
    status = np.full(len(rows), 5, dtype=np.int64)

    scaled = factors is not None
    given = _NO_FACTORS
    if factors is not None:
        given = np.ascontiguousarray(factors.detach().cpu().numpy(), dtype=np.float64)

    def run(part: slice) -> None:
        own = given[part] if scaled else given
        _rows(rows[part], accepted[part], gas[part], status[part], scaled, own, *tables)

    n_threads = min(available_threads(), len(rows) // _MIN_ROWS_PER_THREAD)
    if n_threads < 2:
        run(slice(None))
    else:
        cuts = np.linspace(0, len(rows), n_threads + 1).astype(int)
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(run, (slice(a, b) for a, b in zip(cuts[:-1], cuts[1:], strict=True))))
    return _finish(gas, status)


def _finish(gas: NDArray[np.float64], status: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    with np.errstate(divide="ignore", invalid="ignore"):
        a = np.log10(gas / np.array(ATOMIC_MASS))
        bracket = a - a[:, _H, None] + 12 - np.array(SOLAR_A)
        iron = bracket[:, 1, None]
        output = np.concatenate([bracket[:, :1] - iron, iron, bracket[:, _HE:] - iron], axis=1)
    status = np.where((status == 0) & ~np.isfinite(output).all(axis=1), 4, status)
    output[status != 0] = np.nan
    return torch.from_numpy(output), torch.from_numpy(status)


def kernel_tables(
    grid: ReturnGrid,
    sn1a: SnIaYield,
    *,
    cosmic_accretion: float,
    clamp_low_z: bool,
    smooth: bool,
) -> tuple[Any, ...]:
    """Return the arrays and switches of an engine in the order of :func:`_rows`."""
    event = sn1a.yields.copy()
    event[_H] -= sn1a.total - CO_CORE_MSUN
    x = imf.mass_grid()
    chabrier = imf.chabrier(torch.from_numpy(x[:_J1]), torch.tensor([0.0], dtype=torch.float64))
    below_one = float((x[:_J1] * chabrier[0].numpy()).sum()) / _POWER_B
    delay = np.arange(1, _IA_STEPS + 1, dtype=np.float64) ** SN_IA_SLOPE
    return (
        grid.bounds,
        grid.log_z,
        grid.table,
        grid.channel,
        grid.gross,
        event,
        np.log(x),
        np.log10(np.arange(1, N_STEPS + 1)),
        np.append(0.0, np.cumsum(delay)),
        np.array(PRIMORDIAL),
        below_one,
        cosmic_accretion,
        grid.agb_high,
        grid.agb_low_msun,
        clamp_low_z or not grid.extrapolates,
        smooth,
    )


def _jit(function: Any) -> Any:
    """Compile on first use; keep the machine code between processes where that is possible."""
    try:
        return njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # no writable place for the cache
        return njit(nogil=True, error_model="numpy")(function)


@_jit
def _power_sum(a: int, b: int, s: float, log_x: NDArray[np.float64]) -> float:
    """Sum of x_i^s over grid points a <= i < b, Euler-Maclaurin."""
    x_a, x_b = _M_MIN + _STEP * a, _M_MIN + _STEP * b
    f_a, f_b = math.exp(s * log_x[a]), math.exp(s * log_x[b])
    span = log_x[b] - log_x[a]
    v = (s + 1.0) * span
    ratio = math.expm1(v) / v if abs(v) > _TINY else 1.0
    integral = f_a * x_a * span * ratio
    return integral / _STEP + 0.5 * (f_a - f_b) + _STEP * s / 12.0 * (f_b / x_b - f_a / x_a)


@_jit
def _fill_imf(
    alpha: float, below_one: float, log_x: NDArray[np.float64], table: NDArray[np.float64]
) -> float:
    """Cumulative IMF at grid indices up to 12 Msun, divided by nothing; returns the total."""
    s = 1.0 + alpha
    total = below_one
    for j in range(_J1):  # only C below 1 Msun in smooth mode at the last cell needs these
        table[j] = below_one
    for j in range(_J1, _JT):
        table[j] = total
        total += math.exp(s * log_x[j])
    table[_JT] = total
    return total + _power_sum(_JT, _TOP, s, log_x) + math.exp(s * log_x[_TOP])


@_jit
def _imf_at(index: int, s: float, log_x: NDArray[np.float64], table: NDArray[np.float64]) -> float:
    if index <= _JT:
        return table[index]
    return table[_JT] + _power_sum(_JT, index, s, log_x)


@_jit
def _log_z_of(z: float) -> float:
    return math.log10(z) if z > 0 else -5.0


@_jit
def _life(mass: float, a: float, b: float, c: float) -> float:
    m = math.log10(mass)
    return math.exp(_LN10 * (c + m * (b + m * a)))


@_jit
def _schedule(
    peak: float,
    t_birth: float,
    delay_sum: NDArray[np.float64],
    sfr: NDArray[np.float64],
    ia: NDArray[np.float64],
) -> tuple[float, bool]:
    """Fill s_n and the SN Ia rate per event; return 1/R and the status-1 flag."""
    dt = t_birth / N_STEPS
    formed = 0.0
    for n in range(N_STEPS + 1):
        t = n * dt
        sfr[n] = t / peak**2 * math.exp(-t / peak) if n else 1e-10
        formed += sfr[n]
    n_ext = math.floor(N_STEPS * T_END_GYR / t_birth + 1)
    fresh = -math.expm1(-dt / peak)
    decay = math.exp(-(n_ext - 1) * dt / peak)
    series = (1 - fresh) * (1 - decay * (1 + (n_ext - 1) * fresh)) / fresh**2
    total = 1e-10 + dt / peak**2 * series
    quiet = sfr[N_STEPS] * (n_ext - 1) / total < 0.05
    for n in range(N_STEPS + 1):
        sfr[n] /= formed
        ia[n] = 0.0
    last = int(math.ceil(SN_IA_END_GYR / dt))
    first = max(1, int(math.ceil(SN_IA_DELAY_GYR / dt)))
    norm = delay_sum[last] - delay_sum[first - 1]
    for k in range(first, N_STEPS + 1):
        p = (delay_sum[k] - delay_sum[k - 1]) / norm
        for n in range(k, N_STEPS + 1):
            ia[n] += p * sfr[n - k]
    return total / formed, quiet


@_jit
def _rows(
    theta: NDArray[np.float64],
    accepted: NDArray[np.bool_],
    gas_out: NDArray[np.float64],
    status: NDArray[np.int64],
    scaled: bool,
    factors: NDArray[np.float64],
    bounds: NDArray[np.int64],
    nodes: NDArray[np.float64],
    grid: NDArray[np.float64],
    channel: NDArray[np.int64],
    gross: NDArray[np.bool_],
    event: NDArray[np.float64],
    log_x: NDArray[np.float64],
    log_steps: NDArray[np.float64],
    delay_sum: NDArray[np.float64],
    primordial: NDArray[np.float64],
    below_one: float,
    f_cos: float,
    agb_high: int,
    agb_low: float,
    clamp: bool,
    smooth: bool,
) -> None:
    n_seg = len(bounds) - 1
    sfr = np.empty(N_STEPS + 1)
    ia = np.empty(N_STEPS + 1)
    table = np.empty(_JT + 1)
    edge = np.empty(n_seg + 1)
    feedback = np.empty((N_STEPS + 1, _NE))
    gas = np.empty(_NE)
    corona = np.empty(_NE)
    mix = np.empty(_NE)
    row = np.empty(_NE)
    made = np.empty(_NE)
    own_event = event.copy()
    growth = np.zeros((len(_NO_FACTORS[0]), _NE))
    for i in range(len(theta)):
        if not accepted[i]:
            continue
        alpha = theta[i, 0]
        n_ia = 10.0 ** theta[i, 1]
        dt = theta[i, 5] / N_STEPS
        efficiency = 10.0 ** theta[i, 2] * dt
        x_out = theta[i, 4]
        corona_mass, quiet = _schedule(10.0 ** theta[i, 3], theta[i, 5], delay_sum, sfr, ia)
        s = 1.0 + alpha
        imf_total = _fill_imf(alpha, below_one, log_x, table)
        for g in range(n_seg + 1):
            edge[g] = _imf_at(bounds[g], s, log_x, table) / imf_total
        own = factors[i if scaled else 0]
        if scaled:
            own_event[:] = event
            _fill_growth(own[_SN_IA], 0.0, growth[_SN_IA])
            _scale(growth[_SN_IA], 0.0, event, event, own_event)
        for n in range(N_STEPS + 1):
            for e in range(_NE):
                feedback[n, e] = ia[n] * n_ia * own_event[e]
        # first step
        infall = max(1.0000001 * sfr[0], sfr[0] / efficiency)
        corona_mass = f_cos * sfr[0] + corona_mass - infall
        gas_mass = infall - sfr[0]
        for e in range(_NE):
            gas[e] = primordial[e] * gas_mass
            corona[e] = primordial[e] * corona_mass
            mix[e] = primordial[e]
        z = 0.0
        flag = 1 if quiet else 0
        for n in range(1, N_STEPS + 1):
            if flag != 0:
                break
            _add_population(
                n, z, dt, sfr[n - 1], s, imf_total, table, edge, mix, bounds, nodes, grid, channel,
                gross, log_x, log_steps, agb_high, agb_low, clamp, smooth, scaled, own, growth,
                made, row, feedback,
            )  # fmt: skip
            for e in range(_NE):
                mix[e] = gas[e] / gas_mass
            stars = sfr[n]
            have, back = 0.0, 0.0
            for e in range(_NE):
                gas[e] += (1 - x_out) * feedback[n, e]
                corona[e] += x_out * feedback[n, e] + primordial[e] * f_cos * stars
                have += gas[e]
                back += feedback[n, e]
            corona_mass += x_out * back + f_cos * stars
            infall = max(0.0, 1.00000001 * (stars / efficiency - have))
            if infall + have <= stars:
                infall = 1.01 * (stars - have)
            infall = min(infall, corona_mass)
            share = infall / corona_mass
            gas_mass = 0.0
            for e in range(_NE):
                moved = share * corona[e]
                gas[e] += moved
                corona[e] -= moved
                gas_mass += gas[e]
            corona_mass -= infall
            if gas_mass < stars:
                flag = 3
                break
            keep = 1 - stars / gas_mass
            gas_mass -= stars
            metals = 0.0
            negative = gas_mass < 0 or corona_mass < 0
            for e in range(_NE):
                gas[e] *= keep
                negative = negative or gas[e] < 0
                if e not in (_H, _HE):
                    metals += gas[e]
            if negative and n < N_STEPS:
                flag = 2
                break
            z = metals / gas_mass
        status[i] = flag
        if flag == 0:
            gas_out[i] = gas


@_jit
def _fill_growth(own: NDArray[np.float64], log_z: float, growth: NDArray[np.float64]) -> None:
    """10^(phi + s log_z) - 1 for the factors (8, 2) of one channel; hydrogen keeps its zero."""
    for k in range(_NE - 1):
        a = own[k, 0] + own[k, 1] * log_z
        growth[k if k < _H else k + 1] = math.exp(_LN10 * a) - 1.0


@_jit
def _scale(
    growth: NDArray[np.float64],
    unprocessed: float,
    mix: NDArray[np.float64],
    made: NDArray[np.float64],
    row: NDArray[np.float64],
) -> None:
    """Add the change of the yields ``made`` to ``row``; hydrogen takes the difference."""
    moved = 0.0
    for e in range(_NE):
        more = growth[e] * max(made[e] - unprocessed * mix[e], 0.0)
        row[e] += more
        moved += more
    row[_H] -= moved


@_jit
def _add_population(
    n: int,
    z: float,
    dt: float,
    formed: float,
    s: float,
    imf_total: float,
    table: NDArray[np.float64],
    edge: NDArray[np.float64],
    mix: NDArray[np.float64],
    bounds: NDArray[np.int64],
    nodes: NDArray[np.float64],
    grid: NDArray[np.float64],
    channel: NDArray[np.int64],
    gross: NDArray[np.bool_],
    log_x: NDArray[np.float64],
    log_steps: NDArray[np.float64],
    agb_high: int,
    agb_low: float,
    clamp: bool,
    smooth: bool,
    scaled: bool,
    own: NDArray[np.float64],
    growth: NDArray[np.float64],
    made: NDArray[np.float64],
    row: NDArray[np.float64],
    feedback: NDArray[np.float64],
) -> None:
    """Add the return of the population born at step n-1 to all later steps."""
    log_z = _log_z_of(z)
    a = _A0 + _A1 * log_z
    b = _B0 + log_z * (_B1 + log_z * _B2)
    c = _C0 + log_z * (_C1 + log_z * _C2)
    j = int((agb_low - _M_MIN) / _STEP)
    left = _M_MIN + _STEP * j
    tau_left, tau_right = _life(left, a, b, c), _life(left + _STEP, a, b, c)
    last_step = math.floor((tau_left - (agb_low - left) / _STEP * (tau_left - tau_right)) / dt)
    # metallicity weights
    node, weight = 0, 1.0
    if len(nodes) > 1:
        at = math.log10(z) if z > 0 else nodes[0]
        node = min(max(int(np.searchsorted(nodes, at, side="right")) - 1, 0), len(nodes) - 2)
        weight = max(0.0, (nodes[node + 1] - at) / (nodes[node + 1] - nodes[node]))
        if clamp:
            weight = min(weight, 1.0)
    other = min(node + 1, len(nodes) - 1)
    if scaled:
        relative = math.log10(z / Z_SUN) if z > 0 else _LOG_Z_MIN
        relative = min(max(relative, _LOG_Z_MIN), _LOG_Z_MAX)
        for k in range(_SN_IA):
            _fill_growth(own[k], relative, growth[k])
    log_dt = math.log10(dt)
    g = len(edge) - 2
    current = edge[g + 1]  # mass fraction of stars still alive and above the AGB limit
    fresh = True
    for k in range(1, N_STEPS + 2 - n):
        step = min(float(k), last_step)
        if step < 1:
            target = edge[len(edge) - 1]
            index = _TOP
        else:
            gap = c - log_dt - log_steps[int(step) - 1]
            root = math.sqrt(max(b * b - 4 * a * gap, 1e-12))
            mass = min(max(math.exp(_LN10 * 2 * gap / (root - b)), _M_MIN), _M_MAX)
            index = min(max(int(math.ceil((mass - _M_MIN) / _STEP)), 0), _TOP)
            target = _imf_at(index, s, log_x, table) / imf_total
            if smooth and not (k > last_step and index > agb_high):
                right = _M_MIN + _STEP * max(index, 1)
                t_left, t_right = _life(right - _STEP, a, b, c), _life(right, a, b, c)
                inside = min(max((t_left - step * dt) / (t_left - t_right), 0.0), 1.0)
                below = _imf_at(max(index - 1, 0), s, log_x, table) / imf_total
                target += (1 - inside) * (below - target)
        if k > last_step and index > agb_high:
            target = _imf_at(agb_high, s, log_x, table) / imf_total
        while g >= 0 and current > target:
            if fresh:
                unprocessed = weight * grid[node, g, _NE] + (1 - weight) * grid[other, g, _NE]
                for e in range(_NE):
                    y = weight * grid[node, g, e] + (1 - weight) * grid[other, g, e]
                    made[e] = y
                    row[e] = y + unprocessed * mix[e]
                if scaled:
                    total = made.sum() if gross[g] else 0.0
                    _scale(growth[channel[g]], total, mix, made, row)
                fresh = False
            low = max(target, edge[g])
            mass_lost = formed * (current - low)
            for e in range(_NE):
                feedback[n - 1 + k, e] += mass_lost * row[e]
            current = low
            if current <= edge[g]:
                g -= 1
                fresh = True
        if k >= last_step + 1:
            break  # every later step returns nothing from SN II and AGB stars
