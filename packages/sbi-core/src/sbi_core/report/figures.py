"""The report's figures: drawn once, as inline SVG of the page or as files for a paper.

The same report gives the same bytes: no dates, element names hashed with a fixed salt, and
matplotlib's default style whatever the user has set.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sbi_core.analyses import Drawing, Section
from sbi_core.data.writing import safe_names, written
from sbi_core.report import plots
from sbi_core.report.plots.combination import is_comparison
from sbi_core.report.plots.style import LOCK
from sbi_core.report.text import interval, measurement
from sbi_core.report.view import headline, inferred, main_combiner, tex_label

__all__ = [
    "drawing_style",
    "drawings",
    "pictures",
    "section_records",
    "svg",
    "write_figures",
]

Report = Mapping[str, Any]
Arrays = Mapping[str, NDArray[Any]]
History = Sequence[Mapping[str, float]]
Drawings = dict[str, dict[str, Drawing]]

_STYLE: dict[str, Any] = {
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
_EDITABLE: dict[Any, Any] = {
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "savefig.dpi": 300,
    "savefig.bbox": "tight",
}
_NO_METADATA = {"Date": None, "Creator": None, "Type": None, "Format": None}
_MIN_DRAWS = 50  # below, contours are noise
_MAX_GROUPS = 6  # in one corner plot
_MAX_CORNER = 8  # parameters in a corner plot that is still readable at page width


@contextmanager
def drawing_style() -> Iterator[None]:
    """Draw in the style of the page, whatever the user has set, one thread at a time."""
    with LOCK, style.context(["default", _STYLE]):
        yield


def drawings(report: Report, arrays: Arrays, history: History = ()) -> Drawings:
    """Return the figures of every section, by name; sections without data are absent.

    Parameters
    ----------
    report
        The dictionary of ``report.json``.
    arrays
        ``ranks`` (B, d) among ``draws`` draws, ``coverage_levels`` (L,), ``coverage_values``
        (L, d), ``tarp_levels`` and ``tarp_ecp`` (K,), ``theta``, ``mean`` and ``sd`` (B, d) of
        test simulations; ``combined/GROUP/COMBINER`` (S, k), draws of the largest combination;
        ``object/ID`` (S, d), draws of single objects, ``truth/ID`` (d,); ``prior`` (P, d).
    history
        Rows of ``metrics.jsonl``.
    """
    made = {
        "training": dict(_training(history)),
        "calibration": dict(_calibration(report, arrays)),
        "recovery": dict(_recovery(report, arrays)),
        "posterior": dict(_posterior(report, arrays)),
        "objects": dict(_objects(report, arrays)),
        "convergence": dict(_convergence(report)),
        "combined_calibration": dict(_combined_calibration(report)),
    }
    return {section: figures for section, figures in made.items() if figures}


def pictures(made: Mapping[str, Drawing], prefix: str = "") -> list[dict[str, Any]]:
    """Return drawings as records ``svg``, ``caption``, ``wide``; ``prefix`` keeps ids apart."""
    return [
        {
            "svg": _distinct(svg(d.figure), d.caption, f"{prefix}{name}"),
            "caption": d.caption,
            "wide": d.wide,
        }
        for name, d in made.items()
    ]


def section_records(sections: Sequence[Section], prefix: str) -> list[dict[str, Any]]:
    """Return the sections of an analysis as JSON-serialisable records, drawn once."""
    return [
        {
            "title": section.title,
            "text": list(section.text),
            "pictures": pictures(
                {str(j): d for j, d in enumerate(section.drawings)}, f"{prefix}-{k}-"
            ),
            "tables": [
                {
                    "head": list(t.head),
                    "rows": [
                        [c if isinstance(c, str) else interval(*c) for c in r] for r in t.rows
                    ],
                    "caption": t.caption,
                }
                for t in section.tables
            ],
        }
        for k, section in enumerate(sections)
    ]


def write_figures(
    made: Drawings, sections: Sequence[Section], folder: Path, kind: str
) -> list[Path]:
    """Write every figure into a separate file, with editable text."""
    named = {name: drawing for part in made.values() for name, drawing in part.items()}
    for k, section in enumerate(sections, 1):
        title = re.sub(r"\W+", "-", section.title.lower()).strip("-")
        named |= {f"{k:02d}-{title}-{j}": d for j, d in enumerate(section.drawings, 1)}
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{name}.{kind}" for name in named]
    with LOCK, matplotlib.rc_context(_EDITABLE):
        for path, drawing in zip(paths, named.values(), strict=True):
            with written(path) as temporary:
                drawing.figure.savefig(temporary)
    return paths


def svg(figure: Figure) -> str:
    """Return a figure as an ``<svg>`` element without dates, names of programs or fixed size."""
    buffer = io.StringIO()
    with LOCK, matplotlib.rc_context({"svg.hashsalt": _STYLE["svg.hashsalt"]}):
        figure.savefig(buffer, format="svg", metadata=_NO_METADATA)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' d="[^"]*"', _rounded, text)
    width = figure.get_figwidth() * 96  # CSS pixels per inch
    head = rf'<svg role="img" style="width:{width:.0f}px" \1>'
    return re.sub(r'<svg[^>]*(viewBox="[^"]*")[^>]*>', head, text, count=1)


def _rounded(path: re.Match[str]) -> str:
    """Return a path with coordinates to 0.01 pt: half the size of the page."""
    return re.sub(r"(\.\d\d)\d+", r"\1", path[0]).replace("\n", " ")


def _distinct(image: str, caption: str, prefix: str) -> str:
    """Prefix the names inside an image, of several on a page; its caption is its alt text."""
    words = html.unescape(re.sub(r"<[^>]+>", "", caption))
    image = image.replace('role="img"', f'role="img" aria-label="{html.escape(words)}"', 1)
    prefix = re.sub(r"[^\w-]", "-", prefix)
    image = re.sub(r'\bid="', f'id="{prefix}-', image)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", image)


def _figure(ax: Axes) -> Figure:
    assert isinstance(ax.figure, Figure)
    return ax.figure


# ------------------------------------------------------------------------------------ sections


def _training(history: History) -> Iterator[tuple[str, Drawing]]:
    if history:
        caption = (
            "Loss per epoch (lower is better): both curves should level off, and a rising "
            "validation loss means overfitting; the training loss includes dropout and auxiliary "
            "terms, so that the levels may differ."
        )
        yield "training", Drawing(_figure(plots.training_curve(history)), caption, wide=True)


def _calibration(report: Report, arrays: Arrays) -> Iterator[tuple[str, Drawing]]:
    names = inferred(report)
    labels = [tex_label(report, name) for name in names]
    n = report.get("calibration", {}).get("objects")
    ranks = arrays.get("ranks")
    if ranks is not None and len(ranks):
        caption = (
            "Simulation-based calibration: curves of a calibrated posterior stay inside the grey "
            "band with 95 % probability; an arch means bias (above zero: estimates too high), an "
            "S-shape a wrong width."
        )
        yield "sbc", Drawing(_figure(plots.sbc_ecdf(ranks, int(arrays["draws"]), labels)), caption)
    if "coverage_levels" in arrays:
        objects = n or (0 if ranks is None else len(ranks))
        levels, values = arrays["coverage_levels"], arrays["coverage_values"]
        caption = (
            "Coverage of central intervals: below the diagonal the posterior is too narrow or "
            "biased, above it too wide; the grey band is the 3-sigma binomial scatter."
        )
        drawn = plots.coverage(levels, values, objects, labels=labels)
        yield "coverage", Drawing(_figure(drawn), caption)
    if "tarp_levels" in arrays:
        caption = (
            "TARP, a joint test of all parameters: a calibrated posterior follows the diagonal "
            "within the grey 3-sigma band."
        )
        drawn = plots.tarp(arrays["tarp_levels"], arrays["tarp_ecp"], n=n)
        yield "tarp", Drawing(_figure(drawn), caption)


def _recovery(report: Report, arrays: Arrays) -> Iterator[tuple[str, Drawing]]:
    if "theta" not in arrays:
        return
    theta, mean, sd = (np.asarray(arrays[k], np.float64) for k in ("theta", "mean", "sd"))
    columns = report.get("parameters", {})
    names = inferred(report)
    panels = _panels(len(names), 3, (3.25, 3.0))
    for k, (name, ax) in enumerate(zip(names, panels, strict=True)):
        unit = str(columns[name].get("unit", ""))
        label = tex_label(report, name)
        plots.recovery(theta[:, k], mean[:, k], sd[:, k], label, ax, unit=unit)
    caption = (
        "Test simulations (at most 250 are drawn): points on the line are recovered exactly, and "
        "a slope below one means that the prior dominates."
    )
    yield "recovery", Drawing(_figure(panels[0]), caption, wide=True)


def _panels(n: int, columns: int, size: tuple[float, float]) -> list[Axes]:
    """Return the axes of a figure with n panels, so many to a row."""
    columns = min(n, columns)
    rows = -(-n // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in grid[n:]:
        ax.set_visible(False)
    return list(grid[:n])


def _posterior(report: Report, arrays: Arrays) -> Iterator[tuple[str, Drawing]]:
    figure, shown, left_out = None, 0, 0
    for name, entry in _largest(report).items():
        samples = _samples(arrays, entry)
        if samples is None or len(samples) < _MIN_DRAWS:
            continue
        shown_parameters = dict(list(entry["parameters"].items())[:_MAX_CORNER])
        figure = plots.corner(
            np.asarray(samples, np.float64)[:, : len(shown_parameters)],
            [tex_label(report, parameter, unit=True) for parameter in shown_parameters],
            [p.get("truth", np.nan) for p in shown_parameters.values()],
            figure=figure,
            colour=plots.COLOURS[shown % len(plots.COLOURS)],
            name=name,
            values=[measurement(p["mean"], p["sd"]) for p in shown_parameters.values()],
        )
        shown += 1
        left_out = max(left_out, len(entry["parameters"]) - len(shown_parameters))
    if figure is not None:
        first = "" if shown == 1 else " (above the panels: mean ± sd of the first one named)"
        rest = f"; {left_out} more parameters are in the table" if left_out else ""
        caption = (
            "Combined posterior at the largest N: contours enclose 68 and 95 % of the "
            f"probability{first}, dashed lines mark true values where they are known{rest}."
        )
        yield "corner", Drawing(figure, caption, wide=True)


def _largest(report: Report) -> dict[str, Mapping[str, Any]]:
    """The largest combination by every combiner; of several groups, by the main one only.

    Those for comparison only are left out: next to them nothing else can be seen.
    """
    main = headline(report)
    if len(main) > 1:
        return {str(e.get("group", "")): e for e in main[:_MAX_GROUPS]}
    best: dict[str, Mapping[str, Any]] = {}
    for entry in report.get("combined", ()):
        name = str(entry["combiner"])
        larger = name not in best or entry["n"] > best[name]["n"]
        if entry.get("parameters") and not is_comparison(entry) and larger:
            best[name] = entry
    return dict(sorted(best.items(), key=lambda item: item[0] != main_combiner(report)))


def _samples(arrays: Arrays, entry: Mapping[str, Any]) -> NDArray[Any] | None:
    """Return the draws of an entry; of the only group where it names none."""
    start, end = f"combined/{entry.get('group', '')}", f"/{entry['combiner']}"
    keys = [k for k in arrays if k.startswith(start) and k.endswith(end)]
    return arrays[keys[0]] if keys else None


def _objects(report: Report, arrays: Arrays) -> Iterator[tuple[str, Drawing]]:
    """Draw the posterior of single objects, of the best constrained parameters."""
    names = inferred(report)
    widths = report.get("widths", {})
    unknown = {"posterior": 1.0, "prior": 1.0}
    known = [widths.get(name, unknown) for name in names]
    ratio = [w["posterior"] / w["prior"] if w["prior"] > 0 else 1.0 for w in known]
    columns = np.sort(np.argsort(ratio, kind="stable")[:_MAX_CORNER])
    left_out = len(names) - len(columns)
    rest = f"; the {left_out} least constrained parameters are left out" if left_out else ""
    objects = [k.removeprefix("object/") for k in arrays if k.startswith("object/")]
    for name, file in zip(objects, safe_names(objects), strict=True):
        draws = np.asarray(arrays[f"object/{name}"], np.float64)
        truth = arrays.get(f"truth/{name}")
        prior = arrays.get("prior")
        figure = plots.corner(
            draws[:, columns],
            [tex_label(report, names[k], unit=True) for k in columns],
            None if truth is None else np.asarray(truth)[columns],
            None if prior is None else np.asarray(prior)[:, columns],
            values=[_median(draws[:, k]) for k in columns],
        )
        lines = "" if truth is None else ", black lines mark the true values"
        caption = (
            f"Posterior of {name}: contours enclose 68 and 95 % of the probability, numbers are "
            f"median and central 68 %, grey dashed histograms show the prior{lines}{rest}."
        )
        yield f"corner-{file}", Drawing(figure, caption, wide=True)


def _median(draws: NDArray[Any]) -> str:
    value, up, down = interval(*np.quantile(draws, [0.16, 0.5, 0.84]))
    return f"{value} $^{{{up}}}_{{{down}}}$"


def _convergence(report: Report) -> Iterator[tuple[str, Drawing]]:
    combined = [c for c in report.get("combined", ()) if c.get("parameters")]
    names = list(dict.fromkeys(name for entry in combined for name in entry["parameters"]))
    if not names or len({entry["n"] for entry in combined}) < 2:
        return
    known = any("truth" in p for e in combined for p in e["parameters"].values())
    columns = 2 if known else 1
    panels = _panels(len(names) * columns, columns, (4.85, 3.3))
    for k, name in enumerate(names):
        left = panels[k * columns]
        plots.convergence(combined, name, tex_label(report, name, unit=True), left)
        if known:
            label = tex_label(report, name)
            plots.pulls(combined, name, label, panels[k * columns + 1], legend=False)
    right = (
        "; right: distance from the true value in units of the quoted error, where a line that "
        "leaves the grey bands (1 and 2 sigma) as N grows shows a bias larger than that error"
    )
    caption = (
        f"{'Left: mean' if known else 'Mean'} with 1 sigma (thick) and 2 sigma (thin) against the "
        "number of objects, combiners shifted slightly: errors that average out shrink as 1/√N, "
        f"and bars of different N should overlap{right if known else ''}."
    )
    yield "convergence", Drawing(_figure(panels[0]), caption, wide=True)


def _combined_calibration(report: Report) -> Iterator[tuple[str, Drawing]]:
    entries: Sequence[Mapping[str, Any]] = report.get("combined_calibration", ())
    if entries:
        left, _ = plots.combined_calibration(entries)
        caption = (
            "Simulated groups: at every N the actual error should be 0.8 to 1.3 times the quoted "
            "one (left, grey), and 68 % intervals should contain 68 % of the true values (right)."
        )
        yield "combined-calibration", Drawing(_figure(left), caption, wide=True)
