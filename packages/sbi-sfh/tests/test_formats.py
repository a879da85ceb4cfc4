"""Spectra in the formats of the field, and what is wrong with them."""

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from numpy.testing import assert_allclose
from survey_spectra import FWHM, GRID, OBSERVED, galaxy, write

from sbi_core import ObservationError
from sbi_sfh.config import SfhConfig
from sbi_sfh.formats import frame_of, read_raw
from sbi_sfh.formats.spectrum import UnusableSpectrumError
from sbi_sfh.readers import read_spectra
from sbi_sfh.velocity import Velocities

BARE = SfhConfig(mode="observed", vacuum=True, redshift=0.03, wave_unit="Angstrom")


@pytest.fixture
def spectrum(simulator):
    """Wavelengths, flux and errors of one galaxy, and its facts."""
    columns, facts, _ = galaxy(simulator)
    return columns["WAVE"], columns["FLUX"], 1 / np.sqrt(columns["IVAR"]), facts


@pytest.fixture(scope="module")
def velocities(simulator):
    return Velocities(simulator.library)


def read(path, config=BARE, **more):
    return read_spectra(path, GRID, config, fwhm=FWHM, **more)


def same(path, reference, config=BARE, n=1):
    """The galaxies of a file are n copies of the reference."""
    found = read(path, config)
    assert len(found) == n
    for k in range(n):
        mask = found.batch.mask[k].numpy()
        assert mask.mean() > 0.85
        assert_allclose(found.batch.x[k].numpy()[mask], reference[mask], rtol=1e-3)
    return found


def warnings_of(found, k=0):
    """The flags that reading gave galaxy k."""
    return str(found.labels["reading"][k]).split(",")


@pytest.fixture
def reference(spectrum, tmp_path):
    wave, flux, err, facts = spectrum
    columns = {"WAVE": wave, "FLUX": flux, "IVAR": 1 / err**2}
    return read(write(tmp_path / "reference.fits", columns, facts)).batch.x[0].numpy()


# -- text and tables -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "head", "comma"),
    [
        ("a.txt", "wave flux err\n", " "),
        ("a.dat", "# wave flux err\n", " "),
        ("b.dat", "", " "),
        ("c.txt", "# REDSHIFT = 0.03\n# VACUUM = T\n# wave [Angstrom] flux err\n", " "),
        ("a.csv", "wavelength,flux,flux_error\n", ","),
        ("c.csv", "lambda,flam,e_flam\n", ","),
        ("b.csv", "Wave,Flux,Err\n", ","),
        ("a.tsv", "lam\tgalaxy\tnoise\n", "\t"),
    ],
)
def test_text_is_read_with_and_without_a_header(spectrum, reference, tmp_path, name, head, comma):
    wave, flux, err, _ = spectrum
    rows = (comma.join(f"{v:.9g}" for v in row) for row in zip(wave, flux, err, strict=True))
    (tmp_path / name).write_text(head + "\n".join(rows) + "\n")
    facts_in_file = "REDSHIFT" in head
    same(tmp_path / name, reference, OBSERVED if facts_in_file else BARE)


@pytest.mark.parametrize("suffix", ["ecsv", "vot", "h5", "parquet"])
def test_tables_are_read(spectrum, reference, tmp_path, suffix):
    wave, flux, err, facts = spectrum
    table = Table({"spectral_axis": wave, "flux": flux, "uncertainty": err})
    table["spectral_axis"].unit = "Angstrom"
    table.meta = {k.lower(): v for k, v in facts.items()}
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    form = {"ecsv": "ascii.ecsv", "vot": "votable", "h5": "hdf5", "parquet": "parquet"}[suffix]
    options = {"path": "t", "serialize_meta": True} if suffix == "h5" else {}
    table.write(tmp_path / f"t.{suffix}", format=form, **options)
    same(tmp_path / f"t.{suffix}", reference)


