"""Maps of a cube."""

import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from click.testing import CliRunner
from numpy.testing import assert_allclose
from survey_spectra import galaxy, write
from test_end_to_end import TINY

import sbi_core
from sbi_core import SbiError
from sbi_sfh import cli
from sbi_sfh.analysis import model_draws
from sbi_sfh.binning import binned
from sbi_sfh.config import age_of_universe
from sbi_sfh.cubes import merged
from sbi_sfh.formats import read_raw
from sbi_sfh.formats.spectrum import UnusableSpectrumError
from sbi_sfh.maps import Maps, maps_of, young_share
from sbi_sfh.recovered import recover_object

SKY = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 150.0, "CRVAL2": 2.0, "CRPIX1": 2.0,
       "CRPIX2": 1.0, "CD1_1": -1e-4, "CD2_2": 1e-4, "CUNIT1": "deg", "CUNIT2": "deg"}  # fmt: skip


@pytest.fixture(scope="module")
def observed_run(tmp_path_factory):
    from sbi_sfh import recover

    folder = tmp_path_factory.mktemp("run")
    options = {**TINY, "simulator.mode": "observed", "simulator.redshift": 0.03}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recover.Recovery.__init__, "__kwdefaults__", {"size": 500})
        yield sbi_core.run("sfh", preset="quick", out=folder / "run", overrides=options)


@pytest.fixture(params=["MaNGA", "MUSE"])
def cube(request, simulator, tmp_path):
    """A cube of 2 x 3 spaxels, one of them empty and one faint."""
    columns, _, _ = galaxy(simulator)
    wave = columns["WAVE"]
    if request.param == "MUSE":
        wave = np.arange(wave[0] + 1, wave[-1] - 1, 1.0)
    flux, ivar = (np.interp(wave, columns["WAVE"], columns[n]) for n in ("FLUX", "IVAR"))
    shape = (len(wave), 2, 3)
    values = np.broadcast_to(flux[:, None, None], shape).copy()
    weights = np.broadcast_to(ivar[:, None, None], shape).copy()
    weights[:, 0, 1] = 0.0
    weights[:, 1, 2] /= 400.0
    path = tmp_path / "cube.fits"
    primary = fits.PrimaryHDU()
    if request.param == "MaNGA":
        primary.header.update({"PLATEIFU": "1-1", "MNGTARG1": 1})
        hdus = [fits.ImageHDU(v, name=n) for v, n in
                ((values, "FLUX"), (weights, "IVAR"), (wave, "WAVE"))]  # fmt: skip
        hdus[0].header.update(SKY)
    else:
        variance = 1 / np.where(weights > 0, weights, np.nan)
        hdus = [fits.ImageHDU(values, name="DATA"), fits.ImageHDU(variance, name="STAT")]
        hdus[0].header.update({**SKY, "CTYPE3": "WAVE", "CRVAL3": wave[0], "CRPIX3": 1.0,
                               "CD3_3": 1.0, "CUNIT3": "Angstrom"})  # fmt: skip
    fits.HDUList([primary, *hdus]).writeto(path)
    return path


