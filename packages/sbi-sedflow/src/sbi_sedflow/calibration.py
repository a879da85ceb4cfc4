"""Calibration of derived quantities and of the likelihood; sharpness of the posterior.

References:
    | Modrak et al. 2023, Bayesian Analysis (ranks of the likelihood as a test quantity)
"""

from __future__ import annotations

from dataclasses import dataclass
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
_DRAWS = 200  # per galaxy, with the exact likelihood
_LEVEL = 0.01
_SHARP = 2.0  # chi-squared of draws over that of the truth


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration on simulated galaxies.

    Parameters
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

    p_values: dict[str, float]
    coverage: dict[str, float]
    ppc_ratio: float
    efficiency: F64
    chi2_truth: float
    chi2_draws: float


def calibrate(
    simulator: SedflowSimulator,
    posterior: Posterior,
    batch: Batch,
    rng: Rng,
    *,
    draws: int = _DRAWS,
) -> Calibration:
    """Compare draws with the truth of simulated galaxies.

    Parameters
    ----------
    simulator, posterior
        Model and posterior.
    batch
        Observed simulations with theta.
    rng
        Random numbers.
    draws
        Draws per galaxy.
    """
    gen = as_generator(rng)
    observations = Observations.from_batch(batch)
    galaxies = Galaxies.of(observations, simulator.bands.softening)
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
    result = calibrate(simulator, posterior, held_out, rng)
    tested = {k: p for k, p in result.p_values.items() if k != "log_likelihood"}
    worst = min(tested, key=lambda k: tested[k])
    limit = _LEVEL / len(result.p_values)
    level: Any = "pass" if tested[worst] > limit else "warn"
    ratio = result.ppc_ratio
    sharp: Any = "pass" if ratio <= _SHARP else "warn"
    median = float(np.median(result.efficiency))
    verdicts = [
        (level, f"SBC ranks of {len(tested)} derived quantities: smallest p = {tested[worst]:.2g} "
                f"({worst}; limit {limit:.2g}) on {len(held_out)} simulations."),
        (sharp, f"The chi-squared of draws is {ratio:.2f} times that of the true parameters "
                f"(medians {result.chi2_draws:.1f} and {result.chi2_truth:.1f}; limit {_SHARP:g}); "
                f"median importance efficiency {100 * median:.2g} %."),
    ]  # fmt: skip
    rows = [
        [name, f"{result.p_values[name]:.3g}", f"{result.coverage[name]:.3f}"]
        for name in result.p_values
    ]
    section = Section(
        "Derived quantities and sharpness",
        text=(
            "Ranks of single parameters can be uniform although draws do not fit the data. These "
            "tests use the exact likelihood: for the exact posterior, draws and true parameters "
            "have the same distribution of chi-squared, and the rank of the true likelihood is "
            "uniform. The last row, the rank of the likelihood, is shown but not tested: an "
            "amortised posterior is expected to fail it, and refinement corrects it with "
            "importance weights.",
        ),
        tables=(Grid(("quantity", "SBC p-value", "68 % coverage"), rows),),
    )
    numbers = {
        "derived_sbc_p": result.p_values,
        "derived_coverage_68": result.coverage,
        "ppc_chi2_ratio": ratio,
        "ppc_chi2_truth": result.chi2_truth,
        "is_efficiency_median": median,
    }
    return Findings(numbers=numbers, verdicts=verdicts, sections=(section,))
