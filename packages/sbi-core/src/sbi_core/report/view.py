"""The template's view of a report: words and rows of tables instead of numbers.

Every function turns one part of ``report.json`` into plain rows, or into nothing where that part is
absent. Strings stay unescaped (the template escapes), except where they are ``Markup``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape

from sbi_core.diagnostics import judge_coverage, judge_sbc_all
from sbi_core.diagnostics.holm import holm
from sbi_core.diagnostics.support import more_than_chance
from sbi_core.posterior import UNLIKE, unlike
from sbi_core.registry import SIMULATIONS
from sbi_core.report.plots.combination import is_comparison
from sbi_core.report.references import METHODS, bibtex
from sbi_core.report.text import (
    count,
    duration,
    interval,
    measurement,
    number,
    p_value,
    percent,
    plain,
    prior_words,
    tex_to_html,
    with_unit,
)

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = [
    "FLAGS",
    "first_sentence",
    "headline",
    "inferred",
    "is_constrained",
    "linked",
    "main_combiner",
    "tex_label",
    "view",
]

Report = Mapping[str, Any]

FLAGS = {
    "comparison_only": "A combination rule is shown for comparison only; do not quote its numbers.",
    "broader_than_prior": "In some direction the single-object posteriors are broader than the "
    "prior. Where they add no information, the combination is the prior; train longer or on more "
    "simulations.",
    "gaussian_impossible": "The single-object posteriors are broader than the prior in some "
    "direction. This combination does not rest on their Gaussian approximations.",
    "few_draws": "The Monte-Carlo error of the combination by `likelihood` exceeds 0.3 combined "
    "standard deviations; increase combiner.draws.",
    "grid_not_centred": "The grid of `likelihood` did not reach the region of high likelihood; "
    "increase combiner.moves.",
    "uneven_weights": "In the combination by `likelihood` the weights of more than 5 % of the "
    "objects have a Pareto index above 0.7; increase combiner.draws.",
    "calibration_failed": "A calibration test failed, so the quoted uncertainties are not "
    "reliable. The failed tests are listed under Calibration; train longer or on more simulations.",
    "still_improving": "The validation loss was still falling when the training ended. The "
    "posteriors may be broader than necessary; train longer (train.epochs) or on more simulations.",
    "objects_outside_training": "More objects than expected by chance lie outside the range of the "
    "simulations. Their posteriors are extrapolations; check these objects and their errors. "
    "A combination without them is biased if they are left out because of their data.",
    "objects_far_outside_training": "Some objects are more than three times as far from the "
    "simulations as the most distant of these. Errors in the data are likely; check these objects.",
    "errors_outside_training": "Objects have errors that are smaller or larger than all in "
    "training, which the network does not know. Train with errors like theirs (the simulator's "
    "observe), or leave out the values with such errors.",
    "failed_simulations_above_1_percent": "More than 1 % of the simulations failed. The posterior "
    "is not valid where they fail; the reasons are listed under Simulator.",
    "more_objects_than_calibrated": "More objects were combined than the calibration was tested "
    "for, and an error common to all objects grows as √N. Add this number to combine.sizes.",
    "unlike_trained_groups": "Errors or missing values of the objects differ from those of the "
    "simulated groups that the network was trained on; run the pipeline with these objects.",
    "unlike_nominal_model": "With its nominal assumptions the model does not make these objects "
    "(model check). The combined posterior with nuisance parameters allows for errors of these "
    "assumptions, of the usual size; those without do not hold.",
    "combination_not_converged": "The search for the combined posterior did not converge; compare "
    "it with another combiner.",
    "errors_not_simulated": "Simulated objects do not have errors like those of the data (they "
    "differ by a factor of two or more on average, or those of the data are larger than all in "
    "training); the combined posterior is not valid.",
    "objects_disagree": "Parts of the sample disagree about the shared parameters (consistency "
    "p < 0.01): the model misses a difference between the objects, or their errors are "
    "underestimated. Do not rely on the width of the combined posterior.",
    "unlike_the_simulator": "No value of the shared parameters reproduces the observed objects "
    "(model check). The combined posterior may be biased by more than its width.",
    "single_object": "Only one object was given; the combined posterior is the posterior of that "
    "object.",
}
_OBJECT_FLAGS = {
    "outside_training": "The data lie outside the range of 99 % of the simulations; the posterior "
    "is an extrapolation. Check the data and their errors.",
    "far_outside_training": "The data are more than three times as far from the simulations as the "
    "most distant of these. Check the data and their errors.",
    "errors_outside_training": "An error is smaller or larger than all in training, which the "
    "network does not know; train with errors like it.",
    "nothing_observed": "No value of this row was observed, so it has no result.",
}
_STAGES = {
    "simulate_s": "simulate",
    "emulate_s": "train the emulator",
    "train_s": "train the estimator",
    "diagnose_s": "test the calibration",
    "infer_s": "infer single objects",
    "combine_s": "combine objects",
    "report_s": "write this report",
    "total_s": "total",
}
_ANYTHING_OF = {"emulate_s": "emulator", "combine_s": "combined"}  # else nothing was done
_BADGES = {
    "pass": "All calibration tests passed",
    "warn": "Calibration passed with warnings",
    "fail": "Calibration FAILED: do not quote these numbers",
}
_FIRST_LOOK = "A first look: the errors of {} failed their tests, do not quote them"
_OTHERS = (
    "The errors of the other parameters passed. A first look trains on few simulations: for errors "
    "to quote, run the preset standard."
)
_MORE = (
    " Four times the simulations and half the epochs, twice the training, often help: add `--set "
    "simulate.n={} --set train.epochs={}` and another `--out` to the command of this run."
)
_MODEL = "model"  # test of the objects, not of the calibration
_UNCHECKED = "Calibration was not tested"
_SEVERITY = ("pass", "warn", "fail")
_MAX_OUTPUTS = 24  # of the emulator
_MAX_OBJECTS = 200  # rows of the table of results
_MAX_NAMES = 12  # objects that are named beside a flag
_MAX_GROUPS = 6  # in the headline
_EXPECTED = 0.01  # of all objects are outside the range of 99 % of the simulations
_WIDE = 0.9  # of the prior's width; a wider posterior is not called constrained


def view(
    report: Report,
    objects: Table | None = None,
    *,
    meanings: Mapping[str, str] | None = None,
    warnings: Mapping[str, str] | None = None,
    config: str = "",
) -> dict[str, Any]:
    """Return everything the template prints, by name; absent parts are None or empty.

    Parameters
    ----------
    report
        The dictionary of ``report.json``; any of its parts may be absent.
    objects
        ``summary.ecsv``; true values are in columns ``true_NAME``.
    meanings
        Flags of objects, each with a sentence that explains it.
    warnings
        Combiners, each with a sentence about its results that readers must know.
    config
        The resolved configuration, TOML.
    """
    checks = report.get("checks", ())
    return {
        "plugin": str(report.get("plugin", "")),
        "preset": str(report.get("preset", "")),
        "created": str(report.get("created", "")).split("T")[0],
        "badge": _badge(report),
        "unlike": first_sentence(report).replace("chi2", "χ²"),
        "flags": _flags(report),
        "answer": _answer(report),
        "objects": _objects(report, objects),
        "widths": _widths(report),
        "observations": _observations(report, objects, meanings or {}),
        "posterior": _posterior(report, warnings or {}),
        "budget": _budget(report),
        "consistency": _consistency(report),
        "calibration": _calibration(report, checks),
        "combined_calibration": _combined_calibration(report, checks),
        "model_check": _model_check(report),
        "accuracy": _accuracy(report),
        "run": _run(report),
        "prior": _prior(report),
        "simulation": _simulation(report),
        "emulator": _emulator(report),
        "training": _training(report),
        "references": list(report.get("references", ())),
        "bibtex": bibtex(report.get("versions", {}), str(report.get("created", ""))[:4])
        if report.get("references")
        else "",
        "methods": METHODS,
        "config": config.strip(),
    }


# -------------------------------------------------------------------------------- common parts


def main_combiner(report: Report) -> str:
    """Return the combiner that the headline quotes; empty when there is none."""
    return next((str(c["combiner"]) for c in _combined(report) if not is_comparison(c)), "")


def headline(report: Report) -> list[Mapping[str, Any]]:
    """Return the largest combination of every group by the main combiner."""
    best: dict[str, Mapping[str, Any]] = {}
    for entry in _combined(report):
        group = str(entry.get("group", ""))
        larger = group not in best or entry["n"] > best[group]["n"]
        if entry["combiner"] == main_combiner(report) and larger:
            best[group] = entry
    return list(best.values())


def first_sentence(report: Report) -> str:
    """Return the sentence that comes before the numbers; empty where the model fits the objects."""
    if UNLIKE not in report.get("flags", ()):
        return ""
    groups = [str(entry.get("group", "")) for entry in headline(report)]
    failed = [name for name in groups if name in _unlike_groups(report)]
    checks = [c for c in report.get("misspecification", ()) if str(c.get("group", "")) in failed]
    if report.get("marginalised"):  # the check is that of the nominal model
        checks = []
    only = checks[0] if len(checks) == 1 else {}
    chi2, dof = only.get("chi2"), only.get("dof")
    if len(groups) < 2:
        return unlike(chi2, dof)
    if len(failed) == 1:
        return unlike(chi2, dof, f"The objects of group '{failed[0]}'")
    named = ", ".join(f"'{name}'" for name in failed[:_MAX_GROUPS])
    more = ", ..." if len(failed) > _MAX_GROUPS else ""
    some = f"The objects of {len(failed)} of {len(groups)} groups ({named}{more})"
    return unlike(objects=some).replace("error bar does", "error bars do")


def _unlike_groups(report: Report) -> set[str]:
    """Return the groups whose objects the model does not make."""
    entries = headline(report)
    failed = {str(e.get("group", "")) for e in entries if UNLIKE in e.get("flags", ())}
    if failed or UNLIKE not in report.get("flags", ()):
        return failed
    return {str(e.get("group", "")) for e in entries}  # earlier runs flag no single group


def inferred(report: Report) -> list[str]:
    """Return the parameters that are inferred."""
    return [n for n, p in report.get("parameters", {}).items() if p.get("inferred")]


def tex_label(report: Report, name: str, *, unit: bool = False) -> str:
    """Return the TeX label of a quantity; its name in upright letters when it has none."""
    column = report.get("parameters", {}).get(name, {})
    plain_name = name.replace("_", r"\_")
    label = str(column.get("label") or rf"\mathrm{{{plain_name}}}")
    return with_unit(label, str(column.get("unit", ""))) if unit else label


def is_constrained(width: Mapping[str, float]) -> bool:
    """Return True if a posterior is narrower than the prior."""
    return bool(width["posterior"] < _WIDE * width["prior"])


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
    if match := re.fullmatch(r"(?:arXiv:)(\d{4}\.\d{4,5}|[a-z-]+/\d{7})(?:v\d+)?", word):
        return f"https://arxiv.org/abs/{match[1]}"
    if match := re.fullmatch(r"(?:doi:)?(10\.\d{4,9}/\S+)", word, re.IGNORECASE):
        return f"https://doi.org/{match[1]}"
    return word if re.fullmatch(r"https?://[^\s\"'<>]+", word) else ""


def _combined(report: Report) -> list[Mapping[str, Any]]:
    """Return the entries of ``combined`` that have parameters."""
    return [c for c in report.get("combined", ()) if c.get("parameters")]


def _label(report: Report, name: str) -> Markup:
    return Markup(tex_to_html(tex_label(report, name), fallback=name))  # noqa: S704


def _unit(report: Report, name: str) -> str:
    return str(report.get("parameters", {}).get(name, {}).get("unit", ""))


# ------------------------------------------------------------------------------------ headline


def _badge(report: Report) -> dict[str, str]:
    """Return the worst verdict, as a level and in words."""
    levels = {str(c["level"]) for c in report.get("checks", ()) if c.get("test") != _MODEL}
    levels |= {str(report.get("calibration", {}).get("verdict", ""))} & set(_SEVERITY)
    if not levels:
        return {"level": "warn", "words": _UNCHECKED}
    worst = max(levels, key=_SEVERITY.index)
    names = _not_given(report) if worst == "fail" else ""
    return {"level": worst, "words": _FIRST_LOOK.format(names) if names else _BADGES[worst]}


def _flags(report: Report) -> list[str]:
    """Return a sentence per flag; of a first look the failed tests in place of a warning of all."""
    sentences = {f: FLAGS[f] for f in report.get("flags", ()) if f in FLAGS}
    checks = [c for c in report.get("checks", ()) if c.get("test") != _MODEL]
    failed = [str(c["sentence"]) for c in checks if c.get("level") == "fail"]
    if "calibration_failed" in sentences and failed and _not_given(report):
        sentences["calibration_failed"] = " ".join([*failed, _OTHERS])
    elif "calibration_failed" in sentences:
        sentences["calibration_failed"] += _more_training(report)
    return list(sentences.values())


def _more_training(report: Report) -> str:
    """Return a sentence with options for a better training; empty for a fixed set."""
    n = report.get("simulation", {}).get("n")
    epochs = report.get("training", {}).get("epochs")
    if not n or not epochs or report.get("plugin") == SIMULATIONS:
        return ""
    return _MORE.format(4 * int(n), math.ceil(int(epochs) / 2))


def _not_given(report: Report) -> str:
    """Return the parameters whose errors a first look does not give; empty for other presets."""
    return _uncalibrated(report) if report.get("preset") == "quick" else ""


def _uncalibrated(report: Report) -> str:
    """Return the names of the parameters whose ranks or intervals fail their tests."""
    part = report.get("calibration", {})
    parameters = part.get("parameters", {})
    levels = sorted({level for p in parameters.values() for level in p.get("coverage", {})})
    rows = _calibration_rows(report, parameters, levels, int(part.get("objects") or 0))
    passed = [r["p_ok"] and all(ok for _, ok in r["coverage"]) for r in rows]
    return ", ".join(name for name, ok in zip(parameters, passed, strict=True) if not ok)


def _answer(report: Report) -> dict[str, Any]:
    """Return the cards of the headline: a value with its error per parameter and group."""
    entries, failed = headline(report), _unlike_groups(report)
    nominal = {str(e.get("group", "")): e for e in _nominal(report)}
    groups = []
    for entry in entries:
        group = str(entry.get("group", ""))
        other = nominal.get(group, {})
        cards = [_card(report, n, v, other) for n, v in entry["parameters"].items()]
        groups.append(
            {"group": group, "n": int(entry["n"]), "unlike": group in failed, "cards": cards}
        )
    names = list(entries[0]["parameters"]) if entries else inferred(report)
    return {
        "groups": groups[:_MAX_GROUPS],
        "more_groups": max(len(groups) - _MAX_GROUPS, 0),
        "combiner": main_combiner(report),
        "marginalised": list(_families(report)),
        "names": [_label(report, name) for name in names],
        "objects": int(report.get("observations", {}).get("n", 0)),
    }


def _nominal(report: Report) -> list[Mapping[str, Any]]:
    """Return the largest combination of every group with nominal nuisance parameters."""
    marginalised = report.get("marginalised") or [{}]
    chosen = [c for c in _combined(report) if c["combiner"] == marginalised[0].get("nominal")]
    largest = {str(c.get("group", "")): c for c in sorted(chosen, key=lambda c: int(c["n"]))}
    return list(largest.values())


def _families(report: Report) -> list[str]:
    """Return the families of nuisance parameters that are marginalised."""
    budget = (report.get("marginalised") or [{}])[0].get("budget", {})
    return [name for name in budget if name not in ("all", "none")]


def _budget(report: Report) -> list[dict[str, Any]]:
    """Return the error budget of every group, and its results without each observable."""
    found = []
    for entry in report.get("marginalised") or ():
        names = list(headline(report)[0]["parameters"])
        everything = entry["budget"]["all"]
        rows: list[dict[str, Any]] = [
            {
                "name": name,
                "values": [
                    {"without": number(sd), "share": percent(max(0.0, 1 - (sd / total) ** 2))}
                    for sd, total in zip(sds, everything, strict=True)
                ],
            }
            for name, sds in entry["budget"].items()
            if name not in ("all", "none")
        ]
        without = [
            {
                "name": name,
                "values": [
                    measurement(mean, sd) for mean, sd in zip(v["mean"], v["sd"], strict=True)
                ],
            }
            for name, v in entry["without"].items()
        ]
        found.append(
            {
                "group": str(entry.get("group", "")),
                "names": [(_label(report, n), _unit(report, n)) for n in names],
                "total": [number(v) for v in everything],
                "rows": rows,
                "without": without,
            }
        )
    return found


def _card(
    report: Report,
    name: str,
    value: Mapping[str, float],
    nominal: Mapping[str, Any],
) -> dict[str, Any]:
    column = report.get("parameters", {}).get(name, {})
    notes = []
    if name in nominal.get("parameters", {}):
        fixed = nominal["parameters"][name]
        exact = measurement(fixed["mean"], fixed["sd"])
        wrong = "; these objects contradict it" if UNLIKE in nominal.get("flags", ()) else ""
        notes.append(f"if the model is exactly right: {exact}{wrong}")
    if "truth" in value:
        notes.append(f"true value {plain(value['truth'])}, {_offset(value)}")
    if column.get("prior"):
        notes.append(f"prior: {prior_words(column['prior'])}")
    return {
        "label": _label(report, name),
        "description": str(column.get("description", "")) or name,
        "value": measurement(value["mean"], value["sd"]),
        "unit": _unit(report, name),
        "notes": notes,
    }


def _offset(value: Mapping[str, float]) -> str:
    """Return the distance from the truth in words."""
    if not value["sd"] > 0:
        return "no error known"
    sigmas = (value["mean"] - value["truth"]) / value["sd"]
    return f"the estimate is {abs(sigmas):.1f}\u00a0σ {'below' if sigmas < 0 else 'above'} it"


# ---------------------------------------------------------------------------------- single objects


def _objects(report: Report, table: Table | None) -> dict[str, Any] | None:
    """Return the table of results, a row per object: median and the central 68 %."""
    if table is None or not len(table):
        return None
    names = [
        c[:-4] for c in table.colnames if c.endswith("_p50") and f"{c[:-4]}_p84" in table.colnames
    ]
    statistics = {f"{n}_{s}" for n in names for s in ("p16", "p50", "p84", "mean", "sd")}
    truths = {f"true_{n}" for n in names}
    others = [c for c in table.colnames if c not in statistics | truths | {"id", "flags"}]
    shown = table[:_MAX_OBJECTS]
    return {
        "columns": [
            *((_label(report, n), _unit(report, n) or _unit_of(table, f"{n}_p50")) for n in names),
            *((c.replace("_", " "), _unit_of(table, c)) for c in others),
        ],
        "flagged": any(shown["flags"]) if "flags" in shown.colnames else False,
        "truth": bool(truths & set(table.colnames)),
        "rows": [
            {
                "id": str(row["id"]),
                "values": [_estimate(row, n) for n in names],
                "others": [_plain_cell(row[c]) for c in others],
                "flags": str(row["flags"]).replace(",", ", ") if "flags" in row.colnames else "",
            }
            for row in shown
        ],
        "more": len(table) - len(shown),
    }


def _unit_of(table: Table, column: str) -> str:
    return str(table[column].unit or "")


def _estimate(row: Any, name: str) -> dict[str, str]:
    truth = f"true_{name}"
    known = [float(row[truth])] if truth in row.colnames and np.isfinite(row[truth]) else []
    ends = [float(row[f"{name}_{p}"]) for p in ("p16", "p50", "p84")]
    value, up, down, *rest = interval(*ends, *known)
    return {"value": value, "up": up, "down": down, "truth": "".join(rest)}


def _plain_cell(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return number(float(value)) if np.isfinite(value) else "–"
    return str(value)


def _widths(report: Report) -> list[dict[str, Any]]:
    """Return the widths of prior and posterior, and True where the data constrain a parameter."""
    return [
        {
            "label": _label(report, name),
            "unit": _unit(report, name) or "–",
            "prior": number(width["prior"], 2),
            "posterior": number(width["posterior"], 2),
            "ratio": f"{width['posterior'] / width['prior']:.2f}" if width["prior"] > 0 else "–",
            "constrained": is_constrained(width),
        }
        for name, width in report.get("widths", {}).items()
    ]


def _observations(
    report: Report, table: Table | None, meanings: Mapping[str, str]
) -> dict[str, Any] | None:
    part = report.get("observations")
    if not part:
        return None
    n, outside = int(part.get("n", 0)), part.get("unsupported")
    return {
        "n": n,
        "source": str(part.get("source", "")),
        "outside": outside,
        "expected": plain(round(_EXPECTED * n, 2)),
        "too_many": outside is not None and more_than_chance(outside, n),
        "notes": list(part.get("notes", ())),
        "flags": _object_flags(table, {**_OBJECT_FLAGS, **meanings}),
    }


def _object_flags(table: Table | None, meanings: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return every flag of the table with its meaning, and the objects that carry it."""
    if table is None or "flags" not in table.colnames:
        return []
    carriers: dict[str, list[str]] = {}
    for name, flags in zip(map(str, table["id"]), map(str, table["flags"]), strict=True):
        for flag in filter(None, flags.split(",")):
            carriers.setdefault(flag, []).append(name)
    return [
        {
            "flag": flag,
            "meaning": _sentence(meanings.get(flag, "")),
            "n": count(len(names)),
            "objects": ", ".join(names[:_MAX_NAMES]) + (", …" if len(names) > _MAX_NAMES else ""),
        }
        for flag, names in sorted(carriers.items(), key=lambda item: -len(item[1]))
    ]


