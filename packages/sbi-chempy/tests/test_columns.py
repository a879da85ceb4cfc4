"""Names of columns as catalogues write them, and values that are none: each kind of file."""

import os
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from numpy.testing import assert_allclose

from sbi_chempy.constants import T_END_GYR
from sbi_core import ObservationError, Observations, get_simulator
from sbi_core.data.reading import Reading
from sbi_core.pipeline.reading import read_objects

NAMES = ("c_fe", "fe_h", "he_fe", "mg_fe", "n_fe", "ne_fe", "o_fe", "si_fe")


def read(text, tmp_path, **options):
    (tmp_path / "stars.csv").write_text(text)
    return get_simulator("chempy", **options).read_observations(tmp_path / "stars.csv")


def value(stars, name, row=0):
    """Value and error; None where not observed."""
    k = NAMES.index(name)
    if not stars.batch.observed[row, k]:
        return None
    return float(stars.batch.x[row, k]), float(stars.batch.x_err[row, k])


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "id,__Fe_H_,e__Fe_H_,__Mg_Fe_,e__Mg_Fe_",
        "id,[Fe/H],e_[Fe/H],[Mg/Fe],e_[Mg/Fe]",
        "id,FE_H,FE_H_ERR,MG_FE,MG_FE_ERR",
        "id,feh,e_feh,mgfe,e_mgfe",
        "id,FeH,FeH_err,MgFe,MgFe_err",
        "id,Fe/H,sigma_Fe/H,Mg/Fe,sigma_Mg/Fe",
        "id,FeI_H,e_FeI_H,MgI_Fe,e_MgI_Fe",
        "id,FEI_H,FEI_H_ERR,MGI_FE,MGI_FE_ERR",
        "id,[FeI/H],e_[FeI/H],[MgI/Fe],e_[MgI/Fe]",
        "id,[M/H],e_[M/H],Mg_Fe,e_Mg_Fe",
        "id,M_H,M_H_ERR,MG_FE,MG_FE_ERR",
    ],
)
def test_names_of_catalogues(header, tmp_path):
    stars = read(f"{header}\na,-0.1,0.04,0.2,0.06\n", tmp_path)
    assert_allclose(value(stars, "fe_h"), (-0.1, 0.04), rtol=1e-5)
    assert_allclose(value(stars, "mg_fe"), (0.2, 0.06), rtol=1e-5)


def test_m_h_is_said_to_stand_for_fe_h_and_is_not_used_beside_it(tmp_path):
    alone = read("id,M_H,e_M_H\na,-0.1,0.05\n", tmp_path)
    assert any("'M_H' ([M/H]) read as [Fe/H]" in n for n in alone.notes)
    both = read("id,M_H,e_M_H,Fe_H,e_Fe_H\na,-0.1,0.05,-0.3,0.05\n", tmp_path)
    assert_allclose(value(both, "fe_h")[0], -0.3)
    assert "not used: 'M_H' ([M/H]; [Fe/H] is read)" in both.notes


def test_ions_are_combined_by_inverse_variance(tmp_path):
    stars = read("id,FeI_H,e_FeI_H,FeII_H,e_FeII_H\na,-0.10,0.03,-0.12,0.06\n", tmp_path)
    w = np.array([1 / 0.03**2, 1 / 0.06**2])
    mean = (w * [-0.10, -0.12]).sum() / w.sum()
    assert_allclose(value(stars, "fe_h"), (mean, w.sum() ** -0.5), rtol=1e-5)
    assert "[Fe/H]: 'FeI_H', 'FeII_H' combined by inverse variance" in stars.notes


def test_ions_that_disagree_widen_the_error_and_missing_ones_do_not_count(tmp_path):
    text = "id,FeI_H,e_FeI_H,FeII_H,e_FeII_H\na,-0.1,0.03,-0.4,0.03\nb,-0.1,0.03,,\n"
    stars = read(text, tmp_path)
    # chi2 = 2 (0.15 / 0.03)^2 = 50 for one degree of freedom
    assert_allclose(value(stars, "fe_h"), (-0.25, 0.03 / 2**0.5 * 50**0.5), rtol=1e-4)
    assert_allclose(value(stars, "fe_h", 1), (-0.1, 0.03), rtol=1e-5)


def test_a_column_of_the_element_comes_before_its_ions(tmp_path):
    stars = read("id,C_Fe,e_C_Fe,CI_Fe,e_CI_Fe\na,0.1,0.05,0.5,0.05\n", tmp_path)
    assert_allclose(value(stars, "c_fe")[0], 0.1)
    assert "not used: 'CI_Fe' (another column is read)" in stars.notes


