"""Throughput of the chempy engine.

Runs per second for batches of 1 to 1e5 prior draws, for the compiled kernel and the torch path,
float32 and float64, on 1 and 2 threads and in 2 processes; peak memory of each worker. Every
measurement runs in a fresh process::

    python benchmarks/chempy/engine_speed.py --json speed.json
    python benchmarks/chempy/engine_speed.py --device cuda --json speed_cuda.json
    python benchmarks/chempy/engine_speed.py --factors  # only the cost of yield factors

On a GPU: batches of 1e3 to 1e6 in float32 and float64, largest GPU memory, and agreement with the
CPU in float64 on 2000 prior draws. Needs numpy and torch (numba for the CPU kernel), the embedded
yields only, and no data folder; from a checkout without installation::

    export PYTHONPATH=packages/sbi-core/src:packages/sbi-chempy/src
    python benchmarks/chempy/engine_speed.py --device cuda

Peer: the original, Chempy as in ChempyMulti (oliverphilcox/ChempyMulti@1ab0d0c), which runs one
parameter row at a time in one process: published 0.2-1.4 s per run (1 s typical), measured on one
core 2-5 runs/s, 0.7-1 runs/s with Karakas yields. It needs an old numpy, so it is not run here;
accuracy is the same to 1e-5 dex (engine_accuracy.py).
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
CUDA_BATCHES = (1000, 10_000, 100_000, 1_000_000)
AGREEMENT_ROWS = 2000
ORIGINAL = {
    "published_s_per_run": [0.2, 1.4],
    "measured_runs_per_second": [2, 5],
    "measured_runs_per_second_karakas": [0.7, 1.0],
}


def prior_draws(rows: int, seed: int = 1) -> np.ndarray:
    """Prior draws without the core package: normals, clipped where the prior is truncated."""
    rng = np.random.default_rng(seed)
    theta = rng.normal((-2.3, -2.89, -0.3, 0.55, 0.5, 0), (0.3, 0.3, 0.3, 0.1, 0.1, 0), (rows, 6))
    theta[:, 3] = theta[:, 3].clip(0.295)
    theta[:, 4] = theta[:, 4].clip(0.01, 0.99)
    theta[:, 5] = rng.uniform(1, 13.79, rows)
    return theta


def measure(job: dict) -> dict:
    """One configuration, in its own process; the first call (compilation) is timed apart."""
    import torch

    from sbi_chempy.engine import ChempyEngine
    from sbi_chempy.yields import load_embedded_set

    torch.set_num_threads(job["threads"])
    dtype = getattr(torch, job["dtype"])
    device = job["device"]
    engine = ChempyEngine(load_embedded_set(), kernel=job["kernel"], dtype=dtype, device=device)
    theta = torch.as_tensor(prior_draws(job["batch"]), dtype=dtype, device=device)

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
    on_gpu = {}
    if device != "cpu":
        on_gpu["gpu_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return job | {
        "runs_per_second": job["batch"] / float(np.median(seconds)),
        "runs_per_second_best": job["batch"] / min(seconds),
        "repeats": len(seconds),
        "first_call_s": first,
        "peak_mib": peak / 1024,
        "extra_mib": (peak - base) / 1024,
        **on_gpu,
    }


def agreement(device: str) -> dict:
    """Largest difference [dex] of a device from the CPU in float64, and status flags."""
    import torch

    from sbi_chempy.engine import ChempyEngine
    from sbi_chempy.yields import load_embedded_set

    theta = torch.as_tensor(prior_draws(AGREEMENT_ROWS, seed=7))
    yields = load_embedded_set()
    want, status = ChempyEngine(yields, kernel="torch")(theta)
    found = {"device": torch.cuda.get_device_name() if device == "cuda" else device}
    for name in ("float64", "float32"):
        engine = ChempyEngine(yields, dtype=getattr(torch, name), device=device, kernel="torch")
        got, flags = (t.cpu() for t in engine(theta.to(device)))
        good = (status == 0) & (flags == 0)
        gap = (got.double() - want)[good].abs()
        found[name] = {
            "rows": AGREEMENT_ROWS,
            "max_dex": float(gap.max()),
            "p99_dex": float(np.percentile(gap.numpy(), 99)),
            "median_dex": float(gap.median()),
            "flags_differ": int((status != flags).sum()),
        }
    return found


def factor_cost(rows: int = 5000, repeats: int = 9) -> None:
    """Print CPU time with yield factors over that without, measured in turn on one thread."""
    import torch

    from sbi_chempy.engine import ChempyEngine
    from sbi_chempy.yields import EMBEDDED, load_embedded_set
    from sbi_chempy.yields.scatter import scatter

    torch.set_num_threads(1)
    theta = torch.as_tensor(prior_draws(rows))
    rng = np.random.default_rng(2)
    factors = torch.as_tensor(scatter() * rng.standard_t(4, (rows, 3, 8, 2)))
    for kernel, n in (("numba", rows), ("torch", rows // 10)):
        for name in EMBEDDED["sn2"]:
            engine = ChempyEngine(load_embedded_set(sn2=name), kernel=kernel)
            seconds = []
            for _ in range(repeats + 1):
                pair = []
                for given in (None, factors[:n]):
                    start = time.process_time()
                    engine(theta[:n], given)
                    pair.append(time.process_time() - start)
                seconds.append(pair)
            plain, scaled = np.median(seconds[1:], axis=0) / n * 1e6
            ratio = np.median([b / a for a, b in seconds[1:]])
            print(f"{kernel} {name:16} {plain:7.1f} {scaled:7.1f} us per row, ratio {ratio:.2f}")


def jobs(device: str, seconds: float) -> list[dict]:
    kernels = ("numba", "torch") if device == "cpu" else ("torch",)
    listed = [
        {"kernel": k, "dtype": d, "batch": b, "threads": 1}
        for k in kernels
        for d in ("float64", "float32")
        for b in (BATCHES if device == "cpu" else CUDA_BATCHES)
        if not (k == "torch" and b > 10_000 and device == "cpu")
    ]
    if device == "cpu":
        listed += [
            {"kernel": k, "dtype": "float32", "batch": 10_000, "threads": 2} for k in kernels
        ]
    return [job | {"device": device, "seconds": seconds} for job in listed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", "--out", type=Path, help="write the numbers here")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seconds", type=float, default=1.0, help="per measurement")
    parser.add_argument("--factors", action="store_true", help="only the cost of yield factors")
    options = parser.parse_args()
    if options.factors:
        factor_cost()
        return
    context = multiprocessing.get_context("spawn")
    about = {"machine": platform.machine(), "python": platform.python_version()}
    agrees = None
    if options.device != "cpu":
        with context.Pool(1) as pool:
            agrees = pool.apply(agreement, (options.device,))
        print(f"device: {agrees['device']}; against the CPU in float64, {AGREEMENT_ROWS} rows:")
        for name in ("float64", "float32"):
            a = agrees[name]
            print(
                f"  {name}: max {a['max_dex']:.2e}, p99 {a['p99_dex']:.2e}, median "
                f"{a['median_dex']:.2e} dex; {a['flags_differ']} flags differ"
            )
    results = []
    memory = "GPU MiB" if options.device != "cpu" else "peak MiB"
    columns = ("runs/s", "best", "x original", memory, "first s")
    print(
        f"{'kernel':8}{'dtype':9}{'batch':>8}{'threads':>8}" + "".join(f"{c:>11}" for c in columns)
    )
    fastest = ORIGINAL["measured_runs_per_second"][1]
    for job in jobs(options.device, options.seconds):
        with context.Pool(1) as pool:
            r = pool.apply(measure, (job,))
        results.append(r)
        rate = r["runs_per_second"]
        print(
            f"{r['kernel']:8}{r['dtype']:9}{r['batch']:8d}{r['threads']:8d}{rate:11.0f}"
            f"{r['runs_per_second_best']:11.0f}{rate / fastest:11.0f}"
            f"{r.get('gpu_mib', r['peak_mib']):11.0f}{r['first_call_s']:11.2f}",
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
    print("original: 0.2-1.4 s per run published; measured 2-5 runs/s, with Karakas yields 0.7-1")
    if options.json:
        content = {"about": about, "original": ORIGINAL, "agreement": agrees, "results": results}
        options.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
