"""A fixed set of simulations as a simulator: each row once, copies together."""

import numpy as np
import pytest
from astropy import units
from astropy.table import Table
from numpy.testing import assert_array_equal

from sbi_core import Parameter, ParameterSpace, Prior
from sbi_core.data.simulations import Simulations, open_simulations
from sbi_core.data.tables import as_table
from sbi_core.errors import ConfigError, ObservationError, SimulationError
from sbi_core.simulate.arrays import ArraySimulator, SimulationsConfig, split_keys, units_of

SPACE = ParameterSpace(
    tuple(Parameter(n, Prior("uniform", {"low": 0, "high": 1})) for n in ("a", "b"))
)
N = 300


@pytest.fixture
def arrays(rng):
    return rng.uniform(size=(N, 2)), rng.standard_normal((N, 3))


def keys(theta, x, space=SPACE, group=None, **more):
    return split_keys(Simulations.of(theta, x, group=group), space, **more)


def test_without_copies_every_simulation_is_a_unit(arrays):
    assert len(np.unique(keys(*arrays))) == N
    assert (keys(*arrays) >= 0).all()


def test_copies_share_a_unit(arrays):
    theta, x = arrays
    theta[7], x[9] = theta[3], x[3]  # the same parameters, the same data
    theta[20:23], x[20:23] = theta[30], x[31]  # a chain: all of them
    found = keys(theta, x)
    assert found[7] == found[3] == found[9]
    assert len({*found[20:23], found[30], found[31]}) == 1
    assert len(np.unique(found)) == N - 2 - 4


def rounded(values, digits=5):
    return np.array([[float(f"{v:.{digits}g}") for v in row] for row in values])


def test_copies_that_were_rounded_share_a_unit(rng):
    theta, x = rng.uniform(size=(1000, 2)), rng.standard_normal((1000, 30))
    both = np.r_[theta, rounded(theta[:300])], np.r_[x, rounded(x[:300])]
    found, near, _ = units_of(Simulations.of(*both), SPACE)
    assert near == 600
    assert_array_equal(found[1000:], found[:300])
    assert len(np.unique(found)) == 1000


@pytest.mark.parametrize("kind", ["counts", "other noise"])
def test_parameters_that_were_rounded_share_a_unit(kind, rng):
    theta = rng.uniform(0.1, 0.9, (400, 2)).repeat(3, axis=0)
    x = (
        rng.poisson(50 * theta)
        if kind == "counts"
        else theta + 0.1 * rng.standard_normal((1200, 2))
    )
    x[1::3] = x[::3] if kind == "counts" else x[1::3]
    found, near, _ = units_of(Simulations.of(theta + 1e-6 * rng.uniform(size=(1200, 2)), x), SPACE)
    assert (len(np.unique(found)), near) == (400, 1200)


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_values_over_decades_are_no_copies(noise, rng):
    mass = 10 ** rng.uniform(6, 12, (3000, 1))
    space = ParameterSpace((Parameter("m", Prior("loguniform", {"low": 1e6, "high": 1e12})),))
    flux = mass * [1.0, 2.0, 3.0] * np.exp(noise * rng.standard_normal((3000, 3)))
    found, near, _ = units_of(Simulations.of(mass, flux), space)
    assert (len(np.unique(found)), near) == (3000, 0)


def test_copies_of_values_over_decades_share_a_unit(rng):
    mass = 10 ** rng.uniform(6, 12, (3000, 1))
    space = ParameterSpace((Parameter("m", Prior("loguniform", {"low": 1e6, "high": 1e12})),))
    flux = mass * np.exp(0.3 * rng.standard_normal((3000, 3)))
    twice = np.r_[mass, mass[:500] * (1 - 1e-6)], np.r_[flux, flux[:500] * (1 + 1e-6)]
    found = units_of(Simulations.of(*twice), space).keys
    assert_array_equal(found[3000:], found[:500])
    assert len(np.unique(found)) > 2900


