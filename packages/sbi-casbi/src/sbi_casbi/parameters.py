"""Parameters of a halo: the number of members, the members, and derived quantities.

Set-valued parameters (``log_mstar``, ``log_mdm``, ``tau``) repeat ``n_sub`` times, in order of
decreasing stellar mass. The columns of theta are N and quantities derived from the set.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sbi_casbi.library import Library
from sbi_core import Parameter, ParameterSpace, Prior

__all__ = ["COLUMNS", "column_names", "parameter_space", "summarise"]

F64 = NDArray[np.float64]
_SHARE = 0.01  # of the accreted mass: members above it are counted
_CELLS = 64
COLUMNS = ("n_sub", "log_mtot", "tau_mean", "n_major")


def column_names(n_min: int, *, dark_mass: bool = True) -> tuple[str, ...]:
    """Return the columns of theta; those of a second member exist if every halo has two."""
    member = ("log_mstar", "log_mdm", "tau") if dark_mass else ("log_mstar", "tau")
    return (*COLUMNS, *(f"{name}_{k + 1}" for k in range(min(n_min, 2)) for name in member))


def summarise(members: F64, count: NDArray[np.int64], n_min: int, *, dark_mass: bool = True) -> F64:
    """Return the columns of theta of sets of members.

    Parameters
    ----------
    members
        log10 M_star, (log10 M_dm,) tau by decreasing mass, zero-padded, (..., K, d).
    count
        N, (...).
    n_min
        Smallest number of members.
    dark_mass
        True if members have a dark mass.

    Returns
    -------
    ndarray
        (..., c): N; log10 of the accreted mass [Msun]; mass-weighted mean infall time [Gyr];
        number of members above 1 % of the accreted mass; the members by decreasing mass.
    """
    used = np.arange(members.shape[-2]) < count[..., None]
    top = members[..., :1, 0]
    share = np.where(used, 10.0 ** np.where(used, members[..., 0] - top, 0.0), 0.0)
    total = share.sum(-1)
    parts = [
        count.astype(float),
        top[..., 0] + np.log10(total),
        (share * members[..., -1]).sum(-1) / total,
        (share > _SHARE * total[..., None]).sum(-1).astype(float),
    ]
    d = 3 if dark_mass else 2
    for k in range(min(n_min, 2)):
        parts += [members[..., k, j] for j in range(d)]
    return np.stack(parts, axis=-1)


def _implicit(low: float, high: float) -> Prior:
    values = {"sampler": "casbi", "spec": "summary of the members", "low": low, "high": high}
    return Prior("implicit", values)


_TEXT = {
    "log_mtot": (r"\log_{10} M_\mathrm{acc}", "dex(Msun)", "log10 of the accreted stellar mass"),
    "tau_mean": (r"\langle\tau\rangle_M", "Gyr", "mass-weighted mean infall time"),
    "n_major": (r"N(>1\%)", "", "members above 1 % of the accreted mass"),
    "log_mstar": (r"\log_{10} M_{\star}", "dex(Msun)", "log10 of the stellar mass"),
    "log_mdm": (r"\log_{10} M_{\mathrm{dm}}", "dex(Msun)", "log10 of the dark mass"),
    "tau": (r"\tau_{\mathrm{inf}}", "Gyr", "infall time since the Big Bang"),
}


def parameter_space(
    library: Library,
    rows: NDArray[np.int64],
    weight: F64 | None,
    n_min: int,
    n_max: int,
    pmf: F64 | None = None,
) -> ParameterSpace:
    """Return the parameter space; the prior of members is the distribution of weighted snapshots.

    Parameters
    ----------
    library
        Snapshots.
    rows, weight
        Snapshots in use, and their probabilities (None if members are not independent).
    n_min, n_max
        Range of N.
    pmf
        Probabilities of N; default: uniform.
    """
    dark = library.has_dark_mass
    half = 0.5 * library.tau_width
    spans = {
        "log_mstar": (library.log_mstar.min() - 0.01, library.log_mstar.max() + 0.01),
        "tau": (library.tau.min() - half - 1e-3, library.tau.max() + half + 1e-3),
    }
    values = {"log_mstar": library.log_mstar[rows], "tau": library.tau[rows]}
    if dark:
        spans["log_mdm"] = (library.log_mdm.min() - 0.5, library.log_mdm.max() + 0.5)
        values["log_mdm"] = library.log_mdm[rows]
    names = ("log_mstar", "log_mdm", "tau") if dark else ("log_mstar", "tau")
    members = tuple(
        Parameter(
            name,
            _implicit(*map(float, spans[name]))
            if weight is None
            else _table(values[name], weight, *spans[name]),
            *_TEXT[name][:2],
            description=f"{_TEXT[name][2]} of every member",
            repeat="n_sub",
        )
        for name in names
    )
    n_sub = Parameter(
        "n_sub",
        Prior("integer", {"low": n_min, "high": n_max} | ({} if pmf is None else {"pmf": pmf})),
        r"N_\mathrm{sub}",
        description="number of accreted galaxies",
    )
    limits = {
        "log_mtot": (spans["log_mstar"][0], spans["log_mstar"][1] + np.log10(n_max)),
        "tau_mean": spans["tau"],
        "n_major": (0, n_max),
        **spans,
    }
    columns = [n_sub]
    for column in column_names(n_min, dark_mass=dark)[1:]:
        name, k = column, ""
        if column[-2:] in ("_1", "_2"):
            name, k = column[:-2], column[-1]
        label, unit, text = _TEXT[name]
        if k:
            label, text = f"{label[:-1]},{k}}}", f"{text} of member {k} by mass"
        low, high = limits[name]
        columns.append(
            Parameter(column, _implicit(float(low), float(high)), label, unit, description=text)
        )
    return ParameterSpace(tuple(columns), "1", members)


def _table(values: F64, weight: F64, low: float, high: float) -> Prior:
    """Return the weighted distribution as a table: a histogram plus 0.1 % of a uniform density."""
    counts, edges = np.histogram(values, _CELLS, (low, high), weights=weight)
    density = counts / counts.sum() + 1e-3 / _CELLS
    centres = 0.5 * (edges[1:] + edges[:-1])
    grid = np.concatenate([[low], centres, [high]])
    padded = np.concatenate([density[:1], density, density[-1:]])
    return Prior("table", {"grid": grid.tolist(), "density": padded.tolist()})
