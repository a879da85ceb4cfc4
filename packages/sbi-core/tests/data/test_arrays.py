"""Arrays and tables of any library as numbers with names."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from astropy import units
from astropy.table import QTable, Table
from numpy.testing import assert_array_equal

from sbi_core.data.arrays import numbers_of, parameters_of
from sbi_core.errors import ObservationError

VALUES = np.arange(6.0).reshape(3, 2)
NAMED = {"a": VALUES[:, 0], "b": VALUES[:, 1]}


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (VALUES, ()),
        (VALUES.tolist(), ()),
        (VALUES.astype(np.int32), ()),
        (torch.as_tensor(VALUES).requires_grad_(), ()),
        (NAMED, ("a", "b")),
        (pd.DataFrame(NAMED), ("a", "b")),
        (pd.DataFrame(NAMED, index=pd.Index(["x", "y", "z"], name="star")), ("a", "b")),
        (Table(NAMED), ("a", "b")),
        (QTable(NAMED, units={"a": units.mag}), ("a", "b")),
        (xr.Dataset({k: ("row", v) for k, v in NAMED.items()}), ("a", "b")),
        (xr.DataArray(VALUES, dims=("row", "column"), coords={"column": ["a", "b"]}), ("a", "b")),
        (xr.DataArray(VALUES), ()),
        (np.rec.fromarrays(list(NAMED.values()), names="a,b"), ("a", "b")),
    ],
)
def test_every_kind_of_array_is_read_with_its_names(data, names):
    values, found, _ = numbers_of(data, "theta")
    assert_array_equal(values, VALUES)
    assert found == names


def test_units_and_missing_cells_are_kept():
    table = Table({"a": np.ma.MaskedArray([1.0, 2.0], [False, True]), "v": np.ones((2, 3))})
    table["a"].unit = "mag"
    values, names, found = numbers_of(table, "x")
    assert_array_equal(values, [[1, 1, 1, 1], [np.nan, 1, 1, 1]])
    assert names == ("a", "v1", "v2", "v3")
    assert found == ("mag", "", "", "")


def test_one_axis_is_one_column_and_images_stay_images():
    assert numbers_of([1.0, 2.0], "x")[0].shape == (2, 1)
    assert numbers_of(np.zeros((4, 5, 6)), "x")[0].shape == (4, 5, 6)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pd.DataFrame({"a": ["one", "two"]}), "column 'a' of x does not consist of numbers"),
        ([[1.0], [1.0, 2.0]], "x does not consist of numbers, or its rows differ in length"),
        (3.0, "x is a single number"),
        (np.full((2, 2), np.datetime64("2020-01-01")), "x has dates or times; give numbers"),
        (object(), "x does not consist of numbers"),
    ],
)
def test_what_holds_no_numbers_is_refused_in_one_sentence(data, message):
    with pytest.raises(ObservationError, match=message):
        numbers_of(data, "x")


ROW = xr.DataArray([2.0, 1.0], dims=("column",), coords={"column": ["b", "a"]})


@pytest.mark.parametrize(
    "theta",
    [
        [1.0, 2.0],
        torch.tensor([1.0, 2.0]),
        pd.Series({"b": 2.0, "a": 1.0}),
        ROW,
        pd.DataFrame({"c": [0.0], "b": [2.0], "a": [1.0]}),
        {"b": 2.0, "a": 1.0},
        Table({"b": [2.0], "a": [1.0]}),
        QTable({"b": [2.0], "a": [1000.0] * units.Myr}),
        ROW.expand_dims(("draw", "object")),
    ],
)
def test_parameters_are_put_in_their_order_and_units(theta):
    values = parameters_of(theta, ("a", "b"), ("Gyr", ""))
    assert values.shape[-1] == 2
    assert_array_equal(values.ravel(), [1.0, 2.0])


def test_a_parameter_that_is_not_there_is_named():
    with pytest.raises(ObservationError, match=r"theta has no column 'b' \(columns: a, c\)"):
        parameters_of(pd.DataFrame({"a": [1.0], "c": [2.0]}), ("a", "b"), ("", ""))
    with pytest.raises(ObservationError, match="'a' has unit 'mag', expected 'Gyr'"):
        parameters_of(QTable({"a": [1.0] * units.mag}), ("a",), ("Gyr",))


def test_the_unit_of_an_array_is_kept_and_that_of_images_refused():
    assert numbers_of(VALUES * units.m, "x")[2] == ("m", "m")
    with pytest.raises(ObservationError, match="unit 'm'; of images give plain numbers"):
        numbers_of(np.ones((2, 3, 3)) * units.m, "x")
