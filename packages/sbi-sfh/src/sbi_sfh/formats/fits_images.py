"""Spectra in images of FITS files: a galaxy per row.

Wavelengths are an image WAVE, or follow from the header (linear or logarithmic: CRVAL, CDELT or
CD, CRPIX; COEFF0 and COEFF1 of SDSS). Errors are an image IVAR, ERR or STAT. A cube is read as a
row per spaxel. Names may carry the prefix of an arm (``BRZ_FLUX``); the arms B, R and Z of DESI are
joined. Redshifts and identifiers of the rows may stand in a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sbi_core import ObservationError, checked_file
from sbi_sfh.formats.spectrum import Spectrum, spectra_of

__all__ = ["read"]

F64 = NDArray[np.float64]
_FLUX = ("FLUX", "DATA")
_ARMS = ("B_", "R_", "Z_")
_ANGSTROM = {"WAVE": "Angstrom"}
_KINDS = ("WAVE", "WAVELENGTH", "IVAR", "ERR", "ERROR", "STAT", "MASK", "ANDMASK", "BADPIX",
          "SRES", "SPECRES", "Z")  # fmt: skip


def read(path: Path) -> Iterator[Spectrum]:
    """Yield the spectra of the images of a file; none where it has no image of a flux."""
    with fits.open(checked_file(path)) as hdus:
        images = {
            h.name.upper(): h for h in hdus if h.is_image and h.data is not None and h.data.size > 1
        }
        flux, prefix = _flux(images)
        if flux is None:
            return
        shared = _facts_of_rows(hdus, len(np.atleast_2d(flux.data)))
        if all(arm + "FLUX" in images for arm in _ARMS):
            yield from spectra_of({**_joined(images), **shared}, {}, f"'{path.name}'", _ANGSTROM)
            return
        header = {**dict(hdus[0].header), **dict(flux.header)}
        columns = _spectro_1d(flux) or {"FLUX": _rows(np.asarray(flux.data))}
        for kind in _KINDS:
            if (hdu := images.get(prefix + kind)) is not None:
                columns[kind] = _rows(np.asarray(hdu.data))
        unit, vacuum = _wavelengths(columns, header, images, prefix, path)
        if not {"IVAR", "ERR", "ERROR", "STAT"} & set(columns):
            msg = f"'{path.name}': needs an image IVAR or ERR beside WAVE and FLUX"
            raise ObservationError(msg)
        if "WAVE" in images:
            header |= {k: v for k, v in images["WAVE"].header.items() if k not in header}
        facts = {**vacuum, **{k: v for k, v in header.items() if k != "NAME"}}
        if "Z" in columns:
            columns["REDSHIFT"] = columns.pop("Z").reshape(-1)
        units = {n: unit for n in ("WAVE", "WAVELENGTH")}
        yield from spectra_of({**shared, **columns}, facts, f"'{path.name}'", units)


def _flux(images: Mapping[str, Any]) -> tuple[Any, str]:
    """Return the image of the flux and the prefix of its name."""
    for name, hdu in images.items():
        for kind in _FLUX:
            if name == kind or name.endswith("_" + kind):
                return hdu, name.removesuffix(kind)
    first = images.get("PRIMARY")
    spectral = first is not None and {"CRVAL1", "CRVAL3", "COEFF0"} & set(first.header)
    return (first, "") if spectral else (None, "")


def _spectro_1d(flux: Any) -> dict[str, NDArray[Any]]:
    """Return the rows of a spSpec file (SDSS before 2011): flux, -, error, mask, sky."""
    if flux.name != "PRIMARY" or "COEFF0" not in flux.header or flux.data.shape[0] != 5:
        return {}
    return dict(zip(("FLUX", "ERR", "MASK"), np.asarray(flux.data)[[0, 2, 3]], strict=True))


def _facts_of_rows(hdus: Any, n: int) -> dict[str, NDArray[Any]]:
    """Return redshifts and identifiers of n rows, where a table of the file has them."""
    facts: dict[str, Any] = {}
    for hdu in hdus:
        if isinstance(hdu, fits.BinTableHDU) and hdu.data is not None and len(hdu.data) == n > 1:
            facts |= {c: hdu.data[c] for c in ("Z", "TARGETID") if c in hdu.columns.names}
    return {{"Z": "REDSHIFT"}.get(c, c): np.asarray(v) for c, v in facts.items()}


def _joined(images: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Return the arms of DESI on one axis; where two overlap, their mean by inverse variance."""
    parts = {
        kind: np.concatenate([np.asarray(images[a + kind].data, np.float64) for a in _ARMS], -1)
        for kind in ("WAVELENGTH", "FLUX", "IVAR")
    }
    masks = [images.get(a + "MASK") for a in _ARMS]
    if all(m is not None for m in masks):
        bad = np.concatenate([np.asarray(m.data) for m in masks if m is not None], -1) != 0
        parts["IVAR"] = np.where(bad, 0.0, parts["IVAR"])
    wave, place = np.unique(np.round(parts["WAVELENGTH"], 3), return_inverse=True)
    ivar, sums = (np.zeros((len(parts["FLUX"]), len(wave))) for _ in range(2))
    for k, at in enumerate(place):
        ivar[:, at] += parts["IVAR"][:, k]
        sums[:, at] += parts["IVAR"][:, k] * parts["FLUX"][:, k]
    return {"WAVE": wave, "FLUX": sums / np.where(ivar > 0, ivar, 1.0), "IVAR": ivar}


def _rows(values: NDArray[Any]) -> NDArray[Any]:
    """Return a cube (L, y, x) as rows (y x, L); other arrays as they are."""
    if values.ndim < 3:
        return values
    return np.moveaxis(values, 0, -1).reshape(-1, values.shape[0])


def _wavelengths(
    columns: dict[str, Any],
    header: Mapping[str, Any],
    images: Mapping[str, Any],
    prefix: str,
    path: Path,
) -> tuple[str | None, dict[str, Any]]:
    """Add wavelengths from the header if there is no image WAVE; return unit and facts."""
    for name in ("WAVE", "WAVELENGTH"):
        if name in columns:
            return str(images[prefix + name].header.get("BUNIT", "")) or None, {}
    n = columns["FLUX"].shape[-1]
    pixel = np.arange(n, dtype=np.float64)
    if "COEFF0" in header:
        columns["loglam"] = header["COEFF0"] + header["COEFF1"] * pixel
        return "Angstrom", {}
    axis = 3 if "CRVAL3" in header else 1
    step = header.get(f"CDELT{axis}", header.get(f"CD{axis}_{axis}"))
    if f"CRVAL{axis}" not in header or step is None:
        msg = f"'{path.name}': no image WAVE and no wavelengths in the header (CRVAL, CDELT)"
        raise ObservationError(msg)
    wave = header[f"CRVAL{axis}"] + (pixel + 1 - header.get(f"CRPIX{axis}", 1.0)) * step
    logarithmic = int(header.get("DC-FLAG", 0)) == 1
    columns["WAVE"] = 10.0**wave if logarithmic else wave
    unit = str(header.get(f"CUNIT{axis}", "")) or ("Angstrom" if logarithmic else None)
    kind = str(header.get(f"CTYPE{axis}", "")).strip().upper()
    return unit, {"VACUUM": "air"} if kind == "AWAV" else {}
