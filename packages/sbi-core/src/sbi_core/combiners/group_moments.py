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

The density is the mean of three networks that start from different weights. Where the data say
much, networks that saw few groups are somewhat too sure. The standard deviations s, in units of the
prior's, are therefore stretched by :math:`1 + c\,(1 - s^2)`, with a constant c of each parameter
that the groups choose that were kept from training (largest normal likelihood).

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
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import optimize

from sbi_core.combiners.group_summaries import LARGEST_FACTOR, GroupData, GroupMoments, UsualMoments
from sbi_core.combiners.moments import SubsetCombiner, attached, shared_part, shared_space
from sbi_core.components import Embedding, InputShape, Rng, Simulator, Training
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.data.writing import write_atomic
from sbi_core.embeddings import identity
from sbi_core.errors import ConfigError, DataFileError, ObservationError, PriorMismatchError
from sbi_core.estimators.ensemble import EnsembleConfig, EnsembleEstimator
from sbi_core.files.tensors import read_json
from sbi_core.posterior import UNLIKE, CombinedPosterior, Posterior, combined_from_gaussian
from sbi_core.priors.space import ParameterSpace
from sbi_core.rng import as_generator, stream
from sbi_core.simulate.nuisances import SELECTION, switch_name
from sbi_core.training.config import TrainConfig
from sbi_core.training.splits import splits_of
from sbi_core.validation import Options

__all__ = ["GroupMomentsCombiner", "GroupMomentsConfig"]

F64 = NDArray[np.float64]
_MOST_VALUES = 20  # observables per object
_COPIES = 32  # random parts of each simulated group
_DRAWS = 40_000  # at least, for means and standard deviations
_RARE = 0.001  # probability of moments below which a group is flagged
_MEMBERS = 3  # networks
_WEIGHT_DECAY = 0.4  # without it they learn the simulated groups by heart
_LARGEST_STRETCH = 1.0
_VERSION = 2  # of the stored moments


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
    selected: bool = Field(
        True,
        description="the objects may have been chosen by a range of an observable that the "
        "simulator names; false: they are a fair sample",
    )


