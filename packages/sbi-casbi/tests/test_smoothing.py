import numpy as np
from numpy.testing import assert_allclose
from scipy import stats

from sbi_casbi.plane import FINE, Plane
from sbi_casbi.smoothing import coarse, kernel, smooth


def test_no_error_gives_the_plain_sum(rng):
    fine = rng.random((2, FINE, FINE)).astype(np.float32)
    w = Plane().pixel
    zero = np.zeros(2)
    got = smooth(fine, kernel(zero, zero, w[0]), kernel(zero, zero, w[1]))
    assert_allclose(got, coarse(fine), rtol=1e-5)


def test_errors_move_stars_as_a_gaussian_does():
    width = Plane().pixel[0]
    a = kernel([0.2], [0.0], width)[0]
    h = width / 2
    j = 70
    low = (j - 16) * h  # relative to the edge of the first pixel
    inside = np.linspace(low, low + h, 2001)
    for i in (20, 27, 33):
        p = stats.norm.cdf((i + 1) * width - inside, scale=0.2) - stats.norm.cdf(
            i * width - inside, scale=0.2
        )
        assert_allclose(a[i, j], p.mean(), atol=2e-6)


def test_a_shift_by_one_pixel_moves_everything_by_one_pixel(rng):
    fine = np.zeros((1, FINE, FINE), np.float32)
    fine[0, 40:100, 40:100] = rng.random((60, 60))
    w = Plane().pixel
    zero = np.zeros(1)
    a = smooth(fine, kernel(zero, zero, w[0]), kernel(zero, zero, w[1]))
    b = smooth(fine, kernel(zero, [w[0]], w[0]), kernel(zero, zero, w[1]))
    assert_allclose(b[:, 1:], a[:, :-1], atol=1e-4)


def test_smoothing_commutes_with_superposition(rng):
    fine = rng.random((2, FINE, FINE)).astype(np.float32)
    w = Plane().pixel
    s = np.full(2, 0.1)
    a, b = kernel(s, 0 * s, w[0]), kernel(s, 0 * s, w[1])
    both = smooth(fine.sum(0, keepdims=True), a[:1], b[:1])
    assert_allclose(both[0], smooth(fine, a, b).sum(0), rtol=1e-4)