def test_columns_that_are_not_needed_are_not_touched(spectrum, reference, tmp_path):
    wave, flux, err, _ = spectrum
    columns = zip(wave, flux, err, strict=True)
    rows = [
        f"{w:.9g},{f:.9g},{e:.9g},{'' if k == 3 else k},word" for k, (w, f, e) in enumerate(columns)
    ]
    (tmp_path / "t.csv").write_text("wave,flux,err,n_exposures,comment\n" + "\n".join(rows) + "\n")
    same(tmp_path / "t.csv", reference)


def test_an_empty_cell_of_a_mask_is_a_bad_pixel(spectrum, tmp_path):
    wave, flux, err, _ = spectrum
    rows = [
        f"{w:.9g},{f:.9g},{e:.9g},{'' if 1000 <= k < 1010 else 0}"
        for k, (w, f, e) in enumerate(zip(wave, flux, err, strict=True))
    ]
    (tmp_path / "t.csv").write_text("WAVE,FLUX,ERR,MASK\n" + "\n".join(rows) + "\n")
    (raw,) = read_raw(tmp_path / "t.csv")
    assert np.flatnonzero(~raw.good).tolist() == list(range(1000, 1010))


def test_columns_without_names_must_be_few(tmp_path):
    np.savetxt(tmp_path / "t.dat", np.ones((5, 6)))
    with pytest.raises(ObservationError, match="6 columns without names.*wave flux err"):
        read(tmp_path / "t.dat")


def test_a_file_of_another_kind_is_named_with_the_suffixes(tmp_path):
    (tmp_path / "g.pdf").write_text("x")
    with pytest.raises(ObservationError, match=r"unknown suffix \(known: .fits"):
        read(tmp_path / "g.pdf")


# -- arrays and FITS -------------------------------------------------------------------------


def test_npz_holds_one_galaxy_or_many(spectrum, reference, tmp_path):
    wave, flux, err, _ = spectrum
    np.savez(tmp_path / "one.npz", lam=wave, galaxy=flux, noise=err, redshift=0.03)
    same(tmp_path / "one.npz", reference)
    many = {"wave": wave, "flux": np.stack([flux] * 3), "err": np.stack([err] * 3)}
    np.savez(tmp_path / "many.npz", **many, redshift=np.full(3, 0.03), vacuum=True,
             wave_unit="Angstrom", id=np.array(["a", "b", "c"]))  # fmt: skip
    assert same(tmp_path / "many.npz", reference, OBSERVED, n=3).id.tolist() == ["a", "b", "c"]


def test_a_fits_table_may_have_a_galaxy_per_row(spectrum, reference, tmp_path):
    wave, flux, err, _ = spectrum
    table = Table({"ID": ["a", "b"], "Z": [0.03, 0.03], "WAVE": np.stack([wave] * 2),
                   "FLUX": np.stack([flux] * 2), "IVAR": np.stack([err**-2] * 2)})  # fmt: skip
    table["WAVE"].unit = "Angstrom"
    table.write(tmp_path / "t.fits")
    assert same(tmp_path / "t.fits", reference, n=2).id.tolist() == ["a", "b"]
    table[:1].write(tmp_path / "one.fits")  # as the archives of ESO and LAMOST have it
    same(tmp_path / "one.fits", reference)


def images(spectrum, n, **facts):
    wave, flux, err, _ = spectrum
    axis = fits.ImageHDU(wave, name="WAVE")
    axis.header.update({"BUNIT": "Angstrom", "VACUUM": True, **facts})
    return [
        fits.PrimaryHDU(), axis, fits.ImageHDU(np.stack([flux] * n), name="FLUX"),
        fits.ImageHDU(np.stack([err**-2] * n), name="IVAR"),
        fits.ImageHDU(np.full(n, 0.03), name="Z"),
    ]  # fmt: skip


def test_images_have_a_galaxy_per_row(spectrum, reference, tmp_path):
    fits.HDUList(images(spectrum, 3)).writeto(tmp_path / "rows.fits")
    found = same(tmp_path / "rows.fits", reference, OBSERVED, n=3)
    assert found.id.tolist() == ["rows-0", "rows-1", "rows-2"]


