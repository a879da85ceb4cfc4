r"""Verdicts in words: which calibration gate passed, which did not, and what that means.

=================  =====================================  ========================  ==============
quantity           pass                                   warn                      fail
=================  =====================================  ========================  ==============
SBC, PIT, TARP     p > 0.01 after Holm's correction                                 otherwise
coverage           within 3 binomial sigma of nominal                               otherwise
combined z-rms     0.8 to 1.3                             1/1.6 to 1.6              otherwise
C2ST               < 0.6                                  < 0.7                     otherwise
skill (RPS)        > 0                                    -0.05 to 0                otherwise
importance         efficiency > 10 %, Pareto k < 0.7      > 1 %                     otherwise
predictive chi2    p > 0.01/B for B objects               otherwise
prior conflict     p > 0.01/B for B objects               otherwise
=================  =====================================  ========================  ==============

The limits of z-rms are widened by its sampling error :math:`1/\sqrt{2Rd}` (relative, R repeats
of d pooled parameters). False alarms of a calibrated posterior: 1 % for all SBC tests of a run
together, 0.3 % per coverage level and parameter, 1 % at most for predictive chi-squared and prior
conflict of all objects together. The last two speak of data, not of calibration: they never fail.

References:
    | docs/calibration.md
"""

__all__ = [
    "Level",
    "Verdict",
    "combine_verdicts",
    "judge_c2st",
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
]

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from sbi_core.diagnostics.holm import holm

Level: TypeAlias = Literal["pass", "warn", "fail"]

FALSE_ALARM = 0.01
COVERAGE_SIGMAS = 3.0
Z_RMS_PASS = (0.8, 1.3)
Z_RMS_WARN = (1.0 / 1.6, 1.6)
C2ST_LIMITS = (0.6, 0.7)
EFFICIENCY_LIMITS = (0.1, 0.01)
PARETO_K = 0.7
SKILL_WARN = -0.05

