import numpy as np
import pytest

from sbi_core.diagnostics import c2st

N = 500


def test_draws_of_one_distribution_cannot_be_told_apart(rng):
    x, y = rng.standard_normal((2, N, 3))
    got = c2st(x, y)
    assert got.sd == pytest.approx(0.5 / np.sqrt(2 * N))
    assert got.p > 1e-4  # false alarms: about 1e-4; sd is 0.014


@pytest.mark.parametrize(
    ("planted", "least"),
    [
        (lambda z: z + 0.7, 0.55),  # an ideal classifier reaches 0.73
        (lambda z: 0.5 * z, 0.60),  # 0.73
        (lambda z: z * [1, 1, 0] + z[:, [0]] * [0, 0, 1], 0.60),  # correlated: equal margins
    ],
)
def test_shift_width_and_correlation_are_seen(rng, planted, least):
    x, z = rng.standard_normal((2, N, 3))
    got = c2st(x, planted(z))
    assert got.accuracy > least
    assert got.p < 1e-4


def test_it_approaches_the_ideal_classifier(rng):
    # accuracy of the ideal one for N(0, 1) against N(1, 1): Phi(1/2) = 0.691
    x, y = rng.standard_normal((2, 2000, 1))
    assert c2st(x, y + 1.0).accuracy == pytest.approx(0.691, abs=0.03)  # 3.6 sigma


def test_units_do_not_matter_and_results_repeat(rng):
    x, y = rng.standard_normal((2, 200, 2))
    scale = np.array([1.0, 2.0**20])
    assert c2st(x, y + 0.5) == c2st(x * scale, (y + 0.5) * scale)


def test_bad_input_is_named(rng):
    x = rng.standard_normal((100, 2))
    with pytest.raises(ValueError, match="must be"):
        c2st(x, x[:, :1])
    with pytest.raises(ValueError, match="too few"):
        c2st(x[:20], x)
    with pytest.raises(ValueError, match="y holds"):
        c2st(x, np.where(x > 2, np.nan, x) * np.inf)
