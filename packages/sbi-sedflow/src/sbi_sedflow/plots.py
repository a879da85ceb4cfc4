"""Figure of the spectral energy distribution of one galaxy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import figure as figures
from numpy.typing import NDArray

from sbi_sedflow.likelihood import Galaxies, model_fluxes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sbi_sedflow.simulator import SedflowSimulator

__all__ = ["sed"]

F64 = NDArray[np.float64]
_DRAWS = 100


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
    axes.legend(frameon=False, fontsize="small")
    return figure


def _at(wave: F64, values: F64, x: float) -> F64:
    """Return rows of ``values`` at one wavelength, (n,), averaged over 10 %."""
    near = (wave > 0.95 * x) & (wave < 1.05 * x)
    return np.asarray(values[:, near].mean(1))