def _sentence(words: str) -> str:
    """Return words that begin with a capital letter and end with a full stop."""
    return words[:1].upper() + words[1:] + ("" if words[-1:] in ("", ".") else ".")


# ---------------------------------------------------------------------------------- combinations


def _posterior(report: Report, warnings: Mapping[str, str]) -> dict[str, Any] | None:
    entries = _combined(report)
    if not entries:
        return None
    names = list(dict.fromkeys(name for e in entries for name in e["parameters"]))
    combiners = list(dict.fromkeys(str(e["combiner"]) for e in entries))
    ordered = sorted(entries, key=lambda e: (combiners.index(str(e["combiner"])), e["n"]))
    comparison = {str(e["combiner"]) for e in entries if is_comparison(e)}
    warned = [name for name in combiners if name in comparison or warnings.get(name)]
    return {
        "columns": [(_label(report, name), _unit(report, name)) for name in names],
        "groups": any("group" in e for e in entries),
        "truth": any("truth" in p for e in entries for p in e["parameters"].values()),
        "rows": [
            {
                "combiner": str(entry["combiner"]),
                "comparison": is_comparison(entry),
                "unlike": UNLIKE in entry.get("flags", ()),
                "group": str(entry.get("group", "")),
                "n": count(entry["n"]),
                "cells": [_cell(entry["parameters"].get(name)) for name in names],
            }
            for entry in ordered
        ],
        "warnings": [(name, name in comparison, warnings.get(name, "")) for name in warned],
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
    return measurement(value["mean"], value["sd"]), off


def _consistency(report: Report) -> list[dict[str, Any]]:
    """Return the test of agreement between parts of the sample, per combination."""
    rows = []
    for entry in _combined(report):
        if "consistency_chi2" not in entry or is_comparison(entry):
            continue
        p = entry.get("consistency_p")
        bad = p is not None and p <= 0.01
        rows.append(
            {
                "combiner": str(entry["combiner"]),
                "group": str(entry.get("group", "")),
                "n": count(entry["n"]),
                "chi2": number(entry["consistency_chi2"]),
                "p": "–" if p is None else p_value(p),
                "bad": bad,
                "words": "" if p is None else "parts disagree" if bad else "parts agree",
            }
        )
    return rows


def _combined_calibration(
    report: Report, checks: Iterable[Mapping[str, str]]
) -> dict[str, Any] | None:
    entries = report.get("combined_calibration", ())
    if not entries:
        return None
    rows = [
        {
            "combiner": str(entry["combiner"]),
            "n": count(entry["n"]),
            "repeats": count(entry["repeats"]) if "repeats" in entry else "–",
            "z_rms": _each(entry.get("z_rms"), lambda z: f"{z:.2f}"),
            "coverage": _each(entry.get("coverage_68"), lambda c: f"{100 * c:.0f} %"),
            "coverage_95": _each(entry.get("coverage_95"), lambda c: f"{100 * c:.0f} %"),
            "sbc_p": _smallest_p(entry.get("parameters", {})),
        }
        for entry in entries
    ]
    return {"rows": rows, **_outcomes(checks, {"combine"})}


def _smallest_p(parameters: Mapping[str, Mapping[str, float]]) -> str:
    p = [values["sbc_p"] for values in parameters.values() if "sbc_p" in values]
    return p_value(min(p)) if p else "–"


def _each(value: Any, words: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {words(float(v))}" for name, v in value.items())
    return str(words(float(value)))


def _model_check(report: Report) -> list[dict[str, Any]]:
    """Return the comparison of the observed objects with simulated ones, per group."""
    return [
        {
            "group": str(entry.get("group", "")),
            "verdict": str(entry["verdict"]),
            "rows": [(name, p_value(p)) for name, p in entry.get("comparisons", {}).items()],
        }
        for entry in report.get("misspecification", ())
    ]


# ----------------------------------------------------------------------------------- calibration


def _outcomes(checks: Iterable[Mapping[str, str]], stages: set[str]) -> dict[str, Any]:
    """Return the number of tests of some stages, those that did not pass, and further ones.

    A passed test of a kind that is shown in a table has no sentence.
    """
    mine = [c for c in checks if c.get("stage", "diagnose") in stages and c.get("test") != _MODEL]
    passed = [c for c in mine if c["level"] == "pass"]
    return {
        "tests": len(mine),
        "passed": len(passed),
        "troubled": [c for c in mine if c["level"] != "pass"],
        "further": [c["sentence"] for c in passed if not c.get("test")],
    }


def _calibration(report: Report, checks: Sequence[Mapping[str, str]]) -> dict[str, Any] | None:
    part = report.get("calibration")
    mine = _outcomes(checks, {"diagnose", "infer"})
    if not part and not mine["tests"]:
        return None
    part = part or {}
    parameters = part.get("parameters", {})
    levels = sorted({level for p in parameters.values() for level in p.get("coverage", {})})
    tarp = part.get("tarp", {})
    return {
        **mine,
        "objects": part.get("objects"),
        "levels": [f"{100 * float(level):.3g} %" for level in levels],
        "rows": _calibration_rows(report, parameters, levels, int(part.get("objects") or 0)),
        "tarp": [
            (kind, p_value(tarp[key]))
            for key, kind in (("p_uniform", "uniform"), ("p_data", "data-dependent"))
            if key in tarp
        ],
        "deviation": number(tarp["max_deviation"], 2) if "max_deviation" in tarp else "",
    }


def _calibration_rows(
    report: Report, parameters: Mapping[str, Any], levels: Sequence[str], objects: int
) -> list[dict[str, Any]]:
    """Return p-values and coverage of every parameter, each with its outcome."""
    p = [part.get("sbc_p", np.nan) for part in parameters.values()]
    outcomes = judge_sbc_all(list(parameters), p) if p else []
    corrected = holm(p) if p else np.empty(0)
    rows = []
    for k, (name, part) in enumerate(parameters.items()):
        shares = [part.get("coverage", {}).get(level) for level in levels]
        rows.append(
            {
                "label": _label(report, name),
                "p": p_value(p[k]) if np.isfinite(p[k]) else "–",
                "corrected": p_value(corrected[k]) if np.isfinite(p[k]) else "–",
                "p_ok": outcomes[k].ok or not np.isfinite(p[k]),
                "coverage": [
                    _covered(share, float(level), objects)
                    for share, level in zip(shares, levels, strict=True)
                ],
            }
        )
    return rows


def _covered(value: float | None, level: float, objects: int) -> tuple[str, bool]:
    if value is None:
        return "–", True
    ok = not objects or judge_coverage("", value, level, objects=objects).ok
    return f"{100 * value:.1f} %", ok


def _accuracy(report: Report) -> list[dict[str, Any]]:
    return [
        {
            "label": _label(report, name),
            "unit": _unit(report, name) or "–",
            "values": [
                *(number(part[k]) if k in part else "–" for k in ("mae", "rmse")),
                f"{part['r2']:.3f}".replace("-", "−") if "r2" in part else "–",
            ],
            "ape": f"{number(part['median_ape'])} %" if "median_ape" in part else "–",
        }
        for name, part in report.get("accuracy", {}).items()
    ]


# -------------------------------------------------------------------------------- how it was made


def _run(report: Report) -> dict[str, Any]:
    timing = report.get("timing", {})
    versions = report.get("versions", {})
    created = str(report.get("created", ""))
    facts = [("date", created.replace("T", " ").replace("+00:00", " UTC"))] if created else []
    facts += [("version", f"sbi-core {versions['sbi-core']}")] if "sbi-core" in versions else []
    facts += [(key, str(report[key])) for key in ("preset", "seed") if key in report]
    return {
        "command": str(report.get("command", "")),
        "facts": facts,
        "versions": [(str(k), str(v)) for k, v in versions.items()],
        "timing": [
            (word, duration(timing[key]))
            for key, word in _STAGES.items()
            if key in timing and _ANYTHING_OF.get(key, "timing") in report
        ],
    }


def _prior(report: Report) -> list[dict[str, Any]]:
    return [
        {
            "label": _label(report, name),
            "name": name,
            "description": str(column.get("description", "")),
            "unit": str(column.get("unit", "")) or "–",
            "scope": "shared by all objects" if column.get("scope") == "global" else "per object",
            "prior": prior_words(column.get("prior", {})),
            "role": "inferred" if column.get("inferred") else "marginalised",
        }
        for name, column in report.get("parameters", {}).items()
    ]


def _simulation(report: Report) -> dict[str, Any] | None:
    part = report.get("simulation")
    if not part:
        return None
    facts = []
    if "n" in part:
        facts.append(("simulations", count(part["n"])))
    if "failed" in part:
        share = f" ({percent(part['failed'] / part['n'])})" if part.get("n") else ""
        facts.append(("failed and left out", count(part["failed"]) + share))
    rows = sorted(part.get("failures", {}).items(), key=lambda row: (-row[1], row[0]))
    return {
        "facts": facts,
        "failures": [(reason, count(n)) for reason, n in rows],
        "failed": percent(part["failed"] / part["n"]) if part.get("failed") and part["n"] else "",
        "messages": part.get("messages", []),
    }


def _emulator(report: Report) -> dict[str, Any] | None:
    errors = report.get("emulator", {}).get("median_abs_error")
    if not errors:
        return None
    if not isinstance(errors, Mapping):
        errors = {"all outputs": errors}
    ordered = sorted(errors.items(), key=lambda item: -item[1])
    shown = ordered if len(ordered) > _MAX_OUTPUTS else list(errors.items())
    return {
        "rows": [(name, number(value, 2)) for name, value in shown[:_MAX_OUTPUTS]],
        "more": max(len(ordered) - _MAX_OUTPUTS, 0),
        "worst": (ordered[0][0], number(ordered[0][1], 2)),
        "median": number(ordered[len(ordered) // 2][1], 2),
        "outputs": len(ordered),
    }


def _training(report: Report) -> list[tuple[str, str]]:
    part = report.get("training", {})
    facts = []
    if "epochs" in part:
        facts.append(("epochs", count(part["epochs"])))
    if "seconds" in part:
        facts.append(("time", duration(part["seconds"])))
    if "test_nll" in part:
        facts.append(("loss on test simulations [nat]", number(part["test_nll"], 4)))
    if part.get("skipped_steps"):
        facts.append(("steps skipped (loss not finite)", count(part["skipped_steps"])))
    return facts
