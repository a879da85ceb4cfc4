"""Diagnostics: functions of sample arrays, one algorithm per file.

``samples`` are (draw, object, parameter) and ``theta`` (object, parameter) throughout. The
functions take arrays only, no posterior, run or file.
"""

from sbi_core.diagnostics.accuracy import accuracy, mae, median_ape, r2, rmse
from sbi_core.diagnostics.coverage import (
    LEVELS,
    coverage_band,
    coverage_central,
    coverage_hpd,
    coverage_sd,
)
from sbi_core.diagnostics.error_law import ErrorLaw, fit_error_law
from sbi_core.diagnostics.gaussian import (
    GaussianCalibration,
    calibrate_gaussian,
    chi_squared,
    z_rms,
    z_scores,
)
from sbi_core.diagnostics.holm import holm
from sbi_core.diagnostics.is_efficiency import (
    ImportanceWeights,
    importance_weights,
    is_efficiency,
    pareto_k,
)
from sbi_core.diagnostics.pit_integer import pit_integer, pit_integer_draws, pit_uniformity
from sbi_core.diagnostics.ppc import Ppc, ppc_chi2
from sbi_core.diagnostics.prior_conflict import PriorConflict, prior_conflict
from sbi_core.diagnostics.rps import rps, rps_skill
from sbi_core.diagnostics.sbc import EcdfBand, sbc_ecdf, sbc_ecdf_band, sbc_ranks, sbc_uniformity
from sbi_core.diagnostics.support import SupportScale, distance_percentile, support_percentile
from sbi_core.diagnostics.tarp import Tarp, references_from_data, tarp
from sbi_core.diagnostics.verdict import (
    Level,
    Verdict,
    combine_verdicts,
    judge_coverage,
    judge_importance,
    judge_pit,
    judge_ppc,
    judge_prior_conflict,
    judge_sbc,
    judge_sbc_all,
    judge_skill,
    judge_tarp,
    judge_z_rms,
)

__all__ = [
    "LEVELS",
    "EcdfBand",
    "ErrorLaw",
    "GaussianCalibration",
    "ImportanceWeights",
    "Level",
    "Ppc",
    "PriorConflict",
    "SupportScale",
    "Tarp",
    "Verdict",
    "accuracy",
    "calibrate_gaussian",
    "chi_squared",
    "combine_verdicts",
    "coverage_band",
    "coverage_central",
    "coverage_hpd",
    "coverage_sd",
    "distance_percentile",
    "fit_error_law",
    "holm",
    "importance_weights",
    "is_efficiency",
    "judge_coverage",
    "judge_importance",
    "judge_pit",
    "judge_ppc",
    "judge_prior_conflict",
    "judge_sbc",
    "judge_sbc_all",
    "judge_skill",
    "judge_tarp",
    "judge_z_rms",
    "mae",
    "median_ape",
    "pareto_k",
    "pit_integer",
    "pit_integer_draws",
    "pit_uniformity",
    "ppc_chi2",
    "prior_conflict",
    "r2",
    "references_from_data",
    "rmse",
    "rps",
    "rps_skill",
    "sbc_ecdf",
    "sbc_ecdf_band",
    "sbc_ranks",
    "sbc_uniformity",
    "support_percentile",
    "tarp",
    "z_rms",
    "z_scores",
]
