"""Infer halos of other libraries with a trained run: coverage of its intervals, and flags.

    sbi-run run casbi --out runs/casbi-standard
    python benchmarks/casbi/cross_library.py runs/casbi-standard --test 500 --out cross.json

Libraries, all of other galaxies than those trained on: other variants of the physics, nominal
physics, regulator outflows (grumpy), 30 % more iron from SNe Ia, and [O/Fe] shifted by 0.18 dex
(another solar scale). Flagged: distance of summaries from simulated ones, or posterior-predictive
deviance, above its threshold, as in reports. A library passes if its 90 % sets hold (85 % or more),
or if its halos are flagged (80 % or more).
"""

import argparse

import numpy as np
import torch
from common import write

from sbi_casbi.predictive import (
    UNLIKE_POSTERIOR,
    deviance_percentile,
    predictive_planes,
    reference_deviances,
)
from sbi_casbi.sets.diagnostics import in_probability_set, randomised_ranks
from sbi_casbi.simulator import CasbiSimulator
from sbi_casbi.support import UNLIKE_TRAINING, reference_summaries, summary_percentile
from sbi_core import Batch, load_run

CASES = {
    "as trained": {},
    "nominal physics": {"physics_spread": 0.0},
    "grumpy": {"physics_spread": 0.0, "library": "grumpy"},
    "y_Ia x 1.3": {"physics_spread": 0.0, "y_ia_factor": 1.3},
    "[O/Fe] + 0.18": {"physics_spread": 0.0},
}
DRAWS, PREDICTIVE = 24, 8


def halos(home, name, options, seed, test, rng):
    """Return observed halos of another library."""
    changed = {"library_seed": seed, "stems": 8000, **options}
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
    rng = np.random.default_rng(a.seed)
    cases = [halos(home, n, o, a.library_seed, a.test, rng) for n, o in CASES.items()]
    batch = Batch.cat([c.with_(split_key=None) for c in cases])
    members = estimator.sample_members(batch, DRAWS, rng)
    inside, error = columns(home, estimator, members, batch, rng)
    x = batch.x.numpy()
    planes = predictive_planes(home, members, x, PREDICTIVE)
    references = reference_deviances(home, estimator, rng, draws=PREDICTIVE)
    deviance = deviance_percentile(x, planes, *references)
    summaries = reference_summaries(home, estimator, rng)
    summary = summary_percentile(estimator.summaries(batch), *summaries)
    deviant, unlike = deviance > UNLIKE_POSTERIOR, summary > UNLIKE_TRAINING
    results = {}
    for k, name in enumerate(CASES):
        rows = slice(k * a.test, (k + 1) * a.test)
        results[name] = {
            "coverage_90": {n: float(v[rows].mean()) for n, v in inside.items()},
            "mean_absolute_error": {n: float(v[rows].mean()) for n, v in error.items()},
            "unlike_training_halos": float(unlike[rows].mean()),
            "unlike_its_posterior": float(deviant[rows].mean()),
            "flagged": float((unlike | deviant)[rows].mean()),
        }
        listed = ", ".join(
            f"{n} {100 * v[rows].mean():.0f} % ({error[n][rows].mean():.3f})"
            for n, v in inside.items()
        )
        print(f"{name}: {listed}; flagged {100 * results[name]['flagged']:.1f} %", flush=True)
    write(a.out, results)
    if a.out:
        np.savez(a.out.replace(".json", ".npz"), deviance=deviance, summary=summary)


def columns(home, estimator, members, batch, rng):
    """Return whether the 90 % sets hold, and errors of medians, of every column and halo."""
    truth, drawn = batch.theta.double().numpy(), members.columns(home.config.n_min)
    held = np.abs(randomised_ranks(drawn, truth, rng) - 0.5) < 0.45
    inside = dict(zip(home.columns, held.T, strict=True))
    place = truth[:, 0].astype(int) - estimator.counts[0]
    inside["n_sub"] = in_probability_set(estimator.pmf(batch), place, 0.9, rng)
    error = np.abs(np.median(drawn, 0) - truth)
    return inside, dict(zip(home.columns, error.T, strict=True))


if __name__ == "__main__":
    main()
