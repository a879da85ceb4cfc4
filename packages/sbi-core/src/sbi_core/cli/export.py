"""``sbi-run export RUN``: the draws of a run for other programs."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["command"]


@click.command("export")
@click.argument("run")
@click.option(
    "--format", "form", type=click.Choice(["getdist", "csv", "npz"]), default="getdist",
    show_default=True, help="GetDist chains, comma-separated values, or numpy arrays.",
)  # fmt: skip
@click.option("--object", "objects", metavar="ID", multiple=True, help="Only this (repeatable).")
@click.option("--out", metavar="DIR", help="Folder; default RUN/export.")
def command(run: str, form: str, objects: tuple[str, ...], out: str | None) -> None:
    """Write the draws of RUN: single objects, and the combined posteriors.

    GetDist: one chain per object and per combination. The others: one file with all objects, one
    with all combinations.
    """
    import numpy as np

    from sbi_core.errors import ConfigError
    from sbi_core.exports import safe_name, write_csv, write_getdist
    from sbi_core.files.directory import read_arrays
    from sbi_core.files.posterior_file import read_samples
    from sbi_core.pipeline.runner import Run
    from sbi_core.posterior import PosteriorSamples

    loaded = Run(run)
    space = loaded.simulator.parameters.select(loaded.config.estimator.parameters)
    samples = read_samples(loaded.directory.posterior, space)
    if objects:
        chosen = np.stack([samples.of(i) for i in objects], axis=1)
        samples = PosteriorSamples(chosen, space, np.asarray(objects, np.str_))
    combined = {}
    if loaded.directory.combined_samples.exists() and not objects:
        combined = read_arrays(loaded.directory.combined_samples)
    shared = space.names
    if combined:
        shared = loaded.simulator.parameters.select("global").names
        combined = {k: v for k, v in combined.items() if v.ndim == 2 and v.shape[1] == len(shared)}
    folder = Path(out) if out else loaded.directory.root / "export"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot write to '{folder}': {error.strerror or error}"
        raise ConfigError(msg) from None
    if form == "npz":
        arrays = {f"posterior/{n}": samples[n] for n in samples.names}
        arrays |= {f"combined/{k}": v for k, v in combined.items()}
        np.savez_compressed(folder / "draws.npz", id=samples.id, **arrays)  # type: ignore[arg-type]
        written = 1
    elif form == "csv":
        write_csv(folder / "posterior.csv", samples.values, samples.names, samples.id.tolist())
        for k, v in combined.items():
            write_csv(folder / f"combined-{safe_name(k)}.csv", v, shared)
        written = 1 + len(combined)
    else:
        roots = [safe_name(i) for i in samples.id]
        if len(set(roots)) < len(roots):
            roots = [f"{k}-{name}" for k, name in enumerate(roots)]
        for name, i in zip(roots, samples.id, strict=True):
            samples.to_getdist(folder / name, str(i))
        chain = loaded.simulator.parameters.select(list(shared)) if combined else space
        for k, v in combined.items():
            root = folder / f"combined-{safe_name(k)}"
            write_getdist(root, v, shared, chain.labels, support=chain.support)
        written = len(samples.id) + len(combined)
    click.echo(
        f"{len(samples.id)} objects, {len(combined)} combinations, {written} files: {folder}"
    )
