"""Check the links between the built pages: every file and every anchor exists.

    python tools/links.py docs/_build/html

Links to other sites are not followed: this needs no network.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Links and anchors of one page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors = {"", "top"}
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


def broken(root: Path) -> list[str]:
    """Return ``page: link`` of every link that leads nowhere."""
    files = [p for p in sorted(root.rglob("*.html")) if "_static" not in p.parts]  # templates
    pages = {p: Page(p.read_text(encoding="utf-8")) for p in files}
    wrong = []
    for file, page in pages.items():
        if "_modules" in file.parts:  # sources: Sphinx links them back to the reference
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            known = pages.get(target)
            anchor = unquote(parts.fragment)
            if not target.exists() or (known and anchor not in known.anchors):
                wrong.append(f"{file.relative_to(root)}: {link}")
    return wrong


if __name__ == "__main__":
    wrong = broken(Path(sys.argv[1]).resolve())
    print("\n".join(wrong) or "no broken link")
    sys.exit(bool(wrong))
