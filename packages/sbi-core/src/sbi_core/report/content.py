"""The report's words and tables: from numbers to what the template prints.

Every function turns one part of the inputs into plain rows, or into nothing when that part is
absent. Strings stay unescaped (the template escapes), except where they are ``Markup``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from sbi_core.errors import ConfigError
from sbi_core.priors.space import Prior
from sbi_core.report.inputs import Level, ReportInputs, is_comparison
from sbi_core.report.text import (
    count,
    duration,
    measurement,
    number,
    percent,
    plain,
    prior_words,
    tex_to_html,
)

__all__ = ["content", "linked"]

_STAGES = {
    "simulate_s": "simulate",
    "emulate_s": "train the emulator",
    "train_s": "train the estimator",
    "diagnose_s": "check calibration",
    "infer_s": "infer single objects",
    "combine_s": "combine objects",
    "report_s": "write this report",
    "total_s": "total",
}
_ANYTHING_OF = {"emulate_s": "emulator", "combine_s": "combined"}  # else nothing was done
_BADGES: dict[Level, str] = {
    "pass": "Calibration checks passed",
    "warn": "Calibration passed with warnings",
    "fail": "Calibration FAILED: do not quote these numbers",
}
_UNCHECKED = "Calibration was not checked"
_SEVERITY: tuple[Level, ...] = ("pass", "warn", "fail")
_FLAGS = {
    "comparison_only": "A combiner ran that is for comparison only; do not quote its numbers.",
    "broader_than_prior": "Some single posteriors are broader than the prior.",
    "calibration_failed": "A calibration check failed: the error bars are not to be trusted.",
    "objects_outside_training": "Some observations are unlike all simulations.",
    "failed_simulations_above_1_percent": "More than 1 % of the simulations failed; where they "
    "fail, the posterior knows nothing.",
    "more_objects_than_calibrated": "More objects were combined than calibration was tested for; "
    "a small common error grows as √N.",
    "more_objects_than_trained": "So many objects were combined that what is not known about the "
    "error of single posteriors is wider than their combined error; simulate more groups.",
    "unlike_trained_groups": "The objects have other errors or missing values than the groups the "
    "combiner learned from.",
    "not_corrected": "Some combinations say too little to be corrected: they are those of "
    "gaussian.",
    "objects_disagree": "Parts of the objects disagree about the shared parameters by more than "
    "chance (consistency p < 0.01): the objects are not all what this simulator makes, or errors "
    "are too small. The width of the combination is then not to be trusted.",
    "unlike_the_simulator": "The objects are not what this simulator makes, whatever the shared "
    "parameters: see the checks. Their combination is sharp and may be wrong.",
    "single_object": "Only one object was given: its combination is its own posterior.",
}
_MAX_ROWS = 24  # of a table of outputs or objects
_MAX_GROUPS = 6  # in the headline


def content(inputs: ReportInputs) -> dict[str, Any]:
    """Return everything the template prints, by name; absent parts are None or empty."""
    report = inputs.report
    return {
        "plugin": str(report.get("plugin", "")),
        "preset": str(report.get("preset", "")),
        "badge": _badge(inputs),
        "answer": _answer(inputs),
        "run": _run(inputs),
        "prior": _prior(inputs),
        "simulation": _simulation(inputs),
        "emulator": _emulator(report),
        "training": _training(report),
        "calibration": _calibration(inputs),
        "accuracy": _accuracy(inputs),
        "observations": _observations(inputs),
        "posterior": _posterior(inputs),
        "literature": _literature(inputs),
        "consistency": _consistency(inputs),
        "combined_calibration": _combined_calibration(report),
        "flags": [_FLAGS.get(str(flag), str(flag)) for flag in report.get("flags", ())],
        "citations": list(inputs.citations),
        "config": inputs.config_toml.strip(),
    }


def linked(citation: str) -> Markup:
    """Return an escaped reference whose arXiv number, DOI or address is a link."""
    words = []
    for word in re.split(r"(\s+)", str(citation)):
        core = word.strip(".,;()[]")
        target = _target(core)
        link = f'<a href="{escape(target)}">{escape(core)}</a>' if target else None
        words.append(str(escape(word)).replace(str(escape(core)), link) if link else escape(word))
    return Markup("".join(words))  # noqa: S704


def _target(word: str) -> str:
    """Return the address that a word stands for, if any."""
    if found := re.fullmatch(r"(?:arXiv:)(\d{4}\.\d{4,5}|[a-z-]+/\d{7})(?:v\d+)?", word):
        return f"https://arxiv.org/abs/{found[1]}"
    if found := re.fullmatch(r"(?:doi:)?(10\.\d{4,9}/\S+)", word, re.IGNORECASE):
        return f"https://doi.org/{found[1]}"
    return word if re.fullmatch(r"https?://[^\s\"'<>]+", word) else ""


# ------------------------------------------------------------------------------------ headline


def _badge(inputs: ReportInputs) -> dict[str, str]:
    """Return the worst verdict, as a level and in words."""
    levels = [level for level, _ in inputs.verdicts]
    overall = str(inputs.report.get("calibration", {}).get("verdict", ""))
    levels += [level for level in _SEVERITY if level == overall]
    if not levels:
        return {"level": "warn", "words": _UNCHECKED}
    worst = max(levels, key=_SEVERITY.index)
    return {"level": worst, "words": _BADGES[worst]}


def _answer(inputs: ReportInputs) -> dict[str, Any]:
    """Return the cards of the headline: a value with its error per parameter and group."""
    groups = [
        {
            "group": str(entry.get("group", "")),
            "n": int(entry["n"]),
            "cards": [_card(inputs, n, v) for n, v in entry["parameters"].items()],
        }
        for entry in inputs.headline
    ]
    names = list(inputs.headline[0]["parameters"]) if groups else list(inputs.inferred)
    return {
        "groups": groups[:_MAX_GROUPS],
        "more_groups": max(len(groups) - _MAX_GROUPS, 0),
        "combiner": inputs.main_combiner,
        "names": [_label(inputs, name) for name in names],
        "objects": int(inputs.report.get("observations", {}).get("n", 0)),
    }


def _card(inputs: ReportInputs, name: str, value: Mapping[str, float]) -> dict[str, Any]:
    column = _columns(inputs.parameters).get(name, {})
    notes = []
    if "truth" in value:
        notes.append(f"true value {plain(value['truth'])}, {_offset(value)}")
    if column.get("prior"):
        notes.append(f"prior {prior_words(column['prior'])}")
    return {
        "label": _label(inputs, name),
        "description": str(column.get("description", "")) or name,
        "value": measurement(value["mean"], value["sd"]),
        "unit": str(column.get("unit", "")),
        "notes": notes,
    }


def _offset(value: Mapping[str, float]) -> str:
    """Return the distance from the truth in words."""
    if not value["sd"] > 0:
        return "no error known"
    sigmas = (value["mean"] - value["truth"]) / value["sd"]
    return f"the estimate lies {abs(sigmas):.1f}\u00a0σ {'below' if sigmas < 0 else 'above'} it"


def _label(inputs: ReportInputs, name: str) -> Markup:
    return Markup(tex_to_html(inputs.label(name), fallback=name))  # noqa: S704


def _columns(parameters: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the specification of every column; a block of size k makes k of them."""
    columns: dict[str, Mapping[str, Any]] = {}
    for spec in parameters:
        name = str(spec["name"])
        try:
            size = Prior.from_spec(spec.get("prior", {})).size
        except ConfigError:
            size = 1  # a family of a newer version: still worth a row
        columns |= {name: spec} if size == 1 else {f"{name}{k + 1}": spec for k in range(size)}
    return columns


