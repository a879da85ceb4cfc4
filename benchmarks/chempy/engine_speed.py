"""Throughput of the chempy engine.

Runs per second for batches of 1 to 1e5 prior draws, for the compiled kernel and the torch path,
float32 and float64, on 1 and 2 threads and in 2 processes; peak memory of each worker. Every
measurement runs in a fresh process::

    python benchmarks/chempy/engine_speed.py --json speed.json
    python benchmarks/chempy/engine_speed.py --device cuda
"""

import argparse
import json
import multiprocessing
import platform
import resource
import time
from pathlib import Path

import numpy as np

BATCHES = (1, 10, 100, 1000, 10_000, 100_000)


def measure(job: dict) -> dict:
    """One configuration, in its own process; the first call (compilation) is timed apart."""
    import torch

    from sbi_chempy.engine import ChempyEngine
    from sbi_chempy.yields import load_embedded_set

    torch.set_num_threads(job["threads"])
    dtype = getattr(torch, job["dtype"])
    device = job["device"]
    engine = ChempyEngine(load_embedded_set(), kernel=job["kernel"], dtype=dtype, device=device)
    rng = np.random.default_rng(1)
    theta = rng.normal(
        (-2.3, -2.89, -0.3, 0.55, 0.5, 0), (0.3, 0.3, 0.3, 0.1, 0.1, 0), (job["batch"], 6)
    )
    theta[:, 3] = theta[:, 3].clip(0.295)
    theta[:, 4] = theta[:, 4].clip(0.01, 0.99)
    theta[:, 5] = rng.uniform(1, 13.79, job["batch"])
    theta = torch.as_tensor(theta, dtype=dtype, device=device)

    def call() -> float:
        start = time.perf_counter()
        engine(theta)
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    before = time.perf_counter()
    engine(theta[:1])
    first = time.perf_counter() - before
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = [call()]
    while sum(seconds) < job["seconds"] and len(seconds) < 1000:
        seconds.append(call())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return job | {
        "runs_per_second": job["batch"] / float(np.median(seconds)),
        "first_call_s": first,
        "peak_mib": peak / 1024,
        "extra_mib": (peak - base) / 1024,
    }


def jobs(device: str, seconds: float) -> list[dict]:
    kernels = ("numba", "torch") if device == "cpu" else ("torch",)
    listed = [
        {"kernel": k, "dtype": d, "batch": b, "threads": 1}
        for k in kernels
        for d in ("float64", "float32")
        for b in BATCHES
        if not (k == "torch" and b > 10_000 and device == "cpu")
    ]
    if device == "cpu":
        listed += [
            {"kernel": k, "dtype": "float32", "batch": 10_000, "threads": 2} for k in kernels
        ]
    return [job | {"device": device, "seconds": seconds} for job in listed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=1.0, help="per measurement")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    results = []
    print(f"{'kernel':8}{'dtype':9}{'batch':>8}{'threads':>8}{'runs/s':>10}{'peak MiB':>10}")
    for job in jobs(options.device, options.seconds):
        with context.Pool(1) as pool:
            r = pool.apply(measure, (job,))
        results.append(r)
        print(
            f"{r['kernel']:8}{r['dtype']:9}{r['batch']:8d}{r['threads']:8d}"
            f"{r['runs_per_second']:10.0f}{r['peak_mib']:10.0f}",
            flush=True,
        )
    if options.device == "cpu":
        job = {"kernel": "numba", "dtype": "float32", "batch": 10_000, "threads": 1}
        job |= {"device": "cpu", "seconds": max(2.0, options.seconds)}
        with context.Pool(2) as pool:
            pair = pool.map(measure, [job, job], chunksize=1)
        total = sum(r["runs_per_second"] for r in pair)
        results.append(job | {"processes": 2, "runs_per_second": total})
        print(f"2 processes, numba, float32, batch 10000: {total:.0f} runs/s together")
    if options.json:
        about = {"machine": platform.machine(), "python": platform.python_version()}
        options.json.write_text(json.dumps({"about": about, "results": results}, indent=1))


if __name__ == "__main__":
    main()
