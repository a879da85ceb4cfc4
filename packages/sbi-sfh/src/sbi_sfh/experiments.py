r"""The experiments of the method's first description, one command each.

    sbi-run sfh experiments timing early-types --observations spectra --out runs/experiments

trains what an experiment needs once (``OUT/run-NAME``; later commands use it again), and writes a
table, the numbers (JSON) and figures into ``OUT/NAME``.

===============  ==============================================================================
``timing``       processor time per spectrum of the network, of non-negative inversion, of pPXF
                 and of MCMC (emcee), on the same mocks; emcee and pPXF only where installed
``early-types``  observed spectra with velocity dispersions: t50, t90 and [M/H] against it, and
                 a figure of every galaxy
===============  ==============================================================================

``timing`` trains with Gaussian-process histories (``simulator.family=gp``), the only ones that
MCMC is written for; ``early-types`` with ``simulator.mode=observed``.

References:
    | Iglesias-Navarro et al. 2024, A&A 689, A58 (method)
    | Cappellari 2017, MNRAS 466, 798 (pPXF)
    | Foreman-Mackey et al. 2013, PASP 125, 306 (emcee)
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sbi_core import ConfigError, ExperimentOptions, Run, safe_names, stream
from sbi_sfh.simulator import SfhSimulator

__all__ = ["Options", "early_types", "perform", "timing"]

_FIXED = {
    "timing": ("simulator.family=gp",),
    "early-types": ("simulator.mode=observed",),
}
_DRAWS = 1000
_BATCH = 20  # spectra
_REGULARISATION = 20.0  # of pPXF
_EARLY = ("t50", "t90", "mh")


@dataclass(frozen=True, kw_only=True)
class Options(ExperimentOptions):
    """Options of the experiments, as ``sbi-run sfh experiments`` takes them.

    Parameters
    ----------
    observations
        Spectra of ``early-types``, with their velocity dispersions.
    steps
        Of emcee, after a tenth for burning in.
    """

    observations: str | None = None
    steps: int = 4000


def perform(names: Sequence[str], options: Options) -> Iterator[str]:
    """Run experiments by name; yield the table of each and the folder of its results."""
    if "early-types" in names and options.observations is None:
        msg = "the experiment early-types needs spectra: give --observations FILE or FOLDER"
        raise ConfigError(msg)
    for name in names:
        folder = options.folder(name)
        run = (
            Run(options.run) if options.run else
            options.trained("sfh", f"run-{name}", _FIXED[name])
        )  # fmt: skip
        numbers: Any
        if name == "timing":
            text, numbers = timing(run, folder, steps=options.steps, seed=options.seed)
        else:
            text, numbers = early_types(run, folder, str(options.observations))
        yield options.write(name, text, numbers)


def timing(run: Run, folder: Path, *, steps: int, seed: int) -> tuple[str, dict[str, float]]:
    """Measure processor seconds per spectrum; return the table and the numbers.

    Parameters
    ----------
    run
        Of mode ``mock``; emcee also needs family ``gp``.
    folder
        Where the figure is written.
    steps
        Of emcee.
    seed
        Of the mocks.
    """
    from sbi_sfh.baselines import emcee_posterior, invert, ppxf_fit

    simulator = run.simulator_of(SfhSimulator)
    if simulator.config.mode != "mock":
        msg = "the experiment timing needs a run of simulator.mode=mock"
        raise ConfigError(msg)
    mocks = simulator.example_observations(stream(seed, "timing"), _BATCH)
    flux = mocks.batch.x[0].double().numpy()
    known = mocks.batch.x_err
    err = 1e-3 * flux if known is None else known[0].double().numpy()
    posterior = run.posterior
    posterior.sample(mocks[:1], _DRAWS)  # the first call sets things up
    ways: dict[str, Callable[[], Any]] = {
        "network": lambda: posterior.sample(mocks[:1], _DRAWS),
        f"network, {_BATCH} together": lambda: posterior.sample(mocks, _DRAWS),
        "NNLS": lambda: invert(simulator, flux, err),
        "NNLS, regularised": lambda: invert(simulator, flux, err, regularisation=1.0),
    }
    missing = [n for n in ("ppxf", "emcee") if importlib.util.find_spec(n) is None]
    if "ppxf" not in missing:
        ways["pPXF"] = lambda: ppxf_fit(simulator, flux, err, 0.0)
        ways["pPXF, regularised"] = lambda: ppxf_fit(simulator, flux, err, _REGULARISATION)
    if "emcee" not in missing and simulator.config.family == "gp":
        ways[f"emcee, {steps} steps"] = lambda: emcee_posterior(
            simulator, flux, stream(seed, "emcee"), steps=steps, burn=steps // 10
        )
    seconds = {name: _seconds(way) for name, way in ways.items()}
    seconds[f"network, {_BATCH} together"] /= _BATCH
    lines = [f"{'processor time per spectrum':<28} {'seconds':>10} {'over network':>13}"]
    lines += [f"{n:<28} {s:>10.4g} {s / seconds['network']:>13.4g}" for n, s in seconds.items()]
    lines += [f"{name} is not installed: left out" for name in missing]
    _bars(seconds, folder / "timing.png")
    return "\n".join(lines) + "\n", seconds


def early_types(run: Run, folder: Path, observations: str) -> tuple[str, list[dict[str, Any]]]:
    """Infer spectra and draw results against velocity dispersion; return the table and the rows.

    Parameters
    ----------
    run
        Of mode ``observed``.
    folder
        Where figures are written.
    observations
        File or folder of spectra; without velocity dispersions those of the fit are used.

    Raises
    ------
    ConfigError
        If the run has another mode.
    """
    from sbi_sfh.analysis import figure_of, model_draws
    from sbi_sfh.recovered import recover_object

    simulator = run.simulator_of(SfhSimulator)
    if simulator.config.mode != "observed":
        msg = "the experiment early-types needs a run of simulator.mode=observed"
        raise ConfigError(msg)
    data = run.observations(observations)
    samples = run.infer(data, _DRAWS)
    lines = [
        f"{'galaxy':<24} {'sigma':>6} " + " ".join(f"{n:>13}" for n in _EARLY) + "  rms  flags"
    ]
    rows: list[dict[str, Any]] = []
    files = safe_names(map(str, samples.id))
    for k, name in enumerate(map(str, samples.id)):
        row: dict[str, Any] = {"id": name, "sigma": float(samples.columns["sigma"][k])}
        for n in _EARLY:
            low, middle, high = np.percentile(samples[n][:, k], [16, 50, 84])
            row |= {n: float(middle), f"{n}_low": float(low), f"{n}_high": float(high)}
        row["rms"] = float(samples.columns["residual_rms"][k])
        row["flags"] = str(samples.flags[k])
        rows.append(row)
        cells = (f"{row[n]:6.2f} +- {0.5 * (row[f'{n}_high'] - row[f'{n}_low']):4.2f}"
                 for n in _EARLY)  # fmt: skip
        lines.append(
            f"{name:<24} {row['sigma']:>6.0f} {'  '.join(cells)} {100 * row['rms']:4.1f}% "
            f"{row['flags']}"
        )
        recovered = recover_object(simulator, data, k, model_draws(simulator, data, samples, k))
        figure_of(simulator, data, k, recovered).savefig(folder / f"{files[k]}.png", dpi=130)
    _trends(rows, folder / "trends.png")
    return "\n".join(lines) + "\n", rows


def _seconds(way: Callable[[], Any], least: float = 0.2) -> float:
    """Return processor seconds of a call, the mean of as many as take a moment."""
    start, calls = time.process_time(), 0
    while not calls or time.process_time() - start < least:
        way()
        calls += 1
    return (time.process_time() - start) / calls


def _bars(seconds: dict[str, float], path: Path) -> None:
    figure = Figure(figsize=(6.4, 0.42 * len(seconds) + 1.0), layout="constrained")
    axes = figure.subplots()
    names = list(seconds)[::-1]
    values = [seconds[n] for n in names]
    axes.barh(names, values, color=["C1" if n.startswith("network") else "C0" for n in names])
    for k, value in enumerate(values):
        axes.text(1.15 * value, k, f"{value:.2g} s", va="center", fontsize=8)
    axes.set_xscale("log")
    axes.set_xlim(0.5 * min(values), 8.0 * max(values))
    axes.set_xlabel("processor time per spectrum [s]")
    figure.savefig(path, dpi=150)


def _trends(rows: Sequence[dict[str, Any]], path: Path) -> None:
    figure = Figure(figsize=(9.0, 3.2), layout="constrained")
    labels = ("half of the mass formed by [Gyr]", "nine tenths formed by [Gyr]", "[M/H]")
    sigma = np.array([r["sigma"] for r in rows])
    flagged = np.array([bool(r["flags"]) for r in rows])
    for axes, name, label in zip(figure.subplots(1, 3), _EARLY, labels, strict=True):
        middle, low, high = (
            np.array([r[key] for r in rows]) for key in (name, f"{name}_low", f"{name}_high")
        )
        for some, mark, text in ((~flagged, "o", "no flag"), (flagged, "x", "flagged")):
            error = np.abs(np.stack([middle - low, high - middle]))[:, some]
            if some.any():
                axes.errorbar(sigma[some], middle[some], error, fmt=mark, ms=4, label=text)
        axes.set(xlabel="velocity dispersion [km/s]", ylabel=label)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
