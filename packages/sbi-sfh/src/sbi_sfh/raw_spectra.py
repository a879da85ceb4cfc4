r"""Galaxy spectra as files have them.

Files: FITS with a binary table per galaxy (columns WAVE or LOGLAM, FLUX, IVAR or ERR, MASK, SRES),
SDSS ``spec`` files, FITS images WAVE/FLUX/IVAR/MASK with a galaxy per row, any table that astropy
reads (one galaxy; facts in its metadata), npz with the same names, or a folder of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbi_core import ObservationError
from sbi_sfh.constants import FWHM_PER_SIGMA

__all__ = ["RawSpectrum", "read_raw"]

F64 = NDArray[np.float64]
_ALIASES: Mapping[str, tuple[str, ...]] = {
    "wave": ("wave", "wavelength", "lambda", "lam"),
    "loglam": ("loglam", "log_wave", "loglambda"),
    "flux": ("flux", "spec", "f_lambda"),
    "ivar": ("ivar", "inverse_variance"),
    "err": ("err", "error", "flux_err", "sigma_flux", "uncertainty", "e_flux"),
    "mask": ("mask", "and_mask", "bad"),
    "sres": ("sres", "resolution", "r"),
    "wdisp": ("wdisp",),
}
_FACTS: Mapping[str, tuple[str, ...]] = {
    "redshift": ("redshift", "z"),
    "vacuum": ("vacuum", "invacuum"),
    "sigma": ("sigma", "vdisp", "sigma_kms"),
    "unit": ("waveunit", "wave_unit", "wunit"),
    "id": ("plateifu", "id", "object", "name"),
    "frame": ("frame",),
}


@dataclass(frozen=True)
class RawSpectrum:
    """One spectrum as a file has it.

    Parameters
    ----------
    id
        Name of the galaxy.
    where
        File and part, for messages.
    wave
        Wavelengths in ``unit``, (L,).
    flux
        Flux density, (L,).
    ivar
        Inverse variance, (L,); 0 where there are no data.
    good
        False where the file says not to use, (L,).
    unit
        Unit of the wavelengths; None when the file does not say.
    vacuum
        Whether wavelengths are those in vacuum; None when the file does not say.
    redshift
        None when the file does not say.
    sigma
        Velocity dispersion of the galaxy, km/s, when the file says.
    resolution
        Resolving power lambda/FWHM, (L,), when the file says.
    rest
        Whether the wavelengths are in the rest frame already.
    """

    id: str
    where: str
    wave: F64
    flux: F64
    ivar: F64
    good: NDArray[np.bool_]
    unit: str | None = None
    vacuum: bool | None = None
    redshift: float | None = None
    sigma: float | None = None
    resolution: F64 | None = None
    rest: bool = False


def read_raw(path: str | Path) -> Iterator[RawSpectrum]:
    """Yield the spectra of a file or folder as they are.

    Raises
    ------
    ObservationError
        If a file cannot be read, or lacks flux, wavelengths or errors.
    """
    path = Path(path)
    if path.is_dir():
        files = [p for p in sorted(path.iterdir()) if p.is_file() and not p.name.startswith(".")]
        for file in files:
            yield from read_raw(file)
        return
    if not path.is_file():
        msg = f"observations '{path}' do not exist"
        raise ObservationError(msg)
    name = path.name.lower()
    try:
        if name.endswith((".fits", ".fits.gz", ".fit")):
            yield from _read_fits(path)
        elif name.endswith(".npz"):
            yield _read_npz(path)
        else:
            yield _read_table(path)
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, ObservationError):
            raise
        msg = f"'{path}' cannot be read as a spectrum: {error}"
        raise ObservationError(msg) from None


def _found(names: Mapping[str, str], kind: str) -> str | None:
    return next((names[a] for a in _ALIASES[kind] if a in names), None)


def _fact(meta: Mapping[str, Any], kind: str) -> Any:
    lower = {str(k).lower(): v for k, v in meta.items()}
    return next((lower[a] for a in _FACTS[kind] if a in lower), None)


def _number(value: Any) -> float | None:
    return None if value is None else float(np.asarray(value).reshape(-1)[0])


def _flag(value: Any) -> bool | None:
    if value is None:
        return None
    if isinstance(value, str):
        return value.strip().lower() in ("t", "true", "1", "yes", "vacuum")
    return bool(np.asarray(value).reshape(-1)[0])


def _build(
    columns: Mapping[str, Any], meta: Mapping[str, Any], where: str, units: Mapping[str, Any]
) -> RawSpectrum:
    """Assemble a spectrum from named columns and facts."""
    names = {str(c).lower(): str(c) for c in columns}
    flux_name = _found(names, "flux")
    wave_name, log_name = _found(names, "wave"), _found(names, "loglam")
    ivar_name, err_name = _found(names, "ivar"), _found(names, "err")
    if flux_name is None or (wave_name is None and log_name is None):
        msg = (
            f"{where}: needs columns WAVE (or LOGLAM) and FLUX, has {', '.join(map(str, columns))}"
        )
        raise ObservationError(msg)
    if ivar_name is None and err_name is None:
        msg = f"{where}: needs a column IVAR or ERR, has {', '.join(map(str, columns))}"
        raise ObservationError(msg)

    def column(name: str) -> F64:
        return np.asarray(columns[name], np.float64).reshape(-1)

    flux = column(flux_name)
    if wave_name is not None:
        wave = column(wave_name)
        unit = units.get(wave_name) or _fact(meta, "unit")
        vacuum = _flag(_fact(meta, "vacuum"))
    else:
        assert log_name is not None
        wave, unit = 10.0 ** column(log_name), "Angstrom"  # SDSS convention: log10, vacuum
        said = _flag(_fact(meta, "vacuum"))
        vacuum = True if said is None else said
    if ivar_name is not None:
        ivar = column(ivar_name)
    else:
        assert err_name is not None
        err = column(err_name)
        with np.errstate(divide="ignore", invalid="ignore"):
            ivar = np.where(err > 0, 1.0 / err**2, np.where(err == 0, 0.0, -np.abs(err)))
    mask_name = _found(names, "mask")
    good = np.ones(len(flux), bool) if mask_name is None else column(mask_name) == 0
    resolution = None
    if (sres := _found(names, "sres")) is not None:
        resolution = column(sres)
    elif (disp := _found(names, "wdisp")) is not None:
        # SDSS: sigma in pixels of 1e-4 in log10 lambda
        step = np.maximum(column(disp), 1e-3) * 1e-4 * np.log(10.0) * FWHM_PER_SIGMA
        resolution = 1.0 / step
    lengths = {len(v) for v in (wave, flux, ivar, good)}
    if len(lengths) > 1:
        msg = f"{where}: wavelength, flux and errors have different lengths {sorted(lengths)}"
        raise ObservationError(msg)
    frame = str(_fact(meta, "frame") or "observed").lower()
    return RawSpectrum(
        id=str(_fact(meta, "id") or Path(where.split(",")[0].strip("'")).stem),
        where=where, wave=wave, flux=flux, ivar=ivar, good=good,
        unit=None if unit is None else str(unit), vacuum=vacuum,
        redshift=_number(_fact(meta, "redshift")), sigma=_number(_fact(meta, "sigma")),
        resolution=resolution, rest=frame.startswith("rest"),
    )  # fmt: skip


def _read_fits(path: Path) -> Iterator[RawSpectrum]:
    from astropy.io import fits

    with fits.open(path) as hdus:
        names = {h.name.upper(): k for k, h in enumerate(hdus)}
        if {"WAVE", "FLUX"} <= set(names) and hdus[names["FLUX"]].is_image:
            yield from _rows_of_images(path, hdus, names)
            return
        shared: dict[str, Any] = {}
        if "SPECOBJ" in names:
            table = hdus[names["SPECOBJ"]].data
            shared["redshift"] = float(table["Z"][0])
            if "VDISP" in table.names and float(table["VDISP"][0]) > 0:
                shared["sigma"] = float(table["VDISP"][0])
        for k, hdu in enumerate(hdus):
            if not isinstance(hdu, fits.BinTableHDU) or hdu.data is None:
                continue
            if "COADD" in names and k != names["COADD"]:  # SDSS: single exposures follow the sum
                continue
            columns = {c.name: c for c in hdu.columns}
            lower = {n.lower(): n for n in columns}
            has_wave = _found(lower, "wave") or _found(lower, "loglam")
            if not has_wave or _found(lower, "flux") is None:
                continue
            where = (
                f"'{path.name}', HDU {k} ({hdu.name})" if hdu.name else f"'{path.name}', HDU {k}"
            )
            meta = {**shared, **dict(hdus[0].header), **dict(hdu.header)}
            if "redshift" in shared:
                meta["REDSHIFT"] = shared["redshift"]
            units = {n: c.unit for n, c in columns.items()}
            yield _build({n: hdu.data[n] for n in columns}, meta, where, units)


def _rows_of_images(path: Path, hdus: Any, names: Mapping[str, int]) -> Iterator[RawSpectrum]:
    """Yield a spectrum per row of images FLUX, IVAR, MASK, SRES on common wavelengths WAVE."""
    wave = np.asarray(hdus[names["WAVE"]].data, np.float64)
    flux = np.atleast_2d(hdus[names["FLUX"]].data)
    extra = {n: hdus[names[n]].data for n in ("IVAR", "MASK", "SRES", "Z") if n in names}
    if "IVAR" not in extra:
        msg = f"'{path.name}': needs an image IVAR beside WAVE and FLUX"
        raise ObservationError(msg)
    meta = {**dict(hdus[0].header), **dict(hdus[names["WAVE"]].header)}
    for k in range(len(flux)):
        columns = {"WAVE": wave if wave.ndim == 1 else wave[k], "FLUX": flux[k]}
        columns |= {n: np.atleast_2d(v)[k] for n, v in extra.items() if n != "Z"}
        row = {**meta, "ID": f"{path.name.split('.')[0]}-{k}"}
        if "Z" in extra:
            row["REDSHIFT"] = float(np.asarray(extra["Z"]).reshape(-1)[k])
        unit = str(meta.get("BUNIT", "")) or None
        yield _build(columns, row, f"'{path.name}', row {k}", {"WAVE": unit})


def _read_npz(path: Path) -> RawSpectrum:
    with np.load(path, allow_pickle=False) as f:
        arrays = {n: f[n] for n in f.files}
    columns = {n: v for n, v in arrays.items() if v.ndim == 1 and v.size > 1}
    meta = {n: v.reshape(-1)[0] for n, v in arrays.items() if v.size == 1}
    return _build(columns, meta, f"'{path.name}'", {})


def _read_table(path: Path) -> RawSpectrum:
    from astropy.table import Table

    table = Table.read(path)
    columns = {n: np.ma.filled(np.ma.asarray(table[n]), np.nan) for n in table.colnames}
    units = {n: None if table[n].unit is None else str(table[n].unit) for n in table.colnames}
    return _build(columns, table.meta, f"'{path.name}'", units)
