"""Galaxies given as arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sbi_core import ConfigError, PosteriorSamples, Run, load_run
from sbi_sedflow.columns import usable
from sbi_sedflow.constants import BANDS, N_BANDS
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
    flux, flux_err : (n, 7)
        Fluxes and errors [nanomaggies], bands F N u g r i z.
    z : (n,)
        Redshifts.
    mask : (n, 7)
        True = observed; default where both are finite and the error is positive.
    draws
        Posterior draws per galaxy; default: those of the run.

    Returns
    -------
    PosteriorSamples
        As :meth:`sbi_core.Run.infer` returns them; ``summary()`` has a row for every galaxy.

    Raises
    ------
    ConfigError
        If shapes are wrong, or the run is not one of sedflow.
    ObservationError
        If no galaxy can be inferred.
    """
    loaded = load_run(run) if isinstance(run, str) else run
    simulator = loaded.simulator
    if not isinstance(simulator, SedflowSimulator):
        msg = f"'{run}' is a run of simulator '{simulator.name}', not of sedflow"
        raise ConfigError(msg)
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
    return loaded.infer(observations_of(photometry, (c.z_min, c.z_max)), draws)
