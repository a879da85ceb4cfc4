"""Tables as surveys and users write them: names, units, missing values, repeated rows."""

import os
from pathlib import Path

import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from astropy.table import Table
from numpy.testing import assert_allclose

from sbi_core import ObservationError, read_table
from sbi_core.data.reading import Reading
from sbi_core.data.tables import prepared
from sbi_sedflow.bandsets import load_bands
from sbi_sedflow.columns import Choices, photometry_of_table
from sbi_sedflow.constants import BANDS, PIVOTS
from sbi_sedflow.fluxunits import nanomaggies_per
from sbi_sedflow.magnitudes import SDSS_SOFTENING
from sbi_sedflow.photometry import observations_of
from sbi_sedflow.tables import read_galaxies

FLUX = np.array([10.0, 13.0, 19.0, 74.0, 102.0, 115.0, 90.0])
SIGMA = 0.03 * FLUX
MAG = 22.5 - 2.5 * np.log10(FLUX)
MAG_ERROR = 1.0857362 * 0.03
VEGA = {b.name: b.vega for b in load_bands().bands}
CORRECTED = Choices(extinction="corrected")


def table_of(names, values, n=2, **more):
    """A table of n equal galaxies with columns for the bands of ``names``."""
    table = Table({"z": np.full(n, 0.05), **more})
    for form, value in zip(names, values, strict=True):
        for band, v in value.items():
            table[form.format(band)] = np.full(n, v)
    return table


def per_band(values, bands=BANDS):
    return {b: v for b, v in zip(BANDS, np.broadcast_to(values, 7), strict=True) if b in bands}


def fluxes(unit="nmgy", names=("flux_{}", "flux_err_{}"), factor=1.0, bands=BANDS, n=2):
    value = per_band(FLUX / factor, bands), per_band(SIGMA / factor, bands)
    table = table_of(names, value, n)
    for c in table.colnames[1:]:
        table[c].unit = units.Unit(unit, parse_strict="silent") if unit else None
    return table


def magnitudes(names, bands="ugriz", **more):
    return table_of(names, (per_band(MAG, bands), per_band(MAG_ERROR, bands)), **more)


def asinh(flux, sigma, band):
    """Magnitude and error as SDSS defines them; b in units of f0 as published."""
    b = {"u": 1.4e-10, "g": 0.9e-10, "r": 1.2e-10, "i": 1.8e-10, "z": 7.4e-10}[band]
    x = 1e-9 * np.asarray(flux)
    mag = -2.5 / np.log(10) * (np.arcsinh(x / (2 * b)) + np.log(b))
    return mag, 2.5 / np.log(10) * 1e-9 * sigma / (2 * b) / np.sqrt(1 + (x / (2 * b)) ** 2)


def luptitudes(names, bands="ugriz", through=1.0, **more):
    both = {b: asinh(f * through, s * through, b)
            for b, f, s in zip(BANDS, FLUX, SIGMA, strict=True) if b in bands}  # fmt: skip
    values = [{b: pair[k] for b, pair in both.items()} for k in (0, 1)]
    return table_of(names, values, **more)


def check(photometry, bands):
    expected = np.where([b in bands for b in BANDS], FLUX, np.nan)
    assert_allclose(photometry.flux, np.tile(expected, (len(photometry), 1)), rtol=1e-4)
    assert_allclose(photometry.sigma, 0.03 * photometry.flux, rtol=1e-4)
    assert_allclose(photometry.z, 0.05)


@pytest.mark.parametrize("kind", ["modelMag", "cModelMag", "petroMag", "psfMag"])
def test_casjobs_tables_are_read(kind):
    ids = np.array([1237648720000112367, 1237648720000112771])
    table = luptitudes((f"{kind}_{{}}", f"{kind}Err_{{}}"), objid=ids)
    table.rename_column("z", "specz")
    found = photometry_of_table(table, "t", CORRECTED)
    check(found, "ugriz")
    assert found.id == [str(i) for i in ids]
    assert any(f"photometry from {kind}_u" in n for n in found.notes)
    assert any("asinh" in n for n in found.notes)
    assert any("used as AB" in n for n in found.notes)


def test_extinction_that_nothing_tells_must_be_chosen_and_the_choice_is_noted():
    table = luptitudes(("modelMag_{}", "modelMagErr_{}"))
    for choice, problem in ((None, "are modelMag_u, .*corrected for Gal.*extinction=corrected"),
                            ("columns", "no column extinction_b")):  # fmt: skip
        with pytest.raises(ObservationError, match=problem):
            photometry_of_table(table, "t", Choices(extinction=choice))
    for choice, note in (("corrected", "taken as corrected"), ("none", "NOT corrected")):
        found = photometry_of_table(table, "t", Choices(extinction=choice))
        check(found, "ugriz")
        assert any(n.startswith(note) and "as chosen: u g r i z" in n for n in found.notes)


def test_extinction_of_casjobs_is_undone_and_said():
    table = luptitudes(("modelMag_{}", "modelMagErr_{}"), through=10**-0.08)
    for b in "ugriz":
        table[f"extinction_{b}"] = 0.2
    found = photometry_of_table(table, "t")
    check(found, "ugriz")
    listed = ", ".join(f"{b} extinction_{b}" for b in "ugriz")
    assert f"corrected for Galactic extinction: {listed}" in found.notes
    assert_allclose(photometry_of_table(table, "t", CORRECTED).flux[0, 2:], FLUX[2:] * 10**-0.08)


