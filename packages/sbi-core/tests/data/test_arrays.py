"""Arrays and tables of any library as numbers with names."""

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from astropy import units
from astropy.table import QTable, Table
from numpy.testing import assert_array_equal

from sbi_core.data.arrays import numbers_of
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
