"""Galaxies given as arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sbi_core import ConfigError, PosteriorSamples, Run, load_run
from sbi_sedflow.columns import usable
from sbi_sedflow.photometry import Photometry, observations_of
from sbi_sedflow.simulator import SedflowSimulator

__all__ = ["fit"]


def fit(
    run: Run | str,
    flux: ArrayLike,
    flux_err: ArrayLike,
    z: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    draws: int | None = None,
) -> PosteriorSamples:
    """Infer galaxies given as arrays.

    Parameters
    ----------
    run
        A run of sedflow, or its folder.
    flux, flux_err : (n, B)
        Fluxes and errors [nanomaggies], bands of the run: by default F N u g r i z.
    z : (n,)
        Redshifts.
    mask : (n, B)
        True = observed; default where both are finite and the error is positive.
    draws
        Posterior draws per galaxy; default: those of the run.

    Returns
    -------
    PosteriorSamples
        As :meth:`sbi_core.Run.infer` returns them; ``summary()`` has a row for every galaxy, those
        that cannot be inferred with the reason in ``flags``.

    Raises
    ------
    ConfigError
        If shapes are wrong, or the run is not one of sedflow.
    """
    loaded = load_run(run) if isinstance(run, str) else run
    simulator = loaded.simulator
    if not isinstance(simulator, SedflowSimulator):
        msg = f"'{run}' is a run of simulator '{simulator.name}', not of sedflow"
        raise ConfigError(msg)
    names = simulator.bands.names
    f, e = np.atleast_2d(np.asarray(flux, float)), np.atleast_2d(np.asarray(flux_err, float))
    shift = np.atleast_1d(np.asarray(z, float))
    if f.shape != e.shape or f.shape != (len(shift), len(names)):
        msg = (
            f"flux has shape {f.shape}, flux_err {e.shape} and z {shift.shape}; expected "
            f"(n, {len(names)}) twice and (n,), bands {' '.join(names)}"
        )
        raise ConfigError(msg)
    if mask is not None:
        f = np.where(np.asarray(mask, bool), f, np.nan)
    f, e, notes = usable(f, e, names)
    ids = [str(k) for k in range(len(f))]
    photometry = Photometry(ids, f, e, shift, shift, {}, tuple(notes), "arrays")
    c = simulator.config
    return loaded.infer(observations_of(photometry, (c.z_min, c.z_max), simulator.bands), draws)
