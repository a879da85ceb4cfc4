"""Snapshots of AREPO, GIZMO, Gadget and RAMSES, as small files of the same layout."""

import json
import shutil

import h5py
import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_casbi.abundances import solar_scale
from sbi_casbi.cosmology import age_gyr
from sbi_casbi.stems import is_snapshot, stem_and_step
from sbi_core import ConfigError, DataFileError

pytest.importorskip("pynbody", reason="reading snapshots needs the extra 'snapshots'")

from sbi_casbi.snapshots.builder import BuildConfig, build_library
from sbi_casbi.snapshots.fields import fields_of
from sbi_casbi.snapshots.reader import files_of, read_snapshot

H, OMEGA, HYDROGEN = 0.6774, 0.3089, 0.74
STARS, DARK, GAS = 90, 300, 40
SUN = solar_scale("asplund09")


def stars(seed=0, mean=-1.5, n=STARS):
    """Return [Fe/H], [O/Fe] and [Mg/Fe], and the mass fractions of iron, oxygen and magnesium."""
    rng = np.random.default_rng(seed)
    fe_h, o_fe, mg_fe = rng.normal(mean, 0.3, n), rng.normal(0.3, 0.1, n), rng.normal(0.2, 0.1, n)
    fe = SUN.fe / SUN.h * HYDROGEN * 10**fe_h
    return (fe_h, o_fe, mg_fe), (
        fe,
        fe * SUN.o / SUN.fe * 10**o_fe,
        fe * SUN.mg / SUN.fe * 10**mg_fe,
    )


