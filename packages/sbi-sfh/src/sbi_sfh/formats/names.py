"""Names under which files keep the columns and facts of spectra.

Names are compared in lower case, with ``_`` for blanks and hyphens, and without a unit in brackets.
Names of wavelengths are made of a word and of what qualifies it: ``wave_vac``, ``LAMBDA_REST``,
``Wavelength (nm)``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from sbi_core import ObservationError, chosen_columns

__all__ = ["Medium", "column", "fact", "medium_of", "plain", "unit_in"]

Medium = tuple[str, bool]  # who states it, and True for vacuum
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "loglam": (
        "loglam", "log_lam", "logwave", "log_wave", "loglambda", "log_lambda", "log_wavelength",
        "log10lam", "log10_lam", "log10_wave", "lnlam", "ln_lam", "lnwave", "ln_wave",
        "ln_lam_gal",
    ),
    "flux": (
        "flux", "fluxes", "flux_reduced", "spec", "f_lambda", "flambda", "flam", "flux_lambda",
        "flux_density", "galaxy", "opt_flam", "spectrum", "spectra", "intensity", "f_nu", "fnu",
        "flux_nu", "data", "f_lam", "flx", "f",
    ),
    "ivar": (
        "ivar", "inverse_variance", "invvar", "flux_ivar", "ivar_flux", "flux_invvar",
        "opt_flam_ivar",
    ),
    "err": (
        "err", "error", "errors", "errs", "flux_err", "flux_error", "fluxerr", "fluxerror",
        "err_flux", "error_flux", "err_reduced", "sigma_flux", "flux_sigma", "uncertainty",
        "uncertainties", "uncert", "unc", "flux_unc", "e_flux", "eflux", "espec", "e_spec",
        "noise", "std", "stddev", "flux_std", "dflux", "e_f_lambda", "opt_flam_sig", "rms",
        "sig", "sigma",
    ),
    "var": ("var", "variance", "stat", "flux_var", "var_flux", "flux_variance"),
    "mask": (
        "mask", "and_mask", "andmask", "opt_mask", "bad", "badpix", "bad_pixel", "badpixel", "qual",
        "quality", "dq", "flag", "flags",
    ),
    "good": ("good", "goodpix", "good_pixel", "goodpixels", "good_pixels", "gpm", "valid"),
    "sres": ("sres", "specres", "resolution", "resolving_power", "r"),
    "fwhm": ("fwhm", "lsf_fwhm", "fwhm_lsf", "fwhm_res", "res_fwhm"),
    "snr": ("snr", "s_n", "s/n", "signal_to_noise"),
    "wdisp": ("wdisp", "wavedisp"),
    "wresl": ("wresl",),
}  # fmt: skip
FACTS: Mapping[str, tuple[str, ...]] = {
    "redshift": ("redshift", "z", "z_spec", "zspec", "spec_z", "specz", "z_best", "zbest",
                 "z_helio", "zhelio", "z_obs", "zobs", "zsource", "z_gal", "zgal", "z_sys", "zsys",
                 "redshifts"),
    "cosmic": ("cosmic_redshift", "redshift_cosmic", "z_cosmic", "zcosmic", "z_cosmo", "zcosmo",
               "nsa_zdist", "zdist", "z_tonry", "z_cmb", "zcmb"),
    "velocity": ("med_vel", "cz", "cz_helio", "czhelio", "vsys", "v_sys"),
    "radial": ("vrad", "v_rad", "radvel", "rad_vel", "radial_velocity", "vhelio", "v_helio",
               "helio_vel", "velocity", "vel", "rv"),
    "vacuum": ("vacuum", "invacuum", "airorvac", "air_or_vacuum", "air/vacuum", "vacuum/air"),
    "air": ("air", "inair", "medium", "wave_medium", "wavetype", "wave_type"),
    "sigma": ("sigma", "vdisp", "v_disp", "sigma_kms", "vel_dis", "veldisp", "sigma_star"),
    "sigma_err": ("vdisp_err", "vel_dise", "vdisperr"),
    "unit": ("waveunit", "wave_unit", "wunit"),
    "flux_unit": ("flux_unit", "fluxunit", "bunit"),
    "id": ("id", "plateifu", "targetid", "galaxy_id", "gal_id", "galid", "objid", "obj_id",
           "object_id", "specobjid", "specid", "cname", "srcname", "ids", "names",
           "source_id", "nsaid", "mangaid", "cataid", "catid", "object", "name"),
    "frame": ("frame", "wave_frame", "waveframe", "wavelength_frame", "rest_frame", "restframe",
              "rest", "at_rest", "deredshifted", "specsys"),
    "zwarning": ("zwarning", "zwarn", "z_warnin"),
    "class": ("class", "spectype", "objtype"),
}  # fmt: skip
_AFTER_FLUX = {
    "err": ("err", "error", "e", "sigma", "unc", "uncertainty", "std"),
    "ivar": ("ivar",),
    "var": ("var", "variance"),
}
_WAVES = ("wave", "wavelength", "wavelengths", "waves", "lambda", "lam", "wl", "wvl", "wlen")
_AIR, _VACUUM = ("air",), ("vac", "vacuum")
_REST = ("rest", "restframe", "rf")
_UNITS = ("ang", "angstrom", "angstroms", "aa", "a", "nm", "um", "micron", "microns")
_OTHER = ("obs", "observed", "frame", "opt", "gal", "grid")
_EMPTY = ("", "-", "--", "none", "null", "n/a", "unknown")
_BRACKETS = re.compile(r"(.+?)\s*[\[(]\s*(.*?)\s*[\])]\s*")


def plain(name: Any) -> str:
    """Return a name in the form used for comparison."""
    word = str(name).strip().lstrip("#\ufeff").strip()
    if match := _BRACKETS.fullmatch(word):
        word = match[1]
    return re.sub(r"[\s\-]+", "_", word.strip().lower())


def unit_in_brackets(name: Any) -> str | None:
    """Return the unit that a name has in brackets; None without."""
    match = _BRACKETS.fullmatch(str(name).strip())
    return (match[2] or None) if match else None


def unit_in(name: Any) -> str | None:
    """Return the unit that a name has in brackets or as its last word; None without."""
    if unit := unit_in_brackets(name):
        return unit
    words = plain(name).split("_")
    return words[-1] if len(words) > 1 and words[-1] in _UNITS else None


def _wave_words(name: Any) -> list[str]:
    """Return the words of a name of wavelengths; none if it is another name."""
    word = plain(name)
    if word in ("spectral_axis", "spectral"):
        return [word]
    if word in ("restwave", "restwavelength"):
        return ["wave", "rest"]
    words = word.split("_")
    known = {*_WAVES, *_AIR, *_VACUUM, *_REST, *_UNITS, *_OTHER}
    return words if set(words) <= known and set(words) & set(_WAVES) else []


def medium_of(name: Any) -> bool | None:
    """Return True for a name of wavelengths in vacuum, False in air, None if it has no word."""
    words = set(_wave_words(name))
    return True if words & set(_VACUUM) else False if words & set(_AIR) else None


def at_rest(name: Any) -> bool:
    """Return whether a name is one of wavelengths at rest."""
    return bool(set(_wave_words(name)) & set(_REST))


def column(names: Iterable[Any], kind: str) -> Any:
    """Return the name among ``names`` that holds a kind of column; None without.

    The option ``--column`` goes first: ``--column wave=LAMBDA``.
    """
    names = list(names)
    chosen = {plain(k): v for k, v in chosen_columns().items()}
    if (name := chosen.get(kind)) is not None:
        return name if name in names else None
    taken = set(chosen.values())
    by_plain = {plain(n): n for n in reversed(names) if n not in taken}
    if kind == "wave":
        waves = [n for n in names if n not in taken and _wave_words(n)]
        return min(waves, key=lambda n: (at_rest(n), len(_wave_words(n))), default=None)
    known = [*COLUMNS[kind], *_of_flux(by_plain, kind)]
    return next((by_plain[a] for a in known if a in by_plain), None)


def _of_flux(names: Iterable[str], kind: str) -> list[str]:
    """Return the names that an error or variance has after the name of the flux: ``e_flam``."""
    known = set(names)
    flux = next((a for a in COLUMNS["flux"] if a in known), None)
    if flux is None or kind not in _AFTER_FLUX:
        return []
    return [p for word in _AFTER_FLUX[kind] for p in (f"{flux}_{word}", f"{word}_{flux}")]


def fact(facts: Mapping[str, Any], kind: str) -> Any:
    """Return a fact; None without, or where the cell is empty."""
    return next(iter(facts_named(facts, kind).values()), None)


def facts_named(facts: Mapping[str, Any], kind: str) -> dict[Any, Any]:
    """Return all facts of a kind by the names that they have in the file, the best name first.

    Cells that are empty do not count, except that of a column chosen by ``--column``, which is the
    only one then.
    """
    chosen = next((v for k, v in chosen_columns().items() if plain(k) == kind), None)
    if chosen is not None and chosen in facts:
        return {chosen: facts[chosen]}
    names = {plain(k): k for k in facts}
    known = (names[a] for a in FACTS[kind] if a in names)
    return {name: facts[name] for name in known if _given(facts[name])}


def _given(value: Any) -> bool:
    if value is None or np.ma.is_masked(value):
        return False
    return str(value).strip().lower() not in _EMPTY


def check_chosen(names: Iterable[Any], where: str) -> None:
    """Raise for a column of the option ``--column`` that is not among the names.

    Raises
    ------
    ObservationError
        Naming the column and what there is; or the kind, if it is none of a spectrum.
    """
    there = [str(n) for n in names]
    for kind, name in chosen_columns().items():
        if plain(kind) not in ("wave", *COLUMNS, *FACTS):
            known = ", ".join(["wave", *COLUMNS, "redshift", "id", "sigma"])
            msg = f"--column {kind}={name}: '{kind}' is not a column of a spectrum ({known})"
            raise ObservationError(msg)
        if name not in there:
            msg = f"{where}: no column '{name}' (there are {', '.join(there[:30])})"
            raise ObservationError(msg)
