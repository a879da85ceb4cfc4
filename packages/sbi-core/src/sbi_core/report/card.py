"""The model card of an estimator: its parts, its training data, calibration and limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sbi_core.errors import counted
from sbi_core.report.text import prior_words

__all__ = ["model_card"]


def model_card(
    report: Mapping[str, Any], estimator: Mapping[str, Any], provenance: Mapping[str, Any]
) -> str:
    """Return the card, Markdown. The same inputs give the same bytes: it holds no date.

    Parameters
    ----------
    report
        Contents of ``report.json``.
    estimator
        Contents of ``estimator/config.json``; absent parts are left out.
    provenance
        Contents of ``provenance.json``: identity of the simulator, hashes, version of the prior.
    """
    sections = [
        _what(report, estimator, provenance),
        _training(report, estimator, provenance),
        _calibration(report),
        _limits(report),
        _versions(report, estimator),
        _cite(report),
    ]
    return "\n".join(line for section in sections for line in (*section, ""))


def _parameters(report: Mapping[str, Any], *, inferred: bool) -> list[str]:
    columns = report.get("parameters", {})
    return [n for n, p in columns.items() if bool(p.get("inferred")) == inferred]


def _what(
    report: Mapping[str, Any], estimator: Mapping[str, Any], provenance: Mapping[str, Any]
) -> list[str]:
    name, embedding = estimator.get("estimator", "estimator"), estimator.get("embedding") or {}
    behind = f" behind the embedding `{embedding['name']}`" if "name" in embedding else ""
    inferred = _parameters(report, inferred=True)
    simulator = provenance.get("simulator", {})
    lines = [
        f"# Model card: {name} for {report['plugin']}",
        "",
        f"An amortised posterior q({', '.join(inferred)} | data): density estimator `{name}`"
        f"{behind}, for simulations of `{simulator.get('name')}` (version "
        f"{simulator.get('version')}).",
        "",
        f"* infers: {', '.join(f'`{n}`' for n in inferred)}",
    ]
    marginalised = _parameters(report, inferred=False)
    if marginalised:
        lines.append(f"* marginalises over: {', '.join(f'`{n}`' for n in marginalised)}")
    shape = estimator.get("input")
    if shape:
        size = " x ".join(map(str, shape["x"])) or "1"
        parts = (("errors", "has_err"), ("missing values", "has_mask"))
        extra = " and ".join(word for word, key in parts if shape[key])
        lines.append(
            f"* input: {size} value{'' if size == '1' else 's'}"
            + (f", with {extra}" if extra else "")
        )
    both = (("options", estimator.get("options")), ("embedding", embedding.get("options")))
    for what, options in both:
        if options:
            lines.append(f"* {what}: {', '.join(f'{k} = {v}' for k, v in options.items())}")
    return lines


def _training(
    report: Mapping[str, Any], estimator: Mapping[str, Any], provenance: Mapping[str, Any]
) -> list[str]:
    lines = ["## Training data", "", "| parameter | unit | scope | prior |", "|---|---|---|---|"]
    for name in _parameters(report, inferred=True):
        p = report["parameters"][name]
        cells = (name, p["unit"], p["scope"], prior_words(p["prior"]))
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    hashes, prior = provenance.get("hashes", {}), provenance.get("prior", {})
    own = estimator.get("space_hash") or hashes.get("prior", "-")
    lines += ["", f"* prior version {prior.get('version', '-')}, sha256 `{own}`"]
    lines.append(
        "* proposal that drew the simulations (all parameters), sha256 "
        f"`{hashes.get('proposal', '-')}`"
    )
    simulation = report.get("simulation")
    if simulation:
        share = 100 * simulation["failed"] / max(simulation["n"], 1)
        lines.append(
            f"* {counted(simulation['n'], 'simulation')}, {simulation['failed']} of them "
            f"({share:.2g} %) failed and were left out"
            + (": the effective prior is restricted accordingly" if simulation["failed"] else "")
        )
    record = estimator.get("training") or report.get("training")
    if record:
        split = record.get("split", {})
        sizes = ", ".join(f"{split[k]} {k}" for k in ("train", "val", "test") if k in split)
        lines.append(f"* seed {report['seed']}" + (f"; rows: {sizes}" if sizes else ""))
        lines.append(
            f"* {counted(record['epochs'], 'epoch')}, weights of epoch {record['best_epoch']}; "
            f"test loss {record['test_nll']:.4f} nats per object"
        )
    return lines


def _calibration(report: Mapping[str, Any]) -> list[str]:
    part = report.get("calibration")
    if not part:
        return ["## Calibration", "", "**Not checked.** Do not quote results of this estimator."]
    levels = list(next(iter(part["parameters"].values()))["coverage"])
    head = " | ".join(f"{100 * float(v):.0f} %" for v in levels)
    lines = [
        "## Calibration",
        "",
        f"On {part['objects']} held-out simulations; verdict: **{part['verdict']}**.",
        "",
        f"| parameter | SBC p | {head} |",
        f"|---|---|{'---|' * len(levels)}",
    ]
    for name, p in part["parameters"].items():
        values = " | ".join(f"{100 * p['coverage'][v]:.1f} %" for v in levels)
        lines.append(f"| {_cell(name)} | {p['sbc_p']:.2g} | {values} |")
    lines += ["", f"Largest deviation of TARP: {part['tarp']['max_deviation']:.3f}."]
    troubled = [
        f"* {c['level']}: {c['sentence']}" for c in report.get("checks", ()) if c["level"] != "pass"
    ]
    if troubled:
        lines += ["", "Checks that did not pass:", "", *troubled]
    return lines


def _limits(report: Mapping[str, Any]) -> list[str]:
    lines = [
        "## Limits",
        "",
        "* Valid for data that the simulator can produce, under the prior above; check the "
        "support percentile of every object. Another prior needs reweighting or training.",
        "* Calibration holds on average over the prior; at one observation it may differ.",
        "* Parameters outside the prior are excluded: a posterior that piles up at its edge needs "
        "a wider prior.",
    ]
    combined = report.get("combined_calibration")
    if combined:
        most = max(entry["n"] for entry in combined)
        lines.append(f"* Combinations were tested up to {counted(most, 'object')}.")
    elif report.get("combined"):
        lines.append("* Combinations of objects were not tested: a small bias grows with sqrt(N).")
    lines += [f"* flag of the run: `{flag}`" for flag in report.get("flags", [])]
    return lines


def _versions(report: Mapping[str, Any], estimator: Mapping[str, Any]) -> list[str]:
    versions = {**report.get("versions", {}), **estimator.get("versions", {})}
    return ["## Versions", "", *(f"* {k} {v}" for k, v in sorted(versions.items()))]


def _cite(report: Mapping[str, Any]) -> list[str]:
    return ["## How to cite", "", *(f"* {text}" for text in report.get("references", ()))]


def _cell(text: str) -> str:
    return text.replace("|", "\\|") or "-"
