"""The model card of an estimator: what it is, what it was trained on, and how far to trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sbi_core.report.text import prior_words

__all__ = ["CardInputs", "model_card"]


@dataclass(frozen=True)
class CardInputs:
    """What a card is made of.

    Parameters
    ----------
    report
        Contents of ``report.json``.
    estimator
        Contents of ``estimator/config.json``; what it does not say is left out.
    space, space_hash
        The inferred parameters as a table, and the hash of their prior.
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
    space: Mapping[str, Any]
    space_hash: str
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
    name, embedding = e.get("estimator", "estimator"), e.get("embedding") or {}
    behind = f" behind the embedding `{embedding['name']}`" if "name" in embedding else ""
    lines = [
        f"# Model card: {name} for {c.report['plugin']}",
        "",
        f"An amortised posterior q({', '.join(c.inferred)} | data): density estimator `{name}`"
        f"{behind}, for simulations of `{c.simulator.get('name')}` (version "
        f"{c.simulator.get('version')}).",
        "",
        f"* infers: {', '.join(f'`{n}`' for n in c.inferred)}",
    ]
    if c.marginalised:
        lines.append(f"* integrates over: {', '.join(f'`{n}`' for n in c.marginalised)}")
    shape = e.get("input")
    if shape:
        size = " x ".join(map(str, shape["x"])) or "1"
        parts = (("errors", "has_err"), ("missing values", "has_mask"))
        extra = " and ".join(word for word, key in parts if shape[key])
        lines.append(f"* input: {size} values" + (f", with {extra}" if extra else ""))
    for what, options in (("options", e.get("options")), ("embedding", embedding.get("options"))):
        if options:
            lines.append(f"* {what}: {', '.join(f'{k} = {v}' for k, v in options.items())}")
    return lines


def _training(c: CardInputs) -> list[str]:
    lines = ["## Training data", "", "| parameter | unit | scope | prior |", "|---|---|---|---|"]
    for p in c.space["parameters"]:
        cells = (p["name"], p["unit"], p["scope"], prior_words(p["prior"]))
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    lines += ["", f"* prior version {c.space['version']}, sha256 `{c.space_hash}`"]
    lines.append(f"* proposal that drew the simulations (all parameters), sha256 `{c.proposal}`")
    simulation = c.report.get("simulation")
    if simulation:
        share = 100 * simulation["failed"] / max(simulation["n"], 1)
        lines.append(
            f"* {simulation['n']} simulations, {simulation['failed']} of them ({share:.2g} %) "
            "failed and were left out"
        )
    record = c.estimator.get("training") or c.report.get("training")
    if record:
        split = record.get("split", {})
        sizes = ", ".join(f"{split[k]} {k}" for k in ("train", "val", "test") if k in split)
        lines.append(f"* seed {c.report['seed']}" + (f"; rows: {sizes}" if sizes else ""))
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
    troubled = [f"* {level}: {text}" for level, text in c.verdicts if level != "pass"]
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
    return ["## How to cite", "", *(f"* {text}" for text in c.citations or ("sbi-core",))]


def _cell(text: str) -> str:
    return text.replace("|", "\\|") or "-"
