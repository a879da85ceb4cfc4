"""The report's figures: inline SVG, each with a sentence that says how to read it.

The same inputs give the same bytes: no dates, element names hashed with a fixed salt, and
matplotlib's default style whatever the user has set.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sbi_core.report import plots
from sbi_core.report.inputs import ReportInputs, is_comparison

__all__ = ["STYLE", "Picture", "distinct", "figures", "svg"]

STYLE: dict[str, Any] = {
    "svg.hashsalt": "sbi-core report",
    "svg.fonttype": "path",  # readers need no fonts, and symbols look the same everywhere
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "legend.fontsize": 9,
    "lines.linewidth": 1.6,
    "path.simplify": True,
}
_NO_METADATA = {"Date": None, "Creator": None, "Type": None, "Format": None}
_MIN_DRAWS = 50  # below, contours are noise
_MAX_GROUPS = 6  # in one corner plot
_MAX_CORNER = 8  # parameters in a corner plot that is still readable at page width


@dataclass(frozen=True, slots=True)
class Picture:
    """One figure of the page.

    Parameters
    ----------
    svg
        Markup of the image.
    caption
        How to read it, one sentence.
    wide
        Whether it takes the full width of the page.
    """

    svg: str
    caption: str
    wide: bool = False


def figures(inputs: ReportInputs) -> dict[str, list[Picture]]:
    """Return the figures of every section; sections without data are absent."""
    makers: dict[str, Callable[[ReportInputs], Iterator[Picture]]] = {
        "training": _training,
        "calibration": _calibration,
        "recovery": _recovery,
        "posterior": _posterior,
        "convergence": _convergence,
        "combined_calibration": _combined_calibration,
    }
    with style.context(["default", STYLE]):
        made = {section: list(make(inputs)) for section, make in makers.items()}
    return {
        section: [distinct(p, f"{section}-{k}") for k, p in enumerate(pictures)]
        for section, pictures in made.items()
        if pictures
    }


def svg(figure: Figure) -> str:
    """Return a figure as an ``<svg>`` element without dates, names of programs or fixed size."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": STYLE["svg.hashsalt"]}):
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", text, flags=re.DOTALL)
    width = figure.get_figwidth() * 96  # CSS pixels per inch
    head = rf'<svg role="img" style="width:{width:.0f}px" \1>'
    return re.sub(r'<svg[^>]*(viewBox="[^"]*")[^>]*>', head, text, count=1)


def distinct(picture: Picture, prefix: str) -> Picture:
    """Prefix the names inside an image, of several on a page; its caption is its alt text."""
    words = html.unescape(re.sub(r"<[^>]+>", "", picture.caption))
    text = picture.svg.replace('role="img"', f'role="img" aria-label="{html.escape(words)}"', 1)
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text)
    return Picture(text, picture.caption, picture.wide)


def _picture(ax: Axes, caption: str, *, wide: bool = False) -> Picture:
    figure = ax.figure
    assert isinstance(figure, Figure)
    return Picture(svg(figure), caption, wide)


# ------------------------------------------------------------------------------------ sections


def _training(inputs: ReportInputs) -> Iterator[Picture]:
    if inputs.history:
        yield _picture(
            plots.training_curve(inputs.history),
            "Loss per epoch (mean negative log density, lower is better): the two curves should "
            "flatten together, and a validation loss that rises again means overfitting.",
            wide=True,
        )


def _calibration(inputs: ReportInputs) -> Iterator[Picture]:
    labels = [inputs.label(name) for name in inputs.inferred]
    objects = inputs.report.get("calibration", {}).get("objects")
    if inputs.ranks is not None and inputs.draws and len(inputs.ranks):
        yield _picture(
            plots.sbc_ecdf(inputs.ranks, inputs.draws, labels),
            "Simulation-based calibration: a calibrated posterior stays inside the grey band with "
            "95 % probability; an arch is a bias (above zero: estimates too high), an S a wrong "
            "width.",
        )
    if inputs.coverage_levels is not None and inputs.coverage_values is not None:
        n = objects or (0 if inputs.ranks is None else len(inputs.ranks))
        yield _picture(
            plots.coverage(inputs.coverage_levels, inputs.coverage_values, n, labels=labels),
            "Coverage of central intervals: below the diagonal the posterior is too narrow or "
            "biased, above it too wide; grey is the 3-sigma scatter of a calibrated one.",
        )
    if inputs.tarp_levels is not None and inputs.tarp_ecp is not None:
        yield _picture(
            plots.tarp(inputs.tarp_levels, inputs.tarp_ecp, n=objects),
            "TARP, a joint test of all parameters: a calibrated posterior follows the diagonal "
            "within the grey 3-sigma band.",
        )