def test_the_colour_excess_corrects_every_band_with_its_coefficient():
    table = fluxes("uJy", names=("{}_flux", "{}_fluxerr"), factor=1 / 3.631)
    for b, r in zip(BANDS, (8.24, 8.20, 4.239, 3.303, 2.285, 1.698, 1.263), strict=True):
        table[f"{b}_flux"] *= 10 ** (-0.4 * r * 0.1)
        table[f"{b}_fluxerr"] *= 10 ** (-0.4 * r * 0.1)
    table["E(B-V)"] = 0.1
    found = photometry_of_table(table, "t")
    check(found, BANDS)
    assert any("A = R E(B-V): R of F 8.24, N 8.2, u 4.239" in n for n in found.notes)


def test_a_missing_extinction_masks_the_band_and_is_counted():
    table = luptitudes(("modelMag_{}", "modelMagErr_{}"))
    for b in "ugriz":
        table[f"extinction_{b}"] = [0.0, -9999.0 if b == "u" else 0.0]
    found = photometry_of_table(table, "t")
    assert np.argwhere(~np.isfinite(found.flux[:, 2:])).tolist() == [[1, 0]]
    assert "1 value masked, whose extinction is missing" in found.notes


@pytest.mark.parametrize("choice", [None, "columns"])
def test_extinction_beside_columns_that_are_corrected_is_not_applied_twice(choice):
    table = luptitudes(("dered_{}", "err_{}"))
    for b in "ugriz":
        table[f"extinction_{b}"] = 0.2
    found = photometry_of_table(table, "t", Choices(extinction=choice))
    check(found, "ugriz")
    assert any("extinction not applied to dered_u" in n for n in found.notes)


@pytest.mark.parametrize("column", ["extinction_{}", "A_{}", "ebv"])
def test_extinction_beside_our_own_names_is_asked_for(column):
    table = magnitudes(("mag_{}", "mag_err_{}"))
    for b in "ugriz":
        table[column.format(b)] = 0.2
    with pytest.raises(ObservationError, match=r"is 'mag_u' to be corrected .* '(ext|A_u|ebv)"):
        photometry_of_table(table, "t")
    found = photometry_of_table(table, "t", CORRECTED)
    check(found, "ugriz")
    assert any("taken as corrected" in n and "as chosen" in n for n in found.notes)
    found = photometry_of_table(table, "t", Choices(extinction="columns"))
    loss = 0.2 * np.array([4.239, 3.303, 2.285, 1.698, 1.263]) if column == "ebv" else 0.2
    assert_allclose(found.flux[0, 2:], FLUX[2:] * 10 ** (0.4 * loss))
    for c in [c for c in table.colnames if "mag" not in c and c != "z"]:
        table.remove_column(c)
    found = photometry_of_table(table, "t")
    assert any("taken as corrected" in n and "names of the columns" in n for n in found.notes)


def test_asinh_magnitudes_hold_for_fluxes_near_and_below_zero():
    table = luptitudes(("modelMag_{}", "modelMagErr_{}"), n=3)
    flux, sigma = np.array([-0.3, 0.0, 0.3]), 0.2
    for b in "ugriz":
        table[f"modelMag_{b}"], table[f"modelMagErr_{b}"] = asinh(flux, sigma, b)
    found = photometry_of_table(table, "t", CORRECTED)
    assert_allclose(found.flux[:, 2:], np.repeat(flux[:, None], 5, 1), atol=1e-8)
    assert_allclose(found.sigma[:, 2:], sigma, rtol=1e-6)
    pogson = photometry_of_table(table, "t", Choices(extinction="none", magnitudes="AB"))
    assert_allclose(pogson.flux[1, 2:], list(SDSS_SOFTENING.values()), rtol=1e-6)


@pytest.mark.parametrize(
    ("which", "offsets"),
    [("sdss", [-0.04, 0, 0, 0, 0.02]), ("kcorrect", [-0.036, 0.012, 0.010, 0.028, 0.040])],
)
def test_offsets_from_sdss_to_ab_are_an_option_that_is_said(which, offsets):
    table = luptitudes(("modelMag_{}", "modelMagErr_{}"))
    found = photometry_of_table(table, "t", Choices(extinction="none", ab_offsets=which))
    assert_allclose(found.flux[0, 2:], FLUX[2:] * 10 ** (-0.4 * np.array(offsets)), rtol=1e-6)
    assert_allclose(found.sigma, 0.03 * found.flux, rtol=1e-4)
    assert any(n.startswith(f"SDSS to AB: u {offsets[0]:+g}") for n in found.notes)


def test_fluxes_of_sdss_are_nanomaggies_in_one_column_or_five():
    table = Table({"z": [0.05, 0.05]})
    wide = Table({"z": [0.05, 0.05]})
    for name, value in (("MODELFLUX", FLUX[2:]), ("MODELFLUX_IVAR", SIGMA[2:] ** -2.0)):
        wide[name] = np.tile(value, (2, 1))
        for b, v in zip("ugriz", value, strict=True):
            table[name.replace("FLUX", "Flux").replace("_IVAR", "Ivar") + f"_{b}"] = [v, v]
    wide["EXTINCTION"] = np.zeros((2, 5))
    for b in "ugriz":
        table[f"extinction_{b}"] = 0.0
    for t in (table, wide):
        found = photometry_of_table(t, "t")
        check(found, "ugriz")
        assert any("nmgy, as its survey defines" in n for n in found.notes)


def test_which_photometry_of_sdss_is_read_is_an_option_and_the_others_are_named():
    table = luptitudes(("modelMag_{}", "modelMagErr_{}"))
    petro = luptitudes(("petroMag_{}", "petroMagErr_{}"), through=0.5)
    for c in petro.colnames[1:]:
        table[c] = petro[c]
    found = photometry_of_table(table, "t", CORRECTED)
    check(found, "ugriz")
    assert any("not used: the petro photometry" in n for n in found.notes)
    found = photometry_of_table(table, "t", Choices("petro", extinction="none"))
    assert_allclose(found.flux[0, 2:], 0.5 * FLUX[2:], rtol=1e-6)
    with pytest.raises(ObservationError, match="photometry = psf, but"):
        photometry_of_table(table, "t", Choices("psf", extinction="none"))


