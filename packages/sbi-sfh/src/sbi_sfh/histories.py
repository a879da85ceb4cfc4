"""Draws of star formation histories: percentiles and masses by age, family by family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbi_core import ConfigError
from sbi_sfh import families, gaussian_process, tau
from sbi_sfh.config import SfhConfig
from sbi_sfh.constants import AUXILIARY, DECILES
from sbi_sfh.percentiles import crossing_times, names_of

__all__ = [
    "POINTS",
    "Histories",
    "draw_family",
    "draw_histories",
    "fractions_of",
    "history_spec",
    "time_grid",
]

F64 = NDArray[np.float64]
POINTS = 1000
_MOST_TRIES = 200


@dataclass(frozen=True, slots=True)
class Histories:
    """n star formation histories.

    Parameters
    ----------
    cumulative
        Fraction of the mass formed before each time of :func:`time_grid`, (n, 1000).
    percentiles
        Times by which the fractions had formed, (n, k) Gyr since the Big Bang.
    inputs
        Parameters that generated them, by name, each (n,) or (n, 3); of a mixture the number of the
        family.
    overshoot
        Negative mass that was removed, as a fraction of the total, (n,); 0 except for family gp.
    knots_crossed
        True where recent knots lie before drawn ones, (n,); False except for family gp.
    ok
        False where there is no mass or no finite curve, (n,).
    """

    cumulative: F64
    percentiles: F64
    inputs: dict[str, F64]
    overshoot: F64
    knots_crossed: NDArray[np.bool_]
    ok: NDArray[np.bool_]


def time_grid(end: float) -> F64:
    """Return the times (1000,) Gyr from 0 to ``end``."""
    return np.linspace(0.0, end, POINTS)


def fractions_of(config: SfhConfig) -> tuple[float, ...]:
    """Return the mass fractions whose times are inferred."""
    return DECILES + AUXILIARY if config.aux else DECILES


def history_spec(config: SfhConfig) -> dict[str, Any]:
    """Return all options that define the prior of the percentiles."""
    names = list(config.families)
    spec: dict[str, Any] = {
        "family": names[0] if len(names) == 1 else config.families,
        "t_end_gyr": config.t_end, "points": POINTS,
    }  # fmt: skip
    if "gp" in names:
        spec |= {"prior": config.sfh_prior, "interp": config.interp}
        if config.max_overshoot is not None:
            spec["max_overshoot"] = config.max_overshoot
    if set(names) & set(families.PARAMETRIC):
        spec["ranges"] = {k: list(v) for k, v in families.RANGES.items()}
    if "bursts" in names:
        spec["bursts"] = dict(families.BURSTS)
    if "tau" in names:
        spec |= {"t0_gyr": list(tau.T0_GYR), "log_tau": list(tau.LOG_TAU), "grid": config.grid}
    return {**spec, "times": list(names_of(fractions_of(config)))}


def draw_histories(n: int, config: SfhConfig, rng: np.random.Generator) -> Histories:
    """Return n histories of the configured family, or of a mixture of several.

    Raises
    ------
    ConfigError
        If ``max_overshoot`` rejects nearly everything.
    """
    names = list(config.families)
    if len(names) == 1:
        return draw_family(names[0], n, config, rng)
    family = rng.choice(len(names), n, p=list(config.families.values()))
    drawn = [
        draw_family(name, int((family == k).sum()), config, rng)
        for k, name in enumerate(names)
        if (family == k).any()
    ]
    order = np.argsort(np.argsort(family, kind="stable"), kind="stable")

    def rows(name: str) -> Any:
        return np.concatenate([getattr(h, name) for h in drawn])[order]

    return Histories(
        cumulative=rows("cumulative"),
        percentiles=rows("percentiles"),
        inputs={"family": family.astype(float)},
        overshoot=rows("overshoot"),
        knots_crossed=rows("knots_crossed"),
        ok=rows("ok"),
    )


def draw_family(name: str, n: int, config: SfhConfig, rng: np.random.Generator) -> Histories:
    """Return n histories of one family."""
    if name == "gp":
        return _gp(n, config, rng)
    if name == "tau":
        return _tau(n, config, rng)
    time = time_grid(config.t_end)
    cumulative = families.growth(name, n, time, rng)
    return Histories(
        cumulative=cumulative,
        percentiles=crossing_times(cumulative, time, fractions_of(config)),
        inputs={},
        overshoot=np.zeros(n),
        knots_crossed=np.zeros(n, bool),
        ok=np.asarray(np.isfinite(cumulative).all(1)),
    )


def _tau(n: int, config: SfhConfig, rng: np.random.Generator) -> Histories:
    end = config.t_end
    if config.grid == "readme":
        grid = tau.readme_grid()
        rows = rng.integers(len(grid[0]), size=n)
        t0, scale = grid[0][rows], grid[1][rows]
    else:
        t0 = rng.uniform(*tau.T0_GYR, n)
        scale = 10.0 ** rng.uniform(*tau.LOG_TAU, n)
    late = t0 >= end
    start = np.where(late, 0.0, t0)
    return Histories(
        cumulative=tau.cumulative_mass(start, scale, time_grid(end)),
        percentiles=tau.percentile_times(start, scale, fractions_of(config), end),
        inputs={"t0": t0, "tau": scale},
        overshoot=np.zeros(n),
        knots_crossed=np.zeros(n, bool),
        ok=~late,
    )


def _gp(n: int, config: SfhConfig, rng: np.random.Generator) -> Histories:
    end = config.t_end
    kept: list[tuple[F64, F64, gaussian_process.GrowthCurves]] = []
    have = 0
    for _ in range(_MOST_TRIES):
        times, log_ssfr = gaussian_process.draw_inputs(n, config.sfh_prior, rng)
        curves = gaussian_process.growth_curves(
            times, log_ssfr, end, points=POINTS, interp=config.interp
        )
        if config.max_overshoot is None:
            kept.append((times, log_ssfr, curves))
            break
        good = curves.overshoot <= config.max_overshoot
        part = gaussian_process.GrowthCurves(
            curves.cumulative[good], curves.overshoot[good],
            curves.knots_crossed[good], curves.finite[good],
        )  # fmt: skip
        kept.append((times[good], log_ssfr[good], part))
        have += int(good.sum())
        if have >= n:
            break
    else:
        msg = f"max_overshoot = {config.max_overshoot:g} rejects nearly all histories: raise it"
        raise ConfigError(msg)
    first = slice(0, n)
    cumulative: F64 = np.concatenate([k[2].cumulative for k in kept])[first]
    times = np.concatenate([k[0] for k in kept])[first]
    log_ssfr = np.concatenate([k[1] for k in kept])[first]
    return Histories(
        cumulative=cumulative,
        percentiles=crossing_times(cumulative, time_grid(end), fractions_of(config)),
        inputs={"x": times, "log_ssfr": log_ssfr},
        overshoot=np.concatenate([k[2].overshoot for k in kept])[first],
        knots_crossed=np.concatenate([k[2].knots_crossed for k in kept])[first],
        ok=np.concatenate([k[2].finite for k in kept])[first],
    )
