"""Fixed sets of simulations: in memory and in files."""

import h5py
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.table import Table
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.data.simulations import Simulations, open_simulations
from sbi_core.errors import DataFileError, ObservationError

THETA = np.random.default_rng(1).uniform(size=(120, 2))
X = np.random.default_rng(2).standard_normal((120, 3))
NAMES = ("a", "b")


def columns(**more):
    data = {"id": np.arange(120), "a": THETA[:, 0], "b": THETA[:, 1]}
    return Table({**data, "u": X[:, 0], "v": X[:, 1], "w": X[:, 2], **more})


def test_a_set_in_memory_is_read_in_parts():
    made = Simulations.of(columns()["a", "b"], X, group=np.arange(120) // 2)
    assert (len(made), made.names, made.observables) == (120, NAMES, ())
    part = made.read(10, 20)
    assert_array_equal(part["theta"], THETA[10:20])
    assert_array_equal(part["group"], np.arange(10, 20) // 2)


def test_the_hash_follows_the_content():
    one = Simulations.of(THETA, X).sha256
    assert one == Simulations.of(THETA.copy(), X).sha256
    assert one != Simulations.of(THETA, X + 1e-9).sha256
    assert one != Simulations.of(THETA, X, group=np.arange(120)).sha256


@pytest.mark.parametrize(
    ("theta", "x", "more", "message"),
    [
        (THETA[:50], X, {}, "theta has 50 rows, x has 120"),
        (THETA[:50], X[:50], {}, "50 simulations are too few"),
        (THETA[:, :0], X, {}, "theta has shape"),
        (THETA, X, {"x_err": X[:, :2]}, "x_err has shape"),
        (THETA, X, {"group": np.arange(3)}, "group has 3 rows"),
        (THETA, X, {"group": np.zeros((120, 2))}, r"group has shape \(120, 2\)"),
        (THETA, X, {"group": columns()["a", "b"]}, r"group has shape \(120, 2\)"),
        (THETA, X, {"group": "cosmology"}, "group is 'cosmology'; give an array"),
        (THETA, X + 1j, {}, "x has complex numbers"),
        (THETA, X, {"group": ["a", None] * 60}, "missing in 60 rows .first: row 1"),
        (THETA, X, {"group": [np.nan, *range(119)]}, "missing in 1 row "),
        (THETA, X, {"group": np.ma.array(np.ones(120), mask=[1] + [0] * 119)}, "missing in 1 row "),
    ],
)
def test_shapes_that_disagree_are_refused_in_one_sentence(theta, x, more, message):
    with pytest.raises(ObservationError, match=message):
        Simulations.of(theta, x, **more)


@pytest.mark.parametrize("suffix", ["csv", "fits", "parquet", "ecsv"])
def test_a_table_has_parameters_and_data_by_name(suffix, tmp_path):
    path = tmp_path / f"sims.{suffix}"
    errors = {f"e_{n}": np.full(120, 0.1) for n in "uvw"}
    columns(**errors, halo=np.arange(120) // 4).write(path)
    made = open_simulations(path, NAMES, "halo")
    assert made.observables == ("u", "v", "w")
    assert_allclose(made.theta[:], THETA)
    assert_allclose(made.x[:], X)
    assert_allclose(made.x_err[:], 0.1)
    assert_array_equal(made.group[:], np.arange(120) // 4)


@pytest.mark.parametrize("name", ["", "Unnamed: 0"])
def test_the_row_numbers_of_a_data_frame_are_no_data(name, tmp_path):
    plain = columns()
    plain.remove_column("id")
    rows = "\n".join(f"{5 * k},{a},{b},{u}" for k, (a, b, u, *_) in enumerate(plain))
    (tmp_path / "sims.csv").write_text(f"{name},a,b,u\n{rows}\n")
    assert open_simulations(tmp_path / "sims.csv", NAMES).observables == ("u",)
    plain["__index_level_0__"] = np.arange(120)[::-1]
    plain.write(tmp_path / "sims.ecsv")
    assert open_simulations(tmp_path / "sims.ecsv", NAMES).observables == ("u", "v", "w")


def test_an_empty_cell_of_the_group_is_refused(tmp_path):
    columns(halo=["", *"xyz" * 39, "x", "y"]).write(tmp_path / "sims.csv")
    with pytest.raises(ObservationError, match=r"group is missing in 1 row \(first: row 0"):
        open_simulations(tmp_path / "sims.csv", NAMES, "halo")


@pytest.mark.parametrize("suffix", ["npz", "h5"])
def test_arrays_are_theta_and_x(suffix, tmp_path):
    path = tmp_path / f"sims.{suffix}"
    arrays = {"theta": THETA, "x": X[:, :, None], "cosmology": np.arange(120) // 3}
    if suffix == "npz":
        np.savez(path, **arrays)
    else:
        with h5py.File(path, "w") as f:
            for name, value in arrays.items():
                f[name] = value
    made = open_simulations(path, NAMES, "cosmology")
    assert made.x.shape == (120, 3, 1)
    assert_array_equal(made.read(5, 9)["x"], X[5:9, :, None])
    assert_array_equal(made.read(5, 9)["group"], np.arange(5, 9) // 3)


def test_hdf5_is_not_read_as_a_whole(tmp_path, monkeypatch):
    path = tmp_path / "sims.h5"
    with h5py.File(path, "w") as f:
        f["theta"], f["x"] = THETA, X
    made = open_simulations(path, NAMES)
    read = list[int]()
    get = h5py.Dataset.__getitem__
    monkeypatch.setattr(
        h5py.Dataset, "__getitem__", lambda s, k: read.append(len(get(s, k))) or get(s, k)
    )
    made.read(100, 110)
    assert read == [10, 10]


def test_a_file_that_does_not_fit_is_refused_in_one_sentence(tmp_path):
    columns().write(tmp_path / "sims.csv")
    columns(e_u=np.ones(120)).write(tmp_path / "half.csv")
    np.savez(tmp_path / "sims.npz", theta=THETA, x=X)
    np.savez(tmp_path / "lost.npz", theta=THETA)
    for name, names, options, error, message in (
        ("sims.csv", ("a", "B", "omega"), {}, ObservationError, "no column 'omega', a parameter"),
        ("sims.csv", NAMES, {"group_column": "hallo"}, ObservationError, "no column 'hallo'"),
        ("half.csv", NAMES, {}, ObservationError, "'v' has no error column 'e_v'"),
        ("sims.npz", ("a",), {}, ObservationError, "theta has 2 columns, the prior 1"),
        ("lost.npz", NAMES, {}, DataFileError, "lacks the array x"),
        ("none.npz", NAMES, {}, DataFileError, "does not exist"),
        ("none.h5", NAMES, {}, DataFileError, "does not exist"),
    ):
        with pytest.raises(error, match=message):
            open_simulations(tmp_path / name, names, **options)


def test_words_among_numbers_are_refused_and_columns_of_words_left_out(tmp_path, rng):
    table = Table(rng.uniform(size=(200, 3)), names=["a", "m", "n"])
    table["m"] = table["m"].astype(str)
    table["m"][7] = "bad"
    table["kind"] = "spiral"
    table.write(tmp_path / "sims.csv")
    with pytest.raises(ObservationError, match=r"column 'm' has 1 word .*first: row 7, 'bad'"):
        open_simulations(tmp_path / "sims.csv", ("a",))
    assert open_simulations(tmp_path / "sims.csv", ("a",), "", ["n"]).observables == ("n",)
    table.remove_column("m")
    table.write(tmp_path / "sims.csv", overwrite=True)
    assert open_simulations(tmp_path / "sims.csv", ("a",)).observables == ("n",)


def test_arrays_of_words_are_refused_in_one_sentence(tmp_path):
    np.savez(tmp_path / "sims.npz", theta=np.zeros((200, 1)), x=np.full((200, 2), "a"))
    with pytest.raises(ObservationError, match="x does not consist of numbers"):
        open_simulations(tmp_path / "sims.npz", ("a",))


def test_rows_with_labels_in_another_order_are_refused():
    theta, x = pd.DataFrame(THETA, columns=NAMES), pd.DataFrame(X)
    mixed = theta.iloc[::-1]
    with pytest.raises(
        ObservationError, match="row 0 of theta has the label '119', row 0 of x '0'"
    ):
        Simulations.of(mixed, x)
    labelled = xr.DataArray(X, dims=("row", "column"), coords={"row": np.arange(120)})
    with pytest.raises(ObservationError, match="row 0 of theta has the label '119'"):
        Simulations.of(mixed, labelled)
    for other in (x.set_index(np.arange(1000, 1120)), X, x.iloc[::-1]):
        assert_array_equal(Simulations.of(mixed, other).theta, THETA[::-1])


def test_parameters_and_errors_are_converted_to_the_units_of_prior_and_data(tmp_path):
    table = columns(e_u=X[:, 0] ** 2, e_v=X[:, 1] ** 2, e_w=X[:, 2] ** 2)
    for name, unit in {"a": "Myr", "u": "km / s", "e_u": "m / s"}.items():
        table[name].unit = unit
    table.write(tmp_path / "sims.ecsv")
    made = open_simulations(tmp_path / "sims.ecsv", NAMES)
    in_memory = Simulations.of(table["a", "b"], table["u", "v"], table["e_u", "e_v"])
    for simulations in (made, in_memory):
        assert_allclose(simulations.x_err[:, 0], 1e-3 * X[:, 0] ** 2)
        assert_allclose(simulations.x_err[:, 1], X[:, 1] ** 2)
        theta = simulations.in_units_of(NAMES, ("Gyr", "dex")).theta
        assert_allclose(theta, THETA * [1e-3, 1.0])
        assert_array_equal(simulations.in_units_of(NAMES, ("", "")).theta, THETA)
    with pytest.raises(ObservationError, match="'a' has unit 'Myr', expected 'mag'"):
        made.in_units_of(NAMES, ("mag", ""))
