"""Posterior draws of sets of members, and quantities derived from them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sbi_casbi.parameters import summarise
from sbi_core import ConfigError, Observations, Posterior, stream

__all__ = ["MemberSamples", "sample_members"]

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class MemberSamples:
    """Draws of sets for n halos.

    Parameters
    ----------
    values
        (draw, halo, member, parameter): log10 M_star, (log10 M_dm,) tau by decreasing mass,
        zero-padded.
    count
        N, (draw, halo).
    names
        Names of the parameters.
    id
        Identifiers of the halos.
    """

    values: NDArray[np.float32]
    count: NDArray[np.int64]
    names: tuple[str, ...]
    id: NDArray[np.str_]

    @property
    def mask(self) -> NDArray[np.bool_]:
        """True where a draw has a k-th member, (draw, halo, member)."""
        return np.asarray(np.arange(self.values.shape[2]) < self.count[..., None])

    def __getitem__(self, halo: int | slice) -> MemberSamples:
        rows = slice(halo, halo + 1) if isinstance(halo, int) else halo
        return MemberSamples(self.values[:, rows], self.count[:, rows], self.names, self.id[rows])

    @property
    def log_mstar(self) -> NDArray[np.float32]:
        """log10 M_star [Msun], (draw, halo, member)."""
        return self.values[..., 0]

    @property
    def tau(self) -> NDArray[np.float32]:
        """Infall time [Gyr since the Big Bang], (draw, halo, member)."""
        return self.values[..., -1]

    def columns(self, n_min: int) -> F64:
        """Return the columns of theta, (draw, halo, c); see :func:`summarise`."""
        dark = len(self.names) == 3
        return summarise(self.values.astype(float), self.count, n_min, dark_mass=dark)

    def number_above(self, log_mass: ArrayLike) -> NDArray[np.int64]:
        """Return N(> M) at log10 masses (m,), (m, draw, halo)."""
        limits = np.atleast_1d(np.asarray(log_mass, float))
        mask, mass = self.mask, self.log_mstar
        return np.stack([((mass > m) & mask).sum(-1) for m in limits])

    def member(self, k: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the k-th member by mass (from 1), (draw, halo, d), and the draws that have it."""
        if not 1 <= k <= self.values.shape[2]:
            msg = f"member {k} does not exist: members are 1..{self.values.shape[2]}"
            raise ConfigError(msg)
        return self.values[:, :, k - 1], self.count >= k

    def intensity(self, mass_edges: ArrayLike, tau_edges: ArrayLike) -> NDArray[np.int64]:
        """Return members per cell of (log10 M_star, tau), (draw, halo, masses, times)."""
        edges = np.asarray(mass_edges, float), np.asarray(tau_edges, float)
        index = [
            np.searchsorted(e, v, side="right") - 1
            for e, v in zip(edges, (self.log_mstar, self.tau), strict=True)
        ]
        size = (len(edges[0]) - 1, len(edges[1]) - 1)
        inside = self.mask & np.all(
            [(p >= 0) & (p < s) for p, s in zip(index, size, strict=True)], axis=0
        )
        lead = self.count.shape
        cell = index[0] * size[1] + index[1]
        row = np.broadcast_to(np.arange(int(np.prod(lead))).reshape(*lead, 1), cell.shape)
        flat = row[inside] * (size[0] * size[1]) + cell[inside]
        counts = np.bincount(flat, minlength=int(np.prod(lead)) * size[0] * size[1])
        return np.asarray(counts.reshape(*lead, *size), np.int64)


def sample_members(
    posterior: Posterior,
    observations: Observations,
    draws: int = 1000,
    *,
    seed: int | None = None,
) -> MemberSamples:
    """Return draws of sets for every halo.

    Parameters
    ----------
    posterior
        A posterior with an estimator of sets, e.g. ``load_run(...).posterior``.
    observations
        The halos.
    draws
        Sets per halo.
    seed
        Root seed; default: that of the posterior.

    Raises
    ------
    ConfigError
        If the estimator is not one of sets.
    """
    estimator: Any = posterior.estimator
    if not hasattr(estimator, "sample_members"):
        msg = f"estimator '{estimator.name}' has no sets of members; use 'casbi-set'"
        raise ConfigError(msg)
    root = posterior.seed if seed is None else seed
    rngs = [stream(root, "infer", str(i)) for i in observations.id]
    members: MemberSamples = estimator.sample_members(observations.batch, draws, rngs)
    return replace(members, id=observations.id)
