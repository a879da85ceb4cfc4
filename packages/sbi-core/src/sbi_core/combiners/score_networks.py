r"""The error of single-object posteriors, learned object by object from simulations.

In unconstrained space, where the prior is N(0, I), an object with posterior precision :math:`P_i`
and mean :math:`\mu_i` has the score and its sensitivity

.. math:: s_i(\Lambda) = P_i\mu_i - (P_i - I)\Lambda, \qquad
          -\partial s_i/\partial\Lambda = P_i - I .

For exact Gaussian posteriors its mean at the true :math:`\Lambda` is zero and its covariance
:math:`P_i - I`. In general both are functions of :math:`\Lambda` and of the quality :math:`f_i` of
the object's data (errors, missing values, context), which networks learn from simulated objects by
their Gaussian likelihood,

.. math:: s\,|\,\Lambda, f \sim N(b(\Lambda, f),\ V(\Lambda, f)) .

The objects of a group are independent, so that the sum

.. math:: U(\Lambda) = \sum_i [s_i(\Lambda) - b(\Lambda, f_i)]

has mean zero and covariance :math:`\sum_i V(\Lambda, f_i)` at the true value, for any number of
objects and any mixture of errors: an unbiased estimating equation. The corrected posterior is the
prior times :math:`N(U(\Lambda);\ 0,\ (1 + u)\sum_i V)`, found by Gauss-Newton steps, with the
precision of Godambe. Several networks learn from different groups. *u* is the variance of their
mean in units of V, plus the excess of :math:`U^T V^{-1} U` in groups that a network did not learn
from, which is measured separately for groups with the errors and missing values of the data and for
others. Values and features outside those of the simulations are taken at their edge.

References:
    | Godambe 1960, Ann. Math. Stat. 31, 1208 (unbiased estimating equations)
    | Nix & Weigend 1994, IEEE ICNN 1, 55 (networks for mean and variance)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from sbi_core.combiners.moments import Gaussian, ObjectMoments
from sbi_core.data.alignment import align_weights
from sbi_core.rng import seeded, torch_defaults
from sbi_core.training.loop import threads
from sbi_core.training.optimizer import one_cycle

__all__ = [
    "ScoreEquation",
    "ScoreNetworks",
    "Sums",
    "fit_score_networks",
    "scores",
]

F64 = NDArray[np.float64]
_HIDDEN = (64, 64, 64)
_MEMBERS = 5
_EPOCHS, _ROWS, _RATE, _CLIP = 16, 512, 3e-3, 5.0  # rows: per member and step
_FEWEST_STEPS = 400
_ROWS_PER_CALL = 100_000
_NEAR = 0.05  # half width of the differences that give the derivative of b, prior sigma
_STEPS, _HALVINGS = 30, 6
_LARGEST_STEP = 0.5  # prior sigma
_SAME = 0.2  # combined sigma within which b is taken as linear
_TOLERANCE = 1e-3  # combined sigma
_MARGIN = 0.05  # allowed distance of features from those of simulations, dex or fraction
_CENTRAL = (0.68, 0.95)  # of the prior: where the misfit is measured; wider where it is not tested
_KINDS = 2  # groups with the errors of the data, groups with those of the training


def scores(objects: ObjectMoments, value: F64) -> F64:
    """Return s (n, d) of the objects at one value (d,)."""
    d = objects.information.shape[1]
    return np.asarray(objects.information - (objects.precision - np.eye(d)) @ value)


class ScoreNetworks(nn.Module):
    r"""b and V as functions of :math:`\Lambda` and f: some networks, evaluated together.

    A network returns :math:`\beta` and the lower triangular R, with the logarithm of its diagonal:
    :math:`b = R^{-1}\beta`, :math:`V = R^{-1}R^{-T}`, so that :math:`R s - \beta` is N(0, I).
    """

    scale: Tensor
    centre: Tensor
    width: Tensor
    low: Tensor
    high: Tensor
    like_low: Tensor
    like_high: Tensor
    misfit: Tensor

    def __init__(self, dim: int, features: int, members: int) -> None:
        super().__init__()
        self.dim, self.members = dim, members
        sizes = (dim + features, *_HIDDEN, dim + dim * (dim + 1) // 2)
        self.weight, self.bias = nn.ParameterList(), nn.ParameterList()
        for k, (inside, outside) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
            spread = 0.01 if k == len(_HIDDEN) else 1.0
            weight = torch.randn(members, inside, outside) * (spread / inside**0.5)
            self.weight.append(nn.Parameter(weight))
            self.bias.append(nn.Parameter(torch.zeros(members, 1, outside)))
        size = dim + features
        for name, value in (
            ("scale", torch.ones(dim)),
            ("centre", torch.zeros(size)),
            ("width", torch.ones(size)),
            ("low", torch.full((size,), -torch.inf)),
            ("high", torch.full((size,), torch.inf)),
            ("like_low", torch.full((features,), -torch.inf)),
            ("like_high", torch.full((features,), torch.inf)),
            ("misfit", torch.zeros(_KINDS)),
        ):
            self.register_buffer(name, value)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return beta (m, n, d), R (m, n, d, d) and log |R| (m, n) of inputs (m or 1, n, k).

        NaN stands for a feature that an object lacks.
        """
        h = self._hidden(inputs)
        h = torch.baddbmm(self.bias[-1], h, self.weight[-1])
        beta, entries = h[..., : self.dim], h[..., self.dim :]
        rows, columns = torch.tril_indices(self.dim, self.dim)
        root = torch.zeros(*h.shape[:-1], self.dim, self.dim, dtype=h.dtype)
        root[..., rows, columns] = entries
        diagonal = torch.diagonal(root, dim1=-2, dim2=-1)
        return beta, root.tril(-1) + torch.diag_embed(diagonal.exp()), diagonal.sum(-1)

    def _hidden(self, inputs: Tensor) -> Tensor:
        """Return the last hidden layer (m, n, w) of inputs (m or 1, n, k)."""
        given = torch.where(inputs.isnan(), self.centre, inputs)
        h = (given.clamp(self.low, self.high) - self.centre) / self.width
        for weight, bias in zip(self.weight[:-1], self.bias[:-1], strict=True):
            h = nn.functional.silu(torch.baddbmm(bias, h.expand(len(weight), *h.shape[1:]), weight))
        return h

    def loss(self, score: Tensor, inputs: Tensor) -> Tensor:
        """Return -log N(s; b, V) (m, n), up to a constant, of scores (m or 1, n, d)."""
        beta, root, log_det = self(inputs)
        off = (root @ (score / self.scale).unsqueeze(-1)).squeeze(-1) - beta
        value: Tensor = 0.5 * off.square().sum(-1) - log_det
        return value

    def moments(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return b (m, n, d) and V (m, n, d, d) of inputs (n, k)."""
        beta, root, _ = self(inputs.unsqueeze(0))
        eye = torch.eye(self.dim, dtype=root.dtype).expand(root.shape)
        inverse = torch.linalg.solve_triangular(root, eye, upper=False)
        b: Tensor = (inverse @ beta.unsqueeze(-1)).squeeze(-1) * self.scale
        half = inverse * self.scale[:, None]
        return b, half @ half.mT


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over the objects of a group, near one value.

    Parameters
    ----------
    value : (d,)
        Where.
    bias : (d,)
        Sum of b.
    slope : (d, d)
        Its derivative.
    variance : (d, d)
        Sum of V.
    doubt : float
        u, the variance of the sum of b due to few simulations, in units of ``variance``.
    """

    value: F64
    bias: F64
    slope: F64
    variance: F64
    doubt: float


class ScoreEquation:
    """The equation U = 0 of the module, and its solution.

    Parameters
    ----------
    networks
        Trained, float64.
    """

    def __init__(self, networks: ScoreNetworks) -> None:
        self.networks = networks.double().requires_grad_(False)

    @torch_defaults()
    def sums(self, value: F64, features: F64) -> Sums:
        """Return the sums over objects with features (n, k) at one value (d,)."""
        d = len(value)
        bias, variance = self._totals(_star(value), features)
        mean = bias.mean(0)
        slope = (mean[1 : 1 + d] - mean[1 + d :]).T / (2 * _NEAR)
        off = np.linalg.solve(np.linalg.cholesky(variance), (bias[:, 0] - mean[0]).T)
        members = len(bias)
        # the variance of a mean of few, estimated from the same few: Student's t
        between = float((off**2).sum() / (d * members * (members - 3)))
        misfit = self.networks.misfit[int(self.untested(features))]
        doubt = between + len(features) * float(misfit)
        return Sums(value, mean[0], slope, variance, doubt)

    def _totals(self, points: F64, features: F64) -> tuple[F64, F64]:
        """Return sums of b at points (p, d), (m, p, d), and of V at the first, (d, d)."""
        p, d = points.shape
        bias: F64 = np.zeros((self.networks.members, p, d))
        variance: F64 = np.zeros((d, d))
        step = max(1, _ROWS_PER_CALL // p)
        for start in range(0, len(features), step):
            part = features[start : start + step]
            rows = np.empty((p, len(part), d + part.shape[1]))
            rows[:, :, :d], rows[:, :, d:] = points[:, None], part
            b, v = self.networks.moments(torch.as_tensor(rows.reshape(-1, rows.shape[2])))
            bias += b.reshape(len(bias), p, len(part), d).sum(2).numpy()
            variance += v[:, : len(part)].sum(1).mean(0).numpy()
        return bias, variance

    def posterior(self, objects: ObjectMoments, start: F64) -> tuple[Gaussian, float, bool]:
        """Return the posterior, u, and whether the search converged.

        Parameters
        ----------
        objects
            Moments and quality of the objects.
        start : (d,)
            Start of the search.
        """
        d = len(start)
        likelihood = (objects.precision - np.eye(d)).sum(0)
        information = objects.information.sum(0)
        value = np.clip(start, *self.domain)
        sums = self.sums(value, objects.each_quality)
        sd, converged = np.ones(d), False
        for _ in range(_STEPS):
            if np.abs((value - sums.value) / sd).max() > _SAME:
                sums = self.sums(value, objects.each_quality)
            misfit = _Misfit(likelihood, information, sums)
            step, precision = misfit.step(value)
            sd = np.sqrt(np.diag(np.linalg.inv(precision)))
            step *= min(1.0, _LARGEST_STEP / max(float(np.abs(step).max()), 1e-12))
            now = misfit(value)
            for _ in range(_HALVINGS):
                if misfit(value + step) <= now:
                    break
                step = 0.5 * step
            value = value + step
            if np.abs(step / sd).max() < _TOLERANCE:
                converged = True
                break
        cov = np.linalg.inv(precision)
        return Gaussian(value, 0.5 * (cov + cov.T)), sums.doubt, converged

    def tensors(self) -> dict[str, Tensor]:
        """Return the state, for :meth:`from_tensors`."""
        return dict(self.networks.state_dict())

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> ScoreEquation:
        """Build from the state that :meth:`tensors` returned."""
        d = len(tensors["scale"])
        members, size = tensors["weight.0"].shape[:2]
        networks = ScoreNetworks(d, size - d, members).double()
        networks.load_state_dict(dict(tensors))
        align_weights(networks)
        return cls(networks)

    @property
    def domain(self) -> tuple[F64, F64]:
        """Smallest and largest values of the shared parameters that were simulated, (d,)."""
        d = self.networks.dim
        return self.networks.low[:d].numpy(), self.networks.high[:d].numpy()

    def untested(self, features: F64) -> bool:
        """Return whether objects (n, k) have other errors or gaps than the data of the run."""
        n = self.networks
        return _beyond(features, n.like_low.numpy(), n.like_high.numpy()) > 0

    def outside(self, features: F64) -> float:
        """Return the fraction of objects (n, k) whose errors or gaps were not simulated."""
        n = self.networks
        return _beyond(features, n.low[n.dim :].numpy(), n.high[n.dim :].numpy())


def _finite(limits: Tensor) -> Tensor:
    """Return limits (k,), 0 for features that no object has."""
    return torch.nan_to_num(limits, posinf=0.0, neginf=0.0)


def _star(value: F64) -> F64:
    """Return a value (d,) and its neighbours on both sides along every axis, (1 + 2 d, d)."""
    steps = _NEAR * np.eye(len(value))
    return np.concatenate([value[None], value + steps, value - steps])


def _beyond(features: F64, low: F64, high: F64) -> float:
    """Return the fraction of objects with features (n, k) beyond limits (k,)."""
    return float(((features < low - _MARGIN) | (features > high + _MARGIN)).any(1).mean())


@dataclass(frozen=True, slots=True)
class _Misfit:
    """Half the squared distance to the prior and of U(Lambda), with b linear around one value."""

    likelihood: F64
    information: F64
    sums: Sums

    def _equation(self, value: F64) -> F64:
        s = self.sums
        score = self.information - self.likelihood @ value
        return np.asarray(score - s.bias - s.slope @ (value - s.value))

    @property
    def _variance(self) -> F64:
        return (1 + self.sums.doubt) * self.sums.variance

    def __call__(self, value: F64) -> float:
        u = self._equation(value)
        return float(0.5 * (value @ value + u @ np.linalg.solve(self._variance, u)))

    def step(self, value: F64) -> tuple[F64, F64]:
        """Return the Gauss-Newton step and the precision."""
        slope = self.likelihood + self.sums.slope
        weight = np.linalg.solve(self._variance, slope)
        precision = np.eye(len(value)) + slope.T @ weight
        pull = weight.T @ self._equation(value) - value
        return np.asarray(np.linalg.solve(precision, pull)), np.asarray(precision)


@torch_defaults()
def fit_score_networks(
    truth: F64, features: F64, score: F64, group: NDArray[np.int64], rng: np.random.Generator
) -> tuple[ScoreEquation, dict[str, float]]:
    """Learn b and V from simulated objects.

    Parameters
    ----------
    truth : (n, d)
        Unconstrained.
    features : (n, k)
        Quality of the data.
    score : (n, d)
        s at the truth.
    group : (n,)
        Objects with the same number share their truth. Even groups have the errors and missing
        values of the data, odd ones those of the training.

    Returns
    -------
    ScoreEquation
        What was learned.
    dict
        ``f``: root mean square of b in units of the scatter of s, the error of one object in its
        own sigma; ``f_after``, ``f_after_other_errors``: the part that remains, for
        objects with the errors of the data and for others.
    """
    n, d = truth.shape
    inputs = torch.as_tensor(np.concatenate([truth, features], 1), dtype=torch.float32)
    target = torch.as_tensor(score, dtype=torch.float32)
    with seeded(rng, "cpu"):
        networks = ScoreNetworks(d, features.shape[1], _MEMBERS)
    networks.scale.copy_(target.std(0).clamp_min(1e-12))
    lacking = inputs.isnan()
    networks.centre.copy_(inputs.nanmean(0).nan_to_num(0.0))
    spread = torch.where(lacking, networks.centre, inputs).std(0)
    networks.width.copy_(torch.where(spread > 1e-6, spread, 1.0))
    for low, high, rows in (
        (networks.low, networks.high, inputs),
        (networks.like_low, networks.like_high, inputs[group % _KINDS == 0, d:]),
    ):
        low.copy_(_finite(torch.where(rows.isnan(), torch.inf, rows).amin(0)))
        high.copy_(_finite(torch.where(rows.isnan(), -torch.inf, rows).amax(0)))
    member = group // _KINDS % _MEMBERS
    parts = [torch.as_tensor(np.flatnonzero(member == k)) for k in range(_MEMBERS)]
    with threads(1):
        _train(networks, inputs, target, parts, rng)
    align_weights(networks)
    equation = ScoreEquation(networks)
    values = [_held_out(networks, inputs, target, group, member, kind) for kind in range(_KINDS)]
    networks.misfit.copy_(torch.tensor(values))
    some = rng.permutation(n)[:10_000]
    b, v = networks.moments(inputs[some].double())
    root = torch.linalg.cholesky(v.mean(0))
    relative = torch.linalg.solve_triangular(root, b.mean(0).unsqueeze(-1), upper=False)
    return equation, {
        "f": float(relative.square().mean().sqrt()),
        "f_after": float(networks.misfit[0].sqrt()),
        "f_after_other_errors": float(networks.misfit[1].sqrt()),
    }


def _held_out(
    networks: ScoreNetworks,
    inputs: Tensor,
    target: Tensor,
    group: NDArray[np.int64],
    member: NDArray[np.int64],
    kind: int,
) -> float:
    """Return the unexplained excess of U' V^-1 U per object in groups not learned from."""
    d, members = networks.dim, networks.members
    central = inputs[:, :d].square().sum(1).numpy() < stats.chi2.ppf(_CENTRAL[kind], d)
    excess, objects = 0.0, 0
    for number in np.unique(group[central & (group % _KINDS == kind)]):
        rows = np.flatnonzero(group == number)
        others = [k for k in range(members) if k != member[rows[0]]]
        b, v = (t[others].sum(1) for t in networks.moments(inputs[rows].double()))
        root = torch.linalg.cholesky(v.mean(0))
        each = torch.cat([target[rows].double().sum(0)[None] - b.mean(0), b - b.mean(0)])
        white = torch.linalg.solve_triangular(root, each.T, upper=False).square().sum(0) / d
        between = float(white[1:].sum()) / (len(others) * (len(others) - 1))
        excess += float(white[0]) - 1 - between
        objects += len(rows)
    return max(0.0, excess / objects) if objects else 0.0


def _train(
    networks: ScoreNetworks,
    inputs: Tensor,
    target: Tensor,
    parts: list[Tensor],
    rng: np.random.Generator,
) -> None:
    size = min(len(p) for p in parts)
    rows = min(_ROWS, size)
    epochs = max(_EPOCHS, -(-_FEWEST_STEPS * rows // size))
    steps = size // rows
    optimizer = torch.optim.Adam(networks.parameters(), lr=_RATE)
    for epoch in range(epochs):
        order = torch.stack([p[torch.as_tensor(rng.permutation(len(p)))[:size]] for p in parts])
        for k in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = one_cycle(epoch * steps + k, epochs * steps, _RATE)
            some = order[:, k * rows : (k + 1) * rows]
            optimizer.zero_grad()
            loss = networks.loss(target[some], inputs[some]).mean(1).sum()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(networks.parameters(), _CLIP)
            optimizer.step()