def linear(spectrum):
    wave, flux, err, _ = spectrum
    grid = np.arange(wave[0] + 1, wave[-1] - 1, 0.8)
    return grid, np.interp(grid, wave, flux), np.interp(grid, wave, err)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_wavelengths_may_follow_from_the_header(spectrum, reference, tmp_path, logarithmic):
    wave, flux, err, _ = spectrum
    cards = {"CRVAL1": np.log10(wave[0]), "CD1_1": 1e-4, "DC-FLAG": 1}
    if not logarithmic:
        wave, flux, err = linear(spectrum)
        cards = {"CRVAL1": wave[0], "CDELT1": 0.8, "CUNIT1": "Angstrom"}
    primary = fits.PrimaryHDU(flux)
    primary.header.update(cards | {"CRPIX1": 1.0, "VACUUM": True, "REDSHIFT": 0.03})
    errors = fits.ImageHDU(err, name="ERR")
    fits.HDUList([primary, errors]).writeto(tmp_path / "t.fits")
    found = read(tmp_path / "t.fits", OBSERVED)
    mask = found.batch.mask[0].numpy()
    # interpolation to linear pixels smooths lines a little
    assert_allclose(found.batch.x[0].numpy()[mask], reference[mask], rtol=0.05)


def test_a_cube_has_a_galaxy_per_spaxel_and_says_air_by_its_axis(spectrum, tmp_path):
    wave, flux, err, _ = spectrum
    wave, flux, err = linear(spectrum)
    cube = np.broadcast_to(flux[:, None, None], (len(flux), 2, 3))
    data = fits.ImageHDU(cube, name="DATA")
    data.header.update({"CRVAL3": wave[0], "CD3_3": 0.8, "CRPIX3": 1.0, "CTYPE3": "AWAV",
                        "CUNIT3": "Angstrom"})  # fmt: skip
    stat = fits.ImageHDU(np.broadcast_to((err**2)[:, None, None], cube.shape), name="STAT")
    fits.HDUList([fits.PrimaryHDU(), data, stat]).writeto(tmp_path / "cube.fits")
    found = list(read_raw(tmp_path / "cube.fits"))
    assert len(found) == 6
    assert found[0].vacuum is False
    assert_allclose(found[5].ivar, err**-2)


@pytest.mark.parametrize("axis", [1, 3])
def test_the_wavelengths_of_a_cube_may_be_its_first_or_last_axis(spectrum, tmp_path, axis):
    """Six by five spaxels: with the first axis, four and more were taken for bands of IRAF."""
    wave, flux, err = linear(spectrum)
    levels = np.linspace(1.0, 2.0, 30).reshape(6, 5)
    values = [levels * v[:, None, None] for v in (flux, err)]
    if axis == 1:
        values = [np.moveaxis(v, 0, -1) for v in values]
    data = fits.ImageHDU(values[0], name="DATA")
    data.header.update({f"CRVAL{axis}": wave[0], f"CDELT{axis}": 0.8, f"CRPIX{axis}": 1.0,
                        f"CTYPE{axis}": "AWAV", f"CUNIT{axis}": "Angstrom"})  # fmt: skip
    for a, kind in zip({1, 2, 3} - {axis}, ("RA---TAN", "DEC--TAN"), strict=True):
        data.header.update({f"CTYPE{a}": kind, f"CUNIT{a}": "deg", f"CDELT{a}": 1e-4})
    hdus = [fits.PrimaryHDU(), data, fits.ImageHDU(values[1], name="ERROR")]
    fits.HDUList(hdus).writeto(tmp_path / "cube.fits")
    found = list(read_raw(tmp_path / "cube.fits"))
    assert len(found) == 30
    at = next(r for r in found if (r.labels["x"], r.labels["y"]) == (3, 4))
    assert_allclose(at.wave, wave)
    assert_allclose(at.flux, levels[4, 3] * flux)
    assert_allclose(at.ivar, (levels[4, 3] * err) ** -2)
    shape, sky = frame_of(tmp_path / "cube.fits")
    assert shape == (6, 5)
    assert sky["CTYPE1"] == "RA---TAN"


