r"""The error of single-object posteriors, learned from simulated groups.

In unconstrained space, where the prior is N(0, I), N objects with precisions :math:`P_i` and
means :math:`\mu_i` have the summed score and its precision

.. math:: s(\Lambda) = \sum_i P_i\mu_i - B\Lambda, \qquad B = \sum_i (P_i - I) = RR^T .

For exact Gaussian posteriors, :math:`r = R^{-1} s(\Lambda)` is N(0, I) at the true
:math:`\Lambda`. It is a sum over independent objects, so that in general

.. math:: r\,|\,\Lambda \sim N(\sqrt N\,g(\Lambda, f),\ V(\Lambda))

for all large N: *g* is the error of one object in units of its own width; it grows as
:math:`\sqrt N` when objects are combined. *f* are features of the group (mean error, observed
fraction). *g* is learned by Gaussian-process regression on simulated groups, which may have any
distribution of truths, with variance *u* where few were simulated; *V* is a polynomial. The
corrected posterior is the prior times
:math:`N(r;\ \sqrt N g,\ V + N u)`, found by Gauss-Newton steps.

References:
    | Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", ch. 2, 4.2, 5.4
    | Godambe 1960, Ann. Math. Stat. 31, 1208 (unbiased estimating equations)
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg
from torch import Tensor

from sbi_core.combiners.moments import Gaussian
from sbi_core.data.alignment import aligned
from sbi_core.rng import torch_defaults

__all__ = [
    "Correction",
    "Examples",
    "SmoothField",
    "fit_correction",
    "monomials",
    "normalised_score",
]

F64 = NDArray[np.float64]
_ROOT5 = np.sqrt(5.0)
_LINEAR = 0.1  # standard deviation of the coefficients of the linear part
_FOR_SCALES = 500  # examples that choose the length scales
_SPREAD = (0.3, 4.0)  # of the eigenvalues of V; 1 for exact posteriors
_STEPS = 12
_LARGEST_STEP = 1.0  # prior sigma
_SAME = 0.05  # prior sigma within which the uncertainty of g does not change


def normalised_score(likelihood: F64, information: F64, value: F64) -> F64:
    """Return r (n, d) at values (n, d), for B (n, d, d), positive definite, and sums (n, d)."""
    score = information - np.einsum("nij,nj->ni", likelihood, value)
    return np.asarray(np.linalg.solve(np.linalg.cholesky(likelihood), score[..., None])[..., 0])


@dataclass(frozen=True, slots=True)
class Examples:
    """Groups with known truth.

    Parameters
    ----------
    truth : (n, d)
        Unconstrained.
    features : (n, k)
        f of every group.
    score : (n, d)
        r / sqrt(N).
    n_objects : (n,)
        N.
    spread : (n, d, d)
        Estimate of V from the scatter between parts of the group.
    freedom : (n,)
        Degrees of freedom of that estimate.
    """

    truth: F64
    features: F64
    score: F64
    n_objects: F64
    spread: F64
    freedom: F64


class SmoothField:
    r"""Gaussian-process regression of one number on a few inputs.

    Covariance: Matern 5/2 with a length scale per input, plus a linear function. Unlike
    scikit-learn's, it has the gradient of the mean, which the Gauss-Newton steps need, and a
    prior on the scales.

    Parameters
    ----------
    x, y, noise
        Inputs (n, q), values (n,), variances of the values (n,).
    log_scales
        log amplitude and log length scales, (1 + q,).
    """

    def __init__(self, x: F64, y: F64, noise: F64, log_scales: F64) -> None:
        self.x, self.y, self.noise, self.log_scales = x, y, noise, log_scales
        kernel = self._kernel(x, x)[0] + np.diag(noise)
        self._root = linalg.cholesky(kernel, lower=True)
        self._weight = linalg.cho_solve((self._root, True), y)

    @classmethod
    @torch_defaults()
    def fit(cls, x: F64, y: F64, noise: F64, rng: np.random.Generator) -> SmoothField:
        """Choose the scales by marginal likelihood, on some of the examples."""
        some = rng.permutation(len(x))[:_FOR_SCALES]
        tx, ty, tn = (aligned(torch.as_tensor(a[some])) for a in (x, y, noise))
        middle = np.r_[np.log(max(float(y.std()), 1e-3)), np.full(x.shape[1], 0.7)]
        centre = torch.as_tensor(middle)
        scales = centre.clone().requires_grad_(True)
        optimizer = torch.optim.LBFGS([scales], max_iter=60, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            off = (tx[:, None] - tx[None]) / torch.exp(scales[1:])
            r = torch.sqrt(5 * (off**2).sum(-1) + 1e-12)
            kernel = torch.exp(2 * scales[0]) * (1 + r + r**2 / 3) * torch.exp(-r)
            kernel = kernel + _LINEAR**2 * (1 + tx @ tx.T) + torch.diag(tn)
            root = torch.linalg.cholesky(kernel)
            weight = torch.cholesky_solve(ty[:, None], root)[:, 0]
            value = 0.5 * ty @ weight + torch.log(torch.diagonal(root)).sum()
            # a broad prior keeps the scales of inputs that do not matter from running away
            value = value + 0.5 * (((scales - centre) / 1.5) ** 2).sum()
            value.backward()  # type: ignore[no-untyped-call]
            return torch.as_tensor(value)

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        found = scales.detach().numpy()
        return cls(x, y, noise, found if np.isfinite(found).all() else middle)

    def _kernel(self, a: F64, b: F64) -> tuple[F64, F64, F64]:
        """Return k (n, m), and for its derivative slope (n, m) and offsets (n, m, q)."""
        off = (a[:, None] - b[None]) / np.exp(self.log_scales[1:])
        r = _ROOT5 * np.sqrt((off**2).sum(-1))
        amplitude = np.exp(2 * self.log_scales[0] - r)
        k = amplitude * (1 + r + r**2 / 3) + _LINEAR**2 * (1 + a @ b.T)
        return k, -(5.0 / 3.0) * amplitude * (1 + r), off / np.exp(self.log_scales[1:])

    def __call__(self, x: F64) -> tuple[float, F64]:
        """Return value and gradient (q,) at one input (q,)."""
        k, slope, off = self._kernel(x[None], self.x)
        gradient = np.einsum("m,mq,m->q", slope[0], off[0], self._weight)
        gradient += _LINEAR**2 * (self._weight @ self.x)
        return float(k[0] @ self._weight), gradient

    def variance(self, x: F64) -> float:
        """Return the variance of the value at one input (q,)."""
        k = self._kernel(x[None], self.x)[0]
        white = linalg.solve_triangular(self._root, k[0], lower=True, check_finite=False)
        own = np.exp(2 * self.log_scales[0]) + _LINEAR**2 * (1 + x @ x)
        return float(max(own - white @ white, 0.0))


class Correction:
    """g and V of the module, and the corrected posterior.

    Parameters
    ----------
    fields
        g, one per shared parameter.
    spread
        Coefficients of V, (terms, d * d).
    centre, scale
        Centre and scale of the features, (k,).
    domain
        Smallest and largest truths that were simulated, (2, d).
    """

    def __init__(
        self, fields: list[SmoothField], spread: F64, centre: F64, scale: F64, domain: F64
    ) -> None:
        self.fields, self.spread = fields, spread
        self.centre, self.scale, self.domain = centre, scale, domain

    def error(self, value: F64, features: F64) -> tuple[F64, F64]:
        """Return g (d,) and its gradient (d, d) at one Lambda."""
        found = [field(self._input(value, features)) for field in self.fields]
        return np.array([f[0] for f in found]), np.stack([f[1][: len(value)] for f in found])

    def uncertainty(self, value: F64, features: F64) -> F64:
        """Return u (d,), the variance of g, at one Lambda."""
        return np.array([field.variance(self._input(value, features)) for field in self.fields])

    def unlike(self, features: F64, tolerance: float) -> bool:
        """Return True if the features of a group lie outside those of the training groups."""
        k = len(features)
        seen = self.fields[0].x[:, -k:] * self.scale + self.centre if k else np.empty((1, 0))
        low, high = seen.min(0) - tolerance, seen.max(0) + tolerance
        return bool(((features < low) | (features > high)).any())

    def _input(self, value: F64, features: F64) -> F64:
        return np.concatenate([value, (features - self.centre) / self.scale])

    def width(self, value: F64) -> F64:
        """Return V (d, d) at one Lambda; outside the simulated domain, at its edge."""
        d = len(value)
        inside = np.clip(value, *self.domain)
        v = (monomials(inside[None]) @ self.spread).reshape(d, d)
        return _bounded(0.5 * (v + v.T))

    def posterior(
        self, likelihood: F64, information: F64, n: int, features: F64, start: F64
    ) -> tuple[Gaussian, float]:
        """Return the corrected posterior, and its variance due to the uncertainty of g.

        Parameters
        ----------
        likelihood : (d, d)
            B, positive definite.
        information : (d,)
            Sum of P_i mu_i.
        n : int
            Number of objects.
        features : (k,)
            f of the group.
        start : (d,)
            Start of the search.

        Returns
        -------
        Gaussian
            In unconstrained space.
        float
            Variance that *u* adds, relative to the rest; the mean over parameters.
        """
        d = len(start)
        root = np.linalg.cholesky(likelihood)
        value, share = start.copy(), 0.0
        precision, u, seen = np.eye(d), np.zeros(d), np.full(d, np.inf)
        for _ in range(_STEPS):
            g, slope = self.error(value, features)
            if np.abs(value - seen).max() > _SAME:  # u varies slowly, and costs the most
                u, seen = self.uncertainty(value, features), value
            v = self.width(value)
            inverse = np.linalg.inv(v + n * np.diag(u))
            share = float(n * u.mean() / (np.trace(v) / d))
            off = np.linalg.solve(root, information - likelihood @ value) - np.sqrt(n) * g
            jacobian = -root.T - np.sqrt(n) * slope
            precision = np.eye(d) + jacobian.T @ inverse @ jacobian
            step = np.linalg.solve(precision, -jacobian.T @ inverse @ off - value)
            length = float(np.abs(step).max())
            value = value + step * min(1.0, _LARGEST_STEP / max(length, 1e-12))
            if length < 1e-6:
                break
        cov = np.linalg.inv(precision)
        return Gaussian(value, 0.5 * (cov + cov.T)), share

    def tensors(self) -> dict[str, Tensor]:
        """Return the state, for :meth:`from_tensors`."""
        arrays: dict[str, F64] = {
            "x": self.fields[0].x,
            "y": np.stack([f.y for f in self.fields]),
            "noise": np.stack([f.noise for f in self.fields]),
            "log_scales": np.stack([f.log_scales for f in self.fields]),
            "spread": self.spread,
            "centre": self.centre,
            "scale": self.scale,
            "domain": self.domain,
        }
        return {k: torch.as_tensor(np.ascontiguousarray(v)) for k, v in arrays.items()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Correction:
        """Build from the state that :meth:`tensors` returned."""
        a = {k: v.double().numpy() for k, v in tensors.items()}
        parts = zip(a["y"], a["noise"], a["log_scales"], strict=True)
        fields = [SmoothField(a["x"], y, noise, scales) for y, noise, scales in parts]
        return cls(fields, a["spread"], a["centre"], a["scale"], a["domain"])


def fit_correction(
    examples: Examples, rng: np.random.Generator
) -> tuple[Correction, dict[str, float]]:
    """Learn g and V.

    Returns
    -------
    Correction
        The learned correction.
    dict
        ``f``: root mean square of g, the error of one object in its own sigma;
        ``f_after``: standard error of the learned g; ``spread``: mean width of r.
    """
    n, d = examples.truth.shape
    centre = examples.features.mean(0)
    scale = examples.features.std(0)
    scale = np.where(scale > 1e-6, scale, 1.0)
    x = np.concatenate([examples.truth, (examples.features - centre) / scale], 1)
    spread = _fit_spread(examples)
    v = np.stack([_bounded(m.reshape(d, d)) for m in monomials(examples.truth) @ spread])
    noise = np.einsum("nii->ni", v) / examples.n_objects[:, None]
    fields = [SmoothField.fit(x, examples.score[:, k], noise[:, k], rng) for k in range(d)]
    domain = np.stack([examples.truth.min(0), examples.truth.max(0)])
    correction = Correction(fields, spread, centre, scale, domain)
    some = rng.permutation(n)[:200]
    where = [(examples.truth[k], examples.features[k]) for k in some]
    return correction, {
        "f": float(np.sqrt(np.mean([correction.error(*w)[0] ** 2 for w in where]))),
        "f_after": float(np.sqrt(np.mean([correction.uncertainty(*w) for w in where]))),
        "spread": float(np.sqrt(np.einsum("nii->ni", v).mean())),
    }


def _fit_spread(examples: Examples) -> F64:
    """Return the coefficients of V, by least squares with weights that follow V."""
    n, d = examples.truth.shape
    design, target = monomials(examples.truth), examples.spread.reshape(n, d * d)
    weight = examples.freedom.astype(np.float64)
    found = np.zeros((design.shape[1], d * d))
    for _ in range(4):
        root = np.sqrt(weight)[:, None]
        # a little ridge: the mean of V is 1 without evidence for more
        ridge = np.eye(design.shape[1])
        ridge[0, 0] = 0.0
        system = np.concatenate([design * root, ridge])
        right = np.concatenate([target * root, np.zeros((len(ridge), d * d))])
        found = np.linalg.lstsq(system, right, rcond=None)[0]
        trace = np.stack([_bounded(m.reshape(d, d)).trace() for m in design @ found]) / d
        weight = examples.freedom / trace**2  # variances scatter in proportion to themselves
    return np.asarray(found)


def _bounded(v: F64) -> F64:
    values, vectors = np.linalg.eigh(v)
    return np.asarray(vectors @ np.diag(np.clip(values, *_SPREAD)) @ vectors.T)


def monomials(x: F64, degree: int = 2) -> F64:
    """Return the monomials of x (n, d) up to a total degree, (n, terms); the constant first."""
    exponents = [
        e for e in itertools.product(range(degree + 1), repeat=x.shape[1]) if sum(e) <= degree
    ]
    return np.stack([np.prod(x ** np.array(e), axis=1) for e in exponents], 1)
