"""Accuracy and calibration of N and of the members, per population.

    python benchmarks/casbi/targets.py --population uniform --counts absolute --out targets-u.json
    python benchmarks/casbi/targets.py --population cosmological --counts shape --out targets-c.json

2e4 stars, errors of 0.10 and 0.05 dex, test halos of held-out stems. Baselines are given for
every error. Calibration is also measured on new halos of the training galaxies: deviations that
only held-out galaxies show are the scatter between finite samples of galaxies.
Times are CPU seconds of one thread.
"""

import argparse

import numpy as np
from common import baseline_scores, blind_errors, config_of, train_posterior, write
from scipy import stats

from sbi_casbi.scores import prior_pmf, score_counts, score_members
from sbi_casbi.sets import SetConfig
from sbi_casbi.sets.diagnostics import randomised_ranks
from sbi_core import diagnostics

STRATA = ((2, 10), (11, 40), (41, 100))  # of the true N
CELLS = ((4.7, 6.0), (6.0, 7.0), (7.0, 8.0), (8.0, 9.78))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--population", default="uniform")
    parser.add_argument("--counts", default="absolute")
    parser.add_argument("--halos", type=int, default=120_000)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--stems", type=int, default=80_000, help="galaxies of the library")
    parser.add_argument("--cuts", type=int, default=6, help="infall times per galaxy")
    parser.add_argument("--design", default="joint", choices=("joint", "two_step"))
    parser.add_argument("--save")
    parser.add_argument("--out")
    a = parser.parse_args()
    config = config_of(a.population, a.counts, stems=a.stems, cuts=a.cuts)
    simulator, estimator, batch, facts = train_posterior(
        config, a.halos, a.epochs, sets=SetConfig(design=a.design)
    )
    if a.save:
        estimator.save(a.save)
    results = {
        "population": a.population,
        "counts": a.counts,
        "stems": a.stems,
        "cuts": a.cuts,
        "design": a.design,
        "halos": a.halos,
        "epochs": a.epochs,
        **facts,
        **examine(simulator, estimator, batch, a.test, a.draws),
    }
    show(results)
    write(a.out, results)


def examine(simulator, estimator, batch, n, draws):
    """Return scores and calibration on n halos of held-out galaxies."""
    rng = np.random.default_rng(5)
    test = simulator.observe(simulator.draw_from(n, rng, "test"), rng)
    count = test.theta_mask.sum(1).numpy()
    pmf = estimator.pmf(test)
    prior = prior_pmf(simulator, estimator.counts)
    scores = score_counts(pmf, count, estimator.counts, prior, rng)
    print({k: round(v, 4) for k, v in scores.items()}, flush=True)
    strata = {}
    for low, high in STRATA:
        some = (count >= low) & (count <= high)
        strata[f"{low}-{high}"] = score_counts(pmf[some], count[some], estimator.counts, prior, rng)
    members = estimator.sample_members(test, draws, rng)
    truth = test.theta_set.double().numpy()
    sets = score_members(members, truth, count, rng)
    sets["blind"] = blind_errors(test, batch, members.names)
    columns = column_calibration(simulator, members, test, rng)
    familiar = same_galaxies(simulator, estimator, prior, n, draws, rng)
    baselines = baseline_scores(simulator, batch, test, rng)
    cells = {f"{lo}-{hi}": cell_coverage(members, truth, lo, hi, rng) for lo, hi in CELLS}
    top = np.concatenate([members.member(k)[0] for k in (1, 2)], axis=-1).astype(float)
    joint = diagnostics.tarp(top, np.concatenate([truth[:, 0], truth[:, 1]], axis=-1), rng)
    return {
        "n_sub": scores,
        "strata": strata,
        "members": sets,
        "training_galaxies": familiar,
        "baselines": baselines,
        "columns": columns,
        "mass_bins_coverage_90": cells,
        "tarp_top2": joint.max_deviation,
    }


