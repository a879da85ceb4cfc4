"""Infer catalogues of 1e4, 1e5 and 1e6 synthetic objects: rate, peak memory, a kill in between.

    python benchmarks/reliability/catalogue.py RUN --sizes 10000 100000 1000000 --json out.json

RUN is a finished run. The catalogue is its example, drawn in parts with different identifiers and
written as FITS. Every call is ``sbi-run infer --summary-only`` in a process of its own; its peak
memory is what the system says (``ru_maxrss``). The largest catalogue is then inferred again, killed
with SIGKILL half-way, and resumed; both tables are compared byte by byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from sbi_core import load_run, stream
from sbi_core.files.table_file import write_parts

_PART = 100_000


def write_catalogue(run: Path, path: Path, n: int) -> None:
    """Write n synthetic objects of the run's plugin."""
    simulator = load_run(run).simulator

    def parts():  # noqa: ANN202
        for k, start in enumerate(range(0, n, _PART)):
            rows = min(_PART, n - start)
            table = simulator.example_observations(stream(1, "catalogue", k), rows).to_table()
            table["id"] = np.char.add("obj-", np.arange(start, start + rows).astype(str))
            table.remove_columns([c for c in table.colnames if c.startswith("true_")])
            table.meta.clear()
            yield table

    write_parts(path, parts, n)


def call(run: Path, path: Path, out: Path, draws: int, kill_at: int = 0) -> dict[str, object]:
    """Infer in a new process; with ``kill_at``, kill it when so many chunks are there."""
    args = [sys.executable, "-m", "sbi_core.cli", "infer", str(run), "--observations", str(path)]
    args += ["--out", str(out), "--summary-only", "--draws", str(draws)]
    start = time.perf_counter()
    log = out.with_suffix(".log").open("w+")
    process = subprocess.Popen(args, stdout=log, stderr=log)
    folder = out.with_name(f".{out.name}.chunks")
    while kill_at and not out.exists():
        if len(list(folder.glob("chunk-*.h5"))) >= kill_at:
            os.kill(process.pid, signal.SIGKILL)
            kill_at = 0
        time.sleep(0.02)
    _, status, usage = os.wait4(process.pid, 0)
    log.seek(0)
    text = log.read()
    rate = re.search(r"infer: .*?(\d+) objects/s", text)
    there = re.search(r"(\d+) of (\d+) chunks? from before", text)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": round(usage.ru_maxrss / 1024, 1),
        "objects_per_second": int(rate[1]) if rate else None,
        "resumed": there[0] if there else "",
        "last": text.strip().splitlines()[-1:],
    }


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--json")
    options = parser.parse_args()
    record: dict[str, object] = {"draws": options.draws}
    with tempfile.TemporaryDirectory() as root:
        for n in options.sizes:
            path, out = Path(root) / f"cat-{n}.fits", Path(root) / f"out-{n}.fits"
            write_catalogue(options.run, path, n)
            found = call(options.run, path, out, options.draws)
            record[str(n)] = found
            print(f"{n:8d}: {found}", flush=True)
        chunks = -(-n // 10_000)
        again = Path(root) / "again.fits"
        killed = call(options.run, path, again, options.draws, kill_at=max(chunks // 2, 1))
        resumed = call(options.run, path, again, options.draws)
        same = [hashlib.sha256(p.read_bytes()).hexdigest() for p in (out, again)]
        record |= {"killed": killed, "resumed": resumed, "identical": same[0] == same[1]}
        print(f"killed: {killed}\nresumed: {resumed}\nidentical table: {same[0] == same[1]}")
    if options.json:
        Path(options.json).write_text(json.dumps(record, indent=1))
    sys.exit(0 if same[0] == same[1] else 1)


if __name__ == "__main__":
    main()
