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
# # Five minutes to a posterior
#
# A source fades: its flux is $A\,e^{-t/\tau}$ at ten times, with Gaussian noise of 0.05. The
# posterior of amplitude and time scale follows from simulations alone.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

import sbi_core

TIMES = np.linspace(0, 3, 10)


def observed(theta, rng):
    amplitude, scale = theta.T[:, :, None]
    flux = amplitude * np.exp(-TIMES / scale)
    return flux + 0.05 * rng.standard_normal(flux.shape)


# %% [markdown]
# ## Simulate and train
#
# `theta` holds the parameters, one row per simulation, drawn from the prior; `x` holds the data.

# %%
prior = {"amplitude": stats.uniform(0.5, 1.5), "scale": stats.uniform(0.3, 2.7)}
rng = np.random.default_rng(1)
theta = np.column_stack([p.rvs(5000, random_state=rng) for p in prior.values()])
x = observed(theta, rng)

posterior = sbi_core.fit(theta, x, prior, preset="quick", quiet=True)
posterior

# %% [markdown]
# ## Test it
#
# A tenth of the simulations was held out. If the posterior is calibrated, its 68 % intervals
# contain the true value of 68 % of them, and the p-values of the ranks (SBC) are not small.

# %%
posterior.calibrate(quiet=True)

# %% [markdown]
# ## Use it
#
# One observation, whose true parameters are known here:

# %%
truth = np.array([[1.3, 1.1]])
data = observed(truth, np.random.default_rng(2))

samples = posterior.sample(data, 4000)
samples

# %%
sbi_core.plot.corner(samples, truth=truth[0])

# %% [markdown]
# Other data need no new training. Here are the data with the light curves of fifty draws:

# %%
fig, ax = plt.subplots(figsize=(6, 3.5))
for amplitude, scale in samples.of()[:50]:
    ax.plot(TIMES, amplitude * np.exp(-TIMES / scale), color="0.8", lw=0.8)
ax.errorbar(TIMES, data[0], 0.05, fmt="o", color="C0")
ax.set(xlabel="time", ylabel="flux")
plt.show()

# %% [markdown]
# `posterior.log_prob(theta, x)` is the log density, `posterior.report("report.html", data)` writes
# all tests and figures into one file, and `posterior.save("runs/fading")` keeps everything for
# `sbi_core.load_run`. [Your own simulations](your-own-simulations.py) has files, groups, noise and
# gaps.
