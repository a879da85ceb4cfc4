import numpy as np
import pytest

from sbi_core.testing import ConformanceError, ExactEstimator, LinearGaussian, check_combiner
from sbi_floored.combiner import FlooredCombiner, FlooredConfig


@pytest.mark.sbi_plugin("floored")
def test_conformance(sbi_check):
    sbi_check()


def test_without_floor_it_is_exact():
    check_combiner(lambda: FlooredCombiner(FlooredConfig(floor=0.0)), exact=True)


def test_a_high_floor_is_no_longer_the_posterior():
    with pytest.raises(ConformanceError, match="divides-the-prior-out"):
        check_combiner(lambda: FlooredCombiner(FlooredConfig(floor=0.3)))


def test_the_error_stops_at_the_floor():
    objects = LinearGaussian().objects(3000, off=1.0, seed=1)
    got = FlooredCombiner(FlooredConfig(floor=0.1)).combine(ExactEstimator.trained(), objects)
    assert np.sqrt(np.diag(got.z_cov)).min() > 0.1
