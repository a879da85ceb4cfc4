"""The command ``sbi-sfh``: latents of a run, recovery of spectra, and a look at a library."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from sbi_core import SbiError

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sbi-sfh", description="Beyond sbi-run --plugin sfh: latents, recovery, libraries."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    latents = commands.add_parser("latents", help="what the latents of a trained run react to")
    latents.add_argument("run", type=Path, help="run directory")
    latents.add_argument("--n", type=int, default=4000, help="simulated galaxies")
    latents.add_argument("--out", type=Path, help="folder; default: RUN/latents")
    recover = commands.add_parser("recover", help="histories and spectra of observed galaxies")
    recover.add_argument("run", type=Path, help="run directory")
    recover.add_argument("--observations", type=Path, required=True, help="file or folder")
    recover.add_argument("--draws", type=int, default=500, help="posterior draws per galaxy")
    recover.add_argument("--out", type=Path, required=True, help="npz file to write")
    library = commands.add_parser("library", help="read, check and describe a folder of SSPs")
    library.add_argument("path", help="folder of MILES files, 'embedded' or 'bc03'")
    return parser


def _latents(args: argparse.Namespace) -> str:
    from sbi_core import load_run, stream
    from sbi_sfh.interpret import interpret, write
    from sbi_sfh.simulator import SfhSimulator

    run = load_run(args.run)
    simulator = run.simulator
    assert isinstance(simulator, SfhSimulator)
    rng = stream(run.config.seed, "latents")
    batch = simulator.draw(args.n, rng).succeeded
    clean = simulator.telescope.noise_free(batch.x).double().numpy()
    found = interpret(simulator, run.posterior.estimator, simulator.observe(batch, rng), clean, rng)
    path = write(found, args.out or Path(args.run) / "latents")
    probe = ", ".join(f"{n} {r:.2f}" for n, r in zip(found.names, found.probe_r2, strict=True))
    return f"{path} (map: {found.map_method}); R2 of linear probes: {probe}"


def _recover(args: argparse.Namespace) -> str:
    import numpy as np

    from sbi_core import load_run
    from sbi_sfh.examine import recover_object
    from sbi_sfh.recover import star_formation_rate
    from sbi_sfh.simulator import SfhSimulator

    run = load_run(args.run)
    simulator = run.simulator
    assert isinstance(simulator, SfhSimulator)
    observations = run.observations(args.observations)
    samples = run.infer(observations, args.draws)
    found = [
        recover_object(simulator, observations, k, samples.values[:, k])
        for k in range(len(observations))
    ]
    time = simulator.synthesis.time
    growth = np.stack([f.growth for f in found])
    np.savez_compressed(
        args.out,
        id=observations.id,
        time_gyr=time,
        growth=growth,
        sfr_per_gyr=np.stack([star_formation_rate(g, time) for g in growth]),
        wave=simulator.wave,
        observed=observations.batch.x.numpy(),
        used=observations.batch.observed.numpy(),
        recovered=np.stack([f.mean.model for f in found]),
        residual_rms=np.array([f.mean.rms for f in found]),
        chi2_per_pixel=np.array([f.mean.chi2 for f in found]),
    )
    lines = [
        f"{i}: residual rms {100 * f.mean.rms:.2f} %, chi2/pixel {f.mean.chi2:.2f}, "
        f"best draw {f.best_chi2:.2f}"
        for i, f in zip(observations.id, found, strict=True)
    ]
    return "\n".join([*lines, str(args.out)])


def _library(args: argparse.Namespace) -> str:
    from sbi_sfh.alpha import check_alpha
    from sbi_sfh.config import SfhConfig
    from sbi_sfh.libraries import load_library

    library = load_library(SfhConfig(library=args.path))
    lines = [
        f"{library.name}: {len(library.afe)} [alpha/Fe] x {len(library.mh)} [M/H] x "
        f"{len(library.age_gyr)} ages, {library.wave[0]:g}-{library.wave[-1]:g} Angstrom (air), "
        f"FWHM {library.fwhm:g}",
        f"[M/H] {library.mh[0]:g} to {library.mh[-1]:g}; ages {library.age_gyr[0]:g} to "
        f"{library.age_gyr[-1]:g} Gyr; sha256 {library.hash[:16]}",
    ]
    if library.synthetic:
        lines.append("synthetic: made up for tests, not for galaxies")
    if len(library.afe) > 1:
        check = check_alpha(library)
        lines.append(f"alpha check: right sign {json.dumps(check.right_sign)}, ratio {check.ratio}")
        lines += check.problems
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Execute the command; return 0, or 2 after one sentence about bad input."""
    args = _parser().parse_args(argv)
    action = {"latents": _latents, "recover": _recover, "library": _library}[args.command]
    try:
        sys.stdout.write(action(args) + "\n")
    except SbiError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
