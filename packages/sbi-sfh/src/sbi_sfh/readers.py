"""Galaxy spectra from files and tables, brought to the pixels of the model.

File formats are read by :mod:`sbi_sfh.formats`, and spectra prepared by :mod:`sbi_sfh.prepare`. A
spectrum that cannot be used becomes an excluded row with its reason; the others are read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sbi_core import Batch, Excluded, ObservationError, Observations, counted
from sbi_sfh.catalogue import Catalogue
from sbi_sfh.config import SfhConfig
from sbi_sfh.constants import C_KMS
from sbi_sfh.continuum import CALZETTI_R_V, Continuum
from sbi_sfh.formats import read_raw
from sbi_sfh.formats.spectrum import RawSpectrum, Spectrum, UnusableSpectrumError
from sbi_sfh.noise import CONTEXT
from sbi_sfh.prepare import Prepared, prepare
from sbi_sfh.velocity import Velocities

__all__ = ["FLAG_MEANINGS", "observations_of_spectra", "only_complete", "read_spectra"]

F64 = NDArray[np.float64]
_MOCK = (
    "mode 'mock' has neither velocity dispersion nor flux calibration: real spectra need "
    "simulator.mode = 'observed' (preset large, or --set simulator.mode=observed)"
)
_FAR = 80.0  # km/s: vacuum read as air is 83; exceeded by 1 % of the simulations
_SIMILAR = 0.5  # correlation with the library below which a velocity is not known
FLAG_MEANINGS: Mapping[str, str] = {
    "velocity_offset": "the absorption lines are shifted against the library: check the redshift, "
    "and whether the wavelengths are in air or vacuum",
    "redshift_unlike_model": "the Universe is older at the redshift of the galaxy than in the "
    "model, which has no stars as old: train with simulator.redshift",
    "errors_unlike_scatter": "the flux errors do not agree with the scatter of neighbouring "
    "pixels: check their unit",
    "redshift_assumed": "the file has no redshift, or marks its measurement as failed: that of the "
    "options is used (simulator.redshift or simulator.default_redshift)",
    "redshift_uncertain": "the survey doubts the redshift (ZWARNING), or the file states two: "
    "check it",
    "not_a_galaxy": "the survey classifies the object as a star or a quasar, or it is the sky",
    "many_masked_pixels": "more than 40 % of the pixels are masked or missing, many more than in "
    "the training: take the result with care",
    "flux_not_calibrated": "the unit of the flux is not one of flux per wavelength or frequency: "
    "the shape of the spectrum may be that of the instrument",
    "emission_lines": "emission lines reach beyond the masked 400 km/s, or are not masked at all "
    "(mode mock): subtract or mask them in the file",
    "continuum_unlike_model": "the continuum is reddened by more dust than the model has, or its "
    "flux calibration is off: correct the spectrum, or train with simulator.dust",
    "sigma_outside_training": "the velocity dispersion is outside the training range: inferred as "
    "if it were not known",
}

_NUMBER = re.compile(r"[-+]?\d[\d.e]*( \w+?)?s?\b")  # with its noun, in the singular


def read_spectra(
    path: str | Path,
    wave: F64,
    config: SfhConfig,
    *,
    fwhm: float,
    velocities: Velocities | None = None,
    continuum: Continuum | None = None,
) -> Observations:
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
    velocities
        Measures the velocity of each spectrum; default: no such check.
    continuum
        Looks for dust; default: no such check.

    Raises
    ------
    ObservationError
        If a file cannot be read or no spectrum can be used.
    """
    return observations_of_spectra(
        read_raw(path), str(path), wave, config,
        fwhm=fwhm, velocities=velocities, continuum=continuum,
    )  # fmt: skip


def observations_of_spectra(
    spectra: Iterable[Spectrum],
    source: str,
    wave: F64,
    config: SfhConfig,
    *,
    fwhm: float,
    velocities: Velocities | None = None,
    continuum: Continuum | None = None,
) -> Observations:
    """Return spectra on the pixels of the model (see :func:`read_spectra`)."""
    names: list[str] = []
    made: list[Prepared] = []
    rows: list[int] = []
    left: list[tuple[int, UnusableSpectrumError]] = []
    notes: list[tuple[int, str]] = []
    known = Catalogue.read(config.catalogue) if config.catalogue else None
    for k, r in enumerate(spectra):
        names.append(r.id or f"row {k}")
        try:
            if isinstance(r, UnusableSpectrumError):
                raise r
            spectrum = r if known is None else known.completed(r)
            made.append(_checked(spectrum, wave, config, fwhm, velocities, continuum))
            rows.append(k)
            notes += [(k, note) for note in made[-1].notes]
        except UnusableSpectrumError as error:
            left.append((k, error))
    if not names:
        msg = (
            f"'{source}' holds no spectrum: expected columns WAVE (or LOGLAM), FLUX, IVAR (or "
            "ERR); other names: --column wave=NAME"
        )
        raise ObservationError(msg)
    if not made:
        raise _nothing(left)
    ids = _unique(names)
    mask = np.array([m.mask for m in made])
    context = None
    if config.mode == "observed":
        context = np.array([[np.log10(m.snr), m.sigma / 100.0] for m in made], np.float32)
    batch = Batch.of_arrays(
        x=np.array([m.flux for m in made], np.float32),
        x_err=np.array([m.err for m in made], np.float32),
        mask=None if mask.all() and config.mode == "mock" else mask,
        context=context,
    )
    return Observations.from_batch(
        batch,
        id=[ids[k] for k in rows],
        context_names=CONTEXT if context is not None else (),
        source=source,
        notes=(
            *([_MOCK] if config.mode == "mock" else ()),
            *_grouped([(ids[k], note) for k, note in notes]),
            *_reasons(left),
        ),
        excluded=tuple(Excluded(k, ids[k], error.reason) for k, error in left),
        rows=np.array(rows),
        labels={
            "reading": np.array([",".join(m.flags) for m in made], np.str_),
            **{n: np.array([m.labels.get(n, np.nan) for m in made]) for n in _columns(made)},
        },
    )


