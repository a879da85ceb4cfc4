r"""Combination by moments of the group: nuisance parameters are marginalised.

An error that all objects share does not average out with their number. Groups are simulated with
their own draw of the shared parameters :math:`\Lambda` and of all nuisance parameters :math:`\phi`
(:mod:`sbi_core.simulate.nuisances`), and a network learns

.. math:: q(\Lambda\,|\,t) \approx
          \int p(\Lambda, \phi\,|\,t)\,\mathrm{d}\phi , \qquad
          t = (\bar x_k,\ \log s_k,\ r_{kl},\ c_{kl},\ \ldots)

from the moments t of their data: means, standard deviations without the noise,
:math:`s_k^2 = \mathrm{var}(x_k) - \overline{\sigma_k^2}`, correlations and third moments
:math:`c_{kl} = \overline{(x_k - \bar x_k)^2 (x_l - \bar x_l)} / (s_k^2 s_l)`, with the standard
errors of the means, the errors of the data, the observables that are there, and the number of
objects. In every
group a random part of the objects and of the observables is left out, so that one network serves
any number of objects and any missing observable. Families of nuisance parameters are switched on
and off at random; which, is an input, so that the network tells how much each contributes.

Networks that saw few groups are somewhat too sure. The standard deviations are therefore stretched
by one factor per parameter, the root mean square of (mean - truth) / sd over the groups that were
kept from training, if above 1.

More objects than a simulated group has are treated as that many: their statistical error is then
small beside that of the nuisance parameters.

A group whose moments are far from those of all simulated groups is flagged: no choice of the
nuisance parameters makes it.

References:
    | Papamakarios & Murray 2016, https://arxiv.org/abs/1605.06376
    | Ward et al. 2022, https://arxiv.org/abs/2210.06564 (errors of the model as nuisance)
    | docs/error-bars.md
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import stats

from sbi_core.combiners.moments import SubsetCombiner, shared_space, simulator_of
from sbi_core.components import Embedding, InputShape, Rng, Simulator, Training
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.data.writing import write_atomic
from sbi_core.embeddings import identity
from sbi_core.errors import ConfigError, DataFileError, ObservationError, PriorMismatchError
from sbi_core.estimators.mixture import MixtureConfig, MixtureEstimator
from sbi_core.files.tensors import read_json
from sbi_core.posterior import UNLIKE, CombinedPosterior, Posterior, combined_from_gaussian
from sbi_core.priors.space import ParameterSpace
from sbi_core.rng import as_generator, stream
from sbi_core.simulate.nuisances import (
    OUTLIERS,
    ZERO_POINTS,
    disturbed,
    families,
    switch_name,
)
from sbi_core.training.config import TrainConfig
from sbi_core.training.splits import splits_of
from sbi_core.validation import Options

__all__ = ["GroupMomentsCombiner", "GroupMomentsConfig"]

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]
_MOST_VALUES = 20  # observables per object
_COPIES = 32  # random parts of each simulated group
_ON = 0.8  # fraction of them in which a family is on
_COMPLETE = 0.4  # fraction of the parts with all observables; others lack any number of them
_NOISIER = 0.5  # of the parts have errors larger than those of the group, by a factor up to
_FACTOR = 4.0
_SKEWED = 10  # objects above which third moments are used
_FLOOR = 0.05  # of the standard deviation without noise, in units of the scatter of all objects
_REFERENCE = 2000  # simulated parts that show which moments are usual
_DRAWS = 40_000  # at least, for means and standard deviations
_RARE = 0.001  # probability of moments below which a group is flagged


class GroupMomentsConfig(Options):
    """Options of the combination by moments of the group."""

    groups: int = Field(8000, ge=200, description="simulated groups for training")
    size: int = Field(100, ge=10, description="objects in each")
    epochs: int = Field(8, ge=1, description="epochs of the training")
    hidden: tuple[int, ...] = Field(
        (192, 192, 192), min_length=1, description="layer widths of the network"
    )
    components: int = Field(6, ge=1, description="Gaussians of the mixture")
    samples: int = Field(4000, ge=1, description="draws of the combined posterior that are kept")


class GroupMomentsCombiner(SubsetCombiner):
    """A network on moments of the group, with nuisance parameters marginalised (see the module).

    See Also
    --------
    sbi_core.combiners.simulated_moments : nominal values of the nuisance parameters; much sharper.
    """

    name = "group-moments"
    marginalises = True

    def __init__(self, config: GroupMomentsConfig | None = None) -> None:
        self.config = config or GroupMomentsConfig()
        self.groups_needed, self.group_size = self.config.groups, self.config.size
        self._simulator: Simulator | None = None
        self._estimator: MixtureEstimator | None = None
        self._moments: _Moments | None = None
        self._usual: _Usual | None = None
        self._width: F64 = np.ones(1)  # factor of the standard deviations, (d,)

    def attach(self, simulator: Simulator) -> None:
        """Take the simulator, for its names of nuisance parameters."""
        self._simulator = simulator

    def check_shape(self, shape: InputShape) -> None:
        """Refuse images, sets and long rows."""
        if len(shape.x) != 1 or shape.x[0] > _MOST_VALUES:
            msg = (
                f"the group-moments combiner takes one row of at most {_MOST_VALUES} numbers per "
                f"object, these data have shape {shape.x}: use 'simulated-moments'"
            )
            raise ObservationError(msg)

    @property
    def families(self) -> tuple[str, ...]:
        """Families of nuisance parameters that are marginalised."""
        return () if self._moments is None else self._moments.families

    # -- learning ------------------------------------------------------------------

    def prepare(
        self, posterior: Posterior, groups: Iterable[Observations], *, seed: int = 0
    ) -> Mapping[str, float]:
        """Train on groups that were simulated with nuisance parameters.

        Raises
        ------
        ConfigError
            If no simulator was attached, or no parameter is shared.
        PriorMismatchError
            If the posterior was trained under another prior than the simulator has.
        ObservationError
            If objects are not one row of at most 20 numbers.
        """
        simulator, space = simulator_of(self.name, self._simulator, posterior)
        every = list(groups)
        self.check_shape(InputShape.of(every[0].batch))
        moments = _Moments.of(every, simulator, self.config.size)
        parts = [
            self._part(g, moments, space, stream(seed, "parts", k)) for k, g in enumerate(every)
        ]
        inputs, truths = (np.concatenate(v) for v in zip(*parts, strict=True))
        key = np.repeat(np.arange(len(every)), _COPIES)
        batch = Batch(
            x=torch.as_tensor(inputs, dtype=torch.float32),
            theta=torch.as_tensor(truths),
            split_key=torch.as_tensor(key),
        )
        config = MixtureConfig(components=self.config.components, hidden=self.config.hidden)
        estimator = MixtureEstimator(config)
        training = Training(
            batch=batch,
            space=space,
            columns=tuple(range(space.dim)),
            observe=lambda b, rng: b,
            config=TrainConfig(epochs=self.config.epochs, learning_rate=3e-3, batch_size=1024),
            seed=seed,
        )
        record = estimator.fit(training, Embedding.of(identity.IdentityEmbedding()))
        self._estimator, self._moments = estimator, moments
        self._usual = _Usual.of(moments, every, stream(seed, "usual"))
        self._width = _width_of(estimator, batch[splits_of(training).test], space)
        return {"groups": float(len(every)), "test_nll": record.test_nll}

    def _part(
        self,
        group: Observations,
        moments: _Moments,
        space: ParameterSpace,
        rng: np.random.Generator,
    ) -> tuple[F64, F64]:
        """Return inputs (copies, k) and truths (copies, d) of random parts of a group."""
        data, theta = _Data.of(group.batch), group.batch.theta
        assert theta is not None
        names = group.truth_names
        first = theta[0].double().cpu().numpy()
        truth = first[[names.index(n) for n in space.names]]
        on = {f: bool(first[names.index(switch_name(f))]) for f in moments.simulated}
        parts = [moments.altered(data, on, rng) for _ in range(_COPIES)]
        rows = moments.inputs(_Data.stacked([p for p, _ in parts]), np.stack([s for _, s in parts]))
        return rows, np.tile(truth, (_COPIES, 1))

    # -- combining -----------------------------------------------------------------

    def combine_subsets(
        self,
        posterior: Posterior,
        observations: Observations,
        subsets: Sequence[slice],
        *,
        rng: Rng = 0,
    ) -> list[CombinedPosterior]:
        """Combine several subsets by the trained network."""
        estimator, moments, usual = self._trained()
        space = shared_space(posterior)
        if space.hash != estimator.space.hash:
            msg = f"the network of the {self.name} combiner was trained with another prior"
            raise PriorMismatchError(msg)
        data, gen = moments.checked(observations.batch), as_generator(rng)
        found = []
        for rows in subsets:
            part = data[rows]
            batch = _batch(moments.inputs(part, moments.switches()))
            mean, cov = estimator.gaussian_moments(batch)
            cov = cov * np.outer(self._width, self._width)
            if not part.there.any():
                mean, cov = np.zeros_like(mean), np.eye(space.z_dim)[None]
            p = usual.probability(moments, part)
            flags: tuple[str, ...] = (UNLIKE,) if p < _RARE else ()
            if (part.noise(moments.scale) > _FACTOR * moments.noisiest).any():
                flags += ("errors_not_simulated",)
            result = combined_from_gaussian(
                self.name,
                space,
                len(part),
                mean[0],
                cov[0],
                draws=self.config.samples,
                rng=gen,
                diagnostics={"misspecification_p": p},
                flags=flags,
            )
            draws = result.samples
            if part.there.any():
                draws = self._drawn(estimator, batch, gen)
            found.append(
                replace(
                    result,
                    samples=draws[: self.config.samples],
                    mean=draws.mean(0),
                    cov=np.atleast_2d(np.cov(draws.T)),
                )
            )
        return found

    def error_budget(self, observations: Observations) -> dict[str, F64]:
        """Return standard deviations (d,) with each family at its nominal values.

        ``"all"`` is the result with all families, ``"none"`` that without any; the values are
        physical, in the order of the shared parameters.
        """
        estimator, moments, _ = self._trained()
        data = moments.checked(observations.batch)
        cases: dict[str, tuple[str, ...]] = {"all": (), **{f: (f,) for f in moments.families}}
        cases["none"] = moments.families
        inputs = {k: moments.inputs(data, moments.switches(off)) for k, off in cases.items()}
        return {k: self._both(estimator, v)[1] for k, v in inputs.items()}

    def leave_one_out(self, observations: Observations) -> dict[str, tuple[F64, F64]]:
        """Return mean and standard deviation, each (d,), without each observable that is there.

        An observable is left out of the table if nothing remains without it.
        """
        estimator, moments, _ = self._trained()
        data = moments.checked(observations.batch)
        found = {}
        for k, name in enumerate(moments.names):
            rest = data.without(k)
            if data.there[:, k].any() and rest.there.any():
                found[name] = self._both(estimator, moments.inputs(rest, moments.switches()))
        return found

    def _both(self, estimator: MixtureEstimator, inputs: F64) -> tuple[F64, F64]:
        draws = self._drawn(estimator, _batch(inputs), stream(0, self.name))
        return draws.mean(0), draws.std(0)

    def _drawn(self, estimator: MixtureEstimator, batch: Batch, rng: np.random.Generator) -> F64:
        """Return draws (S, d) for one group."""
        draws = estimator.sample(batch, max(self.config.samples, _DRAWS), rng)[:, 0]
        mean = estimator.gaussian_moments(batch)[0]
        z = mean + self._width * (estimator.space.to_unconstrained(draws) - mean)
        return estimator.space.from_unconstrained(z)

    def _trained(self) -> tuple[MixtureEstimator, _Moments, _Usual]:
        if self._estimator is None or self._moments is None or self._usual is None:
            msg = f"the {self.name} combiner is not trained; call prepare(posterior, groups) first"
            raise ConfigError(msg)
        return self._estimator, self._moments, self._usual

    # -- files ---------------------------------------------------------------------

    def save(self, directory: str | Path) -> None:
        """Write the network, and ``moments.json``."""
        if self._estimator is None:
            return
        estimator, moments, usual = self._trained()
        directory = Path(directory)
        estimator.save(directory)
        content: dict[str, object] = {"moments": moments.to_spec(), "usual": usual.to_spec()}
        content["width"] = self._width.tolist()
        write_atomic(directory / "moments.json", json.dumps(content).encode())

    def restore(self, directory: str | Path) -> None:
        """Read what :meth:`save` wrote.

        Raises
        ------
        DataFileError
            If a file is missing or damaged, or written by a version with other moments.
        """
        directory = Path(directory)
        run = directory.parent.parent
        again = f"run its command again with --config {run / 'run.toml'} --out {run}"
        if not (directory / "moments.json").exists():
            msg = f"the stage 'combine' of {run} did not finish: {again}"
            raise DataFileError(msg)
        content = read_json(directory / "moments.json")
        try:
            moments = _Moments.from_spec(content["moments"])
            usual = _Usual.from_spec(content["usual"])
            width = np.asarray(content.get("width", [1.0]), np.float64)  # earlier versions: none
        except (KeyError, TypeError, ValueError) as error:
            msg = f"the combiner in '{directory}' is damaged: {error!r}"
            raise DataFileError(msg) from None
        estimator = MixtureEstimator.load(directory)
        inputs, trained = moments.number, estimator.network.standardizer.shape.x[0]
        if inputs != trained:
            msg = (
                f"the combiner in '{directory}' was trained by another version, on {trained} "
                f"moments instead of {inputs}: {again} --restart combine"
            )
            raise DataFileError(msg)
        self._estimator, self._moments, self._usual = estimator, moments, usual
        self._width = width


def _width_of(estimator: MixtureEstimator, batch: Batch, space: ParameterSpace) -> F64:
    """Return the rms of (mean - truth) / sd (d,) of groups that were kept from training."""
    assert batch.theta is not None
    mean, cov = estimator.gaussian_moments(batch)
    z = mean - space.to_unconstrained(batch.theta.double().cpu().numpy())
    rms = np.sqrt((z**2 / np.diagonal(cov, axis1=1, axis2=2)).mean(0))
    return np.asarray(np.maximum(rms, 1.0))


def _products(first: F64, second: F64) -> F64:
    """Return the sums over objects of the products of two observables, (..., k, k)."""
    return np.asarray(first.swapaxes(-1, -2) @ second)


def _batch(inputs: F64) -> Batch:
    return Batch(x=torch.as_tensor(np.atleast_2d(inputs), dtype=torch.float32))


@dataclass(frozen=True, slots=True)
class _Data:
    """Of one group or of several: values, 0 where missing; errors, 0 where there are none; present.

    All (..., n, k).
    """

    value: F64
    error: F64
    there: Mask

    @classmethod
    def of(cls, batch: Batch) -> _Data:
        there = batch.observed.cpu().numpy()
        value = np.where(there, batch.x.double().cpu().numpy(), 0.0)
        error = np.zeros_like(value)
        if batch.x_err is not None:
            error = np.where(there, batch.x_err.double().cpu().numpy(), 0.0)
        return cls(value, error, there)

    @classmethod
    def stacked(cls, parts: Sequence[_Data]) -> _Data:
        """Return several groups as one, (c, n, k): objects that a group lacks are missing."""
        shape = (len(parts), max(map(len, parts)), parts[0].value.shape[1])
        value, error, there = np.zeros(shape), np.zeros(shape), np.zeros(shape, bool)
        for c, part in enumerate(parts):
            value[c, : len(part)], error[c, : len(part)] = part.value, part.error
            there[c, : len(part)] = part.there
        return cls(value, error, there)

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> _Data:
        return _Data(self.value[rows], self.error[rows], self.there[rows])

    def without(self, column: int) -> _Data:
        """Return the data without one observable."""
        there = self.there.copy()
        there[..., column] = False
        return self.masked(there)

    def noise(self, scale: F64) -> F64:
        """Return the rms error of each observable, (..., k), in units of a scale."""
        square = ((self.error / scale) ** 2).sum(-2)
        return np.asarray(np.sqrt(square / np.maximum(self.there.sum(-2), 1)))

    def masked(self, there: Mask) -> _Data:
        return _Data(np.where(there, self.value, 0.0), np.where(there, self.error, 0.0), there)


@dataclass(frozen=True, slots=True)
class _Moments:
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
    def of(cls, groups: Sequence[Observations], simulator: Simulator, most: int) -> _Moments:
        data = [_Data.of(g.batch) for g in groups]
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
        data = _Data(nothing, nothing, nothing > 0)
        return len(self.inputs(data, self.switches()))

    def switches(self, off: Sequence[str] = ()) -> Mask:
        """Return which families are on, (families,): all but some."""
        return np.array([f not in off for f in self.families], bool)

    def checked(self, batch: Batch) -> _Data:
        """Return data that have the observables of the training."""
        if tuple(batch.x.shape[1:]) != (len(self.names),):
            msg = (
                f"the group-moments combiner was trained with {len(self.names)} numbers per "
                f"object, these data have shape {tuple(batch.x.shape[1:])}"
            )
            raise ObservationError(msg)
        return _Data.of(batch)

    def altered(
        self, data: _Data, on: Mapping[str, bool], rng: np.random.Generator
    ) -> tuple[_Data, Mask]:
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
            more = error * np.exp(rng.uniform(0.0, np.log(_FACTOR)))
            value += np.sqrt(more**2 - error**2) * rng.standard_normal(value.shape)
            error = more
        zero_point = self.zero_point if own[ZERO_POINTS] else 0.0
        value = disturbed(value, error, zero_point, rng, outliers=own[OUTLIERS])
        switches = np.array([own[f] for f in self.families], bool)
        return _Data(value, error, there).masked(there), switches

    def inputs(self, data: _Data, on: Mask) -> F64:
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
    def from_spec(cls, spec: Mapping[str, object]) -> _Moments:
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
class _Usual:
    """Means (k,) of simulated groups of full size, their covariance, and squared distances."""

    centre: F64
    cov: F64
    distance: F64

    @classmethod
    def of(
        cls, moments: _Moments, groups: Sequence[Observations], rng: np.random.Generator
    ) -> _Usual:
        chosen = rng.permutation(len(groups))[:_REFERENCE]
        on = moments.switches()
        rows = np.stack([moments.inputs(_Data.of(groups[g].batch), on) for g in chosen])
        rows = rows[:, : len(moments.names)]
        half = len(rows) // 2
        centre, cov = rows[:half].mean(0), np.atleast_2d(np.cov(rows[:half].T))
        found = cls(centre, cov + 1e-9 * np.eye(len(centre)), np.zeros(0))
        every = np.ones(len(centre), bool)
        return replace(found, distance=np.sort([found._square(r, every) for r in rows[half:]]))

    def probability(self, moments: _Moments, data: _Data) -> float:
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
    def from_spec(cls, spec: Mapping[str, object]) -> _Usual:
        """Build from the table of :meth:`to_spec`."""
        return cls(*(np.asarray(spec[k], np.float64) for k in ("centre", "cov", "distance")))
