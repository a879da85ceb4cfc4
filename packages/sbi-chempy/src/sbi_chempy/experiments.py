r"""The experiments of Buck et al. 2025, one command each.

    sbi-run chempy experiments shifted --out runs/experiments

trains on the TNG yields once (run directory ``OUT/run``; later commands use it again), makes the
stars of the experiment, combines 1 to 1000 of them by our rule, by the plain Gaussian one and by
the published one, and writes a table, the numbers (JSON) and two figures into ``OUT/NAME``. The
yield tables are not part of the package: ``sbi-run data fetch chempy-yields``, or ``SBI_DATA_DIR``.

========================  =====================================================================
``same``                  truth -2.3, -2.89, simulated like the training set
``alternative``           the same truth, but other yields in the stars
``galaxy``                1000 star particles of an IllustrisTNG galaxy (file ``--stars``)
``shifted``               truth -2.1, -3.0: away from the prior mean
``single``                test stars of the prior, one by one, in all six parameters
========================  =====================================================================

``single`` trains a second time (``OUT/run-single``; a flow on all parameters), and draws boxes of
the absolute percentage errors, SBC, coverage and TARP panels, and correlations
(:mod:`sbi_chempy.single_stars`).

Birth times are U(2, 12.8) Gyr as in the paper, the other local parameters draws of the prior,
errors 0.05 dex. The training prior of the birth time is U(1, 13.797) Gyr: one training star in
six is older or younger than every mock, which biases a combination of 1000 stars by about one
sigma. With ``--births prior`` birth times are draws of the prior, too.

References:
    | Buck, Günes, Viterbo, Oliver & Buder 2025, A&A 702, A184 (B25): section 4, and the figures of
    | the code TobiBu/sbi-chempy at commit 1cf2341
    | Philcox & Rybizki 2019, ApJ 887, 9 (P&R19), table 3
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from sbi_chempy import single_stars
from sbi_chempy.marginal import ChempyMarginalSimulator
from sbi_chempy.simulator import ChempySimulator
from sbi_core import (
    Batch,
    ConfigError,
    DataFileError,
    ExperimentOptions,
    Observations,
    Run,
    Simulator,
    data_dirs,
    get_combiner,
    get_simulator,
    stream,
)

__all__ = ["PUBLISHED", "SIZES", "TRUTHS", "Options", "measure", "perform", "stars"]

F64 = NDArray[np.float64]
SIZES = (1, 3, 10, 30, 100, 200, 300, 1000)
TRUTHS: dict[str, tuple[float, float]] = {
    "same": (-2.3, -2.89),
    "alternative": (-2.3, -2.89),
    "galaxy": (-2.3, -2.89),
    "shifted": (-2.1, -3.0),
}
# N, alpha_IMF, its sigma, log10 N_Ia, its sigma, as printed
PUBLISHED: dict[str, dict[str, tuple[int, float, float, float, float]]] = {
    "same": {
        "B25 abstract": (1000, -2.298, 0.002, -2.885, 0.003),
        "B25 plots": (200, -2.295, 0.005, -2.883, 0.007),
        "P&R19 HMC 1": (1, -2.29, 0.08, -2.87, 0.11),
        "P&R19 HMC 10": (10, -2.31, 0.02, -2.90, 0.03),
        "P&R19 HMC 100": (100, -2.31, 0.01, -2.90, 0.01),
    },
    "alternative": {
        "B25 plots (noise added twice)": (200, -2.358, 0.005, -2.975, 0.007),
        "P&R19 HMC 1": (1, -2.25, 0.10, -3.01, 0.15),
        "P&R19 HMC 10": (10, -2.21, 0.04, -2.96, 0.08),
        "P&R19 HMC 100": (100, -2.22, 0.02, -2.96, 0.03),
    },
    "galaxy": {
        "B25 plots": (200, -2.285, 0.005, -2.888, 0.007),
        "P&R19 HMC 1": (1, -2.27, 0.08, -2.86, 0.11),
        "P&R19 HMC 10": (10, -2.27, 0.03, -2.87, 0.04),
        "P&R19 HMC 100": (100, -2.28, 0.01, -2.89, 0.01),
    },
    "shifted": {"B25 plots": (200, -2.108, 0.006, -2.989, 0.008)},
}
_RULES = ("simulated-moments", "gaussian", "published")
_BIRTHS = (2.0, 12.8)  # Gyr
_MOCK = "Mock_Data_TNG.npz"
_YIELDS = ("simulator.yields=tng",)
_SINGLE = "single"
_SINGLE_OPTIONS = (  # nothing is combined, and a flow follows the shapes of six parameters
    "estimator.name=maf",
    "estimator.parameters=all",
    "train.epochs=30",
    "train.learning_rate=5e-3",
    "emulate.enabled=false",
)
_SINGLE_STAGES = ("simulate", "train", "diagnose")


def stars(
    name: str,
    simulator: Simulator,
    *,
    n: int = 1000,
    seed: int = 1,
    file: Path | None = None,
    births: Literal["published", "prior"] = "published",
) -> Observations:
    """Return the stars of an experiment.

    Parameters
    ----------
    name
        See the module.
    simulator
        That of the run; ``alternative`` uses other yields.
    n
        Number of stars; ``galaxy`` has the stars of its file.
    seed
        Of parameters and noise.
    file
        Star particles of ``galaxy``; default: in the data directories.
    births
        Birth times of the mocks: U(2, 12.8) Gyr, or draws of the prior.

    Raises
    ------
    ConfigError
        If the name is unknown.
    DataFileError
        If a file is missing.
    """
    if name not in TRUTHS:
        msg = f"unknown experiment '{name}' (known: {', '.join(TRUTHS)})"
        raise ConfigError(msg)
    if name == "galaxy":
        particles = simulator.read_observations(file or _find_mock())
        batch = particles.batch
        if batch.context is not None:
            batch = batch.with_(context=0 * batch.context)
        return Observations.from_batch(batch, observables=particles.observables)
    maker = get_simulator("chempy", yields="alternative") if name == "alternative" else simulator
    rng = stream(seed, "experiment", name)
    many = n + n // 10 + 5  # some simulations fail
    theta = maker.parameters.sample(many, rng)
    theta[:, 0], theta[:, 1] = TRUTHS[name]
    if births == "published":
        theta[:, 5] = rng.uniform(*_BIRTHS, many)
    batch = maker.simulate(theta, 0).succeeded[:n]
    k = len(maker.observables)
    like = Batch(x=torch.zeros(1, k), x_err=torch.full((1, k), 0.05))
    noisy = maker.observe_like(batch, like, rng)
    return Observations.from_batch(
        noisy, observables=maker.observables, truth_names=maker.parameters.names
    )


def _find_mock() -> Path:
    for folder in data_dirs():
        for path in (folder / _MOCK, folder / "chempy" / _MOCK):
            if path.exists():
                return path
    msg = f"{_MOCK} is in none of the data directories: pass --stars FILE or set SBI_DATA_DIR"
    raise DataFileError(msg)


def measure(run: Run, rules: Sequence[str], name: str, data: Observations) -> list[dict[str, Any]]:
    """Combine growing numbers of stars by several rules of a run.

    Returns
    -------
    list
        One entry per rule and N: mean and sd of the first N stars, their distance from the truth in
        sigma, and its root mean square over disjoint sets of N.
    """
    truth = np.array(TRUTHS[name])
    rows = []
    for rule in rules:
        combiner = get_combiner(rule)
        combiner.attach(run.simulator)
        if _learned(run, rule):
            combiner.restore(run.directory.combiner(rule))
        for n in (s for s in SIZES if s <= len(data)):
            subsets = [slice(k * n, (k + 1) * n) for k in range(min(50, len(data) // n))]
            combined = combiner.combine_subsets(run.posterior, data, subsets)
            first = combined[0]
            z = np.array([(c.mean - truth) / c.sd for c in combined])
            rows.append(
                {
                    "experiment": name,
                    "combiner": rule,
                    "n": n,
                    "mean": first.mean.tolist(),
                    "sd": first.sd.tolist(),
                    "cov": first.cov.tolist(),
                    "z": z[0].tolist(),
                    "z_rms": float(np.sqrt((z**2).mean())),
                    "subsets": len(z),
                }
            )
    return rows


def table(name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Return ours and the published values as text."""
    truth = TRUTHS[name]
    lines = [
        f"{name}: truth alpha_IMF {truth[0]}, log10 N_Ia {truth[1]}",
        f"{'':<30}{'N':>5} {'alpha_IMF':>18} {'log10 N_Ia':>18}   off by sigma   rms",
    ]
    for r in rows:
        (a, b), (ea, eb), z = r["mean"], r["sd"], r["z"]
        lines.append(
            f"{r['combiner']:<30}{r['n']:>5} {a:+.4f} +- {ea:.4f}  {b:+.4f} +- {eb:.4f}   "
            f"{z[0]:+5.1f} {z[1]:+5.1f}   {r['z_rms']:5.2f}"
        )
    for label, (n, a, ea, b, eb) in PUBLISHED[name].items():
        lines.append(f"{label:<30}{n:>5} {a:+.3f}  +- {ea:.3f}   {b:+.3f}  +- {eb:.3f}")
    return "\n".join(lines) + "\n"


