"""``sbi-run casbi build`` and ``sbi-run casbi import``: template libraries."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from sbi_casbi.stems import STEM_PATTERN
from sbi_core import counted

__all__ = ["build", "import_stars"]

_LISTED = 3  # files with the same reason that are named one by one

_solar = click.option(
    "--solar", type=click.Choice(["pynbody", "asplund09"]), default="pynbody", show_default=True,
    help="Solar abundances that the file assumes.",
)  # fmt: skip
_alpha = click.option(
    "--alpha", type=click.Choice(["o", "mg"]), default="o", show_default=True,
    help="Element beside iron: oxygen or magnesium.",
)  # fmt: skip


def _to_write(_: click.Context, __: click.Parameter, out: str) -> str:
    """Refuse to write the library over anything but a library."""
    from sbi_casbi.library import is_library

    path = Path(out)
    if path.is_dir() or (path.exists() and not is_library(path)):
        kind = "a folder" if path.is_dir() else "not a template library"
        msg = f"'{out}' exists and is {kind}: give the library to write another name"
        raise click.BadParameter(msg)
    return out


def _pattern(_: click.Context, __: click.Parameter, regex: str | None) -> str:
    """Return the pattern of names, the default one if none is given."""
    try:
        groups = re.compile(regex or STEM_PATTERN).groups
    except re.error as error:
        msg = f"'{regex}' is not a regular expression: {error}"
        raise click.BadParameter(msg) from None
    if groups < 2:
        msg = f"'{regex}' has {counted(groups, 'group')}, but needs two: simulation and step"
        raise click.BadParameter(msg)
    return regex or STEM_PATTERN


_out = click.option(
    "--out", metavar="FILE", required=True, callback=_to_write, help="Library to write (HDF5)."
)


@click.command(
    "build",
    epilog="\b\nExamples:\n"
    "  sbi-run casbi build /data/nihao --out nihao.h5 --workers 4\n"
    "  sbi-run run casbi --set simulator.library=nihao.h5",
)
@click.argument("root")
@_out
@click.option(
    "--workers", metavar="N", type=click.IntRange(min=1), default=1, show_default=True,
    help="Snapshots that are read at the same time.",
)  # fmt: skip
@click.option(
    "--halo-source", type=click.Choice(["auto", "ahf", "grp", "whole"]), default="auto",
    show_default=True, help="Catalogue of the stars that belong to the halo.",
)  # fmt: skip
@click.option(
    "--halo-id", metavar="N", type=int, help="Number of the halo.", show_default="the main halo"
)
@_solar
@_alpha
@click.option(
    "--fields", metavar="FIELDS", show_default="found",
    help="Arrays of mass fractions: gasoline, tng, eagle, fire, or fe=ARRAY:COLUMN,o=ARRAY:COLUMN.",
)  # fmt: skip
@click.option(
    "--stem-regex", metavar="REGEX", callback=_pattern,
    help="Pattern of file names (with a / in it: of paths) with two groups: simulation and step.",
)  # fmt: skip
@click.option(
    "--edges", metavar="RULE", default="percentile:0.01", show_default=True,
    help="Edges of the plane: fixed, or percentile:P with P percent of the stars beyond each edge.",
)  # fmt: skip
@click.option(
    "--sides", type=click.Choice(["both", "lower"]), default="both", show_default=True,
    help="Sides whose edge is a percentile; with lower, the upper edge is the maximum.",
)  # fmt: skip
@click.option(
    "--exclude", metavar="NAME", multiple=True,
    help="Leave out this snapshot or simulation (repeatable).",
)  # fmt: skip
@click.option(
    "--max-mstar", metavar="M", type=float, default=6e9, show_default="6e9",
    help="Leave out snapshots with more stellar mass [Msun].",
)  # fmt: skip
@click.option(
    "--seed", metavar="N", type=click.IntRange(min=0), default=1, show_default=True,
    help="Seed of the split into training, validation and test simulations.",
)  # fmt: skip
def build(
    root: str,
    out: str,
    workers: int,
    halo_source: Any,
    halo_id: int | None,
    solar: str,
    alpha: Any,
    fields: str | None,
    stem_regex: str,
    edges: str,
    sides: Any,
    exclude: tuple[str, ...],
    max_mstar: float,
    seed: int,
) -> None:
    """Build a library of templates from the snapshots below ROOT.

    Snapshots of Gasoline, of Gadget, AREPO and GIZMO (HDF5), and of RAMSES. The same command
    continues an interrupted build.
    """
    from sbi_casbi.snapshots.builder import BuildConfig, build_library

    config = BuildConfig(
        halo_source=halo_source,
        halo_id=halo_id,
        solar=solar,
        alpha=alpha,
        fields=fields,
        stem_regex=stem_regex,
        edges=edges,
        sides=sides,
        exclude=exclude,
        largest_mstar=max_mstar,
        seed=seed,
    )
    report = build_library(root, out, config, workers=workers)
    for line in _skipped(report.skipped, Path(root).absolute(), out):
        click.echo(line)
    click.echo(f"{report.library}: {out} ({report.reused} read before)")


def _skipped(reasons: Mapping[str, str], root: Path, out: str) -> Iterator[str]:
    """Yield a line per skipped file, or one for all of many files with the same reason."""
    for reason in dict.fromkeys(reasons.values()):
        names = [str(Path(p).relative_to(root)) for p, r in reasons.items() if r == reason]
        if len(names) <= _LISTED:
            yield from (f"skipped {name}: {reason}" for name in names)
            continue
        some = ", ".join(names[:_LISTED])
        files = counted(len(names), "file")
        yield f"skipped {files}, e.g. {some} (all in {out}.skipped.json): {reason}"


@click.command(
    "import",
    epilog="\b\nExamples:\n  sbi-run casbi import stars.fits --out library.h5\n"
    "  sbi-run casbi import gen_files_output/ --out library.h5",
)
@click.argument("stars")
@_out
@_solar
@_alpha
@click.option(
    "--stem-regex", metavar="REGEX", callback=_pattern,
    help="Pattern of Galaxy_name with two groups, simulation and step, if no column names these.",
)  # fmt: skip
def import_stars(stars: str, out: str, solar: str, alpha: Any, stem_regex: str) -> None:
    """Make a library of templates from the table STARS of your own simulations.

    One row per star (FITS, ECSV, CSV, npz) with the columns feh, ofe (or mgfe), star_mass,
    infall_time, Galaxy_name, and optionally simulation and dm_mass. STARS may also be a folder of
    such files with one galaxy each, e.g. the output of CASBI's gen_files.
    """
    from sbi_casbi.library import write_library
    from sbi_casbi.star_tables import library_of_stars

    library, notes = library_of_stars(stars, solar=solar, alpha=alpha, stem_regex=stem_regex)
    write_library(library, out)
    for note in notes:
        click.echo(note)
    click.echo(f"{library}: {out}")
