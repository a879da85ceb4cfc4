"""Which abundances are observed: element lists, [X/Mg], and the noise that goes with them."""

import numpy as np
import pytest
import torch
from astropy.table import Table
from numpy.testing import assert_allclose, assert_array_equal

from sbi_chempy.constants import ABUNDANCES
from sbi_chempy.frame import Frame
from sbi_core import Batch, ConfigError, DataFileError, ObservationError, get_simulator

THETA = [[-2.3, -2.89, -0.3, 0.55, 0.5, 10.0], [-2.1, -3.0, -0.2, 0.5, 0.4, 6.0]]
N = 20_000


@pytest.fixture(scope="module")
def plain():
    return get_simulator("chempy", dtype="float64").simulate(THETA).x


def column(x, name):
    return x[:, ABUNDANCES.index(name)]


def test_elements_are_columns_in_the_order_asked_for(plain):
    simulator = get_simulator("chempy", elements=["Mg", "Fe", "O", "Si"], dtype="float64")
    assert [o.name for o in simulator.observables] == ["mg_fe", "fe_h", "o_fe", "si_fe"]
    x = simulator.simulate(THETA).x
    want = [column(plain, n) for n in ("Mg_Fe", "Fe_H", "O_Fe", "Si_Fe")]
    assert_allclose(x, torch.stack(want, 1), atol=1e-12)


def test_values_relative_to_mg_are_differences(plain):
    simulator = get_simulator("chempy", reference="Mg", dtype="float64")
    names = [o.name for o in simulator.observables]
    assert names == ["c_mg", "fe_mg", "he_mg", "mg_h", "n_mg", "ne_mg", "o_mg", "si_mg"]
    x = simulator.simulate(THETA).x
    mg = column(plain, "Mg_Fe")
    assert_allclose(x[:, 6], column(plain, "O_Fe") - mg, atol=1e-12)
    assert_allclose(x[:, 1], -mg, atol=1e-12)
    assert_allclose(x[:, 3], mg + column(plain, "Fe_H"), atol=1e-12)


def test_failed_rows_stay_failed():
    simulator = get_simulator("chempy", elements=["Mg", "O"], reference="Mg")
    batch = simulator.simulate([THETA[0], [-2.3, -2.89, -0.3, 0.55, 0.5, 20.0]])
    assert batch.ok.tolist() == [True, False]
    assert torch.isnan(batch.x[1]).all()
    assert torch.isfinite(batch.x[0]).all()


def test_what_is_observed_belongs_to_the_identity():
    default = get_simulator("chempy")
    for options in ({"elements": ["Fe", "Mg"]}, {"reference": "Mg"}):
        assert get_simulator("chempy", **options).identity != default.identity
    assert get_simulator("chempy", survey="apogee").identity == default.identity


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"elements": ["Fe", "Eu"]}, "unknown element 'Eu'; the model follows C, Fe, He, Mg"),
        ({"elements": ["Fe", "fe"]}, "element 'Fe' appears twice"),
        ({"elements": []}, "elements is empty"),
        ({"reference": "O"}, "'Fe' or 'Mg'"),
        (
            {"yields": {"agb": "ventura13"}, "elements": ["Fe", "Mg"]},
            "agb yields 'ventura13' do not carry Fe; they have C, He, Mg",
        ),
        (
            {"yields": {"agb": "ventura13"}, "elements": ["O", "Mg"]},
            r"do not carry Fe \(needed as the reference\)",
        ),
    ],
)
def test_elements_that_cannot_be_given_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        get_simulator("chempy", **options)


def test_a_set_without_iron_serves_the_rest_and_warns_by_default(caplog):
    simulator = get_simulator(
        "chempy", yields={"agb": "ventura13"}, elements=["C", "O"], reference="Mg"
    )
    assert [o.name for o in simulator.observables] == ["c_mg", "o_mg"]
    assert not caplog.records
    assert get_simulator("chempy", yields={"agb": "ventura13"}).simulate(THETA).ok.all()
    assert "do not carry Fe" in caplog.text


# -- noise ----------------------------------------------------------------------------------------


def many(simulator):
    return Batch(
        x=torch.zeros(N, len(simulator.observables), dtype=torch.float64),
        theta=torch.tensor(THETA[:1]).expand(N, 6),
    )


def test_noise_relative_to_mg_is_that_of_converted_independent_errors():
    simulator = get_simulator("chempy", reference="Mg", noise="fixed", default_error=0.05)
    batch = simulator.observe(many(simulator), 1)
    a = Frame(reference="Mg").matrix
    want = a @ np.diag(np.full(8, 0.05**2)) @ a.T
    got = np.cov(batch.x.numpy().T)
    assert_allclose(got, want, atol=6 * 0.005 / np.sqrt(N))  # var of a covariance of ~0.005
    assert_allclose(batch.x_err[0] ** 2, np.diag(want), rtol=1e-6)
    assert_allclose(batch.x_err[0, 1], 0.05)  # [Fe/Mg]: one error, not two


