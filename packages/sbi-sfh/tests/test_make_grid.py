"""The embedded grid against its generator, where that is installed."""

import numpy as np
import pytest

from sbi_core import ConfigError
from sbi_sfh.embedded import embedded_library
from sbi_sfh.make_grid import AGES_GYR, METALLICITIES, main, synthesiser, write


def test_axes_are_those_of_the_embedded_grid():
    library = embedded_library()
    np.testing.assert_allclose(library.mh, METALLICITIES)
    np.testing.assert_allclose(library.age_gyr, AGES_GYR)


@pytest.mark.parametrize(
    ("mh", "age"), [(-2.27, 14.0), (-1.26, 0.3), (-0.35, 1.0), (0.06, 10.0), (0.26, 0.05)]
)
def test_generator_gives_the_embedded_spectra_again(mh, age):
    pytest.importorskip("fastar", reason="needs sbi-sfh[grid] (fastar-astro)")
    library = embedded_library()
    wave, flux = synthesiser()
    np.testing.assert_allclose(library.wave, wave)
    row = METALLICITIES.index(mh), AGES_GYR.index(age)
    np.testing.assert_allclose(library.spectra()[row], flux(age, mh), rtol=1e-3)


def test_what_is_written_can_be_read_back(tmp_path, monkeypatch):
    """Compression to 48 components, provenance and digest, on a cube of the embedded spectra."""
    library = embedded_library()
    meta = write(tmp_path / "grid.npz", library.wave, library.spectra(), "0.1.2")
    assert meta["package"] == "fastar-astro 0.1.2"
    monkeypatch.setattr("sbi_sfh.embedded.files", lambda _: _Folder(tmp_path / "grid.npz"))
    again = embedded_library()
    np.testing.assert_allclose(again.spectra(), library.spectra(), rtol=1e-4)


class _Folder:
    def __init__(self, path):
        self.path = path

    def joinpath(self, *_):
        return self.path


def test_a_missing_generator_is_named(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "fastar", None)
    with pytest.raises(ConfigError, match=r"sbi-sfh\[grid\]"):
        synthesiser()
    assert main([]) == 2
    assert "fastar-astro" in capsys.readouterr().err