def test_the_arms_of_desi_are_joined(spectrum, tmp_path):
    wave, flux, err, _ = spectrum
    hdus = [fits.PrimaryHDU()]
    facts = Table({"TARGETID": [39627, 39628], "Z": [0.03, 0.031]})
    hdus.append(fits.table_to_hdu(facts))
    for arm, low, high in (("B", 3500, 5800), ("R", 5700, 7000), ("Z", 6900, 9800)):
        part = (wave > low) & (wave < high)
        hdus.append(fits.ImageHDU(wave[part], name=f"{arm}_WAVELENGTH"))
        for name, values in (("FLUX", flux), ("IVAR", err**-2), ("MASK", 0 * flux)):
            rows = np.stack([values[part]] * 2)
            hdus.append(fits.ImageHDU(rows, name=f"{arm}_{name}"))
    fits.HDUList(hdus).writeto(tmp_path / "coadd.fits")
    one, two = read_raw(tmp_path / "coadd.fits")
    assert (one.id, two.id) == ("39627", "39628")
    assert two.redshift == pytest.approx(0.031)
    assert_allclose(one.wave, wave, atol=1e-3)
    assert_allclose(one.flux, flux, rtol=1e-6)
    twice = (wave > 5700) & (wave < 5800)
    assert_allclose(one.ivar[twice], 2 * err[twice] ** -2, rtol=1e-6)


# -- what is wrong with a spectrum -----------------------------------------------------------


def test_an_unusable_spectrum_is_an_excluded_row(spectrum, reference, tmp_path):
    hdus = images(spectrum, 3)
    hdus[3].data[1] = 0.0
    fits.HDUList(hdus).writeto(tmp_path / "rows.fits")
    found = same(tmp_path / "rows.fits", reference, OBSERVED, n=2)
    (left,) = found.excluded
    assert (left.row, left.id, left.reason) == (1, "rows-1", "nothing_observed")
    assert any(n.startswith("not inferred: 'rows.fits', row 1: all") for n in found.notes)
    assert found.rows.tolist() == [0, 2]


def test_notes_that_many_spectra_share_are_one_sentence(spectrum, tmp_path):
    hdus = images(spectrum, 5)
    hdus[2].data[:, 900] = np.nan
    hdus[2].data[1, 901] = np.nan
    fits.HDUList(hdus).writeto(tmp_path / "rows.fits")
    notes = [n for n in read(tmp_path / "rows.fits", OBSERVED).notes if "finite" in n]
    assert notes == ["rows-0 and 4 more: 1 pixel without a finite flux or error masked"]


def test_a_broken_file_of_a_folder_is_an_excluded_row(spectrum, tmp_path):
    wave, flux, err, facts = spectrum
    columns = {"WAVE": wave, "FLUX": flux, "IVAR": err**-2}
    write(tmp_path / "good.fits", columns, facts)
    (tmp_path / "broken.fits").write_text("hello")
    (tmp_path / "notes.pdf").write_text("not a spectrum")
    found = read(tmp_path)
    assert [(e.id, e.reason) for e in found.excluded] == [("broken", "unreadable")]


def test_descending_wavelengths_are_turned(spectrum, reference, tmp_path):
    wave, flux, err, facts = spectrum
    columns = {"WAVE": wave[::-1], "FLUX": flux[::-1], "IVAR": err[::-1] ** -2}
    same(write(tmp_path / "g.fits", columns, facts), reference)


@pytest.mark.parametrize(
    ("word", "vacuum"),
    [("T", True), ("vacuum", True), ("VAC", True), ("AIR", False), ("air", False), ("no", False)],
)
def test_air_and_vacuum_are_said_in_many_words(spectrum, tmp_path, word, vacuum):
    wave, flux, err, _ = spectrum
    table = Table({"wave": wave, "flux": flux, "err": err}, meta={"VACUUM": word})
    table.write(tmp_path / "t.ecsv")
    (raw,) = read_raw(tmp_path / "t.ecsv")
    assert raw.vacuum is vacuum


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({}, None),
        ({"VACUUM": "air"}, "vacuum wavelengths read as air"),
        ({"REDSHIFT": 0.036}, "check the redshift"),
    ],
)
def test_lines_off_their_place_are_flagged(spectrum, tmp_path, velocities, facts, said):
    wave, flux, err, own = spectrum
    path = write(tmp_path / "g.fits", {"WAVE": wave, "FLUX": flux, "IVAR": err**-2}, own | facts)
    found = read(path, velocities=velocities)
    assert ("velocity_offset" in warnings_of(found)) == (said is not None)
    assert any(said in n for n in found.notes) if said else True


