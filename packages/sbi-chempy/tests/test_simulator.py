"""The chempy simulator keeps the contract of sbi-core."""

import pickle

import click
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sbi_chempy.parameters import FAILURES
from sbi_chempy.simulator import EXAMPLE_TRUTH
from sbi_core import Batch, ConfigError, DataFileError, Observations, get_simulator
from sbi_core.cli import app

ORDER = ("alpha_imf", "log10_n_ia", "log10_sfe", "log10_sfr_peak", "x_out", "t_birth")


@pytest.fixture(scope="module")
def chempy():
    return get_simulator("chempy")


@pytest.fixture(scope="module")
def simulated(chempy):
    return chempy.draw(400, 7)


def test_parameters_scopes_and_observables_are_those_of_the_paper(chempy):
    space = chempy.parameters
    assert space.names == ORDER
    assert space.scopes == ("global", "global", "local", "local", "local", "local")
    mean, sd = space.select("global").moments()
    assert_allclose(mean, [-2.3, -2.89])
    assert_allclose(sd, [0.3, 0.3])
    assert space.units[5] == "Gyr"
    assert [o.name for o in chempy.observables] == [
        "c_fe", "fe_h", "he_fe", "mg_fe", "n_fe", "ne_fe", "o_fe", "si_fe",
    ]  # fmt: skip
    assert all(o.unit == "dex" for o in chempy.observables)


def test_units_are_units(chempy):
    from astropy import units

    for unit in (*chempy.parameters.units, *(o.unit for o in chempy.observables)):
        units.Unit(unit)


def test_one_shape_for_every_result(chempy, simulated):
    assert simulated.theta.shape == (400, 6)
    assert simulated.x.shape == (400, 8)
    assert simulated.ok.float().mean() > 0.9
    assert torch.isfinite(simulated.x[simulated.ok]).all()
    assert (simulated.failure[simulated.ok] == 0).all()


def test_rows_that_fail_come_back_with_a_reason(chempy):
    theta = np.array(
        [
            [-2.3, -2.89, -0.3, 0.55, 0.5, 10.0],
            [-2.3, -2.89, -0.3, 0.55, 0.5, 20.0],  # born after the end
            [-2.3, -2.89, -0.3, 0.55, 5.0, 10.0],  # more than all gas lost
        ]
    )
    batch = chempy.simulate(theta, 0)
    assert batch.ok.tolist() == [True, False, False]
    assert torch.isnan(batch.x[1:]).all()
    assert all(FAILURES[int(code)] != "ok" for code in batch.failure[1:])
    assert_allclose(batch.theta, theta)


@pytest.mark.parametrize(
    ("theta", "message"),
    [
        (np.zeros((2, 5)), r"theta must have shape \(n, 6\), got \(2, 5\)"),
        (np.zeros(6), r"theta must have shape \(n, 6\), got \(6,\)"),
        ([[-2.3, np.nan, -0.3, 0.55, 0.5, 10]], "not finite in row 0, column 'log10_n_ia'"),
        ([[-2.3, -2.9, -0.3, 0.55, 0.5, np.inf]], "not finite in row 0, column 't_birth'"),
    ],
)
def test_theta_that_makes_no_sense_is_refused(theta, message, chempy):
    with pytest.raises(ConfigError, match=message):
        chempy.simulate(theta, 0)


def test_arrays_and_tensors_of_either_precision_give_the_same(chempy, simulated):
    theta = simulated.theta[:5]
    want = chempy.simulate(theta, 0).x
    assert_array_equal(chempy.simulate(theta.numpy(), 0).x, want)
    assert_array_equal(chempy.simulate(theta.tolist(), 0).x, want)
    assert_allclose(chempy.simulate(theta.float(), 0).x, want, atol=1e-4)


def test_the_same_seed_gives_the_same_bits(chempy, simulated):
    again = chempy.draw(400, 7)
    assert_array_equal(again.theta, simulated.theta)
    assert_array_equal(again.x, simulated.x)


def test_rows_do_not_depend_on_their_company(chempy, simulated):
    """One row alone and the same row among others: equal to float32 rounding."""
    parts = [chempy.simulate(simulated.theta[s], 0).x for s in (slice(0, 1), slice(1, 150))]
    assert_allclose(torch.cat(parts), simulated.x[:150], atol=2e-5, equal_nan=True)


