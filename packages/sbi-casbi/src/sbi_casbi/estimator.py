"""The joint estimator of N and of the ordered set of members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sbi_casbi.embedding import PairEmbedding
from sbi_casbi.members import MemberSamples
from sbi_casbi.sets import SetConfig, SetDensity
from sbi_casbi.sets.sums import SCALARS, log_total_mass
from sbi_casbi.sets.whitening import Whitening
from sbi_core import (
    Batch,
    ConfigError,
    DensityUnavailableError,
    Embedding,
    FlowEstimator,
    InputShape,
    ParameterSpace,
    Rng,
    Training,
    TrainingRecord,
    as_generator,
    stream,
    torch_defaults,
)

__all__ = ["SetEstimator"]

F64 = NDArray[np.float64]
_ROWS = 16_384  # sets drawn at a time
_SUM_HALOS = 4000  # training halos to which the linear part of the sums is fitted
_SCATTER_HALOS, _SCATTER_DRAWS = 1000, 32  # validation halos that give the scatter of drawn masses
_WHITENING_HALOS = 20_000  # training halos to which the whitening is fitted


class SetEstimator(FlowEstimator):
    """q(N, members | x): an ordinal density of N, and members in order of mass from a shared flow.

    ``sample`` returns the columns of theta (N and quantities derived from the set),
    ``sample_members`` the sets themselves. The model is described in :mod:`sbi_casbi.sets`.

    Parameters
    ----------
    config
        Options.
    """

    name = "casbi-set"
    config_type = SetConfig
    config: SetConfig
    _whitening: dict[str, Tensor] | None = None

    # -- training ----------------------------------------------------------------------

    @torch_defaults()
    def fit(
        self, training: Training, embedding: Embedding, callbacks: Sequence[Any] = ()
    ) -> TrainingRecord:
        """Train on halos with ``theta_set``.

        Raises
        ------
        ConfigError
            If the simulations have no sets, or not all columns of theta are to be inferred.
        """
        space = training.space
        if not space.members:
            msg = "estimator 'casbi-set' needs set-valued parameters: estimator.parameters = 'all'"
            raise ConfigError(msg)
        members, mask, _ = _sets(_training_halos(training, _WHITENING_HALOS))
        spans = {p.name: tuple(float(e[0]) for e in p.prior.support) for p in space.members}
        whitening = Whitening(len(space.members))
        whitening.fit(members, mask, spans["log_mstar"], spans["tau"])  # type: ignore[arg-type]
        self._whitening = {k: v.clone() for k, v in whitening.state_dict().items()}
        self._packer = self.make_head(8, space)
        record = super().fit(training, embedding, callbacks)
        self._fit_total_mass(training)
        return record

    @torch.no_grad()
    def _fit_total_mass(self, training: Training) -> None:
        """Calibrate the rescaling to the total mass, on validation halos."""
        rows = training.batch[np.arange(min(len(training.batch), _WHITENING_HALOS))]
        if rows.split_key is not None and bool((rows.split_key == -2).any()):
            rows = rows[(rows.split_key == -2).cpu()]
        rng = stream(training.seed, "train", "spread")
        observed = training.observe(rows, rng)
        truth, _, count = _sets(rows)
        head, h = self.head, self._features(observed).cpu()
        mass, size = torch.as_tensor(truth[..., 0]), torch.as_tensor(count)
        head.total_mass.fit_calibration(mass, size, head.mass_estimate(h))
        rows = rows[np.arange(min(len(rows), _SCATTER_HALOS))]
        observed = training.observe(rows, rng)
        h = self._features(observed)
        n = self._numbers(h, _SCATTER_DRAWS, [rng] * len(rows), None)
        many = h.repeat_interleave(_SCATTER_DRAWS, 0)
        noise = _member_noise([rng] * len(rows), _SCATTER_DRAWS, h)
        drawn = torch.stack(list(head.draw_members(noise, many, n)), 1)
        estimate = head.mass_estimate(many)
        total = log_total_mass(mass[: len(rows)], size[: len(rows)])
        head.total_mass.disable_if_worse(drawn, n, estimate, noise(1)[:, 0], total, head.whitening)

    def make_head(self, features: int, space: ParameterSpace) -> SetDensity:
        """Return an untrained density of sets given ``features`` numbers."""
        prior = space.parameters[0].prior
        low, high = int(prior.support[0][0]), int(prior.support[1][0])
        head = SetDensity(
            features,
            np.arange(low, high + 1, dtype=float),
            high,
            len(space.members),
            self.config,
        )
        if self._whitening is not None:
            head.whitening.load_state_dict(self._whitening)
        return head

    def _build(
        self, shape: InputShape, embedding: Embedding, space: ParameterSpace, rng: Rng
    ) -> Any:
        if self.config.design == "two_step":
            embedding = PairEmbedding(embedding)
        return super()._build(shape, embedding, space, rng)

    def prepare(self, network: Any, training: Training) -> Training:
        """Fit the linear part of the regression of sums over members.

        Raises
        ------
        ConfigError
            If the summary of the embedding does not end with the four scalars.
        """
        if getattr(network.embedding, "scalars", 0) != SCALARS:
            msg = "estimator 'casbi-set' needs embedding 'casbi-mlp' or 'casbi-cnn'"
            raise ConfigError(msg)
        batch = _training_halos(training, _SUM_HALOS)
        observed = training.observe(batch, stream(training.seed, "train", "lines"))
        with torch.no_grad():
            h = network.features(observed.with_(theta=None).to("cpu", torch.float32))
        network.head.fit_sums(self.targets(batch, training), h[:, -SCALARS:])
        return training

    def targets(self, batch: Batch, training: Training) -> Tensor:
        """Return packed sets, (n, k)."""
        members, _, count = _sets(batch)
        parts = [
            self._packer.pack(
                torch.as_tensor(members[k : k + 4096]), torch.as_tensor(count[k : k + 4096])
            )
            for k in range(0, len(members), 4096)
        ]
        return torch.cat(parts)

    def log_det(self, batch: Batch, training: Training) -> Tensor:
        """Return zeros: the loss is given in whitened coordinates."""
        return torch.zeros(len(batch), dtype=torch.float64)

    # -- N -----------------------------------------------------------------------------

    @property
    def head(self) -> SetDensity:
        """The trained density."""
        head = self.network.head
        assert isinstance(head, SetDensity)
        return head

    @property
    def counts(self) -> NDArray[np.int64]:
        """Values of N, (R,)."""
        head = self.head
        return np.arange(head.lowest, head.size + 1)

    @torch_defaults()
    @torch.no_grad()
    def pmf(self, batch: Batch) -> F64:
        """Return q(N | x) of all values of N, (n, R)."""
        return np.asarray(self.head.log_pmf(self._features(batch)).exp().double().cpu().numpy())

    # -- sets --------------------------------------------------------------------------

    @torch_defaults()
    @torch.no_grad()
    def log_prob_members(self, batch: Batch) -> F64:
        """Return log q(N, members | x) of the sets in ``batch.theta_set``, (n,).

        Density of the ordered set in (log10 Msun, log10 Msun, Gyr) per member, normalised.
        """
        head = self.head
        members, mask, count = _sets(batch)
        n, h = torch.as_tensor(count), self._features(batch)
        sets = torch.where(torch.as_tensor(mask)[..., None], torch.as_tensor(members), 0.0)
        return np.asarray(head.log_prob_sets(sets, n, h).cpu().numpy())

    @torch_defaults()
    @torch.no_grad()
    def sample_members(
        self,
        batch: Batch,
        draws: int,
        rng: Rng | Sequence[np.random.Generator],
        *,
        count: ArrayLike | None = None,
        most: int | None = None,
    ) -> MemberSamples:
        """Return draws of sets.

        Parameters
        ----------
        batch
            Observed halos.
        draws
            Sets per halo.
        rng
            Seed or generator; with one generator per halo, draws do not depend on the other halos.
        count
            Condition on N, (n,) or one number; default: N is drawn.
        most
            Return only the ``most`` largest members; default: all.
        """
        head, h = self.head, self._features(batch)
        gens = list(rng) if isinstance(rng, Sequence) else [as_generator(rng)] * len(batch)
        size = min(most or head.size, head.size)
        values = np.zeros((draws, len(batch), size, head.dim), np.float32)
        numbers = np.zeros((draws, len(batch)), np.int64)
        step = max(1, _ROWS // draws)
        fixed = None if count is None else np.broadcast_to(np.asarray(count), (len(batch),))
        for start in range(0, len(batch), step):
            rows = slice(start, min(start + step, len(batch)))
            own = gens[rows]
            summaries = h[rows].repeat_interleave(draws, 0)  # (halo, draw)
            n = self._numbers(h[rows], draws, own, None if fixed is None else fixed[rows])
            noise = _member_noise(own, draws, h)
            mass_noise = noise(1)[:, 0]  # first: the noise of members depends on the largest N
            sets = torch.stack(list(head.draw_members(noise, summaries, n)), 1)
            sets = head.rescale(sets, n, summaries, mass_noise)
            used = torch.arange(sets.shape[1], device=n.device) < n[:, None]
            part = torch.where(used[..., None], sets, 0.0)[:, :size].float().cpu().numpy()
            part = part.reshape(-1, draws, *part.shape[1:]).transpose(1, 0, 2, 3)
            values[:, rows, : part.shape[2]] = part
            numbers[:, rows] = n.cpu().numpy().reshape(-1, draws).T
        names = tuple(p.name for p in self.space.members)
        return MemberSamples(values, numbers, names, np.arange(len(batch)).astype(str))

    def _numbers(
        self,
        h: Tensor,
        draws: int,
        rngs: Sequence[np.random.Generator],
        fixed: NDArray[Any] | None,
    ) -> Tensor:
        """Return N of (halo, draw) rows."""
        head = self.head
        if fixed is not None:
            return torch.as_tensor(np.repeat(fixed, draws), device=h.device)
        noise = np.stack([g.standard_normal((draws, head.number.noise_size)) for g in rngs])
        z = torch.as_tensor(noise, dtype=h.dtype, device=h.device).transpose(0, 1)
        index = head.number.draw(z.contiguous(), head.number_summary(h))[..., 0]
        return index.T.reshape(-1).long() + head.lowest

    @torch_defaults()
    @torch.no_grad()
    def sample(self, batch: Batch, draws: int, rng: Rng | Sequence[np.random.Generator]) -> F64:
        """Return draws of the columns of theta, (S, n, c)."""
        gens = list(rng) if isinstance(rng, Sequence) else None
        single = None if gens is not None else as_generator(rng)  # type: ignore[arg-type]
        low = int(self.space.parameters[0].prior.support[0][0])
        out = np.empty((draws, len(batch), self.space.dim))
        step = max(1, 4 * _ROWS // draws)
        for start in range(0, len(batch), step):
            rows = slice(start, min(start + step, len(batch)))
            own: Any = gens[rows] if gens is not None else single
            out[:, rows] = self.sample_members(batch[rows], draws, own).columns(low)
        return out

    def log_prob(self, theta: ArrayLike | Tensor, batch: Batch) -> F64:
        """Not available: columns of theta are summaries of sets; see :meth:`log_prob_members`.

        Raises
        ------
        DensityUnavailableError
            Always.
        """
        msg = "summaries of a set have no density in closed form; use log_prob_members"
        raise DensityUnavailableError(msg)


def _training_halos(training: Training, most: int) -> Batch:
    """Return at most ``most`` halos of the training split."""
    batch = training.batch[np.arange(min(len(training.batch), 2 * most))]
    if batch.split_key is not None:
        batch = batch[batch.split_key.cpu() >= -1]
    return batch[np.arange(min(len(batch), most))]


def _sets(batch: Batch) -> tuple[F64, NDArray[np.bool_], NDArray[np.int64]]:
    """Return members (n, K, d), float64, mask (n, K) and N (n,)."""
    if batch.theta_set is None or batch.theta_mask is None:
        msg = "the simulations hold no sets of members (theta_set, theta_mask)"
        raise ConfigError(msg)
    mask = batch.theta_mask.cpu().numpy()
    return batch.theta_set.double().cpu().numpy(), mask, mask.sum(1)


def _member_noise(rngs: Sequence[np.random.Generator], draws: int, like: Tensor) -> Any:
    def noise(size: int) -> Tensor:
        parts = [g.standard_normal((draws, size)) for g in rngs]
        return torch.as_tensor(np.concatenate(parts), dtype=like.dtype, device=like.device)

    return noise
