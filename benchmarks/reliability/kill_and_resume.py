"""Kill a run with SIGKILL at chosen and random moments, run it again, compare all bits.

    python benchmarks/reliability/kill_and_resume.py --plugin chempy --kills 50 --json out.json

An undisturbed run is compared with runs killed in ``simulate``, in ``train``, and at random
moments, each time followed by the same command. After ``--per-run`` kills a run may end, and the
next one begins in another directory, until there were ``--kills`` kills (or ``--minutes`` are
over): late stages take most of a run that is resumed, so few kills per run spread them.
Compared are the arrays of all shards, the weights, the draws, the summary and the combination. A
shard is lost when a file that had its final name at a kill is another one after the next command.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from sbi_core.data.writing import write_atomic

COMPARED = ("estimator/weights.safetensors", "summary.ecsv", "combined.ecsv")


def digest(run: Path) -> dict[str, str]:
    """Hashes of what a run found; HDF5 files by their arrays, not by their time stamps."""
    found = {}
    for name in COMPARED:
        if (run / name).exists():  # not every plugin combines objects
            found[name] = hashlib.sha256((run / name).read_bytes()).hexdigest()
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


def stage_of(out: Path) -> str:
    """The stage that was under way, by the records; before the first one: start."""
    try:
        stages = json.loads((out / "provenance.json").read_text())["stages"]
    except (OSError, ValueError, KeyError):
        return "start"
    begun = [name for name, record in stages.items() if record["status"] == "started"]
    return begun[-1] if begun else f"after {list(stages)[-1]}" if stages else "start"


def shards(out: Path) -> dict[str, int]:
    """The inode of every finished shard."""
    return {str(p.relative_to(out)): p.stat().st_ino for p in out.rglob("part-*.h5")}


def rounds(
    plugin: str,
    kills: int,
    extra: list[str],
    *,
    per_run: int = 4,
    minutes: float = 120.0,
    seed: int = 1,
) -> Iterator[dict[str, Any]]:
    """Yield moments of kills, exit code, lost shards and differing artefacts of run after run."""
    rng = np.random.default_rng(seed)
    end = time.monotonic() + 60 * minutes
    done = runs = 0
    with tempfile.TemporaryDirectory() as folder:
        calm = Path(folder) / "calm"
        start = time.monotonic()
        subprocess.run(command(plugin, calm, extra), check=False, capture_output=True)
        length = time.monotonic() - start
        reference = digest(calm)
        print(f"{plugin}, undisturbed: {length:.0f} s, {len(reference)} artefacts", flush=True)
        while done < kills and time.monotonic() < end:
            rough = Path(folder) / f"rough-{runs}"
            args = command(plugin, rough, extra)
            chosen = ["simulate", "train"] if runs == 0 else []
            before: dict[str, int] = {}
            killed: list[str] = []
            lost = 0
            while len(killed) < min(per_run, kills - done) and time.monotonic() < end:
                if chosen:
                    stage = chosen.pop(0)
                    hit = kill_when(args, lambda stage=stage, out=rough: started(out, stage))
                else:
                    begun = time.monotonic()
                    most = 0.5 if before else 0.9  # less is left of a run that was killed before
                    moment = begun + float(rng.uniform(0.1 * length, most * length))
                    hit = kill_when(args, lambda moment=moment: time.monotonic() > moment)
                    if not hit:  # shorter than thought: what was done is not done again
                        length = max(0.7 * length, time.monotonic() - begun)
                now = shards(rough)
                lost += sum(now.get(name) != inode for name, inode in before.items())
                before = now
                if not hit:
                    break
                killed.append(stage_of(rough))
                print(f"kill {done + len(killed)}: {killed[-1]}, {len(now)} shards", flush=True)
            again = subprocess.run(args, check=False, capture_output=True, text=True)
            now = shards(rough)
            lost += sum(now.get(name) != inode for name, inode in before.items())
            result = digest(rough)
            names = sorted(reference.keys() | result.keys())
            different = [k for k in names if reference.get(k) != result.get(k)]
            leftovers = [p.name for p in rough.rglob("*") if ".tmp" in p.name]
            print(
                f"run {runs}: exit code {again.returncode}, {len(different)} of {len(reference)} "
                f"artefacts differ, {len(leftovers)} temporary files left",
                flush=True,
            )
            yield {
                **{"kills": killed, "exit_code": again.returncode, "shards_lost": lost},
                **{"different": [f"run {runs}: {k}" for k in different], "seconds": length},
            }
            done += len(killed)
            runs += 1
            shutil.rmtree(rough)


def main() -> None:
    """Run the comparison; print and record it run by run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plugin", default="chempy")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--per-run", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    extra = [word for s in options.set for word in ("--set", s)]
    killed: list[str] = []
    failures: list[str] = []
    codes: list[int] = []
    lost = 0
    for run in rounds(
        options.plugin, options.kills, extra,
        per_run=options.per_run, minutes=options.minutes, seed=options.seed,
    ):  # fmt: skip
        killed += run["kills"]
        failures += run["different"]
        codes.append(run["exit_code"])
        lost += run["shards_lost"]
        where = {name: killed.count(name) for name in dict.fromkeys(killed)}
        if options.json:
            record = {
                **{"kills": killed, "where": where, "runs": len(codes), "exit_codes": codes},
                **{"shards_lost": lost, "different": failures, "seconds": run["seconds"]},
            }
            write_atomic(options.json, json.dumps(record, indent=1).encode())
        print(f"{len(killed)} kills ({where}): {lost} shards lost, {failures} differ", flush=True)
    sys.exit(1 if failures or lost else 0)


if __name__ == "__main__":
    main()
