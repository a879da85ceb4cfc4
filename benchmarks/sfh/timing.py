"""Time per spectrum of a trained run, of NNLS, of emcee and of pPXF, on the same mocks.

    pip install -c constraints.txt emcee ppxf
    python benchmarks/sfh/timing.py RUN [--mocks 10] [--emcee 1 --steps 4000] [--json FILE]

RUN is a directory of ``sbi-run --plugin sfh`` in mode ``mock``; emcee needs
``simulator.family=gp``. Times are CPU seconds of this
process; ratios are to the amortised posterior of a single spectrum (encode and 1000 draws). emcee
runs twice per spectrum, from different starts: the distance of both chains, in standard
deviations, says how far the reference itself is to be trusted.
"""

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np
from common import save, show

import sbi_core
from sbi_core import stream
from sbi_sfh.baselines import emcee_posterior, invert, ppxf_fit


def clock(function, repeat: int = 1):
    """Return the result and CPU seconds per call."""
    start = time.process_time()
    for _ in range(repeat):
        result = function()
    return result, (time.process_time() - start) / repeat


def compare(k, mocks, samples, chains, seconds):
    """Print and return the posterior of mock k beside both chains together."""
    theta = np.concatenate([c.theta for c in chains])
    ours, sd = samples.values[:, k], theta.std(0)
    shift, width = (ours.mean(0) - theta.mean(0)) / sd, ours.std(0) / sd
    apart = (chains[0].theta.mean(0) - chains[1].theta.mean(0)) / sd
    time_scale = max(c.autocorrelation for c in chains)
    show(
        f"emcee, mock {k}: {seconds:.0f} CPU s per chain of {chains[0].steps} steps, "
        f"autocorrelation {time_scale:.0f} steps",
        ["", "truth", "emcee", "sd", "chains apart/sd", "NPE", "sd", "shift/sd", "width ratio"],
        [[n, float(mocks.truth[n][k]), theta[:, j].mean(), sd[j], apart[j], ours[:, j].mean(),
          ours[:, j].std(), shift[j], width[j]] for j, n in enumerate(samples.names)],
    )  # fmt: skip
    columns = {"shift": shift, "width": width, "chains_apart": apart}
    return {"mock": k, "autocorrelation": time_scale} | {
        name: dict(zip(samples.names, v.tolist(), strict=True)) for name, v in columns.items()
    }


def summarise(agreement):
    """Print medians over mocks, per parameter and over all."""
    names = list(agreement[0]["shift"])
    rows = []
    for n in [*names, "all"]:
        some = names if n == "all" else [n]
        shift, width, apart = (
            np.array([a[key][m] for a in agreement for m in some])
            for key in ("shift", "width", "chains_apart")
        )
        rows.append([n, np.median(abs(shift)), shift.mean(), np.median(width),
                     (abs(shift) <= 0.3).mean(), ((width >= 0.8) & (width <= 1.25)).mean(),
                     np.median(abs(apart))])  # fmt: skip
    head = ["", "median |shift|", "mean shift", "median width", "|shift|<.3", "width .8-1.25",
            "chains apart"]  # fmt: skip
    show(f"NPE - emcee, {len(agreement)} mocks", head, rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--mocks", type=int, default=10)
    parser.add_argument("--emcee", type=int, default=1, help="mocks sampled with emcee")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--burn", type=int, default=1500)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    run = sbi_core.load_run(args.run)
    simulator = run.simulator
    mocks = simulator.example_observations(stream(99, "timing"), args.mocks)
    x = mocks.batch.x.double().numpy()
    err = mocks.batch.x_err.double().numpy() if mocks.batch.x_err is not None else 1e-3 * x
    posterior = run.posterior
    posterior.sample(mocks[:1], 100)  # first call sets things up
    _, single = clock(lambda: posterior.sample(mocks[:1], 1000), 10)
    samples, batched = clock(lambda: posterior.sample(mocks, 1000))
    batched /= len(mocks)
    rows = [["NPE, one spectrum", single, 1.0], ["NPE, batched", batched, batched / single]]
    for name, weight in (("NNLS", 0.0), ("NNLS, regularised", 1.0)):
        found, seconds = clock(lambda w=weight: [invert(simulator, x[k], err[k], regularisation=w)
                                                 for k in range(min(3, len(x)))])  # fmt: skip
        rows.append([name, seconds / len(found), seconds / len(found) / single])
    if importlib.util.find_spec("ppxf"):
        for regul in (0.0, 20.0):
            _, seconds = clock(lambda r=regul: ppxf_fit(simulator, x[0], err[0], r))
            rows.append([f"pPXF, regul {regul:g}", seconds, seconds / single])
    else:
        print("pPXF is not installed: left out")
    agreement = []
    total = 0.0
    for k in range(min(args.emcee, len(mocks))):
        chains, seconds = clock(
            lambda k=k: [
                emcee_posterior(
                    simulator, x[k], stream(99, "emcee", k, c), steps=args.steps, burn=args.burn
                )
                for c in range(2)
            ]
        )
        total += seconds / 2
        agreement.append(compare(k, mocks, samples, chains, seconds / 2))
    if agreement:
        summarise(agreement)
    if agreement:
        rows.append([f"emcee, {args.steps} steps", total / len(agreement),
                     total / len(agreement) / single])  # fmt: skip
    show("CPU seconds per spectrum", ["method", "seconds", "ratio"], rows)
    save(args.json, {"seconds": {r[0]: r[1] for r in rows}, "agreement": agreement})


if __name__ == "__main__":
    main()