@pytest.mark.parametrize("d", [1, 2])
def test_neighbours_in_a_dense_set_without_noise_are_no_copies(d, rng):
    space = ParameterSpace(SPACE.parameters[:d])
    theta = rng.uniform(size=(4000, d))
    x = np.sin(theta @ rng.standard_normal((d, 5)))
    found, near, _ = units_of(Simulations.of(theta, x), space)
    assert (near, len(np.unique(found))) == (0, 4000)
    # copies in such a set are found among the neighbours, if there are more of them
    if d == 2:
        twice = np.r_[theta, rounded(theta)], np.r_[x, rounded(x)]
        assert units_of(Simulations.of(*twice), space)[1] == 8000


def test_keys_do_not_depend_on_the_order_or_on_further_rows(arrays, rng):
    theta, x = arrays
    order = rng.permutation(N)
    assert_array_equal(keys(theta[order], x[order]), keys(theta, x)[order])
    assert_array_equal(keys(theta[:200], x[:200]), keys(theta, x)[:200])


def test_groups_stay_together_whatever_their_type(arrays):
    number = np.arange(N) // 10
    words = np.asarray([f"galaxy {k}" for k in number])
    for group in (number, words, words.astype(object)):
        found = keys(*arrays, group=group)
        assert len(np.unique(found)) == N // 10
        assert_array_equal(np.unique(found[number == 4]), found[40])


def test_frequent_data_and_counts_are_no_copies(arrays, rng):
    theta, x = arrays
    x[:60] = 0.0  # nothing detected in a fifth of the simulations
    assert len(np.unique(keys(theta, x))) == N
    assert len(np.unique(keys(theta, rng.poisson(3, (N, 1))))) == N
    theta[5], counts = theta[6], rng.poisson(3, (N, 1))
    assert len(np.unique(keys(theta, counts))) == N - 1


def test_equal_values_of_discrete_parameters_are_no_copies(rng):
    space = ParameterSpace((Parameter("k", Prior("integer", {"low": 1, "high": 4})),))
    theta, x = rng.integers(1, 5, (N, 1)), rng.standard_normal((N, 2))
    x[3], theta[3] = x[4], theta[4]
    assert len(np.unique(keys(theta, x, space))) == N - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, x: t.__setitem__((3, 1), np.nan), r"theta has 1 value .* 1 row .*row 3, 'b'"),
        (lambda t, x: t.__setitem__((slice(2), 0), 1.5), r"outside the prior in 2 rows.*a = 1.5"),
        (lambda t, x: x.__setitem__(([5, 8, 8], [0, 1, 2]), np.nan), r"x has 3 values .* 2 rows"),
        (lambda t, x: x.__setitem__((5, 0), np.inf), r"x has 1 value .*row 5, number 0"),
        (
            lambda t, x: x.__iadd__(2.46e6),
            r"number \d of x .* has steps of 0.25; subtract 24600",
        ),
    ],
)
def test_values_that_cannot_be_used_are_counted(arrays, change, message):
    theta, x = arrays
    change(theta, x)
    with pytest.raises(ObservationError, match=message):
        keys(theta, x)


def simulator(arrays, **options):
    made = Simulations.of(*arrays)
    config = SimulationsConfig(
        parameters=SPACE.to_spec()["parameters"],
        observables=["u", "v", "w"],
        shape=[3],
        **options,
    )
    return ArraySimulator(config, made)


def test_every_simulation_is_handed_out_once(arrays):
    theta, x = arrays
    parts = [simulator(arrays).stored_rows(k, k + 100) for k in range(0, N, 100)]
    assert_array_equal(np.concatenate([p.theta.numpy() for p in parts]), theta)
    assert_array_equal(np.concatenate([p.x.numpy() for p in parts]), x)
    drawn = simulator(arrays).draw(50, 1)
    known = dict(zip(map(tuple, theta), keys(theta, x), strict=True))
    assert [known[tuple(t)] for t in drawn.theta.numpy()] == drawn.split_key.tolist()


def test_gaps_are_left_out_or_masked(arrays):
    arrays[1][4, 1] = arrays[1][6] = np.nan
    dropped = simulator(arrays, nan="drop").stored_rows(0, 10)
    assert np.flatnonzero(~dropped.ok.numpy()).tolist() == [4, 6]
    masked = simulator(arrays, nan="missing").stored_rows(0, 10)
    assert np.flatnonzero(~masked.ok.numpy()).tolist() == [6]
    assert masked.mask[4].tolist() == [True, False, True]


