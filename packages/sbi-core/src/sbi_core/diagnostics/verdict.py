r"""Verdicts: the outcome of every calibration test, in words.

=================  =====================================  ========================  ==============
quantity           pass                                   warn                      fail
=================  =====================================  ========================  ==============
SBC, PIT, TARP     p > 0.01 after Holm's correction                                 otherwise
coverage           within 3 binomial sigma of nominal                               otherwise
combined z-rms     0.8 to 1.3                             1/1.6 to 1.6              otherwise
skill (RPS)        > 0                                    -0.05 to 0                otherwise
importance         efficiency > 10 %, Pareto k < 0.7      > 1 %                     otherwise
predictive chi2    p > 0.01/B for B objects               otherwise
prior conflict     p > 0.01/B for B objects               otherwise
=================  =====================================  ========================  ==============

The limits of z-rms are widened by its sampling error :math:`1/\sqrt{2Rd}` (relative, R repeats
of d pooled parameters). False alarms of a calibrated posterior: 1 % for all SBC tests of a run
together, 0.3 % per coverage level and parameter, 1 % at most for predictive chi-squared and prior
conflict of all objects together. The last two test data, not calibration, and never fail a run.

References:
    | docs/calibration.md
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from sbi_core.diagnostics.holm import holm

__all__ = [
    "Level",
    "Verdict",
    "combine_verdicts",
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

Level: TypeAlias = Literal["pass", "warn", "fail"]

FALSE_ALARM = 0.01
COVERAGE_SIGMAS = 3.0
Z_RMS_PASS = (0.8, 1.3)
Z_RMS_WARN = (1.0 / 1.6, 1.6)
EFFICIENCY_LIMITS = (0.1, 0.01)
PARETO_K = 0.7
SKILL_WARN = -0.05

_SEVERITY: dict[Level, int] = {"pass": 0, "warn": 1, "fail": 2}


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of one test.

    Attributes
    ----------
    level : "pass", "warn" or "fail"
    sentence : str
        The result in words, for the report.
    test : str
        Kind of test, where the report has a table of all tests of that kind: "sbc", "coverage",
        "tarp" or "z_rms".
    """

    level: Level
    sentence: str
    test: str = ""

    @property
    def ok(self) -> bool:
        """True unless this fails the run; a warning does not."""
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
        d, the number of quantities tested together.
    """
    return _judge_p(f"SBC ranks of {name}", p, tests, "sbc")


def judge_sbc_all(names: Sequence[str], p: ArrayLike) -> list[Verdict]:
    """Judge the SBC ranks of several quantities together, with Holm's correction.

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
    corrected = holm(p)
    note = f" after Holm's correction for {len(corrected)} tests" if len(corrected) > 1 else ""
    return [
        _judge_p(f"SBC ranks of {name}", float(v), 1, "sbc", note)
        for name, v in zip(names, corrected, strict=True)
    ]


def judge_pit(name: str, p: float, *, tests: int = 1) -> Verdict:
    """Judge the randomised PIT of an integer parameter by the p-value of its uniformity."""
    return _judge_p(f"Probability integral transforms of {name}", p, tests)


