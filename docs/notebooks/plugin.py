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
# # Write a plugin
#
# A plugin makes a simulator of yours as easy to run as the built-in ones. It needs two things: a
# class with parameters, observables and `simulate`, and presets.

# %%
# %matplotlib inline
import sys

import matplotlib.pyplot as plt
import numpy as np
import torch

import sbi_core
from sbi_core import Batch, Observable, Parameter, ParameterSpace, Prior, Simulator, hookimpl
from sbi_core.testing import SimulatorChecks

PHASES = np.linspace(-0.05, 0.05, 20)


class Transit(Simulator):
    """A planet of radius ratio r crosses its star in a time w: flux at 20 phases."""

    name = "boxtransit"
    version = "1"  # raise it when the same theta gives other data
    parameters = ParameterSpace(
        (
            Parameter("r", Prior("loguniform", {"low": 0.03, "high": 0.3}), label="r"),
            Parameter("w", Prior("uniform", {"low": 0.01, "high": 0.08}), unit="d", label="w"),
        )
    )
    observables = tuple(Observable(f"flux_{k}") for k in range(len(PHASES)))
    default_error = 0.002  # Gaussian noise, drawn anew in every epoch

    def simulate(self, theta, rng):
        r, w = np.asarray(theta, float).T[:, :, None]
        edge = 1 / (1 + np.exp((np.abs(PHASES) - w / 2) / 0.002))
        x = 1 - r**2 * edge
        return Batch(x=torch.as_tensor(x, dtype=torch.float32), theta=theta)


PIPELINE = """
[presets.quick]
simulate = { n = 5000, executor = "serial" }
embedding = { name = "mlp" }
estimator = { name = "nsf", parameters = "all" }
train = { epochs = 20 }
diagnose = { objects = 300, draws = 300 }

[presets.standard]
simulate = { n = 50000 }
"""

# %% [markdown]
# Two hooks register them. In a package they stand in a module that an entry point names; in a
# notebook, hand the module to a registry.


# %%
@hookimpl
def register_simulators(register):
    register("boxtransit", Transit, summary="box-shaped transits")


@hookimpl
def register_pipelines(register):
    register("boxtransit", lambda: PIPELINE, summary="light curve -> radius ratio, duration")


registry = sbi_core.Registry([], extra={"boxtransit": sys.modules[__name__]})
Transit.parameters

# %% [markdown]
# ## Test it
#
# `SimulatorChecks` holds every requirement on a simulator. A plugin's tests subclass it; here they
# run at once, and a failure names the remedy.

# %%
SimulatorChecks.of(Transit).run()

# %% [markdown]
# ## Run it

# %%
run = sbi_core.run("boxtransit", preset="quick", out="runs/transit", registry=registry)
run

# %%
rng = np.random.default_rng(1)
truth = np.array([[0.1, 0.04]])
curve = run.simulator.observe(run.simulator.simulate(truth, rng), rng).x.numpy()
samples = run.infer(curve, draws=2000)
sbi_core.plot.corner(samples, truth=truth[0])

# %%
fig, ax = plt.subplots(figsize=(6, 3))
drawn = run.simulator.simulate(samples.of()[:50], rng).x.numpy()
ax.plot(PHASES, drawn.T, color="0.8", lw=0.8)
ax.errorbar(PHASES, curve[0], 0.002, fmt="o", ms=4)
ax.set(xlabel="time from mid-transit [d]", ylabel="flux")
plt.show()

# %% [markdown]
# `sbi-run new-plugin NAME` writes a package with tests; [](../write-a-plugin.md) has options,
# noise, failures, and your own networks and rules.
