"""Make the figures of docs/sedflow.md from a run and a file of the NASA-Sloan Atlas.

    sbi-run --plugin sedflow --out runs/sedflow-standard
    python docs/figures/make_sedflow_figures.py runs/sedflow-standard nsa_v0_1_2.fits

``sedflow-seds.png``: observed fluxes of a red and a blue galaxy (in u - r) with all seven bands and
good photometry, and what their posteriors predict.
``sedflow-corner.png``: some parameters of both.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

from sbi_core import load_run, plot
from sbi_sedflow import plots, read_nsa
from sbi_sedflow.analysis import SedflowAnalysis, SedflowAnalysisConfig
from sbi_sedflow.likelihood import Galaxies

SHOWN = {
    "logmstar": r"\log M_\star",
    "tau_ism": r"\tau_\mathrm{ISM}",
    "sfr_1gyr": r"\log\mathrm{SFR}",
    "tage_mw": r"t_\mathrm{mw}",
}


def chosen(observations) -> np.ndarray:  # noqa: ANN001
    """Rows of a red and a blue galaxy with seven good bands: 5 % of these are redder, or bluer."""
    galaxies = Galaxies.of(observations)
    good = galaxies.mask.all(1).numpy()
    good &= (galaxies.flux > 10 * galaxies.sigma)[:, 2:].all(1).numpy()
    good &= (galaxies.flux > 3 * galaxies.sigma).all(1).numpy()
    rows, flux = np.flatnonzero(good), galaxies.flux.numpy()[good]
    order = np.argsort(flux[:, 2] / flux[:, 4])  # u / r: red first
    return rows[order[[int(0.05 * len(rows)), int(0.95 * len(rows))]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("atlas")
    parser.add_argument("--out", default=Path(__file__).parent, type=Path)
    options = parser.parse_args()
    run = load_run(options.run)
    simulator = run.simulator
    observations = read_nsa(options.atlas)
    pair = observations[chosen(observations)]
    analysis = SedflowAnalysis(SedflowAnalysisConfig(refine="none"))
    analysis.attach(simulator)
    drawn = run.posterior.sample(pair, 2000, seed=1)
    samples = analysis.describe(run.posterior, pair, drawn, 1)
    galaxies = Galaxies.of(pair)
    figure = plt.figure(figsize=(11.0, 4.0), layout="constrained")
    for k, part in enumerate(figure.subfigures(1, 2)):
        name, z = ("red", "blue")[k], float(galaxies.context[k, 0])
        one, draws = galaxies[np.array([k])], samples.values[:, k]
        title = f"{name}: NSAID {pair.id[k]}, z = {z:.3f}"
        plots.sed(simulator, one, draws, title=title, figure=part)
    figure.savefig(options.out / "sedflow-seds.png", dpi=110, metadata={"Software": None})
    draws = np.stack([samples[name] for name in SHOWN], -1)
    draws[:, :, 2] = np.log10(np.maximum(draws[:, :, 2], 1e-6))
    figure = None
    for k, (name, colour) in enumerate((("red", "#d55e00"), ("blue", "#0072b2"))):
        labels = list(SHOWN.values())
        figure = plot.corner(draws[:, k], labels, figure=figure, colour=colour, name=name)
    figure.savefig(options.out / "sedflow-corner.png", dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
