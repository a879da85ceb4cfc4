r"""Two remedies for a combination that is too narrow; shown beside it, never instead of it.

Error floor: an error of f sigma in every single posterior (``f`` from a calibration curve,
:math:`z^2(N) = 1 + f^2 N`) is common to all objects and does not average out,

.. math:: C' = (1 + f^2 N)\,C .

Power posterior: where parts of the objects disagree by more than chance, the likelihood is
weakened until they do not, :math:`\beta = \min(1, \nu / \chi^2)`,

.. math:: P' = P_0 + \beta (P - P_0), \qquad P'\mu' = P_0\mu_0 + \beta (P\mu - P_0\mu_0) .

References:
    | docs/calibration.md
    | Holmes & Walker 2017, Biometrika 104, 497 (power likelihoods)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sbi_core.components import Rng
from sbi_core.posterior import CombinedPosterior, combined_from_gaussian

__all__ = ["error_floor", "power_posterior"]


def error_floor(combined: CombinedPosterior, f: float, *, rng: Rng = 0) -> CombinedPosterior:
    """Return the combination with the error floor of ``f`` single-object sigma added.

    Parameters
    ----------
    combined
        Any combination.
    f
        Systematic error of single posteriors in their own sigma; 0 changes nothing.
    rng
        Random numbers of the draws.
    """
    factor = 1.0 + f**2 * combined.n
    return _changed(combined, "tau", combined.z_mean, combined.z_cov * factor, {"f": f}, rng)


def power_posterior(combined: CombinedPosterior, *, rng: Rng = 0) -> CombinedPosterior | None:
    """Return the power posterior; None where there is no test of consistency."""
    chi2 = combined.diagnostics.get("consistency_chi2")
    dof = combined.diagnostics.get("consistency_dof")
    if chi2 is None or dof is None:
        return None
    beta = min(1.0, dof / chi2) if chi2 > 0 else 1.0
    prior = np.eye(len(combined.z_mean))
    precision = np.linalg.inv(combined.z_cov)
    cov = np.linalg.inv(prior + beta * (precision - prior))
    mean = cov @ (beta * precision @ combined.z_mean)
    return _changed(combined, "beta", mean, 0.5 * (cov + cov.T), {"beta": beta}, rng)


def _changed(
    combined: CombinedPosterior,
    remedy: str,
    mean: np.ndarray[tuple[int], np.dtype[np.float64]],
    cov: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    facts: dict[str, float],
    rng: Rng,
) -> CombinedPosterior:
    result = combined_from_gaussian(
        f"{combined.combiner}+{remedy}",
        combined.space,
        combined.n,
        mean,
        cov,
        draws=len(combined.samples),
        rng=rng,
        flags=combined.flags,
    )
    return replace(result, diagnostics=facts)
