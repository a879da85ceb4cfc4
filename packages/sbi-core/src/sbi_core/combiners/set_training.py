r"""Training of set networks on simulated sets.

Every set has its own draw of the shared parameters from the prior and a size

.. math:: N \sim \text{log-uniform on } \{1, .., N_\max\} .

Sets are simulated once, noise-free. Every training step draws new sizes, takes as many objects
from sets that are large enough, and adds fresh noise, with errors, missing values and context like
those of given objects. The rows of all sets of a step form one batch, so that small sets are cheap.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sbi_core.combiners.set_network import SetNetwork, exists
from sbi_core.components import Simulator
from sbi_core.data.batch import Batch
from sbi_core.errors import ConfigError, TrainingError
from sbi_core.priors.space import ParameterSpace
from sbi_core.rng import seeded, stream
from sbi_core.training.optimizer import one_cycle

__all__ = [
    "SetLoader",
    "SetSource",
    "Sets",
    "fit_sets",
    "log_uniform",
    "simulate_sets",
    "sums",
    "train_sets",
]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
_LOG = logging.getLogger(__name__)
_CHUNK = 50_000  # rows simulated at a time
_CLIP = 5.0
_CHECKS = 20  # validations
_HELD_OUT = 0.1  # of the sets
_FEWEST = 100  # sets


@dataclass(frozen=True)
class SetSource:
    """Noise-free objects of many sets, one set after the other.

    Parameters
    ----------
    batch
        Rows of all sets.
    truth : (G, d)
        Shared parameters, unconstrained.
    start : (G + 1,)
        First row of every set, and the number of rows.
    """

    batch: Batch
    truth: F64
    start: I64

    @property
    def sizes(self) -> I64:
        """Objects per set, (G,)."""
        return np.diff(self.start)

    @staticmethod
    def cat(sources: Sequence[SetSource], truths: Sequence[F64]) -> SetSource:
        """Join sources, with other truths, one row per set."""
        lengths = np.concatenate([s.sizes for s in sources])
        bare = [s.batch.with_(split_key=None) for s in sources]
        start = np.concatenate([[0], np.cumsum(lengths)])
        return SetSource(Batch.cat(bare), np.concatenate(list(truths)), start)

    def choose(self, which: I64, sizes: I64, rng: np.random.Generator) -> tuple[I64, I64]:
        """Return row numbers and set numbers of random parts of sets, (rows,) each.

        Objects of a set are independent, so that consecutive ones are a random part.
        """
        number = np.repeat(np.arange(len(which)), sizes)
        first = np.cumsum(sizes) - sizes
        inside = np.arange(len(number)) - first[number]
        offset = rng.integers(self.sizes[which])
        full = self.sizes[which]
        return self.start[which][number] + (offset[number] + inside) % full[number], number


def log_uniform(high: int, n: int, rng: np.random.Generator) -> I64:
    """Return n integers in 1..high, log-uniform."""
    u = rng.uniform(0.0, math.log(high + 1), n)
    return np.clip(np.exp(u).astype(np.int64), 1, high)


def simulate_sets(
    simulator: Simulator, space: ParameterSpace, rows: int, largest: int, seed: int
) -> SetSource:
    """Simulate sets of about ``rows`` objects in total; failed ones make a set smaller.

    Raises
    ------
    ConfigError
        If ``rows`` is too small for the required number of sets.
    """
    rng = stream(seed, "sets", "sizes")
    sizes = np.empty(0, np.int64)
    while sizes.sum() < rows:
        sizes = np.concatenate([sizes, log_uniform(largest, 256, rng)])
    sizes = sizes[: int(np.searchsorted(np.cumsum(sizes), rows)) + 1]
    if len(sizes) < _FEWEST:
        msg = (
            f"{rows} simulations make {len(sizes)} sets of up to {largest} objects, {_FEWEST} are "
            "needed: set combiner.simulations higher or combiner.max_objects lower"
        )
        raise ConfigError(msg)
    columns = simulator.parameters.index(space.names)
    draws = stream(seed, "sets", "truth")
    truth = simulator.parameters.sample(len(sizes), draws)[:, columns]
    number = np.repeat(np.arange(len(sizes)), sizes)
    parts = []
    for k, first in enumerate(range(0, len(number), _CHUNK)):
        own = number[first : first + _CHUNK]
        chunk = stream(seed, "sets", "simulate", k)
        theta = simulator.parameters.sample(len(own), chunk)
        theta[:, columns] = truth[own]
        batch = simulator.simulate(theta, chunk).with_(split_key=torch.as_tensor(own))
        parts.append(batch.succeeded)
    batch = Batch.cat(parts)
    assert batch.split_key is not None
    kept, counts = np.unique(batch.split_key.cpu().numpy(), return_counts=True)
    start = np.concatenate([[0], np.cumsum(counts)])
    return SetSource(batch.to("cpu"), space.to_unconstrained(truth[kept]), start)


def fit_sets(
    network: SetNetwork,
    source: SetSource,
    simulator: Simulator,
    like: Batch,
    *,
    largest: int,
    steps: int,
    rows: int,
    learning_rate: float,
    seed: int,
) -> Mapping[str, float]:
    """Train a density; parameters are those of :class:`SetLoader` and :func:`train_sets`.

    Returns
    -------
    dict
        ``sets``, ``loss`` (mean of -log q at the truths of held-out sets, unconstrained) and
        ``z_rms`` of held-out sets.

    Raises
    ------
    TrainingError
        If the loss is not finite.
    """
    loader = SetLoader(source, simulator, like, largest)

    def loss(sets: Sets) -> Tensor:
        return -_log_q(network, *sets)

    best, check = train_sets(
        network, loader, loss, steps=steps, rows=rows, learning_rate=learning_rate, seed=seed
    )
    network.double().eval()
    return {"sets": float(len(source.truth)), "loss": best, "z_rms": _z_rms(network, check)}


Sets = tuple[Batch, Tensor, Tensor, Tensor]  # objects, set numbers, counts, truths


def train_sets(
    network: nn.Module,
    loader: SetLoader,
    loss: Callable[[Sets], Tensor],
    *,
    steps: int,
    rows: int,
    learning_rate: float,
    seed: int,
) -> tuple[float, Sets]:
    """Minimise the mean loss of sets; keep the weights with the lowest loss on held-out ones.

    Parameters
    ----------
    network
        Changed in place.
    loader
        Source of the sets; every tenth by size is held out.
    loss
        Loss of every set, (B,).
    steps, rows
        Number of steps, and objects per step (about).
    learning_rate
        Peak of the cycle.
    seed
        Seed of all random numbers.

    Returns
    -------
    tuple
        Smallest mean loss of the held-out sets, and these sets, observed once.

    Raises
    ------
    TrainingError
        If the loss is not finite.
    """
    sizes = loader.source.sizes
    order = np.argsort(sizes, kind="stable")
    held = order[:: round(1 / _HELD_OUT)]
    train = np.setdiff1d(order, held, assume_unique=True)
    train = train[np.argsort(sizes[train], kind="stable")]
    check = loader.load(
        held, np.minimum(sizes[held], loader.largest), stream(seed, "sets", "check")
    )
    optimizer = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=1e-4)
    best, kept = math.inf, copy.deepcopy(network.state_dict())
    per_step = max(1, int(rows / _mean_size(loader.largest)))
    with seeded(stream(seed, "sets", "train")):
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = one_cycle(step, steps, learning_rate)
            sets = loader.draw(train, per_step, stream(seed, "sets", "step", step))
            optimizer.zero_grad()
            value = loss(sets).mean()
            value.backward()  # type: ignore[no-untyped-call]
            norm = torch.nn.utils.clip_grad_norm_(network.parameters(), _CLIP)
            if not math.isfinite(value.item() + norm.item()):
                msg = f"the loss of the set network is not finite in step {step}"
                raise TrainingError(msg)
            optimizer.step()
            if (step + 1) % max(1, steps // _CHECKS) == 0 or step + 1 == steps:
                with torch.no_grad():
                    found = float(loss(check).mean())
                _LOG.info("set network: step %d, held-out loss %.4f", step + 1, found)
                if found < best:
                    best, kept = found, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    return best, check


@dataclass(frozen=True)
class SetLoader:
    """Observed sets, ready for a network.

    Parameters
    ----------
    source
        Simulated sets.
    simulator
        Adds noise, errors and missing values.
    like
        Objects with typical errors, missing values and context.
    largest
        N_max.
    """

    source: SetSource
    simulator: Simulator
    like: Batch
    largest: int

    def draw(self, among: I64, count: int, rng: np.random.Generator) -> Sets:
        """Return random sets, their sizes log-uniform; ``among`` is sorted by size."""
        available = self.source.sizes[among]
        sizes = log_uniform(min(self.largest, int(available[-1])), count, rng)
        first = np.searchsorted(available, sizes)  # sets that are large enough
        which = among[rng.integers(first, len(among))]
        return self.load(which, sizes, rng)

    def load(self, which: I64, sizes: I64, rng: np.random.Generator) -> Sets:
        """Return these sets, observed."""
        rows, number = self.source.choose(which, sizes, rng)
        objects = self.simulator.observe_like(self.source.batch[rows], self.like, rng)
        objects = objects.to("cpu", torch.float32)
        there = exists(objects)
        index = torch.as_tensor(number)[there]
        counts = torch.bincount(index, minlength=len(which))
        truth = torch.as_tensor(self.source.truth[which], dtype=torch.float32)
        some = counts > 0  # sets without any observed value are left out
        index = (some.cumsum(0) - 1)[index]
        return objects[there], index, counts[some], truth[some]


def _mean_size(largest: int) -> float:
    n = np.arange(1, largest + 1)
    weight = np.log1p(1 / n)
    return float((n * weight).sum() / weight.sum())


def sums(terms: Tensor, index: Tensor, sets: int) -> Tensor:
    """Return sums of terms (n, t) over the objects of every set, (sets, t)."""
    return terms.new_zeros(sets, terms.shape[1]).index_add(0, index, terms)


def _log_q(
    network: SetNetwork, objects: Batch, index: Tensor, counts: Tensor, truth: Tensor
) -> Tensor:
    return network.log_prob(truth, sums(network.terms(objects), index, len(counts)), counts)


@torch.no_grad()
def _z_rms(network: SetNetwork, sets: Sets) -> float:
    objects, index, counts, truth = sets
    mean, cov = network.moments(sums(network.terms(objects), index, len(counts)), counts)
    off = (truth - mean).unsqueeze(-1)
    z = torch.linalg.solve_triangular(torch.linalg.cholesky(cov), off, upper=False)
    return float((z**2).mean().sqrt())
