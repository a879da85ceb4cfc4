import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sbi_casbi.config import CasbiConfig
from sbi_casbi.parameters import summarise
from sbi_casbi.simulator import LOG_N, OVERFLOW, X_SIZE, CasbiSimulator
from sbi_core import ConfigError, DataFileError


def with_(library, **options):
    return CasbiSimulator(CasbiConfig(**options), library)


def test_same_seed_same_bits(simulator):
    a, b = (simulator.draw(20, 5) for _ in range(2))
    for name, value in a.numpy().items():
        assert (value == b.numpy()[name]).all()


def test_theta_is_that_of_the_snapshots_in_the_halo(simulator):
    batch = simulator.draw(30, 1)
    sets, mask = batch.theta_set.double().numpy(), batch.theta_mask.numpy()
    count = mask.sum(1)
    assert (count == batch.theta[:, 0].numpy()).all()
    assert (sets[~mask] == 0).all()
    assert_allclose(summarise(sets, count, 2), batch.theta.numpy(), rtol=2e-6)


def test_padding_never_changes_a_summary(rng):
    sets = rng.random((5, 10, 3)) + 5
    count = np.array([2, 3, 4, 5, 10])
    used = np.arange(10) < count[:, None]
    clean = np.where(used[..., None], sets, 0.0)
    noisy = np.where(used[..., None], sets, rng.normal(size=sets.shape) * 100)
    assert (summarise(clean, count, 2) == summarise(noisy, count, 2)).all()


def test_the_number_of_stars_is_kappa_times_the_mass(simulator):
    batch = simulator.draw(30, 2)
    want = 6.67e-7 * 10.0 ** batch.theta[:, 1].double()
    got = batch.x[:, : OVERFLOW + 1].double().sum(1)
    assert_allclose(got, want, rtol=1e-4)


def test_shares_sum_to_one_and_counts_follow_the_number_of_stars(library):
    sim = with_(library, counts="shape", n_star=(3000, 3000))
    batch = sim.draw(30, 2)
    assert_allclose(batch.x[:, : OVERFLOW + 1].sum(1), 1.0, atol=1e-5)
    seen = sim.observe(batch, 3)
    counts = seen.x[:, : OVERFLOW + 1]
    assert (counts == counts.round()).all()
    assert abs(counts.sum(1).mean() - 3000) < 4 * np.sqrt(3000 / 30)
    assert_allclose(seen.x[:, LOG_N], counts.sum(1).log10(), rtol=1e-6)


def test_a_superposition_is_the_sum_of_its_members(library):
    sim = with_(library, sigma_fe=(0.1, 0.1), sigma_o=(0.05, 0.05), n_min=1)
    theta = library.theta[library.rows("train")[:2]]
    theta = theta[np.argsort(-theta[:, 0])]
    one, two, both = (sim.simulate(t[None], 1) for t in (theta[:1], theta[1:], theta))
    assert_allclose(
        both.x[:, :OVERFLOW], one.x[:, :OVERFLOW] + two.x[:, :OVERFLOW], rtol=1e-3, atol=1e-6
    )
    assert_allclose(both.theta_set[0, :2], theta, rtol=1e-6)


def test_simulating_with_a_number_of_members(simulator):
    theta = np.zeros((3, len(simulator.columns)))
    theta[:, 0] = (2, 50, 100)
    batch = simulator.simulate(theta, 1)
    assert batch.theta[:, 0].tolist() == [2, 50, 100]


@pytest.mark.parametrize("count", [1, 101, 3.5])
def test_a_number_of_members_out_of_range_is_refused(simulator, count):
    theta = np.zeros((1, len(simulator.columns)))
    theta[0, 0] = count
    with pytest.raises(ConfigError, match="n_sub"):
        simulator.simulate(theta, 1)


def test_more_than_a_hundred_members_are_refused():
    with pytest.raises(ValueError, match="n_max"):
        CasbiConfig(n_max=101)


def test_complete_samples_are_the_default_of_mock_halos(library):
    a, b = with_(library).draw(3, 1), with_(library, counts="absolute").draw(3, 1)
    assert (a.x == b.x).all()


def test_another_element_than_that_of_the_library_is_refused(library):
    with pytest.raises(ConfigError, match=r"alpha = 'mg'.*\[O/Fe\]"):
        with_(library, alpha="mg")


def test_absolute_counts_need_kappa():
    with pytest.raises(ValueError, match="kappa"):
        CasbiConfig(kappa=None)


def test_particles_need_a_library_of_particles(library):
    with pytest.raises(ConfigError, match="particles"):
        with_(library, counts="particles").draw(2, 1)


def test_split_keys_name_the_split_of_the_stems(simulator):
    batch = simulator.draw(60, 4)
    assert set(batch.split_key.tolist()) == {-1, -2, -3}
    lib = simulator.library
    for key, k in ((-1, 0), (-3, 2)):
        rows = batch[batch.split_key == key]
        masses = rows.theta_set[..., 0][rows.theta_mask].double().numpy()
        allowed = lib.log_mstar[lib.split == k].astype(np.float32)
        assert np.isin(masses.astype(np.float32), allowed).all()


def test_examples_come_from_galaxies_that_are_not_trained_on(simulator):
    obs = simulator.example_observations(1, 3)
    assert obs.batch.x.shape == (3, X_SIZE)
    lib = simulator.library
    masses = obs.batch.theta_set[..., 0][obs.batch.theta_mask].numpy()
    assert np.isin(masses, lib.log_mstar[lib.split == 2].astype(np.float32)).all()


def test_the_first_example_is_a_halo_like_the_milky_ways(simulator):
    theta = simulator.example_observations(1, 3).batch.theta.numpy()
    names = list(simulator.columns)
    assert 8.7 < theta[0, names.index("log_mtot")] < 9.6
    assert abs(theta[0, names.index("log_mstar_1")] - 8.7) < 0.5
    assert (theta[1:, names.index("log_mtot")] > 9.0).all()


def test_a_simulator_travels_to_other_processes(simulator):
    import pickle

    again = pickle.loads(pickle.dumps(simulator))
    assert (again.draw(3, 1).x == simulator.draw(3, 1).x).all()


def test_the_likelihood_prefers_the_truth(library):
    sim = with_(library, counts="shape", n_star=(2000, 2000))
    batch = sim.draw(20, 1)
    seen = sim.observe(batch, 2)
    own = sim.log_likelihood(batch, seen)
    other = sim.log_likelihood(batch[torch.arange(19, -1, -1)], seen)
    assert (own > other).mean() > 0.95


def test_an_unknown_library_file_is_named():
    with pytest.raises(DataFileError, match="does not exist"):
        CasbiSimulator(CasbiConfig(library="none.h5"))


def test_summaries_are_finite_even_for_empty_halos(simulator):
    batch = simulator.observe(simulator.draw(10, 1), 1)
    empty = batch.with_(x=torch.zeros_like(batch.x))
    for b in (batch, empty):
        assert torch.isfinite(simulator.summaries(b).x).all()


def test_budget_halos_have_an_outcome_for_n(library):
    sim = with_(library, population="budget", counts="shape")
    batch = sim.draw(10, 1)
    assert (10 ** batch.theta[:, 1] <= 1.42e9).all()
    assert sim.parameters.members[0].prior.has_density is False