def test_columns_of_one_letter_are_magnitudes_beside_their_errors():
    table = luptitudes(("{}", "err_{}"), bands="ugri")
    table.rename_column("z", "redshift")
    table["z"], table["err_z"] = asinh(FLUX[6], SIGMA[6], "z")
    check(photometry_of_table(table, "t", CORRECTED), "ugriz")


def test_magnitudes_without_errors_are_refused_by_name():
    table = luptitudes(("{}", "err_{}"))
    table.remove_columns([f"err_{b}" for b in "ugriz"])
    with pytest.raises(ObservationError, match="magnitudes u, g, r, i, z have no errors; add err_"):
        photometry_of_table(table, "t")


def test_a_column_z_that_may_be_redshift_or_magnitude_is_asked_about():
    table = magnitudes(("{}", "err_{}"), bands="ugri")
    table["err_z"] = 0.02
    with pytest.raises(ObservationError, match="redshift or the magnitude of band z.*--column"):
        photometry_of_table(table, "t", CORRECTED)


def test_a_redshift_with_an_error_is_no_magnitude():
    table = magnitudes(("mag_{}", "mag_err_{}"), bands="gr")
    table["z_err"] = 0.001
    check(photometry_of_table(table, "t"), "gr")


def test_galex_and_vizier_names_are_read():
    table = magnitudes(("{}mag", "e_{}mag"))
    for band, k in (("FUV", 0), ("NUV", 1)):
        table[f"{band}_mag"], table[f"{band}_magerr"] = MAG[k], MAG_ERROR
    check(photometry_of_table(table, "t", CORRECTED), BANDS)


OTHER_SURVEYS = {
    "HSC": (("{}_cmodel_mag", "{}_cmodel_magerr"), "mag", "lsst"),
    "HSC early": (("{}_kron_mag", "{}_kron_magsigma"), "mag", "lsst"),
    "LSST": (("{}_cModelFlux", "{}_cModelFluxErr"), 3631.0, "lsst"),
    "LSST free": (("{}_free_psfFlux", "{}_free_psfFluxErr"), 3631.0, "lsst"),
    "Pan-STARRS": (("{}MeanKronMag", "{}MeanKronMagErr"), "mag", "sdss"),
    "DES": (("MAG_AUTO_{}", "MAGERR_AUTO_{}"), "mag", "sdss"),
    "GAMA": (("flux_{}t", "flux_err_{}t"), 3.631e-6, "sdss"),
}


@pytest.mark.parametrize("survey", OTHER_SURVEYS)
def test_columns_of_other_surveys_are_read(survey):
    names, form, bands = OTHER_SURVEYS[survey]
    values = (MAG, MAG_ERROR) if form == "mag" else (FLUX * form, SIGMA * form)
    table = table_of(names, [per_band(v, "gri") for v in values])
    found = photometry_of_table(table, "t", CORRECTED, load_bands(bands))
    k = [load_bands(bands).names.index(b) for b in "gri"]
    assert_allclose(found.flux[0, k], FLUX[3:6], rtol=1e-6)
    assert_allclose(found.sigma[0, k], SIGMA[3:6], rtol=1e-4)
    curves = any("check that the curves" in n for n in found.notes)
    assert curves is (survey not in ("LSST", "LSST free", "GAMA"))


@pytest.mark.parametrize(
    ("value", "error", "bands"),
    [("{}mpro", "{}sigmpro", ("W1", "W2")), ("{}_m", "{}_msigcom", ("J", "H", "K")),
     ("{}_m_ext", "{}_msig_ext", ("J", "H", "K"))],
)  # fmt: skip
def test_catalogues_of_wise_and_2mass_hold_vega_magnitudes(value, error, bands):
    table = Table({"z": [0.05]})
    for b in bands:
        table[value.format(b.lower())], table[error.format(b.lower())] = 14.0, 0.03
    known = load_bands("legacy" if "W1" in bands else "galex-sdss-2mass")
    found = photometry_of_table(table, "t", CORRECTED, known)
    for band, flux in zip(known.bands, found.flux[0], strict=True):
        if band.name[:1] in [b[:1] for b in bands]:
            assert flux == pytest.approx(10 ** (0.4 * (22.5 - 14.0 - band.vega)))
    assert np.isfinite(found.flux).sum() == len(bands)


def test_bands_beside_err_are_magnitudes_or_fluxes_by_their_unit():
    table = Table({"redshift": [0.05], "galex.FUV": [FLUX[0]], "galex.FUV_err": [SIGMA[0]]})
    for b, k in (("u", 2), ("r", 4), ("z", 6)):
        table[f"sdss.{b}p"], table[f"sdss.{b}p_err"] = FLUX[k], SIGMA[k]
    with pytest.raises(ObservationError, match="'galex.FUV_err' magnitudes or fluxes[?].*--unit"):
        photometry_of_table(table, "t", CORRECTED)
    choices = Choices(extinction="corrected", flux_unit="nmgy")
    check(photometry_of_table(table, "t", choices), "Furz")
    with_unit = prepared(table, Reading(units={"": "nmgy"}), "t")
    check(photometry_of_table(with_unit, "t", CORRECTED), "Furz")
    table["z"] = 0.05  # beside a magnitude or flux of band z under another name: a redshift
    table.remove_column("redshift")
    check(photometry_of_table(table, "t", choices), "Furz")
    table = magnitudes(("{}", "{}_err"), bands="gri")
    choices = Choices(magnitudes="AB", extinction="corrected")
    check(photometry_of_table(table, "t", choices), "gri")


