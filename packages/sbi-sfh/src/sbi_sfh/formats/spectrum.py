"""One spectrum as a file has it, made of named columns and facts.

Columns and facts are found by the names that surveys and codes use (:mod:`.names`). When the flux
has two dimensions, every row is a galaxy: other columns are rows of the same shape, shared
(wavelengths) or one number per galaxy (redshift, identifier).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from astropy import units as astropy_units
from numpy.typing import NDArray

from sbi_core import ObservationError, chosen_columns, chosen_units
from sbi_sfh.constants import C_KMS, FWHM_PER_SIGMA
from sbi_sfh.formats.names import (
    COLUMNS,
    FACTS,
    Medium,
    at_rest,
    check_chosen,
    column,
    fact,
    facts_named,
    medium_of,
    plain,
    unit_in,
    unit_in_brackets,
)
from sbi_sfh.formats.surveys import Survey
from sbi_sfh.formats.units import error_in, km_per_s, unit_by_size, variance_in

__all__ = [
    "FAILED",
    "RawSpectrum",
    "Spectrum",
    "UnusableSpectrumError",
    "has_spectrum",
    "spectra_of",
]

F64 = NDArray[np.float64]
_TRUE = ("t", "true", "1", "1.0", "yes")
_FALSE = ("f", "false", "0", "0.0", "no")
_NO_NUMBER = ("", "nan", "indef", "null", "none", "n/a", "-", "--", "---", "...", "masked")
_EXPONENT = re.compile(r"(?<=[\d.])d(?=[-+]?\d+$)")  # of Fortran
_VACUUM = ("vac", "vacuum", "vacuo")
_FAILED_DISPERSION = 850.0  # km/s: where the fit of the SDSS pipeline ends, not a measurement
_MANY_OUTLIERS = 1 << 4  # bit of ZWARNING that good spectra of bright galaxies have, too
_ROW_KINDS = ("flux", *(kind for kind in COLUMNS if kind not in ("flux", "loglam")))
_NAMED_NU = ("f_nu", "fnu", "flux_nu")
_FEW = 50  # rows of a galaxy in a long table, at least
FAILED = -0.5  # smaller redshifts are marks of failed measurements
_SLOWEST = 2.0  # km/s: less is a redshift under the name of a velocity, or none
_FASTER_THAN_THE_EARTH = 300.0  # km/s
_MARKS = (-9.0, -99.0, -999.0)  # of failed measurements; -1 and -9999 are no velocities
_WITH_MORE = re.compile(r"([-+]?\d*\.?\d+(?:e[-+]?\d+)?)\s*(?:\+/-|\+-|\u00b1|\(|km\b).*", re.I)
_SAME, _HIGHEST = 0.003, 10.0  # redshifts of a file that differ less agree; more is no redshift
_COARSE, _SHARP = 50.0, 3e5  # resolving powers of spectra of galaxies
_LN = 5.5  # log10 of optical wavelengths in Angstrom are below, natural logarithms above


class UnusableSpectrumError(ObservationError):
    """A spectrum that cannot be inferred, although others of the same file may be.

    Parameters
    ----------
    reason
        Flag of the galaxy in the tables of results.
    message
        The problem, with the name of the spectrum, and the remedy.
    id
        Name of the galaxy, where it is known.
    """

    def __init__(self, reason: str, message: str, id: str = "") -> None:  # noqa: A002
        super().__init__(message)
        self.reason = reason
        self.id = id


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
        Wavelengths in ``unit``, increasing, (L,).
    flux
        Flux density in ``flux_unit``, (L,).
    ivar
        Inverse variance, (L,); 0 where there are no data; None if the file has no errors.
    good
        False where the file masks a pixel, (L,).
    unit
        Unit of the wavelengths; None if the file has none.
    flux_unit
        Unit of the flux; None if the file has none: taken as flux per wavelength.
    vacuum
        True for wavelengths in vacuum, False in air; None if the file does not state it.
    usual
        Who uses which of the two, where the file only follows a convention.
    contradiction
        What the file states about air and vacuum, if it states both.
    redshift
        Redshift of the lines; None if the file has none.
    failed
        What the file has in place of a redshift, if it marks a failed measurement.
    cosmic
        Redshift of the Hubble flow, for the age of the Universe; None: that of the lines.
    sigma
        Velocity dispersion of the galaxy, km/s; None if the file has none.
    resolution
        Resolving power lambda/FWHM, (L,); None if the file has none.
    rest
        True for wavelengths in the rest frame.
    fixed_mask
        True if the meaning of the mask is known: the option ``mask_good`` does not turn it.
    notes
        Conversions, one sentence each.
    flags
        Warnings that go into the tables of results.
    labels
        Columns of the tables of results, e.g. the position in a cube.
    """

    id: str
    where: str
    wave: F64
    flux: F64
    ivar: F64 | None
    good: NDArray[np.bool_]
    unit: str | None = None
    flux_unit: str | None = None
    vacuum: bool | None = None
    usual: Medium | None = None
    contradiction: str = ""
    redshift: float | None = None
    failed: str = ""
    cosmic: float | None = None
    sigma: float | None = None
    resolution: F64 | None = None
    rest: bool = False
    fixed_mask: bool = False
    notes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    labels: Mapping[str, float] = field(default_factory=dict)


