"""Galaxy spectra from files, brought to the pixels of the model.

What files may be: :mod:`sbi_sfh.raw_spectra`; what is done to them: :mod:`sbi_sfh.prepare`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sbi_core import Batch, ObservationError, Observations
from sbi_sfh.config import SfhConfig
from sbi_sfh.noise import CONTEXT
from sbi_sfh.prepare import prepare
from sbi_sfh.raw_spectra import read_raw

__all__ = ["read_spectra"]

F64 = NDArray[np.float64]


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
