r"""One network for groups of objects: amortised over the objects, their order and their number.

.. math:: q(\Lambda\,|\,\{x_1 .. x_N\}, N), \qquad 0 \le N \le N_\max

is trained on simulated groups of random size with the errors and missing values of the data. It
needs no posteriors of single objects. The network is in :mod:`sbi_core.combiners.set_network`, the
training in :mod:`sbi_core.combiners.set_training`. N = 0 is the prior. Objects without any observed
value do not count.

More than :math:`N_\max` objects are refused, or, with ``beyond = "aggregate"``, divided into parts
of at most that many, whose posteriors are combined by the Gaussian rule; a common error of the
parts then grows as the square root of their number.

References:
    | Deep Sets (Zaheer et al., 2017), https://arxiv.org/abs/1703.06114
    | Radev et al. 2020, https://arxiv.org/abs/2003.06281
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from sbi_core.combiners.gaussian import combine_gaussian
from sbi_core.combiners.moments import (
    Gaussian,
    SubsetCombiner,
    data_quality,
    group_consistency,
    shared_space,
    simulator_of,
)
from sbi_core.combiners.set_network import SetNetwork, exists
from sbi_core.combiners.set_training import fit_sets, simulate_sets
from sbi_core.components import InputShape, Rng, Simulator
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.data.writing import write_atomic
from sbi_core.errors import ConfigError, DataFileError, ObservationError, PriorMismatchError
from sbi_core.files.tensors import load_weights, read_json, read_tensors, write_tensors
from sbi_core.posterior import CombinedPosterior, Posterior, combined_from_gaussian
from sbi_core.priors.space import ParameterSpace
from sbi_core.rng import as_generator, seeded, stream, torch_defaults
from sbi_core.training.networks import Standardizer
from sbi_core.validation import Options

__all__ = ["DeepsetCombiner", "DeepsetConfig"]

F64 = NDArray[np.float64]
_LIKE_GROUPS, _LIKE_SIZE = 20, 500  # groups of objects with the errors and masks of the data
_UNLIKE = 0.1  # allowed distance of mean features from those of these groups, dex or fraction
_ROWS_PER_CALL = 65_536
_ARCHITECTURE = ("member", "pooled", "hidden", "components", "max_objects")


class DeepsetConfig(Options):
    """Options of the deepset combiner."""

    max_objects: int = Field(1000, ge=1, description="largest number of objects in training")
    beyond: Literal["refuse", "aggregate"] = Field(
        "refuse", description="more objects: refuse, or combine parts by the Gaussian rule"
    )
    simulations: int = Field(
        1_000_000, ge=1000, description="simulated objects for training, in sets of random size"
    )
    steps: int = Field(4000, ge=1, description="training steps")
    rows: int = Field(8192, ge=1, description="objects per training step (about)")
    learning_rate: float = Field(3e-3, gt=0, description="peak learning rate")
    member: tuple[int, ...] = Field(
        (128, 128), min_length=1, description="widths of the network of one object"
    )
    pooled: int = Field(32, ge=1, description="length of the summary that is averaged")
    hidden: tuple[int, ...] = Field(
        (64, 64), min_length=1, description="widths of the networks of the set"
    )
    components: int = Field(4, ge=1, description="Gaussians of the mixture")
    samples: int = Field(4000, ge=1, description="draws of the combined posterior that are kept")
    consistency_groups: int = Field(10, ge=2, description="groups of the consistency test")


@dataclass(frozen=True)
class _Found:
    """Terms (n, t) of objects, True where they were observed (n,), and their features (n, k)."""

    terms: Tensor
    there: Tensor
    features: F64

    def __getitem__(self, rows: slice) -> _Found:
        return _Found(self.terms[rows], self.there[rows], self.features[rows])


class DeepsetCombiner(SubsetCombiner):
    """Set network trained on simulated groups (see the module).

    See Also
    --------
    sbi_core.combiners.simulated_moments : nothing to train, and works for any N.
    """

    name = "deepset"

    def __init__(self, config: DeepsetConfig | None = None) -> None:
        self.config = config or DeepsetConfig()
        self.groups_needed, self.group_size = _LIKE_GROUPS, min(_LIKE_SIZE, 5000)
        self._simulator: Simulator | None = None
        self._network: SetNetwork | None = None
        self._prior = ""
        self._seen = np.empty((2, 0))  # smallest and largest features of simulated groups

    def attach(self, simulator: Simulator) -> None:
        """Take the simulator that sets are simulated with."""
        self._simulator = simulator

    def check_shape(self, shape: InputShape) -> None:
        """Refuse images and sets."""
        if len(shape.x) != 1:
            msg = (
                "the deepset combiner takes one row of numbers per object, these data have shape "
                f"{shape.x}: use 'simulated-moments'"
            )
            raise ObservationError(msg)

    # -- learning ------------------------------------------------------------------

    @torch_defaults()
    def prepare(
        self, posterior: Posterior, groups: Iterable[Observations], *, seed: int = 0
    ) -> Mapping[str, float]:
        """Simulate sets and train; ``groups`` have the errors and missing values of the data.

        Raises
        ------
        ConfigError
            If no simulator was attached, no parameter is shared, or no group is given.
        PriorMismatchError
            If the posterior was trained under another prior than the simulator has.
        ObservationError
            If data are not one row of numbers per object.
        """
        simulator, space = simulator_of(self.name, self._simulator, posterior)
        examples = [g.batch.to("cpu", torch.float32) for g in islice(groups, _LIKE_GROUPS)]
        if not examples:
            msg = "the deepset combiner needs a simulated group with errors like those of the data"
            raise ConfigError(msg)
        like = Batch.cat(examples).with_(theta=None)
        self.check_shape(InputShape.of(like))
        o = self.config
        source = simulate_sets(simulator, space, o.simulations, o.max_objects, seed)
        standardizer = Standardizer(InputShape.of(like)).fit(like)
        with seeded(stream(seed, "sets", "weights")):
            network = self._build(standardizer, space.z_dim)
        facts = fit_sets(
            network,
            source,
            simulator,
            like,
            largest=o.max_objects,
            steps=o.steps,
            rows=o.rows,
            learning_rate=o.learning_rate,
            seed=seed,
        )
        features = np.stack([data_quality(e).mean(0) for e in examples])
        self._network, self._prior = network, space.hash
        self._seen = np.stack([features.min(0), features.max(0)])
        return facts

    def _build(self, standardizer: Standardizer, dim: int) -> SetNetwork:
        o = self.config
        return SetNetwork(
            standardizer,
            dim,
            member=o.member,
            pooled=o.pooled,
            hidden=o.hidden,
            components=o.components,
        )

    # -- combining -----------------------------------------------------------------

    @torch_defaults()
    def combine_subsets(
        self,
        posterior: Posterior,
        observations: Observations,
        subsets: Sequence[slice],
        *,
        rng: Rng = 0,
    ) -> list[CombinedPosterior]:
        """Combine several subsets; every object is summarised once."""
        if self._network is None:
            msg = "the deepset combiner is not trained; call prepare(posterior, groups) first"
            raise ConfigError(msg)
        space = shared_space(posterior)
        if space.hash != self._prior:
            msg = "the network of the deepset combiner was trained with another prior"
            raise PriorMismatchError(msg)
        gen = as_generator(rng)
        found = self._found(self._network, observations)
        sizes = np.arange(len(observations))
        counts = {s: len(sizes[rows]) for s, rows in enumerate(subsets)}
        return [self._combine(space, found[rows], counts[s], gen) for s, rows in enumerate(subsets)]

    @torch.no_grad()
    def _found(self, network: SetNetwork, observations: Observations) -> _Found:
        batch = observations.batch.with_(theta=None).to("cpu", torch.float64)
        network.standardizer.check(batch)
        parts = [
            network.terms(batch[s : s + _ROWS_PER_CALL])
            for s in range(0, max(len(batch), 1), _ROWS_PER_CALL)
        ]
        return _Found(torch.cat(parts), exists(batch), data_quality(batch))

    @torch.no_grad()
    def _combine(
        self, space: ParameterSpace, found: _Found, n: int, rng: np.random.Generator
    ) -> CombinedPosterior:
        network, o = self._network, self.config
        assert network is not None
        terms = found.terms[found.there]
        parts = -(-len(terms) // o.max_objects)
        if parts > 1 and o.beyond == "refuse":
            msg = (
                f"{len(terms)} objects are more than the {o.max_objects} that the deepset combiner "
                'was trained for: set combiner.max_objects higher, or combiner.beyond="aggregate"'
            )
            raise ObservationError(msg)
        flags: list[str] = []
        z: Tensor | None = None
        combined = Gaussian.standard(space.z_dim)
        if parts:
            which = torch.arange(len(terms)) % parts
            total = terms.new_zeros(parts, terms.shape[1]).index_add(0, which, terms)
            count = torch.bincount(which, minlength=parts)
            mean, cov = (t.numpy() for t in network.moments(total, count))
            combined = Gaussian(mean[0], cov[0])
            if parts > 1:
                combined = combine_gaussian(mean, cov, Gaussian.standard(space.z_dim))
                flags.append("aggregated")
            else:
                noise = torch.as_tensor(rng.standard_normal((o.samples, network.head.noise_size)))
                z = network.draw(noise, total, count)
            own = found.features[found.there.numpy()].mean(0)
            if ((own < self._seen[0] - _UNLIKE) | (own > self._seen[1] + _UNLIKE)).any():
                flags.append("unlike_trained_groups")
        result = combined_from_gaussian(
            self.name,
            space,
            n,
            combined.mean,
            0.5 * (combined.cov + combined.cov.T),
            draws=o.samples,
            rng=rng,
            diagnostics=self._diagnostics(terms, network, parts),
            flags=tuple(flags),
        )
        if z is None:
            return result
        return replace(result, samples=space.from_unconstrained(z.numpy()))

    def _diagnostics(self, terms: Tensor, network: SetNetwork, parts: int) -> dict[str, float]:
        d = network.dim
        _, b, j = torch.split(terms, list(network.sizes), dim=-1)
        precision = j.numpy().reshape(-1, d, d) + np.eye(d)
        facts = group_consistency(precision, b.numpy(), self.config.consistency_groups)
        return facts | {"observed_objects": float(len(terms)), "parts": float(max(parts, 1))}

    # -- files ---------------------------------------------------------------------

    def save(self, directory: str | Path) -> None:
        """Write ``weights.safetensors`` and ``config.json``."""
        if self._network is None:
            return
        directory = Path(directory)
        write_tensors(directory / "weights.safetensors", self._network.state_dict())
        content = {
            "combiner": self.name,
            "options": self.config.model_dump(mode="json"),
            "prior": self._prior,
            "dim": self._network.dim,
            "input": asdict(self._network.standardizer.shape),
            "seen": self._seen.tolist(),
        }
        write_atomic(directory / "config.json", json.dumps(content, indent=1).encode())

    @torch_defaults()
    def restore(self, directory: str | Path) -> None:
        """Read what :meth:`save` wrote; the sizes of the network are those that were stored.

        Raises
        ------
        DataFileError
            If a file is missing or damaged.
        """
        directory = Path(directory)
        content = read_json(directory / "config.json")
        tensors = read_tensors(directory / "weights.safetensors")[0]
        try:
            stored = DeepsetConfig.model_validate(content["options"])
            changes: dict[str, Any] = {k: getattr(stored, k) for k in _ARCHITECTURE}
            options = self.config.model_copy(update=changes)
            shape = InputShape(**{**content["input"], "x": tuple(content["input"]["x"])})
            prior, dim = str(content["prior"]), int(content["dim"])
            seen = np.asarray(content["seen"], np.float64)
        except (KeyError, TypeError, ValueError) as error:
            msg = f"the combiner in '{directory}' is damaged: {error!r}"
            raise DataFileError(msg) from None
        self.config = options
        network = self._build(Standardizer(shape), dim).double()
        load_weights(network, tensors, directory / "weights.safetensors")
        self._network, self._prior, self._seen = network.eval(), prior, seen
