r"""Galaxy spectra from files, brought to the pixels of the model.

Files: FITS with a binary table per galaxy (columns WAVE or LOGLAM, FLUX, IVAR or ERR, MASK, SRES),
SDSS ``spec`` files, FITS images WAVE/FLUX/IVAR/MASK with a galaxy per row, any table that astropy
reads (one galaxy; facts in its metadata), npz with the same names, or a folder of these.

Steps: masks of the file; Galactic reddening; vacuum to air; rest frame; resolution of the library;
rebinning that conserves flux; emission lines and the 5577 sky line; division by the median.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbi_core import Batch, ObservationError, Observations
from sbi_sfh.config import SfhConfig
from sbi_sfh.constants import C_KMS, FWHM_PER_SIGMA, WAVE_PRESETS
from sbi_sfh.masks import emission_mask, sky_mask
from sbi_sfh.noise import CONTEXT
from sbi_sfh.resample import cardelli, edges_of, rebin, vacuum_to_air

__all__ = ["Prepared", "RawSpectrum", "prepare", "read_raw", "read_spectra"]

F64 = NDArray[np.float64]
_COARSEST = 350.0  # km/s
_MOST_MASKED = 0.4
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


@dataclass(frozen=True)
class Prepared:
    """One spectrum on the pixels of the model, divided by its median.

    Parameters
    ----------
    flux, err
        (L,); NaN where not used.
    mask
        True where used, (L,).
    snr
        Median signal to noise per pixel.
    sigma
        Velocity dispersion beyond the library's resolution, km/s; NaN when not known.
    notes
        What was done and counted.
    """

    flux: F64
    err: F64
    mask: NDArray[np.bool_]
    snr: float
    sigma: float
    notes: tuple[str, ...] = field(default=())


def read_spectra(path: str | Path, wave: F64, config: SfhConfig, *, fwhm: float) -> Observations:
    """Return the galaxies of a file or folder on the pixels ``wave`` [Angstrom].

    Parameters
    ----------
    path
        File or folder.
    wave
        Rest-frame air wavelengths of the model, (L,).
    config
        Options: mode, and what files may leave out (redshift, vacuum, wave_unit).
    fwhm
        Resolution of the library, Angstrom.

    Raises
    ------
    ObservationError
        If a file cannot be read or a spectrum cannot be used; the message names file, galaxy, what
        was found and what to do.
    """
    raw = list(read_raw(path))
    if not raw:
        msg = f"'{path}' holds no spectrum: expected columns WAVE (or LOGLAM), FLUX, IVAR (or ERR)"
        raise ObservationError(msg)
    made = [prepare(r, wave, config, fwhm=fwhm) for r in raw]
    notes = [f"{r.id}: {note}" for r, m in zip(raw, made, strict=True) for note in m.notes]
    if config.mode == "mock":
        notes.insert(
            0,
            "mode 'mock' knows neither velocity dispersion nor flux calibration: real spectra need "
            "simulator.mode = 'observed' (preset large, or --set simulator.mode=observed)",
        )
    mask = np.array([m.mask for m in made])
    complete = bool(mask.all()) or None
    context = None
    if config.mode == "observed":
        context = np.array([[np.log10(m.snr), m.sigma / 100.0] for m in made])
    batch = Batch.of_arrays(
        x=np.array([m.flux for m in made], np.float32),
        x_err=np.array([m.err for m in made], np.float32),
        mask=None if complete and config.mode == "mock" else mask,
        context=None if context is None else context.astype(np.float32),
    )
    return Observations.from_batch(
        batch,
        id=_unique([r.id for r in raw]),
        context_names=CONTEXT if context is not None else (),
        source=str(path),
        notes=tuple(notes),
    )


def _unique(ids: list[str]) -> list[str]:
    return [i if ids.count(i) == 1 else f"{i}-{k}" for k, i in enumerate(ids)]


# -- from raw to model pixels ------------------------------------------------------------------


def prepare(raw: RawSpectrum, wave: F64, config: SfhConfig, *, fwhm: float) -> Prepared:
    """Return one spectrum on the pixels of the model (see :func:`read_spectra`).

    Raises
    ------
    ObservationError
        If it cannot be used.
    """
    angstrom, z = _rest_facts(raw, config)
    vacuum = raw.vacuum if raw.vacuum is not None else config.vacuum
    if vacuum is None:
        msg = (
            f"{raw.where}: air or vacuum wavelengths? Say so in the file (VACUUM = T or F) or with "
            "--set simulator.vacuum=true"
        )
        raise ObservationError(msg)
    good = _good_pixels(raw)
    # the index of refraction belongs to the wavelength at which light was measured
    observed = vacuum_to_air(angstrom) if vacuum else angstrom
    rest = observed / (1.0 + z)
    _covered(raw, rest, wave)
    flux = raw.flux.copy()
    ivar = raw.ivar.copy()
    notes = []
    if config.ebv > 0:
        factor = cardelli(angstrom, config.ebv)
        flux, ivar = flux * factor, ivar / factor**2
        notes.append(f"Galactic E(B-V) = {config.ebv:g} removed (Cardelli et al. 1989)")
    good &= ~sky_mask(observed) if not raw.rest else True
    variance = np.where(ivar > 0, 1.0 / np.where(ivar > 0, ivar, 1.0), 0.0)
    flux = np.where(good, flux, 0.0)
    flux, variance, excess = _matched(raw, rest, flux, variance, good, wave, fwhm, config)
    if excess > 1.0:
        notes.append(
            f"resolution up to {excess:.0f} km/s (sigma) below the library's: part of the "
            "velocity dispersion"
        )
    new, var, mask = rebin(rest, flux, wave, variance=variance, good=good)
    lost = int((~mask).sum())
    if lost:
        notes.append(f"{lost} of {len(wave)} pixels without data (mask of the file, or sky)")
    if config.mode == "observed":
        mask &= ~emission_mask(wave)
    mask &= var > 0
    _enough(raw, mask, notes)
    median = float(np.median(new[mask]))
    if not median > 0:
        msg = f"{raw.where}: the median flux is {median:g}, expected positive"
        raise ObservationError(msg)
    err = np.sqrt(var) / median
    snr = float(np.median(new[mask] / np.sqrt(var[mask])))
    if not snr > 0:
        msg = f"{raw.where}: the median signal to noise is {snr:g}, expected positive"
        raise ObservationError(msg)
    sigma = np.nan if raw.sigma is None else float(np.hypot(raw.sigma, excess))
    return Prepared(
        flux=np.where(mask, new / median, np.nan),
        err=np.where(mask, err, np.nan),
        mask=mask,
        snr=snr,
        sigma=sigma,
        notes=tuple(notes),
    )


def _rest_facts(raw: RawSpectrum, config: SfhConfig) -> tuple[F64, float]:
    """Return wavelengths in Angstrom and the redshift to divide out."""
    from astropy import units

    unit = raw.unit or config.wave_unit
    typical = float(np.median(raw.wave))
    if unit is None:
        guess = "nm" if 300 < typical < 1100 else "micron" if typical < 3 else "Angstrom"
        msg = (
            f"{raw.where}: the unit of wavelengths is not known (median {typical:g}, looks like "
            f"{guess}); give it in the file or with --set simulator.wave_unit={guess}"
        )
        raise ObservationError(msg)
    try:
        angstrom = (raw.wave * units.Unit(unit)).to_value("Angstrom")
    except (ValueError, units.UnitConversionError):
        msg = f"{raw.where}: '{unit}' is not a unit of wavelength; use Angstrom, nm or micron"
        raise ObservationError(msg) from None
    middle = float(np.median(angstrom))
    if not 2000 < middle < 30000:
        msg = (
            f"{raw.where}: wavelengths around {middle:g} Angstrom are not optical; is their unit "
            f"really '{unit}' (nm and micron look like this)?"
        )
        raise ObservationError(msg)
    if (np.diff(angstrom) <= 0).any() or not np.isfinite(angstrom).all():
        row = int(np.flatnonzero(~(np.diff(angstrom) > 0))[0])
        msg = (
            f"{raw.where}: wavelengths must increase; row {row + 1} has {angstrom[row + 1]:g} "
            f"after {angstrom[row]:g}"
        )
        raise ObservationError(msg)
    if raw.rest:
        return angstrom, 0.0
    z = raw.redshift if raw.redshift is not None else config.redshift
    if z is None or not np.isfinite(z):
        msg = (
            f"{raw.where}: no redshift; give REDSHIFT in the file (0 for spectra at rest) or "
            "--set simulator.redshift=..."
        )
        raise ObservationError(msg)
    if not -0.01 < z < 2:
        msg = f"{raw.where}: redshift {z:g} is outside of -0.01 to 2"
        raise ObservationError(msg)
    return angstrom, float(z)


def _good_pixels(raw: RawSpectrum) -> NDArray[np.bool_]:
    good = raw.good & (raw.ivar != 0)
    negative = good & ((raw.ivar < 0) | ~np.isfinite(raw.ivar))
    if negative.any():
        row = int(np.flatnonzero(negative)[0])
        msg = (
            f"{raw.where}: the inverse variance (or error) in row {row} is {raw.ivar[row]:g}, "
            f"expected positive ({int(negative.sum())} such rows): mask them"
        )
        raise ObservationError(msg)
    bad = good & ~np.isfinite(raw.flux)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        msg = f"{raw.where}: flux in row {row} is not finite and not masked ({int(bad.sum())} rows)"
        raise ObservationError(msg)
    if not good.any():
        msg = f"{raw.where}: all {len(good)} pixels are masked or without inverse variance"
        raise ObservationError(msg)
    return good


def _covered(raw: RawSpectrum, rest: F64, wave: F64) -> None:
    edges, ours = edges_of(rest), edges_of(wave)
    step = wave[1] - wave[0]
    if edges[0] <= ours[0] + step and edges[-1] >= ours[-1] - step:
        return
    fits = [n for n, (a, b) in WAVE_PRESETS.items() if edges[0] <= a and edges[-1] >= b]
    advice = (
        f"train with --set simulator.wave_range={fits[0]}" if fits else
        f"train with --set simulator.wave_range=[{np.ceil(edges[0]):.0f},{np.floor(edges[-1]):.0f}]"
    )  # fmt: skip
    msg = (
        f"{raw.where}: covers {edges[0]:.0f}-{edges[-1]:.0f} Angstrom at rest, the model needs "
        f"{ours[0]:.0f}-{ours[-1]:.0f}; {advice}"
    )
    raise ObservationError(msg)


def _matched(
    raw: RawSpectrum,
    rest: F64,
    flux: F64,
    variance: F64,
    good: NDArray[np.bool_],
    wave: F64,
    fwhm: float,
    config: SfhConfig,
) -> tuple[F64, F64, float]:
    """Bring sharper data to the library's resolution; return the excess [km/s] of coarser data."""
    if raw.resolution is None:
        return flux, variance, 0.0
    inside = (rest >= wave[0]) & (rest <= wave[-1]) & (raw.resolution > 0)
    if not inside.any():
        return flux, variance, 0.0
    own = np.where(raw.resolution > 0, rest / np.where(raw.resolution > 0, raw.resolution, 1), fwhm)
    excess = np.sqrt(np.maximum(own**2 - fwhm**2, 0.0)) / rest * C_KMS / FWHM_PER_SIGMA
    worst = float(excess[inside].max())
    where = float(rest[inside][excess[inside].argmax()])
    if config.mode == "mock" and float((own[inside] / fwhm).max()) > 1.1:
        msg = (
            f"{raw.where}: its resolution (FWHM {own[inside].max():.2f} Angstrom at {where:.0f}) "
            f"is worse than the library's {fwhm:.2f}, which mode 'mock' assumes: use "
            "--set simulator.mode=observed"
        )
        raise ObservationError(msg)
    if worst > min(_COARSEST, config.sigma_range[1]):
        msg = (
            f"{raw.where}: resolution of {worst:.0f} km/s (sigma) at {where:.0f} Angstrom is "
            f"beyond the velocity dispersions of the model, {config.sigma_range[1]:g} km/s"
        )
        raise ObservationError(msg)
    kernel = np.sqrt(np.maximum(fwhm**2 - own**2, 0.0)) / FWHM_PER_SIGMA
    pixel = np.gradient(rest)
    if (kernel[inside] > 0.1 * pixel[inside]).any():
        flux, variance = _smooth(flux, variance, good, kernel / pixel)
    return flux, variance, worst


