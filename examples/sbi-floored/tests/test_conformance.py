import numpy as np
import pytest

from sbi_core.testing import CombinerChecks, ExactEstimator, LinearGaussian, PluginChecks
from sbi_floored.combiner import FlooredCombiner, FlooredConfig


class TestFloored(PluginChecks):
    plugin = "floored"
    # the rule is for Gaussian posteriors
    without = ("combiner-floored-a-shared-scatter-is-combined",)


class TestWithoutFloor(CombinerChecks):
    exact = True

    def make(self):
        return FlooredCombiner(FlooredConfig(floor=0.0))


def test_a_high_floor_is_no_longer_the_posterior():
    high = CombinerChecks.of(lambda: FlooredCombiner(FlooredConfig(floor=0.3)))
    with pytest.raises(AssertionError, match="divides-the-prior-out"):
        high.run()


def test_the_error_stops_at_the_floor():
    objects = LinearGaussian().objects(3000, off=1.0, seed=1)
    got = FlooredCombiner(FlooredConfig(floor=0.1)).combine(ExactEstimator.trained(), objects)
    assert np.sqrt(np.diag(got.z_cov)).min() > 0.1