def test_noise_is_fresh_and_has_the_given_size(arrays):
    made = simulator(arrays, noise=[0.1, 1.0, 10.0])
    clean = made.stored_rows(0, N)
    one, two = made.observe(clean, 1), made.observe(clean, 2)
    assert not np.allclose(one.x, two.x)
    np.testing.assert_allclose((one.x - clean.x).std(0), [0.1, 1, 10], rtol=0.2)
    np.testing.assert_allclose(one.x_err[0], [0.1, 1, 10])
    for noise in ([0.1, 0.2], [0.0]):
        with pytest.raises((ConfigError, ValueError)):
            simulator(arrays, noise=noise)


def test_new_simulations_are_refused_in_one_sentence(arrays):
    with pytest.raises(SimulationError, match="needs new simulations.*new-plugin"):
        simulator(arrays).simulate(arrays[0][:2], 1)


def test_objects_come_as_arrays_of_the_right_shape(arrays):
    made = simulator(arrays, noise=[0.1])
    assert made.objects_of({"x": [1.0, 2, 3]}).batch.x.shape == (1, 3)
    objects = made.objects_of({"x": arrays[1][:4], "x_err": np.full((4, 3), 0.2)})
    np.testing.assert_allclose(objects.batch.x_err, 0.2)
    with pytest.raises(ObservationError, match=r"x has shape \(1, 4\), expected \(objects, 3\)"):
        made.objects_of({"x": [[1.0, 2, 3, 4]]})
    with pytest.raises(ObservationError, match="1 value not observed"):
        made.objects_of({"x": [1.0, np.nan, 3]})


def test_infinite_values_are_no_gaps(arrays):
    theta, x = arrays
    x[5, 0] = -np.inf
    for nan in ("drop", "missing"):
        with pytest.raises(ObservationError, match="1 value that is infinite.* write NaN where"):
            keys(theta, x, nan=nan)


def test_one_object_comes_with_its_errors(arrays):
    x, err = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
    made = simulator(arrays, errors=True)
    for errors in (err, 0.4):
        objects = made.observations_of(as_table({"x": x, "x_err": errors}), "memory")
        np.testing.assert_allclose(objects.batch.x, [x])
        np.testing.assert_allclose(objects.batch.x_err, np.broadcast_to(errors, (1, 3)))
    for given in ({"x": x}, dict(zip("uvw", x, strict=True))):
        with pytest.raises(ObservationError, match="the objects have none: give them as x_err"):
            made.observations_of(as_table(given), "memory")


def test_arrays_with_a_unit_are_converted(arrays):
    made = simulator(arrays, units=["km / s"] * 3)
    for x in (np.ones(3), np.ones((2, 3))):
        table = as_table({"x": x * units.m / units.s})
        np.testing.assert_allclose(made.observations_of(table, "memory").batch.x, 1e-3)
    with pytest.raises(ObservationError, match="x has unit 's', expected 'km / s'"):
        made.observations_of(as_table({"x": np.ones(3) * units.s}), "memory")


def test_a_column_that_is_not_there_is_named(arrays):
    made = simulator(arrays)
    table = Table({"u": [0.1], "vv": [0.2], "w": [0.3]})
    with pytest.raises(ObservationError, match=r"no column 'v'; did you mean.*\(columns: u, vv, w"):
        made.observations_of(table, "mine.csv")
    with_gaps = simulator(arrays, nan="missing").observations_of(table, "mine.csv")
    np.testing.assert_array_equal(with_gaps.batch.mask, [[True, False, True]])


def test_a_vector_column_is_read_in_simulations_and_objects(arrays, tmp_path):
    theta, x = arrays
    table = Table({"a": theta[:, 0], "b": theta[:, 1], "flux": x, "e_flux": np.full_like(x, 0.1)})
    table.write(tmp_path / "sims.fits")
    stored = open_simulations(tmp_path / "sims.fits", ("a", "b"))
    options = {"observables": list(stored.observables), "shape": [3], "errors": True}
    config = SimulationsConfig(parameters=SPACE.to_spec()["parameters"], **options)
    objects = ArraySimulator(config, stored).read_observations(tmp_path / "sims.fits")
    np.testing.assert_allclose(objects.batch.x, x, rtol=1e-6)
    np.testing.assert_allclose(objects.batch.x_err, 0.1, rtol=1e-6)
