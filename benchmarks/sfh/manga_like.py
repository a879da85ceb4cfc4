"""Maps of cubes as MaNGA delivers them, made of its real spectra.

    python benchmarks/sfh/manga_like.py --run RUN [--side 24] [--json FILE] [--figures DIR]

RUN is a run in mode ``observed``. For both galaxies of ``SBI_DATA_DIR/sfh/manga_spectra_dev.fits``
a LOGCUBE is written: every spaxel has the real spectrum of the centre times an exponential profile,
with the residuals of the real spectrum, its errors, and so much noise more that the signal to noise
per pixel falls from its own to 3. Beyond the hexagon nothing is observed (IVAR 0, NOCOV); a star in
the foreground, spaxels of a dead fibre, dead columns with values of 10^4, and pixels without
variance have the bits of DRP3PIXMASK. It is mapped by ``sbi-run sfh map`` with ``min_snr=10``;
maps are compared with the result of the real spectrum itself. Seconds are processor seconds of one
process, reading included.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from astropy.io import fits
from click.testing import CliRunner
from common import reference, save, show

import sbi_core
from sbi_core import stream
from sbi_sfh.cli import map_cube

NOCOV, DEADFIBER, FORESTAR, DONOTUSE = 1 << 0, 1 << 2, 1 << 3, 1 << 10  # DRP3PIXMASK
SNR, FAINTEST = 10.0, 3.0  # of the mapped spaxels; at the edge
FALL = 2.6  # e-folds of the light from the centre to the edge
COMPARED = ("t10", "t50", "t90", "mh")


def image(side: int):
    """Return brightness (side, side), 1 in the centre, and which spaxels the hexagon has."""
    y, x = np.indices((side, side)) - 0.5 * (side - 1)
    a = np.abs(x) / (0.5 * side), np.abs(y) / (0.5 * side)
    radius = np.hypot(x, 1.4 * y) / (0.5 * side)
    return np.exp(-FALL * radius), (a[0] <= 1.0) & (a[0] / 2 + a[1] * np.sqrt(3) / 2 <= 0.95)


def logcube(path: Path, spectrum, side: int, rng) -> np.ndarray:
    """Write a LOGCUBE; return which spaxels have data (side, side)."""
    table, header = spectrum.data, spectrum.header
    wave, flux, ivar = (np.asarray(table[n], float) for n in ("WAVE", "FLUX", "IVAR"))
    bits = np.asarray(table["MASK"], np.int32)
    bright, inside = image(side)
    err = np.where(ivar > 0, 1.0 / np.sqrt(np.where(ivar > 0, ivar, 1.0)), 0.0)
    fall = np.log(np.median(flux[ivar > 0] / err[ivar > 0]) / FAINTEST) / FALL
    level = bright[None] ** (1.0 - fall)  # of the errors; S/N falls as bright**fall
    cube = flux[:, None, None] * bright[None]
    total = err[:, None, None] * level
    more = np.sqrt(np.maximum(total**2 - (err[:, None, None] * bright[None]) ** 2, 0.0))
    cube = cube + more * rng.standard_normal(cube.shape)
    weight = np.where(total > 0, 1.0 / np.where(total > 0, total, 1.0) ** 2, 0.0)
    mask = np.broadcast_to(bits[:, None, None], cube.shape).copy()
    dead, star = np.zeros_like(inside), np.zeros_like(inside)
    dead[side // 2, side // 2 + 3 : side // 2 + 5] = True
    star[side // 4 : side // 4 + 2, side // 2 : side // 2 + 2] = True
    mask[:, ~inside] |= NOCOV | DONOTUSE
    mask[:, dead] |= DEADFIBER | DONOTUSE
    mask[:, star] |= FORESTAR | DONOTUSE
    cube[:, ~inside], weight[:, ~inside] = 0.0, 0.0
    weight[:, dead] = 0.0
    cube[:, star] *= 20.0
    columns = rng.choice(len(wave), 40, replace=False)
    cube[columns, :, : side // 2] = 1e4
    mask[columns, :, : side // 2] |= DONOTUSE
    weight[rng.choice(len(wave), 40, replace=False)] = 0.0
    sky = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CTYPE3": "WAVE-LOG", "CRVAL1": 116.0,
           "CRVAL2": 42.0, "CRVAL3": wave[0], "CRPIX1": side / 2, "CRPIX2": side / 2, "CRPIX3": 1.0,
           "CD1_1": -1.389e-4, "CD2_2": 1.389e-4, "CUNIT1": "deg", "CUNIT2": "deg",
           "BUNIT": "1E-17 erg/s/cm^2/Ang/spaxel"}  # fmt: skip
    hdus = [fits.PrimaryHDU(), *(
        fits.ImageHDU(v, name=n) for n, v in
        (("FLUX", cube.astype("f4")), ("IVAR", weight.astype("f4")), ("MASK", mask),
         ("WAVE", wave), ("SPECRES", np.asarray(table["SRES"], float)))
    )]  # fmt: skip
    hdus[0].header.update({"PLATEIFU": header["PLATEIFU"], "MNGTARG1": 1})
    hdus[1].header.update(sky)
    fits.HDUList(hdus).writeto(path)
    return inside & ~dead & ~star


def mapped(run_path: Path, path: Path, out: Path, redshift: float) -> float:
    """Map a cube by the command; return processor seconds."""
    words = [str(run_path), str(path), "--out", str(out), "--set", f"simulator.min_snr={SNR}",
             "--set", f"simulator.default_redshift={redshift}"]  # fmt: skip
    start = time.process_time()
    result = CliRunner().invoke(map_cube, words, catch_exceptions=False)
    print(result.output)
    return time.process_time() - start


def summary(out: Path, samples, data: np.ndarray, seconds: float) -> dict:
    """Return numbers of the maps, compared with the real spectrum (draws)."""
    with fits.open(out) as hdus:
        maps = {h.name: h.data for h in hdus if h.data is not None}
        names = {v: int(k[4:]) for k, v in hdus["FLAGS"].header.items() if k.startswith("FLAG")}
    done = np.isfinite(maps["T50"])
    flags = {w: int(((maps["FLAGS"][data | done] >> k) & 1).sum()) for w, k in names.items()}
    found = {"spaxels": int(data.sum()), "mapped": int(done.sum()),
             "without data, mapped": int((done & ~data).sum()), "CPU s": seconds,
             "ms per mapped spaxel": 1e3 * seconds / done.sum(),
             "flags": {w: n for w, n in flags.items() if n}}  # fmt: skip
    for name in COMPARED:
        value, err = maps[name.upper()][done], maps[f"{name.upper()}_ERR"][done]
        whole = samples[name][:, 0]
        found[name] = {
            "whole spectrum": float(np.median(whole)),
            "its error": float(0.5 * np.ptp(np.percentile(whole, [16, 84]))),
            "median of spaxels": float(np.median(value)), "scatter": float(value.std()),
            "median error": float(np.median(err)),
        }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="a run in mode observed")
    parser.add_argument("--side", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--figures", type=Path, help="folder for the figures of the maps")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    file = reference("manga_spectra_dev.fits")
    run, numbers = sbi_core.load_run(args.run), {}
    samples = run.infer(str(file), 2000)
    with fits.open(file) as hdus, tempfile.TemporaryDirectory() as folder:
        for k, spectrum in enumerate(h for h in hdus if h.name.startswith("MANGA_")):
            name = spectrum.header["PLATEIFU"]
            path, out = Path(folder) / f"{name}-LOGCUBE.fits", Path(folder) / f"{name}.fits"
            data = logcube(path, spectrum, args.side, stream(args.seed, "manga", name))
            seconds = mapped(args.run, path, out, float(spectrum.header["REDSHIFT"]))
            own = {n: samples[n][:, k : k + 1] for n in COMPARED}
            numbers[name] = summary(out, own, data, seconds) | {"whole": str(samples.flags[k])}
            if args.figures:
                args.figures.mkdir(parents=True, exist_ok=True)
                out.with_suffix(".png").rename(args.figures / f"{name}.png")
    rows = [[n, p, *v[p].values()] for n, v in numbers.items() for p in COMPARED]
    head = next(iter(numbers.values()))["t50"]
    show("maps and the spectrum that they were made of", ["galaxy", "", *head], rows)
    print(json.dumps({n: {k: v for k, v in f.items() if k not in COMPARED}
                      for n, f in numbers.items()}, indent=1))  # fmt: skip
    save(args.json, numbers)


if __name__ == "__main__":
    main()
