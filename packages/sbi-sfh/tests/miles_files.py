"""Spectra in MILES format for tests, and a made-up response to [alpha/Fe]."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from astropy.io import fits

WAVE = 3540.5 + 0.9 * np.arange(4300)
LINES = {  # depth change for [alpha/Fe] = 0.4, centre and width in Angstrom: made up for tests
    "Mgb": (0.04, 5176.0, 8.0),
    "CaK": (0.05, 3934.0, 8.0),
    "Ca4227": (0.05, 4227.0, 4.0),
    "Fe4383": (-0.04, 4383.0, 10.0),
    "Fe5270": (-0.03, 5270.0, 10.0),
    "Fe5335": (-0.03, 5335.0, 10.0),
    "NaD": (-0.05, 5893.0, 8.0),
}


def write_spectrum(path: Path, flux: np.ndarray, **cards: object) -> None:
    header = fits.Header()
    header["CRVAL1"], header["CDELT1"], header["CRPIX1"] = WAVE[0], 0.9, 1.0
    for key, value in cards.items():
        header[key] = value
    fits.PrimaryHDU(flux.astype(">f4"), header).writeto(path)


def miles_name(mh: float, age: float, afe: float | None = None, imf: str = "ku") -> str:
    sign = "m" if mh < 0 else "p"
    alpha = "baseFe" if afe is None else f"Ep{afe:.2f}"
    return f"M{imf}1.30Z{sign}{abs(mh):.2f}T{age:07.4f}_iTp0.00_{alpha}.fits"


def alpha_factor(mh: float) -> np.ndarray:
    amplitude = min(1.0, 10 ** (0.4 * mh))
    deeper = sum(
        a * np.exp(-0.5 * ((WAVE - centre) / width) ** 2) for a, centre, width in LINES.values()
    )
    return 1.0 - amplitude * np.asarray(deeper)
