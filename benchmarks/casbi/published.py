"""The setting of the CASBI paper: a mass budget, shapes only, N an outcome.

    python benchmarks/casbi/published.py --sigma 0 --out published-0.json
    python benchmarks/casbi/published.py --sigma 0.13 --out published-13.json
    python benchmarks/casbi/published.py --smallest 5.5 --out published-48.json
    python benchmarks/casbi/published.py --smallest 5.5 --rules

With ``--smallest`` the library has only galaxies above that log10 M_star, which changes the mean
number of members: 80 without, 48 as published at 5.5. ``--rules`` gives the blind rules alone,
without training.

Halos of 1.41e9 Msun from dN/dM ~ M^-1.25; equal errors in both abundances. Scored as there: medians
of p(theta_k | x, rank k), N unknown, pooled over halos and ranks, log10 M_star and log10 tau. Test
and training halos have no galaxy in common. For comparison: medians given the rank, or given the
rank and the true N.
"""

import argparse

import numpy as np
from common import config_of, train_posterior, write

from sbi_casbi.simulator import CasbiSimulator, load_library

PUBLISHED = {0.0: (0.105, 0.135), 0.13: (0.143, 0.184)}  # MAE and RMSE of log M_star, read by eye


def errors(draws, there, truth, mask):
    """Return MAE of medians and RMSE of means over all (halo, rank), of draws."""
    value = np.where(there, draws, np.nan)
    with np.errstate(all="ignore"):
        median, mean = np.nanmedian(value, 0), np.nanmean(value, 0)
    known = mask & np.isfinite(median)
    return {
        "mae_median": float(np.abs(median - truth)[known].mean()),
        "rmse_mean": float(np.sqrt(np.square(mean - truth)[known].mean())),
        "pairs": int(known.sum()),
        "pairs_without_draws": int((mask & ~known).sum()),
    }


def rules(sets, mask, truth, true_mask):
    """Return MAE of the median of the rank, and of the rank among halos of similar N."""
    count, true_count = mask.sum(1), true_mask.sum(1)
    rank, both = [], []
    for n, values in zip(true_count, truth, strict=True):
        near = np.abs(count - n) <= max(2, 0.05 * n)
        for k in range(n):
            mine = count > k
            rank.append(abs(np.median(sets[mine, k]) - values[k]))
            both.append(abs(np.median(sets[mine & near, k]) - values[k]))
    return float(np.mean(rank)), float(np.mean(both))


def blind(simulator, test):
    """Print the errors of log M_star of the blind rules, and the mean N."""
    known, held_out = simulator.draw_from(4000, 1, "train"), simulator.draw_from(test, 5, "test")
    sets, truth = (b.theta_set[..., 0].double().numpy() for b in (known, held_out))
    mask, true_mask = (b.theta_mask.numpy() for b in (known, held_out))
    rank, both = rules(sets, mask, truth, true_mask)
    n = true_mask.sum(1)
    print(f"N {n.mean():.1f} +- {n.std():.1f}: rank {rank:.3f}, rank and N {both:.3f} dex")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sigma", type=float, default=0.0)
    parser.add_argument("--halos", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--smallest", type=float, default=0.0, help="log10 M_star [Msun]")
    parser.add_argument("--rules", action="store_true", help="only the blind rules")
    parser.add_argument("--out")
    a = parser.parse_args()
    config = config_of(
        "budget",
        "shape",
        n_min=1,
        stems=20_000,
        sigma_fe=(a.sigma, a.sigma),
        sigma_o=(a.sigma, a.sigma),
    )
    library = load_library(config)
    library = library.take(library.log_mstar > a.smallest)
    if a.rules:
        blind(CasbiSimulator(config, library), a.test)
        return
    trained = train_posterior(config, a.halos, a.epochs, library=library)
    simulator, estimator, batch, facts = trained
    rng = np.random.default_rng(5)
    test = simulator.observe(simulator.draw_from(a.test, rng, "test"), rng)
    members = estimator.sample_members(test, a.draws, rng)
    truth, mask = test.theta_set.double().numpy(), test.theta_mask.numpy()
    known, known_mask = batch.theta_set[:5000].double().numpy(), batch.theta_mask[:5000].numpy()
    results = {
        "sigma": a.sigma,
        "halos": a.halos,
        "epochs": a.epochs,
        **facts,
        "mean_n": float(mask.sum(1).mean()),
        "published_mae_rmse": PUBLISHED.get(a.sigma),
    }
    for name, j, scale in (("log_mstar", 0, lambda v: v), ("log_tau", 2, np.log10)):
        with np.errstate(divide="ignore"):
            mine = errors(scale(members.values[..., j]), members.mask, scale(truth[..., j]), mask)
            rank, both = rules(scale(known[..., j]), known_mask, scale(truth[..., j]), mask)
        results[name] = {
            **mine,
            "mae_rank": rank,
            "mae_rank_and_n": both,
            "skill_over_rank_and_n": 1 - mine["mae_median"] / both,
        }
        print(f"sigma {a.sigma}: {name}", {k: round(v, 3) for k, v in results[name].items()})
    write(a.out, results)


if __name__ == "__main__":
    main()
