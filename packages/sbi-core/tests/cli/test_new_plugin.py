"""``sbi-run new-plugin``: what it writes works as it is; what it cannot do it says."""

import re
import sys
import tomllib

import pytest

from sbi_core.cli import main
from sbi_core.testing import PluginChecks


@pytest.fixture
def new(tmp_path, monkeypatch, capsys):
    """``new("name")`` -> (exit code, stdout, stderr), in an empty directory."""
    monkeypatch.chdir(tmp_path)

    def call(*args):
        with pytest.raises(SystemExit) as raised:
            main(["new-plugin", *args])
        return (raised.value.code, *capsys.readouterr())

    return call


@pytest.mark.parametrize("name", ["toymodel", "sbi-toymodel"])
def test_it_writes_a_complete_package(name, new, tmp_path):
    code, out, _ = new(name)
    assert code == 0
    assert "sbi-run --plugin toymodel --preset quick" in out
    folder = tmp_path / "sbi-toymodel"
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert found == {
        ".github/workflows/test.yml",
        ".gitignore",
        "README.md",
        "pyproject.toml",
        "src/sbi_toymodel/__init__.py",
        "src/sbi_toymodel/simulator.py",
        "tests/test_conformance.py",
    }
    for path in folder.rglob("*"):
        if path.is_file():
            assert not re.search("@[A-Z]+@", path.read_text(encoding="utf-8")), path
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == "sbi-toymodel"
    assert project["entry-points"]["sbi_core"] == {"toymodel": "sbi_toymodel"}


def test_what_it_writes_conforms(new, tmp_path, monkeypatch):
    """All checks but the quick run of minutes, which the session ``plugin`` of nox does."""
    assert new("fading-star", "--dir", "here")[0] == 0
    monkeypatch.syspath_prepend(str(tmp_path / "here" / "sbi-fading-star" / "src"))
    import sbi_fading_star

    try:

        class Tests(PluginChecks):
            plugin, module = "fading-star", sbi_fading_star
            without = ("*-it-runs-from-end-to-end",)

        assert len(Tests.run()) > 20
    finally:
        for name in [m for m in sys.modules if m.startswith("sbi_fading_star")]:
            del sys.modules[name]


def test_the_smallest_complete_plugin_is_short(new, tmp_path):
    new("toymodel")
    lines = [
        line
        for path in (tmp_path / "sbi-toymodel" / "src").rglob("*.py")
        for line in path.read_text().splitlines()
        if line.strip()
    ]
    assert len(lines) <= 40


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("My Plugin", "lower-case letters, .* e.g. 'my-plugin'"),
        ("1st", "beginning with a letter, .* e.g. 'st'"),
        ("a_b", "e.g. 'a-b'"),
        ("a--b", "e.g. 'a-b'"),
        ("../up", "cannot be the name"),
        ("", "cannot be the name"),
        ("x" * 41, "at most 40 characters"),
        ("core", "'core' is the name of sbi-core"),
        ("sbi-core", "'core' is the name of sbi-core"),
        ("casbi", "'casbi' is the name of sbi-casbi|'casbi' is installed already"),
    ],
)
def test_names_that_cannot_be(name, message, new, tmp_path):
    code, _, err = new(name)
    assert code == 2
    assert re.search(message, err), err
    assert list(tmp_path.iterdir()) == []


def test_names_that_are_taken(new, install, tmp_path):
    install("sbi-star", {"star": "star_plugin"}, star_plugin="")
    code, _, err = new("star")
    assert code == 2
    assert "a plugin 'star' is installed already; choose another name" in err
    assert not (tmp_path / "sbi-star").exists()


def test_an_existing_directory_is_left_alone(new, tmp_path):
    (tmp_path / "sbi-toymodel").mkdir()
    code, _, err = new("toymodel")
    assert code == 2
    assert "the directory 'sbi-toymodel' exists; choose another name, another --dir" in err
    assert list((tmp_path / "sbi-toymodel").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(new, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, err = new("toymodel", "--dir", "file")
    assert code == 2
    assert "cannot write to 'file/sbi-toymodel'" in err
