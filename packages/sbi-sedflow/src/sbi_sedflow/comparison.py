"""The training set beside a catalogue, and the network beside an MCMC: figures of one run.

The first pair of distributions tells whether a catalogue lies where the network was trained; the
second whether the network agrees with the exact likelihood for one galaxy.

References:
    | Hahn & Melchior 2022, ApJ 938, 11, figures 1 and 2
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from sbi_core import Batch, Observations, Posterior, stream, written
from sbi_sedflow import plots
from sbi_sedflow.likelihood import Galaxies
from sbi_sedflow.quantities import SHOWN, shown
from sbi_sedflow.refine import sampled
from sbi_sedflow.target import Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sbi_sedflow.simulator import SedflowSimulator

__all__ = ["Comparison", "compare_galaxy", "compare_training", "write_figures"]

F64 = NDArray[np.float64]
_SIMULATED = 4000
_COMMON = 0.5  # share of a catalogue in which a band must be observed
_DPI = 130


@dataclass(frozen=True)
class Comparison:
    """One galaxy by the network and by MCMC.

    Parameters
    ----------
    network : (S, 12), chain : (C, 12)
        Draws.
    ess
        Effective draws of the chain.
    converged
        Whether every walker is 15 autocorrelation times long.
    shift, width : (6,)
        Of the quantities of :data:`~sbi_sedflow.quantities.SHOWN`: difference of the medians in
        units of the chain's half 68 % interval, and ratio of these half intervals.
    """

    network: F64
    chain: F64
    ess: float
    converged: bool
    shift: F64
    width: F64


def compare_training(simulator: SedflowSimulator, objects: Observations, seed: int) -> Figure:
    """Return the figure of magnitude, colours, error and redshift of both.

    Colours are those of neighbouring bands that at least half of the catalogue has.
    """
    rng = stream(seed, "sedflow", "training set")
    batch = simulator.draw(_SIMULATED, rng).succeeded
    everything = torch.ones(len(batch), len(simulator.bands), dtype=torch.bool)
    simulated = simulator.observe_in(batch, everything, rng)
    often = objects.batch.observed.float().mean(0) >= _COMMON
    common = [k for k in range(len(simulator.bands)) if bool(often[k])]
    labels, columns = zip(*_columns(simulator, simulated, common), strict=True)
    observed = [values for _, values in _columns(simulator, objects.batch, common)]
    return plots.training_set(
        np.stack(columns, 1), np.stack(observed, 1), labels, f"{len(objects)} galaxies"
    )


def _columns(simulator: SedflowSimulator, batch: Batch, common: list[int]) -> list[tuple[str, F64]]:
    """Return labels and values (n,): magnitude, colours, log error, redshift."""
    names, k = simulator.bands.names, simulator.bands.reference
    k = k if k in common or not common else common[len(common) // 2]
    assert batch.x_err is not None
    assert batch.context is not None
    x = torch.where(batch.observed, batch.x, torch.nan).double().cpu().numpy()
    err = torch.where(batch.observed, batch.x_err, torch.nan).double().cpu().numpy()
    colours = [
        (rf"\mathrm{{{names[a]}}} - \mathrm{{{names[b]}}}", x[:, a] - x[:, b])
        for a, b in zip(common, common[1:], strict=False)
    ]
    return [
        (rf"\mathrm{{{names[k]}}}", x[:, k]),
        *colours,
        (rf"\log \sigma_\mathrm{{{names[k]}}}", np.log10(err[:, k])),
        ("z", batch.context[:, 0].double().cpu().numpy()),
    ]


def compare_galaxy(
    simulator: SedflowSimulator, posterior: Posterior, one: Observations, seed: int, limit: int
) -> Comparison:
    """Return draws of the network and of MCMC with the exact likelihood for one galaxy.

    Parameters
    ----------
    simulator, posterior
        Model and trained posterior.
    one
        The galaxy.
    seed
        Root seed.
    limit
        Likelihood evaluations at most.
    """
    network = posterior.sample(one, 2000, seed=seed).values[:, 0]
    galaxy = Galaxies.of(one, simulator.bands.softening)
    rng = stream(seed, "sedflow", "chain", str(one.id[0]))
    chain, ess, converged = sampled(posterior, one, Target(simulator, galaxy), rng, limit=limit)
    z = float(galaxy.context[0, 0])
    low, middle, high = (
        np.stack([np.percentile(_quantities(simulator, d, z), q, axis=0) for d in (network, chain)])
        for q in (16, 50, 84)
    )
    half = 0.5 * (high - low)
    return Comparison(
        network, chain, ess, converged, (middle[0] - middle[1]) / half[1], half[0] / half[1]
    )


def _quantities(simulator: SedflowSimulator, theta: F64, z: float) -> F64:
    return shown(theta[:, 0], simulator.model.derived(theta, z))


def write_figures(
    simulator: SedflowSimulator,
    posterior: Posterior,
    objects: Observations,
    row: int,
    folder: Path,
    *,
    seed: int,
    limit: int,
) -> Comparison:
    """Write training-set, fluxes, history, parameters and quantities of one galaxy as PNG.

    Parameters
    ----------
    simulator, posterior
        Model and trained posterior.
    objects
        The catalogue.
    row
        The galaxy, a row of it.
    folder
        Where to write; created if needed.
    seed
        Root seed.
    limit
        Likelihood evaluations of the MCMC at most.
    """
    one = objects[np.array([row])]
    galaxy, name = Galaxies.of(one, simulator.bands.softening), str(one.id[0])
    z = float(galaxy.context[0, 0])
    truth = None if one.truth is None else np.stack(list(one.truth.values()), 1)[0]
    result = compare_galaxy(simulator, posterior, one, seed, limit)
    network, chain = (_quantities(simulator, d, z) for d in (result.network, result.chain))
    true = None if truth is None else _quantities(simulator, truth[None], z)[0]
    titles = [q.title for q in SHOWN]
    drawings = {
        "training-set": compare_training(simulator, objects, seed),
        "fluxes": plots.sed(simulator, galaxy, result.network, title=name),
        "history": plots.sfh(simulator, result.network, z, truth=truth, title=name),
        "parameters": plots.network_and_chain(
            result.network, result.chain, simulator.parameters.labels, truth
        ),
        "quantities": plots.network_and_chain(network, chain, titles, true),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for what, figure in drawings.items():
        with written(folder / f"{what}.png") as temporary:
            figure.savefig(temporary, dpi=_DPI, metadata={"Software": None})
    return result
