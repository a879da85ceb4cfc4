"""Arrays to a calibrated posterior: both front doors against the package sbi, on the same arrays.

    OMP_NUM_THREADS=1 python benchmarks/inference/front_door.py --out results/front_door.json

10 000 simulations of five uniform parameters and 30 numbers with noise, as most people have them:
no simulator can be called and no fresh noise drawn. Peers:

* ``sbi_core.fit(theta, x, prior)`` and ``calibrate()``;
* ``sbi-run --simulations sims.npz --prior prior.toml``, which also infers and writes a report;
* ``sbi``: ``NPE(prior).append_simulations(theta, x).train()``, its defaults, not calibrated.

Judged by the mean log density of the true parameters of 2000 further simulations, the fraction of
them inside the central 68 % intervals, and the C2ST (0.5 is perfect; the perceptron of sbi) between
draws for five of them and draws of the exact posterior, which is known here: the likelihood is
Gaussian, and draws of a Student t about its maximum are weighted by it. Wall and processor time
include everything that the lines do. A single run per seed; on a busy machine compare processor
times.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import one_thread, report
from sbi.utils.metrics import c2st
from scipy import optimize, stats

import sbi_core

D, K, TEST, DRAWS = 5, 30, 2000, 500
NOISE, WEIGHTS = 0.3, np.random.default_rng(2026).standard_normal((D, K))
COMPARED, COMPARED_DRAWS = 5, 2000  # objects and draws of C2ST
LINES = {  # that a user writes, from arrays to the result in the table
    "sbi_core.fit": 'posterior = sbi_core.fit(theta, x, prior={"t0": stats.uniform(-1, 2), ...})\n'
    "posterior.calibrate()\nsamples = posterior.sample(x_observed)",
    "sbi-run": "sbi-run --simulations sims.npz --prior prior.toml",
    "sbi": "inference = NPE(prior=BoxUniform(low, high))\n"
    "inference.append_simulations(theta, x).train()\n"
    "posterior = inference.build_posterior()\nsamples = posterior.sample((1000,), x=x_observed)",
}


def simulations(n, seed):
    """Return theta (n, 5) and x (n, 30)."""
    rng = np.random.default_rng(seed)
    theta = rng.uniform(-1, 1, (n, D))
    return theta, np.tanh(theta @ WEIGHTS) + NOISE * rng.standard_normal((n, K))


def exact_draws(x_o, n, rng, proposals=400_000):
    """Return draws (n, 5) of the exact posterior at x_o (30,), by importance resampling."""

    def residuals(theta):
        return (np.tanh(theta @ WEIGHTS) - x_o) / NOISE

    starts = rng.uniform(-0.8, 0.8, (20, D))
    found = [optimize.least_squares(residuals, s, bounds=(-1, 1)) for s in starts]
    best = min(found, key=lambda f: f.cost)
    shape = 1.5 * np.linalg.inv(best.jac.T @ best.jac)
    proposal = stats.multivariate_t(best.x, shape, df=4, seed=rng)
    theta = proposal.rvs(proposals)
    log_w = -0.5 * (residuals(theta) ** 2).sum(1) - proposal.logpdf(theta)
    log_w[(np.abs(theta) > 1).any(1)] = -np.inf
    weight = np.exp(log_w - log_w.max())
    if weight.sum() ** 2 / (weight**2).sum() < 10 * n:
        raise RuntimeError("too few effective draws of the exact posterior")
    return theta[rng.choice(proposals, n, p=weight / weight.sum())]


def compared(draws, x):
    """Return the mean C2ST of draws (n, objects, 5) for the first objects to exact ones."""
    found = []
    for k in range(COMPARED):
        exact = exact_draws(x[k], len(draws), np.random.default_rng(k))
        pair = (torch.as_tensor(a, dtype=torch.float32) for a in (exact, draws[:, k]))
        found.append(float(c2st(*pair, classifier="mlp")))
    return {"c2st": float(np.mean(found)), "c2st_each": found}


def judged(log_q, draws, theta):
    """Return mean and standard error of log q, and the coverage of 68 % intervals."""
    low, high = np.quantile(draws, [0.16, 0.84], axis=0)
    return {
        "log_q": float(np.mean(log_q)),
        "error": float(np.std(log_q) / np.sqrt(len(log_q))),
        "coverage_68": float(((theta > low) & (theta < high)).mean()),
    }


def ours(posterior, theta, x):
    draws = posterior.sample(x[:500], DRAWS).values
    more = posterior.sample(x[:COMPARED], COMPARED_DRAWS).values
    return {**judged(posterior.log_prob(theta, x), draws, theta[:500]), **compared(more, x)}


def by_fit(theta, x, test, seed, preset):
    prior = {f"t{k}": stats.uniform(-1, 2) for k in range(D)}
    posterior = sbi_core.fit(theta, x, prior, seed=seed, preset=preset)
    calibration = posterior.calibrate()
    print(calibration)
    return lambda: {"verdict": calibration.verdict, **ours(posterior, *test)}


def by_command(theta, x, test, seed, preset):
    folder = Path(tempfile.mkdtemp())
    np.savez(folder / "sims.npz", theta=theta, x=x)
    lines = (f"t{k} = {{ family = 'uniform', low = -1, high = 1 }}\n" for k in range(D))
    (folder / "prior.toml").write_text("".join(lines))
    words = ["--simulations", "sims.npz", "--prior", "prior.toml", "--preset", preset]
    call = [
        sys.executable,
        "-m",
        "sbi_core.cli",
        *words,
        "--seed",
        str(seed),
        "--out",
        "run",
        "--quiet",
    ]
    subprocess.run(call, cwd=folder, check=False)
    run = sbi_core.load_run(folder / "run")
    verdict = run.report["calibration"]["verdict"]
    return lambda: {"verdict": verdict, **ours(run.posterior, *test)}


def by_sbi(theta, x, test, seed, preset):
    from sbi.inference import NPE
    from sbi.utils import BoxUniform

    torch.manual_seed(seed)
    inference = NPE(BoxUniform(-torch.ones(D), torch.ones(D)), show_progress_bars=False)
    rows = (torch.as_tensor(a, dtype=torch.float32) for a in (theta, x))
    q = inference.append_simulations(*rows).train()

    def judge():
        at, seen = (torch.as_tensor(a, dtype=torch.float32) for a in test)
        with torch.no_grad():
            draws = q.sample((DRAWS,), seen)
            inside = (draws.abs() <= 1).all(-1).double().mean(0).clamp(min=1 / DRAWS)
            # as posterior.log_prob: the mass outside the prior belongs to what is inside
            log_q = q.log_prob(at[None], seen)[0].double() - inside.log()
        found = judged(log_q.numpy(), draws[:, :500].numpy(), test[0][:500])
        posterior = inference.build_posterior()
        kept = [posterior.sample((COMPARED_DRAWS,), x=o, show_progress_bars=False)
                for o in seen[:COMPARED]]  # fmt: skip
        found |= compared(torch.stack(kept, 1).double().numpy(), test[1])
        return {**found, "verdict": "not tested", "mass_inside_prior": float(inside.mean())}

    return judge


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/front_door.json"))
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1], help="one run for each")
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--ways", nargs="+", default=list(LINES), choices=list(LINES))
    args = parser.parse_args()
    one_thread()
    rows = []
    ways = (("sbi_core.fit", by_fit), ("sbi-run", by_command), ("sbi", by_sbi))
    for seed in args.seeds:
        theta, x = simulations(args.n, seed)
        test = simulations(TEST, 998 + seed)
        for name, way in ways:
            if name not in args.ways:
                continue
            start, cpu = time.perf_counter(), sum(time_of())
            judge = way(theta, x, test, seed, args.preset)
            took = time.perf_counter() - start, sum(time_of()) - cpu
            found = judge()
            lines = len(LINES[name].splitlines())
            rows.append(
                {"way": name, "seed": seed, "n": args.n, "seconds": took[0],
                 "cpu_seconds": took[1], "lines": lines, **found}
            )  # fmt: skip
            print(rows[-1], flush=True)
    print("\n| | log q | C2ST | 68 % intervals | calibration | wall, s | processor, s | lines |")
    print("|---|---|---|---|---|---|---|---|")
    for r in rows:
        print(
            f"| `{r['way']}` | {r['log_q']:.2f} ± {r['error']:.2f} | {r['c2st']:.3f} | "
            f"{r['coverage_68']:.3f} | "
            f"{r['verdict']} | {r['seconds']:.0f} | {r['cpu_seconds']:.0f} | {r['lines']} |"
        )
    report(args.out, {"rows": rows, "code": LINES, "preset": args.preset})


def time_of():
    """Return the processor time of this process and of its children so far."""
    import resource

    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        used = resource.getrusage(who)
        yield used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