def write_hdf5(path, layout="tng", a=0.5, seed=0, mean=-1.5, wind=0):
    """Write gas, dark matter and stars as TNG (AREPO), EAGLE (Gadget) or FIRE (GIZMO) do."""
    (fe_h, o_fe, mg_fe), (fe, o, mg) = stars(seed, mean)
    rng = np.random.default_rng(seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = np.array([GAS, DARK, 0, 0, STARS, 0])
    with h5py.File(path, "w") as f:
        f.create_group("Header").attrs.update(
            NumPart_ThisFile=numbers, NumPart_Total=numbers, NumFilesPerSnapshot=1,
            MassTable=np.array([0, 0.01, 0, 0, 0, 0]), Time=a, Redshift=1 / a - 1, BoxSize=35000.0,
            Omega0=OMEGA, OmegaLambda=1 - OMEGA, HubbleParam=H,
            UnitLength_in_cm=3.085678e21, UnitMass_in_g=1.989e43, UnitVelocity_in_cm_per_s=1e5,
        )  # fmt: skip
        if layout == "tng":
            f.create_group("Config").attrs["VORONOI"] = ""
        for kind, n in ((0, GAS), (1, DARK), (4, STARS)):
            g = f.create_group(f"PartType{kind}")
            g["Coordinates"], g["Velocities"] = rng.random((2, n, 3))
            g["ParticleIDs"] = np.arange(n) + 1000 * kind
            if kind != 1:
                g["Masses"] = np.full(n, 1e-5)
        star = f["PartType4"]
        if layout == "fire":
            f["PartType0/ParticleIDGenerationNumber"] = np.zeros(GAS, int)
        if layout == "tng":
            metals = np.zeros((STARS, 10), "f4")
            metals[:, 0], metals[:, 4], metals[:, 6], metals[:, 8] = HYDROGEN, o, mg, fe
            star["GFM_Metals"] = metals
            formed = rng.uniform(0.1, 0.4, STARS)
            formed[:wind] = -1.0
            star["GFM_StellarFormationTime"] = formed
        elif layout == "eagle":
            for name, value in (("Iron", fe), ("Oxygen", o), ("Magnesium", mg)):
                star[f"ElementAbundance/{name}"] = value
            star["ElementAbundance/Hydrogen"] = np.full(STARS, HYDROGEN)
            star["StellarFormationTime"] = rng.uniform(0.1, 0.4, STARS)
        else:
            metals = np.zeros((STARS, 11), "f4")
            metals[:, 0], metals[:, 1] = 0.01, 1 - 0.01 - HYDROGEN
            metals[:, 4], metals[:, 6], metals[:, 10] = o, mg, fe
            star["Metallicity"] = metals
            star["StellarFormationTime"] = rng.uniform(0.1, 0.4, STARS)
    return path


def write_ramses(folder, a=0.5, seed=0, mean=-1.5, n=STARS):
    """Write the particles of RAMSES with the fields metal_Fe and metal_O."""
    _, (fe, o, _) = stars(seed, mean, n)
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    number = folder.name[-5:]
    total = n + DARK
    box = 1e4 * 3.085678e21 / H * a  # cm
    density = 2.77536627e2 * H**2 * OMEGA * 1.989e33 / 3.085678e21**3 / a**3
    info = {
        "ncpu": 1, "ndim": 3, "levelmin": 7, "levelmax": 14, "boxlen": 1.0, "time": -0.5, "aexp": a,
        "H0": 100 * H, "omega_m": OMEGA, "omega_l": 1 - OMEGA, "omega_k": 0.0, "omega_b": 0.0486,
        "unit_l": box, "unit_d": density, "unit_t": 1e17 * a**2,
    }  # fmt: skip
    lines = [f"{name:12s}= {value}\n" for name, value in info.items()]
    (folder / f"info_{number}.txt").write_text("".join(lines))
    types = [("position_" + k, "d") for k in "xyz"] + [("velocity_" + k, "d") for k in "xyz"]
    types += [("mass", "d"), ("identity", "i"), ("levelp", "i"), ("family", "b"), ("tag", "b")]
    types += [("birth_time", "d"), ("metallicity", "d"), ("metal_Fe", "d"), ("metal_O", "d")]
    text = [f" {k}, {name}, {kind}\n" for k, (name, kind) in enumerate(types, start=1)]
    described = ["# version:  1\n", "# ivar, variable_name, variable_type\n", *text]
    (folder / "part_file_descriptor.txt").write_text("".join(described))
    is_star = np.arange(total) >= DARK
    solar_masses = np.where(is_star, 1e4, 1e8)
    values = {
        "mass": solar_masses * 1.989e33 / (density * box**3),
        "identity": np.arange(total) + 1, "levelp": np.full(total, 8),
        "family": np.where(is_star, 2, 1), "tag": np.zeros(total),
        "birth_time": np.where(is_star, -1.0, 0.0),
    }  # fmt: skip
    for name, mass_fraction in (("metallicity", 2 * o), ("metal_Fe", fe), ("metal_O", o)):
        values[name] = np.zeros(total)
        values[name][is_star] = mass_fraction
    with (folder / f"part_{number}.out00001").open("wb") as f:
        header = [(1, "i4"), (3, "i4"), (total, "i4"), ([1, 2, 3, 4], "i4")]
        for value, kind in (*header, (n, "i4"), (0.0, "f8"), (0.0, "f8"), (0, "i4")):
            record(f, value, kind)
        for name, kind in types:
            numbers = values.get(name, rng.random(total))
            record(f, numbers, {"d": "f8", "i": "i4", "b": "i1"}[kind])
    return folder


def record(file, values, kind):
    """Write one record of Fortran."""
    data = np.asarray(values, kind).tobytes()
    length = np.int32(len(data)).tobytes()
    file.write(length + data + length)


@pytest.mark.parametrize("layout", ["tng", "eagle", "fire"])
def test_hdf5_snapshots_are_read(tmp_path, layout):
    (fe_h, o_fe, mg_fe), _ = stars()
    path = write_hdf5(tmp_path / "sim7" / "snap_050.hdf5", layout)
    options = {"halo_source": "whole", "solar": "asplund09"}
    s = read_snapshot(path, **options)
    assert (s.name, s.stem, s.step, s.halo_source) == ("sim7.00050", "sim7", 50, "whole")
    assert_allclose(s.fe_h, fe_h, atol=1e-5)
    assert_allclose(s.alpha_fe, o_fe, atol=1e-5)
    masses = np.array([STARS * 1e-5, DARK * 0.01, GAS * 1e-5]) * 1e10
    assert_allclose((s.mstar, s.mdm, s.mgas), masses / H, rtol=2e-3)
    assert_allclose(s.tau, age_gyr(1.0, 100 * H, OMEGA), rtol=1e-6)
    assert_allclose(read_snapshot(path, **options, alpha="mg").alpha_fe, mg_fe, atol=1e-5)
    assert (read_snapshot(path, **options, fields=layout).fe_h == s.fe_h).all()


def test_wind_particles_are_no_stars(tmp_path):
    path = write_hdf5(tmp_path / "sim7" / "snap_050.hdf5", wind=10)
    s = read_snapshot(path, halo_source="whole")
    assert (len(s.fe_h), s.n_masked) == (STARS - 10, 10)


def test_ramses_snapshots_are_read(tmp_path):
    """Without hydrogen in the file it follows from iron and oxygen, or from the metals."""
    (fe_h, o_fe, _), (fe, o, _) = stars()
    path = write_ramses(tmp_path / "dwarf3" / "output_00080")
    options = {"halo_source": "whole", "solar": "asplund09"}
    s = read_snapshot(path, fields="fe=metal_Fe,o=metal_O,z=metallicity", **options)
    assert (s.stem, s.step) == ("dwarf3", 80)
    hydrogen = 0.764 - 3.1 * 2 * o
    assert_allclose(s.fe_h, fe_h + np.log10(HYDROGEN / hydrogen), atol=1e-6)
    assert_allclose(s.alpha_fe, o_fe, atol=1e-6)
    assert_allclose((s.mstar, s.mdm), (STARS * 1e4, DARK * 1e8), rtol=2e-3)
    assert_allclose(s.tau, age_gyr(1.0, 100 * H, OMEGA), rtol=1e-6)
    assert np.isnan(s.mgas)
    t = read_snapshot(path, fields="fe=metal_Fe,o=metal_O", **options)
    assert_allclose(t.fe_h, fe_h, atol=0.02)
    with pytest.raises(DataFileError, match=r"no known array.*metal_Fe.*--fields"):
        read_snapshot(path, **options)
    with pytest.raises(DataFileError, match=r"'mg'.*mg=ARRAY"):
        read_snapshot(path, fields="fe=metal_Fe,o=metal_O", alpha="mg", **options)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("fe=Iron,o=GFM_Metals:4", "no array 'Iron'.*GFM_Metals"),
        ("fe=GFM_Metals,o=GFM_Metals:4", "10 columns: write 'GFM_Metals:0' to 'GFM_Metals:9'"),
        ("fe=GFM_Metals:12,o=GFM_Metals:4", "10 columns, from 0, but the column 12"),
        ("fe=Masses:1,o=GFM_Metals:4", "'Masses' of --fields is one column: write 'Masses' with"),
    ],
)
def test_fields_that_are_missing_are_named(tmp_path, fields, words):
    path = write_hdf5(tmp_path / "sim7" / "snap_050.hdf5")
    with pytest.raises(DataFileError, match=words):
        read_snapshot(path, halo_source="whole", fields=fields)


