"""Inference of a catalogue: a posterior and a flag for every row, in constant memory.

Galaxies are worked on in chunks: draws of the network, derived quantities, the chi-squared and the
importance weights of some of the draws with the exact likelihood, flags, and refinement where it is
asked for.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from sbi_core import (
    ConfigError,
    Observations,
    Posterior,
    Run,
    diagnostics,
    load_run,
    stream,
)
from sbi_sedflow.columns import usable
from sbi_sedflow.constants import BANDS, N_BANDS
from sbi_sedflow.derived import DERIVED
from sbi_sedflow.flags import Flag
from sbi_sedflow.likelihood import Galaxies, chi_squared, model_fluxes
from sbi_sedflow.noise import log_prob_flux
from sbi_sedflow.photometry import Photometry
from sbi_sedflow.refine import refine_galaxy
from sbi_sedflow.support import Support
from sbi_sedflow.tables import GalaxyTable, as_observations
from sbi_sedflow.target import Target

if TYPE_CHECKING:
    from astropy.table import Table

    from sbi_sedflow.simulator import SedflowSimulator

__all__ = ["Chunk", "fit", "fit_catalogue", "infer_chunks", "summarise", "summary_table"]

F64 = NDArray[np.float64]
Refine = Literal["flagged", "all", "none"]
_CHUNK = 256  # galaxies at a time
_CHECKED = 200  # draws per galaxy that meet the exact likelihood
_LOW_EFFICIENCY = 0.005
_BAD_P = 1e-3
_EDGE, _EDGE_SHARE = 0.02, 0.5
_OOD = 99.9
_ODD = int(Flag.WIDE_NOISE | Flag.OOD_COLOUR)
_FEW = 4.0  # effective draws among the checked ones: too few to trust odd objects


@dataclass(frozen=True)
class Chunk:
    """What is known about some galaxies.

    Parameters
    ----------
    id : (n,)
        Identifiers.
    values : (S, n, 12 + 5)
        Draws of parameters and derived quantities, in the order of ``names``.
    names
        Columns of ``values``.
    flags : (n,)
        Bits.
    chi2_min, is_eff, is_ess, support : (n,)
        Smallest chi-squared of the checked draws, efficiency and effective number of the
        importance weights, percentile of the colour score.
    n_bands : (n,)
        Observed bands.
    method
        Per galaxy: ``npe``, ``npe+is`` or ``emcee``.
    """

    id: NDArray[np.str_]
    values: F64
    names: tuple[str, ...]
    flags: NDArray[np.int64]
    chi2_min: F64
    is_eff: F64
    is_ess: F64
    support: F64
    n_bands: NDArray[np.int64]
    method: list[str]


def infer_chunks(
    simulator: SedflowSimulator,
    posterior: Posterior,
    observations: Observations,
    *,
    draws: int = 1000,
    refine: Refine = "flagged",
    seed: int = 1,
    support: Support | None = None,
    flags: NDArray[np.int64] | None = None,
    limit: int = 300_000,
) -> Iterator[Chunk]:
    """Yield results of consecutive galaxies.

    Parameters
    ----------
    simulator, posterior
        Model, and the trained posterior.
    observations
        Galaxies, each with at least one band.
    draws
        Posterior draws per galaxy.
    refine
        ``flagged``: those without a fitting draw, and those with odd errors or colours whose
        importance weights are poor; ``all``; ``none``.
    seed
        Root seed; every galaxy has its own streams.
    support
        What was trained on; made when left out.
    flags : (n,)
        Bits known before.
    limit
        Likelihood calls per refined galaxy.
    """
    support = Support(simulator) if support is None else support
    before = np.zeros(len(observations), np.int64) if flags is None else flags
    for start in range(0, len(observations), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(observations)))
        yield _one_chunk(
            simulator,
            posterior,
            observations[rows],
            draws,
            refine,
            seed,
            support,
            before[rows],
            limit,
        )


def _one_chunk(
    simulator: SedflowSimulator,
    posterior: Posterior,
    part: Observations,
    draws: int,
    refine: Refine,
    seed: int,
    support: Support,
    flags: NDArray[np.int64],
    limit: int,
) -> Chunk:
    galaxies = Galaxies.of(part)
    theta = posterior.sample(part, draws, seed=seed).values
    empty = ~galaxies.mask.any(1).numpy()
    for k in np.flatnonzero(empty):  # nothing was observed: the posterior is the prior, exactly
        theta[:, k] = posterior.space.sample(draws, stream(seed, "prior", str(part.id[k])))
    checked = theta[: min(_CHECKED, draws)]
    chi2, weights = _check(simulator, posterior, part, galaxies, checked)
    percentile = support.colour_percentile(galaxies)
    n_bands = galaxies.mask.sum(1).numpy()
    flags = flags.copy()
    p = stats.chi2.sf(chi2.min(0), np.maximum(n_bands, 1))
    flags[n_bands < N_BANDS] |= Flag.MISSING_BAND
    flags[support.wide_noise(galaxies)] |= Flag.WIDE_NOISE
    flags[percentile > _OOD] |= Flag.OOD_COLOUR
    flags[p < _BAD_P] |= Flag.BAD_FIT
    flags[weights.efficiency * len(checked) < max(1.2, _LOW_EFFICIENCY * len(checked))] |= (
        Flag.LOW_IS
    )
    method = ["npe"] * len(part)
    efficiency, ess = weights.efficiency.copy(), weights.efficiency * len(checked)
    chi2_min = chi2.min(0)
    chosen = {
        "none": np.zeros(len(part), bool),
        "all": np.ones(len(part), bool),
        "flagged": ((flags & int(Flag.BAD_FIT)) != 0) | (((flags & _ODD) != 0) & (ess < _FEW)),
    }[refine]
    for k in np.flatnonzero(chosen & ~empty):
        target = Target(simulator, galaxies[np.array([k])])
        rng = stream(seed, "refine", str(part.id[k]))
        found = refine_galaxy(posterior, part[np.array([k])], target, rng, draws=draws, limit=limit)
        theta[:, k] = found.theta
        method[k] = found.method
        efficiency[k], ess[k] = found.efficiency, found.ess
        flags[k] |= found.flags
        again = model_fluxes(simulator, found.theta[:_CHECKED, None], galaxies[np.array([k])])
        chi2_min[k] = chi_squared(again, galaxies[np.array([k])], simulator.floor).min()
        if stats.chi2.sf(chi2_min[k], max(int(n_bands[k]), 1)) >= _BAD_P:
            flags[k] &= ~int(Flag.BAD_FIT)
    flags[_near_edges(simulator, theta)] |= Flag.PRIOR_EDGE
    derived = _derived(simulator, theta, galaxies)
    names = (*posterior.space.names, *derived)
    values = np.concatenate([theta, np.stack(list(derived.values()), -1)], -1)
    return Chunk(
        part.id, values, names, flags, chi2_min, efficiency, ess, percentile, n_bands, method
    )


def _check(
    simulator: SedflowSimulator,
    posterior: Posterior,
    part: Observations,
    galaxies: Galaxies,
    theta: F64,
) -> tuple[F64, diagnostics.ImportanceWeights]:
    """Return chi-squared (S, n) of draws, and their importance weights."""
    flux = model_fluxes(simulator, theta, galaxies)
    log_l = log_prob_flux(galaxies.flux, galaxies.sigma, flux, galaxies.mask, simulator.floor)
    s, n, d = theta.shape
    log_prior = posterior.space.log_prob(theta.reshape(s * n, d)).reshape(s, n)
    log_q = posterior.log_prob(theta, part)
    weights = diagnostics.importance_weights(log_l.numpy(), log_prior, log_q)
    return chi_squared(flux, galaxies, simulator.floor), weights


def _near_edges(simulator: SedflowSimulator, theta: F64) -> NDArray[np.bool_]:
    """Return which galaxies have most draws of a parameter next to a bound of its prior."""
    near = np.zeros(theta.shape[1], bool)
    for p, columns in simulator.parameters.blocks():
        if p.prior.size > 1 or p.name == "fburst":
            continue  # shares pile up at their ends by nature
        low, high = (float(v[0]) for v in p.prior.support)
        values = theta[..., columns.start]
        if p.prior.family == "loguniform":
            low, high, values = np.log(low), np.log(high), np.log(values)
        margin = _EDGE * (high - low)
        share = ((values < low + margin) | (values > high - margin)).mean(0)
        near |= share > _EDGE_SHARE
    return near


def _derived(simulator: SedflowSimulator, theta: F64, galaxies: Galaxies) -> dict[str, F64]:
    s, n, d = theta.shape
    z = galaxies.context[:, 0].expand(s, n).reshape(-1)
    found = simulator.model.derived(np.ascontiguousarray(theta).reshape(s * n, d), z)
    return {name: value.reshape(s, n) for name, value in found.items()}


# -- tables -------------------------------------------------------------------------------


def units_of(simulator: SedflowSimulator) -> dict[str, str]:
    """Return the unit of every parameter and derived quantity."""
    space = simulator.parameters
    return dict(zip(space.names, space.units, strict=True)) | DERIVED


def summarise(chunk: Chunk) -> dict[str, NDArray[Any]]:
    """Return a column per statistic: ``<quantity>_mean, _sd, _p16, _p50, _p84`` and the rest."""
    columns: dict[str, NDArray[Any]] = {}
    quantiles = np.quantile(chunk.values, [0.16, 0.5, 0.84], axis=0)
    for k, name in enumerate(chunk.names):
        columns[f"{name}_mean"] = chunk.values[..., k].mean(0)
        columns[f"{name}_sd"] = chunk.values[..., k].std(0, ddof=1)
        columns |= {f"{name}_p{q}": quantiles[i, :, k] for i, q in enumerate((16, 50, 84))}
    columns["flags"] = chunk.flags
    for name in ("chi2_min", "is_ess", "is_eff", "support"):
        columns[name] = getattr(chunk, name)
    columns["method"] = np.asarray(chunk.method, "U8")
    return columns


def summary_table(
    table: GalaxyTable,
    parts: Sequence[Mapping[str, NDArray[Any]]],
    units: Mapping[str, str],
    meta: Mapping[str, Any],
) -> Table:
    """Return a row for every row of the file: statistics and flags; NaN without result.

    Parameters
    ----------
    table
        The galaxies as read.
    parts
        What :func:`summarise` returned for those that could be inferred, in order.
    units
        Unit of every quantity.
    meta
        What to write into the header.
    """
    from astropy.table import Table

    p, n = table.photometry, len(table.photometry)
    out = Table({"id": np.asarray(p.id, np.str_)})
    for name in ("ra", "dec"):
        if name in p.more:
            out[name] = p.more[name]
            out[name].unit = "deg"
    out["z"] = p.z
    for name in parts[0]:
        values = np.concatenate([part[name] for part in parts])
        if name == "flags":
            column = table.flags.copy()
            column[table.rows] |= values
        elif name == "method":
            column = np.full(n, "", values.dtype)
            column[table.rows] = values
        else:
            column = np.full(n, np.nan)
            column[table.rows] = values
        out[name] = column
        quantity = name.rpartition("_")[0]
        if quantity in units:
            out[name].unit = units[quantity] or None
    out["n_bands"] = np.isfinite(p.flux).sum(1)
    out.meta |= dict(meta)
    return out


# -- what users call ---------------------------------------------------------------------


def _parts(run: Run | str) -> tuple[SedflowSimulator, Posterior, Run]:
    from sbi_sedflow.simulator import SedflowSimulator

    loaded = load_run(run) if isinstance(run, str) else run
    simulator = loaded.simulator
    if not isinstance(simulator, SedflowSimulator):
        msg = f"'{run}' is a run of simulator '{simulator.name}', not of sedflow"
        raise ConfigError(msg)
    return simulator, loaded.posterior, loaded


def fit_catalogue(
    run: Run | str,
    table: GalaxyTable,
    *,
    draws: int = 1000,
    refine: Refine | None = None,
    seed: int = 1,
    writer: Any = None,
) -> Table:
    """Infer all galaxies of a table with a trained run.

    Parameters
    ----------
    run
        A run of sedflow, or its folder.
    table
        What :func:`~sbi_sedflow.read_nsa` or :func:`~sbi_sedflow.read_galaxies` returned.
    draws
        Posterior draws per galaxy.
    refine
        Which galaxies are refined; default what the run's configuration says.
    seed
        Root seed.
    writer
        A :class:`~sbi_sedflow.output.SampleFile` that keeps draws.

    Returns
    -------
    Table
        One row per row of the file, see :func:`summary_table`; ``meta`` has time and counts.
    """
    simulator, posterior, loaded = _parts(run)
    start = time.perf_counter()
    kept = []
    for chunk in infer_chunks(
        simulator,
        posterior,
        table.observations,
        draws=draws,
        refine=refine or simulator.config.refine,
        seed=seed,
        flags=table.flags[table.rows],
    ):
        if writer is not None:
            writer.append(chunk)
        kept.append(summarise(chunk))
    seconds = time.perf_counter() - start
    meta = {
        "source": table.photometry.source,
        "run": str(loaded.directory.root),
        "prior": posterior.space.hash,
        "draws": draws,
        "seconds": round(seconds, 3),
        "notes": list(table.observations.notes),
    }
    return summary_table(table, kept, units_of(simulator), meta)


def fit(
    run: Run | str,
    flux: ArrayLike,
    flux_err: ArrayLike,
    z: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    draws: int = 1000,
    refine: Refine | None = None,
    seed: int = 1,
) -> Table:
    """Infer galaxies given as arrays.

    Parameters
    ----------
    run
        A run of sedflow, or its folder.
    flux, flux_err : (n, 7)
        Nanomaggies, bands F N u g r i z.
    z : (n,)
        Redshifts.
    mask : (n, 7)
        True = observed; default where both are finite and the error is positive.
    draws, refine, seed
        See :func:`fit_catalogue`.

    Raises
    ------
    ObservationError
        If shapes are wrong or nothing can be inferred.
    """
    simulator, _, loaded = _parts(run)
    f, e = np.atleast_2d(np.asarray(flux, float)), np.atleast_2d(np.asarray(flux_err, float))
    shift = np.atleast_1d(np.asarray(z, float))
    if f.shape != e.shape or f.shape != (len(shift), N_BANDS):
        msg = (
            f"flux has shape {f.shape}, flux_err {e.shape} and z {shift.shape}; expected (n, 7), "
            f"(n, 7) and (n,) with bands {' '.join(BANDS)}"
        )
        raise ConfigError(msg)
    if mask is not None:
        f = np.where(np.asarray(mask, bool), f, np.nan)
    f, e, notes = usable(f, e)
    ids = [str(k) for k in range(len(f))]
    photometry = Photometry(ids, f, e, shift, shift, {}, tuple(notes), "arrays")
    c = simulator.config
    table = as_observations(photometry, (c.z_min, c.z_max))
    return fit_catalogue(loaded, table, draws=draws, refine=refine, seed=seed)
