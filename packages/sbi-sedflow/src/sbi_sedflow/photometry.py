"""Fluxes and redshifts of the rows of a catalogue, and the observations made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sbi_core import Batch, Excluded, Observations, repeated
from sbi_sedflow.bandsets import BandSet, load_bands
from sbi_sedflow.cosmology import distance_modulus
from sbi_sedflow.flags import Flag
from sbi_sedflow.luptitudes import luptitude, luptitude_error
from sbi_sedflow.parameters import CONTEXT, observables_of

__all__ = ["Photometry", "observations_of"]

F64 = NDArray[np.float64]
Bool = NDArray[np.bool_]
_FARTHEST = 0.25  # redshift for the distance, at least


@dataclass(frozen=True)
class Photometry:
    """Fluxes of a catalogue.

    Parameters
    ----------
    id : (n,)
        Identifiers.
    flux, sigma : (n, B)
        Fluxes and errors [nanomaggies]; NaN where missing or unusable.
    z, z_dist : (n,)
        Observed redshift, and redshift for the distance; NaN where unknown.
    more
        Further columns of the results, (n,) each: ``ra``, ``dec``, ``nsa_mass`` (Msun).
    quality
        Which rows pass the quality cuts of the catalogue, (n,); None: no cuts.
    notes
        Conversions and masked values, one sentence each.
    source
        File.
    bad
        Rows that cannot be used: row to reason and explanation.
    """

    id: list[str]
    flux: F64
    sigma: F64
    z: F64
    z_dist: F64
    more: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    source: str = ""
    quality: Bool | None = None
    bad: Mapping[int, tuple[str, str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.id)


def observations_of(
    photometry: Photometry,
    z_range: tuple[float, float],
    bands: BandSet | None = None,
    *,
    allow_prior: bool = False,
) -> Observations:
    """Return the galaxies that can be inferred; the other rows are excluded, with their reason.

    Parameters
    ----------
    photometry
        All rows.
    z_range
        Redshifts that can be inferred.
    bands
        Bands of the fluxes; default F N u g r i z.
    allow_prior
        Also keep galaxies without any band: their posterior is the prior.
    """
    p, bands = photometry, bands or load_bands()
    soft = bands.softening
    mask = np.isfinite(p.flux)
    with np.errstate(invalid="ignore"):
        inside = (p.z >= z_range[0]) & (p.z <= z_range[1])
        inside &= (p.z_dist > 0) & (p.z_dist < max(_FARTHEST, 1.1 * z_range[1]))
    reasons = np.full(len(p), "", object)
    reasons[~mask.any(1) & (not allow_prior)] = "nothing_observed"
    reasons[~inside] = "redshift_outside_model"
    reasons[list(p.bad)] = [reason for reason, _ in p.bad.values()]
    values = mask.sum(1) + 8 * (p.z > 0) - 16 * np.isin(np.arange(len(p)), list(p.bad))
    reasons[repeated(np.asarray(p.id), values)] = "repeated_id"
    bits = np.zeros(len(p), np.int64)
    bits[~mask.all(1)] |= Flag.MISSING_BAND
    bits[~mask.any(1)] |= Flag.NO_DATA
    if p.quality is not None:
        bits[~p.quality] |= Flag.QUALITY
    rows = np.flatnonzero(reasons == "")
    flux, sigma = (torch.as_tensor(v[rows]) for v in (p.flux, p.sigma))
    batch = Batch(
        x=luptitude(flux, soft).float(),
        x_err=luptitude_error(flux, sigma, soft).float(),
        mask=torch.as_tensor(mask[rows]),
        context=torch.as_tensor(
            np.stack([p.z[rows], distance_modulus(p.z_dist[rows])], 1), dtype=torch.float32
        ),
    )
    labels = {name: np.asarray(values)[rows] for name, values in p.more.items()}
    for k, b in enumerate(bands.names):
        labels |= {f"nmgy_{b}": p.flux[rows, k], f"nmgy_err_{b}": p.sigma[rows, k]}
    return Observations.from_batch(
        batch,
        id=[p.id[k] for k in rows],
        observables=observables_of(bands),
        context_names=CONTEXT,
        source=p.source,
        notes=(*p.notes, *_remarks(p.flux[rows], bands)),
        excluded=tuple(
            Excluded(int(k), str(p.id[k]), str(reasons[k]), p.bad.get(int(k), ("", ""))[1])
            for k in np.flatnonzero(reasons != "")
        ),
        rows=rows,
        labels={**labels, "flag_bits": bits[rows]},
    )


def _remarks(flux: F64, bands: BandSet) -> list[str]:
    """Return a note where the unit of the fluxes is in doubt."""
    r = flux[:, bands.reference]
    r = r[np.isfinite(r) & (r > 0)]
    if not r.size:
        return []
    median = 22.5 - 2.5 * float(np.log10(np.median(r)))
    return (
        []
        if 5 < median < 30
        else [
            f"median {bands.names[bands.reference]} is {median:.1f} mag: check the unit of the "
            "fluxes"
        ]
    )