def judge_tarp(p: float, *, tests: int = 1, references: str = "") -> Verdict:
    """Judge a TARP curve by the p-value of :func:`~sbi_core.diagnostics.tarp.tarp`.

    Parameters
    ----------
    p : float
    tests : int
        Kinds of references that are tested together.
    references : str
        How the reference points were chosen, e.g. "uniform".
    """
    kind = f" ({references} reference points)" if references else ""
    return _judge_p(f"TARP credibilities of all parameters{kind}", p, tests, "tarp")


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
        Number of objects behind the fraction.
    """
    sigma = float(np.sqrt(nominal * (1.0 - nominal) / objects))
    deviation = (coverage - nominal) / sigma
    result = (
        f"{100 * nominal:.0f} % intervals of {name} contain {100 * coverage:.1f} % of true values "
        f"({deviation:+.1f} sigma)"
    )
    if abs(deviation) < COVERAGE_SIGMAS:
        return Verdict("pass", f"{result}: consistent with nominal coverage.", "coverage")
    error = "too narrow or biased" if deviation < 0 else "too wide"
    return Verdict("fail", f"{result}: the posterior is {error}.", "coverage")


def judge_z_rms(name: str, z_rms: float, *, repeats: int, pooled: int = 1) -> Verdict:
    """Judge the z-rms of combined posteriors.

    Parameters
    ----------
    name : str
        Name of the combination, for example ``"gaussian, N = 100"``.
    z_rms : float
    repeats : int
        R, the number of simulated groups.
    pooled : int
        d, the number of parameters behind this one number.
    """
    error = float(1.0 / np.sqrt(2.0 * repeats * pooled))
    result = (
        f"RMS z-score of the combined posterior ({name}): {z_rms:.2f} +- {z_rms * error:.2f} "
        "(1 if calibrated)"
    )
    if _within(z_rms, Z_RMS_PASS, error):
        return Verdict("pass", f"{result}.", "z_rms")
    too = "small" if z_rms > 1.0 else "large"
    level: Level = "warn" if _within(z_rms, Z_RMS_WARN, error) else "fail"
    return Verdict(level, f"{result}: the quoted errors are too {too}.", "z_rms")


def judge_skill(name: str, skill: float) -> Verdict:
    """Judge the skill of :func:`~sbi_core.diagnostics.rps.rps_skill`."""
    result = f"Ranked probability skill of the posterior of {name} over the prior: {skill:.3f}"
    if skill > 0:
        return Verdict("pass", f"{result}.")
    level: Level = "warn" if skill > SKILL_WARN else "fail"
    return Verdict(level, f"{result}: the posterior is not better than the prior.")


def judge_importance(name: str, efficiency: float, pareto_k: float = 0.0) -> Verdict:
    """Judge importance weights by their efficiency and the index of their tail."""
    result = f"Importance sampling efficiency of {name}: {100 * efficiency:.2g} %"
    good, poor = EFFICIENCY_LIMITS
    if efficiency > good and not pareto_k >= PARETO_K:
        return Verdict("pass", f"{result}.")
    if efficiency > poor:
        tail = f" (Pareto k = {pareto_k:.2f})" if pareto_k >= PARETO_K else ""
        return Verdict("warn", f"{result}{tail}: the posterior differs from the exact one.")
    return Verdict("fail", f"{result}: too low to correct the posterior.")


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


def _judge_p(what: str, p: float, tests: int, test: str = "", note: str = "") -> Verdict:
    numbers = f"(p = {p:.2g}{note})"
    if p > FALSE_ALARM / tests:
        return Verdict("pass", f"{what} are consistent with uniformity {numbers}.", test)
    return Verdict("fail", f"{what} are not uniform {numbers}.", test)


def _judge_objects(what: str, p: ArrayLike) -> Verdict:
    """Judge one p-value per object, by Bonferroni; objects with NaN were not tested."""
    values = np.asarray(p, dtype=np.float64).ravel()
    known = np.isfinite(values)
    if not known.any():
        return Verdict("warn", f"Not tested: objects that {what}.")
    low = np.flatnonzero(known & (values < FALSE_ALARM / known.sum()))
    if not low.size:
        return Verdict("pass", f"None of {known.sum()} objects {what}.")
    listed = ", ".join(map(str, low[:5])) + (", ..." if low.size > 5 else "")
    return Verdict("warn", f"{low.size} of {known.sum()} objects {what} (rows {listed}).")


def _within(value: float, limits: tuple[float, float], error: float) -> bool:
    """Return True if value lies within limits that are widened by a relative error."""
    low, high = limits
    return bool(low * (1.0 - error) <= value <= high * (1.0 + error))