def figures(name: str, rows: Sequence[dict[str, Any]], folder: Path) -> list[Path]:
    """Draw convergence with N (bands of 1 and 2 sigma), and joint contours at the largest N.

    Contours hold 68, 95 and 99.7 % of the probability of two parameters.
    """
    truth, labels = TRUTHS[name], (r"$\alpha_\mathrm{IMF}$", r"$\log_{10} N_\mathrm{Ia}$")
    rules = list(dict.fromkeys(r["combiner"] for r in rows))
    convergence = Figure(figsize=(4.0 * len(rules), 5.0), layout="constrained")
    axes = convergence.subplots(2, len(rules), sharex=True, sharey="row", squeeze=False)
    for j, rule in enumerate(rules):
        own = [r for r in rows if r["combiner"] == rule]
        n = [r["n"] for r in own]
        for i in range(2):
            ax = axes[i, j]
            mean, sd = (np.array([r[key][i] for r in own]) for key in ("mean", "sd"))
            for k, alpha in ((2, 0.25), (1, 0.4)):
                ax.fill_between(n, mean - k * sd, mean + k * sd, alpha=alpha, color="C0", lw=0)
            ax.plot(n, mean, "C0o-", ms=3)
            ax.axhline(truth[i], color="k", ls="--", lw=1)
            ax.set_xscale("log")
            ax.set_ylabel(labels[i] if j == 0 else "")
        axes[0, j].set_title(rule)
        axes[1, j].set_xlabel("number of stars")
    joint = Figure(figsize=(4.5, 4.0), layout="constrained")
    ax = joint.subplots()
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    for j, rule in enumerate(rules):
        last = [r for r in rows if r["combiner"] == rule][-1]
        root = np.linalg.cholesky(np.array(last["cov"]))
        for p, width in ((0.6827, 1.6), (0.9545, 1.0), (0.9973, 0.6)):
            radius = np.sqrt(-2 * np.log(1 - p))  # of two parameters
            x, y = np.array(last["mean"])[:, None] + radius * root @ circle
            label = f"{rule}, N = {last['n']}" if p < 0.7 else None
            ax.plot(x, y, color=f"C{j}", lw=width, label=label)
    ax.plot(*truth, "k+", ms=10)
    ax.set(xlabel=labels[0], ylabel=labels[1])
    ax.legend(fontsize=8)
    paths = []
    for figure, stem in ((convergence, "convergence"), (joint, "contours")):
        path = folder / f"{stem}.png"
        figure.savefig(path, dpi=150)
        paths.append(path)
    return paths


