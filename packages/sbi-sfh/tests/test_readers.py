import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from numpy.testing import assert_allclose
from survey_spectra import FWHM, GRID, OBSERVED, galaxy, write

from sbi_core import ObservationError
from sbi_sfh.config import SfhConfig
from sbi_sfh.prepare import _smooth
from sbi_sfh.readers import read_spectra
from sbi_sfh.resample import air_to_vacuum


def read(path, config=OBSERVED):
    return read_spectra(path, GRID, config, fwhm=FWHM)


def test_a_survey_spectrum_comes_back_on_our_pixels(simulator, tmp_path):
    columns, facts, flux = galaxy(simulator)
    found = read(write(tmp_path / "g.fits", columns, facts))
    mask = found.batch.mask[0].numpy()
    expected = flux / np.median(flux[mask])
    # interpolation to log-spaced pixels smooths lines a little
    assert_allclose(found.batch.x[0].numpy()[mask], expected[mask], rtol=0.06)
    assert found.id.tolist() == ["1-1"]
    # pixels of 0.9 Angstrom hold 0.6 to 0.9 of a pixel of the file
    assert 10 ** float(found.batch.context[0, 0]) == pytest.approx(50, rel=0.25)
    assert not found.batch.context[0, 1].isfinite()


def test_air_and_vacuum_differ_by_the_index_of_refraction(simulator, tmp_path):
    columns, facts, _ = galaxy(simulator)
    right = read(write(tmp_path / "a.fits", columns, facts)).batch
    wrong = read(write(tmp_path / "b.fits", columns, {**facts, "VACUUM": False})).batch
    both = (right.mask & wrong.mask)[0]
    assert float((right.x - wrong.x)[0][both].abs().max()) > 0.05


def test_npz_and_tables_say_the_same(simulator, tmp_path):
    columns, facts, _ = galaxy(simulator)
    one = read(write(tmp_path / "g.fits", columns, facts)).batch
    np.savez(tmp_path / "g.npz", redshift=0.03, vacuum=True, waveunit="Angstrom", **columns)
    two = read(tmp_path / "g.npz").batch
    table = Table(columns, meta={k.lower(): v for k, v in facts.items()})
    table["WAVE"].unit = "Angstrom"
    table.write(tmp_path / "g.ecsv")
    three = read(tmp_path / "g.ecsv").batch
    for other in (two, three):
        assert_allclose(other.x.numpy(), one.x.numpy(), rtol=1e-5)


def test_a_folder_gives_all_galaxies(simulator, tmp_path):
    for k in range(2):
        columns, facts, _ = galaxy(simulator, seed=k + 1)
        write(tmp_path / f"g{k}.fits", columns, facts)
    found = read(tmp_path)
    assert len(found) == 2
    assert len(set(found.id)) == 2


