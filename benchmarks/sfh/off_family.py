"""Coverage for star formation histories of eight families, some unlike those of training.

    python benchmarks/sfh/off_family.py [--run RUN ...] [--snr 30 100] [--set ...] [--json FILE]

Trains a run per signal-to-noise ratio (or takes given ones), simulates spectra of every family and
of the prior of the run, and prints the share of truths in the central 68 % of the posterior, and of
spectra with a flag.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import save, show

import sbi_core
from sbi_core import Batch, Observations, stream
from sbi_sfh.constants import DECILES
from sbi_sfh.percentiles import crossing_times
from sbi_sfh.simulator import SfhSimulator

Rates = Callable[[np.random.Generator, int, np.ndarray, float], np.ndarray]
LEVEL = 0.68
TRAINING = ("simulate.n=60000", "train.epochs=20", "estimator.encoder_epochs=6")  # beyond quick


def uniform(rng, n, low, high):
    """Column (n, 1) of uniform numbers."""
    return rng.uniform(low, high, (n, 1))


def log_uniform(rng, n, low, high):
    """Column (n, 1) of log-uniform numbers."""
    return np.exp(uniform(rng, n, np.log(low), np.log(high)))


def delayed(rng, n, t, end):
    """Delayed tau, ranges of the published grid."""
    u = np.maximum(t - uniform(rng, n, 0, 5), 0) / 10 ** uniform(rng, n, -0.5, 0.7)
    return u * np.exp(-u)


def declining(rng, n, t, end):
    """Exponential from a start before 5 Gyr."""
    after = t - uniform(rng, n, 0, 5)
    return np.where(after > 0, np.exp(-after.clip(0) / log_uniform(rng, n, 0.3, 8)), 0)


def constant(rng, n, t, end):
    """Constant from a start before 8 Gyr until today."""
    return (t > uniform(rng, n, 0, 8)).astype(float)


def rising(rng, n, t, end):
    """Exponentially rising until today."""
    return np.exp((t - end) / uniform(rng, n, 1.5, 8)) * (t > uniform(rng, n, 0, 3))


def burst_on_base(rng, n, t, end):
    """Declining base with one Gaussian burst of 5-50 % of the mass."""
    base = declining(rng, n, t, end)
    burst = gaussian(t, uniform(rng, n, 5, end - 0.3), log_uniform(rng, n, 0.05, 0.4))
    share = uniform(rng, n, 0.05, 0.5)
    return (1 - share) * unit(base) + share * burst


def two_bursts(rng, n, t, end):
    """Two Gaussian bursts without a base; bursts of training are rectangular."""
    early = gaussian(t, uniform(rng, n, 1, 6), uniform(rng, n, 0.1, 0.5))
    late = gaussian(t, uniform(rng, n, 7, end - 0.5), uniform(rng, n, 0.1, 0.5))
    share = uniform(rng, n, 0.2, 0.8)
    return share * early + (1 - share) * late


def truncated(rng, n, t, end):
    """Constant, then a linear ramp to zero within 0.5 Gyr; exponential in training."""
    stop, ramp = uniform(rng, n, 4, end - 0.3), uniform(rng, n, 0.01, 0.5)
    return (t > uniform(rng, n, 0, 3)) * np.clip((stop + ramp - t) / ramp, 0, 1)


def lognormal(rng, n, t, end):
    """Lognormal in cosmic time (Gladders et al. 2013): in no family of training."""
    t = np.maximum(t, 1e-3)
    peak, width = np.log(log_uniform(rng, n, 1.5, 12)), uniform(rng, n, 0.2, 1.0)
    return np.exp(-0.5 * ((np.log(t) - peak) / width) ** 2) / t


FAMILIES: dict[str, Rates] = {
    "delayed tau": delayed, "declining": declining, "constant": constant, "rising": rising,
    "burst on base": burst_on_base, "two bursts": two_bursts, "truncated": truncated,
    "lognormal": lognormal,
}  # fmt: skip


def unit(rate):
    """Rates (n, m) of one unit of mass."""
    return rate / rate.sum(1, keepdims=True)


def gaussian(t, centre, width):
    """Gaussian bursts of one unit of mass, (n, m)."""
    return unit(np.exp(-0.5 * ((t - centre) / width) ** 2))


def galaxies(simulator: SfhSimulator, family: str, n: int, rng) -> Observations:
    """Mock galaxies of a family, or of the prior, with their truth."""
    if family == "prior":
        return simulator.example_observations(rng, n)
    time = simulator.synthesis.time
    rate = FAMILIES[family](rng, n, time[None], time[-1])
    rate[:, 0] = 0
    growth = np.cumsum(rate, axis=1) / rate.sum(1, keepdims=True)
    mh = rng.uniform(simulator.library.mh[0], simulator.library.mh[-1], n)
    c, _, _ = simulator.synthesis.coefficients(growth, mh)
    theta = np.concatenate([crossing_times(growth, time, DECILES), mh[:, None]], axis=1)
    batch = Batch.of_arrays(theta=theta.astype(np.float32), x=c.astype(np.float32))
    return Observations.from_batch(
        simulator.observe(batch, rng), id=[f"{k:04d}" for k in range(n)],
        context_names=simulator.context_names, truth_names=simulator.parameters.names,
    )  # fmt: skip


def coverage(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Share (d,) of truths (n, d) in the central 68 % of draws (S, n, d)."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return ((truth >= low) & (truth <= high)).mean(0)


def table(run, n: int, draws: int, seed: int, *, flags: bool) -> dict[str, dict]:
    """Coverage of every parameter, share of flagged spectra and bias by family."""
    found = {}
    for family in ("prior", *FAMILIES):
        mocks = galaxies(run.simulator, family, n, stream(seed, "off-family", family))
        truth = np.stack([mocks.truth[name] for name in mocks.truth_names], axis=1)
        if flags:
            samples = run.infer(mocks, draws)
            values = samples.values
            flagged = float(np.mean([bool(f) for f in samples.flags]))
        else:
            values, flagged = run.posterior.sample(mocks, draws).values, float("nan")
        found[family] = {
            "coverage": dict(zip(mocks.truth_names, coverage(values, truth).tolist(), strict=True)),
            "flagged": flagged,
            "mae": float(np.abs(np.median(values, 0) - truth)[:, :9].mean()),
            "width": float(values.std(0)[:, :9].mean()),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", nargs="*", type=Path, default=[], help="trained runs, mode mock")
    parser.add_argument("--snr", nargs="+", type=float, default=[30, 100])
    parser.add_argument("--set", nargs="*", default=[], help="options of new runs")
    parser.add_argument("--out", type=Path, default=Path("runs/sfh-off-family"))
    parser.add_argument("--galaxies", type=int, default=400)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-flags", action="store_true", help="coverage only, faster")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    runs = [sbi_core.load_run(path) for path in args.run] or [
        sbi_core.run(
            "sfh", preset="quick", out=args.out / f"snr-{snr:g}", seed=args.seed,
            overrides=[*TRAINING, f"simulator.snr={snr}", *args.set],
        )
        for snr in args.snr
    ]  # fmt: skip
    numbers = {}
    for run in runs:
        snr = run.simulator.config.snr
        found = table(run, args.galaxies, args.draws, args.seed, flags=not args.no_flags)
        numbers[f"{snr:g}"] = found
        names = list(found["prior"]["coverage"])
        rows = [
            [family, *(f"{v:.2f}" for v in f["coverage"].values()), f"{f['flagged']:.2f}",
             f"{f['mae']:.2f}", f"{f['width']:.2f}"]
            for family, f in found.items()
        ]  # fmt: skip
        show(f"S/N {snr:g}: coverage of the central 68 %",
             ["family", *names, "flagged", "MAE", "width"], rows)  # fmt: skip
    save(args.json, numbers)


if __name__ == "__main__":
    main()
