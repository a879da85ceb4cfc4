"""The commands ``sbi-run sfh``: ``recover``, ``refine``, ``map``, ``experiments`` and others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sbi_core import (
    ConfigError,
    checked_folder,
    checked_target,
    experiment_options,
    files_read,
    reading_options,
)

if TYPE_CHECKING:
    from astropy.table import Table

    from sbi_core import Observations, Run
    from sbi_sfh.simulator import SfhSimulator

__all__ = ["experiments", "interpret", "library", "map_cube", "recover", "refine", "sensitivity"]

_EXPERIMENTS = ("timing", "early-types")
_FITS, _NPZ, _ECSV = (".fits", ".fit", ".fts"), (".npz",), (".ecsv",)

_OBSERVATIONS = click.option(
    "--observations", metavar="FILE", required=True, help="File or folder of spectra."
)
_DRAWS = click.option(
    "--draws", metavar="N", type=click.IntRange(min=10), default=500, show_default=True,
    help="Posterior draws per galaxy.",
)  # fmt: skip


def _loaded(run: str, overrides: tuple[str, ...] = ()) -> tuple[Run, SfhSimulator]:
    """Return a run and its simulator, which must be that of this package."""
    from sbi_core import load_run
    from sbi_sfh.simulator import SfhSimulator

    loaded = load_run(run, overrides=overrides)
    return loaded, loaded.simulator_of(SfhSimulator)


def _echo(notes: Iterable[str]) -> None:
    for note in notes:
        click.echo(f"observations: {note}")


def _read(run: Run, observations: str, reading: dict[str, Any]) -> Observations:
    """Return the spectra of a file, and print what was noted about them."""
    data = run.observations(observations, **reading)
    _echo(data.notes)
    return data


def _with_gyr(table: Table) -> Table:
    """Return a table of results whose times and ages have their unit."""
    for name in table.colnames:
        if re.fullmatch(r"(t\d+|age_mass|age_light)(_p\d+|_network_p50|_network_sd|_err)?", name):
            table[name].unit = "Gyr"
    return table


@click.command(
    "interpret", epilog="\b\nExamples:\n  sbi-run sfh interpret runs/sfh-standard --n 10000"
)
@click.argument("run")
@click.option(
    "--n", metavar="N", type=click.IntRange(min=20), default=4000, show_default=True,
    help="Simulated galaxies.",
)  # fmt: skip
@click.option("--out", metavar="DIR", help="Folder of the results.", show_default="RUN/latents")
def interpret(run: str, n: int, out: str | None) -> None:
    """Show which spectral features and parameters the latents of RUN respond to."""
    from sbi_core import stream
    from sbi_sfh import interpret as latents

    loaded, simulator = _loaded(run)
    folder = checked_folder(out or loaded.directory.root / "latents")
    rng = stream(loaded.config.seed, "latents")
    batch = simulator.draw(n, rng).succeeded
    clean = simulator.telescope.noise_free(batch.x).double().numpy()
    result = latents.interpret(
        simulator, loaded.posterior.estimator, simulator.observe(batch, rng), clean, rng
    )
    path = latents.write(result, folder)
    scores = zip(result.names, result.probe_r2, strict=True)
    probe = ", ".join(f"{name} {r2:.2f}" for name, r2 in scores)
    click.echo(f"{path} (map: {result.map_method}); R2 of linear probes: {probe}")


@click.command(
    "recover",
    epilog="\b\nExamples:\n"
    "  sbi-run sfh recover runs/sfh-standard --observations spectra.fits --out recovered.npz",
)
@click.argument("run")
@_OBSERVATIONS
@reading_options
@click.option("--out", metavar="FILE", required=True, help="File to write (npz).")
@_DRAWS
@click.option("--figures", metavar="DIR", help="Also draw a figure of every galaxy here (png).")
def recover(
    run: str,
    observations: str,
    reading: dict[str, Any],
    overrides: tuple[str, ...],
    out: str,
    draws: int,
    figures: str | None,
) -> None:
    """Recover star formation histories and model spectra of observed galaxies with RUN."""
    import numpy as np

    from sbi_core import safe_names, written
    from sbi_sfh.analysis import figure_of, model_draws
    from sbi_sfh.own_age import delays
    from sbi_sfh.recover import star_formation_rate
    from sbi_sfh.recovered import recover_object

    loaded, simulator = _loaded(run, overrides)
    checked_target(out, _NPZ, inputs=files_read(simulator, observations))
    folder = None if figures is None else checked_folder(figures)
    data = _read(loaded, observations, reading)
    samples = loaded.infer(data, draws)
    recovered = [
        recover_object(simulator, data, k, model_draws(simulator, data, samples, k))
        for k in range(len(data))
    ]
    time = simulator.synthesis.time
    growth = np.stack([r.growth for r in recovered])
    with written(out) as temporary, temporary.open("wb") as f:
        np.savez_compressed(
            f,
            id=data.id,
            time_gyr=time,
            delay_gyr=delays(data.labels, len(data), simulator.config.t_end),
            growth=growth,
            sfr_per_gyr=np.stack([star_formation_rate(g, time) for g in growth]),
            wave=simulator.wave,
            observed=data.batch.x.numpy(),
            used=data.batch.observed.numpy(),
            recovered=np.stack([r.mean.model for r in recovered]),
            residual_rms=np.array([r.mean.rms for r in recovered]),
            chi2_per_pixel=np.array([r.mean.chi2 for r in recovered]),
        )
    files = safe_names(map(str, data.id))
    for k, (name, r) in enumerate(zip(data.id, recovered, strict=True)):
        if folder is not None:
            with written(folder / f"{files[k]}.png") as temporary:
                figure_of(simulator, data, k, r).savefig(temporary, dpi=130, format="png")
        click.echo(
            f"{name}: residual rms {100 * r.mean.rms:.2f} %, chi2/pixel {r.mean.chi2:.2f}, "
            f"best draw {r.best_chi2:.2f}"
        )
    click.echo(out)


@click.command(
    "refine",
    epilog="\b\nExamples:\n"
    "  sbi-run sfh refine runs/sfh-standard --observations spectra.fits --out refined.ecsv",
)
@click.argument("run")
@_OBSERVATIONS
@reading_options
@click.option(
    "--out", metavar="FILE", default="refined.ecsv", show_default=True, help="Table to write."
)
@click.option("--draws-out", metavar="FILE", help="Also write the draws (npz).")
@click.option(
    "--particles", metavar="N", type=click.IntRange(min=50), default=500, show_default=True,
    help="Half the number of draws; more are more exact.",
)  # fmt: skip
def refine(
    run: str,
    observations: str,
    reading: dict[str, Any],
    overrides: tuple[str, ...],
    out: str,
    draws_out: str | None,
    particles: int,
) -> None:
    """Sample the posterior of single galaxies from the likelihood of their spectra.

    For spectra of low signal to noise, up to about 5 per pixel. Results that do not converge carry
    the flag not_converged, those above 10 per pixel snr_above_tested. The prior is that of RUN,
    whose own posterior is shown beside it. Adds mean ages of the stars by mass and by light, recent
    star formation and mass to light.
    """
    import numpy as np
    from astropy.table import Table

    from sbi_core import written
    from sbi_sfh.refine import refine_objects, row_of

    loaded, simulator = _loaded(run, overrides)
    inputs = files_read(simulator, observations)
    checked_target(out, _ECSV, inputs=inputs)
    if draws_out:
        checked_target(draws_out, _NPZ, inputs=inputs)
    rows: list[dict[str, Any]] = []
    kept: dict[str, Any] = {}
    for found in refine_objects(loaded, _read(loaded, observations, reading), particles):
        rows.append(row_of(found))
        kept[found.id] = found.refined.theta
        times = ", ".join(
            f"{n} {rows[-1][f'{n}_p50']:.2f}{' Gyr' if n != 'mh' else ''} "
            f"(network {rows[-1][f'{n}_network_p50']:.2f})"
            for n in ("t10", "t50", "t90", "mh")
        )
        end = (
            ": not converged, use the network" if "not_converged" in found.flags else
            ": signal to noise above 10, not tested, use the network"
            if "snr_above_tested" in found.flags else ""
        )  # fmt: skip
        click.echo(
            f"{found.id}: {times}; populations differ by {found.refined.difference:.2f} sd{end}"
        )
    with written(out) as temporary:
        _with_gyr(Table(rows=rows)).write(temporary, format="ascii.ecsv", overwrite=True)
    if draws_out:
        with written(draws_out) as temporary, temporary.open("wb") as f:
            np.savez_compressed(f, **kept)
    click.echo(out)


@click.command(
    "map",
    epilog="\b\nExamples:\n"
    "  sbi-run sfh map runs/sfh-large cube.fits --out maps.fits --set simulator.min_snr=10 "
    "--set simulator.default_redshift=0.01",
)
@click.argument("run")
@click.argument("cube")
@click.option("--out", metavar="FILE", required=True, help="Maps to write (fits); figure beside.")
@click.option(
    "--draws", metavar="N", type=click.IntRange(min=10), default=300, show_default=True,
    help="Posterior draws per spaxel.",
)  # fmt: skip
@click.option(
    "--bin-snr", metavar="SNR", type=click.FloatRange(min=1),
    help="Add neighbouring spaxels up to this signal to noise per pixel (needs powerbin); "
    "simulator.min_snr then applies to spaxels.",
)  # fmt: skip
@click.option(
    "--workers", metavar="N", type=click.IntRange(min=1), default=1, show_default=True,
    help="Processes that share the spaxels.",
)  # fmt: skip
@click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True,
    help="Option of reading, for example simulator.align=true (repeatable).",
)  # fmt: skip
def map_cube(
    run: str,
    cube: str,
    out: str,
    draws: int,
    bin_snr: float | None,
    workers: int,
    overrides: tuple[str, ...],
) -> None:
    """Infer all spaxels of CUBE with RUN and write maps with the sky coordinates of the cube."""
    import numpy as np

    from sbi_sfh.cubes import infer_cube
    from sbi_sfh.formats import frame_of
    from sbi_sfh.maps import draw_maps, write_maps

    shape, sky = frame_of(Path(cube))
    loaded, simulator = _loaded(run, overrides)
    inputs = files_read(simulator, cube)
    target = checked_target(out, _FITS, inputs=inputs)
    figure = checked_target(target.with_suffix(".png"), inputs=inputs)
    if figure.exists() and not target.exists():
        msg = f"'{figure}' exists, and the figure of the maps gets this name; choose another --out"
        raise ConfigError(msg)
    maps, notes = infer_cube(loaded, cube, shape, draws, bin_snr=bin_snr, workers=workers)
    about = {"ORIGIN": "sbi-sfh", "CUBE": Path(cube).name[:60], "LIBRARY": simulator.library.name}
    write_maps(target, maps, sky, about)
    draw_maps(figure, maps)
    _echo(notes)
    count = int(np.isfinite(maps.values["t50"]).sum())
    click.echo(f"{count} of {shape[0] * shape[1]} spaxels: {out}, {figure}")


@click.command(
    "sensitivity",
    epilog="\b\nExamples:\n"
    "  sbi-run run sfh --preset large --set simulator.family=gp --out runs/gp\n"
    "  sbi-run sfh sensitivity runs/sfh-large runs/gp --observations spectra.fits",
)
@click.argument("runs", nargs=-1, required=True, metavar="RUN OTHER...")
@_OBSERVATIONS
@reading_options
@click.option(
    "--out", metavar="FILE", default="sensitivity.ecsv", show_default=True, help="Table to write."
)
@_DRAWS
def sensitivity(
    runs: tuple[str, ...],
    observations: str,
    reading: dict[str, Any],
    overrides: tuple[str, ...],
    out: str,
    draws: int,
) -> None:
    """Compare results of the same spectra under the priors and SSP libraries of several runs.

    Shifts are those of the medians from the first RUN, in units of its errors.
    """
    from sbi_core import ConfigError, written
    from sbi_sfh.sensitivity import compare

    if len(runs) < 2:
        msg = "give two runs or more: one with the other family (simulator.family) or library"
        raise ConfigError(msg)
    loaded, simulators = zip(*(_loaded(run, overrides) for run in runs), strict=True)
    inputs = [path for simulator in simulators for path in files_read(simulator, observations)]
    checked_target(out, _ECSV, inputs=inputs)
    table = _with_gyr(compare(loaded, observations, draws, **reading))
    with written(out) as temporary:
        table.write(temporary, format="ascii.ecsv", overwrite=True)
    shown = [n for n in ("t10", "t50", "t90", "mh") if n in table.colnames]
    for row in table:
        values = (f"{n} {row[n]:.2f} +- {row[f'{n}_err']:.2f} ({row[f'{n}_shift']:+.1f})"
                  for n in shown)  # fmt: skip
        click.echo(f"{row['id']}, {row['run']} ({row['library']}): {', '.join(values)}")
    click.echo(out)


@click.command(
    "experiments",
    epilog="\b\nExamples:\n"
    "  sbi-run sfh experiments timing --preset quick\n"
    "  sbi-run sfh experiments early-types --observations spectra --out runs/experiments",
)
@click.argument(
    "names", metavar="NAME...", nargs=-1, required=True, type=click.Choice(_EXPERIMENTS)
)
@experiment_options
@click.option(
    "--observations", metavar="FILE", help="File or folder of the spectra of 'early-types'."
)
@click.option(
    "--steps", metavar="N", type=click.IntRange(min=20), default=4000, show_default=True,
    help="Steps of emcee.",
)  # fmt: skip
def experiments(names: tuple[str, ...], **options: Any) -> None:
    """Repeat an experiment of the method, with a table and figures.

    \b
    timing       processor time per spectrum: network, inversion, pPXF and MCMC (where installed)
    early-types  observed spectra: t50, t90 and [M/H] against velocity dispersion

    The run that an experiment needs is trained once, in DIR/run-NAME. Results are in DIR/NAME.
    """  # noqa: D301
    from sbi_sfh.experiments import Options, perform

    for text in perform(names, Options(**options)):
        click.echo(text)


@click.command(
    "library",
    epilog="\b\nExamples:\n  sbi-run sfh library embedded\n  sbi-run sfh library /path/to/MILES",
)
@click.argument("path")
def library(path: str) -> None:
    """Check and describe a library of SSP spectra.

    PATH is a folder of MILES files, 'embedded' (the library of the package) or 'bc03'.
    """
    from sbi_sfh.alpha import check_alpha
    from sbi_sfh.config import SfhConfig
    from sbi_sfh.libraries import load_library

    grid = load_library(SfhConfig(library=path))
    click.echo(
        f"{grid.name}: {len(grid.afe)} [alpha/Fe] x {len(grid.mh)} [M/H] x "
        f"{len(grid.age_gyr)} ages, {grid.wave[0]:g}-{grid.wave[-1]:g} Angstrom (air), "
        f"FWHM {grid.fwhm:g}"
    )
    click.echo(
        f"[M/H] {grid.mh[0]:g} to {grid.mh[-1]:g}; ages {grid.age_gyr[0]:g} to "
        f"{grid.age_gyr[-1]:g} Gyr; sha256 {grid.hash[:16]}"
    )
    if grid.synthetic:
        click.echo("synthetic: a library for tests, not for galaxies")
    if len(grid.afe) > 1:
        check = check_alpha(grid)
        click.echo(f"alpha check: right sign {json.dumps(check.right_sign)}, ratio {check.ratio}")
        for problem in check.problems:
            click.echo(problem)
