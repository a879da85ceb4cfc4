"""Many spectra at once: a mock cube in two formats, and mock spectra in memory.

    python benchmarks/sfh/many.py [--run RUN] [--side 30] [--spectra 10000] [--json FILE]

RUN is a run in mode observed; without one, a ``quick`` one is trained. The cube has ``side`` x
``side`` spaxels of histories of the prior at z = 0.02, rotating by 150 km/s, with a signal to noise
per pixel from 60 in the centre to 8, of which those below 10 are left out; its corners are empty.
It is written as a LOGCUBE of MaNGA and as a cube of MUSE, and mapped with ``simulator.align``.
Times are processor seconds of one process, reading included.
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from astropy.io import fits
from common import save, show

import sbi_core
from sbi_core import stream
from sbi_sfh.config import age_of_universe
from sbi_sfh.constants import C_KMS
from sbi_sfh.cubes import infer_cube
from sbi_sfh.resample import air_to_vacuum, vacuum_to_air

Z = 0.02
READ = ("simulator.align=true", "simulator.min_snr=10", f"simulator.default_redshift={Z}")


def mock_cube(run, side: int, rng):
    """Return theta (n, d), spectra (n, L) at rest, S/N (n,), velocity (n,) and use (n,)."""
    simulator = run.simulator
    batch = simulator.draw(side * side + 50, rng).succeeded[slice(0, side * side)]
    sigma = np.full(side * side, 120.0)
    telescope = simulator.telescope
    flux = telescope.at_dispersion(batch.x, telescope.broadened.new_tensor(sigma))
    y, x = np.indices((side, side)).reshape(2, -1) - 0.5 * (side - 1)
    radius = np.hypot(x, y) / (0.5 * side)
    snr = 60.0 * np.exp(-2.0 * radius)
    velocity = 150.0 * np.tanh(3.0 * x / side)
    theta = batch.theta.double().numpy()
    return theta, flux.double().numpy(), np.maximum(snr, 8.0), velocity, radius < 1.2


def observed(flux, wave, rest, velocity):
    """Return spectra (n, L) at observed vacuum wavelengths, NaN outside of the model."""
    rows = []
    for f, v in zip(flux, velocity, strict=True):
        # the index of refraction belongs to the wavelength at which light is measured
        at = vacuum_to_air(wave) / ((1 + Z) * (1 + v / C_KMS))
        rows.append(np.interp(at, rest, f, left=np.nan, right=np.nan))
    return np.array(rows)


def manga(path: Path, wave, flux, err, side: int) -> None:
    """Write a LOGCUBE."""
    good = np.isfinite(flux)
    ivar = np.where(good, 1.0 / np.where(good, err, 1.0) ** 2, 0.0)
    hdus = [fits.PrimaryHDU(), *(
        fits.ImageHDU(_cube(v, side), name=n)
        for n, v in (("FLUX", np.where(good, flux, 0.0)), ("IVAR", ivar), ("MASK", ~good))
    ), fits.ImageHDU(wave, name="WAVE")]  # fmt: skip
    hdus[0].header.update({"PLATEIFU": "1-1", "MNGTARG1": 1})
    fits.HDUList(hdus).writeto(path)


def muse(path: Path, wave, flux, err, side: int) -> None:
    """Write a cube of MUSE, in air, with NaN where nothing was observed."""
    data = fits.ImageHDU(_cube(flux, side), name="DATA")
    data.header.update({"CTYPE3": "AWAV", "CUNIT3": "Angstrom", "CRVAL3": wave[0], "CRPIX3": 1.0,
                        "CD3_3": wave[1] - wave[0]})  # fmt: skip
    stat = fits.ImageHDU(_cube(err**2, side), name="STAT")
    primary = fits.PrimaryHDU()
    primary.header["INSTRUME"] = "MUSE"
    fits.HDUList([primary, data, stat]).writeto(path)


def _cube(values, side: int):
    return np.asarray(values, np.float32).T.reshape(-1, side, side)


def mapped(run_path: Path, path: Path, side: int, theta) -> dict:
    """Return time per spaxel, flags, and coverage of the maps of a cube."""
    run = sbi_core.load_run(run_path, overrides=READ)
    start = time.process_time()
    maps, _ = infer_cube(run, str(path), (side, side), 300)
    seconds = time.process_time() - start
    late = run.simulator.config.t_end - age_of_universe(Z)
    done = np.isfinite(maps.values["t50"]).ravel()
    words = Counter(w for f in maps.flags.ravel()[done]
                    for k, w in enumerate(maps.words) if f >> k & 1)  # fmt: skip
    found = {"spaxels": int(done.sum()), "CPU s": seconds, "ms each": 1e3 * seconds / done.sum()}
    for k, name in enumerate(run.simulator.parameters.names):
        truth = theta[done, k] - (late if name[0] == "t" else 0.0)
        value, err = (maps.values[n].ravel()[done] for n in (name, f"{name}_err"))
        found[name] = float((np.abs(value - truth) < err).mean())
    return found | {"flags": ", ".join(f"{w} {c}" for w, c in words.most_common()) or "none"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, help="a run in mode observed")
    parser.add_argument("--side", type=int, default=30)
    parser.add_argument("--spectra", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/sfh-observed"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.run is None:
        overrides = ["simulator.mode=observed"]
        sbi_core.run("sfh", preset="quick", out=args.out, seed=args.seed, overrides=overrides)
    run = sbi_core.load_run(args.run or args.out)
    rng = stream(args.seed, "many")
    theta, flux, snr, velocity, use = mock_cube(run, args.side, rng)
    rest, numbers = run.simulator.wave, {}
    ends = air_to_vacuum(rest[[0, -1]] * (1 + Z)) * np.array([0.9985, 1.0015])
    log = 10.0 ** np.arange(np.log10(ends[0]), np.log10(ends[1]), 1e-4)
    linear = np.arange(*vacuum_to_air(ends), 1.25)
    with tempfile.TemporaryDirectory() as folder:
        for name, write, wave, vacuum in (
            ("LOGCUBE", manga, log, log),
            ("MUSE", muse, linear, air_to_vacuum(linear)),
        ):
            clean = observed(flux, vacuum, rest, velocity)
            err = clean / snr[:, None]
            seen = clean + err * rng.standard_normal(clean.shape)
            seen[~use] = np.nan
            path = Path(folder) / f"{name}.fits"
            write(path, wave, seen, err, args.side)
            numbers[name] = mapped(args.run or args.out, path, args.side, theta)
    head = ["cube", *numbers["MUSE"]]
    rows = [[n, *(f"{v:.2f}" if isinstance(v, float) else v for v in f.values())]
            for n, f in numbers.items()]  # fmt: skip
    show("cubes: coverage of +- the error of the map", head, rows)
    if args.spectra:
        mocks = run.simulator.example_observations(rng, args.spectra)
        start = time.process_time()
        run.infer(mocks, 500)
        numbers["spectra"] = {"n": args.spectra, "CPU s": time.process_time() - start}
        show("spectra in memory, 500 draws", ["n", "CPU s"], [list(numbers["spectra"].values())])
    save(args.json, numbers)


if __name__ == "__main__":
    main()