def test_a_photometric_redshift_is_named_and_not_taken():
    table = magnitudes(("mag_{}", "mag_err_{}"))
    table.rename_column("z", "z_phot")
    with pytest.raises(ObservationError, match="--column redshift=z_phot .a photometric redshift"):
        photometry_of_table(table, "t")


def test_a_flux_with_an_error_of_the_same_mark_is_missing():
    table = fluxes(n=3)
    table["flux_r"][0] = table["flux_err_r"][0] = 99.0
    table["flux_r"][1], table["flux_err_r"][1] = 99.0, 9.0
    found = photometry_of_table(table, "t")
    assert np.isfinite(found.flux[:, 4]).tolist() == [False, True, True]


@pytest.mark.parametrize(
    "column", ["objID", "specObjID", "TARGETID", "NSAID", "IAUNAME", "CATAID", "objectId",
               "COADD_OBJECT_ID", "mangaid", "designation"]
)  # fmt: skip
def test_identifiers_of_surveys_are_kept(column):
    table = magnitudes(("mag_{}", "mag_err_{}"))
    table[column] = ["1237648720000112367", "J1234"]
    assert photometry_of_table(table, "t").id == ["1237648720000112367", "J1234"]


def test_fluxes_of_galex_are_microjanskys():
    values = [{"FUV": v[0] * 3.631, "NUV": v[1] * 3.631} for v in (FLUX, SIGMA)]
    table = table_of(("{}_flux", "{}_fluxerr"), values)
    found = photometry_of_table(table, "t", CORRECTED)
    check(found, "FN")
    assert any("uJy, as its survey defines" in n for n in found.notes)


@pytest.mark.parametrize("unit", [None, "nanomaggies"])
@pytest.mark.parametrize("transmission", [None, 0.8])
def test_legacy_surveys_tables_are_read(unit, transmission):
    through = transmission or 1.0
    flux, ivar = per_band(FLUX * through, "grz"), per_band(1 / (SIGMA * through) ** 2, "grz")
    table = Table({"TARGETID": [39627640566453451, 39627640566453452], "Z": [0.05, 0.05]})
    for b in flux:
        table[f"FLUX_{b.upper()}"] = np.full(2, flux[b])
        table[f"FLUX_IVAR_{b.upper()}"] = np.full(2, ivar[b])
        if unit:
            table[f"FLUX_{b.upper()}"].unit = units.Unit(unit, parse_strict="silent")
            power = units.Unit("1/nanomaggies^2", parse_strict="silent")
            table[f"FLUX_IVAR_{b.upper()}"].unit = power
        if transmission:
            table[f"MW_TRANSMISSION_{b.upper()}"] = transmission
    table["FLUX_W1"] = 3.0
    if not transmission:
        with pytest.raises(ObservationError, match=r"are FLUX_G, FLUX_R, FLUX_Z corrected"):
            photometry_of_table(table, "t")
    found = photometry_of_table(table, "t", Choices() if transmission else CORRECTED)
    check(found, "grz")
    assert found.id[0] == "39627640566453451"
    assert any("filters of the Legacy Surveys differ" in n for n in found.notes)
    assert "not used, other bands: FLUX_W1" in found.notes
    listed = ", ".join(f"{b} MW_TRANSMISSION_{b.upper()}" for b in "grz")
    said = f"corrected for Galactic extinction: {listed}" in found.notes
    assert said == (transmission is not None)


def legacy(n=3):
    table = Table({"Z": np.full(n, 0.05)})
    for b, f, s in zip(BANDS, FLUX, SIGMA, strict=True):
        if b in "grz":
            table[f"FLUX_{b.upper()}"], table[f"FLUX_IVAR_{b.upper()}"] = f, s**-2.0
            table[f"MW_TRANSMISSION_{b.upper()}"] = 1.0
    return table


def test_an_inverse_variance_of_zero_is_a_missing_value():
    table = legacy()
    table["FLUX_IVAR_G"][1], table["FLUX_IVAR_R"][2] = 0.0, -99.0
    found = photometry_of_table(table, "t")
    assert np.argwhere(~np.isfinite(found.flux[:, [3, 4, 6]])).tolist() == [[1, 0], [2, 1]]
    assert any("missing values" in n and n.endswith(": g 1") for n in found.notes)
    assert any("1 value without a positive error masked (r 1)" in n for n in found.notes)


def test_objects_of_the_legacy_surveys_are_numbered_within_their_brick():
    table = legacy()
    table["RELEASE"], table["BRICKID"], table["OBJID"] = 9010, [1, 2, 2], [7, 7, 8]
    found = photometry_of_table(table, "t")
    assert found.id == ["9010-1-7", "9010-2-7", "9010-2-8"]
    assert "identifiers are RELEASE-BRICKID-OBJID" in found.notes


def test_a_magnitude_without_error_beside_a_flux_with_one_is_not_read():
    table = legacy()
    for b in "grz":
        table[f"mag_{b}"] = 99.0
    check(photometry_of_table(table, "t"), "grz")


def test_rows_with_a_doubtful_redshift_and_stars_are_flagged_and_counted():
    table = legacy(4)
    table["ZWARN"], table["SPECTYPE"] = [0, 4, 0, 0], ["GALAXY", "GALAXY", "STAR", "QSO"]
    found = photometry_of_table(table, "t")
    assert found.quality.tolist() == [True, False, False, False]
    assert "1 row flagged QUALITY: 'ZWARN' is not 0" in found.notes
    assert "2 rows flagged QUALITY: STAR or QSO in 'SPECTYPE'" in found.notes


# -- units and names of the user -----------------------------------------------------------


