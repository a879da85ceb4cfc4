"""Corner plots, drawn by the ``corner`` package.

References:
    | Foreman-Mackey 2016, JOSS 1, 24 (doi:10.21105/joss.00024)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from sbi_core.report.plots.style import COLOURS, F64, GREY, LOCK, math_label
from sbi_core.report.text import measurement

__all__ = ["corner"]

_MASSES = (0.68, 0.95)
_TALLEST = 20.0  # times the peak of what is there: higher ones are cut off
_SMALL = 5  # parameters from which on the panels are small
_BINS, _FEW_BINS = 40, 24  # per parameter; fewer where panels are small
_LEFT, _RIGHT, _TOP = 0.8, 0.15, 0.5  # inch
_LINE = 0.16  # inch, of the units below the names where panels are small


def corner(
    samples: ArrayLike,
    labels: Sequence[str],
    truth: ArrayLike | None = None,
    prior: ArrayLike | None = None,
    *,
    figure: Figure | None = None,
    colour: str = COLOURS[0],
    name: str = "",
    values: Sequence[str] | None = None,
) -> Figure:
    """Histograms of single parameters and 68 and 95 % contours of pairs.

    Parameters
    ----------
    samples : (S, d)
        Draws.
    labels : (d,)
        TeX, without dollars.
    truth : (d,), optional
        Drawn as lines; NaN where unknown.
    prior : (P, d), optional
        Draws of the prior, shown in the histograms.
    figure
        A figure made by an earlier call, to draw a second posterior over the first.
    colour, name
        Of this posterior; named ones make a legend.
    values : (d,), optional
        Printed above the panels instead of mean ± standard deviation of the draws.
    """
    import corner as package  # brings pyplot, which nothing else here needs

    x = np.asarray(samples, np.float64)
    x = x[np.isfinite(x).all(1)]
    d = x.shape[1]
    left = _LEFT + (_LINE if d >= _SMALL else 0)
    names = [math_label(label) for label in labels]
    first = figure is None
    if values is None:
        values = [measurement(column.mean(), column.std(ddof=1)) for column in x.T]
    fine = _BINS if d < _SMALL else _FEW_BINS
    ranges = [_range(column) for column in x.T]
    if figure is None:
        side = 3.3 if d == 1 else min(2.2, 10.0 / d)  # inch, of one panel
        size = side * d + left + _RIGHT
        figure = Figure(figsize=(size, size if d > 1 else 3.2))
        bins, tops = [fine] * d, [0.0] * d
    else:
        panels = figure.axes[:: d + 1]
        own, ranges = (
            ranges,
            [_hull(r, ax.get_xlim()) for r, ax in zip(ranges, panels, strict=True)],
        )
        bins = [_bins(fine, r, o) for r, o in zip(ranges, own, strict=True)]
        tops = [ax.get_ylim()[1] for ax in panels]
    rgb = to_rgb(colour)
    with LOCK:
        package.corner(
            x,
            fig=figure,
            bins=bins,
            range=ranges,
            color=colour,
            smooth=1.2 * fine / _BINS,
            levels=_MASSES,
            plot_datapoints=False,
            plot_density=False,
            fill_contours=first,
            no_fill_contours=True,
            contour_kwargs={"linewidths": 1.2},
            contourf_kwargs={"colors": [(*rgb, 0.0), (*rgb, 0.2), (*rgb, 0.45)]} if first else None,
            hist_kwargs={"density": True, "linewidth": 1.3},
            labels=_axis_labels(names) if first else None,
            label_kwargs={"fontsize": "medium" if d < 6 else "small"},
            labelpad=0.6 * d / (figure.get_figwidth() - left - _RIGHT) - 0.3,
            titles=_titles(names, values) if first else None,
            show_titles=first,
            title_fmt=None,
            title_kwargs={"fontsize": "medium" if d < 6 else "small"},
            max_n_ticks=4 if d < _SMALL else 3,
        )
    _margins(figure, left)
    grid = np.array(figure.axes).reshape(d, d)
    for ax, top in zip(grid.diagonal(), tops, strict=True):
        height = ax.get_ylim()[1]
        # much narrower distributions are cut off: they would flatten the first one
        ax.set_ylim(0, top if not first and height > _TALLEST * top else max(height, top))
    if truth is not None:
        _truth_lines(grid, np.asarray(truth, np.float64))
    if prior is not None:
        for ax, column in zip(grid.diagonal(), np.asarray(prior, np.float64).T, strict=True):
            _prior_histogram(ax, column)
    if name:
        _legend(figure, grid[0, 0], name, colour)
    return figure


def _titles(names: Sequence[str], values: Sequence[str]) -> list[str]:
    """Return name and value of every parameter; on two lines where panels are small."""
    separator = " = " if len(names) < 3 else "\n"
    return [f"{name}{separator}{value}" for name, value in zip(names, values, strict=True)]


def _axis_labels(names: Sequence[str]) -> list[str]:
    """Return names with their units on a second line where panels are small."""
    return [n.replace(r"\ [", "$\n$[") if len(names) >= _SMALL else n for n in names]


def _range(x: F64) -> tuple[float, float]:
    """Return the range of the bulk of x, never of zero width."""
    low, high = np.quantile(x, [0.0005, 0.9995])
    margin = 0.05 * (high - low) or 0.5 * max(abs(low), 1.0) * 1e-6
    return float(low - margin), float(high + margin)


def _hull(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return min(a[0], b[0]), max(a[1], b[1])


def _bins(fine: int, whole: tuple[float, float], part: tuple[float, float]) -> int:
    """Return how many bins of the whole range put ``fine`` ones into a part of it."""
    return min(round(fine * (whole[1] - whole[0]) / (part[1] - part[0])), 20 * fine)


def _margins(figure: Figure, left: float) -> None:
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        left=left / width, right=1 - _RIGHT / width, bottom=left / height, top=1 - _TOP / height
    )


def _prior_histogram(ax: Axes, prior: F64) -> None:
    """Dashed, and within the limits of the posterior: a prior is usually much wider."""
    limits = ax.get_xlim()
    density, edges = np.histogram(prior, bins=np.linspace(*_range(prior), _BINS + 1), density=True)
    ax.stairs(density, edges, color=GREY, linestyle="--", baseline=None)
    ax.set_xlim(limits)


def _truth_lines(grid: NDArray[np.object_], truth: F64) -> None:
    """Dashed lines where values are known (the package's own need two parameters or more)."""
    style: dict[str, Any] = {"color": "black", "linewidth": 1, "linestyle": "--"}
    known = np.isfinite(truth)
    for i, j in np.ndindex(*grid.shape):
        ax = cast(Axes, grid[i, j])
        if j <= i and known[j]:
            ax.axvline(float(truth[j]), **style)
        if j < i and known[i]:
            ax.axhline(float(truth[i]), **style)


def _legend(figure: Figure, ax: Axes, name: str, colour: str) -> None:
    ax.plot([], [], color=colour, linewidth=3, alpha=0.7, label=name.replace("$", r"\$"))
    handles, names = ax.get_legend_handles_labels()
    for old in list(figure.legends):
        old.remove()
    if len(figure.axes) > 1:
        figure.legend(handles, names, loc="upper right", frameon=False)
    else:
        ax.legend(frameon=False)
