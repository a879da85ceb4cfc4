r"""Moments of a group of objects, as inputs of a network (:mod:`sbi_core.combiners.group_moments`).

.. math:: t = (\bar x_k,\ \log s_k,\ r_{kl},\ c_{kl},\ \ldots), \qquad
          s_k^2 = \mathrm{var}(x_k) - \overline{\sigma_k^2}, \qquad
          c_{kl} = \overline{(x_k - \bar x_k)^2 (x_l - \bar x_l)} / (s_k^2 s_l)

with correlations r, the standard errors of the means, the errors of the data, the observables that
are there, the number of objects, and the families of nuisance parameters that are on. All moments
are over the objects that have the observable. Values further from the median than four times half
the range of the middle 68 % count as that far, so that one strange object does not decide.
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
    SELECTION,
    ZERO_POINTS,
    disturbed,
    families,
    selected,
    switch_name,
)

__all__ = ["LARGEST_FACTOR", "GroupData", "GroupMoments", "UsualMoments"]

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
_ON = {ZERO_POINTS: 0.8, OUTLIERS: 0.8, SELECTION: 0.5}  # fraction of the parts, by family
_REPEATED = 0.5  # of the selected parts
_COMPLETE = 0.4  # of the parts have all observables; others lack any number of them
_NOISIER = 0.5  # of the parts have errors larger than those of the group, by a factor up to
LARGEST_FACTOR = 4.0
_SKEWED = 10  # objects above which third moments are used
_FEW = 8  # objects below which all values count as they are
_REACH = 4.0  # half ranges of the middle 68 % from the median, beyond which values are cut
_MIDDLE = 0.16, 0.84
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
    selected_by
        Observables by a range of which objects may be chosen.
    """

    names: tuple[str, ...]
    centre: F64
    scale: F64
    simulated: tuple[str, ...]
    zero_point: float
    noisy: bool
    most: int
    noisiest: F64
    selected_by: tuple[str, ...] = ()

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
            tuple(n for n in simulator.selected_by if n in names),
        )

    @property
    def families(self) -> tuple[str, ...]:
        """All families, those that are added here last."""
        zero = (ZERO_POINTS,) if self.zero_point > 0 else ()
        outliers = (OUTLIERS,) if self.noisy else ()
        selection = (SELECTION,) if self.selected_by else ()
        return (*self.simulated, *zero, *outliers, *selection)

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
        own = dict(on) | {f: rng.random() < share for f, share in _ON.items()}
        if self.selected_by and own[SELECTION]:
            data = data[self._chosen(data, rng)]
        n, k = data.value.shape
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

    def _chosen(self, data: GroupData, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the objects of a group in a range of one observable.

        Often they are drawn with replacement, as many as the group has: a large group that was
        selected is then not taken for one that was not.
        """
        column = self.names.index(self.selected_by[rng.integers(len(self.selected_by))])
        values = np.where(data.there[:, column], data.value[:, column], np.nan)
        chosen = selected(values, rng)
        if rng.random() < _REPEATED:
            chosen = chosen[rng.integers(len(chosen), size=len(data))]
        return chosen

    def inputs(self, data: GroupData, on: Mask) -> F64:
        """Return the inputs of the network (..., inputs) for groups; on: (..., families)."""
        there = data.there.astype(np.float64)
        count = there.sum(-2)
        have = count > 0
        value = np.where(data.there, (data.value - self.centre) / self.scale, 0.0)
        value = _cut(value, data.there, count)
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
            "selected_by": list(self.selected_by),
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
            np.asarray(v["noisiest"], np.float64),
            tuple(str(n) for n in v["selected_by"]),  # type: ignore[attr-defined]
        )


@dataclass(frozen=True, slots=True)
class UsualMoments:
    """Means of simulated groups of full size.

    Parameters
    ----------
    centre, cov : (k,), (k, k)
        Mean and covariance of the means of groups.
    within : (k, k)
        Covariance of the objects of a group without noise, on average.
    size
        Objects in a simulated group.
    distance
        Squared distances of other simulated groups from the centre, in order.
    """

    centre: F64
    cov: F64
    within: F64
    size: float
    distance: F64

    @classmethod
    def of(
        cls, moments: GroupMoments, groups: Sequence[Observations], rng: np.random.Generator
    ) -> UsualMoments:
        """Return the means and distances of some simulated groups."""
        chosen = rng.permutation(len(groups))[:_REFERENCE]
        on = moments.switches()
        every = np.stack([moments.inputs(GroupData.of(groups[g].batch), on) for g in chosen])
        k = len(moments.names)
        rows, half = every[:, :k], len(every) // 2
        centre, cov = rows[:half].mean(0), np.atleast_2d(np.cov(rows[:half].T))
        cov += 1e-9 * np.eye(k)
        size = float(np.mean([len(groups[g]) for g in chosen]))
        found = cls(centre, cov, _within(every[:half], k), size, np.zeros(0))
        have = np.ones(k, bool)
        return replace(found, distance=np.sort([found._square(r, have, cov) for r in rows[half:]]))

    def probability(self, moments: GroupMoments, data: GroupData) -> float:
        """Return the fraction of simulated groups whose mean values are further from the centre.

        The scatter of the means of fewer objects or of larger errors, and of zero points, is added
        to that of the simulated groups. Below the resolution of these the fraction is extrapolated
        by a chi-square law.
        """
        have = np.asarray(data.there.any(0), bool)
        if not have.any():
            return 1.0
        row = moments.inputs(data, moments.switches())[: len(moments.names)]
        square = self._square(row, have, self._spread(moments, data))
        every = stats.chi2(len(have))
        if have.sum() < len(have):  # of fewer observables: equal probability of the normal law
            square = float(every.isf(max(stats.chi2.sf(square, have.sum()), 1e-300)))
        n = len(self.distance)
        beyond = int((self.distance >= square).sum())
        if beyond:
            return beyond / n
        widest = self.distance[-1] / every.isf(1 / n)  # the tails are heavier than normal
        return float(every.sf(square / max(widest, 1.0)))

    def _spread(self, moments: GroupMoments, data: GroupData) -> F64:
        """Return the covariance (k, k) of the means of such groups."""
        count = np.maximum(data.there.sum(0), 1.0)
        fewer = np.maximum(1 / np.sqrt(np.outer(count, count)) - 1 / self.size, 0.0)
        noise = data.noise(moments.scale) ** 2 / count
        zero = (moments.zero_point / moments.scale) ** 2
        return np.asarray(self.cov + fewer * self.within + np.diag(noise + zero))

    def _square(self, row: F64, have: Mask, cov: F64) -> float:
        off = row[have] - self.centre[have]
        return float(off @ np.linalg.solve(cov[np.ix_(have, have)], off))

    def to_spec(self) -> dict[str, object]:
        """Return a JSON-serialisable table."""
        spec = {k: getattr(self, k).tolist() for k in ("centre", "cov", "within", "distance")}
        return {**spec, "size": self.size}

    @classmethod
    def from_spec(cls, spec: Mapping[str, object]) -> UsualMoments:
        """Build from the table of :meth:`to_spec`."""
        arrays = {k: np.asarray(v, np.float64) for k, v in spec.items() if k != "size"}
        return cls(**arrays, size=float(spec["size"]))  # type: ignore[arg-type]


def _within(inputs: F64, k: int) -> F64:
    """Return the mean covariance (k, k) of objects from the inputs (n, .) of groups."""
    spread = np.exp(inputs[:, k : 2 * k])
    upper = np.triu_indices(k, 1)
    correlation = np.tile(np.eye(k), (len(inputs), 1, 1))
    pairs = inputs[:, 2 * k : 2 * k + len(upper[0])]
    correlation[:, upper[0], upper[1]] = correlation[:, upper[1], upper[0]] = pairs
    return np.asarray((correlation * spread[:, :, None] * spread[:, None, :]).mean(0))


def _cut(value: F64, there: Mask, count: F64) -> F64:
    """Return values (..., n, k), those far from the others cut; count: (..., k) that are there."""
    if not there.size:
        return value
    ordered = np.sort(np.where(there, value, np.inf), axis=-2)
    last = np.maximum(count - 1, 0)

    def at(fraction: float) -> F64:
        place = np.rint(fraction * last).astype(np.int64)[..., None, :]
        return np.take_along_axis(ordered, place, -2)

    middle, (low, high) = at(0.5), map(at, _MIDDLE)
    with np.errstate(invalid="ignore"):  # infinite where nothing is there
        reach = _REACH * 0.5 * (high - low) + _FLOOR
    enough = (count >= _FEW)[..., None, :]
    low, high = (np.where(enough, middle + s * reach, s * np.inf) for s in (-1, 1))
    return np.asarray(np.where(there, np.clip(value, low, high), 0.0))


def _products(first: F64, second: F64) -> F64:
    """Return the sums over objects of the products of two observables, (..., k, k)."""
    return np.asarray(first.swapaxes(-1, -2) @ second)
