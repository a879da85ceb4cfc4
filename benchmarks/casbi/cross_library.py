"""Infer halos of other libraries with a trained run: coverage of its intervals, and flags.

    sbi-run run casbi --out runs/casbi-standard
    python benchmarks/casbi/cross_library.py runs/casbi-standard --test 500 --out cross.json

Libraries: the same model with other galaxies (as a control), regulator outflows (grumpy),
30 % more iron from SNe Ia, and [O/Fe] shifted by 0.18 dex (another solar scale). Flagged: distance
of summaries from simulated ones above the 96th percentile, or posterior-predictive deviance above
the 99th, as in reports. A library passes if its 90 % sets hold (85 % or more), or if its halos are
flagged (80 % or more).
"""

import argparse

import numpy as np
import torch
from common import write

from sbi_casbi.predictive import deviance_percentile, predictive_planes
from sbi_casbi.sets.diagnostics import in_probability_set, randomised_ranks
from sbi_casbi.simulator import CasbiSimulator
from sbi_casbi.support import UNLIKE_TRAINING, summary_percentile
from sbi_core import load_run

CASES = {
    "other galaxies": {},
    "grumpy": {"library": "grumpy"},
    "y_Ia x 1.3": {"y_ia_factor": 1.3},
    "[O/Fe] + 0.18": {},
}
DRAWS, PREDICTIVE = 40, 8


def halos(home, name, options, seed, test, rng):
    """Return observed halos of another library."""
    fixed = {"y_ia_spread": 0.0, "fe_h_spread": 0.0}
    changed = {"library_seed": seed, "stems": 12_000, **fixed, **options}
    away = CasbiSimulator(home.config.model_copy(update=changed))
    batch = away.observe(away.draw_from(test, rng, "test"), rng)
    if name.startswith("[O/Fe]"):
        pixels = round(0.18 / away.library.plane.pixel[1])
        plane = batch.x[:, :4096].reshape(-1, 64, 64)
        moved = torch.zeros_like(plane)
        moved[:, :, pixels:] = plane[:, :, :-pixels]
        batch = batch.with_(x=torch.cat([moved.flatten(1), batch.x[:, 4096:]], 1))
    return batch


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--test", type=int, default=300)
    parser.add_argument("--library-seed", type=int, default=23, help="of the libraries inferred")
    parser.add_argument("--seed", type=int, default=3, help="of halos and draws")
    parser.add_argument("--out")
    a = parser.parse_args()
    torch.set_num_threads(1)
    run = load_run(a.run)
    home, estimator = run.simulator, run.posterior.estimator
    results = {}
    for name, options in CASES.items():
        rng = np.random.default_rng(a.seed)
        batch = halos(home, name, options, a.library_seed, a.test, rng)
        members = estimator.sample_members(batch, DRAWS, rng)
        truth = batch.theta.double().numpy()
        ranks = randomised_ranks(members.columns(home.config.n_min), truth, rng)
        inside = dict(zip(home.columns, (np.abs(ranks - 0.5) < 0.45).mean(0), strict=True))
        place = truth[:, 0].astype(int) - estimator.counts[0]
        inside["n_sub"] = in_probability_set(estimator.pmf(batch), place, 0.9, rng).mean()
        x = batch.x.numpy()
        planes = predictive_planes(home, members, x, PREDICTIVE)
        deviant = deviance_percentile(home, estimator, x, planes, rng, references=400) > 99
        unlike = summary_percentile(home, estimator, batch, rng) > UNLIKE_TRAINING
        results[name] = {
            "coverage_90": {k: float(v) for k, v in inside.items()},
            "unlike_training_halos": float(unlike.mean()),
            "unlike_its_posterior": float(deviant.mean()),
            "flagged": float((unlike | deviant).mean()),
        }
        listed = ", ".join(f"{k} {100 * v:.0f} %" for k, v in inside.items())
        print(f"{name}: {listed}; flagged {100 * results[name]['flagged']:.0f} %", flush=True)
    write(a.out, results)


if __name__ == "__main__":
    main()
