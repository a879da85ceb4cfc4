"""Spectra recovered from percentiles: exact ones, posteriors of mocks, real galaxies.

python benchmarks/sfh/recovery.py [--run RUN] [--real RUN_OBSERVED FILE] [--json FILE]
"""

import argparse
from pathlib import Path

import numpy as np
from common import save, show

import sbi_core
from sbi_core import stream
from sbi_sfh.analysis import model_draws
from sbi_sfh.config import SfhConfig
from sbi_sfh.recover import METHODS
from sbi_sfh.recovered import recover_object
from sbi_sfh.simulator import SfhSimulator


def quantiles(rms) -> list[float]:
    """Median, 68 and 90 % in per cent."""
    return [100 * float(v) for v in np.quantile(rms, [0.5, 0.68, 0.9])]


def exact(aux: bool, n: int = 1500) -> dict[str, list[float]]:
    """Rms of spectra from exact percentiles, by method."""
    simulator = SfhSimulator(SfhConfig(aux=aux))
    found = simulator.synthesis.draw(n, stream(3, "recovery"))
    theta = np.concatenate([found.histories.percentiles, found.mh[:, None]], 1)
    truth = found.coefficients @ simulator.library.basis
    return {
        m: quantiles(np.sqrt(((simulator.recovery.spectra(theta, m) / truth - 1) ** 2).mean(1)))
        for m in METHODS
    }


def objects(run, observations, draws: int = 500) -> list[list]:
    """One row per galaxy: rms, chi2 of the mean, of the best draw, dispersion, percentiles."""
    samples = run.infer(observations, draws)
    rows = []
    for k in range(len(observations)):
        draws_of = model_draws(run.simulator, observations, samples, k)
        f = recover_object(run.simulator, observations, k, draws_of)
        t = [f"{samples[n][:, k].mean():.2f}+-{samples[n][:, k].std():.2f}"
             for n in ("t10", "t50", "t90", "mh")]  # fmt: skip
        rows.append([str(observations.id[k]), 100 * f.mean.rms, f.mean.chi2, f.best_chi2,
                     f.mean.sigma, *t, samples.flags[k]])  # fmt: skip
    return rows


def of_mocks(rows: list[list]) -> dict[str, float]:
    """Return medians and tails of chi2 of the posterior mean and of the best draw."""
    values = np.array([r[1:4] for r in rows], float)
    high = values[:, 1] > 1.3
    flagged = np.array(["poor_fit" in str(r[-1]) for r in rows])
    return {
        "rms %": float(np.median(values[:, 0])), "chi2": float(np.median(values[:, 1])),
        "chi2 95 %": float(np.quantile(values[:, 1], 0.95)),
        "chi2 99 %": float(np.quantile(values[:, 1], 0.99)),
        "above 1.3": float(high.mean()), "not flagged": float((high & ~flagged).mean()),
        "best 95 %": float(np.quantile(values[:, 2], 0.95)),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, help="a run in mode mock")
    parser.add_argument("--mocks", type=int, default=50)
    parser.add_argument("--real", nargs=2, metavar=("RUN", "FILE"), help="mode observed, spectra")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    numbers = {}
    for aux in (False, True):
        found = exact(aux)
        numbers["exact, aux" if aux else "exact"] = found
        show(f"exact percentiles{' with t95..t99.9' if aux else ''}: rms %",
             ["method", "median", "68 %", "90 %"], [[m, *v] for m, v in found.items()])  # fmt: skip
    head = ["galaxy", "rms %", "chi2/px", "best", "sigma", "t10", "t50", "t90", "[M/H]", "flags"]
    if args.run:
        run = sbi_core.load_run(args.run)
        mocks = run.simulator.example_observations(stream(5, "recovery"), args.mocks)
        rows = objects(run, mocks)
        numbers["mocks"] = of_mocks(rows)
        show(f"{len(rows)} mocks", list(numbers["mocks"]), [list(numbers["mocks"].values())])
    if args.real:
        run = sbi_core.load_run(args.real[0])
        rows = objects(run, run.observations(args.real[1]))
        numbers["real"] = rows
        show("real galaxies", head, rows)
    save(args.json, numbers)


if __name__ == "__main__":
    main()
