"""Time to build the library, and to draw and observe halos.

    python benchmarks/casbi/speed.py --out speed.json

CPU seconds of one thread, scaled to 1e5 halos.
"""

import argparse
import time

import torch
from common import config_of, write

from sbi_casbi.simulator import CasbiSimulator


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--halos", type=int, default=4000)
    parser.add_argument("--out")
    a = parser.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    simulator = CasbiSimulator(config_of("uniform", "absolute"))
    built = time.process_time() - start
    simulator.draw(10, 1)
    start = time.process_time()
    batch = simulator.draw(a.halos, 1)
    drawn = time.process_time() - start
    start = time.process_time()
    simulator.observe(batch, 2)
    observed = time.process_time() - start
    scale = 1e5 / a.halos
    results = {
        "snapshots": len(simulator.library),
        "library_cpu_s": built,
        "draw_1e5_cpu_s": drawn * scale,
        "observe_1e5_cpu_s": observed * scale,
    }
    print({k: round(v, 2) for k, v in results.items()})
    write(a.out, results)


if __name__ == "__main__":
    main()
