"""The MILES reader on a complete directory, and the embedded grid against it.

    SBI_DATA_DIR=... python benchmarks/sfh/library.py [--json FILE]

Rms over wavelength of embedded / MILES - 1, per cent, mean over the ages of a column: spectra
divided by their medians, and the same after a multiplicative Legendre polynomial of degree 10.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from common import reference, save, show

from sbi_sfh.embedded import embedded_library
from sbi_sfh.indices import INDICES, equivalent_width
from sbi_sfh.miles import read_cube, read_miles

AGES = ((0.0, 0.1), (0.1, 0.5), (0.5, 2.0), (2.0, 6.0), (6.0, 14.1))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    folder = reference("miles", "MILES_BASTI_KB_Ep0.00")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        times = {}
        for name in ("cold", "cached"):
            wall, cpu = time.perf_counter(), time.process_time()
            library = read_miles(folder)
            times[name] = {
                "wall_s": time.perf_counter() - wall,
                "cpu_s": time.process_time() - cpu,
            }
        wave, axes, cube, _ = read_cube(folder)
    show("reading 636 files", ["", "wall [s]", "CPU [s]"],
         [[k, v["wall_s"], v["cpu_s"]] for k, v in times.items()])  # fmt: skip
    ours = embedded_library()
    x = np.linspace(-1, 1, len(wave))
    legendre = np.polynomial.legendre.legvander(x, 10)
    rows, numbers = [], {}
    for z in ours.mh:
        i, j = int(np.argmin(np.abs(ours.mh - z))), int(np.argmin(np.abs(axes[1] - z)))
        mine, theirs = ours.spectra()[i], cube[0, j]
        mine = mine / np.median(mine, axis=1, keepdims=True)
        theirs = theirs / np.median(theirs, axis=1, keepdims=True)
        ratio = mine / theirs
        fit = np.linalg.lstsq(legendre, (1 / ratio).T, rcond=None)[0]
        raw = 100 * np.sqrt(((ratio - 1) ** 2).mean(1))
        fitted = 100 * np.sqrt(((ratio * (legendre @ fit).T - 1) ** 2).mean(1))
        cells = []
        for low, high in AGES:
            some = (axes[2] >= low) & (axes[2] < high)
            cells.append(f"{raw[some].mean():.1f}/{fitted[some].mean():.1f}")
        rows.append([f"{z:+.2f}", *cells])
        numbers[f"{z:+.2f}"] = cells
    head = ["[M/H]", *(f"{a:g}-{b:g} Gyr" for a, b in AGES)]
    show("embedded / MILES - 1, rms % (raw / after polynomial)", head, rows)
    common = [int(np.argmin(np.abs(axes[1] - z))) for z in ours.mh]
    mass = np.log10(np.median(ours.spectra(), axis=-1) / np.median(cube[0][common], axis=-1))
    print(f"\nlog10 flux per mass, embedded / MILES: {mass.mean():+.3f} +- {mass.std():.3f}")
    ten, i = int(np.argmin(np.abs(axes[2] - 10))), int(np.argmin(np.abs(ours.mh - 0.06)))
    j = int(np.argmin(np.abs(axes[1] - 0.06)))
    indices = {
        n: (float(equivalent_width(wave, ours.spectra()[i, ten], v)),
            float(equivalent_width(wave, cube[0, j, ten], v)))
        for n, v in INDICES.items()
    }  # fmt: skip
    show("indices at 10 Gyr, [M/H] = +0.06 [Angstrom]", ["index", "embedded", "MILES"],
         [[n, *v] for n, v in indices.items()])  # fmt: skip
    error = (library.coeff @ library.basis) / cube - 1
    compression = {"rms": float(np.sqrt((error**2).mean())), "max": float(np.abs(error).max())}
    print(f"\ncompression of MILES to {library.basis.shape[0] - 1} components: {compression}")
    save(args.json, {"reading": times, "rms": numbers, "indices": indices,
                     "log_mass_ratio": [float(mass.mean()), float(mass.std())],
                     "compression": compression})  # fmt: skip


if __name__ == "__main__":
    main()