@pytest.mark.parametrize("words", ["illustris", "o=GFM_Metals:4", "fe=A,c=B", "fe=", "fe=A:b,o=C"])
def test_fields_that_are_none_are_refused(words):
    with pytest.raises(ConfigError, match="layout"):
        fields_of(words)


def test_a_catalogue_is_needed_or_the_whole_snapshot(tmp_path):
    path = write_hdf5(tmp_path / "sim7" / "snap_050.hdf5")
    with pytest.raises(DataFileError, match="--halo-source whole"):
        read_snapshot(path)
    with pytest.raises(DataFileError, match="tipsy"):
        read_snapshot(path, halo_source="ahf")


def test_the_main_halo_of_a_catalogue_is_chosen(tmp_path, monkeypatch):
    """Halo 4 has most particles and stars, halo 2 some, the others belong to none."""
    import pynbody

    path = write_hdf5(tmp_path / "sim7" / "snap_050.hdf5")
    with h5py.File(path, "r+") as f:
        for kind, n in ((0, GAS), (1, DARK), (4, STARS)):
            number = np.full(n, 4)
            number[: n // 4] = 2
            number[-n // 10 :] = -1
            f[f"PartType{kind}/GroupID"] = number
            member = (number == 4).sum()
    made = pynbody.halo.number_array.HaloNumberCatalogue
    snap = pynbody.snapshot.gadgethdf.GadgetHDFSnap
    monkeypatch.setattr(snap, "halos", lambda self: made(self, array="GroupID", ignore=-1))
    s = read_snapshot(path)
    assert (s.halo_id, s.halo_source, len(s.fe_h)) == (4, "catalogue", member)
    with pytest.raises(DataFileError, match="22 usable stars"):
        read_snapshot(path, halo_id=2)


def test_damaged_files_are_named(tmp_path):
    path = write_hdf5(tmp_path / "sim7" / "snap_050.hdf5")
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(DataFileError, match="snap_050"):
        read_snapshot(path, halo_source="whole")


def test_names_of_other_codes_give_stems(tmp_path):
    for name, stem, step in (
        ("m12i/output/snapdir_600/snapshot_600.0.hdf5", "m12i", 600),
        ("halo_3/snap_099.hdf5", "halo_3", 99),
        ("L25/RefL/snapshot_028_z000p000.0.hdf5", "RefL", 28),
        ("vintergatan/output_00080", "vintergatan", 80),
    ):
        assert stem_and_step(tmp_path / name) == (stem, step)
    pattern = r"(halo_\d+)/cutout_(\d+)\.hdf5$"
    assert stem_and_step("tng/halo_12/cutout_99.hdf5", pattern) == ("halo_12", 99)
    later = write_hdf5(tmp_path / "sim7" / "snap_050.1.hdf5")
    assert not is_snapshot(later)
    first = write_hdf5(tmp_path / "sim7" / "snap_050.0.hdf5")
    assert is_snapshot(first)
    assert set(files_of(first)) == {first, later}
    assert not is_snapshot(tmp_path / "sim7")


def test_fifty_snapshots_of_three_codes_of_which_ten_are_bad(tmp_path):
    """Bad: truncated, without its array of iron, without stars, or of another format."""
    root = tmp_path / "sims"
    for k in range(46):
        write_hdf5(root / f"dwarf{k % 16}" / f"snap_{k:03d}.hdf5", "tng", seed=k, mean=-2 + k / 40)
    for k in range(4):
        write_hdf5(root / f"other{k}" / f"snapshot_{k:03d}.hdf5", "eagle", seed=k)
    files = sorted(root.rglob("*.hdf5"))
    bad = files[::5]
    for k, path in enumerate(bad):
        if k % 3 == 0:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif k % 3 == 1:
            with h5py.File(path, "r+") as f:
                del f["PartType4"]
                f["Header"].attrs["NumPart_Total"] = f["Header"].attrs["NumPart_ThisFile"] = [
                    GAS, DARK, 0, 0, 0, 0,
                ]  # fmt: skip
        else:
            path.write_text("no snapshot")
    report = build_library(root, tmp_path / "lib.h5", BuildConfig(halo_source="whole"))
    assert (len(files), len(bad), len(report.library)) == (50, 10, 40)
    assert set(report.skipped) == set(map(str, bad))
    assert any("no stars" in reason for reason in report.skipped.values())
    assert json.loads((tmp_path / "lib.h5.skipped.json").read_text()) == dict(report.skipped)
    assert set(report.library.stem) >= {"dwarf1", "other1"}
    shutil.rmtree(root / "dwarf3")
    again = build_library(root, tmp_path / "lib.h5", BuildConfig(halo_source="whole", alpha="mg"))
    assert again.reused == 0
    assert again.library.alpha == "mg"


def test_a_library_of_ramses(tmp_path):
    for k in range(11):
        write_ramses(tmp_path / "sims" / f"dwarf{k}" / "output_00080", seed=k, mean=-2 + k / 10)
    options = BuildConfig(halo_source="whole", fields="fe=metal_Fe,o=metal_O")
    report = build_library(tmp_path / "sims", tmp_path / "lib.h5", options)
    assert len(report.library) == 11
    assert not report.skipped
