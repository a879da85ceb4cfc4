"""Flags of an object: a bit mask, never a missing row."""

from __future__ import annotations

from enum import IntFlag

import numpy as np
from numpy.typing import NDArray

__all__ = ["FLAGGED", "MEANING", "NAMED", "Flag", "count_flags", "words"]


class Flag(IntFlag):
    """What is to be known about one object."""

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
    DUPLICATE = 4096


MEANING = {
    Flag.MISSING_BAND: "at least one of the seven bands is missing",
    Flag.WIDE_NOISE: "an error lies outside 0.1-99.9 % of those trained on, at its flux",
    Flag.OOD_COLOUR: "colours or level are stranger than those of 99.9 % of the simulations",
    Flag.BAD_FIT: "no posterior draw fits: p of the smallest chi-squared is below 0.001",
    Flag.LOW_IS: "importance efficiency of the network's posterior below 0.5 %",
    Flag.REFINED_IS: "draws were re-weighted with the exact likelihood",
    Flag.REFINED_SAMPLER: "draws come from a sampler of the exact likelihood",
    Flag.PRIOR_EDGE: "more than half of the draws of a parameter lie within 2 % of a prior bound",
    Flag.Z_RANGE: "no result: redshift outside what the network was trained on, or not known",
    Flag.NO_DATA: "no result: no band was observed",
    Flag.QUALITY: "the catalogue's own quality cuts reject it",
    Flag.NOT_CONVERGED: "refinement ended at its limit of likelihood calls",
    Flag.DUPLICATE: "no result: the galaxy is in the table more than once, see its other row",
}
FLAGGED = Flag.WIDE_NOISE | Flag.OOD_COLOUR | Flag.BAD_FIT | Flag.NOT_CONVERGED
NAMED = Flag.OOD_COLOUR | Flag.BAD_FIT | Flag.NOT_CONVERGED  # words in the column flags


def words(flags: int) -> str:
    """Return the names of the bits that are set, joined by commas."""
    return ",".join(str(f.name) for f in Flag if flags & f)


def count_flags(flags: NDArray[np.integer]) -> dict[str, int]:
    """Return how many objects carry each flag."""
    return {str(f.name): int(((np.asarray(flags) & int(f)) != 0).sum()) for f in Flag}
