"""Real stars under a trained run: both results, the error budget, and results without each element.

    sbi-run --plugin chempy --out runs/standard
    python benchmarks/chempy/real_stars.py --run runs/standard --data DIR --json out.json \
        --figure real-stars.png

DIR holds the solar twins of Bedell et al. (2018), half of the dwarfs of Bensby et al. (2014), a
selection of APOGEE DR17 disk stars, and the proto-Sun and Arcturus of Chempy (Rybizki et al. 2017).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from astropy.table import Table

import sbi_core
from sbi_core import Observations, Run

_MOST = 8000


def apogee(path: Path) -> Table:
    """Return [Fe/H] and [X/Fe] of O, Mg, Si with errors; NaN where the inverse variance is 0."""
    with np.load(path) as f:
        elements, x_h, ivar = ([str(e) for e in f["elements"]], f["x_h"], f["ivar"])
    iron = elements.index("Fe")
    table = Table()
    for element in ("Fe", "Mg", "O", "Si"):
        k = elements.index(element)
        good = ivar[:, k] > 0
        name = "fe_h" if element == "Fe" else f"{element.lower()}_fe"
        value = x_h[:, k] - (0 if element == "Fe" else x_h[:, iron])
        table[name] = np.where(good, value, np.nan).astype(float)
        table[f"e_{name}"] = np.where(good, 1 / np.sqrt(np.where(good, ivar[:, k], 1)), np.nan)
    return table[:_MOST]


def anchor(path: Path) -> Table:
    """Return the star of a file of Chempy: [X/H] and errors, age in Gyr."""
    value, error = np.load(path)
    table = Table()
    for element in ("C", "Fe", "Mg", "N", "O", "Si"):
        if element in value.dtype.names:
            name = "fe_h" if element == "Fe" else f"{element.lower()}_fe"
            table[name] = [float(value[element] - (0 if element == "Fe" else value["Fe"]))]
            table[f"e_{name}"] = [float(error[element])]
    table["age"], table["e_age"] = [float(value["age"])], [max(float(error["age"]), 0.1)]
    return table


def samples(run: Run, directory: str, data: Path) -> dict[str, Observations]:
    """Return the stars by name."""
    twins = sbi_core.load_run(directory, overrides=["simulator.bare_columns=x_h"])
    anchors = data / "chempy_anchors"
    return {
        "Bedell et al. 2018, solar twins": twins.observations(data / "bedell18_solar_twins.csv"),
        "Bensby et al. 2014, dwarfs": run.observations(data / "bensby14_half.fits"),
        "APOGEE DR17, disk": run.observations(apogee(data / "apogee_dr17_disk_subset.npz")),
        "proto-Sun": run.observations(anchor(anchors / "Proto-sun.npy")),
        "Arcturus": run.observations(anchor(anchors / "Arcturus.npy")),
    }


def measured(run: Run, name: str, stars: Observations) -> dict:
    """Return both results of a sample, budget, and results without each element; print them."""
    combiner = run._context.combiner("group-moments")
    combiner.restore(run.directory.combiner("group-moments"))
    found: dict = {"sample": name, "n": len(stars)}
    for key, rule in (("marginalised", None), ("nominal", run.nominal_combiner)):
        c = run.combine(stars, rule)
        found[key] = {"mean": c.mean.tolist(), "sd": c.sd.tolist(), "flags": list(c.flags)}
    found["budget"] = {k: v.tolist() for k, v in combiner.error_budget(stars).items()}
    found["without"] = {
        k: {"mean": m.tolist(), "sd": s.tolist()}
        for k, (m, s) in combiner.leave_one_out(stars).items()
    }
    for key in ("marginalised", "nominal"):
        (a, b), (ea, eb) = found[key]["mean"], found[key]["sd"]
        flags = ", ".join(found[key]["flags"])
        print(
            f"{name:<34}{len(stars):>5} {key:<13}{a:8.3f} +- {ea:.3f} {b:8.3f} +- {eb:.3f}  {flags}"
        )
    for part in ("budget", "without"):
        print(f"    {part}: {json.dumps(found[part])}", flush=True)
    return found


def draw(record: list[dict], path: str) -> None:
    """Draw alpha_imf: both results of each sample, and those without each element."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 0.6 + 0.9 * len(record)), layout="constrained")
    axes = figure.subplots()
    for k, r in enumerate(record):
        y = len(record) - k
        for shift, key, colour in ((0.15, "marginalised", "C0"), (-0.05, "nominal", "C1")):
            label = (
                None
                if k
                else {"marginalised": "errors of the model included"}.get(
                    key, "if the model is exactly right"
                )
            )
            axes.errorbar(
                r[key]["mean"][0],
                y + shift,
                xerr=r[key]["sd"][0],
                fmt="o",
                color=colour,
                label=label,
            )
        for j, (element, v) in enumerate(r["without"].items()):
            axes.plot(v["mean"][0], y - 0.25, "|", color="0.4", markersize=9)
            axes.annotate(
                element.split("_")[0].capitalize(),
                (v["mean"][0], y - 0.25 - 0.1 * (j % 2)),
                fontsize=6,
                ha="center",
                va="top",
            )
    axes.axvline(-2.3, color="0.7", lw=1)
    axes.axvspan(-2.6, -2.0, color="0.93", zorder=0)
    axes.set_yticks(range(len(record), 0, -1), [f"{r['sample']}\nN = {r['n']}" for r in record])
    axes.set_xlabel(r"$\alpha_\mathrm{IMF}$ (grey: prior, mean and sd; ticks: without an element)")
    axes.legend(loc="upper right", fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Read, combine, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--json")
    parser.add_argument("--figure")
    options = parser.parse_args()
    run = sbi_core.load_run(options.run)
    found = samples(run, options.run, Path(options.data))
    record = [measured(run, name, stars) for name, stars in found.items()]
    if options.json:
        Path(options.json).write_text(json.dumps(record, indent=1))
    if options.figure:
        draw(record, options.figure)


if __name__ == "__main__":
    main()
