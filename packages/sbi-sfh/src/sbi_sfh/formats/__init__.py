"""Galaxy spectra as files have them, one module per family of formats.

========================= =========================================================================
:mod:`~.fits_tables`      FITS binary tables: a galaxy per table (SDSS, MaNGA extracts) or per row
:mod:`~.fits_images`      FITS images: a galaxy per row, wavelengths as an image or in the header
:mod:`~.tables`           text with or without header, CSV, ECSV, HDF5, parquet, VOTable
:mod:`~.arrays`           npz
========================= =========================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from sbi_core import ObservationError
from sbi_sfh.formats import arrays, fits_images, fits_tables, tables
from sbi_sfh.formats.spectrum import Spectrum, UnusableSpectrumError

__all__ = ["read_file", "read_raw"]

_SUFFIXES: dict[str, Callable[[Path], Iterator[Spectrum]]] = {
    ".npz": arrays.read,
    **dict.fromkeys(tables.SUFFIXES, tables.read),
}
_FITS = (".fits", ".fits.gz", ".fit")


def read_raw(path: str | Path) -> Iterator[Spectrum]:
    """Yield the spectra of a file or folder; of a folder also the errors of single files.

    Raises
    ------
    ObservationError
        If the file or folder does not exist, or the file cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        yield from read_file(path)
        return
    for file in sorted(path.iterdir()):
        if not file.is_file() or file.name.startswith(".") or _reader(file) is None:
            continue
        try:
            yield from read_file(file)
        except ObservationError as error:
            yield UnusableSpectrumError("unreadable", str(error), file.stem)


def read_file(path: Path) -> Iterator[Spectrum]:
    """Yield the spectra of one file as they are.

    Raises
    ------
    ObservationError
        If the file cannot be read, or lacks flux, wavelengths or errors.
    """
    if not path.is_file():
        msg = f"observations '{path}' do not exist"
        raise ObservationError(msg)
    reader = _reader(path)
    if reader is None:
        known = ", ".join([*_FITS, *_SUFFIXES])
        msg = f"'{path}' cannot be read as a spectrum: unknown suffix (known: {known})"
        raise ObservationError(msg)
    try:
        yield from reader(path)
    except ObservationError:
        raise
    except Exception as error:  # readers raise many kinds of errors on broken files
        first = str(error).strip().split("\n")[0]
        msg = f"'{path}' cannot be read as a spectrum: {first}"
        raise ObservationError(msg) from None


def _reader(path: Path) -> Callable[[Path], Iterator[Spectrum]] | None:
    if path.name.lower().endswith(_FITS):
        return _read_fits
    return _SUFFIXES.get(path.suffix.lower())


def _read_fits(path: Path) -> Iterator[Spectrum]:
    """Yield the spectra of the tables of a file, or of its images where they hold none."""
    spectra = list(fits_tables.read(path))
    yield from spectra or fits_images.read(path)
