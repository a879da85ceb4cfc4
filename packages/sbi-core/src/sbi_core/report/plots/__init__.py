"""Plots of posteriors and their calibration, for the report and for notebooks.

Every function draws on the axes it is given (or on a new figure) and returns them; nothing here
touches pyplot or its settings.

Examples
--------
>>> from sbi_core.report import plots
>>> ax = plots.training_curve([{"epoch": 1, "train_loss": 1.0, "val_loss": 1.1}])
>>> ax.figure.savefig("training.pdf")  # doctest: +SKIP
"""

from sbi_core.report.plots.calibration import combined_calibration, coverage, sbc_ecdf, tarp
from sbi_core.report.plots.combination import convergence, is_comparison, pulls
from sbi_core.report.plots.posterior import corner
from sbi_core.report.plots.style import COLOURS, math_label
from sbi_core.report.plots.training import recovery, training_curve

__all__ = [
    "COLOURS",
    "combined_calibration",
    "convergence",
    "corner",
    "coverage",
    "is_comparison",
    "math_label",
    "pulls",
    "recovery",
    "sbc_ecdf",
    "tarp",
    "training_curve",
]
