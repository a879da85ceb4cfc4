"""Sections a domain adds to the page: drawn once, kept as JSON, printed by the template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from matplotlib import style

from sbi_core.analyses.findings import Section
from sbi_core.report.figures import STYLE, Picture, distinct, svg

__all__ = ["drawing_style", "section_records"]


@contextmanager
def drawing_style() -> Iterator[None]:
    """Draw with the style of the page, whatever the user has set."""
    with style.context(["default", STYLE]):
        yield


def section_records(sections: Sequence[Section], prefix: str) -> list[dict[str, Any]]:
    """Return sections as JSON-serialisable records; ``prefix`` keeps names of images apart."""
    records = []
    for k, section in enumerate(sections):
        pictures = [
            distinct(Picture(svg(d.figure), d.caption, d.wide), f"{prefix}-{k}-{j}")
            for j, d in enumerate(section.drawings)
        ]
        records.append(
            {
                "title": section.title,
                "text": list(section.text),
                "pictures": [
                    {"svg": p.svg, "caption": p.caption, "wide": p.wide} for p in pictures
                ],
                "tables": [
                    {"head": list(t.head), "rows": [list(r) for r in t.rows]}
                    for t in section.tables
                ],
            }
        )
    return records
