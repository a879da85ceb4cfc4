"""Catalogues: the two NSA layouts, generic tables, bad input."""

import numpy as np
import pytest
from astropy import units
from astropy.table import Table
from numpy.testing import assert_allclose

from sbi_core import ObservationError, read_table
from sbi_sedflow.flags import Flag, count_flags, words
from sbi_sedflow.luptitudes import flux_of
from sbi_sedflow.nsa import SDSS_BITS, H
from sbi_sedflow.tables import photometry_of, read_galaxies, read_nsa

BANDS = "FNugriz"


def nsa(n=6, prefix="", seed=1):
    rng = np.random.default_rng(seed)
    flux = 10 ** rng.uniform(1, 3, (n, 7)).astype(np.float32)
    ivar = 1 / (0.05 * flux) ** 2
    return Table(
        {
            "NSAID": np.arange(100, 100 + n), "Z": rng.uniform(0.01, 0.1, n),
            "ZDIST": rng.uniform(0.01, 0.1, n), "RA": rng.uniform(0, 360, n),
            "DEC": rng.uniform(-90, 90, n), f"{prefix}NMGY": flux, f"{prefix}NMGY_IVAR": ivar,
            f"{prefix}OK": np.ones(n, int), f"{prefix}MASS": np.full(n, 1e10),
        }
    )  # fmt: skip


def generic(n=4, unit="nmgy", bands=BANDS):
    rng = np.random.default_rng(2)
    table = Table({"id": [f"g{k}" for k in range(n)], "z": rng.uniform(0.02, 0.1, n)})
    for b in bands:
        table[f"flux_{b}"] = 10 ** rng.uniform(0, 3, n)
        table[f"flux_err_{b}"] = 0.05 * table[f"flux_{b}"]
        for c in (f"flux_{b}", f"flux_err_{b}"):
            table[c].unit = unit
    return table


def written(table, tmp_path, name="t.ecsv"):
    path = tmp_path / name
    table.write(path, overwrite=True)
    return path


@pytest.mark.parametrize("prefix", ["", "ELPETRO_"])
def test_both_layouts_are_read(tmp_path, prefix):
    table = nsa(prefix=prefix)
    found = read_nsa(written(table, tmp_path, "nsa.fits"))
    p = photometry_of(table, "nsa.fits")
    assert_allclose(p.flux, table[f"{prefix}NMGY"], rtol=1e-6)
    assert_allclose(p.sigma, 0.05 * p.flux, rtol=1e-5)
    assert_allclose(found.labels["nsa_mass"], 1e10 / H**2)
    assert_allclose(found.labels["nmgy_r"], p.flux[:, 4])
    assert_allclose(flux_of(found.batch.x), p.flux, rtol=1e-4)
    assert found.id.tolist() == p.id
    assert (found.labels["flag_bits"] == 0).all()


def test_the_other_photometry_of_the_later_version_is_chosen(tmp_path):
    table = nsa(prefix="ELPETRO_")
    for c in ("NMGY", "NMGY_IVAR", "OK", "MASS"):
        table[f"SERSIC_{c}"] = table[f"ELPETRO_{c}"]
    table["SERSIC_NMGY"] = 2 * table["ELPETRO_NMGY"]
    path = written(table, tmp_path, "nsa.fits")
    twice = read_nsa(path, "sersic").labels["nmgy_g"]
    assert_allclose(twice, 2 * read_nsa(path).labels["nmgy_g"])


def test_names_of_any_case_and_either_photometry_alone_are_read(tmp_path):
    table = nsa(prefix="SERSIC_")
    table["NSAID"] = np.ma.masked_equal(table["NSAID"], 102)
    for c in table.colnames:
        table.rename_column(c, c.lower())
    found = read_nsa(written(table, tmp_path, "nsa.fits"))
    assert_allclose(found.labels["nmgy_r"], table["sersic_nmgy"][:, 4], rtol=1e-6)
    assert found.id.tolist() == ["100", "101", "row-2-without-id", "103", "104", "105"]
    assert any(n.startswith("SERSIC_NMGY: corrected for Galactic") for n in found.notes)
    with pytest.raises(ObservationError, match="ELPETRO_NMGY, ELPETRO_NMGY_IVAR missing"):
        read_nsa(written(table, tmp_path, "nsa.fits"), "elpetro")


def test_bad_rows_stay_and_are_flagged(tmp_path):
    table = nsa()
    table["NMGY_IVAR"][0] = 0.0
    table["NMGY_IVAR"][1, 3] = -1.0
    table["NMGY"][2, 0] = -4.0  # negative flux with an error is data
    table["Z"][3], table["Z"][4] = np.nan, 0.9
    table["OK"][5] = 0
    found = read_nsa(written(table, tmp_path, "nsa.fits"))
    reasons = {e.row: e.reason for e in found.excluded}
    assert reasons == {0: "nothing_observed", 3: "redshift_outside_model",
                       4: "redshift_outside_model"}  # fmt: skip
    assert found.rows.tolist() == [1, 2, 5]
    bits = found.labels["flag_bits"]
    assert bits[0] == Flag.MISSING_BAND | Flag.QUALITY  # no g flux
    assert bits[1:].tolist() == [0, Flag.QUALITY]
    assert "1 negative inverse variance" in " ".join(found.notes)
    assert words(int(bits[0])) == "MISSING_BAND,QUALITY"
    assert count_flags(bits)["QUALITY"] == 2


