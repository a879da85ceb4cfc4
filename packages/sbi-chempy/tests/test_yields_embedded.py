"""The tables that come with the package."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from sbi_chempy.constants import ELEMENTS
from sbi_chempy.engine import ChempyEngine
from sbi_chempy.yields import EMBEDDED, load_embedded, load_embedded_set

CHECK_POINTS = {  # [C/Fe] [Fe/H] [He/Fe] [Mg/Fe] [N/Fe] [Ne/Fe] [O/Fe] [Si/Fe], chempy.md 3.2
    "nomoto13-net": (-0.165, 0.146, -0.099, 0.309, 0.210, 0.589, 0.470, 0.366),
    "woosley95": (-0.143, 0.196, -0.124, -0.168, 0.115, 0.068, 0.195, 0.182),
}
TABLES = [(channel, name) for channel, names in EMBEDDED.items() for name in names]


@pytest.mark.parametrize(("channel", "name"), TABLES)
def test_every_table_loads_and_tells_its_origin(channel, name):
    table = load_embedded(channel, name)
    assert table.name == name
    assert table.citation
    assert len(table.source["archive_sha256"]) == 64
    assert len(table.source["files_sha256"]) == 64
    assert table.source["conversion"]


@pytest.mark.parametrize(
    ("name", "total"),
    [
        ("iwamoto99-w7", 1.37083),
        ("iwamoto99-wdd2", 1.33853),
        ("seitenzahl13-n100", 1.39655),
        ("gronow21-m10-03-1", 1.04133),
    ],
)
def test_sn_ia_totals_include_all_species(name, total):
    assert load_embedded("sn1a", name).total == pytest.approx(total, abs=1e-5)


def test_w7_iron_and_silicon():
    yields = load_embedded("sn1a", "iwamoto99-w7").yields
    assert yields[ELEMENTS.index("Fe")] == pytest.approx(0.74903, abs=1e-5)
    assert yields[ELEMENTS.index("Si")] == pytest.approx(0.15660, abs=1e-5)


@pytest.mark.parametrize("name", EMBEDDED["agb"])
def test_agb_yields_conserve_mass(name):
    for rows in load_embedded("agb", name).rows:
        assert_allclose(rows.remnant + rows.wind, 1, atol=1e-12)
        assert np.abs(rows.yields.sum(axis=1)).max() < 2e-3  # rest: untracked elements


def test_repaired_karakas16_has_physical_remnants():
    for rows in load_embedded("agb", "karakas16").rows:
        final = rows.remnant * rows.mass
        assert final.min() > 0.5
        assert final.max() < 1.1


@pytest.mark.parametrize("sn2", CHECK_POINTS)
def test_check_points_of_the_design_note(check_point, sn2):
    abundances, status = ChempyEngine(load_embedded_set(sn2=sn2))(check_point)
    assert status.item() == 0
    assert_allclose(abundances[0], CHECK_POINTS[sn2], atol=6e-4)


def test_slow_rotators_make_little_magnesium(check_point):
    abundances, _ = ChempyEngine(load_embedded_set(sn2="limongi18-v0"))(check_point)
    assert abundances[0, 3] == pytest.approx(-0.33, abs=0.01)


def test_default_set_hits_the_sun_within_a_quarter_dex(default_engine, check_point):
    theta = check_point.repeat(2, 1)
    theta[:, 0] = theta.new_tensor([-2.6, -2.7])
    theta[:, 1], theta[:, 5] = -2.75, 9.2
    abundances, _ = default_engine(theta)
    assert abundances.abs().max() < 0.26


def test_outputs_equal_an_independent_implementation(chempy_data):
    path = chempy_data / "embedded_expected.csv"
    table = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8")
    for row in table.tolist():
        sn1a, sn2, agb, *numbers = row
        theta = torch.tensor([numbers[:6]], dtype=torch.float64)
        got, _ = ChempyEngine(load_embedded_set(sn1a, sn2, agb))(theta)
        tolerance = 2e-3 if agb == "karakas16" else 2e-6
        assert_allclose(got[0], numbers[6:], atol=tolerance, err_msg=f"{sn1a} {sn2} {agb}")
