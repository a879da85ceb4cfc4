"""Stage ``report``: report.json and report.html from what the other stages recorded."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np
from astropy.table import Table

from sbi_core.data.gate import checked_file, open_hdf5
from sbi_core.data.writing import atomic_write
from sbi_core.diagnostics import Verdict, combine_verdicts
from sbi_core.diagnostics.support import more_than_chance
from sbi_core.files.directory import read_arrays, read_json, read_lines, write_json
from sbi_core.files.provenance import versions
from sbi_core.files.schema import REPORT_SCHEMA, check_report
from sbi_core.pipeline.config import command_words, to_toml
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.model_check import TEST
from sbi_core.pipeline.stages import StageResult
from sbi_core.posterior import UNLIKE
from sbi_core.report import model_card, write_html
from sbi_core.report.references import references

__all__ = ["build_report", "execute", "page_inputs"]

_DISAGREE = 0.01  # p-value of the consistency test below which objects are said to disagree
_SHOWN, _FEW = 2, 4  # single objects with a corner plot; one, if it has more than a few panels


def build_report(context: Context) -> dict[str, Any]:
    """Return report.json as a dictionary; parts that do not apply are absent."""
    facts = context.facts
    calibration = facts.get("diagnose", {}).get("calibration")
    checks = _checks(context)
    verdicts = [Verdict(c["level"], c["sentence"]) for c in checks if c["test"] != TEST]
    verdict = combine_verdicts(verdicts).level if calibration else "not checked"
    seconds = {n: f.get("stage_seconds", 0.0) for n, f in facts.items() if n != "report"}
    command = command_words(context.config, context.registry, str(context.directory.given))
    used = versions(p.distribution for p in context.registry.plugins)
    report: dict[str, Any] = {
        "schema": REPORT_SCHEMA,
        "plugin": context.config.plugin,
        "preset": context.config.preset,
        "seed": context.config.seed,
        "status": _status(context, verdict),
        "created": _records(context).get("created", ""),
        "command": shlex.join(["sbi-run", *command]),
        "versions": used,
        "timing": {f"{name}_s": round(s, 3) for name, s in seconds.items()},
        "parameters": _parameters(context),
        "checks": checks,
    }
    hidden = sum(f.get("hidden_seconds", 0.0) for f in facts.values())  # beside other stages
    report["timing"]["total_s"] = round(sum(seconds.values()) - hidden, 3)
    if "simulate" in facts:
        report["simulation"] = _pick(
            facts["simulate"], "n", "failed", "per_second", "failures", "messages"
        )
    if facts.get("emulate", {}).get("median_abs_error"):
        report["emulator"] = _pick(facts["emulate"], "median_abs_error", "p95_abs_error")
    if "train" in facts:
        shown = "epochs", "seconds", "test_nll", "best_epoch", "still_improving", "skipped_steps"
        report["training"] = _pick(facts["train"], *shown)
    if calibration:
        report["calibration"] = {**calibration, "verdict": verdict}
        report["accuracy"] = facts["diagnose"]["accuracy"]
    if "infer" in facts:
        report["observations"] = _pick(facts["infer"], "n", "source", "unsupported", "notes")
        report["widths"] = _widths(context)
    for part in ("combined", "combined_calibration", "marginalised", "misspecification"):
        if facts.get("combine", {}).get(part):
            report[part] = facts["combine"][part]
    parts = [facts.get(stage, {}).get("domain", {}) for stage in ("diagnose", "infer")]
    domain = {k: v for part in parts for k, v in part.items()}
    if domain:
        report["domain"] = domain
    report["flags"] = _flags(context, verdict)
    report["references"] = references(
        used,
        context.simulator.citations,
        calibrated=bool(calibration),
        estimator=context.config.estimator.name,
    )
    check_report(report)
    return report


def _status(context: Context, verdict: str) -> str:
    if verdict == "fail":
        return "calibration_failed"
    return UNLIKE if UNLIKE in context.facts.get("combine", {}).get("flags", ()) else "ok"


def _pick(source: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {k: source[k] for k in keys if k in source}


def _records(context: Context) -> dict[str, Any]:
    path = context.directory.provenance
    return read_json(path) if path.exists() else {}


def _parameters(context: Context) -> dict[str, Any]:
    """Return the description of every column of theta."""
    inferred = set(context.space.names)
    return {
        column: {
            **_pick(p.to_spec(), "unit", "scope", "description", "prior"),
            "label": label,
            "inferred": column in inferred,
        }
        for p in context.simulator.parameters.parameters
        for column, label in zip(p.columns, p.labels, strict=True)
    }


def _checks(context: Context) -> list[dict[str, Any]]:
    """Return the outcome of every test, on single objects and on combinations."""
    return [
        {"stage": stage, "level": level, "sentence": sentence, "test": "".join(test)}
        for stage in ("diagnose", "infer", "combine")
        for level, sentence, *test in context.facts.get(stage, {}).get("verdicts", [])
    ]


def _combiners(report: Mapping[str, Any]) -> list[str]:
    """Return the rules whose results are shown; variants such as ``+tau`` are theirs."""
    entries = report.get("combined", ())
    return list(dict.fromkeys(entry["combiner"].partition("+")[0] for entry in entries))


def _summary(context: Context) -> Table:
    table = Table.read(checked_file(context.directory.summary), format="ascii.ecsv")
    for name in table.colnames:  # empty words are read as missing
        if table[name].dtype.kind in "OU" and hasattr(table[name], "filled"):
            table[name] = table[name].filled("")
    return table


def _widths(context: Context) -> dict[str, dict[str, float]]:
    """Return the standard deviation of prior and posterior (median over the objects)."""
    table = _summary(context)
    if not len(table):
        return {}
    with open_hdf5(context.directory.posterior) as f:
        prior = {name: float(np.std(f["prior"][name][0], ddof=1)) for name in context.space.names}
    median = {name: float(np.nanmedian(table[f"{name}_sd"])) for name in context.space.names}
    return {
        name: {"prior": prior[name], "posterior": median[name]}
        for name in context.space.names
        if np.isfinite(median[name]) and np.isfinite(prior[name])
    }


def _flags(context: Context, verdict: str) -> list[str]:
    facts = context.facts
    flags = list(facts.get("combine", {}).get("flags", []))
    if verdict == "fail":
        flags.append("calibration_failed")
    if facts.get("train", {}).get("still_improving"):
        flags.append("still_improving")
    infer = facts.get("infer", {})
    if more_than_chance(infer.get("unsupported", 0), infer.get("n", 0)):
        flags.append("objects_outside_training")
    if infer.get("far"):
        flags.append("objects_far_outside_training")
    words = ",".join(infer.get("domain_flags", {}).values())
    flags += sorted(set(words.split(",")) - {""})
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
    write_html(context.directory.report_html, report, **page_inputs(context, report))
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
    d = context.directory
    path = d.estimator / "config.json"
    d.estimator.mkdir(exist_ok=True)
    with atomic_write(d.card) as f:
        f.write(model_card(report, read_json(path) if path.exists() else {}, _records(context)))


def page_inputs(context: Context, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the page shows beside report.json; see :func:`sbi_core.report.render`."""
    d, facts = context.directory, context.facts
    objects = _objects(context) if "infer" in facts else None
    arrays: dict[str, Any] = {}
    if "diagnose" in facts and d.diagnostics.exists():
        arrays |= read_arrays(d.diagnostics)
    if "combined" in report and d.combined_samples.exists():
        arrays |= {f"combined/{k}": v for k, v in read_arrays(d.combined_samples).items()}
    elif objects is not None:
        arrays |= _draws(context, objects)
    sections = [
        {**record, "stage": stage}
        for stage, path in (("infer", d.infer_sections), ("diagnose", d.diagnose_sections))
        if path.exists()
        for record in read_json(path)
    ]
    return {
        "arrays": arrays,
        "history": read_lines(d.metrics) if "train" in facts and d.metrics.exists() else [],
        "sections": sections,
        "objects": objects,
        "meanings": context.analysis.flag_meanings,
        "warnings": {name: context.bare_combiner(name).warning for name in _combiners(report)},
        "config": to_toml(context.config),
    }


