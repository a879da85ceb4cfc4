r"""Generator of the bases that ship with the package.

16,000 star-formation histories of unit mass on 50 lookback times are factorised as

.. math:: X \approx W H, \qquad W, H \ge 0

by multiplicative updates of the Kullback-Leibler divergence; the rows of H, sorted by their mean
lookback time and scaled to unit integral, are the bases. Histories (4000 each): delayed tau models,
log-normals, double power laws, and log-normals modulated by a Gaussian process (standard deviation
0.6 in the logarithm, scale 1.5 Gyr). A quarter of them, chosen at random, get a recent episode of
0.3-2 Gyr with 5-50 % of the mass, so that one basis covers the last gigayears. Metallicity
histories are :math:`Z_f [1 - \exp(-x/\tau_Z)]^a`, x the time since the first stars, plus constants.

``sbi-run sedflow bases --seed 1 --out FILE`` writes the file.

References:
    | Lee & Seung 2001, NIPS 13 (multiplicative updates)
    | Hahn et al. 2023, ApJ 945, 16 (the method, with simulated galaxies in place of these families)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import NMF

from sbi_core import stream, written
from sbi_sedflow.bases import Bases

__all__ = ["Z_TOP", "fit_bases", "histories", "metallicity_histories", "write_bases"]

F64 = NDArray[np.float64]
T_END = 13.7  # Gyr, oldest node
Z_TOP = 0.045  # Z that gamma = 1.5e-2 in both bases reaches
GAMMA_TOP = 1.5e-2
_EACH = 4000


def grid() -> F64:
    """Return the 50 lookback times [Gyr], evenly spaced."""
    return np.asarray(T_END * np.linspace(0.0, 1.0, 50))


def histories(rng: np.random.Generator, each: int = _EACH) -> F64:
    """Return 4 x ``each`` star-formation histories (n, 50) [1/Gyr], unit integral."""
    t = grid()
    start = rng.uniform(13.0, T_END, (4, each, 1))  # lookback time of the first stars
    x = np.maximum(start - t, 0.0)  # time since then
    tau = 10 ** rng.uniform(-0.8, 1.2, (each, 1))
    delayed = x[0] * np.exp(-x[0] / tau)
    lognormal = _lognormal(x[1], rng)
    peak = rng.uniform(0.3, 12.0, (each, 1))
    rise, fall = (10 ** rng.uniform(-0.5, 1.0, (each, 1)) for _ in range(2))
    ratio = np.maximum(x[2], 1e-3) / peak
    double = np.where(x[2] > 0, 1 / (ratio**fall + ratio**-rise), 0.0)
    cov = np.exp(-0.5 * ((t[:, None] - t) / 1.5) ** 2) + 1e-6 * np.eye(len(t))
    field = rng.standard_normal((each, len(t))) @ np.linalg.cholesky(cov).T
    modulated = _lognormal(x[3], rng) * np.exp(0.6 * field)
    sfh = np.concatenate([delayed, lognormal, double, modulated])
    sfh = sfh / np.maximum(np.trapezoid(sfh, t, axis=1), 1e-12)[:, None]
    recent = rng.random(len(sfh)) < 0.25
    length = rng.uniform(0.3, 2.0, (len(sfh), 1))
    mass = np.where(recent, rng.uniform(0.05, 0.5, len(sfh)), 0.0)[:, None]
    burst = np.exp(-0.5 * (t / length) ** 2)
    burst /= np.trapezoid(burst, t, axis=1)[:, None]
    return np.asarray((1 - mass) * sfh + mass * burst)


def _lognormal(x: F64, rng: np.random.Generator) -> F64:
    n = len(x)
    mode, width = rng.uniform(0.5, 14.0, (n, 1)), rng.uniform(0.2, 1.2, (n, 1))
    log = np.log(np.maximum(x, 1e-3) / mode)
    return np.asarray(np.where(x > 0, np.exp(-0.5 * (log / width) ** 2), 0.0))


def metallicity_histories(rng: np.random.Generator, n: int = _EACH) -> F64:
    """Return metallicity histories (n, 50), absolute Z up to 0.045."""
    t = grid()
    x = T_END - t
    final = 10 ** rng.uniform(-3.5, np.log10(Z_TOP), (n, 1))
    tau, power = 10 ** rng.uniform(-0.3, 1.0, (n, 1)), rng.uniform(0.3, 2.0, (n, 1))
    rising = final * (1 - np.exp(-x / tau)) ** power
    return np.asarray(np.where(rng.random((n, 1)) < 0.3, final, rising))


def fit_bases(seed: int = 1) -> Bases:
    """Return bases fitted to histories of that seed; takes some seconds.

    Raises
    ------
    ImportError
        If scikit-learn is not installed (extra ``bases``).
    """
    rng = stream(seed, "sedflow", "bases")
    t = grid()

    def factorise(x: F64, k: int) -> F64:
        model = NMF(
            k, init="nndsvda", solver="mu", beta_loss="kullback-leibler", max_iter=400, tol=2e-4,
            random_state=seed,
        )  # fmt: skip
        model.fit(x)
        return np.asarray(model.components_, np.float64)

    weights = np.gradient(t)  # weights: the length of each interval of time
    sfh = factorise(histories(rng) * weights, 4) / weights
    sfh /= np.trapezoid(sfh, t, axis=1)[:, None]
    sfh = sfh[np.argsort(np.trapezoid(sfh * t, t, axis=1))]
    zh = factorise(metallicity_histories(rng), 2)
    zh = zh[np.argsort(-zh[:, 0])]
    zh *= Z_TOP / GAMMA_TOP / zh.max(1, keepdims=True)
    return Bases(t, sfh, zh, {"name": "parametric-nmf", "seed": seed})


def write_bases(bases: Bases, path: str | Path, seed: int) -> Path:
    """Write bases as npz with the seed they came from; return the path."""
    path = Path(path)
    with written(path) as temporary, temporary.open("wb") as f:
        np.savez(f, time=bases.time, sfh=bases.sfh, zh=bases.zh, seed=np.array(seed))
    return path
