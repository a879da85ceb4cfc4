r"""Base of the estimators of discrete parameters: columns, autoregressive heads, change of prior.

Discrete parameters :math:`n_1..n_m` come first. Each has a network that is given the features and
the parameters before it,

.. math:: p(n_1..n_m\,|\,h) = \prod_j p(n_j\,|\,h, n_{<j}).

A value is represented by its index in the list of values the prior allows, so that probabilities
sum to one over exactly these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from sbi_core.data.alignment import aligned
from sbi_core.data.batch import Batch
from sbi_core.errors import ConfigError, DensityUnavailableError
from sbi_core.estimators.base import FlowEstimator
from sbi_core.priors.space import Parameter, ParameterSpace, Prior
from sbi_core.rng import torch_defaults
from sbi_core.training.networks import Head, mlp

__all__ = ["Columns", "DiscreteEstimator", "DiscreteHead", "swap_prior"]

F64 = NDArray[np.float64]
_ONE_HOT = 16  # parameters with at most this many values are also one-hot encoded
_LARGEST_TABLE = 1_000_000


class Columns:
    """The discrete columns of theta, and the rest.

    Attributes
    ----------
    discrete
        The discrete parameters.
    rest
        The space of the others, or None.
    """

    def __init__(self, space: ParameterSpace) -> None:
        self.space = space
        self.discrete: list[Parameter] = []
        self.places: list[int] = []
        others: list[Parameter] = []
        self.rest_places: list[int] = []
        for p, columns in space.blocks():
            if p.prior.continuous:
                others.append(p)
                self.rest_places += range(columns.start, columns.stop)
            else:
                self.discrete.append(p)
                self.places.append(columns.start)
        self.tables = [p.prior.outcomes()[0] for p in self.discrete]
        self.rest = ParameterSpace(tuple(others), space.version) if others else None

    @property
    def z_dim(self) -> int:
        """Unconstrained coordinates of the other parameters."""
        return 0 if self.rest is None else self.rest.z_dim

    def inside(self, theta: F64) -> NDArray[np.bool_]:
        """Return which rows have a probability, (n,)."""
        inside = self.space.inside(theta)
        for values, place in zip(self.tables, self.places, strict=True):
            inside &= np.isin(theta[:, place], values)
        return inside

    def encode(self, theta: F64) -> F64:
        """Return value indices and unconstrained coordinates, (n, m + k), of theta (n, d)."""
        parts = [
            np.searchsorted(values, theta[:, place])[:, None].astype(float)
            for values, place in zip(self.tables, self.places, strict=True)
        ]
        if self.rest is not None:
            parts.append(self.rest.to_unconstrained(theta[:, self.rest_places]))
        return np.concatenate(parts, axis=1)

    def decode(self, values: F64) -> F64:
        """Return theta (..., d); the inverse of :meth:`encode`."""
        theta = np.empty((*values.shape[:-1], self.space.dim))
        m = len(self.tables)
        for j, (table, place) in enumerate(zip(self.tables, self.places, strict=True)):
            theta[..., place] = table[values[..., j].astype(int)]
        if self.rest is not None:
            theta[..., self.rest_places] = self.rest.from_unconstrained(values[..., m:])
        return theta

    def log_volume(self, theta: F64) -> F64:
        """Return log |d z / d theta| of the continuous parameters, (n,)."""
        if self.rest is None or self.rest.z_dim == 0:
            return np.zeros(len(theta))
        return self.rest.log_abs_det(theta[:, self.rest_places])


class DiscreteHead(Head):
    """p(n | h) of the value indices of m discrete parameters.

    Subclasses give ``noise_per``, :meth:`outputs`, :meth:`log_pmf` and :meth:`pick`.

    Parameters
    ----------
    features
        Numbers in h.
    tables
        Values of every parameter, increasing.
    hidden
        Layer widths of the networks.
    options
        Further options of the subclass.
    """

    noise_per: int = 1
    rows_per_call = 16_384

    def __init__(
        self, features: int, tables: Sequence[F64], hidden: tuple[int, ...], **options: Any
    ) -> None:
        super().__init__()
        self.sizes = [len(t) for t in tables]
        self.noise_size = self.noise_per * len(tables)
        self.code_size = 0
        self.prepare(tables, **options)
        trunks = []
        for j, table in enumerate(tables):
            trunks.append(mlp(features + self.code_size, hidden, self.outputs(j)))
            scaled = (table - table.mean()) / (table.std() or 1.0)
            code = [scaled[:, None], *([np.eye(len(table))] if len(table) <= _ONE_HOT else [])]
            self.register_buffer(
                f"code{j}", torch.as_tensor(np.concatenate(code, 1)).float(), persistent=False
            )
            self.code_size += int(self.get_buffer(f"code{j}").shape[1])
        self.trunks = nn.ModuleList(trunks)

    def prepare(self, tables: Sequence[F64], **options: Any) -> None:
        """Prepare for :meth:`outputs`, from the options of the subclass."""

    def outputs(self, j: int) -> int:
        """Return the number of outputs of the network of parameter j."""
        raise NotImplementedError

    def log_pmf(self, j: int, raw: Tensor, place: Tensor) -> Tensor:
        """Return log p (...) of value indices (...) of parameter j, given its network's output."""
        raise NotImplementedError

    def pick(self, j: int, raw: Tensor, u: Tensor) -> Tensor:
        """Return value indices (...) of parameter j for uniform numbers (..., noise_per)."""
        raise NotImplementedError

    def code(self, places: Tensor, count: int | None = None) -> Tensor:
        """Return the encoding (..., code_size) of value indices (..., m) for networks."""
        m = len(self.sizes) if count is None else count
        parts = [self.get_buffer(f"code{j}")[places[..., j].long()] for j in range(m)]
        return torch.cat(parts, -1)

    def _raw(self, j: int, places: Tensor, h: Tensor) -> Tensor:
        if j == 0:
            first: Tensor = self.trunks[0](h)
            return first
        lead = places.shape[:-1]
        given = torch.cat([h.expand(*lead, h.shape[-1]), self.code(places, j).to(h.dtype)], -1)
        raw: Tensor = self.trunks[j](given)
        return raw

    def log_prob(self, z: Tensor, h: Tensor) -> Tensor:
        """Return log p(n | h), shape (..., n), of value indices z (..., n, m)."""
        total = torch.zeros((), dtype=h.dtype, device=h.device)
        for j in range(len(self.sizes)):
            total = total + self.log_pmf(j, self._raw(j, z, h), z[..., j].long())
        return total

    def draw(self, noise: Tensor, h: Tensor) -> Tensor:
        """Return value indices (..., n, m) of standard normal noise."""
        u = torch.special.ndtr(noise.double()).clamp(1e-12, 1 - 1e-12)
        z = noise.new_zeros((*noise.shape[:-1], len(self.sizes)))
        for j in range(len(self.sizes)):
            part = u[..., self.noise_per * j : self.noise_per * (j + 1)]
            z[..., j] = self.pick(j, self._raw(j, z, h), part).to(z.dtype)
        return z