def column_calibration(simulator, members, test, rng):
    """Return uniformity of ranks and 90 % coverage of every summary column."""
    columns = members.columns(simulator.config.n_min)
    ranks = randomised_ranks(columns, test.theta.double().numpy(), rng)
    return {
        name: {
            "ks_p": float(stats.kstest(ranks[:, j], "uniform").pvalue),
            "coverage_90": float((np.abs(ranks[:, j] - 0.5) < 0.45).mean()),
        }
        for j, name in enumerate(simulator.columns)
    }


def cell_coverage(members, truth, low, high, rng):
    """Return the 90 % coverage of the number of members in a bin of log10 M_star."""
    inside = (members.log_mstar >= low) & (members.log_mstar < high) & members.mask
    true = ((truth[..., 0] >= low) & (truth[..., 0] < high) & (truth[..., 0] > 0)).sum(1)
    ranks = randomised_ranks(inside.sum(-1), true, rng)
    return float((np.abs(ranks - 0.5) < 0.45).mean())


def same_galaxies(simulator, estimator, prior, n, draws, rng):
    """Return scores of new halos of galaxies that were trained on."""
    halos = simulator.observe(simulator.draw_from(n, rng, "train"), rng)
    count = halos.theta_mask.sum(1).numpy()
    scores = score_counts(estimator.pmf(halos), count, estimator.counts, prior, rng)
    members = estimator.sample_members(halos, draws, rng)
    truth = halos.theta_set.double().numpy()
    return {"n_sub": scores, "pp_top": score_members(members, truth, count, rng)["pp_top"]}


def show(results):
    """Print the results."""
    n = results["n_sub"]
    print(f"\n{results['population']} + {results['counts']}: {results['halos']} halos")
    print(f"CPU: draw {results['draw_cpu_s']:.0f} s, train {results['train_cpu_s']:.0f} s")
    print(
        f"N: gain {n['nll_gain']:.2f} nat, MAE {n['mae']:.1f} (blind {n['mae_blind']:.1f}), "
        f"RPS skill {n['rps_skill']:.2f}, PIT p {n['pit_p']:.2g}, 90 % set {n['coverage_90']:.3f}"
    )
    for key, s in results["strata"].items():
        print(
            f"  N {key}: gain {s['nll_gain']:.2f}, MAE {s['mae']:.1f}, "
            f"90 % set {s['coverage_90']:.3f}"
        )
    for rule, b in results["baselines"].items():
        mae = {k: round(v["log_mstar"], 3) for k, v in b["members"].items()}
        print(
            f"  {rule}: N gain {b['n_sub']['nll_gain']:.2f}, MAE {b['n_sub']['mae']:.1f}, "
            f"log M_star {mae}"
        )
    for key, b in results["members"]["blind"].items():
        mine = results["members"][key]
        words = ", ".join(
            f"{name} {mine[name]['mae']:.3f} (rank {b[name]['rank']:.3f}, "
            f"rank+N {b[name]['rank_and_n']:.3f})"
            for name in b
        )
        print(f"member {key}: {words}")
    worst = max(results["members"]["pp_top"].values())
    print(f"top-3 P-P deviation: worst {worst:.3f}; TARP top-2 {results['tarp_top2']:.3f}")
    known = results["training_galaxies"]
    print(
        f"new halos of training galaxies: gain {known['n_sub']['nll_gain']:.2f}, PIT p "
        f"{known['n_sub']['pit_p']:.2g}, worst P-P deviation {max(known['pp_top'].values()):.3f}"
    )
    print(
        "columns (KS p, 90 %):",
        {
            k: (round(v["ks_p"], 3), round(v["coverage_90"], 3))
            for k, v in results["columns"].items()
        },
    )
    print("mass bins, 90 %:", results["mass_bins_coverage_90"])
    sets = results["members"]
    print(f"OSPA {sets['ospa']:.3f} (other halos {sets['ospa_blind']:.3f})")


if __name__ == "__main__":
    main()
