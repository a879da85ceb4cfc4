"""A plugin whose data are images, from its requirements to the report."""

import numpy as np
import pytest
import sbi_images

from sbi_core.api import run
from sbi_core.registry import Registry
from sbi_core.testing import SimulatorChecks


class TestImages(SimulatorChecks):
    def make(self):
        return sbi_images.Images()


@pytest.mark.slow
def test_images_are_inferred(tmp_path):
    registry = Registry([], extra={"images": sbi_images})
    made = run("images", preset="quick", out=tmp_path / "run", registry=registry)
    assert (tmp_path / "run" / "report.html").is_file()
    theta = made.simulator.parameters.sample(200, rng=5)
    rng = np.random.default_rng(6)
    images = made.simulator.observe(made.simulator.simulate(theta, rng), rng).x.numpy()
    drawn = made.infer(images, draws=200)
    error = drawn.values.mean(0) - theta
    assert np.abs(error[:, 0]).mean() < 0.1  # of a prior 2 dex wide
    assert np.corrcoef(drawn["size"].mean(0), theta[:, 1])[0, 1] > 0.95
    assert np.corrcoef(drawn["ellipticity"].mean(0), theta[:, 2])[0, 1] > 0.8
