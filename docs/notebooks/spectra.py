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
# # Spectra
#
# From one optical spectrum of a galaxy, `sfh` infers when 10, 20 … 90 % of its stars had formed,
# and the metallicity. This notebook trains a small run on mock spectra.

# %%
import matplotlib.pyplot as plt
import numpy as np

import sbi_core

run = sbi_core.run(
    "sfh",
    preset="quick",
    out="runs/sfh",
    overrides={"simulate.n": 4000, "train.epochs": 25, "diagnose.objects": 200},
)
run

# %% [markdown]
# ## Two galaxies
#
# Mock spectra, whose histories are known. For your own, give a file:
# `run.observations("spectra.fits")`.

# %%
galaxies = run.simulator.example_observations(rng=3, n=2)
samples = run.infer(galaxies, draws=1000)
samples.summary()["id", "t50_p16", "t50_p50", "t50_p84", "mh_p50", "flags"]

# %%
wave, flux = run.simulator.wave, galaxies.batch.x.numpy()
steps = [f"t{k}0" for k in range(1, 10)]
truth = galaxies.batch.theta.numpy()
names = list(run.simulator.parameters.names)

fig, axes = plt.subplots(2, 2, figsize=(9, 5), width_ratios=[2, 1], layout="constrained")
for k, (left, right) in enumerate(axes):
    left.plot(wave, flux[k], lw=0.5)
    left.set(ylabel="flux / median")
    low, middle, high = np.percentile([samples[s][:, k] for s in steps], [16, 50, 84], axis=1)
    share = np.arange(10, 100, 10)
    right.fill_betweenx(share, low, high, alpha=0.3, lw=0)
    right.plot(middle, share, label="posterior")
    right.plot([truth[k, names.index(s)] for s in steps], share, "k--", label="truth")
    right.set(ylabel="stars formed [%]", xlim=(0, 13.5))
axes[1, 0].set_xlabel("rest wavelength, air [Å]")
axes[1, 1].set_xlabel("cosmic time [Gyr]")
axes[0, 1].legend()
plt.show()

# %% [markdown]
# A few thousand spectra are a first look. [](../sfh-tutorial.md) has the presets, the formats of
# surveys, and the libraries for real galaxies.
