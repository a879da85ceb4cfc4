"""Inference of a catalogue of any length with a trained run: ``sbi-run infer``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sbi_core.data.reading import Reading
from sbi_core.data.writing import remove_leftovers
from sbi_core.files.posterior_file import write_posterior
from sbi_core.files.table_file import write_parts
from sbi_core.pipeline.chunk_files import ChunkFiles, Inferred, inferred
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.inference import chunk_rows, prior_draws
from sbi_core.pipeline.reading import open_objects
from sbi_core.rng import torch_defaults
from sbi_core.simulate.executors import Executor

__all__ = ["infer_catalogue", "table_meta", "write_draws"]


@torch_defaults()
def infer_catalogue(
    context: Context,
    observations: Any,
    target: Path,
    *,
    draws: int,
    reading: Reading | None = None,
    samples: Path | None = None,
    rows: int | None = None,
    executor: Executor | None = None,
) -> Inferred:
    """Infer all objects of a file and write their summaries.

    Parameters
    ----------
    observations
        The objects: a file name, or a table in memory.
    target
        Summary table (see :func:`sbi_core.files.table_file.write_parts`).
    samples
        Also write the draws, netCDF.
    rows
        Objects per chunk; default: 10 000, fewer where their draws would exceed 32 MiB or the
        analysis asks for less.
    executor
        What maps over chunks; default: this process.

    Raises
    ------
    SbiError
        See :func:`sbi_core.pipeline.chunk_files.inferred`.
    """
    # plugins may change the working directory
    shown, target, samples = target, target.absolute(), samples and samples.absolute()
    if isinstance(observations, (str, Path)):
        observations = Path(observations).expanduser().absolute()
        context.progress.say(f"{'read':>9}: {observations.name}")  # may take a minute
    size = chunk_rows(context, draws, rows)
    source = open_objects(context.simulator, observations, size, reading)
    folder = target.with_name(f".{target.name}.chunks")
    with inferred(
        context,
        source,
        folder,
        draws=draws,
        keep_draws=samples is not None,
        executor=executor,
    ) as (files, done):
        for path in (target, *([samples] if samples else [])):
            remove_leftovers(path.parent, path.name)
        context.progress.start("write", done.n + done.excluded, "objects")
        meta = table_meta(context, str(source.path), draws)
        write_parts(target, lambda: files.tables(meta), done.n + done.excluded)
        if samples is not None:
            write_draws(context, files, samples, done.n)
        context.progress.finish(str(shown))
    return done


def table_meta(context: Context, source: str, draws: int) -> dict[str, Any]:
    """Return what the header of a summary table records."""
    return {
        "plugin": context.config.plugin,
        "prior": context.space.hash,
        "source": source,
        "draws": draws,
    }


def write_draws(context: Context, files: ChunkFiles, path: Path, n: int) -> None:
    """Write the draws of all chunks as netCDF."""
    write_posterior(
        path,
        files.parts,
        n,
        prior=prior_draws(context),
        observables=tuple(o.name for o in context.simulator.observables),
        source=str(files.source.path),
    )
