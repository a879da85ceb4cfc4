"""Histograms and contours of posteriors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from sbi_core.report.plots.style import COLOURS, F64, GREY, math_label
from sbi_core.report.text import measurement

__all__ = ["corner"]

_MASSES = (0.68, 0.95)


def corner(
    samples: ArrayLike,
    labels: Sequence[str],
    truth: ArrayLike | None = None,
    prior: ArrayLike | None = None,
    *,
    figure: Figure | None = None,
    colour: str = COLOURS[0],
    name: str = "",
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

    Returns
    -------
    matplotlib.figure.Figure
    """
    x = np.asarray(samples, np.float64)
    x = x[np.isfinite(x).all(1)]
    d = x.shape[1]
    new = figure is None
    if figure is None:
        size = min(2.3 * d + 0.8, 11.0) if d > 1 else 4.2
        figure = Figure(figsize=(size, size if d > 1 else 3.2), layout="constrained")
        figure.subplots(d, d, squeeze=False, sharex="col")
    grid = np.array(figure.axes[: d * d]).reshape(d, d)
    for i in range(d):
        _histogram(grid[i, i], x[:, i], colour, filled=new)
        if prior is not None:
            _prior_histogram(grid[i, i], np.asarray(prior, np.float64)[:, i])
        for j in range(i):
            _contours(grid[i, j], x[:, j], x[:, i], colour, filled=new)
    if new:
        _dress_corner(grid, x, [math_label(label) for label in labels])
        if truth is not None:
            _corner_truth(grid, np.asarray(truth, np.float64).tolist())
    if name:
        _corner_legend(figure, grid, name, colour)
    return figure


def _histogram(ax: Axes, x: F64, colour: str, *, filled: bool) -> None:
    density, edges = np.histogram(x, bins=_edges(x, 40), density=True)
    if filled:
        ax.stairs(density, edges, color=colour, fill=True, alpha=0.25)
    ax.stairs(density, edges, color=colour, linewidth=1.3)
    top = 1.05 * float(density.max())
    ax.set_ylim(0, top if filled else max(ax.get_ylim()[1], top))


def _prior_histogram(ax: Axes, prior: F64) -> None:
    """Dashed, and without a say in the limits: a prior is usually much wider."""
    limits = ax.get_xlim()
    density, edges = np.histogram(prior, bins=_edges(prior, 40), density=True)
    ax.stairs(density, edges, color=GREY, linestyle="--", baseline=None)
    ax.set_xlim(limits)


def _edges(x: F64, bins: int) -> F64:
    """Bin edges over the bulk of x, never of zero width."""
    low, high = np.quantile(x, [0.0005, 0.9995])
    margin = 0.05 * (high - low) or 0.5 * max(abs(low), 1.0) * 1e-6
    return np.linspace(low - margin, high + margin, bins + 1)


def _contours(ax: Axes, x: F64, y: F64, colour: str, *, filled: bool) -> None:
    counts, x_edges, y_edges = np.histogram2d(x, y, bins=(_edges(x, 48), _edges(y, 48)))
    # Padding lets contours close; smoothing hides the noise of a few thousand draws.
    density = gaussian_filter(np.pad(counts, 4), 1.5).T
    outer, inner = _mass_levels(density)
    peak = 1.01 * float(density.max())
    at = _padded_centres(x_edges, 4), _padded_centres(y_edges, 4)
    if filled:
        ax.contourf(*at, density, levels=[outer, peak], colors=colour, alpha=0.2)
        ax.contourf(*at, density, levels=[inner, peak], colors=colour, alpha=0.3)
    ax.contour(*at, density, levels=[outer, inner], colors=colour, linewidths=1.2)


def _mass_levels(density: F64) -> tuple[float, float]:
    """Density above which 95 and 68 % of the mass lie, increasing."""
    ordered = np.sort(density.ravel())[::-1]
    mass = np.cumsum(ordered) / ordered.sum()
    inner, outer = (float(ordered[np.searchsorted(mass, m)]) for m in _MASSES)
    return min(outer, inner * (1 - 1e-9)), inner


def _padded_centres(edges: F64, pad: int) -> F64:
    step = edges[1] - edges[0]
    return np.asarray(edges[0] + step * (np.arange(len(edges) - 1 + 2 * pad) - pad + 0.5))


def _dress_corner(grid: NDArray[Any], x: F64, labels: Sequence[str]) -> None:
    d = len(labels)
    for i, j in np.ndindex(d, d):
        ax = cast(Axes, grid[i, j])
        if j > i:
            ax.set_visible(False)
            continue
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(3 if d < 5 else 2, prune="both"))
        ax.ticklabel_format(useOffset=False)
        ax.tick_params(labelbottom=i == d - 1, labelleft=0 == j < i, left=j < i)
        if i == d - 1:
            ax.set_xlabel(labels[j])
        if j == 0 < i:
            ax.set_ylabel(labels[i])
        if i == j:
            mean, sd = float(x[:, i].mean()), float(x[:, i].std())
            ax.set_title(f"{labels[i]} = {measurement(mean, sd)}", fontsize="medium")


def _corner_truth(grid: NDArray[Any], truth: Sequence[float]) -> None:
    for i, j in np.ndindex(*grid.shape):
        ax = cast(Axes, grid[i, j])
        if j <= i and np.isfinite(truth[j]):
            ax.axvline(truth[j], color="black", linewidth=1, linestyle="--")
        if j < i and np.isfinite(truth[i]):
            ax.axhline(truth[i], color="black", linewidth=1, linestyle="--")


def _corner_legend(figure: Figure, grid: NDArray[Any], name: str, colour: str) -> None:
    ax: Axes = grid[0, 0]
    ax.plot([], [], color=colour, linewidth=3, alpha=0.7, label=name.replace("$", r"\$"))
    handles, names = ax.get_legend_handles_labels()
    for old in list(figure.legends):
        old.remove()
    if len(grid) > 1:
        figure.legend(handles, names, loc="upper right", frameon=False)
    else:
        ax.legend(frameon=False)
