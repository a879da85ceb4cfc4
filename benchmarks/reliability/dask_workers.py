"""Simulate with dask: a worker process killed in the middle, and the throughput of 1, 2 and 4.

    python benchmarks/reliability/dask_workers.py --plugin chempy --n 20000 --json out.json

First a cluster of 4 worker processes computes all shards while one of its processes is killed with
SIGKILL; then the arrays of all shards are compared with those that one process computed. Then the
same shards are computed with 1, 2 and 4 workers: simulations per second of wall time, the start of
the cluster and the imports of its workers apart (they are a warm-up task each).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
from distributed import Client, LocalCluster

from sbi_core import Registry
from sbi_core.pipeline.config import resolve
from sbi_core.pipeline.runner import simulate_shards


def arrays(folder: Path) -> dict[str, bytes]:
    """The content of every data set of every shard."""
    found = {}
    for path in sorted(folder.glob("part-*.h5")):
        with h5py.File(path) as f:
            found |= {f"{path.name}/{k}": np.asarray(f[k]).tobytes() for k in f}
    return found


def _import(_: int) -> int:
    import torch

    torch.set_num_threads(1)
    time.sleep(0.2)
    return os.getpid()


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plugin", default="chempy")
    parser.add_argument("--n", type=int, default=20_000)
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--json")
    options = parser.parse_args()
    registry = Registry([options.plugin])
    sizes = {"simulate.n": options.n, "simulate.shard_size": -(-options.n // options.shards)}
    record: dict[str, object] = {"n": options.n, "shards": options.shards, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as root:

        def simulate(name: str, scheduler: str | None) -> float:
            executor = "serial" if scheduler is None else "dask"
            config = resolve(
                registry, options.plugin, preset="quick",
                overrides={**sizes, "simulate.executor": executor},
                simulate__dask_scheduler=scheduler,
            )  # fmt: skip
            start = time.perf_counter()
            simulate_shards(config, Path(root) / name, registry, 0, options.shards - 1)
            return time.perf_counter() - start

        serial = simulate("serial", None)
        reference = arrays(Path(root) / "serial" / "sims")
        print(f"one process: {options.n / serial:.0f} simulations/s", flush=True)
        record["serial_per_second"] = options.n / serial
        killed = []

        def strike(client: Client) -> None:
            """Kill the first worker as soon as three shards are there."""
            sims = Path(root) / "killed" / "sims"
            while len(list(sims.glob("part-*.h5"))) < 3:
                time.sleep(0.01)
            pid = next(iter(client.run(os.getpid).values()))
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

        cluster_options = {"threads_per_worker": 1, "dashboard_address": None}
        with (
            LocalCluster(n_workers=4, silence_logs=logging.CRITICAL, **cluster_options) as cluster,
            Client(cluster) as client,
        ):
            import threading

            client.gather(client.map(_import, range(16), pure=False))
            thread = threading.Thread(target=strike, args=(client,), daemon=True)
            thread.start()
            simulate("killed", cluster.scheduler_address)
            thread.join(5)
        found = arrays(Path(root) / "killed" / "sims")
        different = [k for k in reference.keys() | found.keys() if reference.get(k) != found.get(k)]
        print(f"4 workers, process {killed} killed: {len(found)} arrays, {len(different)} differ")
        record |= {"killed": bool(killed), "arrays": len(found), "different": different}
        rates = {}
        for count in options.workers:
            with (
                LocalCluster(
                    n_workers=count, silence_logs=logging.CRITICAL, **cluster_options
                ) as cluster,
                Client(cluster) as client,
            ):
                client.gather(client.map(_import, range(4 * count), pure=False))
                seconds = simulate(f"workers-{count}", cluster.scheduler_address)
            rates[count] = options.n / seconds
            ratio = rates[count] / rates[options.workers[0]]
            print(f"{count} workers: {rates[count]:.0f} simulations/s, {ratio:.2f}", flush=True)
        record["per_second"] = rates
    if options.json:
        Path(options.json).write_text(json.dumps(record, indent=1))
    sys.exit(1 if different or not killed else 0)


if __name__ == "__main__":
    main()