# ----------------------------------------------------------------------------------- what was run


def _run(inputs: ReportInputs) -> dict[str, Any]:
    report = inputs.report
    timing = report.get("timing", {})
    facts = [
        (word, str(report[key]))
        for key, word in (("preset", "preset"), ("seed", "seed"), ("status", "status"))
        if key in report
    ]
    return {
        "command": inputs.command,
        "facts": facts,
        "versions": [(str(k), str(v)) for k, v in report.get("versions", {}).items()],
        "timing": [
            (word, duration(timing[key]))
            for key, word in _STAGES.items()
            if key in timing and _ANYTHING_OF.get(key, "timing") in report
        ],
    }


def _prior(inputs: ReportInputs) -> list[dict[str, Any]]:
    names = set(inputs.inferred)
    return [
        {
            "label": _label(inputs, column),
            "name": column,
            "description": str(spec.get("description", "")),
            "unit": str(spec.get("unit", "")) or "–",
            "scope": "shared by all objects" if spec.get("scope") == "global" else "per object",
            "prior": prior_words(spec.get("prior", {})),
            "role": "inferred" if column in names else "marginalised",
        }
        for column, spec in _columns(inputs.parameters).items()
    ]


def _simulation(inputs: ReportInputs) -> dict[str, Any] | None:
    part = inputs.report.get("simulation")
    if not part and not inputs.failures:
        return None
    part = part or {}
    facts = []
    if "n" in part:
        facts.append(("simulations", count(part["n"])))
    if "failed" in part:
        share = f" ({percent(part['failed'] / part['n'])})" if part.get("n") else ""
        facts.append(("failed and left out", count(part["failed"]) + share))
    if "per_second" in part:
        facts.append(("rate", f"{number(part['per_second'])} per second"))
    rows = sorted(inputs.failures, key=lambda row: (-row[1], row[0]))
    return {"facts": facts, "failures": [(reason, count(n)) for reason, n in rows]}