def only_complete(observations: Observations) -> Observations:
    """Return the spectra without masked pixels: mode ``mock`` is trained on complete spectra.

    Raises
    ------
    UnusableSpectrumError
        If all have masked pixels.
    """
    mask = observations.batch.observed.numpy()
    complete = mask.all(1)
    if complete.all():
        return observations
    advice = "mode 'mock' is trained on complete spectra: train with --set simulator.mode=observed"
    if not complete.any():
        msg = f"{observations.source}: {int((~mask[0]).sum())} pixels are masked; {advice}"
        raise UnusableSpectrumError("masked_pixels", msg)
    assert observations.rows is not None
    lost = [
        Excluded(int(observations.rows[k]), str(observations.id[k]), "masked_pixels")
        for k in np.flatnonzero(~complete)
    ]
    excluded = sorted((*observations.excluded, *lost), key=lambda e: e.row)
    notes = (
        *observations.notes,
        f"{counted(len(lost), 'spectrum', 'spectra')} with masked pixels; {advice}",
    )
    rows = observations.rows[complete]
    return replace(observations[complete], excluded=tuple(excluded), rows=rows, notes=notes)


def _grouped(notes: list[tuple[str, str]]) -> list[str]:
    """Return one sentence for all notes that differ by their numbers only."""
    alike: dict[str, list[tuple[str, str]]] = {}
    for name, note in notes:
        key = _NUMBER.sub(r"#\1", note)
        alike.setdefault(key, []).append((name, note))
    return [
        f"{name}: {note}" if len(same) == 1 else f"{name} and {len(same) - 1} more: {note}"
        for same in alike.values()
        for name, note in same[:1]
    ]


def _alike(left: list[tuple[int, UnusableSpectrumError]]) -> list[tuple[int, str]]:
    """Return how many spectra are left out for each reason, and a sentence on them."""
    alike: dict[str, list[UnusableSpectrumError]] = {}
    for _, error in left:
        alike.setdefault(error.reason, []).append(error)
    return [
        (len(same), f"{same[0]}" if len(same) == 1 else
         f"{len(same)} spectra ({reason}), the first: {same[0]}")
        for reason, same in alike.items()
    ]  # fmt: skip


def _reasons(left: list[tuple[int, UnusableSpectrumError]]) -> list[str]:
    """Return one sentence for all spectra that are left out for the same reason."""
    return [f"not inferred: {sentence}" for _, sentence in _alike(left)]


def _nothing(left: list[tuple[int, UnusableSpectrumError]]) -> UnusableSpectrumError:
    """Return the error for a file without a spectrum that can be used: most of the reasons."""
    first = left[0][1]
    if len(left) == 1:
        return first
    several = sorted(_alike(left), reverse=True)
    sentences = "; ".join(sentence for _, sentence in several)
    msg = f"none of {len(left)} spectra can be used: {sentences}"
    return UnusableSpectrumError(first.reason, msg)


def _columns(made: list[Prepared]) -> list[str]:
    return list(dict.fromkeys(name for m in made for name in m.labels))


def _checked(
    raw: RawSpectrum,
    wave: F64,
    config: SfhConfig,
    fwhm: float,
    velocities: Velocities | None,
    continuum: Continuum | None,
) -> Prepared:
    """Return a spectrum on the pixels of the model with the flags of its velocity and continuum."""
    made = prepare(raw, wave, config, fwhm=fwhm)
    labels, flags, notes = dict(made.labels), [], []
    if velocities is not None:
        velocity, similar = velocities.offset(made.filled, made.mask)
        if config.align and similar > _SIMILAR:
            at_rest = replace(raw, wave=raw.wave / (1.0 + velocity / C_KMS))
            made = prepare(at_rest, wave, config, fwhm=fwhm)
            labels["velocity"] = velocity
            notes.append(f"shifted by {-velocity:.0f} km/s to the velocity of its lines")
        elif abs(velocity) > _FAR and similar > _SIMILAR:
            flags.append("velocity_offset")
            notes.append(_off(velocity))
    a_v = None if continuum is None else continuum.reddening(made.filled, made.mask)
    if a_v is not None and not 0 < a_v < CALZETTI_R_V * (config.dust or 0.0):
        flags.append("continuum_unlike_model")
        notes.append(_reddened(a_v))
    return replace(
        made,
        flux=made.flux.astype(np.float32),  # cubes have many
        err=made.err.astype(np.float32),
        flags=(*made.flags, *flags),
        notes=(*made.notes, *notes),
        labels=labels,
    )


def _off(velocity: float) -> str:
    cause = (
        "vacuum wavelengths read as air?" if 60 < velocity < 110 else
        "air wavelengths read as vacuum?" if -110 < velocity < -60 else "check the redshift"
    )  # fmt: skip
    return f"its absorption lines lie {velocity:+.0f} km/s from those of the library: {cause}"


def _reddened(a_v: float) -> str:
    if a_v < 0:
        return "its continuum is bluer than that of the stars that fit its lines: flux calibration?"
    return (
        f"its continuum is reddened by A_V of about {a_v:.1f} mag, more than the model has "
        "(simulator.ebv removes dust of the Galaxy; simulator.dust trains with that of galaxies)"
    )


def _unique(ids: list[str]) -> list[str]:
    counts = Counter(ids)
    return [i if counts[i] == 1 else f"{i}-{k}" for k, i in enumerate(ids)]
