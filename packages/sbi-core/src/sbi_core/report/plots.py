"""Plots of posteriors and their calibration, for the report and for notebooks.

Every function draws on the axes it is given (or on a new figure) and returns them; nothing here
touches pyplot or its settings. Colours are those of Okabe and Ito, distinct to colour-blind eyes.

Examples
--------
>>> from sbi_core.report import plots
>>> ax = plots.training_curve([{"epoch": 1, "train_loss": 1.0, "val_loss": 1.1}])
>>> ax.figure.savefig("training.pdf")  # doctest: +SKIP

References:
    | Okabe & Ito 2008, "Color universal design"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import gaussian_filter

from sbi_core import diagnostics
from sbi_core.report.inputs import is_comparison
from sbi_core.report.text import measurement

__all__ = [
    "COLOURS",
    "combined_calibration",
    "convergence",
    "corner",
    "coverage",
    "math_label",
    "pulls",
    "recovery",
    "sbc_ecdf",
    "tarp",
    "training_curve",
]

F64 = NDArray[np.float64]
Entry = Mapping[str, Any]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", "-.", ":")
_MARKERS = "osD^vPX"
_GREY, _BAND = "#666666", "#D9D9D9"
_LEGEND_ROW = 0.24  # inch
_MASSES = (0.68, 0.95)
_MAX_POINTS = 250  # of a scatter plot: more make a blot and a large file


def math_label(label: str) -> str:
    """Return a TeX label for matplotlib: in dollars where it parses, else as plain text."""
    tex = label if "$" in label else f"${label}$"
    try:
        MathTextParser("path").parse(tex)
    except (ValueError, RuntimeError):
        return label.replace("$", r"\$")
    return tex


# ----------------------------------------------------------------------------------- posterior


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
    ax.stairs(density, edges, color=_GREY, linestyle="--", baseline=None)
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


# --------------------------------------------------------------------------------- calibration


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
    ax
        Axes to draw on.

    Returns
    -------
    matplotlib.axes.Axes
    """
    r = np.asarray(ranks).astype(np.int64)
    ax = _axes(ax)
    band = diagnostics.sbc_ecdf_band(len(r), draws)
    t = _closed(band.t, 0, 1)
    ax.fill_between(
        t, _closed(band.lower - band.t), _closed(band.upper - band.t), color=_BAND, linewidth=0
    )
    ax.axhline(0, color=_GREY, linewidth=0.8)
    curves = diagnostics.sbc_ecdf(r, draws, band.t) - band.t[:, None]
    for k, label in enumerate(labels):
        ax.plot(t, _closed(curves[:, k]), label=math_label(label), **_line(k))
    ax.set(xlim=(0, 1), xlabel="rank of the truth / number of draws", ylabel="ECDF − uniform")
    ax.yaxis.set_major_locator(MaxNLocator(5))
    _legend_below(ax)
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
    ax
        Axes to draw on.
    labels : (d,)
        TeX, without dollars.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _axes(ax)
    x, y = np.asarray(levels, np.float64), np.asarray(values, np.float64)
    _diagonal_band(ax, n)
    columns = y[:, None] if y.ndim == 1 else y
    for k, column in enumerate(columns.T):
        label = math_label(labels[k]) if k < len(labels) else None
        marker = "o" if len(x) < 12 else None
        ax.plot(x, column, label=label, marker=marker, markersize=4, **_line(k))
    ax.set(xlabel="nominal credibility", ylabel="fraction of truths inside")
    _legend_below(ax)
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
    ax
        Axes to draw on.
    n
        Number of objects; draws the 3-sigma binomial band.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _axes(ax)
    _diagonal_band(ax, n)
    ax.plot(np.asarray(levels), np.asarray(ecp), **_line(0))
    ax.set(xlabel="credibility level", ylabel="expected coverage (TARP)")
    return ax