@pytest.mark.parametrize("unit", ["nmgy", "nanomaggies", "mgy", "uJy", "Jy", "erg / (s cm2 Hz)"])
def test_fluxes_are_converted_by_the_unit_of_their_column(unit):
    factor = nanomaggies_per(unit, "t", "c")
    check(photometry_of_table(fluxes(unit, factor=factor), "t"), BANDS)


def test_inverse_variances_have_units_too():
    table = fluxes("uJy", factor=1 / 3.631, names=("flux_{}", "flux_ivar_{}"))
    for b, s in zip(BANDS, SIGMA, strict=True):
        table[f"flux_ivar_{b}"] = 1 / (3.631 * s) ** 2
        table[f"flux_ivar_{b}"].unit = "uJy-2"
    check(photometry_of_table(table, "t"), BANDS)


def test_fluxes_per_wavelength_are_converted_at_the_pivot():
    table = fluxes("erg / (s cm2 Angstrom)")
    for k, b in enumerate(BANDS):
        density = 3.631e-29 * 2.99792458e18 / PIVOTS[k] ** 2  # one nanomaggy
        table[f"flux_{b}"] *= density
        table[f"flux_err_{b}"] *= density
    found = photometry_of_table(table, "t")
    check(found, BANDS)
    assert any("pivot wavelengths" in n for n in found.notes)


def test_the_unit_of_a_text_file_stands_in_the_name_or_in_an_option():
    table = fluxes(None)
    with pytest.raises(ObservationError, match=r"'flux_F' has no unit.*flux_F \[uJy\].*flux_unit"):
        photometry_of_table(table, "t")
    check(photometry_of_table(table, "t", Choices(flux_unit="nmgy")), BANDS)
    for c in table.colnames[1:]:
        table.rename_column(c, f"{c} [nmgy]")
    check(photometry_of_table(table, "t"), BANDS)


def test_nanomaggies_survive_a_fits_file(tmp_path):
    table = fluxes(None)
    hdu = fits.table_to_hdu(table)
    for k in range(2, 16):
        hdu.header[f"TUNIT{k}"] = "nmgy"
    hdu.writeto(tmp_path / "t.fits")
    check(photometry_of_table(read_table(tmp_path / "t.fits"), "t"), BANDS)


@pytest.mark.parametrize("word", ["mag(ST)", "nmgy", "dex"])
def test_magnitudes_of_another_system_are_refused(word):
    table = magnitudes(("mag_{}", "mag_err_{}"))
    table["mag_u"].unit = units.Unit(word, parse_strict="silent")
    with pytest.raises(ObservationError, match="AB"):
        photometry_of_table(table, "t")


@pytest.mark.parametrize("where", ["meta", "Vega", "mag(Vega)", "vegamag", "option"])
def test_vega_magnitudes_are_converted_and_said(where):
    table = magnitudes(("mag_{}", "mag_err_{}"), bands=BANDS)
    for b in BANDS:
        table[f"mag_{b}"] -= VEGA[b]
        if where not in ("meta", "option"):
            table[f"mag_{b}"].unit = units.Unit(where, parse_strict="silent")
    if where == "meta":
        table.meta["system"] = "Vega"
    choices = Choices(magnitudes="Vega") if where == "option" else None
    found = photometry_of_table(table, "t", choices)
    check(found, BANDS)
    assert any("Vega magnitudes of F converted to AB by adding +2.223" in n for n in found.notes)
    assert not np.allclose(photometry_of_table(table, "t", Choices(magnitudes="AB")).flux, FLUX)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("nmgy", 1.0), ("Jy", 3.631e-6), ("mJy", 3.631e-3), ("erg/s/cm2/Hz", 3.631e-29),
     ("maggies", 1e-9), ("microJy", 3.631)],
)  # fmt: skip
def test_a_column_of_any_name_is_read_by_its_unit(tmp_path, unit, factor):
    table = Table({"zz": [0.05], "fluxr": [102.0 * factor], "fluxrErr": [3.06 * factor]})
    table.write(tmp_path / "t.csv")
    columns = {"redshift": "zz", "r": "fluxr"}
    reading = Reading(columns, units={"r": unit})
    photometry = photometry_of_table(prepared(table, reading, "t"), "t", CORRECTED)
    check(photometry, "r")
    reading = Reading(columns, units={"": unit})
    check(photometry_of_table(prepared(table, reading, "t"), "t", CORRECTED), "r")
    with pytest.raises(ObservationError, match="'fluxr', read as 'r', has no unit: add --unit r="):
        photometry_of_table(prepared(table, Reading(columns), "t"), "t", CORRECTED)


def test_a_magnitude_of_any_name_is_read_by_its_unit_or_its_name():
    table = Table({"z": [0.05], "rr": [MAG[4]], "rr_err": [MAG_ERROR]})
    reading = Reading({"r": "rr"}, units={"r": "AB mag"})
    check(photometry_of_table(prepared(table, reading, "t"), "t", CORRECTED), "r")
    table.rename_columns(["rr", "rr_err"], ["rmag0", "rmag0_err"])
    reading = Reading({"r": "rmag0"})
    check(photometry_of_table(prepared(table, reading, "t"), "t", CORRECTED), "r")
    table.remove_column("rmag0_err")
    with pytest.raises(
        ObservationError, match="'rmag0' has no errors; add 'err_r' .--column err_r"
    ):
        photometry_of_table(prepared(table, reading, "t"), "t", CORRECTED)


def test_a_unit_for_columns_without_one_leaves_magnitudes_alone():
    table = magnitudes(("mag_{}", "mag_err_{}"))
    table["flux_F"], table["flux_err_F"] = 3.631 * FLUX[0], 3.631 * SIGMA[0]
    table = prepared(table, Reading(units={"": "uJy"}), "t")
    check(photometry_of_table(table, "t"), "Fugriz")


