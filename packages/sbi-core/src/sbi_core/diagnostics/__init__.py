"""Diagnostics: functions of sample arrays, one algorithm per file.

``samples`` are (draw, object, parameter) and ``theta`` (object, parameter) throughout; nothing here
knows a posterior object, a run or a file.
"""

from sbi_core.diagnostics.accuracy import accuracy, mae, median_ape, r2, rmse
from sbi_core.diagnostics.c2st import C2st, c2st
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
from sbi_core.diagnostics.sbc import EcdfBand, sbc_ecdf, sbc_ecdf_band, sbc_ranks, sbc_uniformity
from sbi_core.diagnostics.tarp import Tarp, references_from_data, tarp
from sbi_core.diagnostics.verdict import (
    Level,
    Verdict,
    combine_verdicts,
    judge_coverage,
    judge_sbc,
    judge_tarp,
    judge_z_rms,
)

__all__ = [
    "LEVELS",
    "C2st",
    "EcdfBand",
    "ErrorLaw",
    "GaussianCalibration",
    "Level",
    "Tarp",
    "Verdict",
    "accuracy",
    "c2st",
    "calibrate_gaussian",
    "chi_squared",
    "combine_verdicts",
    "coverage_band",
    "coverage_central",
    "coverage_hpd",
    "coverage_sd",
    "fit_error_law",
    "judge_coverage",
    "judge_sbc",
    "judge_tarp",
    "judge_z_rms",
    "mae",
    "median_ape",
    "r2",
    "references_from_data",
    "rmse",
    "sbc_ecdf",
    "sbc_ecdf_band",
    "sbc_ranks",
    "sbc_uniformity",
    "tarp",
    "z_rms",
    "z_scores",
]
