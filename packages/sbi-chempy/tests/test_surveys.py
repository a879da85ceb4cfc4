"""Survey presets: columns, marks of missing values, flags; and everything left out is counted."""

import numpy as np
import pytest
from astropy.table import Table
from numpy.testing import assert_allclose

from sbi_core import ObservationError, get_simulator


def apogee():
    table = Table({"APOGEE_ID": [f"2M{k}" for k in range(6)]})
    for name in ("FE_H", "C_FE", "N_FE", "O_FE", "MG_FE", "SI_FE"):
        table[name] = np.linspace(-0.2, 0.3, 6).astype(np.float32)
        table[f"{name}_ERR"] = np.full(6, 0.02, np.float32)
        table[f"{name}_FLAG"] = np.zeros(6, np.int32)
    table["ASPCAPFLAG"] = np.zeros(6, np.int64)
    table["EXTRATARG"] = np.zeros(6, np.int32)
    table["X_H"] = np.zeros((6, 20))
    table["MG_FE"][1] = -9999.0
    table["MG_FE_ERR"][1] = -9999.0
    table["O_FE"][2] = np.nan
    table["C_FE_FLAG"][3] = 4
    table["SI_FE_ERR"][3] = -999.0
    table["ASPCAPFLAG"][4] = 1 << 23
    table["EXTRATARG"][5] = 1 << 4
    table["APOGEE_ID"][5] = "2M0"
    return table


def galah():
    table = Table({"sobject_id": np.arange(5) + 10**15, "source_id": np.ones(5, np.int64)})
    for name in ("fe_h", "C_fe", "O_fe", "Mg_fe", "Si_fe"):
        table[name] = np.linspace(-0.2, 0.2, 5)
        table[f"e_{name}"] = 0.05
        table[f"flag_{name}"] = 0
    table["flag_sp"] = [0, 0, 0, 1024, 0]
    table["flag_O_fe"][1] = 1
    table["C_fe"][2] = np.nan
    table["age"] = [5.0, 4.0, 3.0, 2.0, np.nan]
    table["e_age"] = 1.0
    return table


def read(table, tmp_path, name="stars.fits", **options):
    table.write(tmp_path / name, overwrite=True)
    return get_simulator("chempy", **options).read_observations(tmp_path / name)


def test_apogee_columns_marks_and_flags(tmp_path):
    got = read(apogee(), tmp_path, survey="apogee")
    assert got.id.tolist() == ["2M0", "2M1", "2M2", "2M3"]
    names = [o.name for o in got.observables]
    observed = got.batch.observed.numpy()
    assert not observed[:, [names.index("he_fe"), names.index("ne_fe")]].any()
    missing = {(1, "mg_fe"), (2, "o_fe"), (3, "c_fe"), (3, "si_fe")}
    seen = [k for k, n in enumerate(names) if n not in ("he_fe", "ne_fe")]
    assert {(r, names[c]) for r in range(4) for c in seen if not observed[r, c]} == missing
    assert_allclose(got.batch.x_err[0, seen], 0.02, rtol=1e-6)
    assert_allclose(got.batch.x[3, names.index("mg_fe")], 0.1, rtol=1e-5)
    text = "; ".join((*got.notes, *got.reasons))
    for words in (
        "1 row cannot be inferred (survey_flag:ASPCAPFLAG): row 4; ASPCAPFLAG STAR_BAD",
        "1 row cannot be inferred (survey_flag:EXTRATARG): row 5; EXTRATARG duplicate",
        "1 value of 'MG_FE' at a mark of missing values",
        "1 value flagged by *_flag",
        "1 value without a positive error",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("survey", "make", "columns"),
    [
        ("apogee", apogee, ("age_lowess_correct", "age_total_error")),
        ("apogee", apogee, ("AGE", "AGE_ERR")),
        ("galah", galah, ("age_bstep", "e_age_bstep")),
    ],
)
def test_ages_of_surveys_and_their_marks(survey, make, columns, tmp_path):
    table = make()
    age, error = columns
    n = len(table)
    table[age], table[error] = np.full(n, 4.0), np.full(n, 0.5)
    table[age][0] = table[error][1] = -9999.0
    got = read(table, tmp_path, survey=survey)
    assert got.batch.context[:3, 2].tolist() == [0, 0, 1]
    assert_allclose(got.batch.context[2, :2], [13.797617 - 4.0, 0.5], rtol=1e-6)
    assert got.batch.observed[:3].any(1).all()


def test_galah_columns_flags_and_ages(tmp_path):
    got = read(galah(), tmp_path, survey="galah")
    assert got.id.tolist() == [str(10**15 + k) for k in (0, 1, 2, 4)]
    names = [o.name for o in got.observables]
    observed = got.batch.observed.numpy()
    assert not observed[1, names.index("o_fe")]
    assert not observed[2, names.index("c_fe")]
    assert observed[0, [names.index(n) for n in ("fe_h", "c_fe", "o_fe", "mg_fe", "si_fe")]].all()
    assert got.batch.context[:, 2].tolist() == [1, 1, 1, 0]
    assert [(e.row, e.detail) for e in got.excluded] == [(3, "flag_sp not 0")]


def test_surveys_and_mg_relative_abundances_go_together(tmp_path):
    options = {"survey": "apogee", "reference": "Mg", "elements": ["Fe", "Mg", "O"]}
    got = read(apogee(), tmp_path, **options)
    assert_allclose(got.batch.x_err[0], [0.02, 0.02 * 2**0.5, 0.02 * 2**0.5], rtol=1e-5)
    assert got.id.tolist() == ["2M0", "2M2", "2M3"]  # a star without [Mg/Fe] has nothing


def test_flag_columns_may_be_absent_and_case_does_not_matter(tmp_path):
    table = apogee()[["APOGEE_ID", "FE_H", "FE_H_ERR", "MG_FE", "MG_FE_ERR"]][:4]
    for name in table.colnames:
        table.rename_column(name, name.lower())
    got = read(table, tmp_path, "stars.csv", survey="apogee")
    assert got.batch.observed.numpy().sum() == 7


def test_a_table_of_something_else_is_refused(tmp_path):
    with pytest.raises(ObservationError, match="no abundance column of survey 'apogee'"):
        read(Table({"a": [1.0]}), tmp_path, survey="apogee")
    table = apogee()
    table["ASPCAPFLAG"] = 1 << 23
    with pytest.raises(ObservationError, match="no star is left"):
        read(table, tmp_path, survey="apogee")


def test_a_mark_of_missing_values_is_counted_without_the_option_too(tmp_path):
    got = read(Table({"fe_h": [0.1, -9999.0], "e_fe_h": [0.05, 0.05]}), tmp_path)
    assert len(got) == 1
    assert "1 value of 'fe_h' at a mark of missing values: treated as unobserved" in got.notes
