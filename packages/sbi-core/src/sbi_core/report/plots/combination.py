"""Combined posteriors against the number of objects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from sbi_core.report.plots.style import (
    BAND,
    GREY,
    MARKERS,
    Entry,
    add_legend,
    count_axis,
    line_style,
    math_label,
    new_axes,
)

__all__ = ["convergence", "is_comparison", "pulls"]


def is_comparison(entry: Entry) -> bool:
    """Return True if an entry of ``combined`` is shown for comparison only."""
    return "comparison_only" in entry.get("flags", ())


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
    literature
        Rows ``{"label", "n", "parameters": {name: {"mean", "sd"}}}``.
    """
    ax = new_axes(ax, (4.4, 3.6))
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
    count_axis(ax)
    add_legend(ax)
    return ax


def pulls(
    combined: Sequence[Entry], name: str, label: str, ax: Axes | None = None, *, legend: bool = True
) -> Axes:
    """Distance from the true value in units of the quoted error, against the number of objects.

    Parameters
    ----------
    combined
        ``combined`` of ``report.json``; entries without a truth are left out.
    name
        The parameter.
    label
        Its TeX label, without dollars.
    legend
        True to name the combiners; colours are those of :func:`convergence`.
    """
    ax = new_axes(ax, (4.4, 3.6))
    ax.axhspan(-2, 2, color="#EEEEEE", linewidth=0)
    ax.axhspan(-1, 1, color=BAND, linewidth=0)
    ax.axhline(0, color=GREY, linewidth=0.8)
    for k, (title, entries) in enumerate(_series(combined, name).items()):
        known = [e for e in _with_truth(entries, name) if e["parameters"][name]["sd"] > 0]
        if known:
            values = [e["parameters"][name] for e in known]
            y = [(v["mean"] - v["truth"]) / v["sd"] for v in values]
            style = line_style(k, dashed=is_comparison(known[0]))
            ax.plot([e["n"] for e in known], y, marker=MARKERS[k % 7], label=title, **style)
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, -3), max(high, 3))
    ax.set_ylabel(f"({math_label(label)} − true value) / sd")
    count_axis(ax)
    if legend:
        add_legend(ax)
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
    style = line_style(k, dashed=comparison)
    if len(x) > 1 and not comparison:
        for sigmas, alpha in ((2, 0.08), (1, 0.13)):
            low, high = mean - sigmas * sd, mean + sigmas * sd
            ax.fill_between(x, low, high, color=style["color"], alpha=alpha, linewidth=0)
    for sigmas, width in ((2, 0.8), (1, 2.2)):
        ax.errorbar(x, mean, sigmas * sd, fmt="none", ecolor=style["color"], elinewidth=width)
    ax.plot(x, mean, marker=MARKERS[k % 7], markersize=4.5, label=title, **style)


def _truth_line(ax: Axes, truths: Sequence[float]) -> None:
    for value in sorted(set(truths)):
        ax.axhline(
            value,
            color="black",
            linewidth=1,
            linestyle="--",
            label=_once(ax, "true value"),
            zorder=1,
        )


def _once(ax: Axes, label: str) -> str:
    """Return the label the first time, afterwards one that the legend skips."""
    return "_" if label in ax.get_legend_handles_labels()[1] else label
