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
# # Photometry
#
# From seven fluxes (GALEX and SDSS) and the redshift, `sedflow` infers mass, star formation and
# dust of every galaxy of a catalogue. This notebook trains a small run.

# %%
import matplotlib.pyplot as plt
import numpy as np
from astropy.table import Table

import sbi_core

run = sbi_core.run(
    "sedflow", preset="quick", out="runs/sedflow", overrides={"analysis.refine": "none"}
)
run

# %% [markdown]
# ## A catalogue
#
# Any table with a redshift and AB magnitudes (or fluxes with a unit) will do. Missing bands are
# empty.

# %%
catalogue = Table(
    {
        "id": ["red", "blue", "no GALEX"],
        "z": [0.05, 0.05, 0.05],
        "mag_F": [21.8, 18.6, np.nan],
        "mag_N": [20.9, 18.2, np.nan],
        "mag_u": [18.4, 17.3, 17.3],
        "mag_g": [16.6, 16.4, 16.4],
        "mag_r": [15.8, 16.0, 16.0],
        "mag_i": [15.4, 15.8, 15.8],
        "mag_z": [15.1, 15.7, 15.7],
    }
)
for band in "FNugriz":
    catalogue[f"mag_err_{band}"] = np.where(np.isnan(catalogue[f"mag_{band}"]), np.nan, 0.05)

samples = run.infer(catalogue, draws=1000)
columns = ("logmstar", "sfr_1gyr", "tau_ism")
samples.summary()["id", *(f"{c}_{s}" for c in columns for s in ("p16", "p50", "p84")), "flags"]

# %%
fig, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
for name, label, ax in zip(
    columns,
    (
        r"$\log M_\star / M_\odot$",
        r"$\log$ SFR of the last Gyr [$M_\odot$/yr]",
        r"$\tau_{\rm ISM}$",
    ),
    axes,
    strict=True,
):
    for k, galaxy in enumerate(samples.id):
        values = samples[name][:, k]
        if name == "sfr_1gyr":
            values = np.log10(np.maximum(values, 1e-3))
        ax.hist(values, 40, histtype="step", density=True, label=str(galaxy))
    ax.set_xlabel(label)
axes[0].legend()
plt.show()

# %% [markdown]
# The red galaxy is more massive and forms fewer stars. Dust and star formation are degenerate, so
# their posteriors are wide even with seven bands. [](../sedflow.md) has the catalogues that are
# read, other bands, the refinement with the exact likelihood, and flags.
