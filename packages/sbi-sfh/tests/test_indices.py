import numpy as np
import pytest

from sbi_sfh.indices import BANDS, INDICES, break_4000, equivalent_width, measure

WAVE = 3540.5 + 0.9 * np.arange(4300)


@pytest.mark.parametrize("name", list(INDICES))
def test_a_featureless_slope_has_no_width(name):
    assert equivalent_width(WAVE, 1.0 + 1e-4 * WAVE, INDICES[name]) == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("name", list(INDICES))
def test_a_box_has_its_own_width(name):
    index = INDICES[name]
    middle = 0.5 * sum(index.feature)
    box = np.abs(WAVE - middle) < 2.25
    flux = np.where(box, 0.5, 1.0)
    assert equivalent_width(WAVE, flux, index) == pytest.approx(0.5 * 0.9 * box.sum(), rel=1e-6)


def test_the_break_compares_frequencies():
    flux = np.where(WAVE < 3970, 1.0, 2.0)
    assert break_4000(WAVE, flux) == pytest.approx(2.0 * (4050 / 3900) ** 2, rel=2e-3)


def test_what_is_not_covered_is_left_out():
    short = WAVE[WAVE > 5000]
    found = measure(short, np.ones((3, len(short))))
    assert "Mgb" in found
    assert "Hb" not in found
    assert "Dn4000" not in found
    assert set(BANDS) & set(found) == {"Ha"}
