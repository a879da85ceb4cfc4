"""Make the figures of the sfh tutorial from finished runs.

python docs/figures/make_sfh_figures.py RUN [--observed RUN FILE --object 1] [--out docs/_static]

RUN is a directory of ``sbi-run --plugin sfh``; the second one, in mode ``observed``, and a file of
spectra give the figure of a real galaxy, counted from 0 in the file.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

import sbi_core
from sbi_sfh.analysis import model_draws
from sbi_sfh.own_age import delays
from sbi_sfh.recovered import recover_object

SHOWN = ("t10", "t50", "t90", "mh")


def accuracy(run, path: Path) -> None:
    """Posterior means and widths against truth, and coverage, of held-out spectra."""
    stored = np.load(run.directory.diagnostics)
    theta, mean, sd = stored["theta"], stored["mean"], stored["sd"]
    names = list(run.simulator.parameters.names)
    figure = Figure(figsize=(9.6, 2.5), layout="constrained", dpi=110)
    axes = figure.subplots(1, 5)
    some = slice(0, 300)
    for name, ax in zip(SHOWN, axes[:4], strict=True):
        k = names.index(name)
        ends = theta[:, k].min(), theta[:, k].max()
        ax.plot(ends, ends, "k", lw=0.8)
        ax.errorbar(theta[some, k], mean[some, k], sd[some, k], fmt=".", ms=2, lw=0.4, alpha=0.6)
        label = "[M/H]" if name == "mh" else f"{name} [Gyr]"
        ax.set(xlabel=f"true {label}", ylabel="posterior" if k == 0 else "")
    levels, covered = stored["coverage_levels"], stored["coverage_values"]
    axes[4].plot([0, 1], [0, 1], "k", lw=0.8)
    for k, name in enumerate(names):
        axes[4].plot(levels, covered[:, k], lw=0.8, label=name)
    axes[4].set(xlabel="level", ylabel="coverage", aspect="equal")
    figure.savefig(path)


def galaxy(run, file: str, k: int, path: Path) -> None:
    """Growth of the mass and spectrum of galaxy k of a file."""
    observations = run.observations(file)
    samples = run.infer(observations, 500)
    simulator = run.simulator
    draws = model_draws(simulator, observations, samples, k)
    found = recover_object(simulator, observations, k, draws)
    figure = Figure(figsize=(9.6, 3.0), layout="constrained", dpi=110)
    grid = figure.add_gridspec(2, 2, width_ratios=[1, 2.4], height_ratios=[2, 1])
    growth = figure.add_subplot(grid[:, 0])
    end = simulator.config.t_end
    time = simulator.synthesis.time - delays(observations.labels, len(observations), end)[k]
    for low, high in ((2.5, 97.5), (16, 84)):
        band = np.percentile(found.growth, [low, high], axis=0)
        growth.fill_between(time, *band, alpha=0.3, color="C0", lw=0)
    growth.plot(time, found.mean_growth, "k", lw=1)
    growth.set(xlabel="cosmic time [Gyr]", ylabel="mass formed", ylim=(0, 1), xlim=(0, time[-1]))
    top, bottom = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
    x = observations.batch.x[k].double().numpy()
    used = observations.batch.observed[k].numpy()
    seen = np.where(used, x, np.nan)
    top.plot(simulator.wave, seen, lw=0.5, label=str(observations.id[k]))
    top.plot(simulator.wave, found.mean.model, "k", lw=0.4, label="recovered")
    top.set(ylabel="flux / median", xticklabels=[])
    top.legend(loc="upper left", fontsize="small")
    bottom.axhline(0, color="k", lw=0.5)
    bottom.plot(simulator.wave, 100 * (seen / found.mean.model - 1.0), lw=0.4)
    bottom.set(xlabel="rest wavelength, air [Å]", ylabel="residual [%]", ylim=(-12, 12))
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--observed", nargs=2, metavar=("RUN", "FILE"))
    parser.add_argument("--object", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "_static")
    args = parser.parse_args()
    accuracy(sbi_core.load_run(args.run), args.out / "sfh-accuracy.png")
    if args.observed:
        run, file = args.observed
        galaxy(sbi_core.load_run(run), file, args.object, args.out / "sfh-galaxy.png")


if __name__ == "__main__":
    main()