def test_nickel_and_sulphur_are_not_nitrogen_and_silicon(tmp_path):
    upper = read("id,FE_H,NI_FE,SI_FE,NA_FE\na,0,0.3,0.1,0.5\n", tmp_path)
    assert value(upper, "n_fe") is None
    assert_allclose(value(upper, "si_fe")[0], 0.1)
    proper = read("id,Fe_H,Ni_Fe,NI_Fe,SI_Fe\na,0,0.3,0.2,0.1\n", tmp_path)
    assert_allclose(value(proper, "n_fe")[0], 0.2)
    assert value(proper, "si_fe") is None


BARE = "id,feh,feh_err,CI,CI_err,CH,CH_err,MgI,MgI_err,SI,SI_err,CI_gce,CI_gce_err\n"


def test_elements_without_reference_need_a_word(tmp_path):
    text = BARE + "a,-0.3,0.02,0.1,0.02,0.1,0.02,0.2,0.02,0.4,0.02,0,0.02\n"
    with pytest.raises(
        ObservationError, match=r"reference element in the name: 'CI', 'CH', 'MgI': .*bare_columns"
    ):
        read(text, tmp_path)
    x_fe = read(text, tmp_path, bare_columns="x_fe")
    assert_allclose(value(x_fe, "mg_fe"), (0.2, 0.02), rtol=1e-5)
    assert_allclose(value(x_fe, "c_fe"), (0.1, 0.02 / 2**0.5), rtol=1e-5)
    assert value(x_fe, "si_fe") is None  # SI is sulphur
    assert any(n.startswith("not used: 'CI_gce' (corrected for chemical") for n in x_fe.notes)
    x_h = read(text, tmp_path, bare_columns="x_h")
    assert_allclose(value(x_h, "mg_fe"), (0.5, 0.02 * 2**0.5), rtol=1e-5)
    ignored = read(text, tmp_path, bare_columns="ignore")
    assert value(ignored, "mg_fe") is None


@pytest.mark.parametrize(("kind", "suggested"), [("x_fe", "[X/Fe]"), ("x_h", "[X/H]")])
def test_values_suggest_the_reference(kind, suggested, tmp_path, rng):
    fe, mg_fe = rng.normal(0, 0.3, 50), rng.normal(0, 0.05, 50)
    table = Table({"Fe_H": fe, "Mg": mg_fe + (fe if kind == "x_h" else 0)})
    table.write(tmp_path / "stars.csv")
    with pytest.raises(ObservationError) as raised:
        get_simulator("chempy").read_observations(tmp_path / "stars.csv")
    assert f"as {suggested} would" in str(raised.value)


def test_velocities_and_magnitudes_are_no_elements(tmp_path):
    stars = read("id,Fe_H,e_Fe_H,U,V,W,K,B,N,C,A_V\na,-0.1,0.05,10,20,30,8,9,3,2,1\n", tmp_path)
    assert [n for n in NAMES if value(stars, n)] == ["fe_h"]
    assert not any("not used" in note for note in stars.notes)


def test_what_looks_like_an_abundance_and_is_not_used_is_named(tmp_path):
    text = "id,Fe_H,Ti_Fe,Mg_Ti,Mg_Fe,Mg_H,O_Fe_NLTE,O_over_Fe\na,-0.1,0.1,0.1,0.4,0.05,0.2,0.2\n"
    notes = read(text, tmp_path).notes
    for words in (
        "'Ti_Fe' (not an element of the model)",
        "'Mg_Ti' (relative to an element other than Fe and Mg)",
        "'Mg_H' (another column is read)",
        "'O_Fe_NLTE' (unknown ending: --column mg_fe=NAME reads a column as [Mg/Fe])",
        "'O_over_Fe' (unknown form: --column mg_fe=NAME reads a column as [Mg/Fe])",
    ):
        assert any(words in note for note in notes), words


# -- absolute abundances ---------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["A_{}", "A({})", "log_eps_{}", "logeps_{}"])
def test_absolute_abundances_are_converted_when_asked(form, tmp_path):
    fe, mg = form.format("Fe"), form.format("Mg")
    text = f"id,{fe},e_{fe},{mg},e_{mg}\na,7.40,0.05,7.7,0.05\n"
    with pytest.raises(ObservationError, match=r"simulator.absolute=true"):
        read(text, tmp_path)
    stars = read(text, tmp_path, absolute=True)
    assert_allclose(value(stars, "fe_h"), (-0.10, 0.05), rtol=1e-5)  # Asplund et al. 2009: 7.50
    assert_allclose(value(stars, "mg_fe"), (0.20, 0.05 * 2**0.5), rtol=1e-5)  # 7.60
    assert any("A(Sun) = 7.60 (Asplund et al. 2009)" in n for n in stars.notes)


