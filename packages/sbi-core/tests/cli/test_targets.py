"""What a command will write is checked before its work; what it reads is never overwritten."""

from types import SimpleNamespace

import pytest
from sbi_toy import ToySimulator

from sbi_core import ConfigError, Simulator, checked_folder, checked_target, files_read, load_run


@pytest.fixture
def spectra(tmp_path):
    folder = tmp_path / "spectra"
    folder.mkdir()
    (folder / "a.txt").write_text("1 2 3")
    return folder


@pytest.mark.parametrize("given", ["file", "link", "folder"])
def test_inputs_are_not_overwritten(spectra, tmp_path, given):
    file = spectra / "a.txt"
    (tmp_path / "b.txt").symlink_to(file)
    out = tmp_path / "b.txt" if given == "link" else file
    inputs = (None, spectra if given == "folder" else file)
    with pytest.raises(ConfigError, match="a file that the command reads; choose another"):
        checked_target(out, inputs=inputs)


def test_another_file_beside_the_inputs_is_written(spectra):
    assert checked_target(spectra / "new.txt", inputs=(spectra, spectra / "a.txt")).name
    assert checked_target(spectra / "a.txt", inputs=(spectra / "none.txt",))


def test_suffixes_are_known_in_upper_case(tmp_path):
    assert checked_target(tmp_path / "m.FITS", (".fits",))
    with pytest.raises(ConfigError, match="unknown format, use .fits"):
        checked_target(tmp_path / "m.png", (".fits",))


def test_the_folder_of_a_file_must_exist(tmp_path):
    with pytest.raises(ConfigError, match="folder '.*new' does not exist"):
        checked_target(tmp_path / "new" / "m.fits")


def test_a_folder_is_made_and_a_file_in_its_place_is_named(spectra, tmp_path):
    assert checked_folder(tmp_path / "a" / "b").is_dir()
    for name in ("a.txt", "a.txt/figures"):
        with pytest.raises(ConfigError, match="a file has this name"):
            checked_folder(spectra / name)


class OtherSimulator(Simulator):
    """Stands for the simulator of another plugin."""

    name = "other"


def test_a_run_of_another_plugin_is_named(finished, registry):
    root = finished.directory.root
    for overrides in ((), ("simulator.unknown=1",)):
        run = load_run(root, registry=registry, overrides=overrides)
        with pytest.raises(ConfigError, match="is a run of toy, expected one of other"):
            run.simulator_of(OtherSimulator)
    with pytest.raises(ConfigError, match="unknown"):  # of its own plugin: the option is named
        run.simulator_of(ToySimulator)
    plain = load_run(root, registry=registry)
    assert plain.simulator_of(OtherSimulator, ToySimulator) is plain.simulator


def test_files_that_options_name_are_read_too(tmp_path):
    catalogue = tmp_path / "cat.ecsv"
    catalogue.write_text("id redshift")
    simulator = SimpleNamespace(
        config=SimpleNamespace(catalogue=str(catalogue), mode="mock", noise_shape=None, n=3)
    )
    assert files_read(simulator, "spectra.fits", None) == ["spectra.fits", str(catalogue)]
    assert files_read(SimpleNamespace(), "a") == ["a"]
