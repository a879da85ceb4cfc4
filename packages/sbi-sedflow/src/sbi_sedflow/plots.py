"""Figures of galaxies: fluxes, histories, recovery, the training set, network against MCMC."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import figure as figures
from numpy.typing import NDArray

from sbi_core import plot
from sbi_sedflow.likelihood import Galaxies, model_fluxes
from sbi_sedflow.quantities import SHOWN

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sbi_sedflow.simulator import SedflowSimulator

__all__ = ["network_and_chain", "recovery", "sed", "sfh", "training_set"]

F64 = NDArray[np.float64]
_DRAWS = 100
_RANGE = 1e4  # of star-formation rates in a figure
_YOUNGEST = 0.01  # Gyr
_POINTS = 1000  # galaxies of a catalogue in a figure
_OTHER = "#d55e00"


def sed(
    simulator: SedflowSimulator,
    galaxy: Galaxies,
    theta: F64,
    *,
    title: str = "",
    figure: Figure | None = None,
) -> Figure:
    """Draw observed fluxes over posterior predictive fluxes and spectra of one galaxy.

    Parameters
    ----------
    simulator
        The model.
    galaxy
        One row.
    theta : (S, 12)
        Posterior draws; 100 are shown.
    title
        Title of the figure.
    figure
        Figure to draw on; default: a new one.
    """
    rows = theta[np.linspace(0, len(theta) - 1, min(_DRAWS, len(theta))).astype(int)]
    z, dm = (float(v) for v in galaxy.context[0])
    wave, lum = simulator.model.spectrum(rows, z)
    model = model_fluxes(simulator, rows[:, None], galaxy)[:, 0].numpy()
    nu_l = lum * wave**2  # proportional to f_nu per unit of the predicted band fluxes
    bands = simulator.bands
    pivots, k = np.asarray(bands.pivots), bands.reference
    anchor = model[:, k] / _at(wave * (1 + z), nu_l, pivots[k])
    spectrum = nu_l * anchor[:, None]
    figure = figure or figures.Figure(figsize=(4.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    low, middle, high = np.percentile(spectrum, [16, 50, 84], axis=0)
    axes.fill_between(wave * (1 + z), low, high, color="0.8", lw=0, label="spectrum, 68 %")
    axes.plot(wave * (1 + z), middle, color="0.55", lw=0.6)
    for k, pivot in enumerate(pivots):
        p = np.percentile(model[:, k], [2.5, 16, 84, 97.5])
        axes.plot([pivot] * 2, p[[0, 3]], color="C0", lw=4, alpha=0.3, solid_capstyle="butt")
        axes.plot([pivot] * 2, p[[1, 2]], color="C0", lw=4, alpha=0.7, solid_capstyle="butt",
                  label="predicted fluxes, 68 and 95 %" if k == 0 else None)  # fmt: skip
    seen = galaxy.mask[0].numpy()
    f, e = galaxy.flux[0].numpy(), galaxy.sigma[0].numpy()
    axes.errorbar(pivots[seen], f[seen], e[seen], fmt="o", ms=3.5, color="k", lw=1,
                  label="observed", zorder=5)  # fmt: skip
    floor = max(np.nanmin(np.where(seen & (f > 0), f, np.nan)) / 5, 1e-3) if seen.any() else 1e-3
    axes.set(
        xscale="log",
        yscale="log",
        ylim=(floor, None),
        xlim=(0.78 * pivots.min(), 1.235 * pivots.max()),
    )
    axes.set_xlabel(r"observed wavelength [$\mathrm{\AA}$]")
    axes.set_ylabel(r"$f_\nu$ [nanomaggies]")
    axes.set_title(title or f"z = {z:.4f}, m - M = {dm:.2f}", fontsize="medium")
    axes.set_xticks(pivots, list(bands.names))
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize="small", loc="upper left")
    return figure


def sfh(
    simulator: SedflowSimulator,
    theta: F64,
    z: float,
    *,
    truth: F64 | None = None,
    title: str = "",
    figure: Figure | None = None,
) -> Figure:
    """Draw the star-formation history of one galaxy: median, 68 and 95 % of the draws.

    Parameters
    ----------
    simulator
        The model.
    theta : (S, 12)
        Posterior draws.
    z
        Redshift.
    truth : (12,)
        True parameters; their history is a dashed line.
    title
        Title of the figure.
    figure
        Figure to draw on; default: a new one.
    """
    edges, rate, _ = simulator.model.sfh(theta, z)
    edge = edges[0]
    figure = figure or figures.Figure(figsize=(4.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    bands = np.percentile(rate, [2.5, 16, 50, 84, 97.5], axis=0)
    top = float(bands[4].max())
    floor = top / _RANGE
    for low, high, alpha, label in ((0, 4, 0.25, "95 %"), (1, 3, 0.5, "68 %")):
        axes.fill_between(
            edge,
            np.maximum(_steps(bands[low]), floor),
            np.maximum(_steps(bands[high]), floor),
            step="post",
            color="C0",
            alpha=alpha,
            lw=0,
            label=label,
        )
    axes.step(edge, np.maximum(_steps(bands[2]), floor), where="post", color="C0", label="median")
    if truth is not None:
        true = simulator.model.sfh(truth[None], z)[1][0]
        axes.step(edge, np.maximum(_steps(true), floor), where="post", color="k", ls="--", lw=1,
                  label="truth")  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(_YOUNGEST, edge[-1]), ylim=(floor, 2 * top))
    axes.set_xlabel("lookback time [Gyr]")
    axes.set_ylabel(r"SFR [$M_\odot$ / yr]")
    axes.set_title(title or f"z = {z:.4f}", fontsize="medium")
    axes.legend(frameon=False, fontsize="small", loc="lower left")
    return figure


def recovery(draws: F64, truth: F64) -> Figure:
    """Draw posterior means and standard deviations of the shown quantities against the truth.

    Parameters
    ----------
    draws : (S, n, 6)
        Quantities of :data:`~sbi_sedflow.quantities.SHOWN`.
    truth : (n, 6)
        Their true values.
    """
    figure = figures.Figure(figsize=(8.4, 5.4), layout="constrained")
    for k, (quantity, axes) in enumerate(zip(SHOWN, figure.subplots(2, 3).flat, strict=True)):
        mean, sd = draws[..., k].mean(0), draws[..., k].std(0)
        plot.recovery(truth[:, k], mean, sd, quantity.title, axes)
    return figure


def training_set(
    simulated: F64, observed: F64, labels: Sequence[str], name: str = "catalogue"
) -> Figure:
    """Draw contours of the training set with the galaxies of a catalogue as points.

    Parameters
    ----------
    simulated : (N, d), observed : (n, d)
        Magnitude, colours, error and redshift; as :mod:`sbi_sedflow.comparison` has them.
    labels : (d,)
        TeX, without dollars.
    name
        Of the catalogue, for the legend.
    """
    points = observed[np.isfinite(observed).all(1)]
    points = points[np.unique(np.linspace(0, len(points) - 1, _POINTS).astype(int))]
    figure = plot.corner(simulated, labels, name="training set", values=[""] * len(labels))
    grid = np.array(figure.axes).reshape(len(labels), -1)
    for i, row in enumerate(grid):
        column = points[:, i]
        axes = row[i]
        low, high = axes.get_xlim()
        axes.hist(column, np.linspace(low, high, 30), density=True, histtype="step",
                  color=_OTHER, label=name)  # fmt: skip
        axes.relim()
        axes.set_ylim(0, 1.05 * max(axes.get_ylim()[1], _tallest(column, low, high)))
        for j in range(i):
            row[j].plot(points[:, j], column, ".", ms=2.5, alpha=0.5, color=_OTHER, mew=0)
    for legend in list(figure.legends):  # that of the corner plot has no catalogue
        legend.remove()
    grid[0, 0].legend(loc="upper left", bbox_to_anchor=(1.1, 1.0), frameon=False)
    return figure


def network_and_chain(
    network: F64, chain: F64, labels: Sequence[str], truth: F64 | None = None
) -> Figure:
    """Draw the posterior of the network over that of an MCMC with the exact likelihood.

    Parameters
    ----------
    network : (S, d), chain : (C, d)
        Draws.
    labels : (d,)
        TeX, without dollars.
    truth : (d,)
        True values.
    """
    figure = plot.corner(chain, labels, name="MCMC, exact likelihood", colour="#555555")
    return plot.corner(network, labels, figure=figure, colour=_OTHER, name="network", truth=truth)


def _steps(values: F64) -> F64:
    """Return values of bins at their edges, the last one repeated."""
    return np.append(values, values[-1])


def _tallest(values: F64, low: float, high: float) -> float:
    heights, _ = np.histogram(values, np.linspace(low, high, 30), density=True)
    return float(np.nan_to_num(heights).max())


def _at(wave: F64, values: F64, x: float) -> F64:
    """Return rows of ``values`` at one wavelength, (n,), averaged over 10 %."""
    near = (wave > 0.95 * x) & (wave < 1.05 * x)
    return np.asarray(values[:, near].mean(1))