def test_sdss_flags_cut_with_counts(tmp_path):
    table = nsa()
    bits = np.full(6, 1 << SDSS_BITS["BINNED1"], np.int64)
    bits[0] |= 1 << SDSS_BITS["SATURATED"]
    bits[1] |= (1 << SDSS_BITS["INTERP_CENTER"]) | (1 << SDSS_BITS["CR"])
    bits[2] |= 1 << SDSS_BITS["CR"]
    bits[3] = 0
    flags = Table({"NSAID": table["NSAID"][:5], "flags": bits[:5]})
    found = read_nsa(
        written(table, tmp_path, "nsa.fits"), flags_table=written(flags, tmp_path, "flags.ecsv")
    )
    rejected = (found.labels["flag_bits"] & Flag.QUALITY) != 0
    assert rejected.tolist() == [True, True, False, True, False, True]
    note = next(n for n in found.notes if n.startswith("quality cuts"))
    assert "2 of 6 pass" in note
    assert "no SATURATED rejects 1" in note


def test_a_file_that_is_not_the_atlas_lists_its_columns(tmp_path):
    path = written(Table({"a": [1.0], "b": [2.0]}), tmp_path)
    with pytest.raises(ObservationError, match=r"ELPETRO_NMGY.*it has a, b"):
        read_nsa(path)
    with pytest.raises(ObservationError, match=r"no photometry.*it has a, b"):
        read_galaxies(path)


def test_the_real_excerpt_is_read_whole(sedflow_data):
    found = read_nsa(sedflow_data / "nsa_v0_1_2_excerpt.fits")
    assert found.n_rows == 1823
    assert len(found) > 1800
    assert 0.02 < ((found.labels["flag_bits"] & Flag.MISSING_BAND) != 0).mean() < 0.1


@pytest.mark.parametrize(
    ("unit", "factor"), [("nmgy", 1.0), ("mgy", 1e9), ("uJy", 1 / 3.631), ("Jy", 1e6 / 3.631)]
)
def test_fluxes_are_converted_by_their_unit(tmp_path, unit, factor):
    table = generic(unit=unit if unit.endswith("y") and "J" in unit else None)
    for c in table.colnames[2:]:
        table[c].unit = units.Unit(unit, parse_strict="silent")
    found = read_galaxies(written(table, tmp_path))
    assert_allclose(found.labels["nmgy_F"], factor * table["flux_F"], rtol=1e-6)


def test_magnitudes_become_fluxes(tmp_path):
    table = Table({"id": ["a", "b"], "z": [0.05, 0.06]})
    for b in "ugriz":
        table[f"mag_{b}"], table[f"mag_err_{b}"] = [17.5, 99.0], [0.1, 0.1]
    table["mag_r"][1] = 18.0
    found = photometry_of(read_table(written(table, tmp_path)), "t")
    assert_allclose(found.flux[0, 2:], 100.0)
    assert_allclose(found.sigma[0, 2:], 10 / 1.0857362)
    assert np.isfinite(found.flux[1]).tolist() == [False] * 4 + [True] + [False] * 2
    assert "bands not in the table, treated as missing: F N" in found.notes


def _no_unit(t):
    t["flux_g"].unit = None


def _magnitude_unit(t):
    t["flux_g"].unit = "mag"


def _no_error(t):
    t.remove_column("flux_err_g")


def _no_z(t):
    t.remove_column("z")


def _both(t):
    t["mag_g"], t["mag_err_g"] = 18.0, 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_no_unit, "'flux_g' has no unit"),
        (_magnitude_unit, "magnitudes go into columns mag_b"),
        (_no_error, "add 'flux_err_g'"),
        (_no_z, "no column 'redshift' or 'z'"),
        (_both, "band g has both"),
    ],
)
def test_wrong_tables_get_one_sentence(tmp_path, change, message):
    table = generic(n=6)
    for c in table.colnames[2:]:
        table[c].unit = "uJy"
    change(table)
    with pytest.raises(ObservationError, match=message):
        read_galaxies(written(table, tmp_path))


def test_errors_that_are_not_positive_mask_the_band_and_are_counted(tmp_path):
    table = generic()
    for c in table.colnames[2:]:
        table[c].unit = units.Unit("nmgy", parse_strict="silent")
    table["flux_err_u"][2], table["flux_err_z"][3] = 0.0, np.inf
    found = read_galaxies(written(table, tmp_path))
    assert not np.isfinite(found.labels["nmgy_u"][2])
    assert "2 values without a positive error masked (u 1, z 1)" in found.notes


def test_nothing_to_infer_is_an_error(tmp_path):
    table = nsa(2)
    table["Z"] = 3.0
    found = read_nsa(written(table, tmp_path, "nsa.fits"))
    assert len(found) == 0
    assert found.reasons == ("2 rows cannot be inferred (redshift_outside_model): rows 0, 1",)