def test_the_number_of_threads_does_not_change_the_bits(chempy, simulated):
    torch.set_num_threads(2)  # the fixture one_thread restores it
    assert_array_equal(chempy.draw(400, 7).x, simulated.x)


def test_no_rows_are_fine(chempy):
    assert chempy.simulate(np.zeros((0, 6)), 0).x.shape == (0, 8)


def test_it_can_be_sent_to_a_worker(chempy, simulated):
    again = pickle.loads(pickle.dumps(chempy))
    assert again.identity == chempy.identity
    assert_array_equal(again.simulate(simulated.theta[:20], 0).x, simulated.x[:20])


# -- options --------------------------------------------------------------------------------------


def test_options_are_those_of_the_signature(chempy):
    other = get_simulator(
        "chempy", yields="default", cosmic_accretion=0.5, default_error=0.1, noise="fixed",
        ages=False, log10_n_ia_mean=-2.75,
    )  # fmt: skip
    assert other.default_error == 0.1
    mean, _ = other.parameters.moments()
    assert mean[1] == -2.75
    assert other.parameters.hash != chempy.parameters.hash
    assert other.identity != chempy.identity


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"yield": "tng"}, "unknown option 'simulator.yield'; did you mean 'yields'"),
        ({"yields": "tgn"}, "tgn"),
        ({"cosmic_accretion": 0}, "greater than 0"),
        ({"default_error": -1}, "greater than 0"),
        ({"dtype": "float16"}, "'float32' or 'float64'"),
        ({"noise": "none"}, "'amortised' or 'fixed'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        get_simulator("chempy", **options)


def test_yields_that_are_not_there_come_with_the_fetch_command(monkeypatch, tmp_path):
    monkeypatch.setenv("SBI_DATA_DIR", str(tmp_path))
    monkeypatch.setattr("sbi_core.data.fetch.cache_dir", lambda: tmp_path / "cache")
    with pytest.raises(DataFileError, match="sbi-run data fetch chempy-yields"):
        get_simulator("chempy", yields="tng")


def test_noise_options_do_not_change_the_identity_of_the_simulations(chempy):
    assert get_simulator("chempy", default_error=0.1, noise="fixed").identity == chempy.identity
    assert get_simulator("chempy", clamp_low_z=False).identity != chempy.identity


def test_the_yields_in_use_are_cited(chempy):
    assert len(chempy.citations) >= 5
    assert len(set(chempy.citations)) == len(chempy.citations)


# -- the observation model ------------------------------------------------------------------------


def test_observing_adds_errors_gaps_and_ages(chempy, simulated):
    good = simulated.succeeded
    batch = chempy.observe(good, 3)
    assert_array_equal(torch.isnan(batch.x), ~batch.mask)
    assert batch.context.shape == (len(good), 3)
    assert_array_equal(batch.theta, good.theta)
    seen = batch.mask
    z = ((batch.x - good.x) / batch.x_err)[seen].double().numpy()
    assert abs(z.mean()) < 5 / np.sqrt(z.size)  # false alarm 1e-6
    assert abs(z.std() - 1) < 5 / np.sqrt(2 * z.size)


def test_observing_twice_differs_and_the_same_seed_does_not(chempy, simulated):
    good = simulated.succeeded
    one, two, other = (chempy.observe(good, s) for s in (3, 3, 4))
    assert_array_equal(one.x, two.x)
    assert_array_equal(one.context, two.context)
    assert not torch.equal(one.mask, other.mask)


def test_fixed_noise_is_complete_and_of_one_width(simulated):
    batch = get_simulator("chempy", noise="fixed", default_error=0.1).observe(
        simulated.succeeded, 3
    )
    assert batch.mask.all()
    assert (batch.x_err == 0.1).all()
    assert (batch.context == 0).all()


def test_observing_like_data_takes_their_errors_gaps_and_ages(chempy, simulated):
    good = simulated.succeeded
    err = torch.tensor([[0.02] * 8, [0.2] * 8])
    mask = torch.ones(2, 8, dtype=torch.bool)
    mask[1, 2:5] = False
    like = Batch(
        x=torch.zeros(2, 8), x_err=err, mask=mask, context=[[5.0, 1.0, 1.0], [0.0, 0.0, 0.0]]
    )
    batch = chempy.observe_like(good, like, 5)
    second = ~batch.mask[:, 2]
    assert 0.3 < second.float().mean() < 0.7  # binomial(~400, 0.5): 8 sigma
    assert_array_equal(batch.mask[second], mask[1].expand(int(second.sum()), 8))
    assert batch.mask[~second].all()
    assert_allclose(batch.x_err[~second], 0.02, rtol=1e-6)
    assert_allclose(batch.x_err[second][:, 0], 0.2, rtol=1e-6)
    assert (batch.context[second] == 0).all()
    age = batch.context[~second]
    assert_allclose(age[:, 1], 1.0)  # the donor's error, not scaled with the birth time
    z = (age[:, 0] - good.theta[~second, 5]) / age[:, 1]
    assert abs(float(z.mean())) < 5 / np.sqrt(len(z))


@pytest.mark.parametrize("n", [1, 40])  # for more see test_births.py
def test_errors_of_ages_follow_donors_as_old_as_the_universe(chempy, simulated, n):
    """Errors grow with the age, as in Bensby et al. 2014; some stars are older than 13.8 Gyr."""
    good = simulated.succeeded
    t_obs = torch.linspace(-0.9, 13.5, n)  # the only star of n = 1 is one of them
    error = 0.3 + 0.15 * (13.5 - t_obs)
    context = torch.stack([t_obs, error, torch.ones(n)], 1)
    like = Batch(x=torch.zeros(n, 8), x_err=torch.full((n, 8), 0.05), context=context)
    time, used, there = chempy.observe_like(good, like, 5).context.unbind(1)
    assert (there == 1).all()
    truth = good.theta[:, 5]
    assert float(used.max()) <= float(error.max())
    if n > 1:  # a twentieth of the stars to either side, steps of the grid, 0.3 Gyr beyond its end
        expected = 0.3 + 0.15 * (13.5 - truth)
        assert float((used - expected).abs().max()) < 0.15 * (14.4 * (0.05 + 2 / n) + 0.3)
    z = (time - truth) / used
    assert abs(float(z.mean())) < 5 / np.sqrt(len(z))
    assert abs(float(z.std()) - 1) < 5 / np.sqrt(2 * len(z))


def test_observing_like_complete_data_without_errors_takes_the_default(chempy, simulated):
    batch = chempy.observe_like(simulated.succeeded, Batch(x=torch.zeros(3, 8)), 5)
    assert batch.mask.all()
    assert_allclose(batch.x_err, 0.05, rtol=1e-6)


# -- the example ----------------------------------------------------------------------------------


def test_the_example_shares_one_truth_away_from_the_prior_mean(chempy):
    stars = chempy.example_observations(2, n=30)
    assert isinstance(stars, Observations)
    assert len(stars) == 30
    assert len(set(stars.id.tolist())) == 30
    for name, value in EXAMPLE_TRUTH.items():
        assert_allclose(stars.truth[name], value)
    assert len(np.unique(stars.truth["t_birth"])) == 30
    assert stars.batch.observed.all()
    again = chempy.example_observations(2, n=30)
    assert_array_equal(again.batch.x, stars.batch.x)


def test_the_example_survives_a_file(chempy, tmp_path):
    stars = chempy.example_observations(2, n=10)
    stars.write(tmp_path / "stars.ecsv")
    again = chempy.read_observations(tmp_path / "stars.ecsv")
    assert_allclose(again.batch.x, stars.batch.x, rtol=1e-6)
    assert again.id.tolist() == stars.id.tolist()


@pytest.mark.parametrize("name", ["export", "refine"])
def test_the_object_in_a_help_text_is_one_of_the_example(name, chempy):
    examples = app.get_command(click.Context(app), name).epilog.splitlines()
    named = [line.split("--object ")[1].split()[0] for line in examples
             if "--object " in line and "--observations" not in line]  # fmt: skip
    assert named
    assert set(named) <= set(chempy.example_observations(1, n=10).id)
