r"""Diagnostics of the sbi package as functions of arrays.

*L-C2ST.* A classifier learns to tell :math:`(\theta_b, x_b)` of the simulator from
:math:`(\theta_b', x_b)` with :math:`\theta_b' \sim q(\theta \mid x_b)`. Its mean squared distance
from one half at draws of :math:`q(\theta \mid x_o)`,

.. math:: T(x_o) = \frac1S \sum_s \left(d(\theta_s, x_o) - \tfrac12\right)^2 ,

compared with its values for permuted labels, tests the posterior *at one observation*; SBC and
coverage test the average over observations.

*MMD.* With a Gaussian kernel k of the median distance,

.. math:: \mathrm{MMD}^2 = E\,k(x, x') + E\,k(y, y') - 2 E\,k(x, y) ,

is 0 if and only if the two distributions are equal.

References:
    | Linhart, Gramfort & Rodrigues 2023, "L-C2ST", arXiv:2306.03580
    | Gretton et al. 2012, "A kernel two-sample test", JMLR 13, 723
    | sbi, https://sbi.readthedocs.io
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sbi_core.adapters.sbi import importing_sbi
from sbi_core.errors import ConfigError
from sbi_core.rng import seeded

__all__ = ["LocalTest", "TwoSampleTest", "lc2st", "mmd"]

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LocalTest:
    """L-C2ST at one observation.

    Attributes
    ----------
    statistic
        Mean squared distance of the classifier from one half, 0 to 0.25.
    p
        Fraction of null trials with a statistic at least as large.
    """

    statistic: float
    p: float


@dataclass(frozen=True, slots=True)
class TwoSampleTest:
    """MMD of two samples.

    Attributes
    ----------
    mmd2
        Unbiased estimate of the squared MMD; may be slightly negative.
    p
        Fraction of permutations with an estimate at least as large.
    """

    mmd2: float
    p: float


def lc2st(
    theta: ArrayLike,
    x: ArrayLike,
    samples: ArrayLike,
    samples_o: ArrayLike,
    x_o: ArrayLike,
    *,
    trials: int = 100,
    seed: int = 1,
    classifier: Mapping[str, Any] | None = None,
) -> LocalTest:
    """Test q(theta | x_o) with simulations outside the training set (L-C2ST).

    Parameters
    ----------
    theta
        True parameters, drawn from the prior, (n, d).
    x
        Their noisy data, (n, m).
    samples
        One draw of q for each row of x, (n, d).
    samples_o
        Draws of q(theta | x_o), (S, d).
    x_o
        The observation, (m,) or (1, m).
    trials
        Number of trainings with permuted labels; p is a multiple of 1/trials.
    seed
        Seed of the classifiers.
    classifier
        Options of scikit-learn's ``MLPClassifier``, e.g. ``{"max_iter": 200}``.

    Raises
    ------
    ConfigError
        If shapes do not fit, a value is not finite, or sbi cannot be imported.
    """
    arrays = [_rows(v, n) for v, n in ((theta, "theta"), (x, "x"), (samples, "samples"))]
    drawn, at = _rows(samples_o, "samples_o"), _rows(np.atleast_2d(x_o), "x_o")
    sizes = [arrays[0].shape, arrays[2].shape]
    wide = drawn.shape[1] != sizes[0][1] or at.shape != (1, arrays[1].shape[1])
    if sizes[0] != sizes[1] or len(arrays[1]) != len(arrays[0]) or wide:
        msg = (
            f"theta {sizes[0]}, x {tuple(arrays[1].shape)}, samples {sizes[1]}, samples_o "
            f"{tuple(drawn.shape)} and x_o {tuple(at.shape)} do not fit together"
        )
        raise ConfigError(msg)
    with importing_sbi("lc2st"):
        from sbi.diagnostics.lc2st import LC2ST
    kwargs = None if classifier is None else dict(classifier)
    test = LC2ST(*arrays, seed=seed, z_score=True, num_trials_null=trials, classifier_kwargs=kwargs)
    # sbi permutes labels by numpy's and torch's global generators
    state = np.random.get_state()  # noqa: NPY002
    try:
        with seeded(seed):
            np.random.seed(seed)  # noqa: NPY002
            test.train_under_null_hypothesis(verbosity=0)
            test.train_on_observed_data(verbosity=0)
            statistic = float(test.get_statistic_on_observed_data(theta_o=drawn, x_o=at))
            p = float(test.p_value(theta_o=drawn, x_o=at))
    finally:
        np.random.set_state(state)  # noqa: NPY002
    return LocalTest(statistic, p)


def mmd(
    x: ArrayLike, y: ArrayLike, *, permutations: int = 200, rows: int = 500, seed: int = 1
) -> TwoSampleTest:
    """Squared maximum mean discrepancy of two samples, with a permutation test.

    Parameters
    ----------
    x, y
        Draws, data or summaries, (n, d) and (m, d). Columns are scaled by the spread of x.
    permutations
        Number of permutations; the smallest p is 1 / (permutations + 1).
    rows
        Largest number of rows of either sample, chosen at random: the cost grows as its square.
    seed
        Seed of this choice and of the permutations.

    Raises
    ------
    ConfigError
        If shapes do not fit, a value is not finite, or sbi cannot be imported.
    """
    a, b = _rows(x, "x"), _rows(y, "y")
    if a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        msg = f"x {tuple(a.shape)} and y {tuple(b.shape)} need the same columns, and two rows"
        raise ConfigError(msg)
    with importing_sbi("mmd"):
        from sbi.utils.metrics import unbiased_mmd_squared
    rng = np.random.default_rng(seed)
    scale = a.std(0)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    a, b = (v[torch.as_tensor(rng.permutation(len(v))[:rows])] / scale for v in (a, b))
    both = torch.cat([a, b])
    length = float(torch.pdist(both).median())
    length = length or 1.0
    observed = float(unbiased_mmd_squared(a, b, scale=length))
    larger = 0
    for _ in range(permutations):
        mixed = both[torch.as_tensor(rng.permutation(len(both)))]
        larger += float(unbiased_mmd_squared(mixed[: len(a)], mixed[len(a) :], length)) >= observed
    return TwoSampleTest(observed, (larger + 1) / (permutations + 1))


def _rows(values: ArrayLike, name: str) -> torch.Tensor:
    array = np.asarray(values, dtype=np.float32)
    if array.ndim != 2 or not np.isfinite(array).all():
        msg = f"{name} must be finite and of shape (rows, columns), got {array.shape}"
        raise ConfigError(msg)
    return torch.from_numpy(np.ascontiguousarray(array))
