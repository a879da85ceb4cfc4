from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sbi_core import ConfigError

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks" / "casbi"
baselines = SimpleNamespace(**run_path(str(BENCHMARKS / "baselines.py")))

NAMES = ("log_mstar", "log_mdm", "tau")


@pytest.fixture(scope="module")
def halos(simulator):
    return simulator.observe(simulator.draw_from(400, 1, "train"), 2)


def test_a_halo_is_its_own_nearest_neighbour(halos):
    found = baselines.neighbour_sets(halos, halos[:20], NAMES, rule="nearest", k=1)
    np.testing.assert_array_equal(found.values[0], halos.theta_set[:20].numpy())
    np.testing.assert_array_equal(found.count[0], halos.theta_mask[:20].sum(1).numpy())


def test_counting_looks_at_the_number_of_stars_alone(halos):
    shuffled = halos.x.clone()
    gen = torch.Generator().manual_seed(1)
    shuffled[:, :4096] = shuffled[:, torch.randperm(4096, generator=gen)]
    moved = halos.with_(x=shuffled)
    a = baselines.neighbour_sets(halos, halos[:20], NAMES, rule="count", k=5)
    b = baselines.neighbour_sets(halos, moved[:20], NAMES, rule="count", k=5)
    np.testing.assert_array_equal(a.count, b.count)


def test_probabilities_sum_to_one_and_exclude_nothing(halos):
    counts = np.arange(2, 101)
    sets = baselines.neighbour_sets(halos, halos[:20], NAMES, rule="nearest", k=10)
    pmf = baselines.neighbour_pmf(sets, counts, np.full(99, 1 / 99))
    np.testing.assert_allclose(pmf.sum(1), 1.0)
    assert pmf.min() > 0


def test_the_plane_says_more_about_the_mass_than_a_random_halo(halos, simulator):
    test = simulator.observe(simulator.draw_from(60, 5, "test"), 6)
    sets = baselines.neighbour_sets(halos, test, NAMES, rule="nearest", k=5)
    truth = test.theta_set[:, 0, 0].numpy()
    error = np.abs(np.median(sets.log_mstar[:, :, 0], 0) - truth).mean()
    assert error < 0.9 * np.abs(np.median(truth) - truth).mean()


def test_bad_input_is_refused(halos):
    with pytest.raises(ConfigError, match="400 simulated halos"):
        baselines.neighbour_sets(halos, halos[:2], NAMES, rule="count", k=500)
    with pytest.raises(ConfigError, match="theta_set"):
        baselines.neighbour_sets(halos.with_(theta_set=None), halos[:2], NAMES, rule="count")
