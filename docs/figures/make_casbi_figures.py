"""Make the figures of docs/casbi.md from a run of the plugin.

    sbi-run --plugin casbi --out runs/casbi-standard
    python docs/figures/make_casbi_figures.py runs/casbi-standard

One mock halo of galaxies that were not used for training. ``casbi-plane.png``: its plane and the
posterior prediction. ``casbi-number.png``: probabilities of N. ``casbi-map.png``: expected members
per cell of mass and infall time, and the true ones.
"""

import argparse
from pathlib import Path

import numpy as np

from sbi_casbi import figures, sample_members
from sbi_casbi.predictive import predictive_planes
from sbi_casbi.scores import prior_pmf
from sbi_core import Observations, load_run

MASSES, TIMES = np.linspace(4.5, 10.0, 12), np.linspace(0.0, 14.0, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--seed", type=int, default=6, help="seed of the mock halo")
    parser.add_argument("--out", default=Path(__file__).parent, type=Path)
    options = parser.parse_args()
    run = load_run(options.run)
    simulator, estimator = run.simulator, run.posterior.estimator
    rng = np.random.default_rng(options.seed)
    drawn = simulator.observe(simulator.draw_from(1, rng, "test"), rng)
    halos = Observations.from_batch(drawn, id=["halo-1"])
    members = sample_members(run.posterior, halos, 500)
    batch = halos.batch
    truth = batch.theta_set[0][batch.theta_mask[0]].double().numpy()
    planes = predictive_planes(simulator, members, batch.x.numpy(), 20)
    counts = estimator.counts
    made = {
        "plane": figures.planes(simulator.library, batch.x[0].numpy(), planes[:, 0]),
        "number": figures.number_posterior(
            counts, estimator.pmf(batch)[0], prior_pmf(simulator, counts), len(truth)
        ),
        "map": figures.mass_time_map(members, MASSES, TIMES, truth),
    }
    for name, figure in made.items():
        figure.savefig(options.out / f"casbi-{name}.png", dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()
