"""The report page: one self-contained HTML file, the readable twin of ``report.json``.

No scripts, no external resources, every word from outside escaped; the same inputs give the same
bytes.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from sbi_core.errors import RunDirectoryError
from sbi_core.files.directory import atomic_write
from sbi_core.report import text
from sbi_core.report.content import content, linked
from sbi_core.report.figures import figures
from sbi_core.report.inputs import ReportInputs

__all__ = ["render", "write_html"]

_ACTIVE = re.compile(
    r"<\s*/?\s*(?:script|foreignobject|iframe|object|embed|audio|video|animate|set|handler|meta|link"
    r"|html|body|form|input|img)\b|[\s\"'/]on\w+\s*=|javascript:|<!|<\?|@import"
    r"|href\s*=\s*[\"']?(?![\"'#]|data:image/(?:png|jpeg);)|url\(\s*[\"']?(?!#)",
    re.IGNORECASE,
)


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
    for picture in record["pictures"]:
        _refuse_active(str(picture["svg"]))
    pictures = [{**p, "svg": Markup(p["svg"])} for p in record["pictures"]]  # noqa: S704
    return {**record, "pictures": pictures}


def _refuse_active(svg: str) -> None:
    """Raise when an image from a file is more than a drawing.

    Images come from the records of a run directory, which may be a stranger's; those that we draw
    have none of this.
    """
    found = _ACTIVE.search(html.unescape(svg))
    if not svg.startswith("<svg") or found:
        what = f"'{found[0].strip()[:30]}'" if found else "no svg element"
        msg = (
            f"an image in the records of this run holds {what}, which no drawing needs; the "
            "records were altered"
        )
        raise RunDirectoryError(msg)


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