_SEVERITY: dict[Level, int] = {"pass": 0, "warn": 1, "fail": 2}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One gate's outcome.

    Attributes
    ----------
    level : "pass", "warn" or "fail"
    sentence : str
        What was found, in words a reader of the report understands.
    """

    level: Level
    sentence: str

    @property
    def ok(self) -> bool:
        """Whether this does not fail the run (a warning does not)."""
        return self.level != "fail"


def judge_sbc(name: str, p: float, *, tests: int = 1) -> Verdict:
    """Judge the uniformity of one quantity's SBC ranks.

    Parameters
    ----------
    name : str
        Of the quantity, as it should appear in the sentence.
    p : float
        From :func:`~sbi_core.diagnostics.sbc.sbc_uniformity`.
    tests : int
        d, how many quantities are tested together.
    """
    return _judge_p(f"SBC ranks of {name}", p, tests)


def judge_sbc_all(names: Sequence[str], p: ArrayLike) -> list[Verdict]:
    """Judge the SBC ranks of several quantities together, by Holm's correction.

    Parameters
    ----------
    names : (d,)
    p : (d,)
        From :func:`~sbi_core.diagnostics.sbc.sbc_uniformity`.

    Returns
    -------
    list of Verdict
        1 % false alarms for all of them together; sentences show the corrected p-values.
    """
    return [judge_sbc(n, float(v)) for n, v in zip(names, holm(p), strict=True)]


def judge_pit(name: str, p: float, *, tests: int = 1) -> Verdict:
    """Judge the randomised PIT of an integer parameter by the p-value of its uniformity."""
    return _judge_p(f"integral transform of {name}", p, tests)


def judge_tarp(p: float, *, tests: int = 1) -> Verdict:
    """Judge a TARP curve by the p-value of :func:`~sbi_core.diagnostics.tarp.tarp`.

    Parameters
    ----------
    p : float
    tests : int
        Kinds of references that are tested together.
    """
    return _judge_p("joint TARP coverage", p, tests)


def judge_coverage(name: str, coverage: float, nominal: float, *, objects: int) -> Verdict:
    """Judge the coverage of one quantity at one level.

    Parameters
    ----------
    name : str
    coverage : float
        Measured fraction.
    nominal : float
        The level, in (0, 1).
    objects : int
        How many objects it was measured on.
    """
    sigma = float(np.sqrt(nominal * (1.0 - nominal) / objects))
    deviation = (coverage - nominal) / sigma
    found = f"{100 * nominal:.0f} % intervals of {name} contain {100 * coverage:.1f} % of truths"
    if abs(deviation) < COVERAGE_SIGMAS:
        return Verdict("pass", f"{found}, as they should.")
    error = "too narrow or biased" if deviation < 0 else "too wide"
    return Verdict("fail", f"{found} ({deviation:+.1f} sigma): the posterior is {error}.")


def judge_z_rms(name: str, z_rms: float, *, repeats: int, pooled: int = 1) -> Verdict:
    """Judge the z-rms of combined posteriors.

    Parameters
    ----------
    name : str
        What was combined, for example ``"alpha_imf at N=100"``.
    z_rms : float
    repeats : int
        R, the number of simulated groups.
    pooled : int
        d, the number of parameters behind this one number.
    """
    error = float(1.0 / np.sqrt(2.0 * repeats * pooled))
    found = f"combined errors of {name} are {z_rms:.2f} of the claimed ones (+-{error:.2f})"
    if _within(z_rms, Z_RMS_PASS, error):
        return Verdict("pass", f"{found}.")
    too = "small" if z_rms > 1.0 else "large"
    level: Level = "warn" if _within(z_rms, Z_RMS_WARN, error) else "fail"
    return Verdict(level, f"{found}: the error bars are too {too}.")


def judge_c2st(name: str, accuracy: float) -> Verdict:
    """Judge how well a classifier tells draws from those of the reference posterior."""
    found = f"a classifier tells {name} from the reference posterior in {100 * accuracy:.1f} %"
    good, poor = C2ST_LIMITS
    if accuracy < good:
        return Verdict("pass", f"{found} of draws (50 % would be guessing).")
    level: Level = "warn" if accuracy < poor else "fail"
    return Verdict(level, f"{found} of draws: they differ.")


def judge_skill(name: str, skill: float) -> Verdict:
    """Judge the skill of :func:`~sbi_core.diagnostics.rps.rps_skill`."""
    found = f"the posterior of {name} has a skill of {skill:.3f} relative to the prior"
    if skill > 0:
        return Verdict("pass", f"{found}.")
    return Verdict("warn" if skill > SKILL_WARN else "fail", f"{found}: it is no better.")


def judge_importance(name: str, efficiency: float, pareto_k: float = 0.0) -> Verdict:
    """Judge importance weights by their efficiency and the index of their tail."""
    found = f"importance weights of {name} keep {100 * efficiency:.2g} % of the draws"
    good, poor = EFFICIENCY_LIMITS
    if efficiency > good and not pareto_k >= PARETO_K:
        return Verdict("pass", f"{found}.")
    if efficiency > poor:
        tail = f" (Pareto k = {pareto_k:.2f})" if pareto_k >= PARETO_K else ""
        return Verdict("warn", f"{found}{tail}: the posterior differs from the exact one.")
    return Verdict("fail", f"{found}: too few to correct the posterior.")


def judge_ppc(p: ArrayLike) -> Verdict:
    """Judge the posterior-predictive p-values of B objects; never worse than a warning."""
    return _judge_objects("have data that their posterior does not reproduce", p)


def judge_prior_conflict(p: ArrayLike) -> Verdict:
    """Judge the prior-data conflict of B objects; never worse than a warning."""
    return _judge_objects("lie implausibly far in the tail of the prior", p)


def combine_verdicts(verdicts: Iterable[Verdict]) -> Verdict:
    """Overall verdict: the worst level, with the sentences of all that did not pass.

    Parameters
    ----------
    verdicts : iterable of Verdict

    Returns
    -------
    Verdict
        ``"warn"`` if there was nothing to judge: an unchecked posterior has not passed.
    """
    ranked = sorted(verdicts, key=lambda verdict: -_SEVERITY[verdict.level])
    if not ranked:
        return Verdict("warn", "Calibration was not checked.")
    worst = ranked[0].level
    if worst == "pass":
        return Verdict("pass", f"All {len(ranked)} calibration checks passed.")
    troubled = [verdict.sentence for verdict in ranked if verdict.level != "pass"]
    count = f"{len(troubled)} of {len(ranked)} calibration checks did not pass: "
    return Verdict(worst, count + " ".join(troubled))


def _judge_p(what: str, p: float, tests: int) -> Verdict:
    limit = FALSE_ALARM / tests
    if p > limit:
        return Verdict("pass", f"The {what} is consistent with calibration (p = {p:.2g}).")
    return Verdict("fail", f"The {what} is not that of a calibrated posterior (p = {p:.2g}).")


def _judge_objects(what: str, p: ArrayLike) -> Verdict:
    """Judge one p-value per object, by Bonferroni; objects with NaN were not tested."""
    values = np.asarray(p, dtype=np.float64).ravel()
    known = np.isfinite(values)
    if not known.any():
        return Verdict("warn", f"It was not tested whether objects {what}.")
    low = np.flatnonzero(known & (values < FALSE_ALARM / known.sum()))
    if not low.size:
        return Verdict("pass", f"None of {known.sum()} objects {what}.")
    listed = ", ".join(map(str, low[:5])) + (", ..." if low.size > 5 else "")
    return Verdict("warn", f"{low.size} of {known.sum()} objects {what} (rows {listed}).")


def _within(value: float, limits: tuple[float, float], error: float) -> bool:
    """Whether value lies within limits that are widened by a relative error."""
    low, high = limits
    return bool(low * (1.0 - error) <= value <= high * (1.0 + error))
