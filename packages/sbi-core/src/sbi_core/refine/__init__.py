"""Refinement of the posterior of one object: further simulations, or importance weights."""

from sbi_core.refine.importance import ImportanceResult, importance_resample
from sbi_core.refine.truncated import RefineConfig, RefinedPosterior, Round, refine

__all__ = [
    "ImportanceResult",
    "RefineConfig",
    "RefinedPosterior",
    "Round",
    "importance_resample",
    "refine",
]