class DiscreteEstimator(FlowEstimator):
    """Probabilities of discrete parameters; subclasses give the head."""

    def discrete_head(self, features: int, tables: Sequence[F64]) -> DiscreteHead:
        """Return a new head for parameters with these values."""
        raise NotImplementedError

    def make_head(self, features: int, space: ParameterSpace) -> Head:
        """Return a new density of the parameters given ``features`` numbers.

        Raises
        ------
        ConfigError
            If a parameter is continuous.
        """
        columns = Columns(space)
        if not columns.discrete or columns.z_dim:
            names = [p.name for p in space.parameters if p.prior.continuous and p.prior.z_size]
            hint = "use 'mixed'" if columns.discrete else "use 'maf' or 'nsf'"
            msg = f"estimator '{self.name}' is for discrete parameters, {names} are not: {hint}"
            raise ConfigError(msg)
        return self.discrete_head(features, columns.tables)

    def score(self, value: F64, batch: Batch) -> F64:
        """Raise an error: discrete parameters have no gradient.

        Raises
        ------
        DensityUnavailableError
            Always.
        """
        msg = f"estimator '{self.name}' has no gradient: its parameters are discrete"
        raise DensityUnavailableError(msg)

    def encode(self, theta: F64, space: ParameterSpace) -> F64:
        """Return value indices and unconstrained coordinates, (n, k), of theta (n, d)."""
        return Columns(space).encode(theta)

    def decode(self, values: F64, space: ParameterSpace) -> F64:
        """Return theta (..., d); the inverse of :meth:`encode`."""
        return Columns(space).decode(values)

    def log_volume(self, theta: F64, values: F64, space: ParameterSpace) -> F64:
        """Return log |dz / dtheta| of the continuous parameters, (n,)."""
        return Columns(space).log_volume(theta)

    def inside(self, theta: F64, space: ParameterSpace) -> NDArray[np.bool_]:
        """Return which rows of theta (n, d) may have a probability, (n,)."""
        return Columns(space).inside(theta)

    @property
    def values(self) -> tuple[F64, ...]:
        """Values of every discrete parameter, in the order of the axes of :meth:`pmf`."""
        return tuple(Columns(self.space).tables)

    def _discrete_part(self) -> DiscreteHead:
        head = self.network.head
        assert isinstance(head, DiscreteHead)
        return head

    @torch_defaults()
    @torch.no_grad()
    def pmf(self, batch: Batch) -> F64:
        """Return the probabilities of all values, (n, R); (n, R1, R2, ...) for several parameters.

        Raises
        ------
        ConfigError
            If there are more than a million combinations of values.
        """
        sizes = [len(v) for v in self.values]
        cells = int(np.prod(sizes))
        if cells > _LARGEST_TABLE:
            msg = f"a table of {' x '.join(map(str, sizes))} probabilities per object is too large"
            raise ConfigError(msg)
        head, h = self._discrete_part(), self._features(batch)
        grid = np.indices(sizes).reshape(len(sizes), cells).T  # (cells, m)
        places = torch.as_tensor(grid, dtype=h.dtype, device=h.device)[:, None]
        out = np.empty((len(h), cells))
        step = max(1, 10 * head.rows_per_call // cells)
        for start in range(0, len(h), step):
            part = aligned(h[start : start + step])
            shaped = places.expand(cells, len(part), len(sizes))
            out[start : start + step] = head.log_prob(shaped, part).exp().double().cpu().numpy().T
        out /= out.sum(1, keepdims=True)  # float32 rounding
        return out.reshape(len(h), *sizes)


def swap_prior(pmf: ArrayLike, trained: Prior, wanted: Prior) -> F64:
    r"""Exact posterior probabilities under another prior.

    .. math:: p'(n\,|\,x) \propto p(n\,|\,x)\,\pi'(n) / \pi(n)

    Parameters
    ----------
    pmf
        (n, R), probabilities of the values that the training prior allows, increasing.
    trained
        The training prior.
    wanted
        The new prior; it may only allow values that the training prior allows.

    Returns
    -------
    ndarray
        (n, R), over the same values.

    Raises
    ------
    ConfigError
        If shapes do not match, or the new prior allows other values.
    """
    p = np.asarray(pmf, dtype=np.float64)
    (values, old), (allowed, new) = trained.outcomes(), wanted.outcomes()
    if p.ndim != 2 or p.shape[1] != len(values):
        msg = f"probabilities of shape {p.shape} for the {len(values)} values of {trained}"
        raise ConfigError(msg)
    unknown = allowed[~np.isin(allowed, values)]
    if len(unknown):
        msg = f"prior {wanted} allows {unknown[0]:g}, which {trained} does not: train again"
        raise ConfigError(msg)
    ratio = np.zeros(len(values))
    place = np.searchsorted(values, allowed)
    ratio[place] = new / old[place]
    weighted = p * ratio
    return np.asarray(weighted / weighted.sum(1, keepdims=True))