@pytest.mark.parametrize("elements", [None, ["Mg", "O", "Si"], ["Fe", "O"]])
@pytest.mark.parametrize("reference", ["Fe", "Mg"])
def test_noise_has_the_width_it_claims(elements, reference):
    simulator = get_simulator("chempy", elements=elements, reference=reference)
    batch = simulator.observe(many(simulator), 2)
    z = (batch.x / batch.x_err).numpy()
    for values in z.T:
        seen = values[np.isfinite(values)]
        assert abs(seen.std() - 1) < 5 / np.sqrt(2 * len(seen))  # false alarm 1e-6
    assert_array_equal(np.isnan(z), ~batch.mask.numpy())
    assert batch.mask.any(1).all()


def test_noise_like_data_keeps_the_errors_of_the_data():
    simulator = get_simulator("chempy", reference="Mg")
    err = torch.full((1, 8), 0.08)
    err[:, 1] = 0.03
    mask = torch.ones(1, 8, dtype=torch.bool)
    mask[:, 4] = False
    like = Batch(x=torch.zeros(1, 8), x_err=err, mask=mask)
    batch = simulator.observe_like(many(simulator), like, 3)
    assert_allclose(batch.x_err[:, mask[0]], err[:, mask[0]].expand(N, 7), rtol=1e-6)
    covariance = np.cov(batch.x[:, mask[0]].numpy().T)
    assert_allclose(np.diag(covariance), err[0, mask[0]] ** 2, rtol=0.06)
    assert_allclose(covariance[1, 0], 0.03**2, atol=1e-4)  # [Fe/Mg] and [C/Mg] share [Mg/Fe]
    assert_allclose(covariance[2, 3], -(0.03**2), atol=2e-4)  # [He/Mg] and [Mg/H]


# -- covariances ----------------------------------------------------------------------------------


def covariance(scale=0.05, rho=0.6, k=4):
    return scale**2 * (rho * np.ones((k, k)) + (1 - rho) * np.eye(k))


FOUR = {"elements": ["Fe", "Mg", "O", "Si"]}


def test_noise_follows_a_given_covariance():
    c = covariance()
    simulator = get_simulator("chempy", **FOUR, covariance=c.tolist(), noise="fixed")
    for batch in (
        simulator.observe(many(simulator), 1),
        get_simulator("chempy", **FOUR, noise="fixed").observe(many(simulator), 1, x_cov=c),
    ):
        assert_allclose(np.cov(batch.x.numpy().T), c, atol=6 * 0.0025 / np.sqrt(N))
        assert_allclose(batch.x_err, 0.05, rtol=1e-6)


def test_every_star_may_have_its_own_covariance(tmp_path):
    both = np.stack([covariance(0.02, 0.5), covariance(0.2, -0.2)])
    np.save(tmp_path / "cov.npy", both)
    simulator = get_simulator("chempy", **FOUR, covariance=str(tmp_path / "cov.npy"))
    batch = simulator.observe(many(simulator), 1)
    errors = np.unique(batch.x_err[batch.mask].numpy().round(6))
    assert_allclose(errors, [0.02, 0.2])
    assert simulator.order_matters
    assert not get_simulator("chempy", **FOUR).order_matters
    two = Batch(x=torch.zeros(2, 4), theta=torch.tensor(THETA))
    assert_allclose(simulator.observe(two, 1, x_cov=both).x_err.nan_to_num(0.02)[0], 0.02)


def test_like_data_correlations_are_kept_and_errors_are_the_datas():
    c = covariance(0.05, 0.6)
    simulator = get_simulator("chempy", **FOUR, covariance=c.tolist())
    like = Batch(x=torch.zeros(1, 4), x_err=torch.full((1, 4), 0.1))
    batch = simulator.observe_like(many(simulator), like, 3)
    assert_allclose(np.corrcoef(batch.x.numpy().T)[0, 1], 0.6, atol=5 / np.sqrt(N))
    assert_allclose(batch.x.std(0), 0.1, rtol=0.03)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.eye(3), r"shape \(3, 3\); the 4 observed abundances \(fe_h, mg_fe, o_fe, si_fe\)"),
        (np.full((4, 4), np.nan), "covariance is not finite"),
        (np.arange(16.0).reshape(4, 4), "not symmetric"),
        (np.ones((4, 4)) - 2 * np.eye(4), "not positive definite"),
        (np.stack([np.eye(4), -np.eye(4)]), "covariance of star 1 is not positive definite"),
    ],
)
def test_covariances_that_make_no_sense_are_refused(given, message):
    simulator = get_simulator("chempy", **FOUR)
    with pytest.raises(ObservationError, match=message):
        simulator.observe(Batch(x=torch.zeros(2, 4), theta=torch.tensor(THETA)), 1, x_cov=given)


