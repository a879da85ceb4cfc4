"""Stage ``infer``: posterior draws and a summary for every observed object."""

from __future__ import annotations

from typing import cast

import numpy as np

from sbi_core.analyses import Findings
from sbi_core.data.chunks import WholeObservations
from sbi_core.data.observations import Observations
from sbi_core.diagnostics import Verdict
from sbi_core.files.directory import write_json
from sbi_core.files.table_file import write_parts
from sbi_core.pipeline.catalogue import table_meta, write_draws
from sbi_core.pipeline.chunk_files import inferred
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.inference import chunk_rows
from sbi_core.pipeline.plugin_calls import called
from sbi_core.pipeline.stages import StageResult
from sbi_core.posterior import PosteriorSamples
from sbi_core.report.figures import drawing_style, section_records

__all__ = ["analysis_report", "execute"]

_SUPPORT = ("outside_training", "far_outside_training")


def execute(context: Context) -> StageResult:
    """Infer every object and write posterior.nc and summary.ecsv."""
    observations, draws = context.observations, context.config.infer.draws
    for note in (*observations.notes, *observations.reasons):
        context.progress.say(f"observations: {note}")
    source = WholeObservations.of(observations, chunk_rows(context, draws))
    folder = context.directory.root / ".infer.chunks"
    with inferred(context, source, folder, draws=draws, keep_draws=True) as (files, done):
        meta = table_meta(context, observations.source, draws)
        rows = done.n + done.excluded
        write_parts(context.directory.summary, lambda: files.tables(meta), rows)
        write_draws(context, files, context.directory.posterior, done.n)
        samples = PosteriorSamples.cat([part.samples for part in files.parts()])
    findings = analysis_report(context, observations, samples) or Findings()
    if findings.sections:
        records = section_records(findings.sections, "infer")
        write_json(context.directory.infer_sections, records)
    flags = dict(zip(map(str, samples.id), samples.flags, strict=True))
    words = {i: f.split(",") for i, f in flags.items()}
    outside = [i for i, w in words.items() if "outside_training" in w]
    facts = {
        "n": len(observations),
        "source": observations.source,
        "unsupported": len(outside),
        "flagged": outside[:100],
        "far": [i for i, w in words.items() if "far_outside_training" in w][:100],
        "excluded": len(observations.excluded),
        "notes": [*observations.notes, *observations.reasons],
        "groups": len(np.unique(observations.group)),
        "domain": dict(findings.numbers),
        "domain_flags": _of_analysis(flags),
    }
    verdicts = [Verdict(level, sentence) for level, sentence in findings.verdicts]
    return StageResult(facts, verdicts)


def analysis_report(
    context: Context, observations: Observations, samples: PosteriorSamples
) -> Findings | None:
    """Return what the analysis reports about the objects, with its figures."""
    seed = context.config.seed
    with drawing_style():
        found = called(context.analysis, "report", context.posterior, observations, samples, seed)
    return cast("Findings | None", found)


def _of_analysis(flags: dict[str, str]) -> dict[str, str]:
    """Return the flags that the analysis set, by object."""
    rest = {
        i: ",".join(w for w in words.split(",") if w and w not in _SUPPORT)
        for i, words in flags.items()
    }
    return {i: words for i, words in rest.items() if words}
