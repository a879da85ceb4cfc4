"""Fill the disk under a run at chosen moments, free it, run again, compare all bits.

    python benchmarks/reliability/disk_full.py --plugin chempy --json out.json

The run directory lies on a small file system in memory (tmpfs; Linux, in a mount namespace of its
own, so no rights are needed). When a stage is under way, a file takes all that is left. What must
happen: exit code 2 and one sentence that says why, no traceback; nothing under
its final name that is not whole; and, with the space free again, the same command goes on and ends
with the bits of a run that nothing disturbed. Also a disk that is too small from the start, which
is to be refused with numbers before anything is computed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kill_and_resume import command, digest

from sbi_core.data.writing import write_atomic
from sbi_core.errors import counted

MOMENTS = {
    "first shards": lambda out: len(list((out / "sims").glob("part-*.h5"))) >= 2,
    "many shards": lambda out: len(list((out / "sims").glob("part-*.h5"))) >= 5,
    "training": lambda out: (out / "estimator" / "metrics.jsonl").exists(),
    "checking": lambda out: (out / "estimator" / "weights.safetensors").exists(),
    "inference": lambda out: (out / "diagnostics.npz").exists(),
    "groups": lambda out: len(list((out / "groups").rglob("part-*.h5"))) >= 1,
    "combination": lambda out: (out / "combined.ecsv").exists(),
}


def fill(folder: Path) -> Path:
    """Take all space that is left."""
    path = folder / "ballast"
    block = b"\0" * 65536
    with path.open("wb", buffering=0) as f:
        try:
            while f.write(block):
                pass
        except OSError:
            pass
    return path


def disturbed(args: list[str], disk: Path, ready, limit: float = 300.0) -> tuple:  # noqa: ANN001
    """Start the command, fill the disk as soon as ``ready()``: exit code, last words, whether."""
    process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    end, ballast = time.monotonic() + limit, None
    while process.poll() is None and time.monotonic() < end:
        if ready():
            ballast = fill(disk)
            break
        time.sleep(0.002)
    words = process.communicate()[0]
    if ballast is not None:
        ballast.unlink()
    return process.returncode, words, ballast is not None


def record(rows: list[dict], path: Path | None) -> None:
    """Write what is known so far."""
    if path:
        write_atomic(path, json.dumps(rows, indent=1).encode())


def main() -> None:
    """Print a line per moment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plugin", default="chempy")
    parser.add_argument("--moments", nargs="+", choices=MOMENTS, default=list(MOMENTS))
    parser.add_argument("--size", default="400m", help="of the file system")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not os.environ.get("OWN_NAMESPACE"):
        again = ["unshare", "--map-root-user", "--mount", sys.executable, *sys.argv]
        sys.exit(subprocess.run(again, env={**os.environ, "OWN_NAMESPACE": "1"}).returncode)
    rows, bad = [], 0
    extra = [word for s in options.set for word in ("--set", s)]
    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={options.size}", "tmpfs", str(disk)]
        subprocess.run(mount, check=True)
        calm = disk / "calm"
        subprocess.run(command(options.plugin, calm, extra), check=False, capture_output=True)
        reference = digest(calm)
        for moment in options.moments:
            out = disk / moment.replace(" ", "-")
            args = command(options.plugin, out, ["--quiet", *extra])
            code, words, hit = disturbed(args, disk, lambda m=moment, o=out: MOMENTS[m](o))
            done = subprocess.run(args, check=False, capture_output=True, text=True)
            found = digest(out)
            names = reference.keys() | found.keys()
            different = [k for k in names if reference.get(k) != found.get(k)]
            lines = [line for line in words.strip().splitlines() if line.strip()]
            fine = hit and code == 2 and "Traceback" not in words and not different
            bad += not fine
            rows.append(
                {
                    "moment": moment,
                    "exit_code": code,
                    "message": lines[-1] if lines else "",
                    "lines": len(lines),
                    "resumed_exit_code": done.returncode,
                    "different": different,
                }
            )
            record(rows, options.json)
            print(
                f"{moment:<13} exit {code}, {counted(len(lines), 'line')}: "
                f"{lines[-1] if lines else ''!r}; "
                f"again: exit {done.returncode}, {len(different)} of {len(reference)} differ",
                flush=True,
            )
            subprocess.run(["rm", "-r", str(out)], check=True)
        subprocess.run(["rm", "-r", str(calm)], check=True)
        big = command(options.plugin, disk / "big", ["--set", "simulate.n=100000000"])
        refused = subprocess.run(big, check=False, capture_output=True, text=True)
        words = refused.stderr.strip()
        bad += refused.returncode != 2 or (disk / "big" / "sims").exists()
        rows.append({"moment": "too small", "exit_code": refused.returncode, "message": words})
        record(rows, options.json)
        print(f"too small    exit {refused.returncode}: {words!r}", flush=True)
        subprocess.run(["umount", str(disk)], check=True)
    print(f"{len(rows)} cases, {bad} not as they should be")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
