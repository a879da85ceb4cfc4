"""Stellar populations: grids, pixels, providers, cache."""

import sys
import tomllib
import types

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_core import ConfigError, DataFileError
from sbi_sedflow.constants import C_ANGSTROM
from sbi_sedflow.plugin import _pipeline
from sbi_sedflow.ssp import bc03, load_library, read_grid, write_grid
from sbi_sedflow.ssp.dsps import read_dsps
from sbi_sedflow.ssp.fsps import export_fsps
from sbi_sedflow.ssp.grid import SSPGrid
from sbi_sedflow.ssp.rebin import cumulative_at, pixel_edges, rebin
from sbi_sedflow.ssp.toy import toy_grid


def test_a_grid_survives_its_file(tmp_path):
    grid = toy_grid()
    again = read_grid(write_grid(grid, tmp_path / "grid.npz"))
    assert_allclose(again.lum, grid.lum)
    assert again.meta == grid.meta


def test_a_file_that_is_no_grid_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(DataFileError, match="lacks age_gyr"):
        read_grid(tmp_path / "other.npz")
    with pytest.raises(DataFileError, match="cannot be read"):
        read_grid(tmp_path / "absent.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a["lum"].__setitem__((3, 2, 5), np.nan), "not finite"),
        (lambda a: a["age_gyr"].__setitem__(0, 0.0), "must be positive"),
        (lambda a: a.__setitem__("living", a["living"][:, :2]), "shape"),
    ],
)
def test_impossible_grids_are_refused(change, message):
    grid = toy_grid()
    arrays = {n: getattr(grid, n).copy() for n in ("age_gyr", "metallicity", "wave", "lum")}
    arrays["living"] = grid.living.copy()
    change(arrays)
    with pytest.raises(DataFileError, match=message):
        SSPGrid(**arrays)


def test_the_integral_of_a_parabola_s_derivative_is_exact():
    x = np.array([0.0, 1.0, 3.0, 4.0])
    at = np.array([0.5, 2.0, 4.0, 5.0])
    assert_allclose(cumulative_at(x, 2 * x, at), at**2)


@pytest.mark.parametrize("pixels", [128, 1024])
def test_pixels_conserve_energy(pixels):
    grid = toy_grid()
    library = rebin(grid, pixels)
    edges = pixel_edges(pixels)
    total = (library.lum * np.diff(edges)).sum(-1)
    exact = np.diff(cumulative_at(grid.wave, grid.lum, edges[[0, -1]]), axis=-1)[..., 0]
    assert_allclose(total, exact, rtol=1e-5)


def test_a_grid_that_is_too_short_is_refused():
    grid = toy_grid()
    some = grid.wave > 2000
    short = SSPGrid(grid.age_gyr, grid.metallicity, grid.wave[some], grid.lum[..., some],
                    grid.living)  # fmt: skip
    with pytest.raises(DataFileError, match="the model needs 912"):
        rebin(short, 128)


def test_bc03_has_the_luminosities_and_masses_it_should(bc03_library):
    assert bc03_library.lum.shape == (221, 7, 1024)
    assert bc03_library.meta["sha256"] == bc03.SHA256
    assert_allclose(bc03_library.metallicity, [1e-4, 4e-4, 4e-3, 8e-3, 0.02, 0.05, 0.1])


def test_a_missing_grid_says_how_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(DataFileError, match=r"simulator.ssp_path: no file"):
        bc03.find(tmp_path / "absent.fits")
    monkeypatch.setattr(bc03.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(bc03, "find_data", lambda path: None)
    with pytest.raises(DataFileError, match="sbi-run data fetch bc03-miles .*sbi-sedflow.bc03"):
        bc03.find()


def test_the_fetched_grid_is_the_one_that_is_declared(tmp_path, monkeypatch):
    (entry,) = tomllib.loads(_pipeline())["data"][bc03.DATASET]["files"]
    assert (entry["sha256"], entry["size"]) == (bc03.SHA256, bc03.SIZE)
    fetched = tmp_path / bc03.DATASET / entry["path"]
    fetched.parent.mkdir(parents=True)
    fetched.touch()
    monkeypatch.setenv("SBI_DATA_DIR", str(tmp_path))
    assert bc03.find() == fetched


def test_an_altered_grid_names_both_hashes(tmp_path):
    path = tmp_path / "grid.fits"
    path.write_bytes(b"SIMPLE  =                    F" + b" " * 5000)
    with pytest.raises(DataFileError, match=f"known {bc03.SHA256}"):
        bc03.read(path, bc03.sha256_of(path))


def test_another_layout_is_refused(tmp_path):
    from astropy.io import fits

    path = tmp_path / "grid.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(np.ones((3, 4)), name="X")]).writeto(path)
    with pytest.raises(DataFileError, match="extensions"):
        bc03.read(path, bc03.sha256_of(path))


def test_the_cache_belongs_to_its_source(bc03_library, tmp_path):
    first = load_library("bc03", pixels=1024, cache=tmp_path)
    files = list(tmp_path.glob("bc03-*.npz"))
    assert [f.name.startswith(f"bc03-{bc03.SHA256[:16]}") for f in files] == [True]
    files[0].write_bytes(b"broken")
    again = load_library("bc03", pixels=1024, cache=tmp_path)
    assert_allclose(again.lum, first.lum)


def test_dsps_files_are_read_per_wavelength(tmp_path):
    grid = toy_grid()
    nu = np.moveaxis(grid.lum, 1, 0) * grid.wave**2 / C_ANGSTROM
    with h5py.File(tmp_path / "ssp.h5", "w") as f:
        f["ssp_lgmet"], f["ssp_lg_age_gyr"] = np.log10(grid.metallicity), np.log10(grid.age_gyr)
        f["ssp_wave"], f["ssp_flux"] = grid.wave, nu
    found = read_dsps(tmp_path / "ssp.h5")
    assert_allclose(found.lum, grid.lum, rtol=1e-12)
    assert np.isnan(found.living).all()
    with h5py.File(tmp_path / "other.h5", "w") as f:
        f["x"] = 1
    with pytest.raises(DataFileError, match="lacks ssp_lgmet"):
        read_dsps(tmp_path / "other.h5")


def test_fsps_without_its_data_says_how_to_get_them(monkeypatch):
    monkeypatch.delenv("SPS_HOME", raising=False)
    with pytest.raises(DataFileError, match="SPS_HOME is not set"):
        export_fsps()


def test_fsps_is_exported_metallicity_by_metallicity(monkeypatch):
    grid = toy_grid()

    class Population:
        def __init__(self, **options):
            assert options["imf_type"] == 1
            assert options["zcontinuous"] == 0
            self.zlegend = grid.metallicity
            self.ssp_ages = np.log10(grid.age_gyr) + 9
            self.libraries = (b"mist", b"miles")
            self.params = {"zmet": 1}

        def get_spectrum(self, peraa):
            assert peraa
            return grid.wave, grid.lum[:, self.params["zmet"] - 1]

        @property
        def stellar_mass(self):
            return grid.living[:, self.params["zmet"] - 1]

    monkeypatch.setenv("SPS_HOME", "somewhere")
    module = types.ModuleType("fsps")
    module.StellarPopulation = Population
    monkeypatch.setitem(sys.modules, "fsps", module)
    found = export_fsps()
    assert_allclose(found.lum, grid.lum)
    assert_allclose(found.living, grid.living)
    assert found.meta["libraries"] == ["mist", "miles"]


def test_a_provider_without_its_file_is_refused():
    with pytest.raises(ConfigError, match="needs a file"):
        load_library("npz")
