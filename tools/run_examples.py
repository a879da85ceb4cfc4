"""Run the examples of README.md and docs/*.md that are marked to be run.

A fenced block of ``python`` directly below a line ``<!-- run -->`` is executed as it stands; blocks
of one page share their names, like the cells of a notebook. In a marked ``console`` block the lines
that begin with ``$ `` are handed to the shell. Each page runs in an empty folder of its own.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from workspace import ROOT

BLOCK = re.compile(r"^<!-- run -->\n+```\{?(\w+)\}?[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def main() -> int:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    ran, failed = 0, 0
    for page in filter(Path.is_file, pages):
        script = "\n".join(_as_python(page))
        if not script:
            continue
        with tempfile.TemporaryDirectory() as folder:
            print(f"examples of {page.relative_to(ROOT)}", flush=True)
            done = subprocess.run([sys.executable, "-c", script], cwd=folder, env=_environment())
        ran, failed = ran + 1, failed + bool(done.returncode)
    print(f"{ran - failed} pages passed, {failed} failed")
    return 1 if failed else 0


def _as_python(page: Path) -> Iterator[str]:
    for language, body in BLOCK.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            yield body
        elif language == "console":
            commands = [line[2:] for line in body.splitlines() if line.startswith("$ ")]
            yield "import subprocess"
            yield from (f"subprocess.run({line!r}, shell=True, check=True)" for line in commands)
        else:
            raise SystemExit(f"{page.name}: cannot run a block of {language!r}")


def _environment() -> dict[str, str]:
    """Let `sbi-run` be this interpreter's own."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path}


if __name__ == "__main__":
    sys.exit(main())
