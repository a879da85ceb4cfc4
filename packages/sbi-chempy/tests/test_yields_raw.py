"""Tables of single studies in a Chempy yield directory, against the numbers of their own files."""

import re
import shutil

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_chempy.constants import ELEMENTS
from sbi_chempy.engine import ChempyEngine
from sbi_chempy.yields import (
    RAW_TABLES,
    YieldsNotFoundError,
    YieldTableError,
    load_embedded,
    load_yields,
    read_chempy_table,
)
from sbi_core import DataFileError

TABLES = [(channel, name) for channel, names in RAW_TABLES.items() for name in names]
MG, OXYGEN, H = (ELEMENTS.index(e) for e in ("Mg", "O", "H"))


@pytest.fixture
def raw(chempy_data):
    folder = chempy_data / "raw"
    if not (folder / "NuGrid").is_dir():
        pytest.skip(f"no further tables of Chempy in {folder}")
    return folder


def row_of(table, z, mass):
    rows = table.rows[int(np.abs(table.metallicity - z).argmin())]
    (k,) = np.flatnonzero(rows.mass == mass)
    return rows, k


@pytest.mark.parametrize(("channel", "name"), TABLES)
def test_every_table_can_be_chosen_by_name(raw, channel, name, check_point):
    found = load_yields(name, yield_directory=raw)
    table = getattr(found, channel)
    assert table.name == name
    assert table.citation
    assert load_yields({channel: name}, raw.parent.parent).hash == found.hash
    for rows in table.rows:
        assert_allclose(rows.remnant + rows.wind, 1, atol=1e-12)
        assert np.abs(rows.yields.sum(1)).max() < 0.04  # rest: elements beyond the nine
    abundances, status = ChempyEngine(found)(check_point)
    assert status.item() == 0
    carried = [e for e in ("C_Fe", "O_Fe") if "Fe" not in table.absent]
    assert not carried or abundances[0, [0, 6]].abs().max() < 0.7


@pytest.mark.parametrize(("name", "final"), [("nugrid-delayed", 2.73), ("nugrid-rapid", 2.70)])
def test_nugrid_20_solar_masses(raw, name, final):
    word = name.removeprefix("nugrid-").replace("delayed", "delay")
    (path,) = raw.glob(f"NuGrid/element_*{word}_total.txt")
    block = path.read_text().split("(M=20.0,Z=0.02)")[1].split("H Table")[0]
    lines = re.findall(r"&(\w+) *&(\d\S+) +&(\S+)", block)
    gross, birth = ({e: float(line[k]) for e, *line in lines} for k in (0, 1))
    assert f"{final:.3E}" in block
    rows, k = row_of(read_chempy_table(raw, "sn2", name), 0.02, 20)
    assert rows.remnant[k] * 20 == pytest.approx(final, abs=2e-3)
    ejected = 20 - final
    for e, element in enumerate(ELEMENTS):
        want = (gross[element] - ejected * birth[element]) / 20
        assert rows.yields[k, e] == pytest.approx(want, abs=5e-5)


def test_nugrid_agb_stars_lose_what_the_file_says(raw):
    table = read_chempy_table(raw, "agb", "nugrid")
    assert [len(rows.mass) for rows in table.rows] == [8] * 5  # a double entry counts once
    rows, k = row_of(table, 0.02, 3)
    assert rows.remnant[k] * 3 == pytest.approx(0.642, abs=1e-3)
    assert rows.yields[k, ELEMENTS.index("C")] > 0.002  # third dredge-up


def test_chieffi_net_tables_are_in_ascending_order(raw):
    """Gross yields minus net ones give one initial composition for all masses of a metallicity."""
    gross: dict[float, dict[str, np.ndarray]] = {}
    for line in (raw / "Chieffi04" / "yields.dat").read_text().splitlines():
        z, time, number, name = (
            line[a:b].strip() for a, b in ((0, 5), (6, 12), (13, 16), (16, 20))
        )
        if float(time) == 0 and (number, name) != ("56", "Ni"):  # 56Fe contains it
            element = gross.setdefault(float(z), {})
            value = np.array([float(line[21 + 10 * k : 30 + 10 * k]) for k in range(6)])
            element[name] = element.get(name, 0) + value
    table = read_chempy_table(raw, "sn2", "chieffi04")
    assert table.metallicity.tolist() == sorted(gross)
    for z, rows in zip(table.metallicity, table.rows, strict=True):
        assert_allclose(rows.remnant * rows.mass, gross[z]["remn"], atol=1e-6)
        for element in ("C", "N", "O", "Ne", "Mg", "Si", "Fe"):
            new = rows.yields[:, ELEMENTS.index(element)] * rows.mass
            initial = (gross[z][element] - new) / gross[z]["ejec"]
            assert np.ptp(initial) < 0.006 * z + 1e-7
            assert 0 <= initial.mean() + 1e-7 < 0.5 * z + 1e-6