def test_alpha_over_iron_is_not_an_abundance_of_iron(tmp_path):
    stars = read("id,a_fe,mg_fe,fe_h\na,0.1,0.2,-0.5\n", tmp_path)
    assert_allclose(value(stars, "fe_h")[0], -0.5)


def test_absolute_abundances_under_another_name_are_refused_with_the_row(tmp_path):
    with pytest.raises(ObservationError, match=r"'Fe_H' is 7.45 in row 0.*--column A_Fe=Fe_H"):
        read("id,Fe_H,e_Fe_H,Mg_H,e_Mg_H\na,7.45,0.05,7.6,0.05\n", tmp_path)


# -- values that are none --------------------------------------------------------------------------

HEADER = "id,Fe_H,e_Fe_H,Mg_Fe,e_Mg_Fe\n"


@pytest.mark.parametrize("mark", ["-9.99", "9.99", "-99.99", "99", "-999", "-9999", "99.9", "9999"])
def test_marks_of_missing_values_are_missing_and_counted(mark, tmp_path):
    stars = read(HEADER + f"a,-0.1,0.05,{mark},0.05\nb,-0.1,0.05,0.1,0.05\n", tmp_path)
    assert value(stars, "mg_fe") is None
    assert value(stars, "mg_fe", 1) is not None
    note = "1 value of 'Mg_Fe' at a mark of missing values: treated as unobserved"
    assert note in stars.notes


def test_limits_are_not_detections(tmp_path):
    text = "id,Fe_H,e_Fe_H,l_Mg_Fe,Mg_Fe,e_Mg_Fe\na,0,0.05,<,0.3,0.05\nb,0,0.05,,0.1,0.05\n"
    stars = read(text, tmp_path)
    assert value(stars, "mg_fe") is None
    assert value(stars, "mg_fe", 1) is not None
    assert any("1 limit of 'Mg_Fe'" in n for n in stars.notes)


def test_a_limit_of_x_h_is_a_limit_of_x_fe(tmp_path):
    text = "id,Fe_H,l_Mg_H,Mg_H\na,-0.1,<,0.3\nb,-0.1,,0.1\n"
    stars = read(text, tmp_path)
    assert value(stars, "mg_fe") is None
    assert_allclose(value(stars, "mg_fe", 1)[0], 0.2, rtol=1e-5)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a,7.45,0.05,0.1,0.05", "impossible:Fe_H"),
        ("a,-0.1,0.05,20,0.05", "impossible:Mg_Fe"),
        ("a,-0.1,0,0.1,0.05", "not_positive:e_Fe_H"),
        ("a,-0.1,0.05,0.1,-1", "not_positive:e_Mg_Fe"),
        ("a,-0.1,0.05,high,0.05", "not_a_number:Mg_Fe"),
    ],
)
def test_one_bad_cell_costs_one_row(row, reason, tmp_path):
    stars = read(HEADER + row + "\nb,0,0.05,0.1,0.05\nc,0,0.05,0.1,0.05\n", tmp_path)
    assert stars.id.tolist() == ["b", "c"]
    assert [e.reason for e in stars.excluded] == [reason]


@pytest.mark.parametrize("error", ["5", "1.0", ""])
def test_a_value_without_usable_error_is_not_used(error, tmp_path):
    rows = f"a,-0.1,0.05,0.1,{error}\nb,0,0.05,0.1,0.05\nc,0,0.05,0.1,0.05\n"
    stars = read(HEADER + rows, tmp_path)
    assert len(stars) == 3
    assert value(stars, "fe_h") is not None
    assert value(stars, "mg_fe") is None
    assert any(n.startswith("1 value of 'Mg_Fe' with") for n in stars.notes)


def test_errors_in_percent_are_refused(tmp_path):
    with pytest.raises(ObservationError, match=r"'e_Fe_H' is 5 in row 0.*not in percent"):
        read(HEADER + "a,-0.1,5,0.1,5\n", tmp_path)


