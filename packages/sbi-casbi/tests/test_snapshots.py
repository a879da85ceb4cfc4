import gzip
import json
import shutil
from pathlib import Path
from runpy import run_path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_casbi.cosmology import age_gyr
from sbi_casbi.library import read_library
from sbi_casbi.stems import canonical, stem_and_step
from sbi_core import ConfigError, DataFileError

pytest.importorskip("pynbody", reason="reading snapshots needs the extra 'snapshots'")

from sbi_casbi.snapshots.builder import BuildConfig, build_library, cached_library, edges_of
from sbi_casbi.snapshots.reader import read_snapshot

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks" / "casbi"
snapshot_writer = SimpleNamespace(**run_path(str(BENCHMARKS / "snapshot_writer.py")))
MockGalaxy, write_snapshot = snapshot_writer.MockGalaxy, snapshot_writer.write_snapshot

NAME = "g8.26e11.01024"


def galaxy(stars=120, seed=0, mean=-1.5, **more):
    rng = np.random.default_rng(seed)
    return MockGalaxy(rng.normal(mean, 0.3, stars), rng.normal(0.3, 0.1, stars), **more)


@pytest.mark.parametrize("halos", ["ahf", "grp"])
def test_what_was_written_is_read(tmp_path, halos):
    g = galaxy(a=0.5, no_iron=7)
    s = read_snapshot(write_snapshot(tmp_path, NAME, g, halos=halos))
    assert (s.stem, s.step, s.halo_source) == ("g8.26e11", 1024, halos)
    assert_allclose(s.fe_h, g.fe_h, atol=1e-6)
    assert_allclose(s.alpha_fe, g.o_fe, atol=1e-6)
    assert_allclose((s.mstar, s.mdm, s.mgas), (127e4, 400e8, 60e5), rtol=1e-6)
    assert_allclose(s.tau, age_gyr(1.0), rtol=1e-6)
    assert s.z == pytest.approx(1.0)
    assert s.n_masked == 7


def test_reading_writes_nothing_beside_the_data(tmp_path):
    path = write_snapshot(tmp_path, NAME, galaxy())
    before = sorted(p.name for p in tmp_path.iterdir())
    read_snapshot(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_the_main_halo_is_the_largest_whatever_its_number(tmp_path):
    """The mock catalogue has hashed ids and lists a small halo first."""
    s = read_snapshot(write_snapshot(tmp_path, NAME, galaxy()))
    assert len(s.fe_h) == 120
    with pytest.raises(DataFileError, match="halo 2 has no stars"):
        read_snapshot(tmp_path / NAME, halo_id=2)
    with pytest.raises(DataFileError, match="no halo 0"):
        read_snapshot(tmp_path / NAME, halo_id=0)


def test_catalogues_of_several_processes_and_older_versions_are_read(tmp_path):
    path = write_snapshot(tmp_path, NAME, galaxy())
    want = read_snapshot(path)
    (file,) = tmp_path.glob("*AHF_particles")
    lines = file.read_text().splitlines()
    at = 2 + int(lines[1].split()[0])  # where the second halo starts
    several = ["1", *lines[1:at], "1", *lines[at:]]
    old = [line.split()[0] for line in lines]
    with gzip.open(f"{file}.gz", "wt") as f:
        f.write("\n".join(several))
    file.unlink()
    for text in (None, "\n".join(several), "\n".join(old)):
        if text is not None:
            file.write_text(text)
        found = read_snapshot(path)
        assert_allclose(found.fe_h, want.fe_h)
        assert (found.mdm, found.halo_id) == (want.mdm, 1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda lines: lines[:-40], "ends before the last particle"),
        (lambda lines: ["x y", *lines], "damaged"),
        (lambda lines: [*lines[:-1], "99999999 1"], "another snapshot"),
        (lambda lines: ["0"], "is empty"),
    ],
)
def test_damaged_catalogues_are_named(tmp_path, change, words):
    path = write_snapshot(tmp_path, NAME, galaxy())
    (file,) = tmp_path.glob("*AHF_particles")
    file.write_text("\n".join(change(file.read_text().splitlines())))
    with pytest.raises(DataFileError, match=words):
        read_snapshot(path)