def _diagonal_band(ax: Axes, n: int | None) -> None:
    if n:
        level = np.linspace(0.002, 0.998, 200)
        low, high = diagnostics.coverage_band(level.tolist(), n)
        ax.fill_between(level, low, high, color=_BAND, linewidth=0)
    ax.plot([0, 1], [0, 1], color=_GREY, linewidth=0.8)
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
    axes
        Two axes to draw on.

    Returns
    -------
    (Axes, Axes)
    """
    if axes is None:
        axes = Figure(figsize=(8.6, 3.3), layout="constrained").subplots(1, 2)
    left, right = axes[0], axes[1]
    left.axhspan(0.8, 1.3, color=_BAND, linewidth=0)
    left.axhline(1, color=_GREY, linewidth=0.8)
    right.axhline(0.68, color=_GREY, linewidth=0.8)
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
    _plain_log(left, "y")
    left.set_ylabel("actual / claimed error (z-rms)")
    right.set(ylim=(0, 1), ylabel="truths inside 68 % intervals")
    for ax in (left, right):
        _count_axis(ax)
    _legend(left)
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
        style = _line(k) | {"linestyle": _STYLES[j % 4]}
        label = (name if j == 0 else "_") if not parameter else f"{name}, {parameter}"
        ax.plot(
            x, y, marker=_MARKERS[k % 7], markersize=5, label=label.replace("$", r"\$"), **style
        )


def _by_parameter(value: Any) -> dict[str, float]:
    if isinstance(value, Mapping):
        return {str(name): float(v) for name, v in value.items()}
    return {"": float(value)}


# ------------------------------------------------------------------------ training and accuracy


def training_curve(history: Sequence[Mapping[str, float]], ax: Axes | None = None) -> Axes:
    """Training and validation loss against epoch; the best epoch is marked.

    Parameters
    ----------
    history
        Rows of ``metrics.jsonl``.
    ax
        Axes to draw on.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _axes(ax, (6.0, 3.2))
    lines = (("train_loss", "training"), ("val_loss", "validation"))
    for k, (key, name) in enumerate(lines):
        rows = [(row["epoch"], row[key]) for row in history if key in row]
        if rows:
            x, y = zip(*rows, strict=True)
            ax.plot(x, y, label=name, marker="." if len(x) < 40 else None, **_line(k))
            if key == "val_loss":
                best = int(np.argmin(y))
                ax.axvline(x[best], color=_GREY, linewidth=0.8, linestyle=":")
                ax.plot(x[best], y[best], "o", color=COLOURS[k], label=f"best, epoch {x[best]:.0f}")
    ax.set(xlabel="epoch", ylabel="loss")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(ax)
    return ax


def recovery(
    theta: ArrayLike, mean: ArrayLike, sd: ArrayLike, label: str, ax: Axes | None = None
) -> Axes:
    """Posterior mean and standard deviation against the truth of test simulations.

    Parameters
    ----------
    theta, mean, sd : (B,)
        One parameter. At most 250 objects, evenly spaced in the order given, are drawn.
    label
        TeX, without dollars.
    ax
        Axes to draw on.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _axes(ax)
    t, m, s = (np.asarray(a, np.float64) for a in (theta, mean, sd))
    good = np.flatnonzero(np.isfinite(t) & np.isfinite(m) & np.isfinite(s))
    ax.set(xlabel="true value", ylabel="posterior mean ± sd", title=math_label(label))
    if not len(good):
        return ax
    keep = good[np.unique(np.linspace(0, len(good) - 1, _MAX_POINTS).astype(int))]
    t, m, s = t[keep], m[keep], s[keep]
    ends = [float(min(t.min(), m.min())), float(max(t.max(), m.max()))]
    ax.plot(ends, ends, color=_GREY, linewidth=0.8, zorder=3)
    ax.errorbar(t, m, s, fmt="none", ecolor=COLOURS[0], elinewidth=0.6, alpha=0.25)
    ax.plot(t, m, "o", markersize=2.5, color=COLOURS[0], markeredgewidth=0)
    _few_ticks(ax)
    return ax


# --------------------------------------------------------------------------------- convergence


def convergence(
    combined: Sequence[Entry],
    name: str,
    label: str,
    ax: Axes | None = None,
    *,
    literature: Sequence[Entry] = (),
) -> Axes:
    """Mean with 1 and 2 sigma against the number of objects, a line per combiner.

    Parameters
    ----------
    combined
        ``combined`` of ``report.json``.
    name
        The parameter.
    label
        Its TeX label, without dollars.
    ax
        Axes to draw on.
    literature
        Rows ``{"label", "n", "parameters": {name: {"mean", "sd"}}}``.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _axes(ax, (4.4, 3.6))
    drawn = _series(combined, name)
    shifts = 1.05 ** (np.arange(len(drawn)) - (len(drawn) - 1) / 2)
    for k, (title, entries) in enumerate(drawn.items()):
        _bars(ax, entries, name, shifts[k], k, title)
    for k, row in enumerate(r for r in literature if name in r.get("parameters", {})):
        value = row["parameters"][name]
        x = row["n"] * 1.12 ** (1 + k % 3)
        ax.errorbar(
            x, value["mean"], value["sd"], fmt="*", color="black", capsize=2, markersize=8,
            markerfacecolor="white", label=_once(ax, "literature"),
        )  # fmt: skip
    _truth_line(ax, [e["parameters"][name]["truth"] for e in _with_truth(combined, name)])
    ax.set_ylabel(math_label(label))
    ax.ticklabel_format(axis="y", useOffset=False)
    _count_axis(ax)
    _legend(ax)
    return ax