@pytest.mark.parametrize("magnitude", [47.0, 20.0, 12.0, -1.0])
def test_magnitudes_are_never_refused_for_their_size(magnitude):
    table = magnitudes(("mag_{}", "mag_err_{}"))
    for b in "ugriz":
        table[f"mag_{b}"] = magnitude
    assert_allclose(photometry_of_table(table, "t").flux[0, 2:], 10 ** (0.4 * (22.5 - magnitude)))


@pytest.mark.parametrize(("error", "remark"), [(0.3, False), (0.02, True)])
def test_fluxes_like_magnitudes_are_read_with_a_remark(error, remark):
    table = fluxes(None)
    for b in BANDS:
        table[f"flux_{b}"], table[f"flux_err_{b}"] = 18.0, error
    found = photometry_of_table(table, "t", Choices(flux_unit="nmgy"))
    assert_allclose(found.flux, 18.0)
    assert any("as magnitudes would" in n for n in found.notes) == remark


@pytest.mark.parametrize("mark", [-9999.0, -999.0, -99.0, 99.0, 99.99, 999.0])
def test_marks_of_missing_magnitudes_are_missing_and_counted(mark):
    table = magnitudes(("mag_{}", "mag_err_{}"), n=3)
    table["mag_u"][1] = mark
    table["mag_err_g"][2] = mark
    found = photometry_of_table(table, "t")
    assert np.argwhere(~np.isfinite(found.flux[:, 2:])).tolist() == [[1, 0], [2, 1]]
    assert any("missing values" in n and "u 1, g 1" in n for n in found.notes)


@pytest.mark.parametrize("mark", [-9999.0, -999.0, np.nan])
def test_marks_of_missing_fluxes_are_missing_and_counted(mark):
    table = fluxes(n=3)
    table["flux_F"][1] = mark
    table["flux_err_N"][2] = mark
    table["flux_u"][0] = -3.0  # a negative flux is data
    found = photometry_of_table(table, "t")
    assert np.argwhere(~np.isfinite(found.flux)).tolist() == [[1, 0], [2, 1]]
    assert any("missing values" in n and "F 1, N 1" in n for n in found.notes)


def test_words_for_missing_values_are_missing_and_other_words_are_errors():
    table = magnitudes(("mag_{}", "mag_err_{}"))
    table["mag_u"] = ["N/A", str(MAG[2])]
    found = photometry_of_table(table, "t")
    assert np.isfinite(found.flux[:, 2]).tolist() == [False, True]
    table["mag_u"] = ["bright", str(MAG[2])]
    found = observations_of(photometry_of_table(table, "t"), (0.0, 0.2))
    assert [(e.row, e.reason) for e in found.excluded] == [(0, "not_a_number:mag_u")]
    assert "'mag_u' is not numeric ('bright') in row 0" in found.reasons[0]


def test_of_repeated_rows_the_first_complete_one_stays():
    table = fluxes(n=5)
    table["id"] = ["a", "b", "a", "a", "c"]
    table["flux_u"][0] = np.nan
    found = observations_of(photometry_of_table(table, "t"), (0.0, 0.2))
    assert found.rows.tolist() == [1, 2, 4]
    assert [(e.row, e.reason) for e in found.excluded] == [(0, "repeated_id"), (3, "repeated_id")]


def test_a_limit_is_a_missing_value():
    table = fluxes(n=3)
    table["l_flux_u"] = ["", "<", ""]
    found = photometry_of_table(table, "t")
    assert np.argwhere(~np.isfinite(found.flux)).tolist() == [[1, 2]]
    assert any("1 limit of 'flux_u'" in n for n in found.notes)


def test_errors_are_needed_and_asked_for_by_name():
    table = magnitudes(("modelMag_{}", "modelMagErr_{}"))
    table.remove_column("modelMagErr_r")
    with pytest.raises(ObservationError, match="'modelMag_r' has no errors; add 'modelmagerr_r'"):
        photometry_of_table(table, "t")


# -- files of the reference data ---------------------------------------------------------


@pytest.fixture
def cases():
    folder = Path(os.environ.get("SBI_DATA_DIR", "")) / "cases" / "sedflow"
    if not folder.is_dir():
        pytest.skip("no cases/sedflow below SBI_DATA_DIR")
    return folder


READ = {
    "casjobs_model.csv": "ugriz",
    "casjobs_ugriz.csv": "ugriz",
    "dup.ecsv": BANDS,
    "flam.ecsv": BANDS,
    "ivar.ecsv": BANDS,
    "legacy.fits": "grz",
    "legacy_tunit.fits": "grz",
    "strnum.csv": BANDS[1:],
    "zodd.ecsv": BANDS,
}


@pytest.mark.parametrize("name", READ)
def test_reference_tables_are_read(cases, name):
    raw = name.startswith(("casjobs", "legacy"))
    choices = CORRECTED if raw else Choices()
    if raw:
        with pytest.raises(ObservationError, match="corrected for Galactic extinction[?]"):
            photometry_of_table(read_table(cases / name), name)
    found = photometry_of_table(read_table(cases / name), name, choices)
    assert len(found) == 8
    assert found.id[0].endswith("112367")
    assert found.flux[0, 4] == pytest.approx(102.641, rel=1e-4)
    assert found.sigma[0, 4] == pytest.approx(2.0368, rel=1e-3)
    assert np.isfinite(found.flux[0]).tolist() == [b in READ[name] for b in BANDS]


