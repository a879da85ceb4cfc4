import numpy as np
import pytest
import torch

from sbi_core.adapters.sbi_diagnostics import lc2st, mmd
from sbi_core.errors import ConfigError

N = 300
FAST = {"hidden_layer_sizes": (8,), "max_iter": 30, "learning_rate_init": 0.02}


@pytest.fixture
def model(rng):
    """theta ~ N(0, 1), x ~ N(theta, 1); posterior N(x/2, 1/2)."""
    theta = rng.standard_normal((N, 1))
    x = theta + rng.standard_normal((N, 1))

    def draw(x, shift=0.0):
        return x / 2 + np.sqrt(0.5) * (shift + rng.standard_normal(x.shape))

    return theta, x, draw


@pytest.mark.filterwarnings("ignore")
def test_a_local_fault_is_seen_and_the_exact_posterior_accepted(model):
    theta, x, draw = model
    x_o = np.full((100, 1), 0.5)

    def p(shift):
        found = lc2st(
            theta, x, draw(x, shift), draw(x_o, shift), x_o[0], trials=12, classifier=FAST
        )
        return found.p

    assert p(0.0) > 0.01  # false alarms: about 8 %, the smallest p of 12 trials; seed fixed
    assert p(1.5) < 0.05


@pytest.mark.filterwarnings("ignore")
def test_global_generators_are_left_alone(model):
    theta, x, draw = model
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    lc2st(theta[:50], x[:50], draw(x[:50]), draw(x[:50]), x[0], trials=1, classifier=FAST)
    assert torch.rand(1) == want


def test_mmd_accepts_equal_sets_and_rejects_a_shift(rng):
    x, y = rng.standard_normal((2, 200, 2))
    assert mmd(x, y, permutations=50).p > 0.01  # false alarms: below 2 %, seed fixed
    moved = mmd(x, y + 0.5, permutations=50)
    assert moved.p < 0.05
    assert moved.mmd2 > 0
    assert mmd(x, y + 0.5, permutations=50) == moved


def test_bad_input_is_named(model):
    theta, x, draw = model
    with pytest.raises(ConfigError, match="do not fit"):
        lc2st(theta, x[:5], theta, theta, x[0])
    with pytest.raises(ConfigError, match="y must be finite"):
        mmd(x, x * np.nan)
    with pytest.raises(ConfigError, match="same columns"):
        mmd(x, np.zeros((5, 2)))
