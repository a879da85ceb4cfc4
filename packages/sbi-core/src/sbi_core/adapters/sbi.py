r"""Density estimators of the sbi package as heads.

Score and flow-matching networks (:class:`VectorFieldHead`) learn a velocity
:math:`v(z, t\,|\,h)` that transports noise at :math:`t = 1` to the posterior at :math:`t = 0`.
Draws and densities both follow from the ordinary differential equation

.. math:: \frac{dz}{dt} = v(z, t\,|\,h), \qquad
          \log q(z_0) = \log N(z_1; 0, s^2) + \int_0^1 \nabla\!\cdot v\,dt

in a fixed number of Runge-Kutta steps, so that a draw is a function of its noise.

References:
    | sbi, https://sbi.readthedocs.io
    | nflows, https://github.com/bayesiains/nflows
    | Flow Matching for Generative Modeling (Lipman et al., 2022), https://arxiv.org/abs/2210.02747
    | Score-based generative modeling (Song et al., 2020), https://arxiv.org/abs/2011.13456
    | Diffusion posterior sampling in tall data settings (Linhart et al., 2024),
    | https://arxiv.org/abs/2404.07593
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from sbi_core.errors import ConfigError, DensityUnavailableError
from sbi_core.rng import seeded, stream
from sbi_core.training.networks import Head

__all__ = [
    "SbiHead",
    "VectorFieldHead",
    "build_head",
    "combined_draws",
    "importing_sbi",
]

Builder = Callable[[Tensor, Tensor], Any]
_VALIDATION_TIMES = 10
_ROWS_PER_CALL = 200_000  # draws times objects
_MOST_DIMENSIONS = 16  # the exact divergence needs a pass per dimension


class SbiHead(Head):
    """A flow of sbi over nflows (``NFlowsFlow``) as a head."""

    def __init__(self, estimator: Any, dim: int) -> None:
        super().__init__()
        self.estimator = estimator
        self.noise_size = dim

    def log_prob(self, z: Tensor, h: Tensor) -> Tensor:
        """Return log q(z | h), shape (..., n)."""
        log_q: Tensor = self.estimator.log_prob(z.reshape(-1, *z.shape[-2:]), h)
        return log_q.reshape(z.shape[:-1])

    def draw(self, noise: Tensor, h: Tensor) -> Tensor:
        """Return z (..., n, d), the inverse flow of standard normal noise (..., n, d)."""
        # nflows has no public inverse for given noise: its sampler draws its own
        context = h.expand(*noise.shape[:-1], h.shape[-1]).reshape(-1, h.shape[-1])
        transform = self.estimator.net._transform
        z: Tensor = transform.inverse(noise.reshape(-1, self.noise_size), context=context)[0]
        return z.reshape(noise.shape)


class VectorFieldHead(Head):
    """A score or flow-matching network of sbi as a head.

    The training loss uses a random time per row; the validation loss is the mean over a fixed grid
    of times with fixed noise, so that epochs can be compared.

    Parameters
    ----------
    steps
        Runge-Kutta steps of the differential equation.
    """

    loss_is_nll = False

    def __init__(self, estimator: Any, dim: int, steps: int) -> None:
        super().__init__()
        self.estimator = estimator
        self.noise_size = dim
        self.steps = steps

    def loss(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the matching loss, (n,)."""
        if self.training:
            value: Tensor = self.estimator.loss(z, h)
            return value
        low, high = float(self.estimator.t_min), float(self.estimator.t_max)
        edge = (high - low) / (2 * _VALIDATION_TIMES)
        grid = torch.linspace(low + edge, high - edge, _VALIDATION_TIMES, device=z.device)
        with seeded(stream(0, "validation times"), z.device):
            values = [self.estimator.loss(z, h, times=t.expand(len(z))) for t in grid]
        mean: Tensor = torch.stack(values).mean(0)
        return mean

    def _velocity(self, z: Tensor, h: Tensor, t: float) -> Tensor:
        times = torch.full((len(z),), t, dtype=z.dtype, device=z.device)
        v: Tensor = self.estimator.ode_fn(z, h, times)
        return v

    def draw(self, noise: Tensor, h: Tensor) -> Tensor:
        """Return z (..., n, d), the solution of the differential equation from the noise."""
        given = h.expand(*noise.shape[:-1], h.shape[-1]).reshape(-1, h.shape[-1])
        z = noise.reshape(-1, self.noise_size)
        z = z * self.estimator.std_base + self.estimator.mean_base
        high, low = float(self.estimator.t_max), float(self.estimator.t_min)
        dt = (low - high) / self.steps
        for k in range(self.steps):
            t = high + k * dt
            a = self._velocity(z, given, t)
            b = self._velocity(z + 0.5 * dt * a, given, t + 0.5 * dt)
            c = self._velocity(z + 0.5 * dt * b, given, t + 0.5 * dt)
            d = self._velocity(z + dt * c, given, t + dt)
            z = z + dt / 6 * (a + 2 * b + 2 * c + d)
        carried: Tensor = z.reshape(noise.shape)
        return carried

    def _divergence(self, z: Tensor, h: Tensor, t: float) -> tuple[Tensor, Tensor]:
        """Return velocity (n, d) and its exact divergence (n,)."""
        with torch.enable_grad():
            z = z.detach().requires_grad_(True)
            v = self._velocity(z, h, t)
            trace = torch.zeros(len(z), dtype=z.dtype, device=z.device)
            for k in range(z.shape[1]):
                (row,) = torch.autograd.grad(v[:, k].sum(), z, retain_graph=k + 1 < z.shape[1])
                trace = trace + row[:, k]
        return v.detach(), trace.detach()

    def log_prob(self, z: Tensor, h: Tensor) -> Tensor:
        """Return log q(z | h), shape (..., n).

        Raises
        ------
        DensityUnavailableError
            For more than 16 parameters, whose exact divergence would take minutes per object.
        """
        if self.noise_size > _MOST_DIMENSIONS:
            calls = 4 * self.steps * (1 + self.noise_size)
            msg = (
                f"a density of {self.noise_size} parameters would take {calls} network passes per "
                f"value (the limit is {_MOST_DIMENSIONS} parameters): use draws, or a flow such as "
                "'maf'"
            )
            raise DensityUnavailableError(msg)
        given = h.expand(*z.shape[:-1], h.shape[-1]).reshape(-1, h.shape[-1])
        y, total = z.reshape(-1, self.noise_size), torch.zeros((), dtype=z.dtype, device=z.device)
        high, low = float(self.estimator.t_max), float(self.estimator.t_min)
        dt = (high - low) / self.steps
        for k in range(self.steps):
            t = low + k * dt
            a, da = self._divergence(y, given, t)
            b, db = self._divergence(y + 0.5 * dt * a, given, t + 0.5 * dt)
            c, dc = self._divergence(y + 0.5 * dt * b, given, t + 0.5 * dt)
            d, dd = self._divergence(y + dt * c, given, t + dt)
            y = y + dt / 6 * (a + 2 * b + 2 * c + d)
            total = total + dt / 6 * (da + 2 * db + 2 * dc + dd)
        scale = self.estimator.std_base
        u = (y - self.estimator.mean_base) / scale
        log_base = -0.5 * u**2 - torch.log(scale) - 0.5 * math.log(2 * math.pi)
        log_q: Tensor = (log_base.sum(-1) + total).reshape(z.shape[:-1])
        return log_q


