"""Colours, labels, axes and legends of all plots.

Colours are those of Okabe and Ito, distinct to colour-blind eyes. Matplotlib's settings and its
parser of formulae are shared by all threads of a process: whoever draws for a report holds
:data:`LOCK`.

References:
    | Okabe & Ito 2008, "Color universal design"
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

__all__ = [
    "BAND",
    "COLOURS",
    "F64",
    "GREY",
    "LOCK",
    "MARKERS",
    "STYLES",
    "Entry",
    "add_legend",
    "add_legend_below",
    "closed",
    "count_axis",
    "few_ticks",
    "line_style",
    "math_label",
    "new_axes",
    "plain_log",
]

LOCK = threading.RLock()

F64 = NDArray[np.float64]
Entry = Mapping[str, Any]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":")
MARKERS = "osD^vPX"
GREY, BAND = "#666666", "#D9D9D9"
_LEGEND_ROW = 0.24  # inch


def math_label(label: str) -> str:
    """Return a TeX label for matplotlib: in dollars where it parses, else as plain text."""
    tex = label if "$" in label else f"${label}$"
    try:
        with LOCK:
            MathTextParser("path").parse(tex)
    except (ValueError, RuntimeError):
        return label.replace("$", r"\$")
    return tex


def new_axes(ax: Axes | None, size: tuple[float, float] = (3.3, 3.0)) -> Axes:
    """Return the axes, or those of a new figure of that size [inch]."""
    return ax if ax is not None else Figure(figsize=size, layout="constrained").subplots()


def line_style(k: int, *, dashed: bool = False) -> dict[str, Any]:
    """Colour and dashes of the k-th line."""
    style = STYLES[k // len(COLOURS) % len(STYLES)]
    return {"color": COLOURS[k % len(COLOURS)], "linestyle": "--" if dashed else style}


def closed(values: F64, first: float = 0.0, last: float = 0.0) -> F64:
    """Return a curve with its end points."""
    return np.concatenate([[first], values, [last]])


def add_legend(ax: Axes) -> None:
    """Show a legend, if any line has a label."""
    n = len(ax.get_legend_handles_labels()[1])
    if n:
        ax.legend(frameon=False, fontsize="small", ncols=1 if n < 7 else 2)


def add_legend_below(ax: Axes) -> None:
    """Put the legend under the axes, where it hides nothing; many lines make the figure taller."""
    n = len(ax.get_legend_handles_labels()[1])
    if not n:
        return
    columns = min(n, 4 if n <= 4 else 3)
    rows = -(-n // columns)
    figure = ax.figure
    if isinstance(figure, Figure) and len(figure.axes) == 1 and rows > 2:
        figure.set_figheight(figure.get_figheight() + _LEGEND_ROW * (rows - 2))
    ax.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.2),
        frameon=False,
        fontsize="small",
        ncols=columns,
        handlelength=1.2,
        columnspacing=0.9,
    )


def few_ticks(ax: Axes) -> None:
    """Limit both axes to about four ticks."""
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.yaxis.set_major_locator(MaxNLocator(4))


def count_axis(ax: Axes) -> None:
    """Make x a log axis of object counts, written 1, 10, 1000."""
    ax.set_xscale("log")
    plain_log(ax, "x")
    low, high = ax.get_xlim()
    ax.set_xlim(low / 1.15, high * 1.15)
    ax.set_xlabel("number of objects N")


def plain_log(ax: Axes, which: str) -> None:
    """Write the ticks of a log axis as plain numbers, more than decades on a short axis."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    low, high = ax.get_xlim() if which == "x" else ax.get_ylim()
    ratio = high / low
    subs = (1.0,) if ratio > 300 else (1.0, 3.0) if ratio > 20 else (1.0, 2.0, 5.0)
    ticks = [s * 10.0**p for p in range(-6, 10) for s in subs]
    axis.set_ticks([t for t in ticks if low <= t <= high])
    axis.set_major_formatter(FuncFormatter(_plain))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())


def _plain(value: float, _: int | None = None) -> str:
    return f"{value:g}"
