"""Make the figures of docs/chempy-model.md; same numbers, same pixels, every time.

    python docs/figures/make_chempy_figures.py

``chempy-tracks.png`` needs nothing but the packages. ``chempy-yields.png`` also shows the yields of
IllustrisTNG where SBI_DATA_DIR (or the cache of ``sbi-run data fetch chempy-yields``) holds them,
and the script prints the median offsets per element that the page quotes.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch

from sbi_chempy.constants import ABUNDANCES
from sbi_chempy.engine import ChempyEngine
from sbi_chempy.tracks import tracks
from sbi_chempy.yields import load_yields
from sbi_core import DataFileError, get_simulator

PLAIN = (-2.3, -2.89, -0.3, 0.55, 0.5, 12.8)  # prior means; born at 12.8 Gyr
COLOURS = ("#222222", "#0072b2", "#d55e00", "#009e73")
FE, MG = ABUNDANCES.index("Fe_H"), ABUNDANCES.index("Mg_Fe")
PANELS = (
    ("IMF slope", 0, (-2.1, -2.3, -2.5), r"$\alpha_\mathrm{{IMF}} = {}$"),
    ("SNe Ia", 1, (-3.2, -2.89, -2.6), r"$\log_{{10}} N_\mathrm{{Ia}} = {}$"),
    ("star-formation efficiency", 2, (0.3, -0.3, -0.9), r"$\log_{{10}} \mathrm{{SFE}} = {}$"),
)
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
}
PLANES = (("Fe_H", "Mg_Fe"), ("Fe_H", "O_Fe"), ("Fe_H", "Si_Fe"), ("C_Fe", "N_Fe"))


def label(name: str) -> str:
    return "[" + name.replace("_", "/") + "]"


def save(figure, path: Path) -> None:
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def draw_tracks(folder: Path) -> None:
    engine = ChempyEngine(load_yields("default"), kernel="torch")
    figure, axes = plt.subplots(1, 3, figsize=(9, 3.1), sharey=True, layout="constrained")
    for axis, (title, column, values, text) in zip(axes, PANELS, strict=True):
        theta = torch.tensor([PLAIN] * len(values), dtype=torch.float64)
        theta[:, column] = torch.tensor(values, dtype=torch.float64)
        made = tracks(engine, theta)
        for k, value in enumerate(values):
            x = made.abundances[k, 2:].numpy()
            colour = COLOURS[0] if value == PLAIN[column] else COLOURS[1 + k // 2]
            axis.plot(x[:, FE], x[:, MG], "-", color=colour, lw=1.5, label=text.format(value))
            age = made.time[k, 2:].numpy()
            for gyr in (1, 3, 10):
                mark = int(np.abs(age - gyr).argmin())
                axis.plot(x[mark, FE], x[mark, MG], "o", color=colour, ms=4)
        axis.plot(0, 0, "*", color="#999999", ms=9)
        axis.set(title=title, xlabel="[Fe/H]", xlim=(-1.9, 0.7))
        axis.legend(loc="lower left")
    axes[0].set_ylabel("[Mg/Fe]")
    save(figure, folder / "chempy-tracks.png")


def draw_yields(folder: Path) -> None:
    default = get_simulator("chempy", dtype="float64")
    theta = default.parameters.sample(1500, 2025)
    sets = {"default (embedded)": default.simulate(theta)}
    try:
        sets["tng"] = get_simulator("chempy", yields="tng", dtype="float64").simulate(theta)
    except DataFileError as error:
        print(f"without the yields of IllustrisTNG: {error}")
    figure, axes = plt.subplots(1, 4, figsize=(11, 3.0), layout="constrained")
    for axis, (a, b) in zip(axes, PLANES, strict=True):
        for colour, (name, batch) in zip(COLOURS[1:], sets.items(), strict=False):
            x = batch.x.numpy()
            columns = (x[:, ABUNDANCES.index(n)] for n in (a, b))
            axis.plot(*columns, ".", ms=2, alpha=0.35, color=colour, label=name, mew=0)
        axis.plot(0, 0, "*", color="#999999", ms=9)
        axis.set(xlabel=label(a), ylabel=label(b))
    axes[0].legend(loc="lower left", markerscale=5)
    save(figure, folder / "chempy-yields.png")
    if len(sets) == 2:
        first, second = (batch.x.numpy() for batch in sets.values())
        gap = first - second
        print("median (16th, 84th percentile) of default - tng over prior draws [dex]:")
        for k, name in enumerate(ABUNDANCES):
            low, middle, high = np.nanpercentile(gap[:, k], (16, 50, 84))
            print(f"  {label(name):8} {middle:+.3f} ({low:+.3f}, {high:+.3f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with plt.rc_context(STYLE):
        draw_tracks(options.out)
        draw_yields(options.out)


if __name__ == "__main__":
    main()