def test_velocities_are_measured(observed_simulator, velocities):
    """Errors of simulated spectra at any dispersion, S/N at least 20: median 7, 90 % 16 km/s."""
    import torch

    telescope = observed_simulator.telescope
    batch = observed_simulator.draw(40, 3).succeeded
    rows = telescope.draw(len(batch), torch.Generator().manual_seed(1))
    rows.snr.clamp_(min=20.0)
    seen = telescope.observe_as(batch, rows, 5)
    off = [
        velocities.offset(seen.x[k].double().numpy(), seen.mask[k].numpy())[0] - float(v)
        for k, v in enumerate(rows.velocity)
    ]
    assert np.quantile(np.abs(off), 0.9) < 35
    assert np.median(np.abs(off)) < 15


@pytest.mark.parametrize(("factor", "flagged"), [(1.0, False), (3.0, True), (1e-3, True)])
def test_errors_unlike_the_scatter_are_flagged(spectrum, tmp_path, rng, factor, flagged):
    wave, flux, err, facts = spectrum
    noisy = flux + err * rng.standard_normal(len(flux))
    columns = {"WAVE": wave, "FLUX": noisy, "IVAR": (factor * err) ** -2}
    found = read(write(tmp_path / "g.fits", columns, facts))
    assert ("errors_unlike_scatter" in warnings_of(found)) == flagged


def test_a_galaxy_knows_the_age_of_the_universe(simulator, tmp_path):
    for z, age in ((0.01, 13.33), (0.12, 11.93)):
        columns, facts, _ = galaxy(simulator, z=z)
        found = read(write(tmp_path / "g.fits", columns, facts), OBSERVED)
        assert found.labels["age_universe"][0] == pytest.approx(age, abs=0.01)
        assert "redshift_unlike_model" not in warnings_of(found)


def test_a_galaxy_too_far_from_the_age_of_the_model_is_refused(simulator, tmp_path):
    columns, facts, _ = galaxy(simulator, z=0.6)
    path = write(tmp_path / "g.fits", columns, facts)
    with pytest.raises(UnusableSpectrumError, match=r"7.8 Gyr old.*simulator.redshift=0.6"):
        read(path, OBSERVED)
    assert len(read(path, SfhConfig(mode="observed", redshift=0.6))) == 1


@pytest.mark.parametrize(
    ("facts", "known", "flag"),
    [({"VDISP": 150.0}, True, ""), ({"VDISP": 850.0}, False, ""), ({"VDISP": 0.0}, False, ""),
     ({"SIGMA": 600.0}, False, "sigma_outside_training"),
     ({"SIGMA": 20.0}, False, "sigma_outside_training")],
)  # fmt: skip
def test_dispersions_that_are_none_are_not_used(spectrum, tmp_path, facts, known, flag):
    wave, flux, err, own = spectrum
    path = write(tmp_path / "g.fits", {"WAVE": wave, "FLUX": flux, "IVAR": err**-2}, own | facts)
    found = read(path)
    assert bool(found.batch.context[0, 1].isfinite()) == known
    assert ("sigma_outside_training" in warnings_of(found)) == bool(flag)


def test_a_mask_the_other_way_round_is_refused(spectrum, tmp_path):
    wave, flux, err, facts = spectrum
    table = Table({"wave": wave, "flux": flux, "err": err, "mask": np.ones(len(wave), bool)})
    table["mask"][::100] = False
    table["wave"].unit, table.meta = "Angstrom", facts
    table.write(tmp_path / "t.ecsv")
    with pytest.raises(UnusableSpectrumError, match="the other way round"):
        read(tmp_path / "t.ecsv")


