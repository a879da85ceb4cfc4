"""Galaxy spectra as files have them, one module per family of formats.

========================= =========================================================================
:mod:`~.fits_tables`      FITS binary tables: a galaxy per table (SDSS, MaNGA extracts) or per row
:mod:`~.fits_images`      FITS images: one spectrum, a galaxy per row, or per spaxel of a cube
:mod:`~.tables`           text with or without header, CSV, ECSV, parquet, VOTable
:mod:`~.arrays`           npz, HDF5
:mod:`~.names`            names of columns and facts
:mod:`~.headers`          wavelengths from cards: linear, logarithmic, IRAF's multispec
:mod:`~.surveys`          air or vacuum and the meaning of masks, where files do not state them
========================= =========================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sbi_core import ObservationError, checked_file
from sbi_sfh.formats import arrays, fits_images, fits_tables, tables
from sbi_sfh.formats.spectrum import Spectrum, UnusableSpectrumError

if TYPE_CHECKING:
    from astropy.io.fits import Header

__all__ = ["frame_of", "read_file", "read_raw"]

_SUFFIXES: dict[str, Callable[[Path], Iterator[Spectrum]]] = {
    ".npz": arrays.read,
    **dict.fromkeys((".h5", ".hdf5"), arrays.read_hdf5),
    **dict.fromkeys(tables.SUFFIXES, tables.read),
    **dict.fromkeys(tables.TEXTS, tables.read_words),
}
_LISTED = 10  # columns of a table in a message
_FITS = (".fits", ".fit", ".fts")
_COMPRESSED = (".gz", ".bz2", ".xz", ".fz")


def read_raw(path: str | Path) -> Iterator[Spectrum]:
    """Yield the spectra of a file or folder; of a folder also the errors of single files.

    Raises
    ------
    ObservationError
        If the file or folder does not exist, or the file cannot be read.
    """
    path = Path(path)
    if not path.is_dir():
        yield from _not_empty(path)
        return
    for file in sorted(path.iterdir()):
        if not file.is_file() or file.name.startswith(".") or _reader(file) is None:
            continue
        try:
            yield from _not_empty(file)
        except ObservationError as error:
            yield UnusableSpectrumError("unreadable", str(error), file.stem)


def _not_empty(path: Path) -> Iterator[Spectrum]:
    """Yield the spectra of a file; raise for a FITS file without one."""
    empty = True
    for spectrum in read_file(path):
        empty = False
        yield spectrum
    if empty and _reader(path) is _read_fits:
        raise ObservationError(_without_spectrum(path))


def _without_spectrum(path: Path) -> str:
    """Return what a FITS file without a spectrum holds, and what was expected."""
    from astropy.io import fits

    with fits.open(checked_file(path)) as hdus:
        there = [_described(k, h) for k, h in enumerate(hdus) if h.data is not None]
    return (
        f"'{path}' holds no spectrum: expected a table with columns WAVE (or LOGLAM), FLUX, IVAR "
        "(or ERR), other names by --column wave=NAME; or images FLUX (or DATA, SCI) and IVAR (or "
        f"ERR, STAT) with an image WAVE or cards CRVAL1, CDELT1; its extensions are "
        f"{', '.join(there) or 'empty'}"
    )


def _described(k: int, hdu: Any) -> str:
    """Return the name of an extension, and the first columns of a table."""
    name = hdu.name or f"HDU {k}"
    columns = [] if hdu.is_image else [str(n) for n in hdu.columns.names]
    more = ", ..." if len(columns) > _LISTED else ""
    return f"{name} ({', '.join(columns[:_LISTED])}{more})" if columns else name


def read_file(path: Path) -> Iterator[Spectrum]:
    """Yield the spectra of one file as they are.

    Raises
    ------
    ObservationError
        If the file cannot be read, or lacks flux, wavelengths or errors.
    """
    with _readable(path):
        reader = _reader(path)
        if reader is None:
            known = ", ".join([*_FITS, *_SUFFIXES])
            msg = f"'{path}' cannot be read as a spectrum: unknown suffix (known: {known})"
            raise ObservationError(msg)
        yield from reader(path)


def frame_of(path: Path) -> tuple[tuple[int, int], Header]:
    """Return rows and columns of a cube, and the cards of its sky coordinates.

    Raises
    ------
    ObservationError
        If the file cannot be read as FITS, or holds no cube.
    """
    with _readable(path):
        if _reader(path) is not _read_fits:
            msg = f"'{path}' holds no cube of spectra, which is a FITS file ({', '.join(_FITS)})"
            raise ObservationError(msg)
        return fits_images.frame_of(path)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn what readers raise on missing and broken files into one sentence."""
    if not path.is_file():
        what = "is a folder, expected a file" if path.is_dir() else "do not exist"
        msg = f"observations '{path}' {what}"
        raise ObservationError(msg)
    try:
        yield
    except ObservationError:
        raise
    except Exception as error:  # readers raise many kinds of errors on broken files
        first = str(error).strip().split("\n")[0]
        msg = f"'{path}' cannot be read as a spectrum: {first}"
        raise ObservationError(msg) from None


def _reader(path: Path) -> Callable[[Path], Iterator[Spectrum]] | None:
    inner = Path(path.stem) if path.suffix.lower() in _COMPRESSED else path
    suffix = inner.suffix.lower()
    if suffix in _FITS:
        return _read_fits
    if inner != path and suffix not in tables.SUFFIXES:
        return None
    return _SUFFIXES.get(suffix)


def _read_fits(path: Path) -> Iterator[Spectrum]:
    """Yield the spectra of the tables of a file, or of its images where they hold none."""
    spectra = list(fits_tables.read(path))
    yield from spectra or fits_images.read(path)