def test_bad_errors_of_x_h_are_found_before_they_are_squared(tmp_path):
    text = "id,Fe_H,e_Fe_H,Mg_H,e_Mg_H\na,0,0.05,0.1,-0.05\nb,0,0.05,0.1,0.05\n"
    assert [e.reason for e in read(text, tmp_path).excluded] == ["not_positive:e_Mg_H"]


# -- ages ------------------------------------------------------------------------------------------


def age(stars, row=0):
    time, error, there = stars.batch.context[row].tolist()
    return (T_END_GYR - time, error) if there else None


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("Age,E_Age,e_Age|4.6,1.0,0.5", (4.6, 0.75)),
        ("age,age_err,age_upper|4.6,1.0,6.0", (4.6, 1.0)),
        ("Age,b_Age,B_Age|4.6,4.1,5.3", (4.6, 0.6)),
        ("Age,b_Age,B_Age1|4.6,4.1,5.3", (4.6, 0.6)),
        ("age,age_lower,age_upper|4.6,4.1,5.3", (4.6, 0.6)),
        ("age_myr,e_age_myr|4600,500", (4.6, 0.5)),
        ("age_yr,e_age_yr|4.6e9,5e8", (4.6, 0.5)),
        ("log_age,e_log_age|9.6,0.1", (10**0.6, np.log(10) * 10**0.6 * 0.1)),
        ("age,e_age|-9999,-9999", None),
        ("age,e_age|99.99,1", None),
        ("age,e_age|4.6,50", None),
    ],
)
def test_ages_their_errors_and_units(columns, expected, tmp_path):
    header, row = columns.split("|")
    stars = read(f"id,Fe_H,{header}\na,-0.1,{row}\n", tmp_path)
    if expected is None:
        assert age(stars) is None
    else:
        assert_allclose(age(stars), expected, rtol=1e-5)


@pytest.mark.parametrize("unit", ["Myr", "yr", "Gyr", "dex(yr)", "log(yr)", "[yr]"])
def test_ages_follow_the_unit_of_the_column(unit, tmp_path):
    given = {"Myr": (4600, 500), "yr": (4.6e9, 5e8), "Gyr": (4.6, 0.5)}
    log = np.log10(4.6e9), 0.5 / 4.6 / np.log(10)
    number, error = given.get(unit, log)
    table = Table({"id": ["a"], "Fe_H": [0.1], "Age": [number], "e_Age": [error]})
    for name in ("Age", "e_Age"):
        table[name].unit = unit
    stars = get_simulator("chempy").observations_of(table, "table")
    assert_allclose(age(stars), (4.6, 0.5), rtol=1e-5)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("4600,100", r"'age' is 4600 Gyr in row 0.*--column age_myr=age"),
        ("9.6,0.1", r"log10 of years\? --column log_age=age reads it so, --column age_gyr=age"),
    ],
)
def test_ages_of_an_unclear_unit_are_refused_with_the_remedy(row, message, tmp_path):
    with pytest.raises(ObservationError, match=message):
        read(f"id,Fe_H,age,e_age\na,-0.1,{row}\n", tmp_path)


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        ("age_myr", "4600,100", (4.6, 0.1)),
        ("age_gyr", "9.6,0.1", (9.6, 0.1)),
        ("log_age", "9.6,0.1", (10**0.6, np.log(10) * 10**0.6 * 0.1)),
    ],
)
def test_the_remedy_keeps_the_errors(name, row, expected, tmp_path):
    (tmp_path / "stars.csv").write_text(f"id,Fe_H,age,e_age\na,-0.1,{row}\n")
    simulator = get_simulator("chempy")
    stars = read_objects(simulator, tmp_path / "stars.csv", Reading({name: "age"}))
    assert_allclose(age(stars), expected, rtol=1e-4)


def test_a_precise_age_of_ten_gyr_is_read_when_its_unit_is_said(tmp_path):
    assert_allclose(
        age(read("id,Fe_H,age_gyr,e_age_gyr\na,-0.1,9.6,0.1\n", tmp_path)), (9.6, 0.1), rtol=1e-4
    )


def test_a_bad_error_of_an_age_costs_the_row_and_a_missing_one_the_age(tmp_path):
    rows = "a,0,0.05,4.6,0\nb,0,0.05,4,1\nc,0,0.05,4,\nd,0,0.05,400,1\ne,0,0.05,inf,1\n"
    stars = read("id,Fe_H,e_Fe_H,age,e_age\n" + rows, tmp_path)
    assert stars.id.tolist() == ["b", "c"]
    assert [e.reason for e in stars.excluded] == [
        "not_positive:e_age",
        "impossible:age",
        "impossible:age",
    ]
    assert age(stars, 1) is None