Spectrum = RawSpectrum | UnusableSpectrumError  # of a row: the spectrum, or the reason for its lack


def has_spectrum(columns: Mapping[str, Any]) -> bool:
    """Return whether there are columns with wavelengths and flux."""
    wave = column(columns, "wave") or column(columns, "loglam")
    return wave is not None and column(columns, "flux") is not None


def spectra_of(
    columns: Mapping[str, Any],
    facts: Mapping[str, Any],
    where: str,
    units: Mapping[str, Any] | None = None,
    *,
    survey: Survey | None = None,
    rows: NDArray[np.int64] | None = None,
) -> Iterator[Spectrum]:
    """Yield the spectra of some columns; of several rows also what is wrong with single ones.

    Parameters
    ----------
    columns
        Arrays by name.
    facts
        Redshift, air or vacuum and the like, by name.
    where
        File and part, for messages and, without an identifier, names of galaxies.
    units
        Units of columns.
    survey
        Conventions of the file.
    rows
        Positions (x, y) of the rows in a cube, (n, 2).

    Raises
    ------
    ObservationError
        If there are no wavelengths or no flux.
    """
    check_chosen([*columns, *facts], where)
    flux = column(columns, "flux")
    if flux is None or not has_spectrum(columns):
        msg = (
            f"{where}: needs columns WAVE (or LOGLAM) and FLUX, has "
            f"{', '.join(map(str, columns))}; other names: --column wave=NAME"
        )
        raise ObservationError(msg)
    survey = survey or Survey()
    values = {name: np.ma.asarray(_padded(_plain(v))) for name, v in columns.items()}
    values = _transposed(values, flux)
    shape = values[flux].shape
    if len(shape) < 2:
        for name, pixels in _by_galaxy(values, shape):
            if not name:
                about = {**_constant(pixels), **facts}
                yield _one(pixels, about, where, units or {}, survey)
                continue
            about = {**facts, **{n: v[0] for n, v in pixels.items()}, "id": name}
            yield _row(pixels, about, f"{where}, {name}", units or {}, survey, {})
        return
    for k in range(shape[0]):
        row = {n: v[k] if v.shape == shape else v for n, v in values.items()}
        own = {n: v[k] for n, v in values.items() if v.ndim == 1 and len(v) == shape[0]}
        own |= {n: v[k, 0] for n, v in values.items() if v.shape == (shape[0], 1) != shape}
        rest = {n: v for n, v in row.items() if n not in own or v.shape == shape[1:]}
        about = {**facts, **own}
        labels: dict[str, float] = {}
        if rows is not None:
            labels = dict(zip("xy", map(int, rows[k]), strict=True))
            about["id"] = f"{_stem(where)}-x{labels['x']}-y{labels['y']}"
        elif shape[0] > 1 and not fact(survey.without_names(about), "id"):
            about["id"] = f"{_stem(where)}-{k}"
        part = f"{where}, row {k}" if shape[0] > 1 else where
        yield _row(rest, about, part, units or {}, survey, labels)


