"""Stage ``diagnose``: is the posterior of one object calibrated, on held-out simulations?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from sbi_core.analyses import Findings
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.data.writing import written
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
from sbi_core.pipeline.plugin_calls import called
from sbi_core.pipeline.stages import StageResult
from sbi_core.report.figures import drawing_style, section_records
from sbi_core.rng import stream
from sbi_core.training.splits import splits_of

__all__ = ["analysis_tests", "execute"]

_FEW = 50  # held-out simulations of a fixed set


def execute(context: Context) -> StageResult:
    """Run SBC, coverage and TARP, and the checks of the domain; make its reference arrays."""
    batch = _test_rows(context)
    if context.simulator.fixed_set and len(batch) < _FEW:
        context.progress.say(
            f"calibration on {counted(len(batch), 'independent simulation')} only: its tests have "
            "little power; give more simulations, or more groups"
        )
    result = _single(context, batch)
    findings = _of_analysis(context, batch)
    if findings is not None:
        more = [Verdict(level, sentence) for level, sentence in findings.verdicts]
        facts = {**result.facts, "domain": dict(findings.numbers)}
        result = StageResult(facts, [*result.verdicts, *more], result.arrays)
        if findings.sections:
            records = section_records(findings.sections, "diagnose")
            write_json(context.directory.diagnose_sections, records)
    _keep_reference(context)
    context.progress.finish(combine_verdicts(result.verdicts).level)
    return result


def _keep_reference(context: Context) -> None:
    """Write the arrays with which the analysis compares objects, if it has some."""
    seed = context.config.seed
    arrays: Mapping[str, Any] = called(context.analysis, "make_reference", context.posterior, seed)
    if arrays:
        with written(context.directory.reference) as temporary:
            np.savez_compressed(temporary, **arrays)
        context.analysis.reference = arrays


def _test_rows(context: Context) -> Batch:
    """Return held-out simulations with fresh noise."""
    rows = splits_of(context.training).test
    if context.simulator.fixed_set:
        rows = independent_rows(context.training, rows)
    rows = stream(context.config.seed, "diagnose").permutation(rows)
    rows = np.sort(rows[: context.config.diagnose.objects])
    clean = context.training.batch[rows]
    return context.simulator.observe(clean, stream(context.config.seed, "diagnose", "noise"))


def analysis_tests(context: Context) -> Findings | None:
    """Return the further calibration tests of the analysis, with their figures."""
    return _of_analysis(context, _test_rows(context))


def _of_analysis(context: Context, batch: Batch) -> Findings | None:
    rng = stream(context.config.seed, "diagnose", "domain")
    with drawing_style():
        found = called(context.analysis, "check", context.posterior, batch, rng)
    return cast("Findings | None", found)


def _single(context: Context, batch: Batch) -> StageResult:
    """Calibration and accuracy of every parameter."""
    section = context.config.diagnose
    seed = context.config.seed
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