def _emulator(report: Mapping[str, Any]) -> dict[str, Any] | None:
    errors = report.get("emulator", {}).get("median_abs_error")
    if not errors:
        return None
    if not isinstance(errors, Mapping):
        errors = {"all outputs": errors}
    ordered = sorted(errors.items(), key=lambda item: -item[1])
    shown = ordered if len(ordered) > _MAX_ROWS else list(errors.items())
    return {
        "rows": [(name, number(value, 2)) for name, value in shown[:_MAX_ROWS]],
        "more": max(len(ordered) - _MAX_ROWS, 0),
        "worst": (ordered[0][0], number(ordered[0][1], 2)),
        "median": number(ordered[len(ordered) // 2][1], 2),
        "outputs": len(ordered),
    }


def _training(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    part = report.get("training", {})
    facts = []
    if "epochs" in part:
        facts.append(("epochs", count(part["epochs"])))
    if "seconds" in part:
        facts.append(("time", duration(part["seconds"])))
    if "test_nll" in part:
        facts.append(("mean −log q on test simulations", number(part["test_nll"], 4)))
    return facts


# ----------------------------------------------------------------------------------- calibration


def _calibration(inputs: ReportInputs) -> dict[str, Any] | None:
    part = inputs.report.get("calibration")
    if not part and not inputs.verdicts:
        return None
    part = part or {}
    parameters = part.get("parameters", {})
    levels = sorted({level for p in parameters.values() for level in p.get("coverage", {})})
    words = str(part.get("verdict", ""))
    return {
        "troubled": [(level, words) for level, words in inputs.verdicts if level != "pass"],
        "passed": [words for level, words in inputs.verdicts if level == "pass"],
        "verdict": words if words and words not in _SEVERITY and not inputs.verdicts else "",
        "objects": part.get("objects"),
        "levels": [f"{100 * float(level):.3g} %" for level in levels],
        "rows": [_calibration_row(inputs, n, p, levels) for n, p in parameters.items()],
        "tarp": number(part["tarp"]["max_deviation"], 2)
        if "max_deviation" in part.get("tarp", {})
        else "",
    }


def _calibration_row(
    inputs: ReportInputs, name: str, part: Mapping[str, Any], levels: Sequence[str]
) -> dict[str, Any]:
    covered = part.get("coverage", {})
    return {
        "label": _label(inputs, name),
        "p": number(part["sbc_p"], 2) if "sbc_p" in part else "–",
        "coverage": [f"{100 * covered[k]:.1f} %" if k in covered else "–" for k in levels],
    }


def _accuracy(inputs: ReportInputs) -> list[dict[str, Any]]:
    units = {name: str(spec.get("unit", "")) for name, spec in _columns(inputs.parameters).items()}
    return [
        {
            "label": _label(inputs, name),
            "unit": units.get(name, "") or "–",
            "values": [number(part[k]) if k in part else "–" for k in ("mae", "rmse", "r2")],
            "ape": f"{number(part['median_ape'])} %" if "median_ape" in part else "–",
        }
        for name, part in inputs.report.get("accuracy", {}).items()
    ]


# --------------------------------------------------------------------- observations and posterior


def _observations(inputs: ReportInputs) -> dict[str, Any] | None:
    part = inputs.report.get("observations")
    if not part and not inputs.notes and not inputs.flagged:
        return None
    part = part or {}
    return {
        "n": part.get("n"),
        "source": str(part.get("source", "")),
        "unsupported": part.get("unsupported"),
        "notes": list(inputs.notes),
        "flagged": [(str(i), str(reason)) for i, reason in inputs.flagged[:_MAX_ROWS]],
        "more_flagged": max(len(inputs.flagged), part.get("unsupported") or 0)
        - min(len(inputs.flagged), _MAX_ROWS),
    }


def _posterior(inputs: ReportInputs) -> dict[str, Any] | None:
    entries = inputs.combined
    if not entries:
        return None
    names = list(dict.fromkeys(name for e in entries for name in e["parameters"]))
    combiners = list(dict.fromkeys(str(e["combiner"]) for e in entries))
    ordered = sorted(entries, key=lambda e: (combiners.index(str(e["combiner"])), e["n"]))
    comparison = {str(e["combiner"]) for e in entries if is_comparison(e)}
    warned = [n for n in combiners if n in comparison or inputs.warnings.get(n)]
    return {
        "columns": [_label(inputs, name) for name in names],
        "groups": any("group" in e for e in entries),
        "truth": any("truth" in p for e in entries for p in e["parameters"].values()),
        "rows": [_posterior_row(e, names) for e in ordered],
        "warnings": [(n, n in comparison, inputs.warnings.get(n, "")) for n in warned],
    }


def _posterior_row(entry: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    values = [entry["parameters"].get(name) for name in names]
    return {
        "combiner": str(entry["combiner"]),
        "comparison": is_comparison(entry),
        "group": str(entry.get("group", "")),
        "n": count(entry["n"]),
        "cells": [_cell(value) for value in values],
    }


def _cell(value: Mapping[str, float] | None) -> tuple[str, str]:
    """Return value and, where the truth is known, the distance from it in sigma."""
    if value is None:
        return "–", ""
    off = ""
    if "truth" in value and value["sd"] > 0:
        sigmas = round((value["mean"] - value["truth"]) / value["sd"], 1)
        sign = "+" if sigmas > 0 else "−" if sigmas < 0 else ""
        off = f"{sign}{abs(sigmas):.1f}\u00a0σ"
    return measurement(value["mean"], value["sd"], 2), off


def _literature(inputs: ReportInputs) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(name for e in inputs.combined for name in e["parameters"]))
    if not names:
        names = list(
            dict.fromkeys(n for row in inputs.literature for n in row.get("parameters", {}))
        )
    return [
        {
            "label": str(row["label"]),
            "n": count(row["n"]),
            "cells": [
                (_label(inputs, name), _as_printed(row["parameters"][name]))
                for name in names
                if name in row.get("parameters", {})
            ],
        }
        for row in inputs.literature
    ]


def _as_printed(value: Mapping[str, float]) -> str:
    """Return a published value with the digits its authors gave."""
    return f"{plain(value['mean'])} ± {plain(value['sd'])}"


def _consistency(inputs: ReportInputs) -> list[dict[str, Any]]:
    """Return what the test of agreement between parts says about each combination."""
    found = []
    for entry in inputs.combined:
        if "consistency_chi2" not in entry or is_comparison(entry):
            continue
        p = entry.get("consistency_p")
        name = f"{entry['combiner']}, N = {count(entry['n'])}"
        group = f" ({entry['group']})" if entry.get("group") else ""
        numbers = f"χ² = {number(entry['consistency_chi2'])}"
        if p is not None:
            numbers += f", p = {number(p, 2)}"
        found.append(
            {"name": name + group, "numbers": numbers, "words": _agreement(p), "bad": _bad(p)}
        )
    return found


def _bad(p: float | None) -> bool:
    return p is not None and p <= 0.01


def _agreement(p: float | None) -> str:
    if p is None:
        return ""
    if _bad(p):
        return (
            "the parts disagree by more than chance: the objects do not all share these values, "
            "or the model misses something that differs between them"
        )
    return "the parts agree within their errors"


def _combined_calibration(report: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {
            "combiner": str(entry["combiner"]),
            "n": count(entry["n"]),
            "repeats": count(entry["repeats"]) if "repeats" in entry else "",
            "z_rms": _each(entry.get("z_rms"), lambda z: f"{z:.2f}"),
            "coverage": _each(entry.get("coverage_68"), lambda c: f"{100 * c:.0f} %"),
            "coverage_95": _each(entry.get("coverage_95"), lambda c: f"{100 * c:.0f} %"),
            "sbc_p": _smallest_p(entry.get("parameters", {})),
        }
        for entry in report.get("combined_calibration", ())
    ]


def _smallest_p(parameters: Mapping[str, Mapping[str, float]]) -> str:
    p = [found["sbc_p"] for found in parameters.values() if "sbc_p" in found]
    return f"{min(p):.2g}" if p else "–"


def _each(value: Any, words: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {words(float(v))}" for name, v in value.items())
    return str(words(float(value)))
