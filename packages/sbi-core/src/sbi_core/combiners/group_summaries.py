r"""Moments of a group of objects, as inputs of a network (:mod:`sbi_core.combiners.group_moments`).

.. math:: t = (\bar x_k,\ \log s_k,\ r_{kl},\ c_{kl},\ \ldots), \qquad
          s_k^2 = \mathrm{var}(x_k) - \overline{\sigma_k^2}, \qquad
          c_{kl} = \overline{(x_k - \bar x_k)^2 (x_l - \bar x_l)} / (s_k^2 s_l)

with correlations r, the standard errors of the means, the errors of the data, the observables that
are there, the number of objects, and the families of nuisance parameters that are on. All moments
are over the objects that have the observable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sbi_core.components import Simulator
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.errors import ObservationError
from sbi_core.simulate.nuisances import (
    OUTLIERS,
    ZERO_POINTS,
    disturbed,
    families,
    switch_name,
)

__all__ = ["LARGEST_FACTOR", "GroupData", "GroupMoments", "UsualMoments"]

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
_ON = 0.8  # fraction of the parts in which a family is on
_COMPLETE = 0.4  # of the parts have all observables; others lack any number of them
_NOISIER = 0.5  # of the parts have errors larger than those of the group, by a factor up to
LARGEST_FACTOR = 4.0
_SKEWED = 10  # objects above which third moments are used
_FLOOR = 0.05  # of the standard deviation without noise, in units of the scatter of all objects
_REFERENCE = 2000  # simulated parts that show which moments are usual


@dataclass(frozen=True, slots=True)
class GroupData:
    """Of one group or of several: values, 0 where missing; errors, 0 where there are none; present.

    All (..., n, k).
    """

    value: F64
    error: F64
    there: Mask

    @classmethod
    def of(cls, batch: Batch) -> GroupData:
        """Return the data of one group."""
        there = batch.observed.cpu().numpy()
        value = np.where(there, batch.x.double().cpu().numpy(), 0.0)
        error = np.zeros_like(value)
        if batch.x_err is not None:
            error = np.where(there, batch.x_err.double().cpu().numpy(), 0.0)
        return cls(value, error, there)

    @classmethod
    def stacked(cls, parts: Sequence[GroupData]) -> GroupData:
        """Return several groups as one, (c, n, k): objects that a group lacks are missing."""
        shape = (len(parts), max(map(len, parts)), parts[0].value.shape[1])
        value, error, there = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
        for c, part in enumerate(parts):
            value[c, : len(part)], error[c, : len(part)] = part.value, part.error
            there[c, : len(part)] = part.there
        return cls(value, error, there)

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> GroupData:
        return GroupData(self.value[rows], self.error[rows], self.there[rows])

    def without(self, column: int) -> GroupData:
        """Return the data without one observable."""
        there = self.there.copy()
        there[..., column] = False
        return self.masked(there)

    def noise(self, scale: F64) -> F64:
        """Return the rms error of each observable, (..., k), in units of a scale."""
        square = ((self.error / scale) ** 2).sum(-2)
        return np.asarray(np.sqrt(square / np.maximum(self.there.sum(-2), 1)))

    def masked(self, there: Mask) -> GroupData:
        """Return the data with other missing values."""
        return GroupData(np.where(there, self.value, 0.0), np.where(there, self.error, 0.0), there)


@dataclass(frozen=True, slots=True)
class GroupMoments:
    """The inputs of the network: which moments, in which units.

    Parameters
    ----------
    names
        Observables.
    centre, scale : (k,)
        Mean and standard deviation of all simulated objects.
    simulated
        Families of nuisance parameters of the simulated groups.
    zero_point
        Standard deviation of zero points.
    noisy
        Data have errors.
    most
        Objects in a group; more count as that many.
    noisiest : (k,)
        Largest mean error of a group in training, in units of ``scale``.
    """

    names: tuple[str, ...]
    centre: F64
    scale: F64
    simulated: tuple[str, ...]
    zero_point: float
    noisy: bool
    most: int
    noisiest: F64

    @classmethod
    def of(cls, groups: Sequence[Observations], simulator: Simulator, most: int) -> GroupMoments:
        """Return the inputs for groups of at most ``most`` objects, in units of their scatter."""
        data = [GroupData.of(g.batch) for g in groups]
        value, there = (np.concatenate([getattr(d, a) for d in data]) for a in ("value", "there"))
        count = np.maximum(there.sum(0), 1)
        centre = value.sum(0) / count
        scale = np.sqrt((np.where(there, value - centre, 0.0) ** 2).sum(0) / count)
        known = [o.name for o in simulator.observables]
        names = known if len(known) == len(centre) else [f"x{k}" for k in range(len(centre))]
        noisy = any(d.error.any() for d in data)
        scale = np.maximum(scale, 1e-12)
        return cls(
            tuple(names),
            centre,
            scale,
            tuple(f for f in families(simulator) if switch_name(f) in groups[0].truth_names),
            float(simulator.zero_point),
            noisy,
            most,
            np.max([d.noise(scale) for d in data], 0),
        )

    @property
    def families(self) -> tuple[str, ...]:
        """All families, those that are added here last."""
        zero = (ZERO_POINTS,) if self.zero_point > 0 else ()
        return (*self.simulated, *zero, *((OUTLIERS,) if self.noisy else ()))

    @property
    def number(self) -> int:
        """Number of inputs of the network."""
        nothing = np.zeros((1, len(self.names)))
        data = GroupData(nothing, nothing, nothing > 0)
        return len(self.inputs(data, self.switches()))

    def switches(self, off: Sequence[str] = ()) -> Mask:
        """Return which families are on, (families,): all but some."""
        return np.array([f not in off for f in self.families], bool)

    def checked(self, batch: Batch) -> GroupData:
        """Return data that have the observables of the training."""
        if tuple(batch.x.shape[1:]) != (len(self.names),):
            msg = (
                f"the group-moments combiner was trained with {len(self.names)} numbers per "
                f"object, these data have shape {tuple(batch.x.shape[1:])}"
            )
            raise ObservationError(msg)
        return GroupData.of(batch)

    def altered(
        self, data: GroupData, on: Mapping[str, bool], rng: np.random.Generator
    ) -> tuple[GroupData, Mask]:
        """Return a random part of a group with zero points and outliers, and what is on."""
        n, k = data.value.shape
        own = dict(on) | {f: rng.random() < _ON for f in (ZERO_POINTS, OUTLIERS)}
        size = int(np.exp(rng.uniform(0.0, np.log(n + 1))))
        part = data[rng.permutation(n)[: min(max(size, 1), n)]]
        there = part.there.copy()
        if rng.random() > _COMPLETE:
            lost = np.asarray(rng.random(k) < rng.random())
            lost[rng.integers(k)] = False
            there[:, lost] = False
        value, error = part.value.copy(), part.error
        if rng.random() < _NOISIER:
            more = error * np.exp(rng.uniform(0.0, np.log(LARGEST_FACTOR)))
            value += np.sqrt(more**2 - error**2) * rng.standard_normal(value.shape)
            error = more
        zero_point = self.zero_point if own[ZERO_POINTS] else 0.0
        value = disturbed(value, error, zero_point, rng, outliers=own[OUTLIERS])
        switches = np.array([own[f] for f in self.families], bool)
        return GroupData(value, error, there).masked(there), switches

    def inputs(self, data: GroupData, on: Mask) -> F64:
        """Return the inputs of the network (..., inputs) for groups; on: (..., families)."""
        there = data.there.astype(np.float64)
        count = there.sum(-2)
        have = count > 0
        value = np.where(data.there, (data.value - self.centre) / self.scale, 0.0)
        number = np.maximum(count, 1)
        mean = value.sum(-2) / number
        noise = data.noise(self.scale) ** 2
        off = np.where(data.there, value - mean[..., None, :], 0.0)
        pairs = _products(there, there)
        cov = _products(off, off) / np.maximum(pairs - 1, 1)
        variance = np.diagonal(cov, axis1=-2, axis2=-1)
        spread = np.sqrt(np.maximum(variance - noise, 0) + _FLOOR**2)
        each, other = spread[..., :, None], spread[..., None, :]
        correlation = np.clip(cov / (each * other), -2, 2) * (pairs > 2)
        third = _products(off**2, off) / np.maximum(pairs, 1)  # noise has none
        third = np.clip(third / (each**2 * other), -4, 4) * (pairs > _SKEWED)
        standard_error = np.sqrt((spread**2 + noise) / np.clip(count, 1, self.most))
        n = np.clip(data.there.any(-1).sum(-1), 1, self.most)
        upper = np.triu_indices(mean.shape[-1], 1)
        return np.concatenate(
            [
                mean * have,
                np.log(spread) * (count > 1),
                correlation[..., upper[0], upper[1]],
                third.reshape(*mean.shape[:-1], -1),
                np.log(standard_error) * have,
                np.sqrt(noise),
                have,
                np.log(n)[..., None],
                on,
            ],
            axis=-1,
        )

    def to_spec(self) -> dict[str, object]:
        """Return a JSON-serialisable table."""
        return {
            "names": list(self.names),
            "centre": self.centre.tolist(),
            "scale": self.scale.tolist(),
            "simulated": list(self.simulated),
            "zero_point": self.zero_point,
            "noisy": self.noisy,
            "most": self.most,
            "noisiest": self.noisiest.tolist(),
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, object]) -> GroupMoments:
        """Build from the table of :meth:`to_spec`."""
        v = dict(spec)
        return cls(
            tuple(str(n) for n in v["names"]),  # type: ignore[attr-defined]
            np.asarray(v["centre"], np.float64),
            np.asarray(v["scale"], np.float64),
            tuple(str(n) for n in v["simulated"]),  # type: ignore[attr-defined]
            float(v["zero_point"]),  # type: ignore[arg-type]
            bool(v["noisy"]),
            int(v["most"]),  # type: ignore[call-overload]
            np.asarray(v.get("noisiest", np.inf), np.float64),  # earlier versions have none
        )


@dataclass(frozen=True, slots=True)
class UsualMoments:
    """Means (k,) of simulated groups of full size, their covariance, and squared distances."""

    centre: F64
    cov: F64
    distance: F64

    @classmethod
    def of(
        cls, moments: GroupMoments, groups: Sequence[Observations], rng: np.random.Generator
    ) -> UsualMoments:
        """Return the means and distances of some simulated groups."""
        chosen = rng.permutation(len(groups))[:_REFERENCE]
        on = moments.switches()
        rows = np.stack([moments.inputs(GroupData.of(groups[g].batch), on) for g in chosen])
        rows = rows[:, : len(moments.names)]
        half = len(rows) // 2
        centre, cov = rows[:half].mean(0), np.atleast_2d(np.cov(rows[:half].T))
        found = cls(centre, cov + 1e-9 * np.eye(len(centre)), np.zeros(0))
        every = np.ones(len(centre), bool)
        return replace(found, distance=np.sort([found._square(r, every) for r in rows[half:]]))

    def probability(self, moments: GroupMoments, data: GroupData) -> float:
        """Return the fraction of simulated groups whose mean values are further from the centre.

        Below the resolution of the simulated groups it is extrapolated by a chi-square law.
        """
        have = np.asarray(data.there.any(0), bool)
        if not have.any():
            return 1.0
        row = moments.inputs(data, moments.switches())[: len(moments.names)]
        square = self._square(row, have)
        every = stats.chi2(len(have))
        if have.sum() < len(have):  # of fewer observables: equal probability of the normal law
            square = float(every.isf(max(stats.chi2.sf(square, have.sum()), 1e-300)))
        n = len(self.distance)
        beyond = int((self.distance >= square).sum())
        if beyond:
            return beyond / n
        widest = self.distance[-1] / every.isf(1 / n)  # the tails are heavier than normal
        return float(every.sf(square / max(widest, 1.0)))

    def _square(self, row: F64, have: Mask) -> float:
        off = row[have] - self.centre[have]
        return float(off @ np.linalg.solve(self.cov[np.ix_(have, have)], off))

    def to_spec(self) -> dict[str, object]:
        """Return a JSON-serialisable table."""
        return {k: getattr(self, k).tolist() for k in ("centre", "cov", "distance")}

    @classmethod
    def from_spec(cls, spec: Mapping[str, object]) -> UsualMoments:
        """Build from the table of :meth:`to_spec`."""
        return cls(*(np.asarray(spec[k], np.float64) for k in ("centre", "cov", "distance")))


def _products(first: F64, second: F64) -> F64:
    """Return the sums over objects of the products of two observables, (..., k, k)."""
    return np.asarray(first.swapaxes(-1, -2) @ second)
