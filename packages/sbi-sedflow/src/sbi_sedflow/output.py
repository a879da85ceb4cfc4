"""Files of a catalogue: summary as ECSV or FITS, draws as chunked netCDF4, written in pieces."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sbi_core import ConfigError
from sbi_sedflow.flags import MEANING
from sbi_sedflow.luptitudes import SOFTENING

if TYPE_CHECKING:
    from astropy.table import Table

    from sbi_sedflow.catalogue import Chunk

__all__ = ["SampleFile", "write_summary"]

_SUFFIXES = {".ecsv": "ascii.ecsv", ".fits": "fits", ".csv": "ascii.csv"}


def write_summary(table: Table, path: str | Path) -> Path:
    """Write the summary; the suffix (.ecsv, .fits, .csv) decides the format.

    Raises
    ------
    ConfigError
        If the suffix is unknown or the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in _SUFFIXES:
        msg = f"cannot write '{path}': unknown format, use {', '.join(_SUFFIXES)}"
        raise ConfigError(msg)
    out = table.copy()
    legend = {str(f.name): f"{int(f)}: {text}" for f, text in MEANING.items()}
    if path.suffix == ".fits":
        notes = out.meta.pop("notes", [])
        out.meta["comments"] = [*map(str, notes), *(f"{k} = {v}" for k, v in legend.items())]
        for key in ("source", "run", "prior"):  # long strings break FITS cards
            out.meta[key] = str(out.meta.get(key, ""))[-60:]
    else:
        out.meta["flags"] = legend
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        out.write(temporary, format=_SUFFIXES[path.suffix], overwrite=True)
        os.replace(temporary, path)
    except OSError as error:
        msg = f"cannot write '{path}': {error.strerror or error}"
        raise ConfigError(msg) from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


class SampleFile:
    """Draws of a catalogue as netCDF4: dims (object, draw), one float32 variable per quantity.

    Parameters
    ----------
    path
        File to write; appears under that name when it is complete.
    draws
        Draws kept per galaxy: evenly spaced among those of a chunk.
    units
        Unit of every quantity.

    Examples
    --------
    >>> with SampleFile("draws.nc", 200, units) as f:  # doctest: +SKIP
    ...     f.append(chunk)
    """

    def __init__(self, path: str | Path, draws: int, units: dict[str, str]) -> None:
        self.path, self.draws, self.units = Path(path), draws, units
        self._temporary = self.path.with_name(f".{os.getpid()}-{self.path.name}")
        self._file: Any = None
        self._rows = 0

    def __enter__(self) -> Self:
        import h5netcdf

        try:
            self._file = h5netcdf.File(self._temporary, "w")
        except OSError as error:
            msg = f"cannot write '{self.path}': {error.strerror or error}"
            raise ConfigError(msg) from None
        self._file.dimensions = {"object": None, "draw": self.draws}
        self._file.attrs["title"] = "posterior draws of sedflow"
        self._file.attrs["softening_nmgy"] = np.asarray(SOFTENING)
        return self

    def append(self, chunk: Chunk) -> None:
        """Append the galaxies of a chunk.

        Raises
        ------
        ConfigError
            If the chunk has fewer draws than the file keeps.
        """
        s, n, _ = chunk.values.shape
        if s < self.draws:
            msg = f"{s} draws per galaxy are fewer than the {self.draws} that '{self.path}' keeps"
            raise ConfigError(msg)
        chosen = np.linspace(0, s - 1, self.draws).astype(int)
        first, last = self._rows, self._rows + n
        self._file.resize_dimension("object", last)
        for k, name in enumerate(chunk.names):
            if name not in self._file.variables:
                variable = self._file.create_variable(
                    name, ("object", "draw"), "f4", chunks=(256, self.draws)
                )
                variable.attrs["units"] = self.units.get(name, "") or "1"
            self._file.variables[name][first:last] = chunk.values[chosen, :, k].T
        for name, values in (("flags", chunk.flags), ("chi2_min", chunk.chi2_min)):
            if name not in self._file.variables:
                kind = "i8" if name == "flags" else "f4"
                self._file.create_variable(name, ("object",), kind, chunks=(4096,))
            self._file.variables[name][first:last] = values
        if "id" not in self._file.variables:
            import h5py

            self._file.create_variable("id", ("object",), h5py.string_dtype(), chunks=(4096,))
        self._file.variables["id"][first:last] = chunk.id.astype(object)
        self._rows = last

    def __exit__(self, kind: Any, *rest: object) -> None:
        self._file.close()
        if kind is None:
            os.replace(self._temporary, self.path)
        else:
            self._temporary.unlink(missing_ok=True)
