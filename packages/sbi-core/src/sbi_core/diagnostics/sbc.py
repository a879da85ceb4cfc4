r"""Simulation-based calibration: ranks of the truth among posterior draws.

For :math:`\theta^*_b \sim p(\theta)`, :math:`x_b \sim p(x \mid \theta^*_b)` and draws
:math:`\theta_{sb} \sim q(\theta \mid x_b)`, :math:`s = 1..S`, the rank

.. math:: r_b = \#\{s : \theta_{sb} < \theta^*_b\} \in \{0, \dots, S\}

is uniform if :math:`q` is the posterior. Uniform ranks are necessary, not sufficient: the prior
returned as the posterior has uniform ranks too, see :mod:`sbi_core.diagnostics.tarp`.

The test of uniformity is Kolmogorov and Smirnov's, with its p-value computed for the *discrete*
uniform distribution on :math:`S+1` values: the number of ranks up to :math:`k` is a binomial
process, and the probability that it stays within given bounds at all :math:`k` follows from one
pass over :math:`k`. The same pass gives the simultaneous bands for plots.

References:
    | Talts et al. 2018, "Validating Bayesian inference algorithms with simulation-based
      calibration", arXiv:1804.06788
    | Säilynoja, Bürkner & Vehtari 2022, "Graphical test for discrete uniformity and its
      applications in goodness-of-fit evaluation", arXiv:2103.10522
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from sbi_core.diagnostics._ranks import Cells, FloatArray, IntArray, below_and_equal, rank_with_ties

__all__ = ["EcdfBand", "sbc_ecdf", "sbc_ecdf_band", "sbc_ranks", "sbc_uniformity"]

# Below this the (rigorous) bound of Dvoretzky, Kiefer, Wolfowitz and Massart is returned: the exact
# value of so small a p is not needed, and its computation is slow for large deviations.
_TINY_P = 1e-10


@dataclass(frozen=True, slots=True)
class EcdfBand:
    """Simultaneous band of an ECDF of uniform ranks.

    Attributes
    ----------
    t : (K,)
        Values of the uniform CDF, in (0, 1).
    lower, upper : (K,)
        The ECDF stays between them at all ``t`` together with probability ``level``.
    level : float
    """

    t: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    level: float


def sbc_ranks(samples: FloatArray, theta: FloatArray, rng: np.random.Generator) -> IntArray:
    """Rank of every truth among its draws, ties broken at random.

    Parameters
    ----------
    samples : (S, B, d)
        S draws for each of B objects.
    theta : (B, d)
        The truths that generated the objects, drawn from the prior.
    rng : numpy.random.Generator
        Breaks ties. Without ties the result does not depend on it.

    Returns
    -------
    (B, d) integers in 0..S

    Raises
    ------
    ValueError
        If shapes do not fit or a value is not finite.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> samples = np.arange(5.0).reshape(5, 1, 1)
    >>> sbc_ranks(samples, np.array([[2.5]]), rng)
    array([[3]])
    """
    return rank_with_ties(*below_and_equal(samples, theta), rng)


def sbc_uniformity(ranks: IntArray, draws: int) -> NDArray[np.float64]:
    r"""p-value of the Kolmogorov-Smirnov test of uniform ranks, one per quantity.

    .. math:: D = \max_{k<S} \left|\frac{\#\{b : r_b \le k\}}{B} - \frac{k+1}{S+1}\right| ,
       \qquad p = P(D' \ge D \mid \text{ranks uniform on } 0..S).

    Parameters
    ----------
    ranks : (B, ...)
        Ranks of B objects; one quantity per further index.
    draws : int
        S, the number of draws the ranks were counted among.

    Returns
    -------
    (...)
        p-values, exact for discrete ranks. Where the bound :math:`2\exp(-2BD^2)` is below 1e-10
        that bound is returned.

    Notes
    -----
    Testing d quantities at once, compare the smallest p with 0.01/d.
    """
    ranks = _checked(ranks, draws)
    t = _cdf(draws)
    flat = ranks.reshape(len(ranks), -1)
    p = [_ks_p_value(_ecdf(column, draws) - t, t, len(ranks)) for column in flat.T]
    return np.array(p).reshape(ranks.shape[1:])


def sbc_ecdf(ranks: IntArray, draws: int, t: FloatArray) -> NDArray[np.float64]:
    """Empirical CDF of ranks at the points ``t``, for plotting.

    Parameters
    ----------
    ranks : (B, ...)
    draws : int
    t : (K,)
        Points in [0, 1], for example ``EcdfBand.t``.

    Returns
    -------
    (K, ...)
        Every rank is spread evenly over its cell; its expectation is ``t`` if ranks are uniform.
    """
    ranks = _checked(ranks, draws)
    cells = Cells.of_ranks(ranks, ranks, draws)
    return np.array([cells.fraction(0.0, float(stop)).mean(axis=0) for stop in t])


def sbc_ecdf_band(n: int, draws: int, level: float = 0.95, *, points: int = 100) -> EcdfBand:
    """Simultaneous band of the ECDF of ``n`` uniform ranks.

    Parameters
    ----------
    n : int
        Number of objects B.
    draws : int
        S.
    level : float
        Probability that a calibrated ECDF stays inside everywhere.
    points : int
        Largest number of points along the axis.

    Returns
    -------
    EcdfBand
        Subtract ``t`` from all of it for the (more readable) ECDF difference plot.

    Notes
    -----
    Source: Säilynoja et al. 2022. Pointwise binomial intervals of one common probability, chosen
    such that the probability of leaving any of them is ``1 - level``.
    """
    t = _cdf(draws)
    t = t[np.unique(np.linspace(0, len(t) - 1, min(points, len(t))).round().astype(int))]

    def interval(tail: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        lower = stats.binom.ppf(tail, n, t)
        upper = stats.binom.isf(tail, n, t)
        return lower.astype(np.int64), upper.astype(np.int64)

    # The tail of one point lies between (1-level)/(2K), by Bonferroni, and (1-level)/2.
    low, high = np.log((1 - level) / (2 * len(t))), np.log((1 - level) / 2)
    for _ in range(30):
        middle = (low + high) / 2
        if _stay_probability(*interval(np.exp(middle)), t, n) >= level:
            low = middle
        else:
            high = middle
    lower, upper = interval(np.exp(low))
    return EcdfBand(t=t, lower=lower / n, upper=upper / n, level=level)


# ----------------------------------------------------------------------------------- internals


def _checked(ranks: IntArray, draws: int) -> IntArray:
    ranks = np.asarray(ranks)
    if not np.issubdtype(ranks.dtype, np.integer):
        raise ValueError(f"ranks must be integers, not {ranks.dtype}")
    if len(ranks) == 0:
        raise ValueError("no ranks")
    if ranks.min() < 0 or ranks.max() > draws:
        raise ValueError(f"ranks among {draws} draws lie in 0..{draws}")
    return ranks


def _cdf(draws: int) -> NDArray[np.float64]:
    """CDF of a uniform rank at 0..S-1 (at S it is 1)."""
    return np.arange(1, draws + 1) / (draws + 1)


def _ecdf(ranks: IntArray, draws: int) -> NDArray[np.float64]:
    return np.cumsum(np.bincount(ranks, minlength=draws + 1))[:-1] / len(ranks)


def _ks_p_value(deviation: NDArray[np.float64], t: NDArray[np.float64], n: int) -> float:
    """P(max |ECDF - t| >= the one seen) for n ranks on the grid t."""
    largest = float(np.abs(deviation).max())
    bound = 2.0 * np.exp(-2.0 * n * largest**2)
    if bound < _TINY_P:
        return float(bound)
    # Strictly inside; 1e-9 absorbs the rounding of n*t, which is an integer at a tie.
    lower = np.floor(n * (t - largest) + 1e-9).astype(np.int64) + 1
    upper = np.ceil(n * (t + largest) - 1e-9).astype(np.int64) - 1
    return float(np.clip(1.0 - _stay_probability(lower, upper, t, n), 0.0, 1.0))


def _stay_probability(
    lower: NDArray[np.int64],
    upper: NDArray[np.int64],
    t: NDArray[np.float64],
    n: int,
) -> float:
    """P(lower_k <= N(t_k) <= upper_k for all k) for N(t) the count of n uniforms below t.

    N is a Poisson process of rate n given that its total is n: so convolve with Poisson steps,
    cut to the window after each, and divide by P(total = n).
    """
    lower, upper = np.maximum(lower, 0), np.minimum(upper, n)
    if (lower > upper).any():
        return 0.0
    steps = np.diff(t, prepend=0.0)
    weights, first = np.ones(1), 0  # weights[i] = P(inside so far, N = first + i)
    for low, high, step in zip(lower.tolist(), upper.tolist(), steps.tolist(), strict=True):
        weights = np.convolve(weights, _poisson(n * step))[max(low - first, 0) : high - first + 1]
        first = max(low, first)
        if not weights.size:
            return 0.0
    rest = n - (first + np.arange(weights.size))
    total = weights @ stats.poisson.pmf(rest, n * (1.0 - t[-1]))
    return float(total / stats.poisson.pmf(n, n))


def _poisson(mean: float) -> NDArray[np.float64]:
    """Poisson probabilities of 0, 1, ... up to where they are below rounding."""
    count = np.arange(int(mean + 10.0 * np.sqrt(mean) + 20.0))
    return np.asarray(np.exp(count * np.log(mean) - mean - special.gammaln(count + 1.0)))