@pytest.mark.parametrize("name", ["legit_faint_mag.ecsv", "legit_faint_refused.ecsv"])
def test_faint_galaxies_are_read_whatever_their_numbers_look_like(cases, name):
    found = photometry_of_table(read_table(cases / name), name)
    assert_allclose(found.flux[0, 3:6], [14.25, 15.0, 15.75], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [("fmt_flux.csv", "no unit"), ("fmt_nmgy.fits", "no unit")],
)
def test_reference_tables_that_lack_a_fact_are_refused(cases, name, message):
    with pytest.raises(ObservationError, match=message):
        photometry_of_table(read_table(cases / name), name)


def test_vega_magnitudes_of_the_reference_are_converted(cases):
    found = photometry_of_table(read_table(cases / "vega.ecsv"), "t")
    reference = photometry_of_table(read_table(cases / "ivar.ecsv"), "t")
    assert_allclose(found.flux, reference.flux, rtol=0.01)  # other offsets of GALEX by 0.009 mag


def test_magnitudes_under_the_names_of_fluxes_get_a_remark(cases):
    found = photometry_of_table(read_table(cases / "mags_as_nmgy_sentinel.ecsv"), "t")
    assert np.isnan(found.flux[0, 0])
    assert any("as magnitudes would" in n for n in found.notes)


def test_odd_redshifts_of_the_reference_are_excluded_rows(cases):
    found = read_galaxies(cases / "zodd.ecsv")
    assert found.id.tolist() == ["113519", "113697"]  # at both ends of the range
    assert [e.row for e in found.excluded] == [0, 1, 2, 3, 4, 5]
    assert {e.reason for e in found.excluded} == {"redshift_outside_model"}


def test_repeated_rows_of_the_reference_are_excluded_rows(cases):
    found = read_galaxies(cases / "dup.ecsv")
    assert len(found) == 7
    assert [(e.row, e.id, e.reason) for e in found.excluded] == [(1, "112367", "repeated_id")]


def test_a_flux_without_errors_names_both_kinds_and_what_happens_without_the_column():
    table = Table({"z": [0.05], "FLUX_G": [5.0], "FLUX_IVAR_G": [4.0], "FLUX_R": [9.0]})
    with pytest.raises(
        ObservationError,
        match="'FLUX_R' has no errors; add 'flux_err_r' or 'flux_ivar_r'; without the column r",
    ):
        photometry_of_table(table, "t", CORRECTED)


def test_rows_without_identifiers_are_numbered_and_a_note_tells():
    table = Table({"z": [0.05], "FLUX_R": [9.0], "FLUX_IVAR_R": [4.0]})
    notes = photometry_of_table(table, "t", CORRECTED).notes
    assert any("rows are numbered from 0 (--column id=NAME)" in note for note in notes)
    table["galaxy_name"] = ["NGC 1"]
    named = photometry_of_table(table, "t", CORRECTED)
    assert list(named.id) == ["NGC 1"]
    assert not any("numbered" in note for note in named.notes)


# -- columns of which only one can be right ------------------------------------------------


def two_surveys():
    table = luptitudes(("modelMag_{}", "modelMagErr_{}"))
    for b in "grz":
        table[f"FLUX_{b.upper()}"] = 0.9 * FLUX[BANDS.index(b)]
        table[f"FLUX_IVAR_{b.upper()}"] = (0.9 * SIGMA[BANDS.index(b)]) ** -2
    return table


def test_columns_of_two_surveys_for_one_band_must_be_chosen():
    table = two_surveys()
    with pytest.raises(ObservationError, match=r"band g has both 'FLUX_G' and 'modelMag_g'; choose "
                       r"one: --set simulator.photometry=flux, or .*=model"):  # fmt: skip
        photometry_of_table(table, "t", CORRECTED)
    check(photometry_of_table(table, "t", Choices("model", extinction="corrected")), "ugriz")
    found = photometry_of_table(table, "t", Choices("flux", extinction="corrected"))
    expected = [f * (0.9 if b in "grz" else 1) for b, f in zip(BANDS, FLUX, strict=True)]
    assert_allclose(found.flux[0, 2:], expected[2:], rtol=1e-6)


def test_two_measurements_of_pan_starrs_in_vizier_must_be_chosen():
    table = magnitudes(("{}Kmag", "e_{}Kmag"), "griz")
    for b in "griz":
        table[f"{b}mag"], table[f"e_{b}mag"] = table[f"{b}Kmag"] + 0.5, table[f"e_{b}Kmag"]
    with pytest.raises(ObservationError, match=r"'gKmag' and 'gmag'; choose one"):
        photometry_of_table(table, "t", CORRECTED)
    check(photometry_of_table(table, "t", Choices("kron", extinction="corrected")), "griz")


def test_letters_beside_fluxes_may_mean_anything_and_are_not_asked_about():
    table = fluxes()
    for b in "ri":
        table[b], table[f"{b}_err"] = 3.0, 0.1  # a radius, an inclination
    check(photometry_of_table(table, "t"), BANDS)
    table.rename_columns(["r_err", "i_err"], ["err_r", "err_i"])  # SDSS
    with pytest.raises(ObservationError, match="band r has both 'flux_r' and 'r'"):
        photometry_of_table(table, "t")


def test_a_file_whose_first_table_has_no_photometry_is_told_its_other_tables(tmp_path):
    path = tmp_path / "two.fits"
    hdus = [fits.BinTableHDU(Table({"a": [1]}), name="OTHER"), fits.BinTableHDU(fluxes())]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path)
    with pytest.raises(ObservationError, match="the file has 2 tables .OTHER, .*'OTHER' is read"):
        read_galaxies(path)


def test_an_aperture_that_some_bands_lack_is_refused():
    table = luptitudes(("modelMag_{}", "modelMagErr_{}"))
    table["petroMag_r"], table["petroMagErr_r"] = 17.0, 0.1
    with pytest.raises(ObservationError, match="petro, but band u has only 'modelMag_u'"):
        photometry_of_table(table, "t", Choices("petro", extinction="corrected"))


