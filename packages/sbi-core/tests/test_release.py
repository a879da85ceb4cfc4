"""What a release needs: packages, versions, changelogs, and the files that describe the project."""

import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = sorted(path.parent for path in ROOT.glob("packages/*/pyproject.toml"))
PYTHONS = {"3.11", "3.12", "3.13"}


def module(package):
    return package / "src" / package.name.replace("-", "_")


def project(package):
    return tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def version(package):
    text = (module(package) / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)[1]


@pytest.fixture(autouse=True)
def tools(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    yield
    for name in ("workspace", "release", "recipe", "lowest"):
        sys.modules.pop(name, None)


@pytest.fixture
def tool():
    import release

    return release


@pytest.fixture
def tree(tmp_path):
    """The files of the project that a release changes."""
    shutil.copy(ROOT / "CITATION.cff", tmp_path)
    for package in PACKAGES:
        for name in ("pyproject.toml", f"src/{module(package).name}/__init__.py"):
            file = tmp_path / "packages" / package.name / name
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(package / name, file)
        (tmp_path / "packages" / package.name / "CHANGELOG.md").write_text(
            "# Changelog\n\n## Unreleased\n\n* New.\n\n## 0.1.0\n\n* Old.\n", encoding="utf-8"
        )
    return tmp_path


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.name)
def test_packages_are_typed_licensed_and_for_the_tested_versions_of_python(package):
    assert (module(package) / "py.typed").is_file()
    assert (package / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    names = {c.rpartition(" ")[2] for c in project(package)["classifiers"] if "Python :: 3" in c}
    assert names == PYTHONS
    assert project(package)["requires-python"] == f">={min(PYTHONS)}"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.name)
def test_packages_take_the_core_of_this_tree(package):
    core = version(ROOT / "packages" / "sbi-core")
    wanted = [Requirement(r) for r in project(package)["dependencies"]]
    mine = [r for r in wanted if r.name == "sbi-core"]
    assert len(mine) == (package.name != "sbi-core")
    assert all(r.specifier.contains(core, prereleases=True) for r in mine)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda p: p.name)
def test_a_release_writes_version_and_changelog_of_its_tag(package, tool, tree):
    tag = f"{package.name}-v7.8.9"
    with pytest.raises(ValueError, match=r"not version 7\.8\.9; run python tools/release\.py"):
        tool.checked(tag, tree)
    tool.release(tag, tree)
    assert tool.checked(tag, tree).name == package.name
    assert re.search(
        r"^## 7\.8\.9 \(\d{4}-\d\d-\d\d\)$",
        (tree / "packages" / package.name / "CHANGELOG.md").read_text(),
        re.MULTILINE,
    )
    cited = re.search(r"^version: (.+)$", (tree / "CITATION.cff").read_text(), re.MULTILINE)[1]
    assert (cited == "7.8.9") == (package.name == "sbi-core")
    with pytest.raises(ValueError, match="nothing to release"):
        tool.release(f"{package.name}-v8.0.0", tree)


@pytest.mark.parametrize(
    "place", ["packages/sbi-core/src/sbi_core/__init__.py", "packages/sbi-core/CHANGELOG.md",
              "CITATION.cff"],
)  # fmt: skip
def test_a_tag_that_one_file_contradicts_is_refused(place, tool, tree):
    tool.release("sbi-core-v7.8.9", tree)
    file = tree / place
    file.write_text(file.read_text().replace("7.8.9", "7.8.8"))
    with pytest.raises(ValueError, match=f"{place}: not version"):
        tool.checked("sbi-core-v7.8.9", tree)


@pytest.mark.parametrize("tag", ["v1.0.0", "sbi-core-1.0.0", "sbi-core-v1.0", "sbi-else-v1.0.0"])
def test_other_tags_are_no_releases(tag, tool):
    with pytest.raises(ValueError, match="no tag of a release"):
        tool.checked(tag)


def test_the_recipe_has_the_dependencies_of_the_packages():
    import recipe
    from workspace import packages

    text = (ROOT / "recipe" / "recipe.yaml").read_text(encoding="utf-8")
    assert text == recipe.recipe(packages()), "run python tools/recipe.py"
    outputs = yaml.safe_load(text)["outputs"]
    assert [o["package"]["name"] for o in outputs] == [p.name for p in packages()]
    for output in outputs:
        path = ROOT / "recipe" / output["source"]["path"]
        assert (path / output["about"]["license_file"]).is_file()
        wanted = {Requirement(r).name for r in project(path.resolve())["dependencies"]}
        run = {line.split()[0] for line in output["requirements"]["run"]} - {"python"}
        assert len(run) == len(wanted)


def test_lowest_versions_are_the_highest_of_the_lower_bounds():
    from lowest import lowest_versions
    from workspace import packages

    pins = dict(line.split("==") for line in lowest_versions(packages()))
    for package in PACKAGES:
        for line in project(package)["dependencies"]:
            wanted = Requirement(line)
            name = wanted.name.lower().replace("_", "-")
            assert name == "sbi-core" or wanted.specifier.contains(pins[name])


def test_the_citation_has_the_version_of_the_core():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"]
    assert Version(cited) == Version(version(ROOT / "packages" / "sbi-core"))


def test_the_workflow_tests_every_system_and_python():
    text = (ROOT / ".github" / "workflows" / "checks.yml").read_text(encoding="utf-8")
    matrix = yaml.safe_load(text)["jobs"]["tests"]["strategy"]["matrix"]
    assert {v.partition("-")[0] for v in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert set(matrix["python"]) == PYTHONS


@pytest.mark.parametrize("file", sorted(ROOT.glob(".github/workflows/*.yml")), ids=lambda p: p.name)
def test_workflows_have_only_the_rights_they_need_and_run_sessions_that_exist(file):
    workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    writing = [n for n, j in workflow["jobs"].items() if "id-token" in j.get("permissions", {})]
    assert writing == (["publish"] if file.name == "release.yml" else [])
    sessions = re.findall(r"nox -s \"?(\w+)", file.read_text(encoding="utf-8"))
    defined = re.findall(
        r"^def (\w+)\(", (ROOT / "noxfile.py").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert set(sessions) <= set(defined)
