"""``sbi-run export RUN``: the draws of a run for other programs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sbi_core.cli.groups import examples
from sbi_core.data.writing import atomic_write, harmless, safe_names
from sbi_core.errors import ConfigError, counted
from sbi_core.files.directory import read_arrays

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["command"]


@click.command(
    "export",
    epilog=examples(
        "sbi-run export runs/chempy-standard",
        "sbi-run export runs/chempy-standard --object star-0007 --format npz --out draws",
    ),
)
@click.argument("run")
@click.option(
    "--format", "form", type=click.Choice(["csv", "npz"]), default="csv", show_default=True,
    help="Comma-separated values, or one file of numpy arrays.",
)  # fmt: skip
@click.option(
    "--object", "objects", metavar="ID", multiple=True,
    help="Export this object only, without the combinations (repeatable).",
)  # fmt: skip
@click.option("--out", metavar="DIR", show_default="RUN/export", help="Folder of the files.")
def command(run: str, form: str, objects: tuple[str, ...], out: str | None) -> None:
    """Write the posterior draws of RUN: those of the objects and those of the combinations.

    posterior.nc of the run is read by ArviZ and xarray as it is.
    """
    import numpy as np

    from sbi_core.data.writing import written
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
    shared: tuple[str, ...] = ()
    if combined:
        shared = loaded.simulator.parameters.select("global").names
        combined = {k: v for k, v in combined.items() if v.ndim == 2 and v.shape[1] == len(shared)}
    loaded.directory.refuse_links()
    given = Path(out) if out else loaded.directory.given / "export"
    folder = loaded.directory.path(given)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot write to '{folder}': {error.strerror or error}"
        raise ConfigError(msg) from None
    if form == "npz":
        arrays = {f"posterior/{n}": samples[n] for n in samples.names}
        arrays |= {f"combined/{k}": v for k, v in combined.items()}
        with written(folder / "draws.npz") as temporary:
            np.savez_compressed(temporary, id=samples.id, **arrays)  # type: ignore[arg-type]
    else:
        draws, n, d = samples.values.shape
        rows = samples.values.swapaxes(0, 1).reshape(n * draws, d)
        _write_csv(folder / "posterior.csv", samples.names, rows, np.repeat(samples.id, draws))
        for name, v in zip(safe_names(combined), combined.values(), strict=True):
            _write_csv(folder / f"combined-{name}.csv", shared, v)
    click.echo(
        f"{counted(len(samples.id), 'object')}, {counted(len(combined), 'combination')}: {given}"
    )


def _write_csv(
    path: Path,
    names: Sequence[str],
    draws: NDArray[np.float64],
    ids: NDArray[np.str_] | None = None,
) -> None:
    """Write draws (S, d), with a first column ``id`` where it is given."""
    from astropy.table import Table

    table = Table(draws, names=list(names))
    if ids is not None:
        table.add_column(harmless(ids, ".csv"), index=0, name="id")
    text = io.StringIO()
    table.write(text, format="ascii.csv", formats=dict.fromkeys(names, "%.9g"))
    with atomic_write(path) as f:
        f.write(text.getvalue())
