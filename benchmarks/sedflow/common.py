"""What the sedflow benchmarks share: arguments, reference data, a trained run, JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from importlib import metadata
from pathlib import Path

import torch


def arguments(description: str, *, run: bool = False, **more: dict) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    if run:
        parser.add_argument("run", help="folder of a finished `sbi-run --plugin sedflow`")
    parser.add_argument("--out", help="write the numbers as JSON")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="a smaller version")
    for name, options in more.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **options)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    return args


def reference() -> Path:
    """Folder of the reference data."""
    folder = Path(os.environ.get("SBI_DATA_DIR", "")) / "sedflow"
    if not (folder / "ref_bc03_proto.npz").is_file():
        sys.exit("reference data are missing: set SBI_DATA_DIR to the folder that holds sedflow/")
    return folder


def write(args: argparse.Namespace, numbers: dict) -> None:
    if not args.out:
        return
    names = ("sbi-sedflow", "sbi-core", "torch", "numpy", "bagpipes", "speclite")
    facts = {
        "command": " ".join(sys.argv),
        "date": time.strftime("%Y-%m-%d"),
        "machine": platform.processor() or platform.machine(),
        "threads": args.threads,
        "load": os.getloadavg(),
        "versions": {n: metadata.version(n) for n in names},
        "numbers": numbers,
    }
    Path(args.out).write_text(json.dumps(facts, indent=1, default=float))


class Clock:
    """Wall-clock and processor seconds of a block."""

    def __enter__(self) -> Clock:
        self._wall, self._cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *rest: object) -> None:
        self.wall = time.perf_counter() - self._wall
        self.cpu = time.process_time() - self._cpu
