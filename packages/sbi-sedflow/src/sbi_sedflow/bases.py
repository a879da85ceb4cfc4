r"""Bases of star-formation and metallicity histories.

A basis is piecewise linear in lookback time between its nodes and linearly extrapolated to 0 and
13.8 Gyr; integrals over time bins are exact. Star-formation bases are positive functions
:math:`s_j(t)` [1/Gyr], metallicity bases :math:`z_k(t)` are dimensionless,

.. math:: \mathrm{SFH}(t) \propto \sum_j \beta_j s_j(t), \qquad Z(t) = \sum_k \gamma_k z_k(t).

References:
    | Hahn et al. 2023, ApJ 945, 16 (PROVABGS: bases by non-negative matrix factorisation)
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbi_core import DataFileError, read_npz, read_text
from sbi_sedflow.ssp.rebin import cumulative_at

__all__ = ["Bases", "load_bases", "parametric_bases", "provabgs_bases", "tng_bases"]

F64 = NDArray[np.float64]
_SFH = "NMF_2basis_SFH_components_nowgt_lin_Nc4.txt"
_ZH = "NMF_2basis_Z_components_nowgt_lin_Nc2.txt"
_TIME = "sfh_t_int.txt"
_TNG_SFH, _TNG_TIME = "NMF_basis.sfh.tng6comp.txt", "t_sfh.tng6comp.txt"
_ORDER = (2, 0, 1, 3)  # peaks at 1.17, 5.60, 8.37, 11.14 Gyr of lookback time


@dataclass(frozen=True)
class Bases:
    """Bases on a grid of lookback time.

    Parameters
    ----------
    time : (T,) Gyr, increasing
        Lookback time of the nodes.
    sfh : (J, T)
        Star-formation bases, not negative.
    zh : (K, T)
        Metallicity bases.
    meta
        ``name`` and provenance.

    Raises
    ------
    DataFileError
        If shapes disagree, time does not increase, or a basis is negative or not finite.
    """

    time: F64
    sfh: F64
    zh: F64
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name = self.meta.get("name", "bases")
        n = len(self.time)
        if self.sfh.ndim != 2 or self.zh.ndim != 2 or self.sfh.shape[1] != n != 0:
            msg = f"{name}: bases {self.sfh.shape}, {self.zh.shape} do not fit {n} times"
            raise DataFileError(msg)
        if self.zh.shape[1] != n or not (np.diff(self.time) > 0).all():
            msg = f"{name}: lookback times must increase, one for every column of the bases"
            raise DataFileError(msg)
        for what, values in (("star-formation", self.sfh), ("metallicity", self.zh)):
            if not np.isfinite(values).all() or (values < 0).any():
                msg = f"{name}: {what} bases must be finite and not negative"
                raise DataFileError(msg)

    @property
    def hash(self) -> str:
        """SHA-256 of the numbers."""
        digest = hashlib.sha256()
        for values in (self.time, self.sfh, self.zh):
            digest.update(np.ascontiguousarray(values, "<f8").tobytes())
        return digest.hexdigest()

    def formed(self, t: F64) -> F64:
        """Return the integral of every star-formation basis from now to lookback time t.

        Parameters
        ----------
        t : (n,) Gyr
            Lookback times from 0 to 13.8.

        Returns
        -------
        ndarray
            (J, n).
        """
        start = self.time[0]
        x = np.concatenate([[0.0], self.time]) if start > 0 else self.time
        y = self.sfh
        if start > 0:
            slope = (y[:, 1] - y[:, 0]) / (self.time[1] - start)
            y = np.concatenate([(y[:, 0] - slope * start)[:, None], y], axis=1)
        return cumulative_at(x, y, np.asarray(t, np.float64))

    def metallicity(self, t: F64) -> F64:
        """Return every metallicity basis at lookback times t (n,) Gyr, (K, n)."""
        k = np.clip(np.searchsorted(self.time, t, side="right") - 1, 0, len(self.time) - 2)
        slope = (self.zh[:, k + 1] - self.zh[:, k]) / (self.time[k + 1] - self.time[k])
        return np.asarray(self.zh[:, k] + slope * (t - self.time[k]))

    def __repr__(self) -> str:
        name = self.meta.get("name", "unnamed")
        return f"Bases({name}: {len(self.sfh)} of star formation, {len(self.zh)} of metallicity)"


def parametric_bases() -> Bases:
    """Return the bases that ship with the package (see :mod:`sbi_sedflow.nmf`)."""
    with (
        as_file(files("sbi_sedflow").joinpath("data/parametric_nmf.npz")) as path,
    ):
        f = read_npz(path)
        meta = {"name": "parametric-nmf", "seed": int(f["seed"])}
        return Bases(f["time"], f["sfh"], f["zh"], meta)


def provabgs_bases(folder: str | Path) -> Bases:
    """Read the bases of PROVABGS: four of star formation, two of metallicity.

    The files list lookback time from the past to now: all three are reversed in time, and the
    star-formation bases sorted by the time of their peak.

    Parameters
    ----------
    folder
        Folder of the three text files, named as in the PROVABGS repository.

    Raises
    ------
    DataFileError
        If a file is missing or has another shape.
    """
    time, sfh, zh = (_text(Path(folder), name) for name in (_TIME, _SFH, _ZH))
    if sfh.shape != (4, 50) or zh.shape != (2, 50) or time.shape != (50,):
        msg = (
            f"'{folder}' does not hold the PROVABGS bases: shapes {sfh.shape}, {zh.shape}, "
            f"{time.shape}, expected (4, 50), (2, 50), (50,)"
        )
        raise DataFileError(msg)
    sfh = sfh[list(_ORDER), ::-1]
    return Bases(time[::-1].copy(), sfh.copy(), zh[:, ::-1].copy(), {"name": "provabgs"})


def tng_bases(folder: str | Path) -> Bases:
    """Read the six star-formation bases fitted to IllustrisTNG; metallicity bases of PROVABGS.

    Six bases make five stick-breaking fractions: 13 degrees of freedom.

    Parameters
    ----------
    folder
        Folder of the five text files of the PROVABGS repository.

    Raises
    ------
    DataFileError
        If a file is missing or has another shape.
    """
    time, sfh = _text(Path(folder), _TNG_TIME), _text(Path(folder), _TNG_SFH)
    if sfh.shape != (55, 6) or time.shape != (55,):
        msg = (
            f"'{folder}': TNG bases have shapes {sfh.shape}, {time.shape}, expected (55, 6), (55,)"
        )
        raise DataFileError(msg)
    zh = provabgs_bases(folder).metallicity(time)
    return Bases(time, np.maximum(sfh.T, 0.0), zh, {"name": "provabgs-tng"})


def _text(folder: Path, name: str) -> F64:
    path = folder / name
    if not path.is_file():
        msg = f"no file '{path}': give the folder of the PROVABGS basis files with simulator.bases"
        raise DataFileError(msg)
    try:
        return np.loadtxt(read_text(path).splitlines())
    except ValueError as error:
        msg = f"'{path}' is not a table of numbers: {error}"
        raise DataFileError(msg) from None


def load_bases(spec: str) -> Bases:
    """Return bases by name: ``parametric-nmf``, or ``provabgs:FOLDER``, ``tng:FOLDER``.

    Raises
    ------
    DataFileError
        If the name or the folder is unknown.
    """
    kind, _, folder = spec.partition(":")
    if kind == "parametric-nmf" and not folder:
        return parametric_bases()
    if kind in ("provabgs", "tng") and folder:
        return provabgs_bases(folder) if kind == "provabgs" else tng_bases(folder)
    msg = f"unknown bases '{spec}'; use parametric-nmf, provabgs:FOLDER or tng:FOLDER"
    raise DataFileError(msg)