def _recovery(inputs: ReportInputs) -> Iterator[Picture]:
    if inputs.truth_and_mean is None:
        return
    theta, mean, sd = (np.asarray(a, np.float64) for a in inputs.truth_and_mean)
    names = list(inputs.inferred)
    panels = _panels(len(names), 3, (3.25, 3.0))
    for k, (name, ax) in enumerate(zip(names, panels, strict=True)):
        plots.recovery(theta[:, k], mean[:, k], sd[:, k], inputs.label(name), ax)
    yield _picture(
        panels[0],
        "Single test simulations (at most 250 are drawn): points on the line are recovered "
        "exactly, and a slope below one is the pull of the prior where the data say little.",
        wide=True,
    )


def _panels(n: int, columns: int, size: tuple[float, float]) -> list[Axes]:
    """Return the axes of a figure with n panels, so many to a row."""
    columns = min(n, columns)
    rows = -(-n // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in grid[n:]:
        ax.set_visible(False)
    return list(grid[:n])


def _posterior(inputs: ReportInputs) -> Iterator[Picture]:
    figure, shown, left_out = None, 0, 0
    for name, entry in _largest(inputs).items():
        samples = _samples(inputs, entry)
        if samples is None or len(samples) < _MIN_DRAWS:
            continue
        names = list(entry["parameters"])[:_MAX_CORNER]
        figure = plots.corner(
            np.asarray(samples, np.float64)[:, : len(names)],
            [inputs.label(parameter) for parameter in names],
            [entry["parameters"][parameter].get("truth", np.nan) for parameter in names],
            figure=figure,
            colour=plots.COLOURS[shown % len(plots.COLOURS)],
            name=name,
        )
        shown += 1
        left_out = max(left_out, len(entry["parameters"]) - len(names))
    if figure is not None:
        first = "" if shown == 1 else " (numbers above the panels: the first one named)"
        rest = f"; {left_out} more parameters are in the table" if left_out else ""
        yield Picture(
            svg(figure),
            "Combined posterior at the largest N: contours hold 68 and 95 % of the probability"
            f"{first}, dashed lines are true values where they are known{rest}.",
            wide=True,
        )


def _largest(inputs: ReportInputs) -> dict[str, Mapping[str, Any]]:
    """The largest combination by every combiner; of several groups, by the main one only.

    Those for comparison only are left out: next to them nothing else can be seen.
    """
    if len(inputs.headline) > 1:
        return {str(e.get("group", "")): e for e in inputs.headline[:_MAX_GROUPS]}
    best: dict[str, Mapping[str, Any]] = {}
    for entry in [e for e in inputs.combined if not is_comparison(e)]:
        name = str(entry["combiner"])
        if name not in best or entry["n"] > best[name]["n"]:
            best[name] = entry
    ordered = sorted(best.items(), key=lambda item: item[0] != inputs.main_combiner)
    return dict(ordered)


def _samples(inputs: ReportInputs, entry: Mapping[str, Any]) -> Any:
    """Draws of an entry: by combiner, or by ``group/combiner`` where there are several groups."""
    combiner = str(entry["combiner"])
    if len(inputs.headline) > 1:
        return inputs.combined_samples.get(f"{entry.get('group', '')}/{combiner}")
    return inputs.combined_samples.get(combiner)


def _convergence(inputs: ReportInputs) -> Iterator[Picture]:
    combined, literature = inputs.combined, inputs.literature
    names = list(dict.fromkeys(name for entry in combined for name in entry["parameters"]))
    if not names or len(combined) + len(literature) < 2:
        return
    known = any("truth" in p for e in combined for p in e["parameters"].values())
    columns = 2 if known else 1
    panels = _panels(len(names) * columns, columns, (4.85, 3.3))
    for k, name in enumerate(names):
        left = panels[k * columns]
        plots.convergence(combined, name, inputs.label(name), left, literature=literature)
        if known:
            plots.pulls(combined, name, inputs.label(name), panels[k * columns + 1], legend=False)
    start = "Left: mean with" if known else "Mean with"
    right = (
        "; right: distance from the truth in claimed standard deviations, where a line that leaves "
        "the grey bands (1 and 2 sigma) as N grows is a bias that the error bars deny"
    )
    yield _picture(
        panels[0],
        f"{start} 1 sigma (thick) and 2 sigma (thin) against the number of objects, combiners set "
        "slightly apart: errors should shrink as 1/√N, and bars of different N should overlap"
        f"{right if known else ''}.",
        wide=True,
    )


def _combined_calibration(inputs: ReportInputs) -> Iterator[Picture]:
    entries: Sequence[Mapping[str, Any]] = inputs.report.get("combined_calibration", ())
    if entries:
        left, _ = plots.combined_calibration(entries)
        yield _picture(
            left,
            "Groups of simulated objects: at every N, actual errors should be 0.8 to 1.3 times "
            "the claimed ones (left, grey) and 68 % intervals should hold 68 % of truths (right).",
            wide=True,
        )
