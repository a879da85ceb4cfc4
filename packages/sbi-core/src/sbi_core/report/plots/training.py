"""Training loss, and estimates against true values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike

from sbi_core.report.plots.style import (
    COLOURS,
    GREY,
    add_legend,
    few_ticks,
    line_style,
    math_label,
    new_axes,
)

__all__ = ["recovery", "training_curve"]

_MAX_POINTS = 250  # of a scatter plot: more make a blot and a large file


def training_curve(history: Sequence[Mapping[str, float]], ax: Axes | None = None) -> Axes:
    """Training and validation loss against epoch; the best epoch is marked.

    Parameters
    ----------
    history
        Rows of ``metrics.jsonl``.
    """
    ax = new_axes(ax, (6.0, 3.2))
    lines = (("train_loss", "training"), ("val_loss", "validation"))
    for k, (key, name) in enumerate(lines):
        rows = [(row["epoch"], row[key]) for row in history if key in row]
        if rows:
            x, y = zip(*rows, strict=True)
            ax.plot(x, y, label=name, marker="." if len(x) < 40 else None, **line_style(k))
            if key == "val_loss":
                best = int(np.argmin(y))
                ax.axvline(x[best], color=GREY, linewidth=0.8, linestyle=":")
                ax.plot(x[best], y[best], "o", color=COLOURS[k], label=f"best, epoch {x[best]:.0f}")
    ax.set(xlabel="epoch", ylabel="loss")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_legend(ax)
    return ax


def recovery(
    theta: ArrayLike,
    mean: ArrayLike,
    sd: ArrayLike,
    label: str,
    ax: Axes | None = None,
    *,
    unit: str = "",
) -> Axes:
    """Posterior mean and standard deviation against the truth of test simulations.

    Parameters
    ----------
    theta, mean, sd : (B,)
        One parameter. At most 250 objects, evenly spaced in the order given, are drawn.
    label
        TeX, without dollars.
    unit
        Of the parameter, for both axes.
    """
    ax = new_axes(ax)
    t, m, s = (np.asarray(a, np.float64) for a in (theta, mean, sd))
    good = np.flatnonzero(np.isfinite(t) & np.isfinite(m) & np.isfinite(s))
    brackets = f" [{unit}]" if unit else ""
    ax.set(xlabel=f"true value{brackets}", ylabel=f"mean ± sd{brackets}", title=math_label(label))
    if not len(good):
        return ax
    keep = good[np.unique(np.linspace(0, len(good) - 1, _MAX_POINTS).astype(int))]
    t, m, s = t[keep], m[keep], s[keep]
    ends = [float(min(t.min(), m.min())), float(max(t.max(), m.max()))]
    ax.plot(ends, ends, color=GREY, linewidth=0.8, zorder=3)
    ax.errorbar(t, m, s, fmt="none", ecolor=COLOURS[0], elinewidth=0.6, alpha=0.25)
    ax.plot(t, m, "o", markersize=2.5, color=COLOURS[0], markeredgewidth=0)
    few_ticks(ax)
    return ax
