"""Twenty million rows of training data in little memory.

    OMP_NUM_THREADS=1 python benchmarks/inference/out_of_core.py --out results/out_of_core.json

Shard files (float32, HDF5) are written first, in a process of their own, to ``--folder`` (default:
a temporary one, removed afterwards); the free space is checked. Then one process trains for one
epoch and reports its largest resident memory, that of all imports included. The rows come from the
toy of the other benchmarks; ``--baseline`` trains on the same files loaded into memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import torch
from common import Toy, one_thread, report

from sbi_core.components import Training
from sbi_core.embeddings.identity import IdentityEmbedding
from sbi_core.estimators.mixture import MixtureConfig, MixtureEstimator
from sbi_core.rng import stream
from sbi_core.simulate.rows import ShardedBatch
from sbi_core.training.config import TrainConfig

ROW_BYTES = 4 * (6 + 8)
SHARD_ROWS = 200_000


def write(folder, rows):
    """Write the shards."""
    one_thread()
    made, folder = Toy(), Path(folder)
    for k in range(-(-rows // SHARD_ROWS)):
        batch = made.simulate(min(SHARD_ROWS, rows - k * SHARD_ROWS), 1000 + k)
        with h5py.File(folder / f"part-{k:06d}.h5", "w") as f:
            for name in ("theta", "x"):
                values = getattr(batch, name).numpy()
                chunk = (min(16_384, len(values)), values.shape[1])
                f.create_dataset(name, data=values, chunks=chunk, fletcher32=True)


def peak():
    """Return the largest resident memory of this process so far, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def train(folder, memory_gb, batch_size, epochs):
    """Train from the shards; print what it took."""
    one_thread()
    made = Toy()
    source = ShardedBatch(sorted(Path(folder).glob("part-*.h5")))
    config = TrainConfig(epochs=epochs, batch_size=batch_size, max_memory_gb=memory_gb)
    training = Training(source, made.space, tuple(range(6)), made.observe, config, seed=1)
    estimator = MixtureEstimator(MixtureConfig(components=4, hidden=(64, 64)))
    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    record = estimator.fit(training, IdentityEmbedding())
    test = made.observe(made.simulate(20_000, 1), stream(2))
    result = {
        "rows": len(source),
        "data_gib": source.nbytes / 2**30,
        "split": dict(record.split),
        "peak_rss_gib": peak(),
        "rss_before_training_gib": before,
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - cpu,
        "epochs": record.epochs,
        "test_nll": record.test_nll,
        "nll_on_fresh_rows": float(-estimator.log_prob(test.theta, test).mean()),
    }
    print("RESULT " + json.dumps(result))


def child(*args):
    """Run a part of this program in a process of its own and return what it reports."""
    done = subprocess.run(
        [sys.executable, __file__, *map(str, args)], check=True, capture_output=True, text=True
    )
    found = [t for t in done.stdout.splitlines() if t.startswith("RESULT ")]
    return json.loads(found[0][7:]) if found else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=20_000_000)
    parser.add_argument("--memory-gb", type=float, default=0.5, help="option max_memory_gb")
    parser.add_argument("--batch-size", type=int, default=4096)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--folder", help="where shards are written; default: a temporary folder")
    parser.add_argument("--baseline", action="store_true", help="also with everything in memory")
    parser.add_argument("--quick", action="store_true", help="200000 rows")
    parser.add_argument("--out")
    parser.add_argument("--write", help="(internal)")
    parser.add_argument("--train", help="(internal)")
    args = parser.parse_args()
    if args.quick:
        args.rows, args.memory_gb = 200_000, 0.004
    if args.write:
        write(args.write, args.rows)
        return
    if args.train:
        train(args.train, args.memory_gb, args.batch_size, args.epochs)
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        need, free = 1.2 * args.rows * ROW_BYTES, shutil.disk_usage(folder).free
        if free < 2 * need:
            sys.exit(f"{need / 2**30:.1f} GiB of shards, only {free / 2**30:.1f} GiB are free")
        start = time.perf_counter()
        child("--write", folder, "--rows", args.rows)
        result = {"writing_seconds": time.perf_counter() - start}
        rest = ("--batch-size", args.batch_size, "--epochs", args.epochs)
        result["streamed"] = child("--train", folder, "--memory-gb", args.memory_gb, *rest)
        if args.baseline:
            result["in_memory"] = child("--train", folder, "--memory-gb", 1e6, *rest)
    torch.set_num_threads(1)
    report(args.out, result)


if __name__ == "__main__":
    main()
