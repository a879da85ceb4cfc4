"""The report page: one self-contained HTML file, the readable twin of ``report.json``.

No scripts, no external resources, every word from outside escaped; the same report gives the same
bytes.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from sbi_core.data.writing import atomic_write
from sbi_core.errors import RunDirectoryError
from sbi_core.report import text
from sbi_core.report.figures import Arrays, History, drawing_style, drawings, pictures
from sbi_core.report.view import linked, view

__all__ = ["render", "write_html"]

_ACTIVE = re.compile(
    r"<\s*/?\s*(?:script|foreignobject|iframe|object|embed|audio|video|animate|set|handler|meta|link"
    r"|html|body|form|input|img)\b|[\s\"'/]on\w+\s*=|javascript:|<!|<\?|@import"
    r"|href\s*=\s*[\"']?(?![\"'#]|data:image/(?:png|jpeg);)|url\(\s*[\"']?(?!#)",
    re.IGNORECASE,
)
# Letters of an embedded picture, between quotes: they may spell anything, "/on...=" too.
_EMBEDDED = re.compile(
    r"(?<=[\"'])(data:image/(?:png|jpeg);base64,)\s*[A-Za-z0-9+/]+={0,2}(?=[\"'])"
)
_NUMBER = re.compile(r"\s*(?:[-+−<>≤≥~±(]*\s*\d|[-–]?\s*$|nan\b|inf\b)")


def render(
    report: Mapping[str, Any],
    arrays: Arrays | None = None,
    *,
    history: History = (),
    sections: Sequence[Mapping[str, Any]] = (),
    **rest: Any,
) -> str:
    """Return the page.

    Parameters
    ----------
    report
        The dictionary of ``report.json``. Parts that are absent are left out.
    arrays, history
        See :func:`sbi_core.report.figures.drawings`.
    sections
        Records of the sections of an analysis
        (:func:`sbi_core.report.figures.section_records`), each with ``stage``: results of the
        stage ``infer`` stand above the calibration.
    rest
        See :func:`sbi_core.report.view.view`: ``objects``, ``meanings``, ``warnings``, ``config``.
    """
    with drawing_style():
        made = drawings(report, arrays or {}, history)
        figures = {name: _marked(pictures(part, f"{name}-")) for name, part in made.items()}
    added = [{**_with_markup(s), "id": k} for k, s in enumerate(sections, 1)]
    results = [s for s in added if s.get("stage") == "infer"]
    tests = [s for s in added if s.get("stage") != "infer"]
    return _template().render(**view(report, **rest), figures=figures, results=results, tests=tests)


def write_html(path: str | Path, report: Mapping[str, Any], **rest: Any) -> None:
    """Write the page; a reader never sees half of it."""
    page = render(report, **rest)
    with atomic_write(Path(path)) as f:
        f.write(page)


def _marked(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return records of pictures whose images are printed as they are."""
    return [{**p, "svg": Markup(p["svg"])} for p in records]  # noqa: S704


def _with_markup(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a section whose images are printed as they are."""
    for picture in record["pictures"]:
        _refuse_active(str(picture["svg"]))
    tables = [{**t, "numeric": _numeric(t["head"], t["rows"])} for t in record.get("tables", ())]
    return {**record, "pictures": _marked(record["pictures"]), "tables": tables}


def _numeric(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[bool]:
    """Return the columns that hold numbers, which are aligned to the right."""
    columns = [[row[k] for row in rows if k < len(row)] for k in range(len(head))]
    return [
        k > 0 and all(not isinstance(c, str) or _NUMBER.match(c) for c in cells)
        for k, cells in enumerate(columns)
    ]


def _refuse_active(svg: str) -> None:
    """Raise when an image from a file is more than a drawing.

    Images come from the records of a run directory, which may be a stranger's; those that we draw
    have none of this.
    """
    match = _ACTIVE.search(_EMBEDDED.sub(r"\1", html.unescape(svg)))
    if not svg.startswith("<svg") or match:
        what = f"'{match[0].strip()[:30]}'" if match else "no svg element"
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