def test_halos_outside_the_high_resolution_region_are_ignored(tmp_path):
    """An ordinary zoom: a distant halo of heavy particles has more mass, or more particles."""
    for k, distant in enumerate((300, 900)):
        path = write_snapshot(tmp_path / str(k), NAME, galaxy(distant=distant))
        assert_allclose(read_snapshot(path).mdm, 400e8, rtol=1e-6)


def test_an_ambiguous_main_halo_is_refused(tmp_path):
    path = write_snapshot(tmp_path, NAME, galaxy(), halos="grp")
    file = tmp_path / f"{NAME}.grp"
    group = np.frombuffer(file.read_bytes(), ">i4").copy()
    stars = np.flatnonzero(group[1:] == 1)[-120:] + 1
    group[stars[40:]] = 2  # most stars, but fewer particles
    file.write_bytes(group.tobytes())
    with pytest.raises(DataFileError, match="not the most stars.*--halo-id"):
        read_snapshot(path)
    assert len(read_snapshot(path, halo_id=2).fe_h) == 80


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: (d / "run.param").unlink(), "param"),
        (lambda d: (d / f"{NAME}.OxMassFrac").unlink(), "OxMassFrac"),
        (lambda d: (d / f"{NAME}.FeMassFrac").write_bytes(b"\0\0\0\5" + b"\0" * 20), "for 5"),
        (lambda d: [p.unlink() for p in d.glob("*AHF*")], "no halos"),
        (lambda d: (d / "run.param").open("a").write("bDoublePos = 0\n"), "bDoublePos"),
        (lambda d: (d / "run.param").open("a").write("bDoubleVel = 0\n"), "bDoubleVel"),
        (lambda d: (d / NAME).write_bytes((d / NAME).read_bytes()[:-3000]), "truncated"),
        (lambda d: (d / NAME).write_bytes(b"x" * 100), "not a tipsy"),
    ],
)
def test_what_is_missing_is_named(tmp_path, spoil, words):
    path = write_snapshot(tmp_path, NAME, galaxy())
    spoil(tmp_path)
    with pytest.raises(DataFileError, match=words):
        read_snapshot(path)


def test_other_byte_order_of_an_auxiliary_array_is_named(tmp_path):
    path = write_snapshot(tmp_path, NAME, galaxy())
    file = tmp_path / f"{NAME}.FeMassFrac"
    file.write_bytes(np.frombuffer(file.read_bytes(), ">i4").astype("<i4").tobytes())
    with pytest.raises(DataFileError, match="endian"):
        read_snapshot(path)


def test_masses_that_cannot_be_are_refused(tmp_path):
    path = write_snapshot(tmp_path, NAME, galaxy(star_mass=1e9, dark_mass=1e5))
    with pytest.raises(DataFileError, match="units"):
        read_snapshot(path)


def test_stars_without_iron_are_no_galaxy(tmp_path):
    path = write_snapshot(tmp_path, NAME, galaxy(stars=0, no_iron=80))
    with pytest.raises(DataFileError, match="no enriched stars"):
        read_snapshot(path)


