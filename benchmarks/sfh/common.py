"""Shared by the benchmarks of sbi-sfh: tables on the screen, numbers as JSON, reference data."""

import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def reference(*parts: str) -> Path:
    """Return a file or folder of ``SBI_DATA_DIR/sfh``, or stop with the reason."""
    root = os.environ.get("SBI_DATA_DIR", "")
    path = Path(root).joinpath("sfh", *parts)
    if not root or not path.exists():
        sys.exit(f"set SBI_DATA_DIR to the folder with sfh/{'/'.join(parts)}")
    return path


def show(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table."""
    cells = [list(map(str, head)), *([_cell(c) for c in row] for row in rows)]
    widths = [max(len(r[k]) for r in cells) for k in range(len(head))]
    print(f"\n{title}")
    for row in cells:
        print("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)))


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def save(path: Path | None, content: dict[str, Any]) -> None:
    """Write JSON with the machine it was measured on."""
    if path is None:
        return
    content = {"machine": {"cpu": os.cpu_count(), "python": platform.python_version()}, **content}
    path.write_text(json.dumps(content, indent=1))
    print(f"\n{path}")
