"""Stage ``diagnose``: is the posterior of one object calibrated, on held-out simulations?

Of many tests of a calibrated posterior some fail by chance: coverage is tested at four levels for
every parameter. Where enough other held-out simulations are left, two to four times as many, the
tests that failed are therefore made once more with these, by the same criteria, and this result
counts. The limits of the coverage are half as far from nominal then.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbi_core.analyses import Findings
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.diagnostics import (
    LEVELS,
    Tarp,
    Verdict,
    accuracy,
    combine_verdicts,
    coverage_central,
    judge_coverage,
    judge_sbc_all,
    judge_tarp,
    references_from_data,
    sbc_ranks,
    sbc_uniformity,
    tarp,
)
from sbi_core.errors import counted
from sbi_core.files.directory import write_json
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.held_out import independent_rows
from sbi_core.pipeline.stages import StageResult
from sbi_core.report.figures import drawing_style, section_records
from sbi_core.rng import stream
from sbi_core.training.splits import splits_of

__all__ = ["analysis_tests", "execute", "merged"]

I64 = NDArray[np.int64]
_FEW = 50  # held-out simulations of a fixed set
_AGAIN = (2, 4)  # fewest and most simulations of the second tests, in units of the first
_NUMBERS = 100_000_000  # of the draws of the second tests, at most


def execute(context: Context) -> StageResult:
    """Run SBC, coverage and TARP, and the checks of the domain."""
    rows, others = _test_rows(context)
    batch = _observed(context, rows, "noise")
    if context.simulator.fixed_set and len(batch) < _FEW:
        context.progress.say(
            f"calibration on {counted(len(batch), 'independent simulation')} only: its tests have "
            "little power; give more simulations, or more groups"
        )
    result = _single(context, batch, context.config.seed)
    if len(others) and not all(v.ok for v in result.verdicts):
        result = _with_second(context, result, others)
    findings = _of_analysis(context, batch)
    if findings is not None:
        more = [Verdict(level, sentence) for level, sentence in findings.verdicts]
        facts = {**result.facts, "domain": dict(findings.numbers)}
        result = StageResult(facts, [*result.verdicts, *more], result.arrays)
        if findings.sections:
            records = section_records(findings.sections, "diagnose")
            write_json(context.directory.diagnose_sections, records)
    context.progress.finish(combine_verdicts(result.verdicts).level)
    return result


def _test_rows(context: Context) -> tuple[I64, I64]:
    """Return held-out simulations for the tests, and others to repeat them: enough, or none."""
    rows = splits_of(context.training).test
    if context.simulator.fixed_set:
        rows = independent_rows(context.training, rows)
    rows = stream(context.config.seed, "diagnose").permutation(rows)
    section = context.config.diagnose
    n = section.objects
    most = min(_AGAIN[1] * n, _NUMBERS // (section.draws * len(context.space.names)))
    others = np.sort(rows[n : n + most])
    return np.sort(rows[:n]), others if len(others) >= _AGAIN[0] * n else others[:0]


def _observed(context: Context, rows: I64, name: str) -> Batch:
    """Return simulations with fresh noise."""
    noise = stream(context.config.seed, "diagnose", name)
    return context.simulator.observe(context.training.batch[rows], noise)


def _with_second(context: Context, first: StageResult, others: I64) -> StageResult:
    """Return the result with the second outcome of the tests that failed."""
    context.progress.finish(f"a test failed; again with {counted(len(others), 'other simulation')}")
    seed = int(stream(context.config.seed, "diagnose", "again").integers(2**31))
    return merged(first, _single(context, _observed(context, others, "noise again"), seed))


def merged(first: StageResult, second: StageResult) -> StageResult:
    """Return the first result with the second outcome of the tests that failed."""
    n, others = (r.facts["calibration"]["objects"] for r in (first, second))
    note = f" With the first {counted(n, 'simulation')}, before {others} others: "
    verdicts = [
        old if old.ok else replace(new, sentence=new.sentence + note + old.sentence, test="")
        for old, new in zip(first.verdicts, second.verdicts, strict=True)
    ]
    part = {**first.facts["calibration"], "again": second.facts["calibration"]}
    return replace(first, facts={**first.facts, "calibration": part}, verdicts=verdicts)


def analysis_tests(context: Context) -> Findings | None:
    """Return the further calibration tests of the analysis, with their figures."""
    return _of_analysis(context, _observed(context, _test_rows(context)[0], "noise"))


def _of_analysis(context: Context, batch: Batch) -> Findings | None:
    rng = stream(context.config.seed, "diagnose", "domain")
    with drawing_style():
        return context.analysis.check(context.posterior, batch, rng)


def _single(context: Context, batch: Batch, seed: int) -> StageResult:
    """Calibration and accuracy of every parameter."""
    section = context.config.diagnose
    assert batch.theta is not None
    theta = batch.theta.double().cpu().numpy()[:, list(context.training.columns)]
    context.progress.start("diagnose", len(batch), "objects")
    samples = context.posterior.sample(
        Observations.from_batch(batch), section.draws, seed=seed
    ).values
    context.progress.advance(len(batch))
    names = context.space.names
    ranks = sbc_ranks(samples, theta, stream(seed, "diagnose", "ties"))
    p_values = np.atleast_1d(sbc_uniformity(ranks, section.draws))
    coverage = coverage_central(ranks, section.draws, LEVELS)
    curve = np.linspace(0.02, 0.98, 49)
    curves = _tarp_curves(context.simulator.summaries(batch), samples, theta, seed)
    worst = max(curves.values(), key=lambda t: t.max_deviation)
    parameters, verdicts = {}, list[Verdict]()
    for k, name in enumerate(names):
        covered = {f"{c:.2f}": float(v) for c, v in zip(LEVELS, coverage[:, k], strict=True)}
        parameters[name] = {"sbc_p": float(p_values[k]), "coverage": covered}
        verdicts += [
            judge_coverage(name, float(v), float(c), objects=len(theta))
            for c, v in zip(LEVELS, coverage[:, k], strict=True)
        ]
    verdicts += judge_sbc_all(names, p_values)
    verdicts += [judge_tarp(t.p, tests=len(curves), references=kind) for kind, t in curves.items()]
    mean, sd = samples.mean(0), samples.std(0, ddof=1)
    arrays = {
        "ranks": ranks,
        "draws": np.array(section.draws),
        "coverage_levels": curve,
        "coverage_values": coverage_central(ranks, section.draws, curve.tolist()),
        "tarp_levels": worst.alpha,
        "tarp_ecp": worst.ecp,
        "theta": theta,
        "mean": mean,
        "sd": sd,
    }
    calibration = {
        "objects": len(theta),
        "parameters": parameters,
        "tarp": {
            "max_deviation": worst.max_deviation,
            "p_uniform": curves["uniform"].p,
            "p_data": curves["data-dependent"].p,
        },
    }
    facts = {"calibration": calibration, "accuracy": accuracy(mean, theta, names)}
    return StageResult(facts, verdicts, arrays)


def _tarp_curves(batch: Batch, samples: Any, theta: Any, seed: int) -> dict[str, Tarp]:
    """Uniform references, and references that depend on the data (see the tarp module)."""
    x = np.where(batch.observed.numpy(), batch.x.double().numpy(), np.nan)
    guess = references_from_data(x, theta, stream(seed, "tarp", "folds"))
    return {
        "uniform": tarp(samples, theta, stream(seed, "tarp", "uniform")),
        "data-dependent": tarp(samples, theta, stream(seed, "tarp", "data"), references=guess),
    }