def test_names_give_stems():
    assert stem_and_step("8.26e11.00512") == ("g8.26e11", 512)
    assert stem_and_step("a/b/g2.79e12.01024") == ("g2.79e12", 1024)
    with pytest.raises(DataFileError, match="stem-regex"):
        stem_and_step("snapshot_012")
    assert stem_and_step("m12i_600", r"^(m\w+?)_(\d+)$") == ("m12i", 600)
    assert {canonical(s) for s in ("1.00e10", "g1.0e10", "G1.00E10")} == {canonical("g1.00e10")}
    assert canonical("g1.00e10") != canonical("g1.01e10")
    assert canonical("dw00010") == "dw00010"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("sims")
    for k in range(11):
        g = galaxy(seed=k, mean=-2 + 0.1 * k)
        write_snapshot(root / f"g{k}.00e10", f"g{k}.00e10.01024", g, halos=("ahf", "grp")[k % 2])
    write_snapshot(root / "g9.99e10", "g9.99e10.01024", galaxy(stars=10))
    return root


def test_a_library_of_a_folder(folder, tmp_path):
    out = tmp_path / "lib.h5"
    report = build_library(folder, out)
    assert len(report.library) == 10
    assert report.reused == 0
    reasons = {Path(path).name: reason for path, reason in report.skipped.items()}
    assert set(reasons) == {"g9.99e10.01024", "g10.00e10.01024"}
    assert "10 usable stars" in reasons["g9.99e10.01024"]
    assert "does not match the pattern" in reasons["g10.00e10.01024"]
    assert json.loads((tmp_path / "lib.h5.skipped.json").read_text()) == dict(report.skipped)
    again = build_library(folder, out)
    assert again.reused == 10
    assert again.library.hash == report.library.hash == read_library(out).hash
    assert (report.library.n_star == 120).all()
    total = np.asarray(report.library.templates.sum(1)).ravel()
    assert_allclose(total, 1.0, atol=0.02)


def test_files_with_other_names_are_listed(folder, tmp_path):
    """Arrays and catalogues of snapshots, parameter files and the library itself are not."""
    root = tmp_path / "sims"
    shutil.copytree(folder, root)
    write_snapshot(root / "g1.00e10", "g1.00e10_00512", galaxy())
    (root / "g2.00e10" / "notes.txt").write_text("moved to tape")
    (root / "g2.00e10" / "g2.00e10.01024.timeform").write_text("an array that is not read")
    (root / ".git").mkdir()
    (root / ".git" / "config").write_text("")
    ramses = root / "g3.00e10" / "cosmo80"
    ramses.mkdir()
    for name in ("info_00080.txt", "part_00080.out00001"):
        (ramses / name).write_text("")
    for _ in range(2):
        report = build_library(root, root / "lib.h5")
        assert len(report.library) == 10
        other = [p for p, reason in report.skipped.items() if "--stem-regex" in reason]
        assert [str(Path(p).relative_to(root)) for p in other] == [
            "g1.00e10/g1.00e10_00512",
            "g10.00e10/g10.00e10.01024",
            "g2.00e10/notes.txt",
            "g3.00e10/cosmo80",
        ]


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_snapshots_are_skipped_with_their_reason(folder, tmp_path, workers):
    root = tmp_path / "sims"
    shutil.copytree(folder, root)
    for k, spoil in enumerate((without_stars, truncate, misread), start=1):
        name = f"g1.0{k}e10.01024"
        spoil(write_snapshot(root / f"bad{k}", name, galaxy()))
    report = build_library(root, tmp_path / "lib.h5", workers=workers)
    assert len(report.library) == 10
    reasons = {Path(path).name: reason for path, reason in report.skipped.items()}
    assert "no stars" in reasons["g1.01e10.01024"]
    assert "truncated" in reasons["g1.02e10.01024"]
    assert "bDoubleVel" in reasons["g1.03e10.01024"]


def without_stars(path):
    rng = np.random.default_rng(1)
    write_snapshot(path.parent, path.name, MockGalaxy(rng.random(0), rng.random(0), field=0))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-3000])


def misread(path):
    (path.parent / "run.param").open("a").write("bDoubleVel = 0\n")