def pulls(
    combined: Sequence[Entry], name: str, label: str, ax: Axes | None = None, *, legend: bool = True
) -> Axes:
    """Distance from the truth in claimed standard deviations, against the number of objects.

    Parameters
    ----------
    combined
        ``combined`` of ``report.json``; entries without a truth are left out.
    name
        The parameter.
    label
        Its TeX label, without dollars.
    ax
        Axes to draw on.
    legend
        Whether to name the combiners; colours are those of :func:`convergence`.

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax = _axes(ax, (4.4, 3.6))
    ax.axhspan(-2, 2, color="#EEEEEE", linewidth=0)
    ax.axhspan(-1, 1, color=_BAND, linewidth=0)
    ax.axhline(0, color=_GREY, linewidth=0.8)
    for k, (title, entries) in enumerate(_series(combined, name).items()):
        known = [e for e in _with_truth(entries, name) if e["parameters"][name]["sd"] > 0]
        if known:
            values = [e["parameters"][name] for e in known]
            y = [(v["mean"] - v["truth"]) / v["sd"] for v in values]
            style = _line(k, dashed=is_comparison(known[0]))
            ax.plot([e["n"] for e in known], y, marker=_MARKERS[k % 7], label=title, **style)
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, -3), max(high, 3))
    ax.set_ylabel(f"({math_label(label)} − truth) / sd")
    _count_axis(ax)
    if legend:
        _legend(ax)
    return ax


def _series(combined: Sequence[Entry], name: str) -> dict[str, list[Entry]]:
    """Entries that have the parameter, by combiner (and group, where there are several)."""
    having = [e for e in combined if name in e["parameters"] and e["n"] > 0]  # N = 0: the prior
    groups = {str(e.get("group", "")) for e in having}
    series: dict[str, list[Entry]] = {}
    for entry in sorted(having, key=lambda e: float(e["n"])):
        title = str(entry["combiner"])
        if len(groups) > 1:
            title += f", {entry.get('group', '')}"
        series.setdefault(title.replace("$", r"\$"), []).append(entry)
    order = list(dict.fromkeys(str(e["combiner"]) for e in having))
    return dict(sorted(series.items(), key=lambda s: order.index(str(s[1][0]["combiner"]))))


def _with_truth(entries: Sequence[Entry], name: str) -> list[Entry]:
    return [e for e in entries if "truth" in e["parameters"].get(name, {})]


def _bars(ax: Axes, entries: Sequence[Entry], name: str, shift: float, k: int, title: str) -> None:
    """Thick bars of 1 sigma, thin ones of 2, and a band where the combiner may be quoted."""
    x = np.array([float(e["n"]) for e in entries]) * shift
    mean = np.array([e["parameters"][name]["mean"] for e in entries])
    sd = np.array([e["parameters"][name]["sd"] for e in entries])
    comparison = is_comparison(entries[0])
    style = _line(k, dashed=comparison)
    if len(x) > 1 and not comparison:
        for sigmas, alpha in ((2, 0.08), (1, 0.13)):
            low, high = mean - sigmas * sd, mean + sigmas * sd
            ax.fill_between(x, low, high, color=style["color"], alpha=alpha, linewidth=0)
    for sigmas, width in ((2, 0.8), (1, 2.2)):
        ax.errorbar(x, mean, sigmas * sd, fmt="none", ecolor=style["color"], elinewidth=width)
    ax.plot(x, mean, marker=_MARKERS[k % 7], markersize=4.5, label=title, **style)


def _truth_line(ax: Axes, truths: Sequence[float]) -> None:
    for value in sorted(set(truths)):
        ax.axhline(
            value, color="black", linewidth=1, linestyle="--", label=_once(ax, "truth"), zorder=1
        )


def _once(ax: Axes, label: str) -> str:
    """The label the first time, afterwards one that the legend skips."""
    return "_" if label in ax.get_legend_handles_labels()[1] else label


# -------------------------------------------------------------------------------------- shared


def _axes(ax: Axes | None, size: tuple[float, float] = (3.3, 3.0)) -> Axes:
    return ax if ax is not None else Figure(figsize=size, layout="constrained").subplots()


def _line(k: int, *, dashed: bool = False) -> dict[str, Any]:
    """Colour and dashes of the k-th line."""
    style = _STYLES[k // len(COLOURS) % len(_STYLES)]
    return {"color": COLOURS[k % len(COLOURS)], "linestyle": "--" if dashed else style}


def _closed(values: F64, first: float = 0.0, last: float = 0.0) -> F64:
    return np.concatenate([[first], values, [last]])


def _legend(ax: Axes) -> None:
    n = len(ax.get_legend_handles_labels()[1])
    if n:
        ax.legend(frameon=False, fontsize="small", ncols=1 if n < 7 else 2)


def _legend_below(ax: Axes) -> None:
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


def _few_ticks(ax: Axes) -> None:
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.yaxis.set_major_locator(MaxNLocator(4))


def _count_axis(ax: Axes) -> None:
    """Make x a log axis of object counts, written 1, 10, 1000."""
    ax.set_xscale("log")
    _plain_log(ax, "x")
    low, high = ax.get_xlim()
    ax.set_xlim(low / 1.15, high * 1.15)
    ax.set_xlabel("number of objects N")


def _plain_log(ax: Axes, which: str) -> None:
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