def test_ages_without_errors_have_some_even_as_old_as_the_universe(tmp_path):
    stars = read("id,Fe_H,age\na,-0.1,13.797617\nb,0,3.797617\n", tmp_path)
    assert_allclose(stars.batch.context[:, 1], [0.2, 2.0], rtol=1e-5)
    assert "2 values of 'age' used as birth times" in stars.notes


def test_ages_survive_a_table_of_observations(tmp_path):
    stars = read("id,Fe_H,e_Fe_H,age,e_age\na,-0.1,0.05,4,1\nb,0,0.05,,\n", tmp_path)
    stars.write(tmp_path / "again.ecsv")
    again = get_simulator("chempy").read_observations(tmp_path / "again.ecsv")
    assert_allclose(again.batch.context, stars.batch.context, rtol=1e-6)


# -- names of ions, columns beside abundances ------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        "[Fe I/H],e_[Fe I/H],[Mg I/Fe],e_[Mg I/Fe]",
        "Fe1_H,e_Fe1_H,Mg1_Fe,e_Mg1_Fe",
        "Fe_1_H,e_Fe_1_H,Mg_1_Fe,e_Mg_1_Fe",
        "FE_I_H,FE_I_H_ERR,MG_I_FE,MG_I_FE_ERR",
        "Fe_H (dex),e_Fe_H (dex),Mg_Fe [dex],e_Mg_Fe [dex]",
        "Fe/H,sigma(Fe/H),[Mg/Fe],err[Mg/Fe]",
    ],
)
def test_more_names_of_catalogues(header, tmp_path):
    stars = read(f"id,{header}\na,-0.1,0.04,0.2,0.06\n", tmp_path)
    assert_allclose(value(stars, "fe_h"), (-0.1, 0.04), rtol=1e-5)
    assert_allclose(value(stars, "mg_fe"), (0.2, 0.06), rtol=1e-5)


def test_numbered_ions_of_absolute_abundances(tmp_path):
    text = "CNAME,FE1,E_FE1,MG1,E_MG1,O1,E_O1\na,7.4,0.05,7.7,0.05,8.6,0.1\n"
    with pytest.raises(ObservationError, match=r"'FE1' .*simulator.absolute=true"):
        read(text, tmp_path)
    stars = read(text, tmp_path, absolute=True)
    assert_allclose(value(stars, "mg_fe"), (0.20, 0.05 * 2**0.5), rtol=1e-5)


def test_sulphur_with_a_blank_is_not_silicon(tmp_path):
    stars = read("id,FE_H,S_I_FE,SI_I_FE\na,0,0.5,0.1\n", tmp_path)
    assert_allclose(value(stars, "si_fe")[0], 0.1, rtol=1e-5)


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("alpha_Fe", "'alpha_Fe' (alpha elements together)"),
        ("[alpha/M]", "'[alpha/M]' (alpha elements together)"),
        ("Mg5711_fe", "'Mg5711_fe' (one spectral line"),
        ("q_Mg_Fe", "'q_Mg_Fe' (quality flags; --set simulator.survey=apogee or galah"),
        ("flag_Mg_Fe", "'flag_Mg_Fe' (quality flags; --set simulator.survey=apogee or galah"),
        ("ASPCAPFLAG", "'ASPCAPFLAG' (quality flags"),
        ("flag_sp", "'flag_sp' (quality flags"),
        ("n_Mg_Fe", "'n_Mg_Fe' (beside a column that is read"),
        ("f_Mg_Fe", "'f_Mg_Fe' (beside a column that is read"),
        ("Mg_Fe_err", "'Mg_Fe_err' (beside a column that is read; another error"),
        ("StarAge", "'StarAge' (an age"),
        ("age_isochrone", "'age_isochrone' (an age"),
        ("δ[Mg/Fe]", "'δ[Mg/Fe]' (a letter in its name is not understood)"),
        ("n_Mg", "'n_Mg' ([N/Mg]; another column of the element is read)"),
        ("s_Mg", "'s_Mg' ([S/Mg], not an element of the model)"),
        ("Mg_H", "1 value of 'Mg_H' not used, in rows where 'Mg_Fe', which is read"),
    ],
)
def test_what_is_not_used_is_named_once(column, words, tmp_path):
    text = f"id,Fe_H,N_Fe,Mg_Fe,e_Mg_Fe,{column}\na,0,0.1,0.1,0.05,1\nb,0,0.1,,,1\n"
    notes = [n for n in read(text, tmp_path).notes if f"'{column}'" in n]
    assert any(words in n for n in notes), notes
    assert sum(n.startswith("not used") for n in notes) == 1