BAD = [
    ({"VACUUM": None}, "air or vacuum"),
    ({"REDSHIFT": None}, "no redshift"),
    ({"REDSHIFT": 5.0}, "redshift 5 is outside"),
    ({"VACUUM": "perhaps"}, "neither vacuum nor air"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_missing_facts_are_asked_for(simulator, tmp_path, changes, message):
    columns, facts, _ = galaxy(simulator, **changes)
    with pytest.raises(ObservationError, match=message):
        read(write(tmp_path / "g.fits", columns, facts))


def test_missing_facts_may_come_from_the_options(simulator, tmp_path):
    columns, facts, _ = galaxy(simulator, VACUUM=None, REDSHIFT=None)
    path = write(tmp_path / "g.fits", columns, facts, unit=None)
    config = SfhConfig(mode="observed", vacuum=True, redshift=0.03, wave_unit="Angstrom")
    assert len(read(path, config)) == 1


@pytest.mark.parametrize(
    ("unit", "factor"), [("Angstrom", 1), ("nm", 0.1), ("micron", 1e-4), ("m", 1e-10)]
)
def test_a_missing_unit_follows_from_the_size_of_optical_wavelengths(
    simulator, tmp_path, unit, factor
):
    columns, facts, _ = galaxy(simulator)
    same = read(write(tmp_path / "angstrom.fits", columns, facts))
    columns["WAVE"] = factor * columns["WAVE"]
    path = write(tmp_path / "g.fits", columns, facts, unit=None)
    found = read(path)
    assert any(f"without a unit taken as {unit}" in note for note in found.notes)
    assert_allclose(found.batch.x, same.batch.x, rtol=1e-5)
    assert_allclose(read(path, SfhConfig(mode="observed", wave_unit=unit)).batch.x, found.batch.x)


@pytest.mark.parametrize("function", [np.log10, np.log])
def test_logarithms_under_another_name_are_not_taken_for_wavelengths(simulator, tmp_path, function):
    columns, facts, _ = galaxy(simulator)
    columns["WAVE"] = function(columns["WAVE"])
    with pytest.raises(ObservationError, match="without a unit.*name logarithms loglam"):
        read(write(tmp_path / "g.fits", columns, facts, unit=None))


def test_wrong_units_are_noticed(simulator, tmp_path):
    columns, facts, _ = galaxy(simulator)
    with pytest.raises(ObservationError, match="not optical"):
        read(write(tmp_path / "g.fits", columns, facts, unit="nm"))


def test_spectra_that_do_not_cover_name_the_preset_that_fits(simulator, tmp_path):
    columns, facts, _ = galaxy(simulator)
    keep = columns["WAVE"] > 3800 * 1.03
    short = {k: v[keep] for k, v in columns.items()}
    with pytest.raises(ObservationError, match=r"covers 3799-749.*wave_range=sdss"):
        read(write(tmp_path / "g.fits", short, facts))


def test_wavelengths_must_increase(simulator, tmp_path):
    columns, facts, _ = galaxy(simulator)
    columns["WAVE"][100:102] = columns["WAVE"][101:99:-1]
    with pytest.raises(ObservationError, match="must increase; row 101"):
        read(write(tmp_path / "g.fits", columns, facts))


def test_errors_must_be_positive(simulator, tmp_path):
    columns, facts, _ = galaxy(simulator)
    columns["IVAR"][7] = -1.0
    with pytest.raises(ObservationError, match=r"row 7 is -1.*\(1 such rows\)"):
        read(write(tmp_path / "g.fits", columns, facts))


def test_values_that_are_not_numbers_are_masked_and_counted(simulator, tmp_path):
    columns, facts, _ = galaxy(simulator)
    whole = read(write(tmp_path / "g.fits", columns, facts)).batch
    columns["IVAR"][700] = np.nan
    columns["FLUX"][900:902] = np.nan, np.inf
    found = read(write(tmp_path / "h.fits", columns, facts))
    assert any("3 pixels without a finite flux or error masked" in n for n in found.notes)
    lost = whole.mask[0] & ~found.batch.mask[0]
    assert 2 <= int(lost.sum()) <= 8
    both = found.batch.mask[0].numpy()
    assert_allclose(found.batch.x[0].numpy()[both], whole.x[0].numpy()[both], rtol=0.02)


def test_nothing_left_is_an_error_and_little_left_a_note(simulator, tmp_path):
    columns, facts, _ = galaxy(simulator)
    columns["MASK"][:] = 1
    with pytest.raises(ObservationError, match="all .* pixels are masked"):
        read(write(tmp_path / "g.fits", columns, facts))
    columns["MASK"][: len(columns["MASK"]) // 2] = 0
    found = read(write(tmp_path / "g.fits", columns, facts))
    assert any("% of the pixels are masked" in note for note in found.notes)


def test_negative_spectra_are_refused(simulator, tmp_path):
    columns, facts, _ = galaxy(simulator)
    columns["FLUX"] = -columns["FLUX"]
    with pytest.raises(ObservationError, match="median flux"):
        read(write(tmp_path / "g.fits", columns, facts))


def test_coarse_resolution_is_refused(simulator, tmp_path):
    columns, facts, _ = galaxy(simulator)
    columns["SRES"] = np.full(len(columns["WAVE"]), 1300.0)
    path = write(tmp_path / "g.fits", columns, facts)
    with pytest.raises(ObservationError, match="worse than the library's 2.51"):
        read(path, SfhConfig())
    assert any("below the library's" in n for n in read(path).notes)
    columns["SRES"][:] = 200.0
    with pytest.raises(ObservationError, match="beyond the velocity dispersions"):
        read(write(tmp_path / "g.fits", columns, facts))


def test_sharper_spectra_are_brought_to_the_library(simulator, tmp_path):
    columns, facts, _ = galaxy(simulator)
    rest = columns["WAVE"] / 1.03
    line = 1.0 - 0.5 * np.exp(-0.5 * ((rest - air_to_vacuum(5300.0 * 1.03) / 1.03) / 0.6) ** 2)
    columns["FLUX"] = line
    columns["IVAR"] = np.full(len(rest), 1e4)
    columns["SRES"] = rest / (0.6 * 2.3548)
    found = read(write(tmp_path / "g.fits", columns, facts)).batch.x[0].numpy()
    near = np.abs(GRID - 5300) < 15
    depth = 1.0 - found[near]
    centre = (depth * GRID[near]).sum() / depth.sum()
    width = np.sqrt((depth * (GRID[near] - centre) ** 2).sum() / depth.sum()) * 2.3548
    assert centre == pytest.approx(5300.0, abs=0.15)
    assert width == pytest.approx(2.51, rel=0.12)  # pixels of 0.9 Angstrom add a little


@pytest.mark.parametrize("unit", ["Angstrom", "nm", "km / s", None])
def test_resolution_may_be_a_column_of_fwhm(simulator, tmp_path, unit):
    columns, facts, _ = galaxy(simulator)
    columns["SRES"] = np.full(len(columns["WAVE"]), 1900.0)
    same = read(write(tmp_path / "a.fits", columns, facts))
    width = columns["WAVE"] / columns.pop("SRES")
    factor = {"nm": 0.1, "km / s": 299792.458 / columns["WAVE"]}.get(unit, 1.0)
    table = Table({**columns, "FWHM": width * factor}, meta=facts)
    table["WAVE"].unit, table["FWHM"].unit = "Angstrom", unit
    table.write(tmp_path / "b.ecsv")
    found = read(tmp_path / "b.ecsv")
    assert_allclose(found.batch.x, same.batch.x, rtol=1e-5)
    assert any("column of FWHM (R = 1900)" in note for note in found.notes)
    table["WAVE"].unit = None  # by their size
    table.write(tmp_path / "d.ecsv")
    assert any("(R = 1900)" in note for note in read(tmp_path / "d.ecsv").notes)
    table["FWHM"] = table["FWHM"].data * 1e-6
    table.write(tmp_path / "c.ecsv")
    assert any("FWHM not used" in note for note in read(tmp_path / "c.ecsv").notes)


def test_errors_may_be_a_column_of_signal_to_noise(simulator, tmp_path):
    columns, facts, _ = galaxy(simulator)
    same = read(write(tmp_path / "a.fits", columns, facts))
    columns["SNR"] = columns["FLUX"] * np.sqrt(columns.pop("IVAR"))
    columns["SNR"][700:710] = 0.0
    found = read(write(tmp_path / "b.fits", columns, facts))
    both = (found.batch.mask & same.batch.mask)[0]
    ratio = (found.batch.x_err[0][both] / same.batch.x_err[0][both]).numpy()
    assert np.abs(ratio - 1).max() < 0.5  # at the ends of the masked pixels
    assert np.quantile(np.abs(ratio - 1), 0.99) < 0.01
    assert 5 <= int((same.batch.mask & ~found.batch.mask).sum()) <= 20


def test_smoothing_of_masked_pixels_warns_of_nothing():
    """Widths of a thirtieth of a pixel: weights of neighbours whose square is 0."""
    good = np.ones(300, bool)
    good[100:120] = False
    flux = np.where(good, 1.0, 0.0)
    with np.errstate(all="raise", under="ignore"):
        smooth, variance = _smooth(flux, 0.01 * flux, good, np.full(300, 0.035))
    assert_allclose(smooth[good], 1.0)
    assert_allclose(variance[good], 0.01)


def test_mock_mode_warns_about_real_spectra(simulator, tmp_path):
    columns, facts, _ = galaxy(simulator)
    found = read(write(tmp_path / "g.fits", columns, facts), SfhConfig())
    assert "mode 'mock'" in found.notes[0]


@pytest.mark.parametrize("name", ["nothing.fits", "text.fits"])
def test_files_that_are_none_are_refused(tmp_path, name):
    (tmp_path / "text.fits").write_text("hello")
    with pytest.raises(ObservationError, match="do not exist|cannot be read"):
        read(tmp_path / name)


def test_columns_are_asked_for(tmp_path):
    Table({"WAVE": [1.0, 2.0], "COUNTS": [1.0, 2.0]}).write(tmp_path / "x.ecsv")
    with pytest.raises(ObservationError, match="needs columns WAVE"):
        read(tmp_path / "x.ecsv")
    Table({"WAVE": [1.0, 2.0], "FLUX": [1.0, 2.0]}).write(tmp_path / "y.ecsv")
    with pytest.raises(ObservationError, match="needs a column IVAR or ERR"):
        read(tmp_path / "y.ecsv")


def test_of_an_sdss_file_only_the_sum_is_read(simulator, tmp_path):
    columns, facts, _ = galaxy(simulator)
    sums = {"flux": columns["FLUX"], "loglam": np.log10(columns["WAVE"]), "ivar": columns["IVAR"]}
    single = {k: v[::-1] for k, v in sums.items()}  # exposures are stored red to blue
    hdus = [fits.PrimaryHDU()]
    for name, table in (
        ("COADD", sums | {"and_mask": np.zeros(len(columns["FLUX"]), int)}),
        ("SPECOBJ", {"Z": [facts["REDSHIFT"]], "VDISP": [97.0]}),
        ("B1-00042998", single),
    ):
        hdu = fits.table_to_hdu(Table(table))
        hdu.name = name
        hdus.append(hdu)
    fits.HDUList(hdus).writeto(tmp_path / "spec.fits")
    found = read(tmp_path / "spec.fits", SfhConfig(mode="observed", vacuum=True))
    assert len(found) == 1
    assert np.isfinite(found.batch.x[0].numpy()[found.batch.mask[0].numpy()]).all()


def test_real_galaxies_are_read(manga_file, observed_simulator):
    found = observed_simulator.read_observations(manga_file)
    assert found.id.tolist() == ["8131-6102", "8131-3702"]
    snr = 10 ** found.batch.context[:, 0].numpy()
    # 112 and 66 per native pixel of 1.1 Angstrom, scaled to 0.9 Angstrom
    assert_allclose(snr, [100, 59], rtol=0.05)
    assert float(found.batch.mask.float().mean()) > 0.85
