"""The model card of an estimator: what it is, what it was trained on, and how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sbi_core.report.text import plain

__all__ = ["CardInputs", "model_card"]


@dataclass(frozen=True)
class CardInputs:
    """What a card is made of.

    Parameters
    ----------
    report
        Contents of ``report.json``.
    estimator
        Contents of ``estimator/config.json``.
    simulator
        Identity of the simulator: name, version and what else it says about itself.
    proposal
        Hash of the distribution that drew the simulations.
    inferred, marginalised
        Names of the parameters that are inferred, and of those drawn from the prior only.
    verdicts
        Level and sentence of every check.
    citations
        What to cite.
    versions
        Distributions and their versions.
    """

    report: Mapping[str, Any]
    estimator: Mapping[str, Any]
    simulator: Mapping[str, Any]
    proposal: str
    inferred: Sequence[str]
    marginalised: Sequence[str] = ()
    verdicts: Sequence[tuple[str, str]] = ()
    citations: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


def model_card(inputs: CardInputs) -> str:
    """Return the card, Markdown. The same inputs give the same bytes: it holds no date."""
    sections = (_what, _training, _calibration, _limits, _versions, _cite)
    return "\n".join(line for section in sections for line in (*section(inputs), ""))


def _what(c: CardInputs) -> list[str]:
    e = c.estimator
    names = ", ".join(f"`{n}`" for n in c.inferred)
    lines = [
        f"# Model card: {e['estimator']} for {c.report['plugin']}",
        "",
        f"An amortised posterior q({', '.join(c.inferred)} | data): density estimator "
        f"`{e['estimator']}` behind the embedding `{e['embedding']['name']}`, for simulations of "
        f"`{c.simulator.get('name')}` (version {c.simulator.get('version')}).",
        "",
        f"* infers: {names}",
    ]
    if c.marginalised:
        lines.append(f"* integrates over: {', '.join(f'`{n}`' for n in c.marginalised)}")
    shape = " x ".join(map(str, e["input"]["x"])) or "1"
    extra = [w for w, k in (("errors", "has_err"), ("missing values", "has_mask")) if e["input"][k]]
    lines.append(f"* input: {shape} values" + (f", with {' and '.join(extra)}" if extra else ""))
    lines.append(f"* options: {_words(e['options'])}; embedding: {_words(e['embedding']['options'])}")
    return lines


def _training(c: CardInputs) -> list[str]:
    lines = ["## Training data", "", "| parameter | unit | scope | prior |", "|---|---|---|---|"]
    for p in c.estimator["space"]["parameters"]:
        prior = {k: v for k, v in p["prior"].items() if k != "family"}
        lines.append(
            f"| {_cell(p['name'])} | {_cell(p['unit'])} | {p['scope']} | "
            f"{p['prior']['family']}({_cell(_words(prior))}) |"
        )
    lines += ["", f"* prior version {c.estimator['space']['version']}"]
    lines.append(f"* hash of the prior of the inferred parameters: `{c.estimator['space_hash']}`")
    lines.append(f"* hash of the proposal (all parameters, from which was drawn): `{c.proposal}`")
    simulation = c.report.get("simulation")
    if simulation:
        share = 100 * simulation["failed"] / max(simulation["n"], 1)
        lines.append(
            f"* {simulation['n']} simulations, {simulation['failed']} of them failed ({share:.2g} %) "
            "and left out"
        )
    record = c.estimator.get("training")
    if record:
        split = record["split"]
        sizes = ", ".join(f"{split[k]} {k}" for k in ("train", "val", "test") if k in split)
        lines.append(f"* rows: {sizes}; seed {c.report['seed']}")
        lines.append(
            f"* {record['epochs']} epochs, weights of epoch {record['best_epoch']}; "
            f"test loss {record['test_nll']:.4f} nats per object"
        )
    return lines


def _calibration(c: CardInputs) -> list[str]:
    found = c.report.get("calibration")
    if not found:
        return ["## Calibration", "", "**Not checked.** Do not quote results of this estimator."]
    levels = list(next(iter(found["parameters"].values()))["coverage"])
    head = " | ".join(f"{100 * float(v):.0f} %" for v in levels)
    lines = [
        "## Calibration",
        "",
        f"On {found['objects']} held-out simulations; verdict: **{found['verdict']}**.",
        "",
        f"| parameter | SBC p | {head} |",
        f"|---|---|{'---|' * len(levels)}",
    ]
    for name, p in found["parameters"].items():
        values = " | ".join(f"{100 * p['coverage'][v]:.1f} %" for v in levels)
        lines.append(f"| {_cell(name)} | {p['sbc_p']:.2g} | {values} |")
    lines += ["", f"Largest deviation of TARP: {found['tarp']['max_deviation']:.3f}."]
    troubled = [f"* {level}: {plain(text)}" for level, text in c.verdicts if level != "pass"]
    if troubled:
        lines += ["", "Checks that did not pass:", "", *troubled]
    return lines


def _limits(c: CardInputs) -> list[str]:
    lines = [
        "## Limits",
        "",
        "* Valid for data that the simulator can produce, under the prior above; look at the "
        "support percentile of every object. Another prior needs reweighting or training.",
        "* Calibration holds on average over the prior; at one observation it may differ.",
        "* Parameters outside the prior are impossible, and a posterior at its edge says so.",
    ]
    combined = c.report.get("combined_calibration")
    if combined:
        most = max(entry["n"] for entry in combined)
        lines.append(f"* Combinations were tested up to {most} objects.")
    elif c.report.get("combined"):
        lines.append("* Combinations of objects were not tested: a small bias grows with sqrt(N).")
    lines += [f"* flag of the run: `{flag}`" for flag in c.report.get("flags", [])]
    return lines


def _versions(c: CardInputs) -> list[str]:
    found = {**c.versions, **c.estimator.get("versions", {})}
    return ["## Versions", "", *(f"* {k} {v}" for k, v in sorted(found.items()))]


def _cite(c: CardInputs) -> list[str]:
    return ["## How to cite", "", *(f"* {plain(text)}" for text in c.citations or ("sbi-core",))]


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} = {v}" for k, v in values.items()) or "none"


def _cell(text: str) -> str:
    return text.replace("|", "\\|") or "-"