def test_bands_of_different_apertures_are_noted():
    table = luptitudes(("modelMag_{}", "modelMagErr_{}"), "ugri")
    table["petroMag_z"], table["petroMagErr_z"] = 17.0, 0.1
    found = photometry_of_table(table, "t", CORRECTED)
    assert any("different apertures" in n and "model u g r i; petro z" in n for n in found.notes)


@pytest.mark.parametrize(("form", "beside"), [("{}mag", ""), ("{}", "V"), ("MAG_AUTO_{}", "B")])
def test_bands_of_johnson_and_cousins_are_not_those_of_sdss(form, beside):
    table = Table({"redshift": [0.05, 0.05]})
    for b in "URI" + beside:
        table[form.format(b)], table[f"err_{form.format(b)}"] = 17.0, 0.1
    error = {"{}mag": "e_{}mag", "{}": "{}_err", "MAG_AUTO_{}": "MAGERR_AUTO_{}"}[form]
    for b in "URI" + beside:
        table.rename_column(f"err_{form.format(b)}", error.format(b))
    with pytest.raises(ObservationError, match=r"bands of Johnson and Cousins, not u r i"):
        photometry_of_table(table, "t", Choices(extinction="corrected", magnitudes="AB"))


def test_capital_letters_of_other_surveys_stay_their_bands():
    table = magnitudes(("MAG_AUTO_{}", "MAGERR_AUTO_{}"))
    for c in table.colnames[1:]:
        table.rename_column(c, c.upper())
    check(photometry_of_table(table, "t", CORRECTED), "ugriz")


@pytest.mark.parametrize("choice", ["asinh", "AB", None])
def test_columns_of_2mass_are_vega_whatever_is_chosen_for_sdss(choice):
    table = luptitudes(("modelMag_{}", "modelMagErr_{}"))
    table["j_m_k20fe"], table["j_msig_k20fe"] = 15.0, 0.02
    table["j_m"], table["j_msigcom"] = 15.4, 0.02
    bands = load_bands("galex-sdss-2mass")
    choices = Choices(extinction="none", magnitudes=choice)
    found = photometry_of_table(table, "t", choices, bands)
    assert_allclose(found.flux[:, 7], 10 ** (0.4 * (22.5 - 15.91)), rtol=1e-6)
    assert "not used: j_m" in found.notes


@pytest.mark.parametrize("unit", ["1e-12 mgy", "1e-12 maggies", "10^-12 mgy", "10**(-12) maggies"])
def test_counts_with_a_zero_point_of_30_are_multiples_of_maggies(unit):
    assert_allclose(nanomaggies_per(unit, "t", "c"), 1e-3, rtol=1e-12)


@pytest.mark.parametrize("form", ["flux_error_{}", "flux_{}_error", "sigma_flux_{}", "flux_{}err"])
def test_errors_are_found_by_usual_names(form):
    check(photometry_of_table(fluxes(names=("flux_{}", form)), "t"), BANDS)


def test_names_of_sedpy_are_read():
    names = dict(
        zip(BANDS, ("galex_FUV", "galex_NUV", *(f"sdss_{b}0" for b in "ugriz")), strict=True)
    )
    table = Table({"z": [0.05, 0.05]})
    for band, f, s in zip(BANDS, FLUX, SIGMA, strict=True):
        table[names[band]], table[f"{names[band]}_unc"] = 1e-9 * f, 1e-9 * s
    check(photometry_of_table(table, "t", Choices(None, "maggies", extinction="corrected")), BANDS)


# -- redshifts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "unit", "message"),
    [
        ([15000.0, 24000.0], "km/s", r"'redshift' has the unit 'km / s' and is no redshift"),
        ([15000.0, 24000.0], None, r"'redshift' has values such as 19500 and is no redshift"),
    ],
)
def test_velocities_are_no_redshifts(values, unit, message):
    table = fluxes()
    table["redshift"] = values
    table["redshift"].unit = unit
    with pytest.raises(ObservationError, match=message):
        photometry_of_table(table, "t")


def test_two_redshifts_that_differ_must_be_chosen():
    table = fluxes()
    table["z_spec"] = [0.05, -9999.0]
    assert_allclose(photometry_of_table(table, "t").z, [0.05, np.nan])
    table["z_spec"] = [0.08, 0.05]
    with pytest.raises(
        ObservationError, match=r"redshift in 'z_spec' or 'z'\? They differ in 1 of 2"
    ):
        photometry_of_table(table, "t")
    chosen = prepared(table, Reading(columns={"redshift": "z_spec"}), "t")
    assert_allclose(photometry_of_table(chosen, "t").z, [0.08, 0.05])


def test_a_distance_that_is_missing_is_that_of_the_redshift_and_one_in_mpc_is_refused():
    table = fluxes()
    table["z_dist"] = [0.051, np.nan]
    found = photometry_of_table(table, "t")
    assert_allclose(found.z_dist, [0.051, 0.05])
    assert any("1 row without 'z_dist'" in n for n in found.notes)
    table["z_dist"] = [220.0, 230.0]
    with pytest.raises(ObservationError, match=r"'z_dist' has values such as 225"):
        photometry_of_table(table, "t")


def test_words_in_columns_that_inference_does_not_need_exclude_no_row():
    table = fluxes()
    table["ra"], table["dec"] = ["10:20:30", "10 20 31"], [1.0, 2.0]
    table["zwarn"] = ["ok", "4"]
    found = photometry_of_table(table, "t")
    assert not found.bad
    assert set(found.more) == {"dec"}
    assert found.quality.tolist() == [True, False]
    assert "'ra' is not in degrees and not in the results" in found.notes
