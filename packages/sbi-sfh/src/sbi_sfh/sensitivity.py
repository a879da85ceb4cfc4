r"""The same spectra under other priors and libraries.

The shift of a parameter is that of its median with respect to the first run, in units of half of
the central 68 % of the first run: what the choice of histories and stellar populations adds to the
error budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.table import Table

from sbi_sfh.simulator import SfhSimulator

if TYPE_CHECKING:
    from sbi_core import Run

__all__ = ["compare"]


def compare(runs: Sequence[Run], observations: str, draws: int, **reading: Any) -> Table:
    """Return a row per galaxy and run: medians, half of the central 68 %, shifts and flags.

    Parameters
    ----------
    runs
        Trained runs; shifts are those from the first.
    observations
        File or folder of spectra.
    draws
        Posterior draws per galaxy.
    **reading
        Options of reading (``Run.infer``).
    """
    rows: list[dict[str, Any]] = []
    first: dict[str, dict[str, tuple[float, float]]] = {}
    for run in runs:
        simulator = run.simulator_of(SfhSimulator)
        samples = run.infer(observations, draws, **reading)
        for k, galaxy in enumerate(map(str, samples.id)):
            found = {}
            for name in samples.names:
                low, middle, high = np.percentile(samples[name][:, k], [16, 50, 84])
                found[name] = float(middle), float(0.5 * (high - low))
            base = first.setdefault(galaxy, found)
            shifts = {n: (found[n][0] - base[n][0]) / base[n][1] for n in found if n in base}
            rows.append(
                {
                    "id": galaxy,
                    "run": run.directory.root.name,
                    "library": simulator.library.name,
                    "families": " ".join(simulator.config.families),
                }
                | {n: v[0] for n, v in found.items()}
                | {f"{n}_err": v[1] for n, v in found.items()}
                | {f"{n}_shift": v for n, v in shifts.items()}
                | {"flags": str(samples.flags[k])}
            )
    rows.sort(key=lambda row: list(first).index(row["id"]))
    return Table(rows=rows)