@pytest.mark.parametrize("pattern", ["*.FeMassFrac", "*.OxMassFrac", "*.param", "*AHF_particles"])
def test_a_changed_file_is_read_again(folder, tmp_path, pattern):
    root = tmp_path / "sims"
    shutil.copytree(folder, root)
    build_library(root, tmp_path / "lib.h5")
    changed = next((root / "g2.00e10").glob(pattern))
    changed.write_bytes(changed.read_bytes())
    assert build_library(root, tmp_path / "lib.h5").reused == 9


def test_libraries_of_a_folder_are_kept_in_the_cache(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "sims"
    shutil.copytree(folder, root)
    before = sorted(root.rglob("*"))
    library = cached_library(root)
    assert sorted(root.rglob("*")) == before
    (file,) = (tmp_path / "cache").rglob("*.h5")
    age = file.stat().st_mtime_ns
    assert cached_library(root).hash == library.hash
    assert file.stat().st_mtime_ns == age
    shutil.rmtree(root / "g3.00e10")
    write_snapshot(root / "g1.50e10", "g1.50e10.01024", galaxy(seed=99))
    assert "g1.50e10" in cached_library(root).stem


def test_workers_give_the_same_library(folder, tmp_path):
    a = build_library(folder, tmp_path / "a.h5", BuildConfig(edges="fixed"))
    b = build_library(folder, tmp_path / "b.h5", BuildConfig(edges="fixed"), workers=2)
    assert a.library.hash == b.library.hash


def test_cuts_and_failures_are_reported(folder, tmp_path):
    with pytest.raises(DataFileError, match="empty"):
        build_library(folder, tmp_path / "a.h5", BuildConfig(largest_mstar=10.0))
    with pytest.raises(DataFileError, match=r"of 11 snapshots"):
        build_library(folder, tmp_path / "b.h5", BuildConfig(halo_source="grp"))
    with pytest.raises(ConfigError, match="percentile"):
        build_library(folder, tmp_path / "c.h5", BuildConfig(edges="percentile:90"))
    with pytest.raises(DataFileError, match="does not exist"):
        build_library(folder / "nowhere", tmp_path / "d.h5")
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "snap-7").write_text("")
    with pytest.raises(DataFileError, match=r"it holds snap-7, .*stem-regex"):
        build_library(tmp_path / "named", tmp_path / "e.h5")


def test_excluded_simulations_are_listed(folder, tmp_path):
    with pytest.raises(ConfigError, match="at least 10"):
        build_library(folder, tmp_path / "a.h5", BuildConfig(exclude=("g1.00e10",)))
    found = json.loads((tmp_path / "a.h5.skipped.json").read_text())
    assert any("excluded" in reason for reason in found.values())


def test_edges_are_quantiles_of_all_stars(rng):
    stars = [(rng.normal(-2, 0.5, 5000), rng.normal(0.2, 0.1, 5000)) for _ in range(4)]
    plane = edges_of(iter(stars), 0.01, "both")
    fe = np.concatenate([s[0] for s in stars])
    assert_allclose(plane.fe_h, np.quantile(fe, [0.01, 0.99]), atol=5e-3)
    assert edges_of(iter(stars), 0.01, "lower").fe_h[1] == fe.max()


def test_the_command_builds_and_lists_what_was_skipped(folder, tmp_path):
    from click.testing import CliRunner

    from sbi_casbi.cli import build

    def call(root, out):
        words = [str(root), "--out", str(tmp_path / out)]
        return CliRunner().invoke(build, words, catch_exceptions=False)

    root = tmp_path / "sims"
    shutil.copytree(folder, root)
    output = call(root, "a.h5").output
    assert "skipped g9.99e10/g9.99e10.01024: " in output
    assert "skipped g10.00e10/g10.00e10.01024: its name does not match" in output
    for k in range(5):
        (root / f"note{k}.txt").write_text("")
    assert "skipped 6 files, e.g. g10.00e10/g10.00e10.01024, note0.txt" in call(root, "a.h5").output
    with pytest.raises(DataFileError):
        call(folder / "none", "b.h5")