# -- building ----------------------------------------------------------------------------------

_NETWORKS = {  # estimator: function of sbi.neural_nets, and its model
    "sbi-maf": ("posterior_nn", "maf"),
    "sbi-nsf": ("posterior_nn", "nsf"),
    "sbi-npse": ("posterior_score_nn", "mlp"),
    "sbi-fmpe": ("posterior_flow_nn", "mlp"),
}
_KEYWORDS = {  # our options: keywords of sbi
    "hidden": "hidden_features",
    "transforms": "num_transforms",
    "bins": "num_bins",
    "layers": "num_layers",
    "sde": "sde_type",
}


@contextmanager
def importing_sbi(user: str) -> Iterator[None]:
    """Turn a failed import of sbi into one sentence that names what needs it.

    Raises
    ------
    ConfigError
        If sbi cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        msg = f"{user} needs the package sbi, which cannot be imported ({error}): reinstall sbi"
        raise ConfigError(msg) from None


def build_head(name: str, features: int, dim: int, options: Mapping[str, Any]) -> Head:
    """Return a network of sbi without its own standardisation.

    In a masked network of nflows the first coordinate depends on nothing, not even on the features,
    and sbi shuffles coordinates at random between networks: now and then one parameter is first in
    all of them and does not depend on the data. Such networks are built again.

    Parameters
    ----------
    name
        ``sbi-maf``, ``sbi-nsf``, ``sbi-npse`` or ``sbi-fmpe``.
    features, dim
        Numbers the density is given, numbers it describes.
    options
        ``hidden`` and, depending on the network, ``transforms``, ``bins``, ``layers``, ``sde`` and
        ``steps``.

    Raises
    ------
    ConfigError
        For ``sbi-maf`` with one parameter or one transformation, or if sbi cannot be imported.
    """
    if name == "sbi-maf" and dim == 1:
        msg = "a masked autoregressive flow of one parameter is a Gaussian: use 'nsf'"
        raise ConfigError(msg)
    if name == "sbi-maf" and options["transforms"] < 2:
        msg = "estimator 'sbi-maf' needs transforms >= 2: one leaves a parameter without the data"
        raise ConfigError(msg)
    function, model = _NETWORKS[name]
    with importing_sbi(f"estimator '{name}'"):
        from sbi import neural_nets
    keywords = {_KEYWORDS[k]: v for k, v in options.items() if k != "steps"}
    build = getattr(neural_nets, function)(
        model=model, z_score_theta="none", z_score_x="none", **keywords
    )
    if "steps" in options:
        return VectorFieldHead(_built(build, features, dim), dim, options["steps"])
    made = _built(build, features, dim)
    while name == "sbi-maf" and not _all_depend(made.net._transform, dim):
        made = _built(build, features, dim)
    return SbiHead(made, dim)


def _built(build: Builder, features: int, dim: int) -> Any:
    """Return the network of a builder of sbi, which takes the shapes from examples."""
    return build(torch.randn(16, dim), torch.randn(16, features))


def _all_depend(transform: Any, dim: int) -> bool:
    """Return True if every coordinate is other than the first in some masked network."""
    from nflows.transforms import Permutation

    order, depending = torch.arange(dim), torch.zeros(dim, dtype=torch.bool)
    for part in transform._transforms:
        if isinstance(part, Permutation):
            order = order[part._permutation]
        else:
            depending[order[1:]] = True
    return bool(depending.all())


# -- many objects ----------------------------------------------------------------------------


def _corrected_score(estimator: Any, precision: Tensor) -> Any:
    """Return sbi's ``auto_gauss`` score of N objects, for given precisions (n, d, d).

    sbi 0.27 estimates the precisions from second moments about zero, not about the mean of each
    posterior: off the prior mean its result is wrong for two objects and diverges for a hundred.

    Raises
    ------
    ConfigError
        If sbi cannot be imported.
    """
    with importing_sbi("the score combiner"):
        from sbi.inference.potentials.vector_field_adaptor import AutoGaussCorrectedScoreFn

    class Given(AutoGaussCorrectedScoreFn):  # type: ignore[misc]
        def posterior_precision_est_fn(self, conditions: Tensor) -> Tensor:
            return precision.unsqueeze(0)

    dim = precision.shape[-1]
    # a MultivariateNormal: for independent normals sbi takes the prior's score by Monte Carlo
    prior = torch.distributions.MultivariateNormal(torch.zeros(dim), torch.eye(dim))
    return Given(estimator, prior, enable_lam_psd=False)


@torch.no_grad()
def combined_draws(head: VectorFieldHead, h: Tensor, precision: Tensor, noise: Tensor) -> Tensor:
    r"""Return draws z (S, d) of the posterior given all N objects, from their scores.

    .. math:: dz = \left[f(z, t) - g^2(t)\,\hat s(z, t)\right] dt + g(t)\,dw,

    from :math:`t_\max` to :math:`t_\min` in steps that shrink towards the end. :math:`\hat s` is
    the sum of the objects' scores, each weighted by the precision of its denoising posterior, minus
    N - 1 times the prior's score.

    Parameters
    ----------
    head
        A score network.
    h : (n, k)
        Features of the objects.
    precision : (n, d, d)
        Precisions of their posteriors.
    noise : (steps + 1, S, d)
        Standard normal numbers: the initial state, then one set per step.

    References
    ----------
    Linhart et al. 2024, https://arxiv.org/abs/2404.07593, section 3 (``auto_gauss``); Geffner et
    al. 2022, https://arxiv.org/abs/2209.14249
    """
    estimator = head.estimator
    score = _corrected_score(estimator, precision.to(h))
    high, low = float(estimator.t_max), float(estimator.t_min)
    times = torch.linspace(math.sqrt(high), math.sqrt(low), len(noise)) ** 2
    step = max(1, _ROWS_PER_CALL // len(h))
    parts = []
    for start in range(0, noise.shape[1], step):
        z = noise[0, start : start + step].unsqueeze(1).to(h)
        z = z * estimator.std_base + estimator.mean_base
        for k in range(len(noise) - 1):
            t, dt = times[k : k + 1], float(times[k] - times[k + 1])
            drift, spread = estimator.drift_fn(z, t), estimator.diffusion_fn(z, t)
            kick = noise[k + 1, start : start + step].unsqueeze(1).to(h)
            z = z - (drift - spread**2 * score(z, h, t)) * dt + spread * math.sqrt(dt) * kick
        parts.append(z.squeeze(1))
    return torch.cat(parts)
