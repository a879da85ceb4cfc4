"""The command ``sbi-casbi``: template libraries from snapshots or from an older file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal, cast

import click

__all__ = ["app", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def app() -> None:
    """Template libraries for `sbi-run --plugin casbi --set simulator.library=FILE`."""


@app.command("build")
@click.argument("root")
@click.option("--out", metavar="FILE", required=True, help="Library to write (HDF5).")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--halo-source", default="auto", show_default=True, help="auto, ahf, grp or whole.")
@click.option("--halo-id", type=int, help="Halo to take; default: the main one.")
@click.option("--solar", default="pynbody", show_default=True, help="pynbody or asplund09.")
@click.option("--stem-regex", help="Pattern of names: two groups, simulation and step.")
@click.option("--edges", default="percentile:0.01", show_default=True, help="or fixed.")
@click.option("--sides", default="both", show_default=True, help="both or lower.")
@click.option("--exclude", multiple=True, help="Snapshot or simulation to skip (repeatable).")
@click.option("--max-mstar", type=float, default=6e9, show_default=True, help="Msun.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
def build(
    root: str,
    out: str,
    workers: int,
    halo_source: str,
    halo_id: int | None,
    solar: str,
    stem_regex: str | None,
    edges: str,
    sides: str,
    exclude: tuple[str, ...],
    max_mstar: float,
    seed: int,
) -> None:
    """Build a library from the Gasoline snapshots below ROOT; the same command goes on."""
    from sbi_casbi.snapshots.builder import BuildConfig, build_library
    from sbi_casbi.snapshots.names import STEM_PATTERN
    from sbi_core import ConfigError

    for name, value, known in (
        ("--halo-source", halo_source, ("auto", "ahf", "grp", "whole")),
        ("--sides", sides, ("both", "lower")),
    ):
        if value not in known:
            msg = f"{name} must be one of {', '.join(known)}, got '{value}'"
            raise ConfigError(msg)
    config = BuildConfig(
        halo_source=cast("Any", halo_source),
        halo_id=halo_id,
        solar=solar,
        stem_regex=stem_regex or STEM_PATTERN,
        edges=edges,
        sides=cast("Literal['both', 'lower']", sides),
        exclude=exclude,
        largest_mstar=max_mstar,
        seed=seed,
    )
    report = build_library(root, out, config, workers=workers)
    for path, reason in report.skipped.items():
        click.echo(f"skipped {Path(path).name}: {reason}")
    click.echo(f"{report.library}: {out} ({report.reused} read before)")


@app.command("import")
@click.argument("npz")
@click.option("--out", metavar="FILE", required=True, help="Library to write (HDF5).")
@click.option("--solar", default="pynbody", show_default=True, help="Solar scale of the file.")
@click.option("--stem-regex", help="Pattern of Galaxy_name: two groups, simulation and step.")
def import_(npz: str, out: str, solar: str, stem_regex: str | None) -> None:
    """Make a library of a table of stars (feh, ofe, star_mass, infall_time, Galaxy_name)."""
    from sbi_casbi.library import write_library
    from sbi_casbi.snapshots.names import STEM_PATTERN
    from sbi_casbi.star_tables import library_of_stars

    library, notes = library_of_stars(npz, solar=solar, stem_regex=stem_regex or STEM_PATTERN)
    write_library(library, out)
    for note in notes:
        click.echo(note)
    click.echo(f"{library}: {out}")


def main(args: list[str] | None = None) -> None:
    """Entry point: one sentence and exit code 2 for errors of the user."""
    from sbi_core import SbiError

    try:
        app.main(args=args, prog_name="sbi-casbi", standalone_mode=False)
    except SbiError as error:
        click.echo(f"sbi-casbi: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; the same command again goes on from here", err=True)
        sys.exit(130)