def test_covariance_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(DataFileError, match="cov.npy"):
        get_simulator("chempy", covariance=str(tmp_path / "cov.npy"))
    with pytest.raises(ConfigError, match=r"shape \(2, 2\)"):
        get_simulator("chempy", covariance=[[1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(ObservationError, match="1 matrices for 2 rows"):
        get_simulator("chempy").observe(
            Batch(x=torch.zeros(2, 8), theta=torch.tensor(THETA)), 1, x_cov=np.eye(8)[None]
        )


# -- reading --------------------------------------------------------------------------------------


def stars(**columns):
    return Table({name: np.atleast_1d(value).astype(float) for name, value in columns.items()})


def read(table, tmp_path, **options):
    table.write(tmp_path / "stars.ecsv", overwrite=True)
    return get_simulator("chempy", **options).read_observations(tmp_path / "stars.ecsv")


FE_FRAME = {"fe_h": -0.5, "mg_fe": 0.3, "o_fe": 0.4}
FE_ERRORS = {"e_fe_h": 0.04, "e_mg_fe": 0.03, "e_o_fe": 0.06}
MG = {"reference": "Mg", "elements": ["Fe", "Mg", "O"]}


def test_x_fe_is_read_as_x_mg_with_propagated_errors(tmp_path):
    got = read(stars(**FE_FRAME, **FE_ERRORS), tmp_path, **MG)
    assert_allclose(got.batch.x[0], [-0.3, -0.2, 0.1], atol=1e-6)
    want = [0.03, np.hypot(0.03, 0.04), np.hypot(0.06, 0.03)]
    assert_allclose(got.batch.x_err[0], want, rtol=1e-6)
    assert "'o_fe' converted to [X/Mg] with 'mg_fe'" in got.notes


def test_x_h_is_read_as_x_mg(tmp_path):
    table = stars(fe_h=-0.5, mg_h=-0.2, o_h=-0.1, e_fe_h=0.03, e_mg_h=0.04, e_o_h=0.12)
    got = read(table, tmp_path, **MG)
    assert_allclose(got.batch.x[0], [-0.3, -0.2, 0.1], atol=1e-6)
    assert_allclose(got.batch.x_err[0], [0.05, 0.04, np.hypot(0.12, 0.04)], rtol=1e-6)


def test_x_mg_is_read_as_x_fe(tmp_path):
    table = stars(fe_mg=-0.3, mg_h=-0.2, o_mg=0.1, e_fe_mg=0.03, e_mg_h=0.05, e_o_mg=0.04)
    got = read(table, tmp_path, elements=["Fe", "Mg", "O"])
    assert_allclose(got.batch.x[0], [-0.5, 0.3, 0.4], atol=1e-6)
    assert_allclose(got.batch.x_err[0, 1:], [0.03, 0.05], rtol=1e-6)


def test_stars_without_errors_have_larger_ones_relative_to_mg(tmp_path):
    got = read(stars(**FE_FRAME), tmp_path, **MG)
    assert_allclose(got.batch.x_err[0], [0.05, 0.05 * 2**0.5, 0.05 * 2**0.5], rtol=1e-6)
    direct = read(stars(fe_mg=-0.3, mg_h=-0.2, o_mg=0.1), tmp_path, **MG)
    assert_allclose(direct.batch.x_err, got.batch.x_err, rtol=1e-6)
    assert any("no errors" in note for note in direct.notes)


def test_a_column_that_nothing_converts_is_named(tmp_path):
    with pytest.raises(ObservationError, match="'o_fe' is .X/Fe., which needs a column 'mg_fe'"):
        read(stars(o_fe=0.4, fe_h=-0.5), tmp_path, reference="Mg", elements=["O"])


def test_the_example_can_be_written_and_read_back(tmp_path):
    simulator = get_simulator("chempy", **MG)
    made = simulator.example_observations(1, 20)
    made.write(tmp_path / "mock.ecsv")
    again = simulator.read_observations(tmp_path / "mock.ecsv")
    assert_allclose(again.batch.x, made.batch.x, rtol=1e-5)
    assert_allclose(again.batch.x_err, made.batch.x_err, rtol=1e-5)