def test_bounds_and_limits_that_are_used_are_not_called_unused(tmp_path):
    header = "id,Fe_H,Mg_Fe,Mg_Fe_lo,Mg_Fe_hi,O_Fe,O_Fe_p16,O_Fe_p84,Si_Fe,Si_Fe_ul,u_Si_Fe"
    stars = read(f"{header}\na,0,0.1,0.05,0.15,0.1,0.05,0.15,0.1,1,\nb,0,,,,,,,0.1,,U\n", tmp_path)
    assert not any("not used" in n for n in stars.notes)
    assert value(stars, "si_fe") is None
    assert value(stars, "si_fe", 1) is None


def test_the_meaning_of_bare_columns_is_stated(tmp_path):
    notes = read("id,Fe_H,Mg,Si\na,0,0.1,0.1\n", tmp_path, bare_columns="x_fe").notes
    assert "read as [X/Fe] (simulator.bare_columns=x_fe): 'Mg', 'Si'" in notes
    notes = read("id,Fe_H,Mg,Si\na,0,0.1,0.1\n", tmp_path, bare_columns="ignore").notes
    assert "not used: 'Mg', 'Si' (simulator.bare_columns=ignore)" in notes


def test_a_spread_that_contradicts_the_option_is_named(tmp_path, rng):
    table = Table({"Fe_H": rng.normal(0, 0.3, 50), "Mg": rng.normal(0, 0.05, 50)})
    table.write(tmp_path / "stars.csv")
    for option, told in (("x_h", True), ("x_fe", False)):
        simulator = get_simulator("chempy", bare_columns=option)
        notes = simulator.read_observations(tmp_path / "stars.csv").notes
        assert (
            any("their spread from star to star is like that of [X/Fe]" in n for n in notes) == told
        )


def test_a_star_without_iron_says_so(tmp_path):
    stars = read("id,Fe_H,Mg_H\na,,0.1\nb,0,0.1\n", tmp_path)
    assert [e.reason for e in stars.excluded] == ["nothing_observed"]
    assert "no value of 'Fe_H', which converts the other abundances" in stars.reasons[0]


def test_values_in_the_column_that_is_not_read_are_counted(tmp_path):
    notes = read("id,Fe_H,Mg_Fe,Mg_H,O_Mg\na,-0.1,0.2,,0.1\nb,-0.1,,0.3,0.1\n", tmp_path).notes
    assert any("1 value of 'Mg_H' not used, in rows where 'Mg_Fe'" in n for n in notes)
    assert "1 star without abundances whose conversion needs 'Mg_H', 'Fe_H'" in notes


def test_a_fe_beside_no_iron_is_explained(tmp_path):
    (tmp_path / "stars.csv").write_text("id,iron\na,-0.1\n")
    with pytest.raises(ObservationError, match=r"'a_fe': \[alpha/Fe\], .*--column fe_h=NAME"):
        read_objects(get_simulator("chempy"), tmp_path / "stars.csv", Reading({"a_fe": "iron"}))


def test_hints_name_the_column_of_the_file(tmp_path):
    (tmp_path / "stars.csv").write_text("id,iron\na,7.4\nb,7.5\n")
    with pytest.raises(ObservationError, match="--column A_Fe=iron --set"):
        read_objects(get_simulator("chempy"), tmp_path / "stars.csv", Reading({"fe_h": "iron"}))


def test_ages_of_an_npz_are_read(tmp_path):
    arrays = {"elements": ["Fe"], "x_h": [[0.1]], "ivar": [[400.0]], "age": [4.0], "e_age": [0.5]}
    np.savez(tmp_path / "stars.npz", **arrays)
    assert_allclose(
        age(get_simulator("chempy").read_observations(tmp_path / "stars.npz")), (4, 0.5)
    )


