"""Calibration of what single parameters do not show: derived quantities, likelihood, sharpness.

References:
    | Modrak et al. 2023, Bayesian Analysis (ranks of the likelihood as a test quantity)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sbi_core import (
    Batch,
    Findings,
    Grid,
    Observations,
    Posterior,
    Rng,
    Section,
    as_generator,
    diagnostics,
)
from sbi_sedflow.derived import DERIVED
from sbi_sedflow.likelihood import Galaxies, chi_squared, model_fluxes
from sbi_sedflow.noise import log_prob_flux

if TYPE_CHECKING:
    from sbi_sedflow.simulator import SedflowSimulator

__all__ = ["Calibration", "calibrate", "check_galaxies"]

F64 = NDArray[np.float64]
_DRAWS = 200  # per galaxy, that meet the exact likelihood
_LEVEL = 0.01


class Calibration:
    """Numbers of the calibration on simulated galaxies.

    Attributes
    ----------
    p_values
        KS p-value of the ranks of every derived quantity and of the log likelihood.
    coverage
        Share of truths inside the central 68 % interval, by quantity.
    ppc_ratio
        Median chi-squared of draws over that of the truth.
    efficiency
        Importance efficiency per galaxy, (n,).
    chi2_truth, chi2_draws
        Medians.
    """

    def __init__(self, **found: Any) -> None:
        self.p_values: dict[str, float] = found["p_values"]
        self.coverage: dict[str, float] = found["coverage"]
        self.ppc_ratio: float = found["ppc_ratio"]
        self.efficiency: F64 = found["efficiency"]
        self.chi2_truth: float = found["chi2_truth"]
        self.chi2_draws: float = found["chi2_draws"]


def calibrate(
    simulator: SedflowSimulator,
    posterior: Posterior,
    batch: Batch,
    rng: Rng,
    *,
    draws: int = _DRAWS,
) -> Calibration:
    """Compare draws with the truth of simulated galaxies, by everything the model computes.

    Parameters
    ----------
    simulator, posterior
        Model and posterior.
    batch
        Observed simulations with theta.
    rng
        Where randomness comes from.
    draws
        Draws per galaxy.
    """
    gen = as_generator(rng)
    observations = Observations.from_batch(batch)
    galaxies = Galaxies.of(observations)
    assert batch.theta is not None
    truth = batch.theta.double().cpu().numpy()
    theta = posterior.sample(observations, draws, seed=int(gen.integers(2**31))).values
    flux, true_flux = (model_fluxes(simulator, t, galaxies) for t in (theta, truth[None]))
    args = galaxies.flux, galaxies.sigma
    log_l = log_prob_flux(*args, flux, galaxies.mask, simulator.floor).numpy()
    true_log_l = log_prob_flux(*args, true_flux, galaxies.mask, simulator.floor).numpy()[0]
    s, n, d = theta.shape
    log_prior = posterior.space.log_prob(theta.reshape(s * n, d)).reshape(s, n)
    log_q = posterior.log_prob(theta, observations)
    efficiency = diagnostics.is_efficiency(log_l, log_prior, log_q)
    chi2 = chi_squared(flux, galaxies, simulator.floor)
    chi2_true = chi_squared(true_flux, galaxies, simulator.floor)[0]
    z = galaxies.context[:, 0]
    of_draws = simulator.model.derived(theta.reshape(s * n, d), z.expand(s, n).reshape(-1))
    of_truth = simulator.model.derived(truth, z)
    quantities = {k: (of_draws[k].reshape(s, n), of_truth[k]) for k in DERIVED}
    quantities["log_likelihood"] = (log_l, true_log_l)
    p_values, coverage = {}, {}
    for name, (a, b) in quantities.items():
        ranks = diagnostics.sbc_ranks(a[..., None], b[:, None], gen)
        p_values[name] = float(np.atleast_1d(diagnostics.sbc_uniformity(ranks, s))[0])
        coverage[name] = float(diagnostics.coverage_central(ranks, s, (0.68,))[0, 0])
    seen = galaxies.mask.any(1).numpy()
    chi2_truth, chi2_draws = float(np.median(chi2_true[seen])), float(np.median(chi2[:, seen]))
    return Calibration(
        p_values=p_values,
        coverage=coverage,
        ppc_ratio=chi2_draws / max(chi2_truth, 1e-9),
        efficiency=efficiency,
        chi2_truth=chi2_truth,
        chi2_draws=chi2_draws,
    )


def check_galaxies(
    simulator: SedflowSimulator, posterior: Posterior, held_out: Batch, rng: Rng
) -> Findings:
    """Return the calibration of derived quantities, and the sharpness, as findings."""
    found = calibrate(simulator, posterior, held_out, rng)
    n = len(held_out)
    worst = min(found.p_values.items(), key=lambda kv: kv[1])
    limit = _LEVEL / len(found.p_values)
    fair = {k: v for k, v in found.p_values.items() if k != "log_likelihood"}
    level: Any = "pass" if min(fair.values()) > limit else "warn"
    ratio = found.ppc_ratio
    sharp: Any = "pass" if ratio <= 2 else "warn"
    median = float(np.median(found.efficiency))
    verdicts = [
        (level, f"Ranks of derived quantities and of the likelihood: smallest p = {worst[1]:.2g} "
                f"({worst[0]}) on {n} simulations."),
        (sharp, f"Draws fit the data {ratio:.2f} times as badly as the truth (median chi-squared "
                f"{found.chi2_draws:.1f} against {found.chi2_truth:.1f}; 2 is the limit); "
                f"importance efficiency {100 * median:.2g} % (median)."),
    ]  # fmt: skip
    rows = [
        [name, f"{found.p_values[name]:.3g}", f"{found.coverage[name]:.3f}"]
        for name in found.p_values
    ]
    section = Section(
        "Derived quantities and sharpness",
        text=(
            "Ranks of single parameters can be right while draws do not fit the data. Here the "
            "exact likelihood is asked: were the posterior exact, draws and truth would have the "
            "same distribution of chi-squared, and the rank of the likelihood of the truth among "
            "that of the draws would be uniform. Importance weights correct what is left "
            "(refinement).",
        ),
        tables=(Grid(("quantity", "SBC p-value", "68 % coverage"), rows),),
    )
    numbers = {
        "derived_sbc_p": found.p_values,
        "derived_coverage_68": found.coverage,
        "ppc_chi2_ratio": ratio,
        "ppc_chi2_truth": found.chi2_truth,
        "is_efficiency_median": median,
    }
    return Findings(numbers=numbers, verdicts=verdicts, sections=(section,))