class GroupMomentsCombiner(SubsetCombiner):
    """A network on moments of the group, with nuisance parameters marginalised (see the module).

    See Also
    --------
    sbi_core.combiners.simulated_moments : nominal values of the nuisance parameters; much sharper.
    """

    name = "group-moments"
    learns_alone = True
    marginalises = True

    def __init__(self, config: GroupMomentsConfig | None = None) -> None:
        self.config = config or GroupMomentsConfig()
        self.groups_needed, self.group_size = self.config.groups, self.config.size
        self._simulator: Simulator | None = None
        self._estimator: EnsembleEstimator | None = None
        self._moments: GroupMoments | None = None
        self._usual: UsualMoments | None = None
        self._stretch: F64 = np.zeros(1)  # of the standard deviations, (d,)

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
        every = () if self._moments is None else self._moments.families
        return tuple(f for f in every if f not in self._off)

    @property
    def _off(self) -> tuple[str, ...]:
        """Families that have their nominal values."""
        return () if self.config.selected else (SELECTION,)

    # -- learning ------------------------------------------------------------------

    def learn(self, groups: Iterable[Observations], *, seed: int = 0) -> Mapping[str, float]:
        """Train on groups that were simulated with nuisance parameters.

        Raises
        ------
        ConfigError
            If no simulator was attached, or no parameter is shared.
        ObservationError
            If objects are not one row of at most 20 numbers.
        """
        simulator = attached(self.name, self._simulator)
        space = shared_part(simulator.parameters)
        every = list(groups)
        self.check_shape(InputShape.of(every[0].batch))
        moments = GroupMoments.of(every, simulator, self.config.size)
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
        member = {"components": self.config.components, "hidden": self.config.hidden}
        estimator = EnsembleEstimator(
            EnsembleConfig(members=_MEMBERS, of="mixture", options=member)
        )
        training = Training(
            batch=batch,
            space=space,
            columns=tuple(range(space.dim)),
            observe=lambda b, rng: b,
            config=TrainConfig(
                epochs=self.config.epochs,
                learning_rate=3e-3,
                batch_size=1024,
                weight_decay=_WEIGHT_DECAY,
                retries=0,
            ),
            seed=seed,
        )
        record = estimator.fit(training, Embedding.of(identity.IdentityEmbedding()))
        self._estimator, self._moments = estimator, moments
        self._usual = UsualMoments.of(moments, every, stream(seed, "usual"))
        self._stretch = _stretch_of(estimator, batch[splits_of(training).test], space)
        return {"groups": float(len(every)), "test_nll": record.test_nll}

    def _part(
        self,
        group: Observations,
        moments: GroupMoments,
        space: ParameterSpace,
        rng: np.random.Generator,
    ) -> tuple[F64, F64]:
        """Return inputs (copies, k) and truths (copies, d) of random parts of a group."""
        data, theta = GroupData.of(group.batch), group.batch.theta
        assert theta is not None
        names = group.truth_names
        first = theta[0].double().cpu().numpy()
        truth = first[[names.index(n) for n in space.names]]
        on = {f: bool(first[names.index(switch_name(f))]) for f in moments.simulated}
        parts = [moments.altered(data, on, rng) for _ in range(_COPIES)]
        rows = moments.inputs(
            GroupData.stacked([p for p, _ in parts]), np.stack([s for _, s in parts])
        )
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
            batch = _batch(moments.inputs(part, moments.switches(self._off)))
            mean, cov = estimator.gaussian_moments(batch)
            factor = self._factor(cov)[0]
            cov = cov * np.outer(factor, factor)
            if not part.there.any():
                mean, cov = np.zeros_like(mean), np.eye(space.z_dim)[None]
            p = usual.probability(moments, part)
            flags: tuple[str, ...] = (UNLIKE,) if p < _RARE else ()
            if (part.noise(moments.scale) > LARGEST_FACTOR * moments.noisiest).any():
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
        varied = [f for f in moments.families if f not in self._off]
        cases: dict[str, tuple[str, ...]] = {"all": (), **{f: (f,) for f in varied}}
        cases["none"] = moments.families
        on = {k: moments.switches((*self._off, *off)) for k, off in cases.items()}
        inputs = {k: moments.inputs(data, v) for k, v in on.items()}
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
                on = moments.switches(self._off)
                found[name] = self._both(estimator, moments.inputs(rest, on))
        return found

    def _both(self, estimator: EnsembleEstimator, inputs: F64) -> tuple[F64, F64]:
        draws = self._drawn(estimator, _batch(inputs), stream(0, self.name))
        return draws.mean(0), draws.std(0)

    def _drawn(self, estimator: EnsembleEstimator, batch: Batch, rng: np.random.Generator) -> F64:
        """Return draws (S, d) for one group."""
        draws = estimator.sample(batch, max(self.config.samples, _DRAWS), rng)[:, 0]
        mean, cov = estimator.gaussian_moments(batch)
        z = mean + self._factor(cov) * (estimator.space.to_unconstrained(draws) - mean)
        return estimator.space.from_unconstrained(z)

    def _factor(self, cov: F64) -> F64:
        """Return the factors (n, d) of standard deviations for covariances (n, d, d)."""
        return 1 + self._stretch * _known(np.diagonal(cov, axis1=1, axis2=2))

    def _trained(self) -> tuple[EnsembleEstimator, GroupMoments, UsualMoments]:
        if self._estimator is None or self._moments is None or self._usual is None:
            msg = f"the {self.name} combiner is not trained; call prepare(posterior, groups) first"
            raise ConfigError(msg)
        return self._estimator, self._moments, self._usual

    # -- files ---------------------------------------------------------------------

    def save(self, directory: str | Path) -> None:
        """Write the networks, and ``moments.json``."""
        if self._estimator is None:
            return
        estimator, moments, usual = self._trained()
        directory = Path(directory)
        estimator.save(directory)
        content: dict[str, object] = {"moments": moments.to_spec(), "usual": usual.to_spec()}
        content |= {"version": _VERSION, "inputs": moments.number}
        content["stretch"] = self._stretch.tolist()
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
        other = (
            f"the combiner in '{directory}' was trained by another version, on other moments: "
            f"{again} --restart combine"
        )
        if "usual" in content and content.get("version") != _VERSION:
            raise DataFileError(other)
        try:
            moments = GroupMoments.from_spec(content["moments"])
            usual = UsualMoments.from_spec(content["usual"])
            stretch = np.asarray(content["stretch"], np.float64)
        except (KeyError, TypeError, ValueError) as error:
            msg = f"the combiner in '{directory}' is damaged: {error!r}"
            raise DataFileError(msg) from None
        if content.get("inputs") != moments.number:
            raise DataFileError(other)
        self._estimator = EnsembleEstimator.load(directory)
        self._moments, self._usual, self._stretch = moments, usual, stretch


def _known(variance: F64) -> F64:
    """Return the share of the prior's variance that the data remove, at least 0."""
    return np.asarray(np.maximum(1.0 - variance, 0.0))


def _stretch_of(estimator: EnsembleEstimator, batch: Batch, space: ParameterSpace) -> F64:
    """Return the constants c (d,) of the module, from groups that were kept from training."""
    assert batch.theta is not None
    mean, cov = estimator.gaussian_moments(batch)
    variance = np.diagonal(cov, axis1=1, axis2=2)
    z = (mean - space.to_unconstrained(batch.theta.double().cpu().numpy())) / np.sqrt(variance)

    def loss(c: float, k: int) -> float:
        factor = 1 + c * _known(variance[:, k])
        return float((np.log(factor) + 0.5 * (z[:, k] / factor) ** 2).mean())

    bounds = (0.0, _LARGEST_STRETCH)
    found = [
        optimize.minimize_scalar(loss, bounds=bounds, args=(k,), method="bounded").x
        for k in range(z.shape[1])
    ]
    return np.asarray(found)


def _batch(inputs: F64) -> Batch:
    return Batch(x=torch.as_tensor(np.atleast_2d(inputs), dtype=torch.float32))