# -- which column, which unit ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("age,e_age_Myr|4,500", (4, 0.5)),
        ("age_myr,e_age|4000,500", (4, 0.5)),
        ("Age (Gyr),e_Age (Gyr)|4,0.5", (4, 0.5)),
        ("Age[Myr],e_Age[Myr]|4000,500", (4, 0.5)),
        ("log_age_gyr,e_log_age_gyr|0.6,0.1", (10**0.6, np.log(10) * 10**0.6 * 0.1)),
        ("lookback_time,e_lookback_time|4,0.5", (4, 0.5)),
        ("age,age_err_lo,age_err_hi|4,0.4,0.6", (4, 0.5)),
    ],
)
def test_ages_and_errors_with_units_in_their_names(columns, expected, tmp_path):
    header, row = columns.split("|")
    assert_allclose(age(read(f"id,Fe_H,{header}\na,-0.1,{row}\n", tmp_path)), expected, rtol=1e-5)


@pytest.mark.parametrize("ages", ["9.00,9.98", "9.00,10.23"])
def test_ages_without_unit_and_errors_that_look_like_logarithms_are_refused(ages, tmp_path):
    rows = "".join(
        f"s{k},-0.1,{a}\n" for k, a in enumerate(np.linspace(*map(float, ages.split(",")), 60))
    )
    with pytest.raises(
        ObservationError, match=r"no errors: log10 of years\?.*--column log_age=age"
    ):
        read(f"id,Fe_H,age\n{rows}", tmp_path)


def test_two_columns_of_ages_are_refused_unless_one_is_chosen(tmp_path):
    header = "id,Fe_H,age,age_gyr,t_birth\na,-0.1,9,4,2\n"
    with pytest.raises(ObservationError, match=r"'t_birth' and 'age' are both ages; choose one"):
        read(header, tmp_path)
    for name, expected in (("age_gyr", 4), ("t_birth", T_END_GYR - 2)):
        stars = read_objects(get_simulator("chempy"), tmp_path / "stars.csv", Reading({name: name}))
        assert_allclose(age(stars)[0], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "units", "message"),
    [
        ("age_gyr", ("Myr", "Myr"), "column 'age_gyr' has unit 'Myr', but gyr in its name"),
        ("log_age", ("dex(yr)", "Gyr"), "'e_log_age' has unit 'Gyr', but 'log_age' is a logarithm"),
    ],
)
def test_units_that_contradict_are_refused(name, units, message):
    table = Table({"id": ["a"], "Fe_H": [0.1], name: [9.0], f"e_{name}": [1.0]})
    for column, unit in zip((name, f"e_{name}"), units, strict=True):
        table[column].unit = unit
    with pytest.raises(ObservationError) as raised:
        get_simulator("chempy").observations_of(table, "table")
    assert message in str(raised.value)


def test_a_log_age_in_years_is_a_logarithm():
    table = Table({"id": ["a"], "Fe_H": [0.1], "log_age": [9.0], "e_log_age": [0.1]})
    table["log_age"].unit = "yr"
    assert_allclose(age(get_simulator("chempy").observations_of(table, "table"))[0], 1, rtol=1e-5)


# -- npz -------------------------------------------------------------------------------------------


def test_an_npz_of_x_h_and_inverse_variances(tmp_path):
    np.savez(
        tmp_path / "stars.npz",
        elements=["Mg", "C+N", "Fe", "O"],
        x_h=[[0.1, 0.5, -0.1, 0.2], [0.1, 0.5, -0.1, 0.2]],
        ivar=[[400.0, 1, 2500, 0], [400, 1, 0, 400]],
        id=["s1", "s2"],
    )
    stars = get_simulator("chempy").read_observations(tmp_path / "stars.npz")
    assert stars.id.tolist() == ["s1"]  # without [Fe/H], [X/H] cannot become [X/Fe]
    assert [e.reason for e in stars.excluded] == ["nothing_observed"]
    assert_allclose(value(stars, "fe_h"), (-0.1, 0.02), rtol=1e-5)
    assert_allclose(value(stars, "mg_fe"), (0.2, np.hypot(0.05, 0.02)), rtol=1e-5)
    assert value(stars, "o_fe") is None
    assert any("inverse variances" in n for n in stars.notes)


# -- random tables ---------------------------------------------------------------------------------

NAMES_AT_RANDOM = (
    "Fe_H [Fe/H] feh FeI_H FeII_H M_H Mg_Fe mgfe MgI Mg MG_FE Mg_H A_Mg A(Fe) CI CH C_Fe SI SI_Fe "
    "Si_Fe NI_Fe Ni_Fe O_H OI_Fe OII_H Ne_Fe Fe_Mg Mg_Fe_NLTE CI_gce a_fe NH age Age log_age "
    "age_myr t_birth t_observed id star_name HIP group Mg_I_Fe Mg1 lookback_time alpha_fe "
    "ASPCAPFLAG Age[Myr] n_Mg u_Mg_Fe"
).split()
BESIDE = (
    "e_{} E_{} +e_{} {}_err {}_ERR {}_err_up {}_err_lo ivar_{} b_{} B_{} B_{}1 {}_lower {}_upper "
    "l_{} ul_{} {}_lim {}_flag q_{} n_{}"
).split()
UNITS = (None, None, "dex", "Gyr", "Myr", "[Sun]", "[-]", "[yr]", "km")


