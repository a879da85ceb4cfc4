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
# # Halos
#
# From the stars of a halo in the [Fe/H]-[O/Fe] plane, `casbi` infers how many galaxies it
# accreted, and the mass and infall time of each. This notebook trains a small run.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np

import sbi_core
from sbi_casbi import figures, sample_members
from sbi_casbi.predictive import predictive_planes

run = sbi_core.run(
    "casbi",
    preset="quick",
    out="runs/casbi",
    overrides={
        "simulator.stems": 4000,
        "simulator.support_halos": 1000,
        "simulate.n": 3000,
        "diagnose.objects": 100,
    },
)
print("calibration:", run.report["calibration"]["verdict"])

# %% [markdown]
# So few simulations do not pass every test of calibration; the default preset does.
#
# ## Twelve halos
#
# Mock halos, made of galaxies that the training did not use. Your own halo is a table with one row
# per star: `run.observations("halo.fits")`.

# %%
halos = run.simulator.example_observations(rng=2, n=12)
sets, masks = halos.batch.theta_set, halos.batch.theta_mask
truths = [s[m].double().numpy() for s, m in zip(sets, masks, strict=True)]
members = sample_members(run.posterior, halos, draws=300)

low, middle, high = np.percentile(members.count, [16, 50, 84], axis=0)
number = [len(t) for t in truths]
fig, ax = plt.subplots(figsize=(4.5, 4))
ax.errorbar(number, middle, [middle - low, high - middle], fmt="o")
ax.plot([0, 100], [0, 100], "k", lw=0.8)
ax.set(xlabel="accreted galaxies", ylabel="inferred number")
plt.show()

# %% [markdown]
# ## One of them
#
# Expected number of members per cell of mass and infall time; circles are the true ones.

# %%
halo = halos[:1]
members = sample_members(run.posterior, halo, draws=300)
figures.mass_time_map(members, np.linspace(4.5, 10, 12), np.linspace(0, 14, 8), truths[0])

# %% [markdown]
# Observed plane, posterior prediction, and their difference:

# %%
planes = predictive_planes(run.simulator, members, halo.batch.x.numpy(), 20)
figures.planes(run.simulator.library, halo.batch.x[0].numpy(), planes[:, 0])

# %% [markdown]
# [](../casbi.md) has the format of your file, the flags, and your own library of galaxies.
