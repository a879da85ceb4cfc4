r"""Comparison of several simulators as models of one group of objects: amortised and calibrated.

Simulators :math:`M_1 .. M_K` (e.g. one model with different tables) describe the same observables.
A network is trained on simulated groups, each from one simulator at one draw of the shared
parameters, all equally often, and of random size N; with the mean summary :math:`\bar h` of the
objects,

.. math:: p(M_k\,|\,x_1 .. x_N) = \mathrm{softmax}_k\left[\frac{\sqrt{1 + N}}{T}\,
          \rho_k(\bar h, \log(1 + N))\right].

The temperature T is fitted on held-out groups; how well probabilities are calibrated is measured
on other held-out groups. Shared parameters are marginalised: they differ from group to group. With
posteriors :math:`p(\Lambda\,|\,x, M_k)` of every model, the one that no longer depends on it is

.. math:: p(\Lambda\,|\,x) = \sum_k p(M_k\,|\,x)\,p(\Lambda\,|\,x, M_k) .

All probabilities are relative to the models given: all of them may be wrong. The check that a model
reproduces the objects is in :mod:`sbi_core.diagnostics.misspecification`.

References:
    | Radev et al. 2021, https://arxiv.org/abs/2004.10629 (amortised model comparison)
    | Guo et al. 2017, https://arxiv.org/abs/1706.04599 (temperature scaling, calibration error)
    | Hoeting et al. 1999, Stat. Sci. 14, 382 (Bayesian model averaging)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy import optimize, special
from torch import Tensor, nn
from torch.nn import functional

from sbi_core.combiners.set_network import exists
from sbi_core.combiners.set_training import (
    SetLoader,
    Sets,
    SetSource,
    simulate_sets,
    sums,
    train_sets,
)
from sbi_core.components import InputShape, Rng, Simulator
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.embeddings.identity import Joined
from sbi_core.errors import ConfigError, ObservationError
from sbi_core.posterior import CombinedPosterior
from sbi_core.rng import as_generator, seeded, stream, torch_defaults
from sbi_core.training.networks import Standardizer, mlp
from sbi_core.validation import Options

__all__ = ["CompareConfig", "ModelComparison", "ModelProbabilities", "average"]

F64 = NDArray[np.float64]
_BINS = 10  # of the calibration error


class CompareConfig(Options):
    """Options of the comparison."""

    max_objects: int = Field(100, ge=1, description="largest number of objects of a group")
    simulations: int = Field(100_000, ge=1000, description="objects simulated per model")
    steps: int = Field(1500, ge=1, description="training steps")
    rows: int = Field(4096, ge=1, description="objects per training step (about)")
    learning_rate: float = Field(3e-3, gt=0, description="peak learning rate")
    member: tuple[int, ...] = Field((64, 64), min_length=1, description="widths per object")
    pooled: int = Field(32, ge=1, description="length of the summary that is averaged")
    hidden: tuple[int, ...] = Field((64, 64), min_length=1, description="widths per group")


@dataclass(frozen=True, slots=True)
class ModelProbabilities:
    """Posterior probabilities of the models given one group.

    Parameters
    ----------
    names
        The models.
    probability : (K,)
        Sum 1; for equal prior probabilities.
    n
        Objects of the group.
    """

    names: tuple[str, ...]
    probability: F64
    n: int

    @property
    def best(self) -> str:
        """The most probable model."""
        return self.names[int(np.argmax(self.probability))]

    def __repr__(self) -> str:
        listed = ", ".join(
            f"{name} {p:.3g}" for name, p in zip(self.names, self.probability, strict=True)
        )
        return f"ModelProbabilities(n={self.n}: {listed})"


class _Classifier(nn.Module):
    def __init__(self, standardizer: Standardizer, models: int, config: CompareConfig) -> None:
        super().__init__()
        self.standardizer = standardizer
        self.joined = Joined(standardizer.shape)
        self.member = mlp(self.joined.out_features, config.member, config.pooled)
        self.group = mlp(config.pooled + 1, config.hidden, models)

    def terms(self, batch: Batch) -> Tensor:
        h: Tensor = self.member(self.joined(*self.standardizer(batch)))
        return h

    def forward(self, total: Tensor, count: Tensor) -> Tensor:
        n = count.to(total.dtype).unsqueeze(-1)
        e = torch.cat([total / n.clamp(min=1.0), n.log1p()], -1)
        logits: Tensor = n.sqrt() * self.group(e)  # nothing observed: all equally probable
        return logits


class ModelComparison:
    """Amortised posterior probabilities of several simulators.

    Parameters
    ----------
    simulators
        By name; at least two, with the same observables, and at least one shared parameter each.
    config
        Options.

    Attributes
    ----------
    facts
        Of held-out groups: ``accuracy``, ``loss`` (mean of -log p of the right model),
        ``calibration_error`` (mean difference of stated and true probability), that before
        scaling, and ``temperature``.

    Raises
    ------
    ConfigError
        If there are fewer than two simulators, or they do not describe the same observables.
    """

    def __init__(
        self, simulators: Mapping[str, Simulator], config: CompareConfig | None = None
    ) -> None:
        self.simulators, self.config = dict(simulators), config or CompareConfig()
        self.facts: dict[str, float] = {}
        self._network: _Classifier | None = None
        self._temperature = 1.0
        if len(self.simulators) < 2:
            msg = f"a comparison needs at least two models, got {list(self.simulators)}"
            raise ConfigError(msg)
        first, *others = self.simulators
        columns = [o.name for o in self.simulators[first].observables]
        for name in others:
            own = [o.name for o in self.simulators[name].observables]
            if own != columns:
                msg = (
                    f"models '{first}' and '{name}' have different observables: {columns} and {own}"
                )
                raise ConfigError(msg)
        for name, simulator in self.simulators.items():
            if "global" not in simulator.parameters.scopes:
                msg = f"model '{name}' has no shared parameter: its objects form no groups"
                raise ConfigError(msg)

    @property
    def names(self) -> tuple[str, ...]:
        """The models."""
        return tuple(self.simulators)

    @torch_defaults()
    def fit(self, like: Batch, *, seed: int = 0) -> Mapping[str, float]:
        """Simulate groups of every model, observed like given objects, and train.

        Parameters
        ----------
        like
            Objects with typical errors, missing values and context, e.g. the data.
        seed
            Seed of all random numbers.

        Raises
        ------
        ObservationError
            If data are not one row of numbers per object.
        """
        c = self.config
        like = like.with_(theta=None).to("cpu", torch.float32)
        if like.x.ndim != 2:
            msg = f"comparison takes one row of numbers per object, not {tuple(like.x.shape[1:])}"
            raise ObservationError(msg)
        sources = []
        for k, simulator in enumerate(self.simulators.values()):
            own = int(stream(seed, "compare", k).integers(2**31))
            space = simulator.parameters.select("global")
            sources.append(simulate_sets(simulator, space, c.simulations, c.max_objects, own))
        truths = [np.eye(len(sources))[[k] * len(s.truth)] for k, s in enumerate(sources)]
        source = SetSource.cat(sources, truths)
        simulator = next(iter(self.simulators.values()))  # all are observed in the same way
        some = np.sort(stream(seed, "compare", "scale").permutation(len(source.batch))[:20_000])
        groups = simulator.observe_like(source.batch[some], like, stream(seed, "compare", "noise"))
        standardizer = Standardizer(InputShape.of(like)).fit(groups.to("cpu", torch.float32))
        with seeded(stream(seed, "compare", "weights")):
            network = _Classifier(standardizer, len(sources), c)

        def loss(sets: Sets) -> Tensor:
            return functional.cross_entropy(_logits(network, sets), sets[3], reduction="none")

        loader = SetLoader(source, simulator, like, c.max_objects)
        _, check = train_sets(
            network,
            loader,
            loss,
            steps=c.steps,
            rows=c.rows,
            learning_rate=c.learning_rate,
            seed=seed,
        )
        self._network = network.double().eval()
        with torch.no_grad():
            logits = _logits(network, check).numpy()
        label = check[3].argmax(1).numpy()
        even = np.arange(len(label)) % 2 == 0
        self._temperature = _temperature(logits[even], label[even])
        before = _quality(logits[~even], label[~even])
        after = _quality(logits[~even] / self._temperature, label[~even])
        self.facts = {
            **after,
            "calibration_error_before": before["calibration_error"],
            "temperature": self._temperature,
            "groups": float(len(source.truth)),
        }
        return self.facts

    @torch_defaults()
    @torch.no_grad()
    def probabilities(self, observations: Observations) -> ModelProbabilities:
        """Return the probabilities of the models given the objects of one group.

        Raises
        ------
        ConfigError
            Before :meth:`fit`.
        ObservationError
            If there are more objects than it was trained for.
        """
        network = self._network
        if network is None:
            msg = "the comparison is not trained yet: call fit"
            raise ConfigError(msg)
        batch = observations.batch.with_(theta=None).to("cpu", torch.float64)
        batch = batch[exists(batch)]
        network.standardizer.check(batch)
        if len(batch) > self.config.max_objects:
            msg = (
                f"{len(batch)} objects are more than the {self.config.max_objects} that the "
                "comparison was trained for: set max_objects higher"
            )
            raise ObservationError(msg)
        total = network.terms(batch).sum(0, keepdim=True)
        logits = network(total, torch.tensor([len(batch)])) / self._temperature
        p = logits.softmax(-1)[0].numpy()
        return ModelProbabilities(self.names, p, len(observations))


def average(
    posteriors: Sequence[CombinedPosterior], probability: F64, *, draws: int, rng: Rng
) -> tuple[F64, F64, F64]:
    """Return draws (S, d), mean (d,) and covariance (d, d) of the average over models.

    Parameters
    ----------
    posteriors
        One per model, of the same shared parameters (their priors may differ).
    probability : (K,)
        Probabilities of the models.
    draws
        Number of draws.
    rng
        Random numbers of the draws.

    Raises
    ------
    ConfigError
        If the posteriors are of different parameters, or their number is not that of the models.
    """
    names = {p.names for p in posteriors}
    if len(names) != 1 or len(posteriors) != len(probability):
        msg = (
            f"{len(posteriors)} posteriors of {sorted(names)} and {len(probability)} models: an "
            "average needs one posterior per model, all of the same parameters"
        )
        raise ConfigError(msg)
    gen = as_generator(rng)
    mean = sum(w * p.mean for w, p in zip(probability, posteriors, strict=True))
    cov = sum(
        w * (p.cov + np.outer(p.mean - mean, p.mean - mean))
        for w, p in zip(probability, posteriors, strict=True)
    )
    counts = gen.multinomial(draws, probability / probability.sum())
    parts = [p.sample(int(k), gen) for k, p in zip(counts, posteriors, strict=True) if k]
    return gen.permutation(np.concatenate(parts)), np.asarray(mean), np.asarray(cov)


def _logits(network: _Classifier, sets: Sets) -> Tensor:
    objects, index, counts, _ = sets
    logits: Tensor = network(sums(network.terms(objects), index, len(counts)), counts)
    return logits


def _temperature(logits: F64, label: NDArray[np.int64]) -> float:
    """Return the T that makes the labels most probable."""

    def loss(log_t: float) -> float:
        log_p = special.log_softmax(logits / np.exp(log_t), axis=1)
        return float(-log_p[np.arange(len(label)), label].mean())

    return float(np.exp(optimize.minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def _quality(logits: F64, label: NDArray[np.int64]) -> dict[str, float]:
    """Return accuracy, mean loss, and calibration error of the highest probability."""
    log_p = special.log_softmax(logits, axis=1)
    chosen, stated = log_p.argmax(1), np.exp(log_p.max(1))
    right = chosen == label
    order = np.array_split(np.argsort(stated), min(_BINS, max(1, len(label) // 20)))
    gaps = [abs(float(stated[b].mean() - right[b].mean())) * len(b) for b in order if len(b)]
    return {
        "accuracy": float(right.mean()),
        "loss": float(-log_p[np.arange(len(label)), label].mean()),
        "calibration_error": float(sum(gaps) / len(label)),
    }
