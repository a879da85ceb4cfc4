"""Figures of halos: planes, posterior of N, members by mass and infall time, recovery of N."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sbi_casbi.abundances import LABELS
from sbi_casbi.plane import N_PIXELS, PIXELS

if TYPE_CHECKING:
    from sbi_casbi.library import Library
    from sbi_casbi.members import MemberSamples

__all__ = ["mass_function", "mass_time_map", "number_posterior", "planes", "recovered_counts"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
_BLUE, _ORANGE = "#0072b2", "#d55e00"


def planes(library: Library, x: NDArray[np.float32], predicted: F64) -> Figure:
    """Return the observed plane, the mean predicted plane, and the scaled difference.

    Parameters
    ----------
    library
        Its plane and element.
    x
        Row of the halo, (4100,).
    predicted
        Expected counts of draws, (draws, 64, 64).
    """
    figure = Figure(figsize=(9.0, 3.0), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    counts = _pooled(x[:N_PIXELS].reshape(PIXELS, PIXELS).astype(float))
    mean = _pooled(predicted.mean(0))
    extent = (*library.plane.fe_h, *library.plane.o_fe)
    top = float(np.log10(max(counts.max(), mean.max(), 1.0) + 1.0))
    options: dict[str, Any] = {"origin": "lower", "aspect": "auto", "extent": extent}
    for ax, image, title in (
        (axes[0], counts, "observed"),
        (axes[1], mean, "posterior predictive"),
    ):
        shown = ax.imshow(np.log10(image.T + 1.0), vmin=0, vmax=top, cmap="viridis", **options)
        ax.set_title(title)
    figure.colorbar(shown, ax=axes[:2], label=r"$\log_{10}$(stars + 1)")
    pull = (counts - mean) / np.sqrt(mean + 1.0)
    last = axes[2].imshow(pull.T, vmin=-5, vmax=5, cmap="RdBu_r", **options)
    axes[2].set_title("(observed - predicted) / Poisson error")
    figure.colorbar(last, ax=axes[2])
    for ax in axes:
        ax.set_xlabel("[Fe/H]")
    axes[0].set_ylabel(LABELS[library.alpha])
    return figure


def _pooled(image: F64) -> F64:
    k = PIXELS // 2
    return np.asarray(image.reshape(k, 2, k, 2).sum((1, 3)))


def number_posterior(counts: I64, pmf: F64, prior: F64, truth: int | None) -> Figure:
    """Return the posterior and prior probabilities of N, with the true value if given."""
    figure = Figure(figsize=(4.2, 3.0), layout="constrained")
    ax = figure.subplots()
    ax.step(counts, pmf, where="mid", color=_BLUE, label="posterior")
    ax.step(counts, prior, where="mid", color="0.6", label="prior")
    if truth is not None:
        ax.axvline(truth, color=_ORANGE, ls="--", label="truth")
    ax.set(xlabel="number of accreted galaxies", ylabel="probability", ylim=(0, None))
    ax.legend(frameon=False)
    return figure


def mass_function(members: MemberSamples, grid: F64, truth: F64 | None) -> Figure:
    """Return N(> M) of one halo: median, 68 and 95 % bands, with the true one if given.

    Parameters
    ----------
    members
        Draws of sets for one halo.
    grid
        log10 M_star [Msun].
    truth
        True members (n, d), or None.
    """
    figure = Figure(figsize=(4.2, 3.0), layout="constrained")
    ax = figure.subplots()
    above = members.number_above(grid)[:, :, 0]
    for level, alpha in ((0.95, 0.15), (0.68, 0.3)):
        low, high = np.quantile(above, [0.5 - level / 2, 0.5 + level / 2], axis=1)
        ax.fill_between(
            grid, low, high, color=_BLUE, alpha=alpha, lw=0, label=f"{100 * level:.0f} %"
        )
    ax.plot(grid, np.median(above, axis=1), color=_BLUE, label="median")
    if truth is not None:
        true = (truth[:, 0] > grid[:, None]).sum(1)
        ax.plot(grid, true, color=_ORANGE, ls="--", drawstyle="steps-mid", label="truth")
    ax.set(xlabel=r"$\log_{10}\,M_\star\ [M_\odot]$", ylabel=r"$N(>M_\star)$")
    ax.set_yscale("symlog", linthresh=1.0)
    ax.set_ylim(0, None)
    ax.legend(frameon=False)
    return figure


def mass_time_map(
    members: MemberSamples, mass_edges: F64, tau_edges: F64, truth: F64 | None
) -> Figure:
    """Return expected numbers per cell of (tau, log M) for one halo, with true members if given."""
    figure = Figure(figsize=(4.2, 3.0), layout="constrained")
    ax = figure.subplots()
    mean = members.intensity(mass_edges, tau_edges)[:, 0].mean(0)
    shown = ax.pcolormesh(tau_edges, mass_edges, mean, cmap="Blues", vmin=0)
    figure.colorbar(shown, label="accreted galaxies per cell")
    if truth is not None:
        ax.plot(truth[:, -1], truth[:, 0], "o", ms=3, mfc="none", mec=_ORANGE)
    ax.set(xlabel="infall time [Gyr since the Big Bang]", ylabel=r"$\log_{10}\,M_\star\ [M_\odot]$")
    return figure


def recovered_counts(truth: I64, pmf: F64, counts: I64) -> Figure:
    """Return medians and 16-84 % intervals of N against the true values."""
    figure = Figure(figsize=(4.2, 3.4), layout="constrained")
    ax = figure.subplots()
    cdf = np.cumsum(pmf, axis=1)
    low, middle, high = (counts[(cdf >= q).argmax(1)] for q in (0.16, 0.5, 0.84))
    some = slice(0, 300)
    ax.vlines(truth[some], low[some], high[some], color=_BLUE, alpha=0.25, lw=1)
    ax.plot(truth[some], middle[some], ".", ms=3, color=_BLUE)
    ends = (counts[0], counts[-1])
    ax.plot(ends, ends, color="0.5", lw=1)
    ax.set(xlabel="true N", ylabel="inferred N")
    return figure