def call(*words):
    result = CliRunner().invoke(cli.map_cube, [str(w) for w in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_cube_gives_maps_with_its_sky_coordinates(observed_run, cube, tmp_path):
    out = tmp_path / "maps.fits"
    result = call(observed_run.directory.root, cube, "--out", out, "--draws", 50,
                  "--set", "simulator.min_snr=20")  # fmt: skip
    assert result.output.splitlines()[-1].startswith("4 of 6 spaxels")
    assert (tmp_path / "maps.png").stat().st_size > 10_000
    with fits.open(out) as hdus:
        assert {"T10", "T10_ERR", "T90", "MH", "YOUNG", "YOUNG_ERR", "SNR", "CHI2", "REDSHIFT",
                "FLAGS"} <= {h.name for h in hdus}  # fmt: skip
        t50 = hdus["T50"].data
        assert np.isnan(t50).tolist() == [[False, True, False], [False, False, True]]
        assert_allclose(t50[0, 0], t50[1, 0], rtol=0.35)  # the same spectrum, other draws
        assert (hdus["T50_ERR"].data[~np.isnan(t50)] > 0).all()
        assert hdus["T50"].header["BUNIT"] == "Gyr"
        place = WCS(hdus["T50"].header).pixel_to_world(1, 0)
        assert (place.ra.deg, place.dec.deg) == (pytest.approx(150.0), pytest.approx(2.0))
        words = {k: v for k, v in hdus["FLAGS"].header.items() if k.startswith("FLAG")}
        bits = {v: 1 << int(k[4:]) for k, v in words.items()}
        flags = hdus["FLAGS"].data
        assert flags[0, 1] == bits["nothing_observed"]
        assert flags[1, 2] == bits["low_snr"]


def test_the_share_of_young_stars_is_that_of_the_growth():
    fractions = np.arange(1, 10) / 10
    times = np.stack([np.linspace(1, 9, 9), np.linspace(10.0, 12.9, 9)])[None]
    got = young_share(times, fractions, 13.0)
    # growth from .9 at 9 to 1 at 13; from .5 at 11.45 by .1 in .3625 Gyr
    assert_allclose(got[0], [0.1 * 1 / 4, 1 - (0.6 + 0.1 * (12 - 11.8125) / 0.3625)], rtol=1e-6)
    assert young_share(np.full((1, 1, 9), 13.0), fractions, 13.0)[0, 0] == pytest.approx(
        1.0, abs=0.1
    )


def test_no_star_is_older_than_the_universe(observed_run, simulator, tmp_path):
    columns, facts, _ = galaxy(simulator, z=0.3)
    objects = observed_run.observations(str(write(tmp_path / "far.fits", columns, facts)))
    samples = observed_run.infer(objects, 100)
    age = age_of_universe(0.3)
    times = samples.values[:, 0, :9]
    assert times.min() >= 0
    assert times.max() <= age
    assert samples.summary()["age_universe"][0] == pytest.approx(age)
    model = model_draws(observed_run.simulator, objects, samples, 0)
    late = observed_run.simulator.config.t_end - age
    assert_allclose(model[:, :9], times + late)
    growth = recover_object(observed_run.simulator, objects, 0, model, fits=2).growth
    assert_allclose(growth[:, observed_run.simulator.synthesis.time < late], 0.0, atol=1e-9)
    made = maps_of(observed_run.simulator, replace(objects, labels={
        **objects.labels, "x": np.zeros(1), "y": np.zeros(1)}), samples, (1, 1))  # fmt: skip
    assert 0 <= made.values["young"][0, 0] <= 1


def test_maps_need_a_cube_and_another_name(observed_run, cube, tmp_path):
    root = observed_run.directory.root
    with pytest.raises(SbiError, match="unknown format, use .fits"):
        call(root, cube, "--out", tmp_path / "maps.png")
    with pytest.raises(SbiError, match="is a file that the command reads"):
        call(root, cube, "--out", cube)
    fits.PrimaryHDU(np.ones((3, 4))).writeto(tmp_path / "image.fits")
    (tmp_path / "broken.fits").write_text("no FITS")
    (tmp_path / "a.txt").write_text("1 2 3")
    for name, message in (
        ("image.fits", "holds no cube"),
        ("a.txt", "holds no cube of spectra, which is a FITS file"),
        ("broken.fits", "cannot be read"),
        ("nothing.fits", "do not exist"),
        (".", "is a folder"),
    ):
        with pytest.raises(SbiError, match=message):
            call(root, tmp_path / name, "--out", tmp_path / "maps.fits")
    with pytest.raises(SbiError, match="folder '.*new' does not exist"):
        call(root, cube, "--out", tmp_path / "new" / "maps.fits")
    (tmp_path / "maps.png").write_text("mine")
    with pytest.raises(SbiError, match=r"maps.png' exists, and the figure of the maps gets"):
        call(root, cube, "--out", tmp_path / "maps.fits")


class Columns:
    """Stands for PowerBin: a bin per column."""

    def __init__(self, xy, capacity, target, verbose):
        assert capacity([0]) > 0
        self.bin_num = np.asarray(xy)[:, 0].astype(int) + 5


@pytest.fixture
def powerbin(monkeypatch):
    module = types.ModuleType("powerbin")
    module.PowerBin = Columns
    monkeypatch.setitem(sys.modules, "powerbin", module)


def test_bins_add_flux_and_variance(cube, powerbin):
    spaxels = [s for s in read_raw(cube) if not isinstance(s, UnusableSpectrumError)]
    made, where = binned(spaxels, 30.0)
    assert [s.id.rsplit("-", 1)[1] for s in made] == ["bin0", "bin1", "bin2"]
    first = [s for s in spaxels if s.labels["x"] == 0]
    good = made[0].good
    assert_allclose(made[0].flux[good], sum(s.flux for s in first)[good])
    assert_allclose(1 / made[0].ivar[good], sum(1 / s.ivar[good] for s in first))
    assert where[0, 0] == where[0, 1] == 0
    assert (1, 0) not in where  # empty
    _, kept = binned(spaxels, 30.0, least=20.0)
    assert (2, 1) not in kept  # faint


def test_pixels_that_one_spaxel_lacks_keep_the_level_of_the_bin(cube, powerbin):
    spaxels = [s for s in read_raw(cube) if not isinstance(s, UnusableSpectrumError)]
    bright = next(k for k, s in enumerate(spaxels) if (s.labels["x"], s.labels["y"]) == (0, 0))
    twin = replace(spaxels[bright], labels={"x": 0.0, "y": 5.0})
    good = twin.good.copy()
    good[1000:1010] = False
    trio = [spaxels[bright], replace(twin, labels={"x": 0.0, "y": 6.0})]
    whole = binned([*trio, twin], 30.0)[0][0]
    part = binned([*trio, replace(twin, good=good)], 30.0)[0][0]
    assert_allclose(part.flux[1000:1010], whole.flux[1000:1010], rtol=1e-2)
    assert (part.ivar[1000:1010] < 0.8 * whole.ivar[1000:1010]).all()


def test_spaxels_of_a_bin_share_its_result(observed_run, cube, powerbin, tmp_path):
    out = tmp_path / "maps.fits"
    result = call(observed_run.directory.root, cube, "--out", out, "--draws", 50,
                  "--bin-snr", 30, "--set", "simulator.min_snr=1")  # fmt: skip
    assert result.output.splitlines()[-1].startswith("5 of 6 spaxels")
    with fits.open(out) as hdus:
        t50 = hdus["T50"].data
    assert t50[0, 0] == t50[1, 0]
    assert np.isnan(t50[0, 1])
    assert np.isfinite(t50).sum() == 5


def test_binning_needs_an_installed_package(cube, monkeypatch):
    monkeypatch.setitem(sys.modules, "powerbin", None)
    with pytest.raises(SbiError, match="pip install powerbin"):
        binned(read_raw(cube), 30.0)


def test_parts_of_a_cube_become_one_map():
    nan = np.nan
    first = Maps(
        {"t50": np.array([[1.0, nan, nan]])}, np.array([[0b11, 0, 0]], np.int32), ("a", "c")
    )
    second = Maps({"t50": np.array([[nan, 2.0, nan]]), "velocity": np.array([[nan, 3.0, nan]])},
                  np.array([[0, 0b01, 0b10]], np.int32), ("b", "c"))  # fmt: skip
    whole = merged([first, second])
    assert_allclose(whole.values["t50"], [[1, 2, nan]])
    assert_allclose(whole.values["velocity"], [[nan, 3, nan]])
    named = [[w for k, w in enumerate(whole.words) if flag >> k & 1] for flag in whole.flags[0]]
    assert named == [["a", "c"], ["b"], ["c"]]
