"""Kill a run with SIGKILL at chosen or random moments, run it again, compare all bits.

    python benchmarks/reliability/kill_and_resume.py --plugin chempy --kills 2 --json out.json

An undisturbed run is compared with one that is killed in ``simulate``, in ``train`` and then
``--kills`` times at random moments, each time followed by the same command. Compared are the
arrays of all shards, the weights, the draws, the summary and the combination.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

COMPARED = ("estimator/weights.safetensors", "summary.ecsv", "combined.ecsv")


def digest(run: Path) -> dict[str, str]:
    """Hashes of what a run found; HDF5 files by their arrays, not by their time stamps."""
    found = {}
    for name in COMPARED:
        text = (run / name).read_bytes()
        found[name] = hashlib.sha256(text).hexdigest()
    for path in sorted([*run.rglob("part-*.h5"), run / "posterior.nc"]):
        sha = hashlib.sha256()
        with h5py.File(path) as f:

            def visit(name: str, node: object, sha: hashlib._Hash = sha) -> None:
                if isinstance(node, h5py.Dataset) and node.dtype.kind in "fiub":
                    sha.update(name.encode() + np.asarray(node).tobytes())

            f.visititems(visit)
        found[str(path.relative_to(run))] = sha.hexdigest()
    return found


def command(plugin: str, out: Path, extra: list[str]) -> list[str]:
    """The command line of a quick run with small shards, so that there is something to kill."""
    return [
        *(sys.executable, "-m", "sbi_core.cli", "--plugin", plugin, "--preset", "quick"),
        *("--out", str(out), "--set", "simulate.shard_size=500", *extra),
    ]


def started(out: Path, stage: str) -> bool:
    """Whether a stage is under way and has done part of its work."""
    if stage == "simulate":
        return len(list((out / "sims").glob("part-*.h5"))) >= 5
    metrics = out / "estimator" / "metrics.jsonl"
    return metrics.exists() and len(metrics.read_text().splitlines()) >= 4


def kill_when(args: list[str], ready, limit: float = 300.0) -> bool:  # noqa: ANN001
    """Start the command, kill it as soon as ``ready()``; False when it ended before."""
    process = subprocess.Popen(
        args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    end = time.monotonic() + limit
    while process.poll() is None and time.monotonic() < end:
        if ready():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.005)
    process.wait()
    return False


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plugin", default="chempy")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json")
    options = parser.parse_args()
    extra = [word for s in options.set for word in ("--set", s)]
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        calm, rough = Path(folder) / "calm", Path(folder) / "rough"
        start = time.monotonic()
        subprocess.run(command(options.plugin, calm, extra), check=False, capture_output=True)
        length = time.monotonic() - start
        args = command(options.plugin, rough, extra)
        killed = []
        for stage in ("simulate", "train"):
            hit = kill_when(args, lambda stage=stage: started(rough, stage))
            killed.append({"where": stage, "killed": hit})
            print(f"kill -9 in {stage}: {'killed' if hit else 'finished before'}")
        for _ in range(options.kills):
            moment = time.monotonic() + float(rng.uniform(1.0, length))
            hit = kill_when(args, lambda moment=moment: time.monotonic() > moment)
            killed.append({"where": "random", "killed": hit})
            print(f"kill -9 at a random moment: {'killed' if hit else 'finished before'}")
        done = subprocess.run(args, check=False, capture_output=True, text=True)
        a, b = digest(calm), digest(rough)
        different = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))
    print(f"last command: exit code {done.returncode}")
    print(f"{len(a)} artefacts compared, {len(different)} differ: {different}")
    if options.json:
        record = {"kills": killed, "compared": len(a), "different": different, "seconds": length}
        Path(options.json).write_text(json.dumps(record, indent=1))
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
