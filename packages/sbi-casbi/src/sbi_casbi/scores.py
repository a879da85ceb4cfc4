"""Accuracy and calibration of N and of the sets of members, on held-out halos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sbi_casbi import figures
from sbi_casbi.members import MemberSamples
from sbi_casbi.sets.diagnostics import (
    in_probability_set,
    ospa,
    pmf_of_draws,
    pp_deviation,
    randomised_ranks,
)
from sbi_core import Drawing, Findings, Grid, Section, as_generator, counted, diagnostics

if TYPE_CHECKING:
    from sbi_casbi.simulator import CasbiSimulator
    from sbi_core import Batch, Posterior, Rng

__all__ = ["check_sets", "prior_pmf", "score_counts", "score_members"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
_LEVEL = 0.90
_TOP = 3
_DRAWS = 100
_HALOS = 300  # halos whose sets are drawn for the diagnostics
_STRATA = ((1, 10), (11, 40), (41, 100))
_UNITS = {"log_mstar": "dex", "log_mdm": "dex", "tau": "Gyr"}


def score_counts(
    pmf: F64, truth: I64, counts: I64, prior: F64, rng: np.random.Generator
) -> dict[str, float]:
    """Return accuracy and calibration of N.

    Parameters
    ----------
    pmf
        q(N | x), (n, R).
    truth
        True N, (n,).
    counts
        Values of N, (R,).
    prior
        Their prior probabilities, (R,).
    rng
        Random generator of randomised tests.

    Returns
    -------
    dict
        ``nll_gain`` [nat] over the prior, ``mae`` of the median and of the median of the prior
        (``mae_blind``), ``rps_skill``, ``pit_p``, ``coverage_90`` of the highest-probability set.
    """
    place = truth - counts[0]
    rows = np.arange(len(truth))
    gain = np.log(np.maximum(pmf[rows, place], 1e-300)) - np.log(np.maximum(prior[place], 1e-300))
    median = counts[(np.cumsum(pmf, axis=1) >= 0.5).argmax(axis=1)]
    blind = counts[(np.cumsum(prior) >= 0.5).argmax()]
    u = diagnostics.pit_integer(pmf / pmf.sum(1, keepdims=True), truth, rng, low=int(counts[0]))
    inside = in_probability_set(pmf, place, _LEVEL, rng)
    return {
        "nll_gain": float(gain.mean()),
        "mae": float(np.abs(median - truth).mean()),
        "mae_blind": float(np.abs(blind - truth).mean()),
        "rps_skill": float(
            diagnostics.rps_skill(pmf / pmf.sum(1, keepdims=True), truth, prior, low=int(counts[0]))
        ),
        "pit_p": float(diagnostics.pit_uniformity(u)),
        "coverage_90": float(inside.mean()),
    }


def score_members(
    members: MemberSamples, truth: F64, count: I64, rng: np.random.Generator
) -> dict[str, Any]:
    """Return errors and calibration of the k-th member, and distances of sets.

    Parameters
    ----------
    members
        Draws of sets for n halos.
    truth
        True sets (n, K, d), zero-padded.
    count
        True N, (n,).
    rng
        Random generator of randomised ranks.

    Returns
    -------
    dict
        ``"k=1"`` etc.: MAE of the median and blind MAE per parameter; ``pp_top``: largest P-P
        deviation per (member, parameter) of the top three; ``ospa``: mean distance of drawn sets
        to the truth, and ``ospa_blind`` of those to the sets of other halos.
    """
    scores: dict[str, Any] = {}
    d = truth.shape[2]
    deviations = {}
    for k in (1, 2, 3, 5):
        if k > truth.shape[1]:
            continue
        there = count >= k
        if there.sum() < 20:
            continue
        value, exists = members.member(k)
        value = np.where(exists[..., None], value, np.nan)[:, there].astype(float)
        true = truth[there, k - 1]
        with np.errstate(all="ignore"):
            middle = np.nanmedian(value, axis=0)
        known = np.isfinite(middle[:, 0])
        error = np.abs(middle - true)[known].mean(0)
        blind = np.abs(np.median(true, 0) - true)[known].mean(0)
        scores[f"k={k}"] = {
            name: {"mae": float(error[j]), "mae_blind": float(blind[j])}
            for j, name in enumerate(members.names)
        }
        if k <= _TOP:
            # a missing member ranks below all existing ones
            filled = np.where(np.isnan(value), -1.0, value)
            ranks = randomised_ranks(filled, true, rng)
            for j in range(d):
                deviations[f"{members.names[j]}_{k}"] = float(pp_deviation(ranks[:, j]))
    scores["pp_top"] = deviations
    scores["ospa"], scores["ospa_blind"] = _distances(members, truth, count, rng)
    return scores


def _distances(
    members: MemberSamples, truth: F64, count: I64, rng: np.random.Generator
) -> tuple[float, float]:
    scale = np.array([0.5, 0.5, 3.0]) if truth.shape[2] == 3 else np.array([0.5, 3.0])
    some = np.arange(min(len(count), 60))
    other = rng.permutation(len(count))[: len(some)]
    ours, blind = [], []
    for i, j in zip(some, other, strict=True):
        drawn = members.values[0, i, : members.count[0, i]].astype(float)
        true = truth[i, : count[i]]
        ours.append(ospa(drawn, true, scale))
        blind.append(ospa(truth[j, : count[j]], true, scale))
    return float(np.mean(ours)), float(np.mean(blind))


def check_sets(
    simulator: CasbiSimulator, posterior: Posterior, held_out: Batch, rng: Rng
) -> Findings | None:
    """Return scores, verdicts and a report section about N and sets; None for other estimators."""
    estimator: Any = posterior.estimator
    if not hasattr(estimator, "sample_members") or held_out.theta_set is None:
        return None
    gen = as_generator(rng)
    assert held_out.theta_mask is not None
    count = held_out.theta_mask.sum(1).numpy()
    values = estimator.counts
    pmf = estimator.pmf(held_out)
    prior = prior_pmf(simulator, values)
    scores = score_counts(pmf, count, values, prior, gen)
    rows = slice(0, _HALOS)
    part = held_out[rows]
    assert part.theta_set is not None
    members = estimator.sample_members(part, _DRAWS, gen)
    sets = score_members(members, part.theta_set.double().numpy(), count[rows], gen)
    major = _score_major(simulator, members, part, gen)
    verdicts = [
        _verdict(diagnostics.judge_pit("n_sub", scores["pit_p"])),
        _verdict(
            diagnostics.judge_coverage(
                "n_sub (highest-probability set)", scores["coverage_90"], _LEVEL, objects=len(count)
            )
        ),
    ]
    numbers = {"n_sub": scores, "members": sets, "n_major": major, "strata": {}}
    for low, high in _STRATA:
        inside = (count >= low) & (count <= high)
        if inside.sum() >= 30:
            one = score_counts(pmf[inside], count[inside], values, prior, gen)
            numbers["strata"][f"{low}-{high}"] = {
                k: one[k] for k in ("nll_gain", "mae", "coverage_90")
            }
    wrong = miscovered(members.columns(simulator.config.n_min), part.theta, simulator.columns)
    numbers["not_to_use"] = wrong
    section = Section(
        "Number and members: held-out halos",
        (
            _advice(wrong),
            f"{counted(len(count), 'halo')} of galaxies that were not used for training. Star "
            "formation is assumed to stop at infall, so that a snapshot of an isolated dwarf "
            "galaxy can represent an accreted one. Errors are those of the posterior median; blind "
            "errors are those of the best constant estimate.",
        ),
        (
            Drawing(
                figures.recovered_counts(count, pmf, values),
                "Posterior median of N against its true value, with 16-84 % intervals.",
            ),
        ),
        (_count_table(scores, major), _member_table(sets), _strata_table(numbers["strata"])),
    )
    return Findings(numbers=numbers, verdicts=verdicts, sections=[section])


def miscovered(drawn: F64, truth: Any, names: Sequence[str]) -> dict[str, float]:
    """Return the coverage of the 68 % intervals of the columns where it is significantly wrong.

    Parameters
    ----------
    drawn
        Draws of the columns, (draw, n, c).
    truth
        True values, (n, c).
    names
        Names of the columns.

    Returns
    -------
    dict
        Name to fraction, where it differs from 0.68 by four standard errors: by chance for one
        column of 16 000.
    """
    true = np.asarray(truth, float)
    inside = np.abs(randomised_ranks(drawn, true, as_generator(0)) - 0.5) < 0.34
    error = np.sqrt(0.68 * 0.32 / len(true))
    share = inside.mean(0)
    return {n: float(s) for n, s in zip(names, share, strict=True) if abs(s - 0.68) > 4 * error}


def _advice(wrong: dict[str, float]) -> str:
    """Return the numbers of the run that are not to be used, in words."""
    if not wrong:
        return "The 68 % intervals of every number hold; members beyond the second: see below."
    listed = ", ".join(f"{name} ({100 * share:.0f} %)" for name, share in wrong.items())
    return (
        f"Do not use the errors of {listed}: the share of true values in their 68 % intervals is "
        "given in brackets. Those of the other columns hold."
    )


def prior_pmf(simulator: CasbiSimulator, counts: I64) -> F64:
    """Return the prior probabilities of N."""
    prior = simulator.parameters.parameters[0].prior
    return np.exp(prior.log_prob(counts[:, None].astype(float)))


def _verdict(verdict: Any) -> tuple[Any, str]:
    return verdict.level, verdict.sentence


def _score_major(
    simulator: CasbiSimulator, members: MemberSamples, part: Batch, gen: np.random.Generator
) -> dict[str, float]:
    assert part.theta is not None
    column = simulator.columns.index("n_major")
    truth = np.rint(part.theta[:, column].numpy()).astype(int)
    drawn = np.rint(members.columns(simulator.config.n_min)[..., column]).astype(int)
    pmf = pmf_of_draws(drawn, 0, simulator.config.n_max)
    return {
        "mae": float(np.abs(np.median(drawn, 0) - truth).mean()),
        "mae_blind": float(np.abs(np.median(truth) - truth).mean()),
        "coverage_90": float(in_probability_set(pmf, truth, _LEVEL, gen).mean()),
    }


def _count_table(scores: dict[str, float], major: dict[str, float]) -> Grid:
    head = ("quantity", "N_sub", "N(> 1 % of the mass)")
    return Grid(
        head,
        [
            ("gain over the prior [nat]", f"{scores['nll_gain']:.2f}", ""),
            ("mean absolute error", f"{scores['mae']:.1f}", f"{major['mae']:.1f}"),
            ("blind error", f"{scores['mae_blind']:.1f}", f"{major['mae_blind']:.1f}"),
            ("RPS skill", f"{scores['rps_skill']:.2f}", ""),
            ("PIT p-value", f"{scores['pit_p']:.2g}", ""),
            ("coverage of the 90 % set", _percent(scores), _percent(major)),
        ],
    )


def _percent(scores: dict[str, float]) -> str:
    return f"{100 * scores['coverage_90']:.1f} %"


def _member_table(sets: dict[str, Any]) -> Grid:
    names = list(sets.get("k=1", {}))
    rows = []
    for key in (k for k in sets if k.startswith("k=")):
        cells = [f"{sets[key][n]['mae']:.3f} ({sets[key][n]['mae_blind']:.3f})" for n in names]
        rows.append((f"member {key[2:]}", *cells))
    rows.append(
        (
            "OSPA distance of the set (of another halo's set)",
            f"{sets['ospa']:.2f} ({sets['ospa_blind']:.2f})",
        )
    )
    padded = [(*r, *[""] * (len(names) + 1 - len(r))) for r in rows]
    heads = [f"{name} [{_UNITS[name]}]" for name in names]
    return Grid(("mean absolute error (blind)", *heads), padded)


def _strata_table(strata: dict[str, dict[str, float]]) -> Grid:
    rows = [
        (f"N = {k}", f"{v['nll_gain']:.2f}", f"{v['mae']:.1f}", _percent(v))
        for k, v in strata.items()
    ]
    return Grid(("true N", "gain [nat]", "mean absolute error", "coverage of the 90 % set"), rows)