def _constant(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts in columns of one spectrum: those with the same value in every row."""
    spectral = {column(columns, kind) for kind in ("wave", *COLUMNS)}
    chosen = {name for kind, name in chosen_columns().items() if plain(kind) in FACTS}
    names = {name for known in FACTS.values() for name in known}
    facts: dict[str, Any] = {}
    for name, values in columns.items():
        fits = name in chosen or (name not in spectral and plain(name) in names)
        if fits and values.size > 1 and values.ndim == 1 and not np.ma.is_masked(values):
            first = values[0]
            facts |= {name: first} if bool(np.all(values == first)) else {}
    return facts


def _by_galaxy(
    values: dict[str, Any], shape: tuple[int, ...]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the galaxies of a long table, by a column of identifiers; else the only one."""
    known = {n: v for n, v in values.items() if v.shape == shape and plain(n) in FACTS["id"]}
    ids = np.array([_word(v) for v in next(iter(known.values()), ())])
    single, counts = np.unique(ids, return_counts=True)
    if len(single) < 2 or counts.min() < _FEW:
        yield "", values
        return
    for name in dict.fromkeys(ids.tolist()):
        rows = ids == name
        yield name, {n: v[rows] for n, v in values.items() if v.shape == shape}


def _transposed(values: dict[str, Any], flux: str) -> dict[str, Any]:
    """Return columns with a galaxy per row, where the file has one per column."""
    wave = column(values, "wave") or column(values, "loglam")
    shape = values[flux].shape
    if len(shape) != 2 or values[wave].shape != shape[:1] or shape[0] == shape[1]:
        return values
    return {n: v.T if v.shape == shape else v for n, v in values.items()}


def _row(
    columns: Mapping[str, Any],
    facts: Mapping[str, Any],
    where: str,
    units: Mapping[str, Any],
    survey: Survey,
    labels: Mapping[str, float],
) -> Spectrum:
    """Return the spectrum of a row, or why there is none."""
    try:
        return _one(columns, facts, where, units, survey, labels)
    except UnusableSpectrumError as error:
        error.id = str(fact(facts, "id") or "")
        return error


def _plain(values: Any) -> Any:
    """Return the numbers of a column or quantity."""
    return values.value if isinstance(values, astropy_units.Quantity) else values


def _padded(values: Any) -> Any:
    """Return arrays of different lengths, one per row, as (n, L) with NaN at the ends."""
    if np.ndim(values) != 1 or getattr(values, "dtype", np.dtype(float)).kind != "O":
        return values
    rows = [np.atleast_1d(v) for v in values]
    longest = max((len(r) for r in rows if r.ndim == 1), default=0)
    if longest < 2 or any(r.ndim != 1 or r.dtype.kind not in "biuf" for r in rows):
        return values
    filled = np.full((len(rows), longest), np.nan)
    for row, pixels in zip(filled, rows, strict=True):
        row[: len(pixels)] = pixels
    return filled


def _stem(where: str) -> str:
    name = where.split("'")[1] if "'" in where else where
    return re.sub(r"\.(gz|bz2|xz|fz)$", "", name.split("/")[-1]).rsplit(".", 1)[0]


def _number(facts: Mapping[str, Any], kind: str, where: str) -> float | None:
    value = fact(facts, kind)
    if value is None:
        return None
    try:
        return float(np.asarray(value).reshape(-1)[0])
    except ValueError:
        if match := _WITH_MORE.fullmatch(_word(value)):
            return float(match[1])
        msg = f"{where}: the {kind} is '{value}', expected a number"
        raise UnusableSpectrumError("facts_missing", msg) from None


def _word(value: Any) -> str:
    first = np.asarray(value).reshape(-1)[0]
    text = first.decode("ascii", "replace") if isinstance(first, bytes) else str(first)
    return text.strip()


def _medium(facts: Mapping[str, Any], wave: Any, where: str) -> list[Medium]:
    """Return what the facts and the name of the wavelengths state about air and vacuum."""
    stated: list[Medium] = []
    for kind, yes in (("vacuum", True), ("air", False)):
        value = fact(facts, kind)
        if value is None:
            continue
        word = _word(value).lower()
        if word in (*_TRUE, *_FALSE):
            stated.append((f"{kind.upper()} = {_word(value)}", yes == (word in _TRUE)))
        elif word in (*_VACUUM, "air"):
            stated.append((f"{kind.upper()} = {_word(value)}", word in _VACUUM))
        elif kind == "vacuum":
            msg = f"{where}: VACUUM = '{value}' is neither vacuum nor air; write T or F"
            raise UnusableSpectrumError("facts_missing", msg)
    if (named := medium_of(wave)) is not None:
        stated.append((f"column {wave}", named))
    return stated


def _numbers(values: Any, name: str, where: str) -> F64:
    """Return a column as (L,) float64; NaN where masked or empty."""
    data = np.ma.asarray(values).reshape(-1)
    if data.dtype.kind in "US":
        return _of_words(np.ma.filled(data.astype(np.str_), "").tolist(), name, where)
    try:
        return np.asarray(np.ma.filled(data.astype(np.float64), np.nan), np.float64)
    except (TypeError, ValueError):
        msg = f"{where}: column '{name}' does not hold numbers"
        raise UnusableSpectrumError("unreadable", msg) from None


def _of_words(cells: list[str], name: str, where: str) -> F64:
    """Return a column of words as numbers (L,): True and False, INDEF, Fortran's ``1.0D-17``."""
    cells = [c.strip().lower() for c in cells]
    if set(cells) <= {*_TRUE, *_FALSE, *_NO_NUMBER}:
        known = {**dict.fromkeys(_TRUE, 1.0), **dict.fromkeys(_FALSE, 0.0)}
        return np.array([known.get(c, np.nan) for c in cells])
    numbers = np.full(len(cells), np.nan)
    for k, cell in enumerate(cells):
        if cell in _NO_NUMBER:
            continue
        try:
            numbers[k] = float(_EXPONENT.sub("e", cell))
        except ValueError:
            hint = "; write decimal points" if re.fullmatch(r"[-+]?\d+,\d+.*", cell) else ""
            msg = f"{where}: column '{name}' does not hold numbers, e.g. '{cell}'{hint}"
            raise UnusableSpectrumError("unreadable", msg) from None
    return numbers


def _one(
    columns: Mapping[str, Any],
    facts: Mapping[str, Any],
    where: str,
    units: Mapping[str, Any],
    survey: Survey,
    labels: Mapping[str, float] | None = None,
) -> RawSpectrum:
    """Assemble one spectrum."""
    chosen = {kind: column(columns, kind) for kind in ("wave", *COLUMNS)}
    length = np.size(columns[chosen["flux"]])
    for kind in _ROW_KINDS:  # a number beside the spectrum is a fact: sigma, resolution
        if chosen[kind] is not None and np.size(columns[chosen[kind]]) == 1 != length:
            chosen[kind] = None
    data = {k: _numbers(columns[n], n, where) for k, n in chosen.items() if n is not None}
    notes: list[str] = []
    flux, wave, unit = data["flux"], data.get("wave"), None
    stated = _medium(facts, chosen["wave"], where)
    stated += [survey.stated] if survey.stated else []
    usual = survey.usual
    if wave is not None:
        unit = _unit("wave", chosen["wave"], units) or fact(facts, "unit")
        unit = unit or unit_in(chosen["wave"]) or survey.unit or chosen_units().get("")
    else:
        name = str(chosen["loglam"])
        natural = float(np.nanmedian(data["loglam"])) > _LN
        wave, unit = (np.exp if natural else lambda v: 10.0**v)(data["loglam"]), "Angstrom"
        if usual is None and plain(name) == "loglam" and not natural and survey.name != "GIST":
            usual = ("SDSS (loglam)", True)
    flux_unit = _unit("flux", chosen["flux"], units) or fact(facts, "flux_unit")
    if flux_unit is None and plain(chosen["flux"]) in _NAMED_NU:
        flux_unit = "Jy"
    if "err" in data:
        unit_of_error = _unit("err", chosen["err"], units)
        err = error_in(data["err"], _text(unit_of_error), flux, _text(flux_unit))
        if err is None:
            msg = f"{where}: the errors are in '{unit_of_error}', the flux in '{flux_unit}'"
            raise UnusableSpectrumError("bad_errors", msg)
        data["err"] = err
    for kind, power in (("var", 2), ("ivar", -2)):
        if kind in data:
            stated_unit = _text(_unit(kind, chosen[kind], units))
            data[kind] = variance_in(data[kind], stated_unit, _text(flux_unit), power)
    ivar = _inverse_variance(data)
    good, fixed = _good(data, chosen, survey, notes)
    resolution = _resolution(data, wave, _unit("fwhm", chosen["fwhm"], units), unit, notes)
    lengths = {len(v) for v in (wave, flux, good, *([] if ivar is None else [ivar]))}
    if len(lengths) > 1:
        msg = f"{where}: wavelength, flux and errors have different lengths {sorted(lengths)}"
        raise UnusableSpectrumError("bad_wavelengths", msg)
    there = np.isfinite(wave) & (wave > 0)  # some files are padded at their ends
    if not there.all():
        wave, flux, good = wave[there], flux[there], good[there]
        ivar = None if ivar is None else ivar[there]
        resolution = None if resolution is None else resolution[there]
    if len(wave) > 1 and (np.diff(wave) < 0).all():
        wave, flux, good = wave[::-1], flux[::-1], good[::-1]
        ivar = None if ivar is None else ivar[::-1]
        resolution = None if resolution is None else resolution[::-1]
    flags: list[str] = []
    redshift, failed = _redshift(facts, units, where, notes)
    _doubts(facts, where, notes, flags)
    if redshift is not None and (other := _other_redshift(facts, units, where, redshift)):
        notes.append(f"the file also states {other}; redshift {redshift:g} was used")
        flags.append("redshift_uncertain")
    opposite = [w for w, v in stated if v != stated[0][1]]
    return RawSpectrum(
        id=_word(fact(survey.without_names(facts), "id") or _stem(where)),
        where=where, wave=wave, flux=flux, ivar=ivar, good=good,
        unit=_text(unit),
        flux_unit=_text(flux_unit),
        vacuum=stated[0][1] if stated else None,
        usual=usual,
        contradiction=f"{stated[0][0]} and {opposite[0]}" if opposite else "",
        redshift=redshift, failed=failed, cosmic=_marked(_number(facts, "cosmic", where)),
        sigma=_sigma(facts, units, where, notes), resolution=resolution,
        rest=_at_rest(facts) or survey.rest or at_rest(chosen["wave"]),
        fixed_mask=fixed, notes=tuple(notes), flags=tuple(flags), labels=dict(labels or {}),
    )  # fmt: skip


def _unit(kind: str, name: Any, units: Mapping[str, Any]) -> Any:
    """Return the unit of a column: by ``--unit``, of the file, or in its name, ``flux [Jy]``."""
    given = chosen_units()
    stated = given.get(kind) or given.get(str(name)) or units.get(str(name))
    return stated or (unit_in_brackets(name) if name is not None else None)


def _text(unit: Any) -> str | None:
    return None if unit is None else str(unit)


def _marked(value: float | None) -> float | None:
    """Return a redshift; None where a number such as -9999 marks its lack."""
    return None if value is None or not value > FAILED else value


def _redshift(
    facts: Mapping[str, Any], units: Mapping[str, Any], where: str, notes: list[str]
) -> tuple[float | None, str]:
    """Return the redshift, or None with what the file has as the mark of a failed one."""
    z = _number(facts, "redshift", where)
    if z == 0 and _warning(facts, where) and not _at_rest(facts):
        return None, "0 with a warning,"
    if _marked(z) is not None:
        return z, ""
    for kind in ("velocity", "radial"):
        velocity = _velocity(facts, units, kind, where)
        if velocity is not None:
            notes.append(f"redshift from the velocity of {velocity:g} km/s in the file (cz)")
            return velocity / C_KMS, ""
    return None, "" if z is None else f"{z:g}"


def _other_redshift(
    facts: Mapping[str, Any], units: Mapping[str, Any], where: str, redshift: float
) -> str:
    """Return another redshift or velocity of the file that contradicts the one used."""
    for name, value in facts_named(facts, "redshift").items():
        z = _number({name: value}, "redshift", where) if plain(name) != "z" else None
        if z is not None and -0.01 <= z <= _HIGHEST and abs(z - redshift) > _SAME * (1 + redshift):
            return f"{name} = {z:g}"
    velocity = _velocity(facts, units, "velocity", where)
    if velocity is None:
        return ""
    v = velocity / C_KMS  # cz, or one of the other conventions of a velocity
    expected = (redshift, np.log1p(redshift), redshift / (1 + redshift))
    if min(abs(v - e) for e in expected) <= _SAME * (1 + redshift):
        return ""
    return f"a velocity of {velocity:g} km/s"


def _velocity(
    facts: Mapping[str, Any], units: Mapping[str, Any], kind: str, where: str
) -> float | None:
    """Return the velocity of a galaxy, km/s; None where a number is not clearly one.

    Small radial velocities may be those of the Earth.
    """
    v = _speed(facts, units, kind, where)
    least = _SLOWEST if kind == "velocity" else _FASTER_THAN_THE_EARTH
    clear = v is not None and least <= abs(v) and -3000 < v < 0.9 * C_KMS and v not in _MARKS
    return v if clear else None


def _speed(
    facts: Mapping[str, Any], units: Mapping[str, Any], kind: str, where: str
) -> float | None:
    """Return a velocity or dispersion [km/s], from the unit of its column or in its name."""
    value, name = _number(facts, kind, where), next(iter(facts_named(facts, kind)), None)
    unit = None if name is None else units.get(str(name)) or unit_in_brackets(name)
    if value is None or unit is None or value in _MARKS:
        return value
    factor = km_per_s(str(unit))
    if factor is None:
        msg = f"{where}: {name} is in '{unit}', expected a velocity in km/s"
        raise UnusableSpectrumError("facts_missing", msg)
    return factor * value


def _at_rest(facts: Mapping[str, Any]) -> bool:
    """Return whether the facts state wavelengths at rest: FRAME = rest, SPECSYS = SOURCE, ..."""
    word = _word(fact(facts, "frame") or "").lower()
    return word.startswith("rest") or word in (*_TRUE, "source", "emitted", "deredshifted")


def _sigma(
    facts: Mapping[str, Any], units: Mapping[str, Any], where: str, notes: list[str]
) -> float | None:
    """Return the velocity dispersion [km/s]; None where its fit failed."""
    sigma, error = _speed(facts, units, "sigma", where), _number(facts, "sigma_err", where)
    if sigma is None or np.isnan(sigma):
        return None
    failed = error is not None and error < 0
    if failed or not 0 < sigma < _FAILED_DISPERSION:
        notes.append(f"velocity dispersion of {sigma:g} km/s is a mark of a failed fit: not used")
        return None
    return sigma


def _doubts(facts: Mapping[str, Any], where: str, notes: list[str], flags: list[str]) -> None:
    """Add flags for what the pipeline of the survey doubts; refuse what is no object."""
    kind = _word(fact(facts, "class") or "").upper()
    if kind == "SKY":
        msg = f"{where}: a spectrum of the sky, not of a galaxy"
        raise UnusableSpectrumError("not_a_galaxy", msg)
    if kind in ("STAR", "QSO"):
        notes.append(f"the survey classifies the object as {kind}")
        flags.append("not_a_galaxy")
    if warning := _warning(facts, where):
        notes.append(f"the survey doubts its redshift (ZWARNING = {warning})")
        flags.append("redshift_uncertain")


def _warning(facts: Mapping[str, Any], where: str) -> int:
    """Return the bits of ZWARNING that matter, with the others; 0 without."""
    warning = _number(facts, "zwarning", where)
    doubted = warning is not None and warning > 0 and int(warning) & ~_MANY_OUTLIERS
    return int(warning) if doubted and warning is not None else 0


def _good(
    data: Mapping[str, F64], chosen: Mapping[str, Any], survey: Survey, notes: list[str]
) -> tuple[NDArray[np.bool_], bool]:
    """Return the pixels that masks allow, and whether the meaning of the mask is known."""
    if "good" in data:
        return np.nan_to_num(data["good"]) != 0, True
    if "mask" not in data:
        return np.ones(len(data["flux"]), bool), False
    mask = data["mask"]
    if survey.mask_true_is_good:
        return np.nan_to_num(mask) != 0, True
    if survey.pixel_bits:
        bits = np.nan_to_num(mask, nan=survey.pixel_bits).astype(np.int64)
        if len(bits) and (whole := int(np.bitwise_and.reduce(bits)) & ~survey.pixel_bits):
            notes.append(f"bits {whole} of the mask mark the whole fibre: look at the spectrum")
        return (bits & survey.pixel_bits) == 0, True
    return np.asarray(mask == 0), False  # empty cells are bad pixels


def _resolution(
    data: Mapping[str, F64], wave: F64, fwhm_unit: Any, wave_unit: Any, notes: list[str]
) -> F64 | None:
    """Return the resolving power lambda/FWHM, (L,)."""
    if "sres" in data and len(data["sres"]) == len(wave):
        return data["sres"]
    if "wdisp" in data:  # SDSS: sigma in pixels of 1e-4 in log10 lambda
        step = np.maximum(data["wdisp"], 1e-3) * 1e-4 * np.log(10.0) * FWHM_PER_SIGMA
        return np.asarray(1.0 / step)
    if "wresl" in data:  # SDSS-V: sigma in Angstrom
        sigma = np.where(data["wresl"] > 0, data["wresl"], np.inf)
        return np.asarray(wave / (sigma * FWHM_PER_SIGMA))
    if "fwhm" in data and len(data["fwhm"]) == len(wave):
        return _of_fwhm(data["fwhm"], wave, _text(fwhm_unit), _text(wave_unit), notes)
    return None


def _of_fwhm(
    fwhm: F64, wave: F64, unit: str | None, wave_unit: str | None, notes: list[str]
) -> F64 | None:
    """Return the resolving power of a column of FWHM: km/s, or by default as the wavelengths."""
    width = np.where(fwhm > 0, fwhm, np.inf)
    try:
        if unit and astropy_units.Unit(unit).is_equivalent("km/s"):
            power = C_KMS / (width * astropy_units.Unit(unit).to("km/s"))
        else:
            wave_unit = wave_unit or unit_by_size(float(np.median(wave)))
            known = bool(unit and wave_unit)
            factor = astropy_units.Unit(unit).to(wave_unit) if known else 1.0
            power = wave / (width * factor)
    except (ValueError, astropy_units.UnitConversionError):
        power = np.zeros(len(wave))
    typical = float(np.median(power))
    if not _COARSE < typical < _SHARP:
        notes.append(
            f"column of FWHM not used: a resolution of {typical:.3g} is none of a spectrum"
        )
        return None
    notes.append(f"resolution from a column of FWHM (R = {typical:.0f})")
    return np.asarray(power)


def _inverse_variance(data: Mapping[str, F64]) -> F64 | None:
    """Return inverse variances; 0 where the error is 0, negative where it is negative."""
    if "ivar" in data:
        return data["ivar"]
    with np.errstate(divide="ignore", invalid="ignore"):
        if "err" in data:
            err = data["err"]
            return np.where(err > 0, 1.0 / err**2, np.where(err == 0, 0.0, -np.abs(err)))
        if "var" in data:
            var = data["var"]
            return np.where(var == 0, 0.0, 1.0 / var)
        if "snr" in data:
            return np.where(data["snr"] > 0, (data["snr"] / data["flux"]) ** 2, 0.0)
    return None
