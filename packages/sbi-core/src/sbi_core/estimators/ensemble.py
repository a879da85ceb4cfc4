r"""Deep ensemble: the mixture of several trainings of one estimator.

.. math:: q(\theta\,|\,x) = \frac1M \sum_{m=1}^{M} q_m(\theta\,|\,x)

Members differ in their initial weights, the order of rows and the noise of every epoch; splits and
the noise of held-out rows are shared, so that their losses can be compared. The divergence between
members at given data measures the uncertainty that training leaves there.

Networks that were trained on few simulations are too narrow. The noise of all members, standard
normal in the training, therefore gets the standard deviation T with which the ranks u of the true
parameters of the validation rows among draws scatter as they should, :math:`3\,E[(2u-1)^2] = 1`
(``temper``). The T that maximises the likelihood of these rows follows their outliers: intervals
are then too wide.

References:
    | Deep Ensembles (Lakshminarayanan et al., 2016), https://arxiv.org/abs/1612.01474
    | Hermans et al. 2021, https://arxiv.org/abs/2110.06581 (ensembles are less overconfident)
    | Guo et al. 2017, https://arxiv.org/abs/1706.04599 (temperature from validation data)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pydantic import Field
from scipy import optimize, special
from torch import Tensor

from sbi_core.components import Callback, Embedding, Estimator, Rng, Training, TrainingRecord
from sbi_core.data.batch import Batch
from sbi_core.errors import ConfigError, DataFileError
from sbi_core.estimators import load_estimator
from sbi_core.estimators.base import FlowEstimator
from sbi_core.estimators.choice import FEW_PARAMETERS
from sbi_core.estimators.flows import ZukoHead
from sbi_core.estimators.stored import read_spec, record_of, restoring, write_spec
from sbi_core.files.directory import write_lines
from sbi_core.priors.space import ParameterSpace, as_float64
from sbi_core.registry import Registry
from sbi_core.rng import as_generator, stream, torch_defaults
from sbi_core.training.rows import observed_test, resident
from sbi_core.training.splits import split_seed, splits_of
from sbi_core.validation import Options

__all__ = ["EnsembleConfig", "EnsembleEstimator"]

F64 = NDArray[np.float64]
_TEST_ROWS = 5000  # test rows for the loss of the mixture, validation rows for its width
_WIDTHS = (0.5, 3.0)  # smallest and largest factor of temper
_RANKED, _DRAWS = 2000, 100  # validation rows and draws for it
_TRANSFORMS = 3  # of nsf: five take half as long again for the same calibration


class EnsembleConfig(Options):
    """Options of the ensemble."""

    members: int = Field(default=3, ge=1, description="Number of trainings; 3 to 5 are usual.")
    of: str = Field(
        default="auto",
        description="Name of the members' estimator; auto: nsf with three transformations up to "
        "five parameters, maf for more.",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Options of that estimator.")
    temper: bool = Field(
        default=True,
        description="Widen or narrow all members, if they are maf or nsf, by one factor that the "
        "validation rows choose.",
    )


class EnsembleEstimator(Estimator):
    """Equal-weight mixture of several trainings of any estimator.

    Attributes
    ----------
    members
        The estimators; empty before training.
    record
        Epochs and seconds summed over members; ``test_nll`` is that of the mixture.

    References
    ----------
    Lakshminarayanan et al. 2016, https://arxiv.org/abs/1612.01474

    Examples
    --------
    >>> EnsembleEstimator(EnsembleConfig(of="mixture"))
    EnsembleEstimator(members=3 of='mixture' options={}; not trained)
    """

    name = "ensemble"
    config_type = EnsembleConfig

    def __init__(self, config: EnsembleConfig | None = None) -> None:
        self.config = config or EnsembleConfig()
        self.record: TrainingRecord | None = None
        self.members: list[Estimator] = []
        if self.config.of == self.name:
            msg = "an ensemble of ensembles is an ensemble with more members: set 'members'"
            raise ConfigError(msg)

    # -- training ------------------------------------------------------------------

    @torch_defaults()
    def fit(
        self, training: Training, embedding: Embedding, callbacks: Sequence[Callback] = ()
    ) -> TrainingRecord:
        """Train all members, one after the other; callbacks see their epochs in a row.

        Raises
        ------
        TrainingError
            See ``fit`` of the members.
        """
        training = resident(replace(training, batch=training.batch.succeeded))
        training = replace(training, split_seed=split_seed(training))
        kind, options = _member(self.config, training.space)
        component = Registry([]).find("estimator", kind)
        members, records, lines = [], [], list[dict[str, float]]()
        for m in range(self.config.members):
            member = component.build(options)
            seed = int(stream(training.seed, "ensemble", m).integers(2**31))
            folder = None if training.directory is None else _folder(training.directory, m)
            record = member.fit(
                replace(training, seed=seed, directory=folder),
                embedding,
                [_shifted(c, len(lines), self.config.members) for c in callbacks],
            )
            members.append(member)
            records.append(record)
            start = len(lines)
            lines += [{**h, "epoch": start + h["epoch"], "member": m} for h in record.history]
        self.members, self.space = members, training.space
        if self.config.temper:
            self._temper(training)
        if training.directory is not None:
            write_lines(Path(training.directory) / "metrics.jsonl", lines)
        best = min(range(len(records)), key=lambda m: records[m].test_nll)
        self.record = TrainingRecord(
            epochs=sum(r.epochs for r in records),
            seconds=sum(r.seconds for r in records),
            test_nll=self._test_nll(training),
            best_epoch=records[best].best_epoch,
            history=tuple(lines),
            split=records[0].split,
        )
        return self.record

    def _test_nll(self, training: Training) -> float:
        return self._nll(*_observed(training, splits_of(training).test))

    def _nll(self, theta: F64, batch: Batch) -> float:
        return float(-self.log_prob(theta, batch).mean())

    def _temper(self, training: Training) -> None:
        """Set the width of the noise of all members to the one that the validation rows need."""
        heads = [m.network.head for m in self.members if isinstance(m, FlowEstimator)]
        widths = [h.width for h in heads if isinstance(h, ZukoHead)]
        if len(widths) < len(self.members):
            return
        theta, batch = _observed(training, splits_of(training).val[:_RANKED])
        seed = int(stream(training.seed, "ensemble", "width").integers(2**31))

        def excess(log_factor: float) -> float:
            for width in widths:
                width.fill_(float(np.exp(log_factor)))
            below = (self.sample(batch, _DRAWS, seed) < theta).sum(0)
            u = (below + 0.5) / (_DRAWS + 1)
            return float(3 * np.mean((2 * u - 1) ** 2) - 1)

        low, high = np.log(_WIDTHS)
        found = low if excess(low) < 0 else high
        if excess(low) > 0 > excess(high):
            found = optimize.brentq(excess, low, high, xtol=0.003)
        excess(found)

    def _trained(self) -> list[Estimator]:
        if not self.members:
            msg = f"estimator '{self.name}' is not trained yet: call fit, or load a trained one"
            raise ConfigError(msg)
        return self.members

    def to(self, device: str | torch.device) -> Self:
        """Move all members to a device and return self."""
        for member in self._trained():
            member.to(device)
        return self

    # -- density and draws ---------------------------------------------------------

    def log_prob(self, theta: ArrayLike | Tensor, batch: Batch) -> F64:
        """Return the log of the mean density, (n,) or (S, n), of theta (n, d) or (S, n, d)."""
        each = np.stack([m.log_prob(theta, batch) for m in self._trained()])
        with np.errstate(invalid="ignore"):
            total = special.logsumexp(each, axis=0) - np.log(len(each))
        return np.asarray(np.where(np.isneginf(each).all(0), -np.inf, total))

    def score(self, value: F64, batch: Batch) -> F64:
        """Return the gradient of log q, (n, k), at one unconstrained value (k,).

        Raises
        ------
        DensityUnavailableError
            If the members have none.
        """
        members = self._trained()
        theta = np.tile(self.space.from_unconstrained(value[None]), (len(batch), 1))
        weight = special.softmax([m.log_prob(theta, batch) for m in members], axis=0)
        each = np.stack([m.score(value, batch) for m in members])
        return np.asarray((weight[:, :, None] * each).sum(0))

    def sample(self, batch: Batch, draws: int, rng: Rng | Sequence[np.random.Generator]) -> F64:
        """Return draws (S, n, d); every member contributes equally many, to within one."""
        members = self._trained()
        per = -(-draws // len(members))
        if not isinstance(rng, Sequence):
            gen = as_generator(rng)
            seeds = gen.integers(2**63, size=len(batch)).tolist()
            rng = [np.random.Generator(np.random.Philox(s)) for s in seeds]
        parts = np.concatenate([m.sample(batch, per, rng) for m in members])
        order = np.stack([g.permutation(len(parts))[:draws] for g in rng], axis=1)
        return np.take_along_axis(parts, order[:, :, None], axis=0)

    def gaussian_moments(self, batch: Batch) -> tuple[F64, F64]:
        """Return exact mean (n, k) and covariance (n, k, k) of the mixture, unconstrained.

        Raises
        ------
        DensityUnavailableError
            If the members have no closed form.
        """
        moments = [m.gaussian_moments(batch) for m in self._trained()]
        means, covs = np.stack([m for m, _ in moments]), np.stack([c for _, c in moments])
        mean = means.mean(0)
        off = means - mean
        return mean, covs.mean(0) + np.einsum("mni,mnj->nij", off, off) / len(means)

    def disagreement(self, batch: Batch, *, draws: int = 500, rng: Rng = 0) -> F64:
        r"""Return the divergence between members at given data, (M, M, n), nats.

        Entry (i, j) is :math:`KL(q_i\,\|\,q_j)` from draws of member i. Below about 0.1 the
        members agree; where it is larger, more simulations or longer training are needed.
        """
        members, gen = self._trained(), as_generator(rng)
        divergence = np.zeros((len(members), len(members), len(batch)))
        for i, one in enumerate(members):
            theta = one.sample(batch, draws, gen)
            own = one.log_prob(theta, batch)
            for j, other in enumerate(members):
                if i != j:
                    divergence[i, j] = (own - other.log_prob(theta, batch)).mean(0)
        return divergence

    # -- files ---------------------------------------------------------------------

    def save(self, directory: str | Path) -> None:
        """Write a folder per member and ``config.json``."""
        for m, member in enumerate(self._trained()):
            member.save(_folder(Path(directory), m))
        write_spec(Path(directory), self.name, self.config, self.space, self.record)

    @classmethod
    def load(cls, directory: str | Path, *, registry: Registry | None = None) -> Self:
        """Read what :meth:`save` wrote; executes nothing that is stored there.

        Raises
        ------
        DataFileError
            If a file is missing, damaged, or belongs to something else.
        """
        directory = Path(directory)
        spec = read_spec(directory, cls.name)
        with restoring(directory):
            ensemble = cls(EnsembleConfig.model_validate(spec["options"]))
            ensemble.space = ParameterSpace.from_spec(spec["space"])
            ensemble.record = record_of(spec)
        name = ensemble.config.of
        for m in range(ensemble.config.members):
            folder = _folder(directory, m)
            member = load_estimator(folder, registry)
            if member.space.hash != ensemble.space.hash or name not in ("auto", member.name):
                msg = f"{folder} holds an estimator that does not belong to the ensemble"
                raise DataFileError(msg)
            ensemble.members.append(member)
        return ensemble

    def __repr__(self) -> str:
        state = f"q({', '.join(self.space.names)} | x)" if self.members else "not trained"
        return f"EnsembleEstimator({self.config}; {state})"


def _observed(training: Training, rows: NDArray[np.int64]) -> tuple[F64, Batch]:
    """Return inferred parameters and data of held-out rows."""
    batch = observed_test(training, rows[:_TEST_ROWS])
    return as_float64(batch.theta)[:, list(training.columns)], batch  # type: ignore[arg-type]


def _member(config: EnsembleConfig, space: ParameterSpace) -> tuple[str, dict[str, Any]]:
    """Return the name of the members' estimator and its options."""
    if config.of != "auto":
        return config.of, config.options
    if space.z_dim <= FEW_PARAMETERS:
        return "nsf", {"transforms": _TRANSFORMS, **config.options}
    return "maf", config.options


def _folder(directory: Path, m: int) -> Path:
    return Path(directory) / f"member-{m}"


def _shifted(callback: Callback, start: int, members: int) -> Callback:
    """Return a callback that counts epochs through all members."""

    def call(line: Mapping[str, float]) -> None:
        epochs = line["epochs"] * members
        callback({**line, "epoch": start + line["epoch"], "epochs": epochs})

    return call