def _smooth(flux: F64, variance: F64, good: NDArray[np.bool_], width: F64) -> tuple[F64, F64]:
    """Convolve with a Gaussian whose width [pixels] varies; masked pixels do not count."""
    reach = max(1, int(np.ceil(4 * width.max())))
    total, error, norm = (np.zeros_like(flux) for _ in range(3))
    safe = np.maximum(width, 1e-3)
    n = len(flux)
    for k in range(-reach, reach + 1):
        weight = np.exp(-0.5 * (k / safe) ** 2)
        j = np.arange(n) + k
        there = (j >= 0) & (j < n)
        j = np.clip(j, 0, n - 1)
        weight = np.where(there & good[j], weight, 0.0)
        total += weight * flux[j]
        error += weight**2 * variance[j]
        norm += weight
    ok = norm > 0
    norm = np.where(ok, norm, 1.0)
    return np.where(ok, total / norm, flux), np.where(ok, error / norm**2, variance)


def _enough(raw: RawSpectrum, mask: NDArray[np.bool_], notes: list[str]) -> None:
    share = 1.0 - mask.mean()
    if not mask.any():
        msg = f"{raw.where}: no pixel is left after masks of the file, sky and emission lines"
        raise ObservationError(msg)
    if share > _MOST_MASKED:
        notes.append(f"{100 * share:.0f} % of the pixels are masked: take the result with care")


# -- files -------------------------------------------------------------------------------------


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
