"""Snapshots written with pynbody and read back: accuracy and speed.

    python benchmarks/casbi/reader.py --out reader.json

AHF and grp variants; 1e5 stars. Times: wall and CPU seconds of one process.
"""

import argparse
import tempfile
import time

import numpy as np
from common import write
from snapshot_writer import MockGalaxy, write_snapshot

from sbi_casbi.cosmology import age_gyr
from sbi_casbi.snapshots.reader import read_snapshot


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stars", type=int, default=100_000)
    parser.add_argument("--out")
    a = parser.parse_args()
    rng = np.random.default_rng(1)
    galaxy = MockGalaxy(
        rng.normal(-1.5, 0.5, a.stars), rng.normal(0.25, 0.1, a.stars), a=0.5, no_iron=100
    )
    results = {}
    for halos in ("ahf", "grp"):
        with tempfile.TemporaryDirectory() as folder:
            path = write_snapshot(folder, "g8.26e11.01024", galaxy, halos=halos)
            read_snapshot(path)  # imports are not counted
            wall, cpu = time.perf_counter(), time.process_time()
            s = read_snapshot(path)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        want = {
            "mstar": (s.mstar, galaxy.star_mass * (a.stars + galaxy.no_iron)),
            "mdm": (s.mdm, galaxy.dark_mass * galaxy.dark_particles),
            "mgas": (s.mgas, galaxy.gas_mass * galaxy.gas_particles),
            "tau": (s.tau, float(age_gyr(1.0))),
            "z": (s.z, 1.0),
        }
        results[halos] = {
            "fe_h": float(np.abs(10 ** (s.fe_h - galaxy.fe_h) - 1).max()),
            "o_fe": float(np.abs(10 ** (s.alpha_fe - galaxy.o_fe) - 1).max()),
            **{k: abs(x / y - 1) for k, (x, y) in want.items()},
            "wall_s": wall,
            "cpu_s": cpu,
        }
        print(halos, {k: f"{v:.2g}" for k, v in results[halos].items()})
    write(a.out, results)


if __name__ == "__main__":
    main()
