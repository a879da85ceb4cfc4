"""Plugin ``images``: flux, size and ellipticity of a galaxy from an image of 24 x 24 pixels.

The galaxy is Gaussian, somewhere near the middle, at any angle; the noise is that of its photons
and of the sky.
"""

import numpy as np
import torch

from sbi_core import Batch, Parameter, ParameterSpace, Prior, Simulator, hookimpl, torch_generator

SIZE, SKY = 24, 20.0  # pixels; photons per pixel
PIPELINE = """
[base]
embedding = { name = "cnn" }
estimator = { name = "nsf", parameters = "all" }

[presets.quick]
simulate = { n = 20000, executor = "serial" }
train = { epochs = 8, batch_size = 128 }
diagnose = { objects = 300, draws = 300 }
infer = { n_example = 3, draws = 300 }

[presets.standard]
simulate = { n = 30000 }
"""


class Images(Simulator):
    """Images of elliptical Gaussians, in photons above the sky."""

    name = "images"
    version = "1"
    parameters = ParameterSpace(
        (
            Parameter("log_flux", Prior("uniform", {"low": 3, "high": 5}), unit="dex"),
            Parameter("size", Prior("loguniform", {"low": 1, "high": 4}), unit="pix"),
            Parameter("ellipticity", Prior("uniform", {"low": 0, "high": 0.7})),
        )
    )
    observables = ()
    default_error = None

    def simulate(self, theta, rng):
        log_flux, size, ellipticity = np.asarray(theta, float).T[:, :, None, None]
        dx, dy, angle = rng.uniform([-1, -1, 0], [1, 1, np.pi], (len(theta), 3)).T[:, :, None, None]
        y, x = np.indices((SIZE, SIZE)) - (SIZE - 1) / 2
        along = (x - dx) * np.cos(angle) + (y - dy) * np.sin(angle)
        across = (y - dy) * np.cos(angle) - (x - dx) * np.sin(angle)
        axis = 1 - ellipticity
        profile = np.exp(-(along**2 * axis + across**2 / axis) / (2 * size**2))
        image = 10**log_flux / (2 * np.pi * size**2) * profile
        return Batch(x=torch.as_tensor(image[:, None], dtype=torch.float32), theta=theta)

    def observe(self, batch, rng):
        expected = batch.x.clamp(min=0) + SKY
        photons = torch.poisson(expected, generator=torch_generator(rng, batch.x.device))
        return batch.with_(x=(photons - SKY) / SKY**0.5)


@hookimpl
def register_simulators(register):
    register("images", Images, summary="images of galaxies")


@hookimpl
def register_pipelines(register):
    register("images", lambda: PIPELINE, summary="image -> flux, size, ellipticity")
