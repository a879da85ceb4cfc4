"""Flip bytes in every kind of artefact of a run: is each flip noticed, and is the file named?

    python benchmarks/reliability/corruption.py --plugin chempy --flips 20 --json out.json

A quick run is made once. For every file in it, ``--flips`` copies with one bit flipped at a random
place, one truncated to half, and one without the file are loaded as ``sbi-run infer`` and
``load_run`` do (``Run.verify``).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from sbi_core import SbiError, load_run, run


def main() -> None:
    """Run and print a table of artefact types."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plugin", default="chempy")
    parser.add_argument("--flips", type=int, default=20)
    parser.add_argument("--run", type=Path, help="a finished run; default: a quick one is made")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json")
    options = parser.parse_args()
    rng = np.random.default_rng(1)
    found: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
    with tempfile.TemporaryDirectory() as folder:
        root = options.run or Path(folder) / "run"
        if options.run is None:
            run(options.plugin, preset="quick", out=root, overrides=options.set)
        for path in sorted(p for p in root.rglob("*") if p.is_file() and p.name != "log.txt"):
            name = str(path.relative_to(root))
            kind = "sims/part-*.h5" if name.startswith("sims/part") else name
            content = path.read_bytes()
            changes: list[bytes | None] = [content[: len(content) // 2], None]
            for _ in range(options.flips):
                flipped = bytearray(content)
                flipped[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
                changes.append(bytes(flipped))
            for change in changes:
                if change is None and name == "provenance.json":
                    continue  # nothing is known of the run then: its stages are made again
                path.unlink() if change is None else path.write_bytes(change)
                try:
                    load_run(root).verify()
                except SbiError as error:
                    found[kind][1] += 1
                    found[kind][2] += path.name in str(error)
                except Exception as error:  # a traceback, for the user
                    print(f"TRACEBACK {name}: {type(error).__name__}: {error}")
                found[kind][0] += 1
                path.write_bytes(content)
        load_run(root).verify()  # all is as it was
    width = max(map(len, found))
    for kind, (n, noticed, named) in found.items():
        print(f"{kind:{width}}  changed {n:4d}  noticed {noticed:4d}  named {named:4d}")
    total = [sum(v[k] for v in found.values()) for k in range(3)]
    print(f"{'all':{width}}  changed {total[0]:4d}  noticed {total[1]:4d}  named {total[2]:4d}")
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))
    sys.exit(0 if total[0] == total[1] else 1)


if __name__ == "__main__":
    main()
