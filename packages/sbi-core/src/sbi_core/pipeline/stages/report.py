"""Stage ``report``: report.json and report.html from what the other stages recorded."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from sbi_core.diagnostics import Verdict, combine_verdicts
from sbi_core.files.directory import (
    atomic_write,
    read_arrays,
    read_json,
    read_lines,
    write_json,
)
from sbi_core.files.provenance import versions
from sbi_core.files.schema import REPORT_SCHEMA, check_report
from sbi_core.pipeline.config import to_toml
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.stage import StageResult
from sbi_core.report import CardInputs, ReportInputs, model_card, write_html

__all__ = ["build_report", "execute"]

_DISAGREE = 0.01  # p-value of the consistency test below which objects are said to disagree


def build_report(context: Context) -> dict[str, Any]:
    """Return report.json as a dictionary; parts that do not apply are absent."""
    facts = context.facts
    calibration = facts.get("diagnose", {}).get("calibration")
    verdict = combine_verdicts(_verdicts(context)).level if calibration else "not checked"
    seconds = {n: f.get("stage_seconds", 0.0) for n, f in facts.items() if n != "report"}
    report: dict[str, Any] = {
        "schema": REPORT_SCHEMA,
        "plugin": context.config.plugin,
        "preset": context.config.preset,
        "seed": context.config.seed,
        "status": "calibration_failed" if verdict == "fail" else "ok",
        "versions": versions(p.distribution for p in context.registry.plugins),
        "timing": {f"{name}_s": round(s, 3) for name, s in seconds.items()},
    }
    report["timing"]["total_s"] = round(sum(seconds.values()), 3)
    if "simulate" in facts:
        report["simulation"] = _pick(facts["simulate"], "n", "failed", "per_second", "failures")
    if facts.get("emulate", {}).get("median_abs_error"):
        report["emulator"] = _pick(facts["emulate"], "median_abs_error", "p95_abs_error")
    if "train" in facts:
        report["training"] = _pick(facts["train"], "epochs", "seconds", "test_nll", "best_epoch")
    if calibration:
        report["calibration"] = {**calibration, "verdict": verdict}
        report["accuracy"] = facts["diagnose"]["accuracy"]
    if "infer" in facts:
        report["observations"] = _pick(facts["infer"], "n", "source", "unsupported", "notes")
    if facts.get("combine", {}).get("combined"):
        report["combined"] = facts["combine"]["combined"]
    if facts.get("combine", {}).get("combined_calibration"):
        report["combined_calibration"] = facts["combine"]["combined_calibration"]
    if facts.get("combine", {}).get("misspecification"):
        report["misspecification"] = facts["combine"]["misspecification"]
    parts = [facts.get(stage, {}).get("domain", {}) for stage in ("diagnose", "infer")]
    domain = {k: v for part in parts for k, v in part.items()}
    if domain:
        report["domain"] = domain
    report["flags"] = _flags(context, verdict)
    check_report(report)
    return report


def _pick(source: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {k: source[k] for k in keys if k in source}


def _verdicts(context: Context) -> list[Verdict]:
    """Return the verdicts on single objects and on combinations."""
    stages = ("diagnose", "infer", "combine")
    parts = [context.facts.get(stage, {}).get("verdicts", []) for stage in stages]
    return [Verdict(level, sentence) for part in parts for level, sentence in part]


def _flags(context: Context, verdict: str) -> list[str]:
    facts = context.facts
    flags = list(facts.get("combine", {}).get("flags", []))
    if verdict == "fail":
        flags.append("calibration_failed")
    if facts.get("infer", {}).get("unsupported"):
        flags.append("objects_outside_training")
    flags += sorted(set(facts.get("infer", {}).get("domain_flags", {}).values()))
    simulation = facts.get("simulate", {})
    if simulation and simulation["failed"] > 0.01 * simulation["n"]:
        flags.append("failed_simulations_above_1_percent")
    if any(p < _DISAGREE for p in _consistency(context)):
        flags.append("objects_disagree")
    combined = facts.get("combine", {}).get("combined_calibration", [])
    used = max((c["n"] for c in facts.get("combine", {}).get("combined", [])), default=0)
    if combined and used > max(c["n"] for c in combined):
        flags.append("more_objects_than_calibrated")
    return flags


def _consistency(context: Context) -> list[float]:
    """Return the consistency p-value of the largest combination of every group."""
    largest: dict[str, float] = {}
    for entry in context.facts.get("combine", {}).get("combined", []):
        if entry["combiner"] == context.config.combiner.name and "consistency_p" in entry:
            largest[entry.get("group", "")] = entry["consistency_p"]
    return list(largest.values())


def execute(context: Context) -> StageResult:
    """Write both reports."""
    context.progress.start("report", 1, "pages")
    start = perf_counter()
    report = build_report(context)
    write_html(_inputs(context, report), context.directory.report_html)
    own = round(perf_counter() - start, 3)
    report["timing"] |= {"report_s": own, "total_s": round(report["timing"]["total_s"] + own, 3)}
    write_json(context.directory.report_json, report)
    if "train" in context.facts:
        _write_card(context, report)
    context.progress.advance()
    context.progress.finish(str(context.directory.report_html))
    return StageResult()


def _write_card(context: Context, report: dict[str, Any]) -> None:
    """Write estimator/card.md."""
    d, space = context.directory, context.space
    path = d.estimator / "config.json"
    whole = context.simulator.parameters
    card = CardInputs(
        report=report,
        estimator=read_json(path) if path.exists() else {},
        space=space.to_spec(),
        space_hash=space.hash,
        simulator=context.simulator.identity,
        proposal=whole.hash,
        inferred=space.names,
        marginalised=[n for n in whole.names if n not in space.names],
        verdicts=[(v.level, v.sentence) for v in _verdicts(context)],
        citations=context.simulator.citations,
        versions=report["versions"],
    )
    d.estimator.mkdir(exist_ok=True)
    with atomic_write(d.card) as f:
        f.write(model_card(card))


def _inputs(context: Context, report: dict[str, Any]) -> ReportInputs:
    facts = context.facts
    d = context.directory
    arrays: dict[str, Any] = {}
    if "diagnose" in facts and d.diagnostics.exists():
        arrays = read_arrays(d.diagnostics)
    samples: dict[str, Any] = {}
    if facts.get("combine", {}).get("combined") and d.combined_samples.exists():
        samples = {k.removeprefix("all/"): v for k, v in read_arrays(d.combined_samples).items()}
    history = []
    if "train" in facts and d.metrics.exists():
        history = read_lines(d.metrics)
    recovery = None
    if "theta" in arrays:
        recovery = (arrays["theta"], arrays["mean"], arrays["sd"])
    simulator, space = context.simulator, context.space
    labels = simulator.parameters
    return ReportInputs(
        report=report,
        parameters=simulator.parameters.to_spec()["parameters"],
        inferred=list(space.names),
        labels=dict(zip(labels.names, labels.labels, strict=True)),
        history=history,
        ranks=arrays.get("ranks"),
        draws=int(arrays["draws"]) if "draws" in arrays else None,
        coverage_levels=arrays.get("coverage_levels"),
        coverage_values=arrays.get("coverage_values"),
        tarp_levels=arrays.get("tarp_levels"),
        tarp_ecp=arrays.get("tarp_ecp"),
        truth_and_mean=recovery,
        combined_samples=samples,
        failures=list(facts.get("simulate", {}).get("failures", {}).items()),
        verdicts=[(v.level, v.sentence) for v in _verdicts(context)],
        notes=list(facts.get("infer", {}).get("notes", [])),
        flagged=[
            *(
                (i, "unlike the simulations (support percentile above 99)")
                for i in facts.get("infer", {}).get("flagged", [])
            ),
            *facts.get("infer", {}).get("domain_flags", {}).items(),
        ],
        citations=list(simulator.citations),
        command=_command(context),
        config_toml=to_toml(context.config),
        literature=[],
        warnings={name: context.combiner(name).warning for name in _combiners(context)},
        sections=[
            record
            for path in (d.diagnose_sections, d.infer_sections)
            if path.exists()
            for record in read_json(path)
        ],
    )


def _combiners(context: Context) -> list[str]:
    """Return the rules whose results the report shows; variants such as ``+tau`` are theirs."""
    entries = context.facts.get("combine", {}).get("combined", ())
    return list(dict.fromkeys(entry["combiner"].partition("+")[0] for entry in entries))


def _command(context: Context) -> str:
    c = context.config
    words = ["sbi-run", "--plugin", c.plugin, "--preset", c.preset, "--seed", str(c.seed)]
    if c.infer.observations:
        words += ["--observations", c.infer.observations]
    return " ".join(words)
