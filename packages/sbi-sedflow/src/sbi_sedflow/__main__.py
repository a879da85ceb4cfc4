"""``python -m sbi_sedflow catalogue``: infer a catalogue with a trained run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from sbi_core import SbiError

__all__ = ["app", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def app() -> None:
    """Infer a catalogue; the other tools are `sbi-run sedflow ssp`, `bases` and `emulator`."""


@app.command("catalogue")
@click.argument("run")
@click.argument("file")
@click.option("--out", metavar="FILE", help="Summary; default RUN/catalogue-<name>.fits.")
@click.option("--draws", default=1000, show_default=True, help="Posterior draws per galaxy.")
@click.option("--samples", metavar="FILE", help="Also keep draws (netCDF).")
@click.option("--keep", default=200, show_default=True, help="Draws kept per galaxy.")
@click.option("--refine", help="flagged, all or none; default: the run's.")
@click.option("--photometry", default="elpetro", show_default=True, help="Of NSA v1_0_1.")
@click.option("--flags-table", metavar="FILE", help="SDSS flags of NSA galaxies.")
@click.option("--column", "mapping", metavar="NAME=OWN", multiple=True,
              help="Column OWN of the file is NAME, e.g. flux_r=rflux (repeatable).")  # fmt: skip
def catalogue(
    run: str,
    file: str,
    out: str | None,
    draws: int,
    samples: str | None,
    keep: int,
    refine: str | None,
    photometry: str,
    flags_table: str | None,
    mapping: tuple[str, ...],
) -> None:
    """Infer the galaxies of FILE with the trained RUN; one row per row of FILE."""
    from contextlib import nullcontext

    from sbi_core import load_run
    from sbi_sedflow.catalogue import fit_catalogue, units_of
    from sbi_sedflow.flags import count_flags
    from sbi_sedflow.output import SampleFile, write_summary
    from sbi_sedflow.simulator import SedflowSimulator
    from sbi_sedflow.tables import read_galaxies

    if refine not in (None, "flagged", "all", "none") or photometry not in ("elpetro", "sersic"):
        msg = "--refine is flagged, all or none; --photometry is elpetro or sersic"
        raise click.UsageError(msg)
    columns = dict(word.split("=", 1) for word in mapping if "=" in word)
    if len(columns) != len(mapping):
        msg = "--column needs NAME=OWN, e.g. --column flux_r=rflux"
        raise click.UsageError(msg)
    loaded = load_run(run)
    simulator = loaded.simulator
    assert isinstance(simulator, SedflowSimulator)
    c = simulator.config
    chosen: Any = refine
    table = read_galaxies(
        file, photometry=photometry, flags_table=flags_table, columns=columns,  # type: ignore[arg-type]
        z_range=(c.z_min, c.z_max), allow_prior=c.allow_prior,
    )  # fmt: skip
    for note in table.observations.notes:
        click.echo(note)
    target = Path(out) if out else Path(run) / f"catalogue-{Path(file).stem}.fits"
    keeper = SampleFile(samples, keep, units_of(simulator)) if samples else nullcontext()
    with keeper as writer:
        found = fit_catalogue(
            loaded,
            table,
            draws=draws,
            refine=chosen,
            writer=writer,  # type: ignore[arg-type]
        )
    write_summary(found, target)
    counts = {k: v for k, v in count_flags(found["flags"]).items() if v}
    seconds = found.meta["seconds"]
    click.echo(
        f"{len(found)} galaxies in {seconds:.1f} s ({1e3 * seconds / max(len(table.rows), 1):.1f} "
        f"ms each), flags {counts}: {target}"
    )


def main() -> None:
    """Entry point: one sentence and exit code 2 for errors of the user."""
    try:
        app.main(prog_name="python -m sbi_sedflow", standalone_mode=False)
    except SbiError as error:
        click.echo(f"sbi_sedflow: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
