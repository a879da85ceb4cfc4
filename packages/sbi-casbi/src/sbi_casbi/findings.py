"""Checks of sets and what the report shows of every halo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sbi_casbi.simulator import CasbiSimulator
    from sbi_core import Batch, Findings, Observations, Posterior, PosteriorSamples, Rng

__all__ = ["diagnose_sets", "examine_halos"]


def diagnose_sets(simulator: CasbiSimulator, posterior: Posterior, held_out: Batch, rng: Rng) -> Findings | None:
    return None


def examine_halos(simulator: CasbiSimulator, posterior: Posterior, observations: Observations, samples: PosteriorSamples, rng: Rng) -> Findings | None:
    return None
