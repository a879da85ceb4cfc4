"""Results per galaxy: exact chi-squared and importance weights, refinement, derived quantities.

The chi-squared and the importance weights of some of the draws are computed with the exact
likelihood; galaxies without a fitting draw are refined. Random numbers depend on the identifier of
a galaxy, so that its results do not depend on the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from sbi_core import Observations, Posterior, PosteriorSamples, diagnostics, stream
from sbi_sedflow.certify import Masks
from sbi_sedflow.derived import DERIVED
from sbi_sedflow.flags import NAMED, Flag, words
from sbi_sedflow.likelihood import Galaxies, chi_squared, model_fluxes, residuals
from sbi_sedflow.noise import log_prob_flux
from sbi_sedflow.priorwidth import QUANTITIES, PriorWidth
from sbi_sedflow.refine import Refined, refine_galaxy
from sbi_sedflow.support import Support
from sbi_sedflow.target import Target

if TYPE_CHECKING:
    from sbi_sedflow.simulator import SedflowSimulator

__all__ = ["Refine", "describe_galaxies"]

F64 = NDArray[np.float64]
Refine = Literal["flagged", "all", "none"]
_CHECKED = 200  # draws per galaxy for which the exact likelihood is computed
_LOW_EFFICIENCY = 0.005
_BAD_P = 1e-3
_EDGE, _EDGE_SHARE = 0.02, 0.5
_OOD = 99.9
_ODD = int(Flag.WIDE_NOISE | Flag.OOD_COLOUR)
_FEW = 4.0  # effective draws, below which unusual galaxies are refined


def describe_galaxies(
    simulator: SedflowSimulator,
    posterior: Posterior,
    objects: Observations,
    samples: PosteriorSamples,
    support: Support,
    masks: Masks,
    widths: PriorWidth,
    *,
    refine: Refine = "flagged",
    limit: int = 300_000,
    seed: int = 1,
) -> PosteriorSamples:
    """Return the draws, refined if necessary, with derived quantities, columns and flags.

    Parameters
    ----------
    simulator, posterior
        Model, and the trained posterior.
    objects
        Galaxies.
    samples
        Draws of the network.
    support
        The range of the training set.
    masks
        Calibration of the network by pattern of observed bands.
    widths
        Widths of the prior.
    refine
        ``flagged``: galaxies without a fitting draw, and those with unusual errors or colours
        and a low importance efficiency; ``all``; ``none``.
    limit
        Likelihood calls per refined galaxy.
    seed
        Root seed.
    """
    galaxies = Galaxies.of(objects, simulator.bands.softening)
    draws = len(samples.values)
    theta = samples.values.copy()
    empty = ~galaxies.mask.any(1).numpy()
    for k in np.flatnonzero(empty):  # nothing was observed: the posterior is the prior, exactly
        theta[:, k] = posterior.space.sample(draws, stream(seed, "prior", str(objects.id[k])))
    percentile = support.colour_percentile(galaxies)
    results = _by_network(simulator, posterior, objects, galaxies, theta)
    results.bits |= _flags_of_data(objects, galaxies, support, percentile)
    for k in np.flatnonzero(results.to_refine(refine) & ~empty):
        one = galaxies[np.array([k])]
        rng = stream(seed, "refine", str(objects.id[k]))
        refined = refine_galaxy(
            posterior, objects[[k]], Target(simulator, one), rng, draws=draws, limit=limit
        )
        results.take(int(k), refined, simulator, one)
    results.bits[_near_edges(simulator, theta)] |= Flag.PRIOR_EDGE
    checks = [masks(m) for m in galaxies.mask.numpy()]
    uncertified = np.asarray([not c.certified for c in checks])
    results.bits[(results.method == "npe") & uncertified] |= Flag.MASK_NOT_CERTIFIED
    derived = _derived(simulator, theta, galaxies)
    ratio, dominated = widths(theta, derived, galaxies.context[:, 0].numpy())
    results.bits[dominated.any(0)] |= Flag.PRIOR_DOMINATED
    results.bits[dominated[0]] |= Flag.PRIOR_DOMINATED_SFR
    return samples.described(
        values=theta,
        derived=derived,
        units=DERIVED,
        columns={
            "z": galaxies.context[:, 0].numpy(),
            "n_bands": results.n_bands,
            "chi2_min": results.chi2_min,
            **{
                f"residual_{b}": results.residual[:, k] for k, b in enumerate(simulator.bands.names)
            },
            "is_eff": results.efficiency,
            "is_ess": results.ess,
            "colour_percentile": percentile,
            **{f"prior_width_{q}": ratio[k] for k, q in enumerate(QUANTITIES)},
            "mask_p": np.asarray([c.p for c in checks]),
            "mask_share": np.asarray([c.share for c in checks]),
            "method": results.method,
            "refinement": results.end,
            "flag_bits": results.bits,
        },
        flags=[words(int(b) & int(NAMED)).lower() for b in results.bits],
    )


@dataclass
class _Results:
    """Results of n galaxies, changed where one is refined.

    Parameters
    ----------
    theta : (S, n, 12)
        Draws.
    residual : (n, B)
        Observed minus predicted fluxes, in errors.
    n_bands, chi2_min, efficiency, ess, bits, method, end : (n,)
        Bands observed; smallest chi-squared; share and number of effective draws; flags; how the
        draws were made, and how the refinement ended.
    """

    theta: F64
    residual: F64
    n_bands: NDArray[np.int64]
    chi2_min: F64
    efficiency: F64
    ess: F64
    bits: NDArray[np.int64]
    method: NDArray[np.str_]
    end: NDArray[np.str_]

    def to_refine(self, refine: Refine) -> NDArray[np.bool_]:
        """Return which galaxies are refined, (n,)."""
        if refine != "flagged":
            return np.full(len(self.bits), refine == "all")
        odd = ((self.bits & _ODD) != 0) & (self.ess < _FEW)
        return ((self.bits & int(Flag.BAD_FIT)) != 0) | odd

    def take(self, k: int, refined: Refined, simulator: SedflowSimulator, galaxy: Galaxies) -> None:
        """Replace the results of galaxy k, which is a row of its own, by refined ones."""
        self.theta[:, k] = refined.theta
        self.method[k], self.end[k] = refined.method, refined.end
        self.efficiency[k], self.ess[k] = refined.efficiency, refined.ess
        self.bits[k] |= refined.flags
        flux = model_fluxes(simulator, refined.theta[:_CHECKED, None], galaxy)
        self.chi2_min[k] = chi_squared(flux, galaxy, simulator.floor).min()
        self.residual[k] = residuals(flux, galaxy, simulator.floor)[0]
        if stats.chi2.sf(self.chi2_min[k], max(int(self.n_bands[k]), 1)) >= _BAD_P:
            self.bits[k] &= ~int(Flag.BAD_FIT)


def _by_network(
    simulator: SedflowSimulator,
    posterior: Posterior,
    objects: Observations,
    galaxies: Galaxies,
    theta: F64,
) -> _Results:
    """Return what draws of the network say, with flags of poor fits."""
    checked = theta[:_CHECKED]
    flux = model_fluxes(simulator, checked, galaxies)
    chi2 = chi_squared(flux, galaxies, simulator.floor)
    residual = residuals(flux, galaxies, simulator.floor)
    weights = _weights(simulator, posterior, objects, galaxies, checked, flux)
    n_bands, efficiency = galaxies.mask.sum(1).numpy(), weights.efficiency
    bits = np.zeros(len(objects), np.int64)
    bits[stats.chi2.sf(chi2.min(0), np.maximum(n_bands, 1)) < _BAD_P] |= Flag.BAD_FIT
    low = max(1.2, _LOW_EFFICIENCY * len(checked))
    bits[efficiency * len(checked) < low] |= Flag.LOW_IS
    method, end = np.full(len(objects), "npe", "U8"), np.full(len(objects), "", "U9")
    ess = efficiency * len(checked)
    return _Results(
        theta, residual, n_bands, chi2.min(0), efficiency.copy(), ess, bits, method, end
    )


def _flags_of_data(
    objects: Observations, galaxies: Galaxies, support: Support, percentile: F64
) -> NDArray[np.int64]:
    """Return the flags that follow from the data alone, (n,)."""
    bits = np.asarray(objects.labels.get("flag_bits", np.zeros(len(objects))), np.int64).copy()
    bits[~galaxies.mask.all(1).numpy()] |= Flag.MISSING_BAND
    bits[support.wide_noise(galaxies)] |= Flag.WIDE_NOISE
    bits[percentile > _OOD] |= Flag.OOD_COLOUR
    return bits


def _weights(
    simulator: SedflowSimulator,
    posterior: Posterior,
    part: Observations,
    galaxies: Galaxies,
    theta: F64,
    flux: Tensor,
) -> diagnostics.ImportanceWeights:
    """Return the importance weights of draws (S, n, d) with model fluxes (S, n, B)."""
    log_l = log_prob_flux(galaxies.flux, galaxies.sigma, flux, galaxies.mask, simulator.floor)
    s, n, d = theta.shape
    log_prior = posterior.space.log_prob(theta.reshape(s * n, d)).reshape(s, n)
    log_q = posterior.log_prob(theta, part)
    return diagnostics.importance_weights(log_l.numpy(), log_prior, log_q)


def _near_edges(simulator: SedflowSimulator, theta: F64) -> NDArray[np.bool_]:
    """Return which galaxies have most draws of a parameter next to a bound of its prior."""
    near = np.zeros(theta.shape[1], bool)
    for p, columns in simulator.parameters.blocks():
        if p.prior.size > 1 or p.name == "fburst":
            continue  # shares are often close to 0 or 1
        low, high = (float(v[0]) for v in p.prior.support)
        values = theta[..., columns.start]
        if p.prior.family == "loguniform":
            low, high, values = np.log(low), np.log(high), np.log(values)
        margin = _EDGE * (high - low)
        share = ((values < low + margin) | (values > high - margin)).mean(0)
        near |= share > _EDGE_SHARE
    return near


def _derived(simulator: SedflowSimulator, theta: F64, galaxies: Galaxies) -> dict[str, F64]:
    s, n, d = theta.shape
    z = galaxies.context[:, 0].expand(s, n).reshape(-1)
    found = simulator.model.derived(np.ascontiguousarray(theta).reshape(s * n, d), z)
    return {name: value.reshape(s, n) for name, value in found.items()}