def test_mode_mock_takes_complete_spectra_only(simulator, spectrum, tmp_path):
    hdus = images(spectrum, 3, FRAME="rest")
    hdus[1].data /= 1.03
    hdus[3].data[1, 500:520] = 0.0
    fits.HDUList(hdus).writeto(tmp_path / "rows.fits")
    found = simulator.read_observations(tmp_path / "rows.fits")
    assert [(e.row, e.reason) for e in found.excluded] == [(1, "masked_pixels")]
    assert found.rows.tolist() == [0, 2]
    hdus[3].data[:, 500:520] = 0.0
    fits.HDUList(hdus).writeto(tmp_path / "none.fits")
    with pytest.raises(UnusableSpectrumError, match="simulator.mode=observed"):
        simulator.read_observations(tmp_path / "none.fits")


def test_flux_per_frequency_becomes_flux_per_wavelength(spectrum, reference, tmp_path):
    wave, flux, err, facts = spectrum
    table = Table({"wave": wave, "flux": flux * wave**2, "err": err * wave**2}, meta=facts)
    table["wave"].unit, table["flux"].unit, table["err"].unit = "Angstrom", "mJy", "mJy"
    table.write(tmp_path / "t.ecsv")
    found = same(tmp_path / "t.ecsv", reference)
    assert any("flux per frequency" in n for n in found.notes)


def test_masked_cells_are_masked_pixels(spectrum, tmp_path):
    wave, flux, err, _ = spectrum
    hidden = np.zeros(len(wave), bool)
    hidden[500:510] = True
    table = Table({"wave": wave, "flux": MaskedColumn(flux, mask=hidden), "err": err})
    table.write(tmp_path / "t.ecsv")
    (raw,) = read_raw(tmp_path / "t.ecsv")
    assert np.flatnonzero(~np.isfinite(raw.flux)).tolist() == list(range(500, 510))


# -- files of the reference data ---------------------------------------------------------------


@pytest.fixture
def cases():
    folder = Path(os.environ.get("SBI_DATA_DIR", "")) / "cases" / "sfh"
    if not folder.is_dir():
        pytest.skip("no cases/sfh below SBI_DATA_DIR")
    return folder


@pytest.fixture(scope="module")
def narrow():
    """The case files cover 3542-7407 Angstrom at rest."""
    from sbi_sfh.simulator import SfhSimulator

    options = {"vacuum": True, "default_redshift": 0.03, "wave_unit": "Angstrom"}
    return SfhSimulator(SfhConfig(mode="observed", wave_range=(3650.0, 7300.0), **options))


WITH_NEITHER_FLAG_NOR_CHANGE = [
    "ascii_commented.txt", "ascii_facts.dat", "ascii_header.txt", "ascii_noheader.dat",
    "csv_names2.csv", "csv_plain.csv", "ecsv_good.ecsv", "ecsv_descending.ecsv",
    "ecsv_nan_err.ecsv", "ecsv_nan_flux.ecsv", "ecsv_spectral_axis.ecsv", "ecsv_vdisp850.ecsv",
    "npz_good.npz", "npz_many.npz", "ppxf_like.npz", "table.hdf5", "table.parquet",
    "table_galaxy_per_row.fits", "sdss_legacy_spec.fits", "sdss_boss_spec_SPALL.fits",
    "sdss_dr7_spSpec.fit", "sdss_spPlate.fits", "eso_phase3.fits", "lamost_dr8.fits",
    "specutils_tabular.fits", "manga_LOGCUBE.fits", "manga_LOGRSS.fits",
    "images_rows_infer_fails.fits", "images_rows_one_empty.fits",
]  # fmt: skip


@pytest.mark.parametrize("name", WITH_NEITHER_FLAG_NOR_CHANGE)
def test_reference_spectra_are_read(cases, narrow, name):
    good = narrow.read_observations(cases / "ecsv_good.ecsv")
    found = narrow.read_observations(cases / name)
    assert [e.reason for e in found.excluded] in ([], ["nothing_observed"])
    assert set(found.labels["reading"].tolist()) == set(good.labels["reading"].tolist())
    both = (found.batch.mask[0] & good.batch.mask[0]).numpy()
    ours, theirs = found.batch.x[0].numpy()[both], good.batch.x[0].numpy()[both]
    assert both.mean() > 0.8
    assert np.abs(ours / theirs - 1).max() < (0.25 if "nan" in name else 0.05)


