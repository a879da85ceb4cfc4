r"""MILES SSP directories: one FITS spectrum per (age, [M/H], [alpha/Fe]), named after them.

.. code-block:: text

    Mku1.30Zm0.25T00.0300_iTp0.00_baseFe.fits
    M    range            ku  initial mass function    1.30   its slope
    Zm0.25  [M/H] = -0.25    T00.0300  age [Gyr]       iT / iP  isochrones (BaSTI / Padova)
    baseFe  scaled as the stars are   or   Ep0.40  [alpha/Fe] = 0.40

Wavelength (air): :math:`\lambda_i = \mathrm{CRVAL1} + (i + 1 - \mathrm{CRPIX1})\,\mathrm{CDELT1}`;
flux is in L_sun per Angstrom and solar mass of initial stars.

References:
    | Vazdekis et al. 2010, MNRAS 404, 1639; 2015, MNRAS 449, 1177
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sbi_core import DataFileError, checked_file, data_dirs, read_npz, written
from sbi_sfh.constants import FWHM_LIBRARY
from sbi_sfh.ssp import SspLibrary, compress

__all__ = ["LibraryError", "MilesName", "parse_name", "read_cube", "read_miles"]

F64 = NDArray[np.float64]
COMPONENTS = 64
_NAME = re.compile(
    r"^(?P<range>[ME])(?P<imf>un|bi|ku|kb|ch)(?P<slope>\d\.\d\d)Z(?P<zs>[mp])(?P<z>\d\.\d\d)"
    r"T(?P<age>\d\d\.\d{4})"
    r"(?:_i(?P<iso>[TP])(?P<is>[mp])(?P<ia>\d\.\d\d)_(?P<alpha>baseFe|E(?P<es>[mp])(?P<e>\d\.\d\d)))?"
    r"(?P<suffix>_[A-Za-z0-9.]+)?\.fits$"
)


class LibraryError(DataFileError):
    """An SSP library that is missing, incomplete or inconsistent."""


@dataclass(frozen=True, slots=True, order=True)
class MilesName:
    """Contents of a file name.

    Parameters
    ----------
    afe, mh, age_gyr
        Position in the grid; ``afe`` is 0 for ``baseFe``.
    kind
        Range, initial mass function, slope, isochrones and kind of abundances: equal in a library.
    """

    afe: float
    mh: float
    age_gyr: float
    kind: tuple[str, str, str, str, str]


def _signed(sign: str | None, value: str | None) -> float:
    number = float(value or 0.0)
    return -number if sign == "m" and number else number


def parse_name(name: str) -> MilesName | None:
    """Return the contents of a file name, or None if it is not that of a MILES spectrum."""
    match = _NAME.match(name)
    if match is None:
        return None
    g = match.groupdict()
    scaled = "none" if g["alpha"] is None else "baseFe" if g["alpha"] == "baseFe" else "E"
    return MilesName(
        afe=_signed(g["es"], g["e"]),
        mh=_signed(g["zs"], g["z"]),
        age_gyr=float(g["age"]),
        kind=(g["range"], g["imf"], g["slope"], g["iso"] or "-", scaled),
    )


def read_miles(directory: str | Path, *, components: int = COMPONENTS) -> SspLibrary:
    """Return the library in a directory, compressed to principal components.

    The cube is kept as one npz file in the cache directory, keyed by the content of the files.

    Parameters
    ----------
    directory
        Folder with FITS files of one or more [alpha/Fe] planes, sub-folders included.
    components
        Principal components that are kept.

    Raises
    ------
    LibraryError
        If the folder is not there or holds no spectrum, names cannot be read, the grid has gaps,
        libraries are mixed, wavelengths differ, or a flux is not positive. Files are named.
    """
    wave, axes, cube, meta = read_cube(directory)
    basis, coeff = compress(cube, components)
    return SspLibrary(
        wave=wave, mh=axes[1], age_gyr=axes[2], afe=axes[0], basis=basis, coeff=coeff,
        fwhm=FWHM_LIBRARY, name=Path(directory).name, meta=meta,
    )  # fmt: skip


def read_cube(directory: str | Path) -> tuple[F64, tuple[F64, F64, F64], F64, dict[str, Any]]:
    """Return wavelength (L,), axes ([alpha/Fe], [M/H], age [Gyr]), flux (P, Z, A, L) and facts.

    Raises
    ------
    LibraryError
        As :func:`read_miles`.
    """
    files = _files(Path(directory))
    names = _names(files)
    axes, order = _grid(directory, names)
    try:
        blobs = [checked_file(files[k]).read_bytes() for k in order]
    except DataFileError as error:
        msg = f"a file of '{directory}' is not a FITS spectrum: {error}"
        raise LibraryError(msg) from None
    digest = hashlib.sha256()
    for k, blob in zip(order, blobs, strict=True):
        digest.update(files[k].name.encode() + hashlib.sha256(blob).digest())
    key = digest.hexdigest()
    cached = _read_cache(key)
    if cached is None:
        wave, flux, synthetic = _spectra([files[k] for k in order], blobs)
        _write_cache(key, wave, flux, synthetic)
    else:
        wave, flux, synthetic = cached
    shape = (len(axes[0]), len(axes[1]), len(axes[2]), len(wave))
    meta = {
        "files": len(files),
        "directory sha256": key,
        "kind": list(names[0].kind),
        "synthetic": synthetic or "synthetic" in Path(directory).name.lower(),
        "citations": [
            "Vazdekis et al. 2010, MNRAS 404, 1639",
            "Vazdekis et al. 2015, MNRAS 449, 1177",
        ],
    }
    return wave, axes, flux.reshape(shape).astype(np.float64), meta


def _files(directory: Path) -> list[Path]:
    if not directory.is_dir():
        msg = f"library '{directory}' is not a directory; give a folder of MILES FITS files"
        raise LibraryError(msg)
    files = sorted(p for p in directory.rglob("*.fits") if p.is_file())
    if not files:
        msg = f"library '{directory}' holds no FITS file"
        raise LibraryError(msg)
    return files


def _listed(items: Iterable[str]) -> str:
    words = list(items)
    more = f" and {len(words) - 5} more" if len(words) > 5 else ""
    return ", ".join(words[:5]) + more


def _names(files: Sequence[Path]) -> list[MilesName]:
    parsed = [parse_name(p.name) for p in files]
    bad = [p.name for p, n in zip(files, parsed, strict=True) if n is None]
    if bad:
        msg = (
            f"files in '{files[0].parent}' without the name of a MILES spectrum: {_listed(bad)}; "
            "expected e.g. Mku1.30Zm0.25T00.0300_iTp0.00_baseFe.fits"
        )
        raise LibraryError(msg)
    names = [n for n in parsed if n is not None]
    kinds = list(dict.fromkeys(n.kind for n in names))
    if len(kinds) > 1:
        examples = [
            f"{next(p.name for p, n in zip(files, names, strict=True) if n.kind == kind)} "
            f"({sum(n.kind == kind for n in names)} files)"
            for kind in kinds
        ]
        msg = (
            f"'{files[0].parent}' mixes libraries (range, mass function, slope, isochrones, "
            f"abundances): {_listed(examples)}; keep one in the folder"
        )
        raise LibraryError(msg)
    return names


def _grid(
    directory: str | Path, names: Sequence[MilesName]
) -> tuple[tuple[F64, F64, F64], list[int]]:
    """Return the axes and the order of the files on the grid."""
    afe, mh, age = (sorted({getattr(n, k) for n in names}) for k in ("afe", "mh", "age_gyr"))
    where: dict[tuple[float, float, float], int] = {}
    for k, n in enumerate(names):
        spot = (n.afe, n.mh, n.age_gyr)
        if spot in where:
            msg = (
                f"'{directory}' holds [alpha/Fe] {n.afe:g}, [M/H] {n.mh:g}, {n.age_gyr:g} Gyr twice"
            )
            raise LibraryError(msg)
        where[spot] = k
    spots = [(a, z, t) for a in afe for z in mh for t in age]
    lost = [f"[alpha/Fe] {a:g}, [M/H] {z:g}, {t:g} Gyr" for a, z, t in spots
            if (a, z, t) not in where]  # fmt: skip
    if lost:
        msg = (
            f"library '{directory}' is incomplete: {len(names)} of {len(spots)} spectra of "
            f"{len(afe)} [alpha/Fe] x {len(mh)} [M/H] x {len(age)} ages; missing {_listed(lost)}"
        )
        raise LibraryError(msg)
    if len(mh) < 2 or len(age) < 2:
        msg = (
            f"library '{directory}' needs at least two [M/H] and two ages, has {len(mh)} and "
            f"{len(age)}"
        )
        raise LibraryError(msg)
    return (np.array(afe), np.array(mh), np.array(age)), [where[s] for s in spots]


def _spectra(
    files: Sequence[Path], blobs: Sequence[bytes]
) -> tuple[F64, NDArray[np.float32], bool]:
    """Read and check every file; wavelengths must agree."""
    first: tuple[float, float, int] | None = None
    rows, synthetic = [], False
    for path, blob in zip(files, blobs, strict=True):
        try:
            header = fits.Header.fromstring(blob[: _header_size(blob)].decode("ascii"))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                n = int(header["NAXIS1"])
                wcs = (
                    float(header["CRVAL1"]) + (1 - float(header.get("CRPIX1", 1.0))) *
                    float(header["CDELT1"]), float(header["CDELT1"]), n,
                )  # fmt: skip
                data = _pixels(header, blob, n)
        except (KeyError, ValueError, OSError, UnicodeDecodeError) as error:
            msg = f"'{path}' is not a FITS spectrum of a MILES library ({error})"
            raise LibraryError(msg) from None
        if first is None:
            first = wcs
        if wcs != first:
            msg = (
                f"'{path.name}' has wavelengths {wcs[0]:g} + {wcs[1]:g} i, {wcs[2]} pixels; "
                f"'{files[0].name}' has {first[0]:g} + {first[1]:g} i, {first[2]} pixels: files "
                "of a library must agree"
            )
            raise LibraryError(msg)
        bad = ~(np.isfinite(data) & (data > 0))
        if bad.any():
            k = int(np.flatnonzero(bad)[0])
            msg = f"'{path}': flux in pixel {k + 1} is {data[k]:g}, expected finite and positive"
            raise LibraryError(msg)
        synthetic |= bool(header.get("SYNTH", False))
        rows.append(data)
    assert first is not None
    wave: F64 = np.asarray(first[0] + first[1] * np.arange(first[2]), np.float64)
    return wave, np.stack(rows).astype(np.float32), synthetic


def _header_size(blob: bytes) -> int:
    """Bytes of the primary header: whole blocks of 2880 up to the END card."""
    for start in range(0, len(blob), 2880):
        block = blob[start : start + 2880]
        if any(block[c : c + 8] == b"END     " for c in range(0, len(block), 80)):
            return start + 2880
    msg = "no END card in the header"
    raise ValueError(msg)


def _pixels(header: Any, blob: bytes, n: int) -> NDArray[Any]:
    if header["NAXIS"] == 1 and header["BITPIX"] == -32 and "BSCALE" not in header:
        start = _header_size(blob)
        data = np.frombuffer(blob, ">f4", count=n, offset=start)
        return data.astype(np.float64)
    with fits.open(io.BytesIO(blob)) as hdus:
        return np.asarray(hdus[0].data, np.float64).reshape(n)


def _cache_path(key: str) -> Path:
    return data_dirs()[-1] / "sfh" / f"miles-{key[:32]}.npz"


def _read_cache(key: str) -> tuple[F64, NDArray[np.float32], bool] | None:
    path = _cache_path(key)
    try:
        f = read_npz(path)
        facts = json.loads(str(f["meta"]))
        if facts["key"] != key:
            return None
        return f["wave"], f["flux"], bool(facts["synthetic"])
    except (DataFileError, ValueError, KeyError):
        return None  # missing or damaged: read the files


def _write_cache(key: str, wave: F64, flux: NDArray[np.float32], synthetic: bool) -> None:  # noqa: FBT001
    path = _cache_path(key)
    meta = np.array(json.dumps({"key": key, "synthetic": synthetic}))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written(path) as temporary:
            np.savez(temporary, wave=wave, flux=flux, meta=meta)
    except OSError:
        return  # a cache that cannot be written costs time only
