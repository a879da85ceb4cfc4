"""Results per galaxy: exact chi-squared and importance weights, refinement, derived quantities.

The chi-squared and the importance weights of some of the draws are computed with the exact
likelihood; galaxies without a fitting draw are refined. Random numbers depend on the identifier of
a galaxy, so that its results do not depend on the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sbi_core import Observations, Posterior, PosteriorSamples, diagnostics, stream
from sbi_sedflow.certify import Masks
from sbi_sedflow.derived import DERIVED
from sbi_sedflow.flags import NAMED, Flag, words
from sbi_sedflow.likelihood import Galaxies, chi_squared, model_fluxes
from sbi_sedflow.noise import log_prob_flux
from sbi_sedflow.priorwidth import QUANTITIES, PriorWidth
from sbi_sedflow.refine import refine_galaxy
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
    checked = theta[: min(_CHECKED, draws)]
    chi2, weights = _check(simulator, posterior, objects, galaxies, checked)
    percentile = support.colour_percentile(galaxies)
    n_bands = galaxies.mask.sum(1).numpy()
    bits = np.asarray(objects.labels.get("flag_bits", np.zeros(len(objects))), np.int64).copy()
    p = stats.chi2.sf(chi2.min(0), np.maximum(n_bands, 1))
    bits[n_bands < len(simulator.bands)] |= Flag.MISSING_BAND
    bits[support.wide_noise(galaxies)] |= Flag.WIDE_NOISE
    bits[percentile > _OOD] |= Flag.OOD_COLOUR
    bits[p < _BAD_P] |= Flag.BAD_FIT
    low = max(1.2, _LOW_EFFICIENCY * len(checked))
    bits[weights.efficiency * len(checked) < low] |= Flag.LOW_IS
    method, ends = ["npe"] * len(objects), [""] * len(objects)
    efficiency, ess = weights.efficiency.copy(), weights.efficiency * len(checked)
    chi2_min = chi2.min(0)
    chosen = {
        "none": np.zeros(len(objects), bool),
        "all": np.ones(len(objects), bool),
        "flagged": ((bits & int(Flag.BAD_FIT)) != 0) | (((bits & _ODD) != 0) & (ess < _FEW)),
    }[refine]
    for k in np.flatnonzero(chosen & ~empty):
        one = galaxies[np.array([k])]
        rng = stream(seed, "refine", str(objects.id[k]))
        target = Target(simulator, one)
        refined = refine_galaxy(
            posterior, objects[np.array([k])], target, rng, draws=draws, limit=limit
        )
        theta[:, k] = refined.theta
        method[k], ends[k] = refined.method, refined.end
        efficiency[k], ess[k] = refined.efficiency, refined.ess
        bits[k] |= refined.flags
        again = model_fluxes(simulator, refined.theta[:_CHECKED, None], one)
        chi2_min[k] = chi_squared(again, one, simulator.floor).min()
        if stats.chi2.sf(chi2_min[k], max(int(n_bands[k]), 1)) >= _BAD_P:
            bits[k] &= ~int(Flag.BAD_FIT)
    bits[_near_edges(simulator, theta)] |= Flag.PRIOR_EDGE
    checks = [masks(m) for m in galaxies.mask.numpy()]
    network = np.asarray([m == "npe" for m in method])
    bits[network & np.asarray([not c.certified for c in checks])] |= Flag.MASK_NOT_CERTIFIED
    derived = _derived(simulator, theta, galaxies)
    ratio, dominated = widths(theta, derived, galaxies.context[:, 0].numpy())
    bits[dominated.any(0)] |= Flag.PRIOR_DOMINATED
    bits[dominated[0]] |= Flag.PRIOR_DOMINATED_SFR
    return samples.described(
        values=theta,
        derived=derived,
        units=DERIVED,
        columns={
            "z": galaxies.context[:, 0].numpy(),
            "n_bands": n_bands,
            "chi2_min": chi2_min,
            "is_eff": efficiency,
            "is_ess": ess,
            "colour_percentile": percentile,
            **{f"prior_width_{q}": ratio[k] for k, q in enumerate(QUANTITIES)},
            "mask_p": np.asarray([c.p for c in checks]),
            "mask_share": np.asarray([c.share for c in checks]),
            "method": np.asarray(method, "U8"),
            "refinement": np.asarray(ends, "U9"),
            "flag_bits": bits,
        },
        flags=[words(int(b) & int(NAMED)).lower() for b in bits],
    )


def _check(
    simulator: SedflowSimulator,
    posterior: Posterior,
    part: Observations,
    galaxies: Galaxies,
    theta: F64,
) -> tuple[F64, diagnostics.ImportanceWeights]:
    """Return chi-squared (S, n) of draws, and their importance weights."""
    flux = model_fluxes(simulator, theta, galaxies)
    log_l = log_prob_flux(galaxies.flux, galaxies.sigma, flux, galaxies.mask, simulator.floor)
    s, n, d = theta.shape
    log_prior = posterior.space.log_prob(theta.reshape(s * n, d)).reshape(s, n)
    log_q = posterior.log_prob(theta, part)
    weights = diagnostics.importance_weights(log_l.numpy(), log_prior, log_q)
    return chi_squared(flux, galaxies, simulator.floor), weights


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
