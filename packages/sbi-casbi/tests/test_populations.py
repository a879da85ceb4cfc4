import numpy as np
import pytest
from scipy import stats

from sbi_casbi.library import SPLITS
from sbi_casbi.populations import BudgetRule, budget_sets, draw_sets, snapshot_weights
from sbi_core import ConfigError


def test_sets_are_without_replacement_and_by_mass(library, rng):
    rows, weight = snapshot_weights(library, "uniform", "train")
    count = rng.integers(2, 101, 200)
    draw = draw_sets(rows, weight, library.log_mstar, count, 100, rng)
    for r, n in zip(draw.rows, count, strict=True):
        assert len(set(r[:n])) == n
        assert (np.diff(library.log_mstar[r[:n]]) <= 0).all()
    assert set(np.unique(draw.rows[draw.mask])) <= set(rows)


def test_uniform_weights_make_log_mass_uniform(library, rng):
    rows, weight = snapshot_weights(library, "uniform", "train")
    assert weight.sum() == pytest.approx(1.0)
    drawn = library.log_mstar[rng.choice(rows, 4000, p=weight)]
    # weights follow a smoothed density: a few per cent of the range, whatever the seed
    assert stats.kstest(drawn, stats.uniform(4.7, 5.08).cdf).statistic < 0.06


def test_cosmological_weights_prefer_light_and_early_galaxies(library, rng):
    u = snapshot_weights(library, "uniform", "train")
    c = snapshot_weights(library, "cosmological", "train")
    for values in (library.log_mstar, library.tau):
        assert values[c[0]] @ c[1] < values[u[0]] @ u[1] - 0.3


def test_successive_sampling_has_the_right_second_draw(rng):
    weight = np.array([0.7, 0.2, 0.1])
    draw = draw_sets(np.arange(3), weight, np.arange(3.0), np.full(20000, 2), 2, rng)
    pairs = {(1, 0): 0.7 * 0.2 / 0.3 + 0.2 * 0.7 / 0.8}
    share = np.mean((draw.rows == (1, 0)).all(1))
    assert share == pytest.approx(pairs[1, 0], abs=0.015)  # 4 sigma


def test_more_members_than_snapshots_are_refused(library, rng):
    with pytest.raises(ConfigError, match="larger library"):
        draw_sets(np.arange(5), np.full(5, 0.2), library.log_mstar, np.array([6]), 10, rng)


def test_splits_do_not_share_stems(library, rng):
    names = {}
    for split in SPLITS:
        rows, weight = snapshot_weights(library, "uniform", split)
        count = np.full(20, 30)
        draw = draw_sets(rows, weight, library.log_mstar, count, 100, rng)
        names[split] = set(library.stem[draw.rows[draw.mask]])
    assert not names["train"] & names["test"]
    assert not names["train"] & names["val"]


def test_budget_halos_keep_their_budget(library, rng):
    rule = BudgetRule(total=1.41e9)
    draw = budget_sets(library.rows("train"), library.log_mstar, 20, 100, rule, rng)
    mass = np.where(draw.mask, 10 ** library.log_mstar[draw.rows], 0).sum(1)
    assert (mass <= rule.total * (1 + 1e-9)).all()
    filled = (mass > rule.enough * rule.total) | (draw.count == 100)
    assert filled.mean() > 0.8


def test_an_unknown_population_is_refused(library):
    with pytest.raises(ConfigError, match="cosmological"):
        snapshot_weights(library, "galactic", "train")
