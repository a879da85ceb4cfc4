"""``sbi-run sedflow figures`` and ``catalogue``; ``ssp``, ``bases``, ``emulator`` of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sbi_core import reading_options

__all__ = ["bases", "catalogue", "emulator", "figures", "ssp"]

_PART = 100  # galaxies in memory at a time
_HDF5 = (".h5", ".hdf5")


@click.command(
    "catalogue",
    short_help="Write draws in the layout of the SEDflow catalogue.",
    epilog="\b\nExamples:\n"
    "  sbi-run sedflow catalogue runs/sedflow --observations nsa.fits --out nsa.sedflow.hdf5",
)
@click.argument("run")
@click.option("--observations", metavar="FILE", required=True, help="Catalogue of galaxies.")
@reading_options
@click.option("--out", metavar="FILE", required=True, help="File to write (HDF5).")
@click.option(
    "--draws", metavar="N", type=click.IntRange(min=10), default=10_000, show_default=True,
    help="Posterior draws per galaxy.",
)  # fmt: skip
def catalogue(
    run: str,
    observations: str,
    reading: dict[str, Any],
    overrides: tuple[str, ...],
    out: str,
    draws: int,
) -> None:
    """Infer galaxies with RUN and write all draws as the published SEDflow catalogue has them.

    1000 draws of a galaxy take 60 kB. `sbi_sedflow.read_catalogue` reads the file, and the
    published one.
    """
    from sbi_core import checked_target, files_read, load_run
    from sbi_sedflow.catalogue import write_catalogue

    loaded = load_run(run, overrides=overrides)
    checked_target(out, _HDF5, inputs=files_read(loaded.simulator, observations))
    objects = loaded.observations(observations, **reading)
    parts = (loaded.infer(objects[k : k + _PART], draws) for k in range(0, len(objects), _PART))
    left_out = f", {len(objects.excluded)} left out" if objects.excluded else ""
    click.echo(f"{out}: {write_catalogue(parts, out)} galaxies{left_out}, {draws} draws each")


@click.command(
    "figures",
    short_help="Draw the training set with a catalogue, and network with MCMC.",
    epilog="\b\nExamples:\n"
    "  sbi-run sedflow figures runs/sedflow --observations nsa.fits --object 12345\n"
    "  sbi-run sedflow figures runs/sedflow --out figures",
)
@click.argument("run")
@click.option("--observations", metavar="FILE", help="Catalogue.", show_default="30 mock galaxies")
@reading_options
@click.option(
    "--object", "chosen", metavar="ID", help="Galaxy of the catalogue.", show_default="the first"
)
@click.option("--out", metavar="DIR", help="Folder of the figures.", show_default="RUN/figures")
@click.option(
    "--limit", metavar="N", type=click.IntRange(min=20_000), default=300_000, show_default=True,
    help="Most likelihood evaluations of the MCMC.",
)  # fmt: skip
def figures(
    run: str,
    observations: str | None,
    reading: dict[str, Any],
    overrides: tuple[str, ...],
    chosen: str | None,
    out: str | None,
    limit: int,
) -> None:
    """Draw the training set of RUN with a catalogue, and one galaxy by network and MCMC.

    Writes training-set.png, fluxes.png, history.png, parameters.png and quantities.png.
    """
    import numpy as np

    from sbi_core import ConfigError, load_run, stream
    from sbi_sedflow.comparison import write_figures
    from sbi_sedflow.quantities import SHOWN
    from sbi_sedflow.simulator import SedflowSimulator

    loaded = load_run(run, overrides=overrides)
    simulator = loaded.simulator
    if not isinstance(simulator, SedflowSimulator):
        msg = f"'{run}' is a run of {loaded.config.plugin}; give one of sedflow"
        raise ConfigError(msg)
    seed = loaded.config.seed
    objects = (
        loaded.observations(observations, **reading)
        if observations
        else simulator.example_observations(stream(seed, "sedflow", "figures"), 30)
    )
    rows = np.flatnonzero(objects.id == chosen) if chosen else np.arange(len(objects))
    if not len(rows):
        known = ", ".join(objects.id[:3])
        msg = (
            f"no galaxy '{chosen}' in '{observations or 'the mock galaxies'}'; it has {known}, ..."
        )
        raise ConfigError(msg)
    folder = Path(out) if out else loaded.directory.root / "figures"
    result = write_figures(
        simulator, loaded.posterior, objects, int(rows[0]), folder, seed=seed, limit=limit
    )
    end = "converged" if result.converged else f"not converged after {limit} evaluations"
    click.echo(f"{folder}: {objects.id[rows[0]]}, MCMC {end}, {result.ess:.0f} effective draws")
    for quantity, shift, width in zip(SHOWN, result.shift, result.width, strict=True):
        click.echo(f"{quantity.heading}: shift {shift:+.2f} sigma, width {width:.2f}")


@click.group("ssp")
def ssp() -> None:
    """Build, describe or verify the grid of stellar population spectra."""


@ssp.command(
    "build",
    short_help="Build the pixel grid, or write a full grid.",
    epilog="\b\nExamples:\n"
    "  sbi-run sedflow ssp build\n"
    "  sbi-run sedflow ssp build --provider fsps --out fsps.npz",
)
@click.option(
    "--provider", type=click.Choice(["bc03", "npz", "dsps", "fsps"]), default="bc03",
    show_default=True, help="Origin of the spectra.",
)  # fmt: skip
@click.option("--path", metavar="FILE", help="File of the grid.", show_default="the fetched one")
@click.option(
    "--pixels", metavar="N", type=click.IntRange(min=16), default=1024, show_default=True,
    help="Wavelength pixels.",
)  # fmt: skip
@click.option("--out", metavar="FILE", help="Write the full grid as npz (fsps and dsps only).")
def build(provider: str, path: str | None, pixels: int, out: str | None) -> None:
    """Build the pixel grid (bc03: into the cache), or write a full grid as npz."""
    from sbi_sedflow.ssp import load_library, write_grid
    from sbi_sedflow.ssp.dsps import read_dsps
    from sbi_sedflow.ssp.fsps import export_fsps

    if out:
        if provider not in ("fsps", "dsps") or (provider == "dsps" and not path):
            msg = "--out needs --provider fsps, or --provider dsps with --path"
            raise click.UsageError(msg)
        grid = export_fsps() if provider == "fsps" else read_dsps(str(path))
        click.echo(f"{grid!r}: {write_grid(grid, out)}")
        return
    library = load_library(provider, path=path, pixels=pixels)  # type: ignore[arg-type]
    click.echo(f"{library.meta.get('library')}: {library.lum.shape} (ages, metallicities, pixels)")


@ssp.command(
    "info",
    short_help="Show the grid and the cache.",
    epilog="\b\nExamples:\n  sbi-run sedflow ssp info",
)
def info() -> None:
    """Print the location of the default grid and the contents of the cache."""
    from sbi_sedflow.ssp import bc03
    from sbi_sedflow.ssp.providers import cache_folder

    click.echo(f"source: {bc03.find()}")
    folder = cache_folder()
    files = sorted(folder.glob("bc03-*.npz")) if folder.is_dir() else []
    click.echo(f"cache: {folder} ({', '.join(f.name for f in files) or 'empty'})")


@ssp.command(
    "verify",
    short_help="Check the BC03-MILES file.",
    epilog="\b\nExamples:\n  sbi-run sedflow ssp verify",
)
@click.option("--path", metavar="FILE", help="File of the grid.", show_default="the fetched one")
def verify(path: str | None) -> None:
    """Compare the BC03-MILES file with its SHA-256, and check its layout and values."""
    from sbi_sedflow.ssp import bc03

    source = bc03.find(path)
    sha256 = bc03.sha256_of(source)
    grid = bc03.read(source, sha256)
    same = "as expected" if sha256 == bc03.SHA256 else f"expected {bc03.SHA256}"
    click.echo(f"{grid!r}; sha256 {sha256} ({same})")


@click.command("bases", epilog="\b\nExamples:\n  sbi-run sedflow bases --seed 1 --out bases.npz")
@click.option(
    "--seed", metavar="N", type=click.IntRange(min=0), default=1, show_default=True,
    help="Seed of the histories.",
)  # fmt: skip
@click.option("--out", metavar="FILE", required=True, help="File to write (npz).")
def bases(seed: int, out: str) -> None:
    """Fit the bases of the star formation and metallicity histories; this takes minutes."""
    from sbi_sedflow.nmf import fit_bases, write_bases

    click.echo(str(write_bases(fit_bases(seed), out, seed)))


@click.group("emulator")
def emulator() -> None:
    """Convert the emulator of PROVABGS."""


@emulator.command(
    "convert",
    short_help="Convert the original pickle files.",
    epilog="\b\nExamples:\n"
    "  sbi-run sedflow emulator convert a.pkl b.pkl c.pkl d.pkl --out provabgs.npz",
)
@click.argument("files", nargs=4)
@click.option("--out", metavar="FILE", required=True, help="File to write (npz).")
def convert(files: tuple[str, ...], out: str) -> None:
    """Convert the four original pickle files, blue to red, without executing them."""
    from sbi_sedflow.emulator import convert_pickles

    click.echo(str(convert_pickles(files, out)))
