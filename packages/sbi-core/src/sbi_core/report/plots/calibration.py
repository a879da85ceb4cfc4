"""Ranks, coverage, TARP, and the calibration of combinations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from sbi_core import diagnostics
from sbi_core.report.plots.style import (
    BAND,
    COLOURS,
    GREY,
    MARKERS,
    STYLES,
    Entry,
    add_legend,
    add_legend_below,
    closed,
    count_axis,
    line_style,
    math_label,
    new_axes,
    plain_log,
)

__all__ = ["combined_calibration", "coverage", "sbc_ecdf", "tarp"]


def sbc_ecdf(ranks: ArrayLike, draws: int, labels: Sequence[str], ax: Axes | None = None) -> Axes:
    """ECDF of SBC ranks minus that of uniform ranks, with a simultaneous 95 % band.

    Parameters
    ----------
    ranks : (B, d)
        Ranks among ``draws`` draws.
    draws
        Number of draws.
    labels : (d,)
        TeX, without dollars.
    """
    r = np.asarray(ranks).astype(np.int64)
    ax = new_axes(ax)
    band = diagnostics.sbc_ecdf_band(len(r), draws)
    t = closed(band.t, 0, 1)
    ax.fill_between(
        t, closed(band.lower - band.t), closed(band.upper - band.t), color=BAND, linewidth=0
    )
    ax.axhline(0, color=GREY, linewidth=0.8)
    curves = diagnostics.sbc_ecdf(r, draws, band.t) - band.t[:, None]
    for k, label in enumerate(labels):
        ax.plot(t, closed(curves[:, k]), label=math_label(label), **line_style(k))
    ax.set(xlim=(0, 1), xlabel="rank of true value / draws", ylabel="ECDF − uniform")
    ax.yaxis.set_major_locator(MaxNLocator(5))
    add_legend_below(ax)
    return ax


def coverage(
    levels: ArrayLike,
    values: ArrayLike,
    n: int,
    ax: Axes | None = None,
    *,
    labels: Sequence[str] = (),
) -> Axes:
    """Measured against nominal coverage, with the 3-sigma binomial band of n objects.

    Parameters
    ----------
    levels : (L,)
        Nominal levels.
    values : (L,) or (L, d)
        Measured coverage.
    n
        Number of objects.
    labels : (d,)
        TeX, without dollars.
    """
    ax = new_axes(ax)
    x, y = np.asarray(levels, np.float64), np.asarray(values, np.float64)
    _diagonal_band(ax, n)
    columns = y[:, None] if y.ndim == 1 else y
    for k, column in enumerate(columns.T):
        label = math_label(labels[k]) if k < len(labels) else None
        marker = "o" if len(x) < 12 else None
        ax.plot(x, column, label=label, marker=marker, markersize=4, **line_style(k))
    ax.set(xlabel="nominal credibility", ylabel="fraction of true values inside")
    add_legend_below(ax)
    return ax


def tarp(
    levels: ArrayLike, ecp: ArrayLike, ax: Axes | None = None, *, n: int | None = None
) -> Axes:
    """Expected coverage of regions around random points, a joint test of all parameters.

    Parameters
    ----------
    levels : (K,)
        Credibility levels.
    ecp : (K,)
        Expected coverage probability at each.
    n
        Number of objects; draws the 3-sigma binomial band.
    """
    ax = new_axes(ax)
    _diagonal_band(ax, n)
    ax.plot(np.asarray(levels), np.asarray(ecp), **line_style(0))
    ax.set(xlabel="credibility level", ylabel="expected coverage (TARP)")
    return ax


def _diagonal_band(ax: Axes, n: int | None) -> None:
    if n:
        level = np.linspace(0.002, 0.998, 200)
        low, high = diagnostics.coverage_band(level.tolist(), n)
        ax.fill_between(level, low, high, color=BAND, linewidth=0)
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")


def combined_calibration(
    entries: Sequence[Entry], axes: Sequence[Axes] | None = None
) -> tuple[Axes, Axes]:
    """z-rms (gate 0.8 to 1.3 shaded) and 68 % coverage of combined posteriors against N.

    Parameters
    ----------
    entries
        ``combined_calibration`` of ``report.json``: combiner, n, z_rms, coverage_68; the last
        two are a number, or a mapping from parameter to number.
    """
    if axes is None:
        axes = Figure(figsize=(8.6, 3.3), layout="constrained").subplots(1, 2)
    left, right = axes[0], axes[1]
    left.axhspan(0.8, 1.3, color=BAND, linewidth=0)
    left.axhline(1, color=GREY, linewidth=0.8)
    right.axhline(0.68, color=GREY, linewidth=0.8)
    names = list(dict.fromkeys(str(e["combiner"]) for e in entries))
    for k, name in enumerate(names):
        chosen = [e for e in entries if e["combiner"] == name]
        _versus_n(left, chosen, "z_rms", k, name)
        _versus_n(right, chosen, "coverage_68", k, name)
    for entry in entries:
        _z_rms_error(left, entry, COLOURS[names.index(str(entry["combiner"])) % len(COLOURS)])
    left.set_yscale("log")
    low, high = left.get_ylim()
    left.set_ylim(min(low, 0.6), max(high, 2.0))
    plain_log(left, "y")
    left.set_ylabel("actual / quoted error (RMS z-score)")
    right.set(ylim=(0, 1), ylabel="true values inside 68 % intervals")
    for ax in (left, right):
        count_axis(ax)
    add_legend(left)
    return left, right


def _z_rms_error(ax: Axes, entry: Entry, colour: str) -> None:
    """Relative sampling error 1/sqrt(2 R d) of R groups and d parameters, where R is known."""
    if "repeats" in entry and not isinstance(entry.get("z_rms", {}), Mapping):
        pooled = entry["repeats"] * max(len(entry.get("parameters", ())), 1)
        error = entry["z_rms"] / np.sqrt(2 * pooled)
        ax.errorbar(entry["n"], entry["z_rms"], error, fmt="none", ecolor=colour, elinewidth=1)


def _versus_n(ax: Axes, entries: Sequence[Entry], key: str, k: int, name: str) -> None:
    """One line per parameter; only the first carries the combiner's name."""
    found = [(float(e["n"]), _by_parameter(e[key])) for e in entries if key in e]
    for j, parameter in enumerate(dict.fromkeys(p for _, values in found for p in values)):
        points = sorted((n, values[parameter]) for n, values in found if parameter in values)
        x, y = zip(*points, strict=True)
        style = line_style(k) | {"linestyle": STYLES[j % 4]}
        label = (name if j == 0 else "_") if not parameter else f"{name}, {parameter}"
        ax.plot(x, y, marker=MARKERS[k % 7], markersize=5, label=label.replace("$", r"\$"), **style)


def _by_parameter(value: Any) -> dict[str, float]:
    if isinstance(value, Mapping):
        return {str(name): float(v) for name, v in value.items()}
    return {"": float(value)}