def _objects(context: Context) -> Table:
    """Return summary.ecsv with the true values of mock objects, in columns ``true_NAME``."""
    table = _summary(context)
    if context.config.infer.observations and "observations" not in vars(context):
        return table  # the file may be gone when a report is written again
    observations = context.observations
    row = {str(i): k for k, i in enumerate(observations.id)}
    if all(str(i) in row for i in table["id"]):
        order = [row[str(i)] for i in table["id"]]
        for name, values in (observations.truth or {}).items():
            table[f"true_{name}"] = np.asarray(values)[order]
    return table


def _draws(context: Context, objects: Table) -> dict[str, Any]:
    """Return draws of the prior and of the first objects, with true values where known."""
    names = context.space.names
    shown = _SHOWN if len(names) <= _FEW else 1
    with open_hdf5(context.directory.posterior) as f:
        ids = [str(i) for i in f["posterior"]["object"].asstr()[:shown]]
        drawn = {
            f"object/{name}": np.stack([f["posterior"][n][0, :, k] for n in names], -1)
            for k, name in enumerate(ids)
        }
        prior = np.stack([f["prior"][n][0] for n in names], -1)
    truth = {}
    if all(f"true_{n}" in objects.colnames for n in names):
        for row in objects[np.isin(objects["id"], ids)]:
            truth[f"truth/{row['id']}"] = np.array([row[f"true_{n}"] for n in names])
    return {**drawn, **truth, "prior": prior}