def column_at_random(rng, n):
    kinds = (
        lambda: rng.normal(0, 0.3, n),
        lambda: rng.normal(7.5, 0.3, n),
        lambda: np.full(n, rng.choice([np.nan, 0.05, 0.0])),
        lambda: np.where(rng.random(n) < 0.3, -9999.0, rng.normal(0, 0.2, n)),
        lambda: np.where(rng.random(n) < 0.2, np.inf, 0.05),
        lambda: rng.choice(["0.1", "<0.3", "x", "", "-9.99"], n),
        lambda: rng.uniform(0, 14, n),
    )
    return kinds[rng.integers(len(kinds))]()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bare_columns": "x_fe"},
        {"bare_columns": "ignore", "absolute": True},
        {"survey": "apogee"},
        {"reference": "Mg"},
    ],
)
def test_random_tables_are_read_or_refused_with_a_sentence(options, rng):
    simulator = get_simulator("chempy", **options)
    for _ in range(150):
        n, table = int(rng.integers(1, 30)), Table()
        for name in rng.choice(NAMES_AT_RANDOM, rng.integers(1, 9), replace=False):
            table[name] = column_at_random(rng, n)
            if table[name].dtype.kind == "f":
                table[name].unit = UNITS[rng.integers(len(UNITS))]
            for form in rng.choice(BESIDE, rng.integers(0, 3), replace=False):
                table[form.format(name)] = column_at_random(rng, n)
        try:
            stars = simulator.observations_of(table, "table")
        except ObservationError:
            continue
        assert len(stars) + len(stars.excluded) == n
        assert stars.batch.x[stars.batch.observed].isfinite().all()
        assert (stars.batch.x_err[stars.batch.observed] > 0).all()


# -- the reference data ----------------------------------------------------------------------------

CASES = {  # file: stars, or the words of the refusal
    "age_asym.csv": 1, "age_bug_40stars.ecsv": 40, "age_err_suffix.csv": 1,
    "age_myr.csv": "--column age_myr=age", "age_old.csv": 2, "age_yr_log.csv": "log10 of years",
    "age_zeroerr_one.csv": 1, "bensby2014_thin_340stars_ages.ecsv": 340,
    "bigerr.csv": "'e_Fe_H' is 1 in row 0", "brackets.csv": 1, "combine_crash_20stars.ecsv": 20,
    "duplicate_star.csv": 1, "feh-3.csv": 1, "feh_short.csv": 1, "ionised.csv": 1,
    "limits_vizier.csv": 2, "logage.csv": 1, "logeps.csv": "simulator.absolute=true",
    "logeps_in_feh.csv": "'Fe_H' is 7.45 in row 0", "m_h.csv": 1, "mg_h_and_mg_fe.csv": 1,
    "minus99.csv": 2, "nanname.csv": 2, "not_positive_definite_100stars.ecsv": 100,
    "percent.csv": "not in percent", "smallerr.csv": 1, "ti_fe_only.csv": 1,
    "vizier_mangled.csv": 1, "wdd2_1000stars.ecsv": 1000, "xh_noerr_fe.csv": 1, "xh_tinyerr.csv": 1,
}  # fmt: skip
STARS = {
    "bedell18_solar_twins.csv": "simulator.bare_columns=x_h",
    "bensby14_half.fits": 299,
    "apogee_dr17_disk_subset.npz": 8000,
}


@pytest.mark.skipif("SBI_DATA_DIR" not in os.environ, reason="needs the reference data")
@pytest.mark.parametrize("name", [*CASES, *STARS])
def test_files_of_the_field_are_read(name):
    folder = Path(os.environ["SBI_DATA_DIR"])
    path = folder / "cases" / "chempy" / name if name in CASES else folder / "stars" / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    expected = (CASES | STARS)[name]
    if isinstance(expected, str):
        with pytest.raises(ObservationError, match=".") as raised:
            get_simulator("chempy").read_observations(path)
        assert expected in str(raised.value)
    else:
        stars: Observations = get_simulator("chempy").read_observations(path)
        assert len(stars) == expected
