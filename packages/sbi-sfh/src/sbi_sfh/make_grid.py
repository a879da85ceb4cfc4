r"""Make the SSP grid that comes with the package: ``python -m sbi_sfh.make_grid``.

Spectra are synthesised by fastar-astro (MILES stars, BaSTI-IAC isochrones, Kroupa initial mass
function) for 11 [M/H] x 53 ages, divided by their medians, and compressed to their mean and 48
principal components. Needs ``pip install 'sbi-sfh[grid]'``; takes about two minutes.

References:
    | fastar-astro 0.1.2 (I. Martin-Navarro, MIT licence), https://github.com/inavarro/fastar
    | Sanchez-Blazquez et al. 2006, MNRAS 371, 703 (MILES stars)
    | Hidalgo et al. 2018, ApJ 856, 125 (BaSTI-IAC)
    | Kroupa 2001, MNRAS 322, 231
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbi_core import ConfigError, written
from sbi_sfh.ssp import compress

__all__ = ["AGES_GYR", "METALLICITIES", "SOLAR_LUMINOSITY_SCALE", "main", "synthesiser", "write"]

F64 = NDArray[np.float64]
METALLICITIES = (-2.27, -1.79, -1.49, -1.26, -0.96, -0.66, -0.35, -0.25, 0.06, 0.15, 0.26)
AGES_GYR = (
    *(round(0.03 + 0.01 * k, 2) for k in range(8)),
    *(round(0.15 + 0.05 * k, 2) for k in range(8)),
    *(round(0.6 + 0.1 * k, 1) for k in range(5)),
    *(1.25 + 0.25 * k for k in range(12)),
    *(4.5 + 0.5 * k for k in range(20)),
)
SOLAR_LUMINOSITY_SCALE = 2.8e6  # to L_sun per Angstrom and solar mass: compared with MILES SSPs
COMPONENTS = 48
_CITATIONS = (
    "fastar-astro 0.1.2 (Martin-Navarro; MIT licence)",
    "Sanchez-Blazquez et al. 2006, MNRAS 371, 703",
    "Falcon-Barroso et al. 2011, A&A 532, A95",
    "Hidalgo et al. 2018, ApJ 856, 125",
    "Kroupa 2001, MNRAS 322, 231",
)


def synthesiser() -> tuple[F64, Callable[[float, float], F64]]:
    """Return the wavelengths [Angstrom] and a function (age [Gyr], [M/H]) -> flux.

    Raises
    ------
    ConfigError
        If fastar-astro is not installed.
    """
    try:
        from fastar import IntegratedSSPSynthesizer  # type: ignore[import-not-found]
        from fastar.imf import kroupa  # type: ignore[import-not-found]
    except ImportError:
        msg = "making the SSP grid needs fastar-astro: pip install 'sbi-sfh[grid]'"
        raise ConfigError(msg) from None
    model = IntegratedSSPSynthesizer(imf_function=kroupa)
    wave: F64 = np.asarray(3540.5 + 0.9 * np.arange(4300), np.float64)

    def flux(age: float, mh: float) -> F64:
        made = np.asarray(model.synthesize(age, mh), np.float64)
        if made.shape != wave.shape:
            msg = f"fastar-astro returned {made.shape} pixels, expected {wave.shape}"
            raise ConfigError(msg)
        return made * SOLAR_LUMINOSITY_SCALE

    return wave, flux


def write(path: Path, wave: F64, cube: F64, version: str) -> dict[str, Any]:
    """Compress the cube (11, 53, 4300) and write the npz file; return its provenance."""
    basis, coeff = compress(cube[None], COMPONENTS)
    median = coeff[0, ..., 0]  # the mean counts once in every median-normalised spectrum
    parts: dict[str, NDArray[Any]] = {
        "wave": wave,
        "mh": np.array(METALLICITIES),
        "age_gyr": np.array(AGES_GYR),
        "median": median,
        "mean": basis[0].astype(np.float32),
        "components": basis[1:].astype(np.float32),
        "coeff": (coeff[0, ..., 1:] / median[..., None]).astype(np.float32),
    }
    digest = hashlib.sha256()
    for name in sorted(parts):
        digest.update(np.ascontiguousarray(parts[name]).tobytes())
    meta = {
        "name": "fastar-MILES",
        "package": f"fastar-astro {version}",
        "imf": "Kroupa 2001 (universal)",
        "isochrones": "BaSTI-IAC, solar-scaled",
        "stars": "MILES",
        "licence": "MIT (fastar-astro)",
        "units": "L_sun / Angstrom per solar mass of initial stars; air wavelength, Angstrom",
        "fwhm_angstrom": 2.51,
        "scale": SOLAR_LUMINOSITY_SCALE,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "sha256": digest.hexdigest(),
        "citations": list(_CITATIONS),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as temporary, temporary.open("wb") as f:
        np.savez_compressed(f, meta=np.array(json.dumps(meta)), **parts)  # type: ignore[arg-type]
    return meta


def main(argv: Sequence[str] | None = None) -> int:
    """Synthesise, compress and write; return 0."""
    default = Path(__file__).parent / "data" / "ssp_fastar.npz"
    parser = argparse.ArgumentParser(prog="python -m sbi_sfh.make_grid", description=__doc__)
    parser.add_argument("--out", type=Path, default=default, help="npz file to write")
    parser.add_argument("--cube", type=Path, help="also keep the spectra before compression (npy)")
    args = parser.parse_args(argv)
    try:
        wave, flux = synthesiser()
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    cube = np.array([[flux(age, mh) for age in AGES_GYR] for mh in METALLICITIES])
    if args.cube:
        np.save(args.cube, cube)
    meta = write(args.out, wave, cube, version("fastar-astro"))
    sys.stdout.write(f"{args.out}: {json.dumps(meta, indent=1)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
