# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Combine a thousand objects
#
# Stars of a cluster share its distance modulus and differ in luminosity. Every star alone hardly
# constrains the modulus; a thousand together do. How good is the error bar of the combination?

# %%
# %matplotlib inline
import sys

import matplotlib.pyplot as plt
import numpy as np
import torch

import sbi_core
from sbi_core import Batch, Observable, Parameter, ParameterSpace, Prior, Simulator, hookimpl

MODULUS = Prior("normal", {"loc": 10, "scale": 1})
LUMINOSITY = Prior("uniform", {"low": 3, "high": 8})


class Cluster(Simulator):
    name = "cluster"
    version = "1"
    parameters = ParameterSpace(
        (
            Parameter("modulus", MODULUS, unit="mag", scope="global"),
            Parameter("abs_mag", LUMINOSITY, unit="mag", scope="local"),
        )
    )
    observables = (Observable("mag", unit="mag"), Observable("colour", unit="mag"))
    default_error = 0.2

    def simulate(self, theta, rng):
        modulus, abs_mag = np.asarray(theta, float).T
        x = np.stack([abs_mag + modulus, 0.3 + 0.15 * abs_mag**1.2], axis=1)
        return Batch(x=torch.as_tensor(x, dtype=torch.float32), theta=theta)


PIPELINE = """
[base]
combiner = { name = "simulated-moments" }
combine = { sizes = [1, 10, 100], calibration_groups = 40, compare = ["gaussian"] }

[presets.quick]
simulate = { n = 10000, executor = "serial" }
train = { epochs = 10 }
diagnose = { objects = 300, draws = 300 }
"""


@hookimpl
def register_simulators(register):
    register("cluster", Cluster)


@hookimpl
def register_pipelines(register):
    register("cluster", lambda: PIPELINE)


# %% [markdown]
# `scope="global"` marks the parameter that all stars share. A run trains on single stars, and
# tests the combination on simulated clusters.

# %%
registry = sbi_core.Registry([], extra={"cluster": sys.modules[__name__]})
run = sbi_core.run("cluster", preset="quick", out="runs/cluster", registry=registry)
run

# %% [markdown]
# ## A cluster of a thousand stars
#
# Its modulus, 11.3, is not the prior mean: there, an error in the treatment of the prior would
# hide.

# %%
rng = np.random.default_rng(1)
theta = np.column_stack([np.full(1000, 11.3), rng.uniform(3, 8, 1000)])
stars = run.simulator.observe(run.simulator.simulate(theta, rng), rng).x.numpy()

results = {n: run.combine(stars[:n]) for n in (1, 10, 100, 1000)}
results[1000]

# %%
n = list(results)
mean = np.array([r.mean[0] for r in results.values()])
sd = np.array([r.sd[0] for r in results.values()])
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
left.errorbar(n, mean, sd, fmt="o", label="combined")
left.axhline(11.3, color="k", lw=0.8, label="truth")
left.set(xscale="log", xlabel="stars", ylabel="modulus [mag]")
left.legend()
right.loglog(n, sd, "o-")
right.loglog(n, sd[1] * np.sqrt(10 / np.array(n)), "k:", label="$1/\\sqrt{N}$")
right.set(xlabel="stars", ylabel="standard deviation [mag]")
right.legend()
plt.show()
# %% [markdown]
# ## Is the error bar right?
#
# The run combined simulated clusters of 1, 10 and 100 stars with moduli from the prior. The actual
# error divided by the quoted one has an rms of 1 if the combination is calibrated:

# %%
left, right = sbi_core.plot.combined_calibration(run.report["combined_calibration"])
left.figure

# %% [markdown]
# [](../calibration.md) explains the rules, [](../error-bars.md) the errors of the model itself,
# which do not average out.
