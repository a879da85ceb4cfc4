"""Figures: the plots of the report, on any matplotlib axes.

>>> import numpy as np, sbi_core
>>> figure = sbi_core.plot.corner(np.random.default_rng(1).normal(size=(500, 2)), ["a", "b"])
>>> len(figure.axes)
4
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from sbi_core.errors import ConfigError
from sbi_core.posterior import CombinedPosterior, PosteriorSamples
from sbi_core.report import plots
from sbi_core.report.plots import (
    combined_calibration,
    convergence,
    coverage,
    pulls,
    recovery,
    sbc_ecdf,
    tarp,
    training_curve,
)

__all__ = [
    "combined_calibration",
    "convergence",
    "corner",
    "coverage",
    "pulls",
    "recovery",
    "sbc_ecdf",
    "tarp",
    "training_curve",
]


def corner(
    samples: PosteriorSamples | CombinedPosterior | ArrayLike,
    labels: Sequence[str] | None = None,
    *,
    object: str | None = None,  # noqa: A002
    **rest: Any,
) -> Figure:
    """Histograms of single parameters and 68 and 95 % contours of pairs.

    Parameters
    ----------
    samples
        Draws of one object, a combined posterior, or an array (S, d).
    labels
        TeX labels, without dollars; those of the parameters when left out.
    object
        Identifier of the object, where there are several.
    rest
        Options of the figure: ``truth``, ``prior``, ``figure``, ``colour``,
        ``name``.

    Raises
    ------
    ConfigError
        If there are several objects and none is chosen, or an array comes without labels.
    """
    if isinstance(samples, PosteriorSamples):
        labels = labels or samples.space.labels
        samples = samples.of(object)
    elif isinstance(samples, CombinedPosterior):
        labels = labels or samples.space.labels
        samples = samples.samples
    if labels is None:
        msg = "draws without names: give labels, one per column"
        raise ConfigError(msg)
    return plots.corner(np.asarray(samples), labels, **rest)
