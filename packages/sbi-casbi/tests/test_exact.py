from itertools import combinations
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest

from sbi_casbi.config import CasbiConfig
from sbi_casbi.simulator import CasbiSimulator
from sbi_core import ConfigError

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks" / "casbi"
exact = SimpleNamespace(**run_path(str(BENCHMARKS / "exact.py")))


@pytest.fixture(scope="module")
def small(library):
    few = library.take(np.concatenate([library.rows(s)[:10] for s in ("train", "val", "test")]))
    config = CasbiConfig(
        counts="shape",
        n_min=1,
        n_max=3,
        n_star=(300, 300),
        sigma_fe=(0.1, 0.1),
        sigma_o=(0.05, 0.05),
    )
    return CasbiSimulator(config, few)


def test_all_sets_are_visited_once(library):
    rows = np.arange(6)
    sets = exact.enumerate_sets(rows, library.log_mstar, 1, 3)
    found = {tuple(sorted(s[s >= 0])) for s in sets}
    want = {c for n in (1, 2, 3) for c in combinations(range(6), n)}
    assert found == want
    assert len(sets) == len(want)
    with pytest.raises(ConfigError, match="too many"):
        exact.enumerate_sets(np.arange(1000), np.arange(1000.0), 1, 3)


def test_the_posterior_is_bayes_rule(small):
    """Against the simulator's own likelihood of every set."""
    rows = small.library.rows("train")[:6]
    sets = exact.enumerate_sets(rows, small.library.log_mstar, 1, 2)
    batch = small.observe(small.draw_from(1, 3, "train", [2]), 4)
    got = exact.exact_posterior(small, batch.x[0].numpy(), sets)
    log_l = []
    for s in sets:
        theta = np.zeros((1, 3, 3))
        used = s[s >= 0]
        theta[0, : len(used)] = small.library.theta[used]
        log_l.append(small.log_likelihood(small.simulate(theta, 1), batch)[0])
    n = (sets >= 0).sum(1)
    log_p = np.array(log_l) - np.log(np.bincount(n)[n])
    want = np.exp(log_p - log_p.max())
    np.testing.assert_allclose(got.probability, want / want.sum(), atol=1e-3)


def test_probabilities_of_n_average_to_the_prior(small, rng):
    """Over halos of the prior, the exact posterior of N is calibrated."""
    rows = small.library.rows("train")
    sets = exact.enumerate_sets(rows, small.library.log_mstar, 1, 3)
    weight = np.full(len(rows), 1 / len(rows))
    small._all_weights["train"] = (rows, weight)
    batch = small.observe(small.draw_from(150, rng, "train"), rng)
    values = np.arange(1, 4)
    pmf = np.array([exact.exact_posterior(small, x, sets).pmf(values) for x in batch.x.numpy()])
    np.testing.assert_allclose(pmf.sum(1), 1.0)
    true = batch.theta[:, 0].numpy().astype(int) - 1
    share = np.bincount(true, minlength=3) / 150
    np.testing.assert_allclose(pmf.mean(0), share, atol=0.12)
    assert pmf[np.arange(150), true].mean() > 0.4
