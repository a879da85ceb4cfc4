import numpy as np
import pytest
from numpy.testing import assert_allclose

from sbi_sfh.broadening import broaden, edge_pixels, nodes
from sbi_sfh.constants import C_KMS

WAVE = 3540.5 + 0.9 * np.arange(4300)


@pytest.mark.parametrize("sigma", [50.0, 150.0, 300.0])
def test_widths_add_in_quadrature(sigma):
    centre, own = 5200.0, 200.0
    line = np.exp(-0.5 * ((WAVE / centre - 1) * C_KMS / own) ** 2)[None]
    out = broaden(WAVE, line, np.array([sigma]))[0, 0]
    v = np.log(WAVE / centre) * C_KMS
    width = np.sqrt((out * v**2).sum() / out.sum())
    before = np.sqrt((line[0] * v**2).sum() / line[0].sum())
    assert width == pytest.approx(np.hypot(before, sigma), rel=2e-3)


def test_nothing_changes_without_dispersion_or_lines():
    flat = np.full((1, 4300), 2.0)
    assert_allclose(broaden(WAVE, flat, np.array([0.0, 250.0])), 2.0, rtol=1e-9)


def test_nodes_reach_the_highest_dispersion():
    assert nodes(350.0)[-1] >= 350.0
    assert_allclose(np.diff(nodes(350.0)), 12.5)


def test_edges_widen_with_dispersion():
    assert edge_pixels(WAVE, 100.0).sum() < edge_pixels(WAVE, 300.0).sum()
    assert not edge_pixels(WAVE, 300.0)[2000]
