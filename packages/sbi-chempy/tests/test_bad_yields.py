"""Yields that cannot be used, and parameters that no galaxy has: one clear sentence each."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from sbi_chempy.yields import read_yields, write_yields
from sbi_core import ConfigError, DataFileError, get_simulator

GOOD = [-2.3, -2.89, -0.3, 0.55, 0.5, 10.0]


@pytest.fixture
def changed(tmp_path, default_yields):
    """Write the default yields with some arrays of the file changed; return the option."""

    def change(**arrays):
        path = tmp_path / "mine.npz"
        write_yields(path, sn1a=default_yields.sn1a, tables=[default_yields.sn2])
        with np.load(path) as file:
            content = {k: file[k] for k in file.files}
        for key, value in arrays.items():
            if value is None:
                del content[key]
            else:
                content[key] = value(content[key].copy())
        np.savez(path, **content)
        return {"sn2": str(path), "sn1a": str(path)}

    return change


def put(row, column, value):
    def set_value(array):
        array[row, column] = value
        return array

    return set_value


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"sn2_1_yield": put(2, 1, np.nan)}, r"Z=0.004, row 2: yield is not finite"),
        ({"sn2_0_yield": put(0, 2, -1.5)}, r"row 0: net yield is below -1"),
        ({"sn2_0_wind": lambda w: w - 1}, r"row 0: wind is negative"),
        ({"sn2_0_remnant": lambda r: -r}, r"row 0: remnant is negative"),
        ({"ia_yield_msun": lambda y: -y}, r"SN Ia yield '.*': C is -.*, must be finite and >= 0"),
        ({"sn2_Z": lambda z: z[:-1]}, "metallicity grid mismatch in sn2: sn2_Z has 4 entries, but"),
        ({"sn2_Z": lambda z: z[::-1]}, "metallicities must be >= 0, sorted and unique"),
        ({"sn2_2_mass": lambda m: m[:-1]}, "columns differ in length"),
        ({"sn2_2_remnant": None}, "no array 'sn2_2_remnant'"),
        ({"elements": lambda e: np.where(e == "Mg", "Eu", e)}, "missing element Mg"),
    ],
)
def test_a_table_that_cannot_be_yields_is_refused(changed, arrays, message):
    with pytest.raises(ConfigError, match=message):
        get_simulator("chempy", yields=changed(**arrays))


def test_the_unchanged_file_is_fine(changed, default_yields):
    option = changed()
    assert set(read_yields(Path(option["sn2"]))) == {"sn1a", "sn2"}
    assert get_simulator("chempy", yields=option).yields.hash == default_yields.hash


def test_a_file_that_is_not_there_or_is_no_file_of_yields_is_named(tmp_path):
    with pytest.raises(DataFileError, match="no file .*nothing.npz"):
        get_simulator("chempy", yields={"sn2": str(tmp_path / "nothing.npz")})
    for name in ("text.npz", "text.h5"):
        (tmp_path / name).write_text("not a yield file")
        with pytest.raises(ConfigError, match=name):
            get_simulator("chempy", yields={"agb": str(tmp_path / name)})


def test_an_incomplete_yield_directory_names_the_missing_file(chempy_data, tmp_path):
    folder = tmp_path / "yields"
    shutil.copytree(chempy_data / "raw" / "TNG", folder / "TNG")
    assert get_simulator("chempy", yields="tng", yield_directory=str(folder)).simulate([GOOD]).ok[0]
    (folder / "TNG" / "AGB.hdf5").unlink()
    with pytest.raises(DataFileError, match=r"yields lacks TNG/AGB.hdf5"):
        get_simulator("chempy", yields="tng", yield_directory=str(folder))
    with pytest.raises(DataFileError, match=r"lacks Thielemann2003/0.02.txt, Nomoto2013"):
        get_simulator("chempy", yields="alternative", yield_directory=str(folder))


def test_a_damaged_file_of_the_original_is_one_sentence(chempy_data, tmp_path):
    folder = tmp_path / "yields"
    shutil.copytree(chempy_data / "raw", folder)
    content = (folder / "TNG" / "AGB.hdf5").read_bytes()
    (folder / "TNG" / "AGB.hdf5").write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigError, match="TNG is damaged or has another layout"):
        get_simulator("chempy", yields="tng", yield_directory=str(folder))
    path = folder / "Thielemann2003" / "0.02.txt"
    path.write_text(path.read_text().replace("Fe", "Xx"))
    with pytest.raises(ConfigError, match="Thielemann2003 is damaged"):
        get_simulator("chempy", yields="alternative", yield_directory=str(folder))


@pytest.mark.parametrize(
    ("column", "value", "name"),
    [(4, 1.2, "x_out"), (4, -0.1, "x_out"), (5, 14.5, "t_birth"), (5, 0.2, "t_birth")],
)
def test_parameters_outside_the_physical_range(column, value, name):
    theta = [list(GOOD), list(GOOD)]
    theta[1][column] = value
    batch = get_simulator("chempy").simulate(theta)
    assert batch.failure.tolist() == [0, 5]
    with pytest.raises(ConfigError, match=rf"theta row 1, column {column} \({name}\) is {value:g}"):
        get_simulator("chempy", strict=True).simulate(theta)
