r"""Hierarchies with a shared scatter, and their exact posteriors (:mod:`ruler` measures on them).

Standardised supernovae: brightness, stretch and colour of each,

.. math:: m = M - \alpha x + \beta c + s\,\epsilon, \qquad x \sim N(0, 1),\ c \sim N(0, 0.1^2),\
          \epsilon \sim N(0, 1),

observed with errors that differ between objects and, partly, without stretch or colour. Shared are
M, :math:`\alpha`, :math:`\beta` and the intrinsic scatter s. The three values of an object are
normal given these, so that the likelihood of a group has a closed form; the exact moments come from
importance sampling with Student's t around the mode.

Mean plus scatter: :math:`y_i = \mu + s\,\epsilon_i`, observed with errors that differ between
objects. Given s, the mean has a closed form,

.. math:: \mu\,|\,s \sim N(h/P,\ 1/P), \qquad P = 1 + \sum_i w_i,\ h = \sum_i w_i y_i,\
          w_i = 1/(s^2 + \sigma_i^2),

and the moments are sums over a grid of log s.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import optimize, special

from sbi_core import Batch, Observable, Parameter, ParameterSpace, Prior, Simulator
from sbi_core.rng import as_generator, stream

__all__ = ["Scatter", "Supernovae"]

F64 = NDArray[np.float64]
MISSING = 1e4  # error of a value that is not there
LOWEST, RANGE = np.array([0.03, 0.1, 0.02]), np.array([8.0, 10.0, 6.0])
GAPS = np.array([0.0, 0.3, 0.2])


class Supernovae(Simulator):
    """The supernovae above."""

    name, version = "supernovae", "2"
    parameters = ParameterSpace(
        (
            Parameter("M", Prior("normal", {"loc": -19.3, "scale": 0.3}), scope="global"),
            Parameter("alpha", Prior("normal", {"loc": 0.14, "scale": 0.05}), scope="global"),
            Parameter("beta", Prior("normal", {"loc": 3.0, "scale": 0.7}), scope="global"),
            Parameter("s", Prior("lognormal", {"loc": -2.1, "scale": 0.5}), scope="global"),
            Parameter("x", Prior("normal", {"loc": 0.0, "scale": 1.0}), scope="local"),
            Parameter("c", Prior("normal", {"loc": 0.0, "scale": 0.1}), scope="local"),
            Parameter("own", Prior("normal", {"loc": 0.0, "scale": 1.0}), scope="local"),
        )
    )
    observables = (Observable("brightness"), Observable("stretch"), Observable("colour"))

    def simulate(self, theta, rng):  # noqa: ANN001, ANN201
        """Brightness, stretch, colour."""
        values = np.asarray(theta, float)
        m, alpha, beta, s, x, c, own = values.T
        brightness = m - alpha * x + beta * c + s * own
        return Batch.of_arrays(x=np.stack([brightness, x, c], 1), theta=values)

    def observe(self, batch, rng):  # noqa: ANN001, ANN201
        """Errors log-uniform in a range per value; some values missing."""
        gen = as_generator(rng)
        shape = tuple(batch.x.shape)
        err = LOWEST * RANGE ** gen.random(shape)
        mask = torch.as_tensor(gen.random(shape) >= GAPS)
        x = batch.x.double() + torch.as_tensor(err * gen.standard_normal(shape))
        return batch.with_(x=x.where(mask, torch.nan), x_err=torch.as_tensor(err), mask=mask)

    def log_group(self, z: np.ndarray, batch: Batch) -> np.ndarray:
        """Log likelihood of all objects at z (S, 4), unconstrained, (S,)."""
        m, alpha, beta, s = self.parameters.select("global").from_unconstrained(z).T
        seen = batch.observed.numpy()
        y = np.where(seen, batch.x.double().numpy(), 0.0)
        noise = np.where(seen, batch.x_err.double().numpy(), MISSING) ** 2
        vx, vc = 1.0 + noise[:, 1], 0.01 + noise[:, 2]
        # brightness given the other two, each of which is independent of the shared parameters
        mean = m[:, None] - alpha[:, None] * (y[:, 1] / vx) + beta[:, None] * (0.01 * y[:, 2] / vc)
        variance = (
            alpha[:, None] ** 2 * (1 - 1 / vx)
            + beta[:, None] ** 2 * (0.01 - 1e-4 / vc)
            + s[:, None] ** 2
            + noise[:, 0]
        )
        return -0.5 * ((y[:, 0] - mean) ** 2 / variance + np.log(variance)).sum(1)

    def joint(self, batch: Batch) -> tuple[F64, F64]:
        """Exact mean and covariance, unconstrained."""
        d, nu = 4, 6.0
        draws = 4000 if len(batch) <= 1000 else 1000
        rng = stream(0, "exact")

        def log_posterior(z: F64) -> F64:
            step = max(1, 400_000 // max(len(batch), 1))
            parts = [self.log_group(z[k : k + step], batch) for k in range(0, len(z), step)]
            return np.concatenate(parts) - 0.5 * (z**2).sum(1)

        mean, cov = _laplace(log_posterior, d)
        for _ in range(10):
            root = np.linalg.cholesky(1.2 * cov)
            t = rng.standard_normal((draws, d)) / np.sqrt(rng.chisquare(nu, (draws, 1)) / nu)
            z = mean + t @ root.T
            log_w = log_posterior(z) + 0.5 * (nu + d) * np.log1p((t**2).sum(1) / nu)
            w = special.softmax(log_w)
            share = 1 / (w**2).sum() / draws
            if share < 0.1:  # far from the target: flatter weights lead there
                w = special.softmax(0.3 * log_w)
            mean = w @ z
            cov = (z - mean).T @ (w[:, None] * (z - mean))
            if share > 0.5:
                break
        if share < 0.1:
            raise ArithmeticError(f"the exact posterior of {len(batch)} supernovae was not found")
        return mean, cov


class Scatter(Simulator):
    """Mean plus scatter."""

    name, version = "mean-and-scatter", "1"
    parameters = ParameterSpace(
        (
            Parameter("mean", Prior("normal", {"loc": 0.0, "scale": 1.0}), scope="global"),
            Parameter("s", Prior("lognormal", {"loc": -1.0, "scale": 0.6}), scope="global"),
            Parameter("own", Prior("normal", {"loc": 0.0, "scale": 1.0}), scope="local"),
        )
    )
    observables = (Observable("value"),)

    def simulate(self, theta, rng):  # noqa: ANN001, ANN201
        """Mean plus scatter."""
        values = np.asarray(theta, float)
        return Batch.of_arrays(x=values[:, :1] + values[:, 1:2] * values[:, 2:], theta=values)

    def observe(self, batch, rng):  # noqa: ANN001, ANN201
        """Errors log-uniform from 0.1 to 1."""
        gen = as_generator(rng)
        err = 0.1 * 10.0 ** gen.random(tuple(batch.x.shape))
        x = batch.x.double() + torch.as_tensor(err * gen.standard_normal(err.shape))
        return batch.with_(x=x, x_err=torch.as_tensor(err))

    def joint(self, batch: Batch) -> tuple[F64, F64]:
        """Exact mean and covariance, unconstrained."""
        y, noise = batch.x[:, 0].double().numpy(), batch.x_err[:, 0].double().numpy() ** 2
        grid = np.linspace(-8.0, 8.0, 401)
        for _ in range(2):
            variance = np.exp(2 * (-1.0 + 0.6 * grid))[:, None] + noise
            precision, total = 1 + (1 / variance).sum(1), (y / variance).sum(1)
            log_p = -0.5 * (np.log(variance) + y**2 / variance).sum(1) - 0.5 * grid**2
            p = special.softmax(log_p + 0.5 * total**2 / precision - 0.5 * np.log(precision))
            mean = p @ grid
            near = 9 * np.sqrt(max(p @ (grid - mean) ** 2, (grid[1] - grid[0]) ** 2))
            used, grid = grid, np.linspace(max(mean - near, -8.0), min(mean + near, 8.0), 401)
        z = np.stack([total / precision, used], 1)
        off = z - p @ z
        return p @ z, off.T @ (p[:, None] * off) + np.diag([p @ (1 / precision), 0.0])


def _laplace(log_density, d: int) -> tuple[F64, F64]:  # noqa: ANN001
    """Mode and inverse curvature of a density of z (n, d)."""
    mode = optimize.minimize(lambda z: -log_density(z[None])[0], np.zeros(d), method="BFGS")
    step = 0.3 * np.sqrt(np.diag(mode.hess_inv))
    pairs = [(i, j) for i in range(d) for j in range(i, d)]
    e = np.diag(step)
    corners = [mode.x + a * e[i] + b * e[j] for i, j in pairs for a in (1, -1) for b in (1, -1)]
    pp, pm, mp, mm = log_density(np.array(corners)).reshape(-1, 4).T
    curvature = np.zeros((d, d))
    for (i, j), value in zip(pairs, -(pp - pm - mp + mm) / 4, strict=True):
        curvature[i, j] = curvature[j, i] = value / (step[i] * step[j])
    values, vectors = np.linalg.eigh(curvature)
    return mode.x, (vectors / np.maximum(values, 0.5)) @ vectors.T