def test_west_ejecta_and_remnants(raw):
    lines = (raw / "West17" / "ertl.txt").read_text().splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith(" metallicity"))
    names, rows = lines[head].split(), [line.split() for line in lines[head + 1 :] if line.strip()]
    table = read_chempy_table(raw, "sn2", "west17")
    assert table.metallicity[0] == 0
    assert len(table.rows) == 15
    (star,) = [
        dict(zip(names, map(float, r), strict=True))
        for r in rows
        if r[:2] == ["1.00000e+00", "1.70000e+01"]
    ]
    got, k = row_of(table, 0.0153, 17)
    assert table.metallicity[11] == pytest.approx(0.0153, abs=1e-4)
    assert got.remnant[k] * 17 == pytest.approx(star["remnant"], abs=1e-4)
    magnesium = sum(star[f"Mg{a}"] for a in (24, 25, 26))
    solar = 0.00066  # mass fraction of Mg at birth, Lodders et al. 2009: within 10 %
    want = (magnesium - solar * (17 - star["remnant"])) / 17
    assert got.yields[k, MG] == pytest.approx(want, abs=1e-4)
    collapsed, k = row_of(table, 0.0153, 20)
    assert collapsed.remnant[k] * 20 > 13  # does not explode: only its wind returns
    assert collapsed.yields[k, OXYGEN] < 0


def test_frischknecht_yields_are_those_before_the_explosion(raw):
    static = read_chempy_table(raw, "sn2", "frischknecht16-static")
    rotating = read_chempy_table(raw, "sn2", "frischknecht16-rotating")
    assert static.absent == rotating.absent == ("Fe", "Si")
    assert static.metallicity.tolist() == [1e-5, 1e-3, 1.4e-2]
    rows, k = row_of(static, 1.4e-2, 15)  # the first column of the file
    assert rows.remnant[k] * 15 == pytest.approx(1.49)
    magnesium = 1.875873078e-02 + 4.723867822e-03 + 4.606011217e-03
    assert rows.yields[k, MG] * 15 == pytest.approx(magnesium, rel=1e-6)
    assert rows.yields[k, H] * 15 == pytest.approx(-2.672719306 - 1.886201186e-04, rel=1e-6)
    nitrogen = ELEMENTS.index("N")
    ratio = rotating.rows[0].yields[0, nitrogen] / static.rows[0].yields[0, nitrogen]
    assert ratio > 50  # primary nitrogen of fast rotators at low metallicity


@pytest.mark.parametrize("rotation", [0, 150, 300])
def test_cl18_is_the_embedded_limongi18(raw, rotation):
    blocks = (raw / "CL18" / "tab_yieldsnet_ele_exp.dec").read_text().split("  ele ")[1:]
    table = load_embedded("sn2", f"limongi18-v{rotation}")
    others = [e for e in ELEMENTS if e not in ("H", "He")]
    for letter, rows in zip("dcba", table.rows, strict=True):
        (block,) = [b for b in blocks if f"013{letter}{rotation:03d}" in b]
        columns = [line.split() for line in block.splitlines()[1:] if line]
        lines = {row[0]: row[4:12] for row in columns}
        first = {row[0]: row[3] for row in columns}  # mass fractions at birth
        for element in ELEMENTS:
            want = np.array(lines[element], float) / rows.mass
            if letter == "a" and rotation == 300:
                # crimsons 0.1.2 lacks the first digit of hydrogen at 60 and 80 Msun (2.871 for
                # 12.871 Msun): ejecta, and with them the birth composition, are 10 Msun short
                short = np.where(rows.mass >= 60, 10 / rows.mass, 0.0)
                want += short * (float(first[element]) - (element == "H"))
            tolerance = 2e-5 if element in others else 7e-4
            assert_allclose(rows.yields[:, ELEMENTS.index(element)], want, atol=tolerance)


def test_seitenzahl_is_the_embedded_n100(raw):
    total: dict[str, float] = {}
    for line in (raw / "Seitenzahl2013" / "syields_N100.txt").read_text().splitlines():
        if match := re.match(r" *([a-z]+)\d+ +(\S+)", line):
            element = match[1].capitalize()
            total[element] = total.get(element, 0) + float(match[2])
    embedded = load_embedded("sn1a", "seitenzahl13-n100")
    for element, value in zip(ELEMENTS, embedded.yields, strict=True):
        assert value == pytest.approx(total[element], abs=1e-3)  # helium is not in the embedded one


def test_absent_tables_say_how_to_get_them(tmp_path):
    for place in ({}, {"data_dir": tmp_path}):
        with pytest.raises(YieldsNotFoundError, match="sbi-run data fetch chempy-tables"):
            load_yields("west17", **place)
    with pytest.raises(YieldsNotFoundError, match="lacks West17/ertl.txt"):
        load_yields("nugrid+west17", yield_directory=tmp_path)
    with pytest.raises(FileNotFoundError, match="incomplete, missing NuGrid"):
        read_chempy_table(tmp_path, "agb", "nugrid")


@pytest.mark.parametrize(("channel", "name"), TABLES)
def test_a_damaged_file_is_refused(raw, tmp_path, channel, name):
    folder = {"nugrid": "NuGrid", "chieffi04": "Chieffi04", "west17": "West17"}
    folder = folder.get(name.split("-")[0], "Frischknecht16")
    shutil.copytree(raw / folder, tmp_path / folder, copy_function=shutil.copyfile)
    for path in (tmp_path / folder).glob("*[.npyzxt]"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises((YieldTableError, DataFileError), match=folder):
        load_yields(name, yield_directory=tmp_path)
