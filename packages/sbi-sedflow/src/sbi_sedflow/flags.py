"""Flags of a galaxy, as bits."""

from __future__ import annotations

from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

__all__ = ["FLAGGED", "MEANING", "NAMED", "Flag", "count_flags", "words"]


class Flag(IntFlag):
    """Flags of one galaxy."""

    MISSING_BAND = 1
    WIDE_NOISE = 2
    OOD_COLOUR = 4
    BAD_FIT = 8
    LOW_IS = 16
    REFINED_IS = 32
    REFINED_SAMPLER = 64
    PRIOR_EDGE = 128
    Z_RANGE = 256
    NO_DATA = 512
    QUALITY = 1024
    NOT_CONVERGED = 2048
    MASK_NOT_CERTIFIED = 4096
    PRIOR_DOMINATED = 8192
    PRIOR_DOMINATED_SFR = 16384


MEANING = {
    Flag.MISSING_BAND: "at least one band is missing",
    Flag.WIDE_NOISE: "an error is outside 0.1-99.9 % of the training set at its flux",
    Flag.OOD_COLOUR: "colours or luminosity are outside 99.9 % of the simulations",
    Flag.BAD_FIT: "no draw fits the fluxes: the smallest chi-squared has p < 0.001",
    Flag.LOW_IS: "the importance efficiency of the network is below 0.5 %",
    Flag.REFINED_IS: "draws were reweighted with the exact likelihood",
    Flag.REFINED_SAMPLER: "draws are from MCMC with the exact likelihood",
    Flag.PRIOR_EDGE: "more than half of the draws of a parameter are within 2 % of a prior bound",
    Flag.Z_RANGE: "no result: redshift unknown or outside the training range",
    Flag.NO_DATA: "no band was observed: the posterior is the prior",
    Flag.QUALITY: "rejected by the quality cuts of the catalogue",
    Flag.MASK_NOT_CERTIFIED: "the network is not calibrated, or not tested, for these bands",
    Flag.PRIOR_DOMINATED: "specific SFR, age or Z is about as uncertain as in the prior",
    Flag.PRIOR_DOMINATED_SFR: "specific SFR is that uncertain, an upper limit, or very low",
    Flag.NOT_CONVERGED: "refinement reached its limit of evaluations, or nothing fits",
}
FLAGGED = Flag.WIDE_NOISE | Flag.OOD_COLOUR | Flag.BAD_FIT | Flag.NOT_CONVERGED
NAMED = (
    Flag.OOD_COLOUR
    | Flag.BAD_FIT
    | Flag.NO_DATA
    | Flag.NOT_CONVERGED
    | Flag.MASK_NOT_CERTIFIED
    | Flag.PRIOR_DOMINATED_SFR
)  # words in the column flags


def words(flags: int) -> str:
    """Return the names of the bits that are set, joined by commas."""
    return ",".join(str(f.name) for f in Flag if flags & f)


def count_flags(flags: NDArray[np.integer]) -> dict[str, int]:
    """Return how many objects carry each flag."""
    return {str(f.name): int(((np.asarray(flags) & int(f)) != 0).sum()) for f in Flag}
