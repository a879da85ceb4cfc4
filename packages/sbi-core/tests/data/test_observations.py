"""Observations: what is checked, and what survives a file."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from sbi_core.data.batch import Batch
from sbi_core.data.chunks import read_observations
from sbi_core.data.observations import Observable, Observations, holds_arrays
from sbi_core.errors import DataFileError, ObservationError

OBSERVABLES = (Observable("a", unit="dex"), Observable("b"), Observable("c", unit="Jy"))


@pytest.fixture
def mock(rng):
    """Five mock objects in two groups; one element of one of them was not observed."""
    mask = np.ones((5, 3), bool)
    mask[2, 1] = False
    batch = Batch(
        x=np.where(mask, rng.normal(size=(5, 3)), np.nan).astype(np.float32),
        x_err=np.where(mask, 0.1, np.nan).astype(np.float32),
        mask=mask,
        theta=rng.normal(size=(5, 2)),
        context=rng.uniform(size=(5, 1)).astype(np.float32),
    )
    return Observations.from_batch(
        batch,
        id=["p", "q", "r", "s", "t"],
        group=["one", "two", "one", "two", "two"],
        observables=OBSERVABLES,
        context_names=("redshift",),
        truth_names=("alpha", "beta"),
        source="a test",
    )


def test_identifiers_default_to_row_numbers_and_one_group(rng):
    plain = Observations.from_batch(Batch(x=rng.normal(size=(3, 2))))
    assert plain.id.tolist() == ["0", "1", "2"]
    assert plain.group.tolist() == ["all"] * 3
    assert plain.truth is None


def test_groups_keep_the_order_of_first_appearance(mock):
    assert {k: v.tolist() for k, v in mock.groups.items()} == {"one": [0, 2], "two": [1, 3, 4]}
    assert list(mock.groups) == ["one", "two"]


def test_truth_is_given_by_name(mock):
    assert_allclose(mock.truth["beta"], mock.batch.theta[:, 1])


@pytest.mark.parametrize("rows", [2, slice(1, 3), [3, 1], np.array([True, False] * 2 + [True])])
def test_rows_take_everything_with_them(rows, mock):
    part = mock[rows]
    assert part.id.tolist() == np.atleast_1d(mock.id[rows]).tolist()
    assert len(part) == len(part.group) == len(part.batch)
    assert part.observables == OBSERVABLES
    want = np.atleast_2d(mock.batch.x.numpy()[rows])
    assert_array_equal(part.batch.x, want)


@pytest.mark.filterwarnings("ignore:The unit 'dex' could not be saved in native FITS")
@pytest.mark.parametrize("suffix", [".ecsv", ".csv", ".fits", ".vot"])
def test_a_table_brings_values_errors_groups_and_gaps_back(suffix, mock, tmp_path):
    path = tmp_path / f"mock{suffix}"
    mock.write(path)
    again = read_observations(path, OBSERVABLES)
    assert_allclose(again.batch.x, mock.batch.x, rtol=1e-6)
    assert_allclose(again.batch.x_err, mock.batch.x_err, rtol=1e-6)
    assert_array_equal(again.batch.observed, mock.batch.observed)
    assert again.id.tolist() == mock.id.tolist()
    assert again.group.tolist() == mock.group.tolist()


def test_the_table_has_units_context_and_truth(mock):
    table = mock.to_table()
    assert table.colnames == [
        "id", "group", "a", "e_a", "b", "e_b", "c", "e_c", "redshift", "true_alpha", "true_beta",
    ]  # fmt: skip
    assert table["a"].unit == "dex"
    assert table["e_c"].unit == "Jy"
    assert table["b"].unit is None


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".hdf5"])
def test_an_array_file_brings_everything_back(suffix, mock, tmp_path):
    path = tmp_path / f"mock{suffix}"
    mock.write(path)
    assert holds_arrays(path)
    for again in (Observations.read(path), read_observations(path, OBSERVABLES)):
        for name, value in mock.batch.numpy().items():
            assert_array_equal(again.batch.numpy()[name], value)
        assert again.id.tolist() == mock.id.tolist()
        assert again.group.tolist() == mock.group.tolist()
        assert [o.unit for o in again.observables] == ["dex", "", "Jy"]
        assert_allclose(again.truth["beta"], mock.truth["beta"])
        assert again.context_names == ("redshift",)


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_array_files_hold_data_of_any_shape(suffix, rng, tmp_path):
    images = Observations.from_batch(Batch(x=rng.normal(size=(3, 2, 4, 4)).astype(np.float32)))
    images.write(tmp_path / f"images{suffix}")
    again = Observations.read(tmp_path / f"images{suffix}")
    assert_array_equal(again.batch.x, images.batch.x)
    assert again.id.tolist() == ["0", "1", "2"]
    assert again.truth is None


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_other_array_files_are_told_apart(suffix, tmp_path):
    import h5py

    path = tmp_path / f"other{suffix}"
    if suffix == ".npz":
        np.savez(path, abundances=np.zeros(3))
    else:
        with h5py.File(path, "w") as f:
            f["table"] = np.zeros(3)
    assert not holds_arrays(path)
    with pytest.raises(DataFileError, match="not a file of observations: it lacks context_names"):
        Observations.read(path)


def test_a_pickle_in_an_array_file_is_not_executed(tmp_path, hostile):
    path = tmp_path / "bad.npz"
    np.savez(path, x=np.array([hostile], dtype=object), id=np.array(["a"]))
    assert not holds_arrays(path)
    with pytest.raises(DataFileError, match="cannot be read"):
        Observations.read(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a file", b"garbage"])
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_damaged_array_files_are_refused(content, suffix, tmp_path):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataFileError, match="cannot be read"):
        Observations.read(path)


def test_an_unknown_suffix_is_refused_when_writing(mock, tmp_path):
    with pytest.raises(ObservationError, match="unknown format '.docx'"):
        mock.write(tmp_path / "mock.docx")


def test_images_have_no_table_form(rng, tmp_path):
    images = Observations.from_batch(Batch(x=rng.normal(size=(3, 2, 4))))
    with pytest.raises(ObservationError, match="no table form; write npz or HDF5"):
        images.write(tmp_path / "images.ecsv")


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_a_file_is_not_replaced_unless_asked(suffix, mock, tmp_path):
    path = tmp_path / f"mock{suffix}"
    mock.write(path)
    with pytest.raises(ObservationError, match="pass overwrite=True"):
        mock.write(path)
    mock.write(path, overwrite=True)


def test_a_table_is_not_replaced_unless_asked_either(mock, tmp_path):
    mock.write(tmp_path / "mock.ecsv")
    with pytest.raises(ObservationError, match="pass overwrite=True"):
        mock.write(tmp_path / "mock.ecsv")
    mock.write(tmp_path / "mock.ecsv", overwrite=True)


def test_repeated_identifiers_are_refused(rng):
    with pytest.raises(ObservationError, match=r"1 id in more than one row.*'x' in rows"):
        Observations.from_batch(Batch(x=rng.normal(size=(3, 1))), id=["x", "y", "x"])


@pytest.mark.parametrize("field", ["id", "group"])
def test_lengths_that_disagree_are_refused(field, rng):
    with pytest.raises(ObservationError, match=f"'{field}' has shape"):
        Observations.from_batch(Batch(x=rng.normal(size=(3, 1))), **{field: ["only", "two"]})


def test_a_value_that_is_not_finite_is_named_with_row_and_column(rng):
    x = rng.normal(size=(4, 3))
    x[1, 2] = np.nan
    x[3, 2] = np.inf
    with pytest.raises(ObservationError, match=r"value of 'c' is nan in row 1.*2 rows: 1, 3"):
        Observations.from_batch(Batch(x=x), observables=OBSERVABLES)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_an_error_that_is_not_positive_is_named(value):
    err = np.full((4, 3), 0.1)
    err[2, 0] = value
    with pytest.raises(ObservationError, match="error of 'a' is .* in row 2.*finite and positive"):
        Observations.from_batch(Batch(x=np.zeros((4, 3)), x_err=err), observables=OBSERVABLES)


def test_what_was_not_observed_may_be_anything():
    mask = np.array([[True, False]])
    batch = Batch(x=[[1.0, np.nan]], x_err=[[0.1, -5.0]], mask=mask)
    assert len(Observations.from_batch(batch)) == 1


def test_no_objects_are_fine():
    none = Observations.from_batch(Batch(x=torch.empty(0, 3)))
    assert len(none) == 0
    assert none.groups == {}


def test_the_repr_counts_objects_and_groups(mock):
    assert repr(mock) == "Observations(n=5, groups=2, source='a test')"
