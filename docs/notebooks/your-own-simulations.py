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
# # Your own simulations
#
# Simulations often come as a file, in groups that share something, and with gaps. Here, light
# curves of ten points were simulated for 2000 galaxies, and some points are missing.

# %%
import matplotlib.pyplot as plt
import numpy as np

import sbi_core

rng = np.random.default_rng(1)
n, times = 8000, np.linspace(0, 3, 10)
galaxy = rng.integers(0, 2000, n)
amplitude, scale = rng.uniform(0.5, 2, n), rng.uniform(0.3, 3, n)
extinction = rng.normal(0, 0.1, 2000)[galaxy]  # shared by the simulations of a galaxy
flux = (amplitude * np.exp(-extinction))[:, None] * np.exp(-times / scale[:, None])
flux[rng.random(flux.shape) < 0.1] = np.nan

np.savez("simulations.npz", theta=np.column_stack([amplitude, scale]), x=flux, group=galaxy)

# %% [markdown]
# The prior is a table per parameter, in the order of the columns of `theta`:

# %%
prior = """
amplitude = { family = "uniform", low = 0.5, high = 2.0, unit = "mJy" }
scale = { family = "uniform", low = 0.3, high = 3.0, unit = "d" }
"""
with open("prior.toml", "w") as file:
    file.write(prior)

# %% [markdown]
# ## Train
#
# * The file has a `group`: no galaxy is in the training *and* in the test set.
# * The simulations have no noise yet. `noise` draws it anew in every epoch.
# * `nan="missing"`: the network learns to work with the points that were measured.

# %%
posterior = sbi_core.fit(
    "simulations.npz",
    prior="prior.toml",
    noise=0.05,
    nan="missing",
    preset="quick",
    quiet=True,
)
posterior

# %% [markdown]
# The command `sbi-run --simulations simulations.npz --prior prior.toml --set simulator.noise=0.05
# --set simulator.nan=missing` makes the same run with its report.
#
# The test takes one simulation of every galaxy that the training did not see, so that its
# simulations are independent:

# %%
posterior.calibrate(quiet=True)

# %% [markdown]
# ## Observed data
#
# Two sources; the second one lacks half of its points.

# %%
truth = np.array([[1.2, 0.8], [1.2, 0.8]])
seen = truth[:, :1] * np.exp(-times / truth[:, 1:]) + 0.05 * rng.standard_normal((2, 10))
seen[1, ::2] = np.nan
samples = posterior.sample(seen, 2000)
samples

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
for k, (name, ax) in enumerate(zip(samples.names, axes, strict=True)):
    for source, label in enumerate(("ten points", "five points")):
        ax.hist(samples[name][:, source], 40, histtype="step", density=True, label=label)
    ax.axvline(truth[0, k], color="k", lw=0.8)
    ax.set_xlabel(f"{name} [{samples.space.units[k]}]")
axes[0].legend()
plt.show()
# %% [markdown]
# ## Keep it
#
# The run directory holds everything but the simulations.

# %%
posterior.save("runs")
sbi_core.load_run("runs").posterior.log_prob(truth, seen)

# %% [markdown]
# [](../your-own-simulations.md) lists the files, the forms of arrays and the presets.
