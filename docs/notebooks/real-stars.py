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
# # Real stars
#
# Abundances of 79 solar twins (Bedell et al. 2018) tell about the slope of the initial mass
# function above one solar mass, if the stellar yields are known. The table is read from the folder
# of reference data in `SBI_DATA_DIR`; without it, the notebook uses as many mock stars.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt

import sbi_core

run = sbi_core.run(
    "chempy",
    preset="quick",
    out="runs/chempy",
    overrides={"combiner.groups": 400, "combine.calibration_groups": 5, "combine.sizes": [1, 100]},
)
run

# %% [markdown]
# ## The stars
#
# The columns of the table are named by ions and hold [X/H]; `simulator.bare_columns` says so.

# %%
file = Path(os.environ.get("SBI_DATA_DIR", "."), "stars", "bedell18_solar_twins.csv")
if file.is_file():
    run = sbi_core.load_run("runs/chempy", overrides=["simulator.bare_columns=x_h"])
    stars = run.observations(file)
else:
    stars = run.simulator.example_observations(rng=1, n=79)
stars

# %% [markdown]
# ## Two error bars
#
# `group-moments` marginalises the uncertainties of the yields, of birth times, zero points and
# outliers. `simulated-moments` takes the model as exactly right.

# %%
both = {name: run.combine(stars, name) for name in ("group-moments", "simulated-moments")}
both["group-moments"]

# %%
both["simulated-moments"]

# %%
fig, ax = plt.subplots(figsize=(6, 3.5))
for colour, (name, result) in zip(("C0", "C1"), both.items(), strict=True):
    ax.errorbar(*result.mean, *result.sd[::-1], fmt="o", color=colour, capsize=3, label=name)
ax.set(xlabel="IMF slope", ylabel="log10 SN Ia rate")
ax.legend()
print("without a result:", [e.reason for e in both["group-moments"].excluded])

# %% [markdown]
# No published set of yields makes real stars with this model, so the small error bar does not
# hold: the result says so. [](../real-stars.md) has three samples with a `standard` run.
