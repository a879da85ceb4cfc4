"""``sbi-run sedflow ssp``, ``bases`` and ``emulator``: the ingredients of the forward model."""

from __future__ import annotations

import click

__all__ = ["bases", "emulator", "ssp"]


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