@dataclass(frozen=True, kw_only=True)
class Options(ExperimentOptions):
    """Options of the experiments, as ``sbi-run chempy experiments`` takes them.

    Parameters
    ----------
    stars
        Star particles of ``galaxy``.
    n
        Stars of a mock galaxy.
    births
        Birth times: as published, or draws of the prior.
    """

    stars: str | Path | None = None
    n: int = 1000
    births: Literal["published", "prior"] = "published"


def perform(names: Sequence[str], options: Options) -> Iterator[str]:
    """Run experiments by name; yield the table of each and the folder of its results."""
    run: Run | None = None
    for name in names:
        if name == _SINGLE:
            yield _single(options)
            continue
        run = run or (
            Run(options.run) if options.run else options.trained("chempy", "run", _YIELDS)
        )
        yield _galaxy(name, run, options)


def _galaxy(name: str, run: Run, options: Options) -> str:
    rules = list(dict.fromkeys([run.config.combiner.name, *_RULES]))
    file = Path(options.stars) if options.stars else None
    simulator = run.simulator_of(ChempySimulator, ChempyMarginalSimulator)
    data = stars(name, simulator, n=options.n, seed=options.seed, file=file, births=options.births)
    rows = measure(run, rules, name, data)
    figures(name, rows, options.folder(name))
    lines = [run.combine(data, "simulated-moments").warning, table(name, rows)]
    return options.write(name, "\n".join(filter(None, lines)), rows)


def _single(options: Options) -> str:
    fixed = (*_YIELDS, *_SINGLE_OPTIONS)
    run = options.trained("chempy", "run-single", fixed, _SINGLE_STAGES)
    measured = single_stars.measure(run, n=options.n, seed=options.seed)
    single_stars.figures(measured, options.folder(_SINGLE))
    return options.write(_SINGLE, single_stars.table(measured), single_stars.numbers(measured))


def _learned(run: Run, rule: str) -> bool:
    return (run.directory.combiner(rule) / "config.json").exists()
