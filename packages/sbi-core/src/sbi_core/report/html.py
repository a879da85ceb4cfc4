"""The report page: one self-contained HTML file, the readable twin of ``report.json``.

No scripts, no external resources, every word from outside escaped; the same inputs give the same
bytes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from sbi_core.records.directory import atomic_write
from sbi_core.report import text
from sbi_core.report.content import content, linked
from sbi_core.report.figures import figures
from sbi_core.report.inputs import ReportInputs

__all__ = ["render", "write_html"]


def render(inputs: ReportInputs) -> str:
    """Return the page.

    Parameters
    ----------
    inputs
        Its content. Parts that are absent are left out.

    Returns
    -------
    str
        A complete HTML document.
    """
    pictures = {
        section: [{"svg": Markup(p.svg), "caption": p.caption, "wide": p.wide} for p in made]  # noqa: S704
        for section, made in figures(inputs).items()
    }
    added = [_with_markup(record) for record in inputs.sections]
    return _template().render(**content(inputs), figures=pictures, sections=added)


def write_html(inputs: ReportInputs, path: str | Path) -> None:
    """Write the page; a reader never sees half of it.

    Parameters
    ----------
    inputs
        Its content.
    path
        Where; an existing file is replaced.
    """
    page = render(inputs)
    with atomic_write(Path(path)) as f:
        f.write(page)


def _with_markup(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a section whose images are printed as they are."""
    pictures = [{**p, "svg": Markup(p["svg"])} for p in record["pictures"]]  # noqa: S704
    return {**record, "pictures": pictures}


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "count": text.count,
        "number": text.number,
        "percent": text.percent,
        "linked": linked,
    }
    source = files("sbi_core.report").joinpath("template.html").read_text(encoding="utf-8")
    return environment.from_string(source)