@pytest.mark.parametrize(
    ("name", "flag"),
    [
        ("ecsv_vacuum_AIR_card.ecsv", "velocity_offset"),
        ("ecsv_air_said_vacuum.ecsv", "velocity_offset"),
        ("ecsv_z_wrong.ecsv", "velocity_offset"),
        ("ecsv_err_x3.ecsv", "errors_unlike_scatter"),
        ("ecsv_err_fraction.ecsv", "errors_unlike_scatter"),
        ("ecsv_dusty_Av1.5.ecsv", "continuum_unlike_model"),
        ("ecsv_sigma600.ecsv", "sigma_outside_training"),
        ("ecsv_sigma20.ecsv", "sigma_outside_training"),
    ],
)
def test_misleading_reference_spectra_are_flagged(cases, narrow, name, flag):
    found = narrow.read_observations(cases / name)
    assert flag in warnings_of(found)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ecsv_z05.ecsv", r"8.4 Gyr old.*simulator.redshift=0.5"),
        ("ecsv_mask_true_is_good.ecsv", "the other way round"),
        ("ecsv_neg_err.ecsv", "row 500 is -1"),
        ("csv_ok_noerr.csv", "IVAR or ERR"),
        ("csv_sdss_skyserver.csv", "IVAR or ERR"),
        ("iraf_linear.fits", "IVAR or ERR"),
    ],
)
def test_reference_spectra_that_cannot_be_used_are_refused(cases, narrow, name, message):
    with pytest.raises(ObservationError, match=message):
        narrow.read_observations(cases / name)


def test_an_integer_column_with_an_empty_field_is_a_sentence(narrow):
    root = Path(os.environ.get("SBI_DATA_DIR", "")) / "cases" / "tables-and-runs"
    path = root / "06-sfh-empty-integer-cell" / "spectrum.csv"
    if not path.is_file():
        pytest.skip("no cases/tables-and-runs below SBI_DATA_DIR")
    with pytest.raises(ObservationError, match="covers 3999-4003|needs"):
        narrow.read_observations(path)


def test_almost_all_reference_files_are_read_without_a_false_flag(cases):
    """With what they lack given by options; the others are wrong, and say so (see above)."""
    from sbi_core import SbiError
    from sbi_sfh.simulator import SfhSimulator

    options = {"vacuum": True, "wave_unit": "Angstrom", "assumed_snr": 60.0,
               "default_redshift": 0.03}  # fmt: skip
    simulator = SfhSimulator(SfhConfig(mode="observed", redshift=0.03, **options))
    expected = {
        "califa_cube.fits": "velocity_offset",  # vacuum wavelengths under CTYPE3 = AWAV
        "muse_cube.fits": "velocity_offset",
        "desi_coadd.fits": "errors_unlike_scatter",  # twice as large as the noise
        "desi_coadd_brz.fits": "errors_unlike_scatter",
        "ecsv_air_said_vacuum.ecsv": "velocity_offset",
        "ecsv_vacuum_AIR_card.ecsv": "velocity_offset",
        "ecsv_dusty_Av1.5.ecsv": "continuum_unlike_model,errors_unlike_scatter",
        "ecsv_err_fraction.ecsv": "errors_unlike_scatter",
        "ecsv_err_x3.ecsv": "errors_unlike_scatter",
        "ecsv_sigma20.ecsv": "sigma_outside_training",
        "ecsv_sigma600.ecsv": "sigma_outside_training",
        "ecsv_mask_true_is_good.ecsv": "refused",
        "ecsv_neg_err.ecsv": "refused",
        "ecsv_z05.ecsv": "refused",
        "ecsv_z_wrong.ecsv": "refused",
    }
    for path in sorted(cases.iterdir()):
        try:
            found = simulator.read_observations(path)
        except SbiError:
            result = "refused"
        else:
            words = {w for row in found.labels["reading"] for w in str(row).split(",") if w}
            result = ",".join(sorted(words))
        assert (path.name, result) == (path.name, expected.get(path.name, ""))
