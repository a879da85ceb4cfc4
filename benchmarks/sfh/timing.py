"""Time per spectrum of a trained run, of NNLS, of emcee and of pPXF, on the same mocks.

    python benchmarks/sfh/timing.py RUN [--mocks 10] [--emcee 1 --steps 4000] [--json FILE]

RUN is a directory of ``sbi-run --plugin sfh`` in mode ``mock``. Times are CPU seconds of this
process; ratios are to the amortised posterior of a single spectrum (encode and 1000 draws).
"""

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np
from common import save, show

import sbi_core
from sbi_core import stream
from sbi_sfh.baselines import emcee_posterior, invert


def clock(function, repeat: int = 1):
    """Return the result and CPU seconds per call."""
    start = time.process_time()
    for _ in range(repeat):
        result = function()
    return result, (time.process_time() - start) / repeat


def ppxf_fit(simulator, flux, err, regul: float):
    """One pPXF fit with all templates; no gas, degree 0."""
    from ppxf import ppxf_util
    from ppxf.ppxf import ppxf

    library = simulator.library
    ends = simulator.wave[[0, -1]]
    logged, ln_lam, velscale = ppxf_util.log_rebin(ends, flux)
    noise = ppxf_util.log_rebin(ends, err, velscale=velscale)[0]
    cube = library.spectra()
    templates = np.array([ppxf_util.log_rebin(ends, s, velscale=velscale)[0]
                          for s in cube.reshape(-1, cube.shape[-1])])  # fmt: skip
    templates = (templates / np.median(templates)).T
    shape = (templates.shape[0], len(library.age_gyr), len(library.mh))
    grid = templates.reshape(shape[0], len(library.mh), len(library.age_gyr)).transpose(0, 2, 1)
    return ppxf(grid, logged, noise, float(velscale), [0.0, 50.0], moments=2, degree=-1, mdegree=0,
                lam=np.exp(ln_lam), regul=regul, reg_dim=shape[1:], quiet=True)  # fmt: skip


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
        chain, seconds = clock(
            lambda k=k: emcee_posterior(
                simulator, x[k], stream(99, "emcee", k), steps=args.steps, burn=args.burn
            )
        )
        total += seconds
        ours = samples.values[:, k]
        shift = (ours.mean(0) - chain.theta.mean(0)) / chain.theta.std(0)
        width = ours.std(0) / chain.theta.std(0)
        agreement.append(
            {"mock": k, "autocorrelation": chain.autocorrelation, "converged": chain.converged,
             "shift": dict(zip(samples.names, shift.tolist(), strict=True)),
             "width": dict(zip(samples.names, width.tolist(), strict=True))}
        )  # fmt: skip
        show(f"emcee, mock {k}: {seconds:.0f} CPU s, autocorrelation {chain.autocorrelation:.0f} "
             f"of {chain.steps} steps, converged: {chain.converged}",
             ["", "truth", "emcee", "sd", "NPE", "sd", "shift/sd", "width ratio"],
             [[n, float(mocks.truth[n][k]), chain.theta[:, j].mean(), chain.theta[:, j].std(),
               ours[:, j].mean(), ours[:, j].std(), shift[j], width[j]]
              for j, n in enumerate(samples.names)])  # fmt: skip
    if agreement:
        rows.append([f"emcee, {args.steps} steps", total / len(agreement),
                     total / len(agreement) / single])  # fmt: skip
    show("CPU seconds per spectrum", ["method", "seconds", "ratio"], rows)
    save(args.json, {"seconds": {r[0]: r[1] for r in rows}, "agreement": agreement})


if __name__ == "__main__":
    main()
