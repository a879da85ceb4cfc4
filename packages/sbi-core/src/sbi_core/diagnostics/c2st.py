r"""Classifier two-sample test: can a network tell two sets of draws apart?

Draws :math:`X` and :math:`Y` get labels 0 and 1, and classifiers learn the label. With
:math:`K` folds,

.. math:: \mathrm{C2ST} = \frac1{n} \sum_{k=1}^K \sum_{i \in k}
          \mathbf 1\left[\hat y_{-k}(u_i) = y_i\right],

each draw :math:`u_i` judged by the classifier that did not see it. 0.5: indistinguishable; 1: never
mistaken. For densities p and q and an ideal classifier it is
:math:`\tfrac12 + \tfrac14 \int |p - q|`. It needs draws of a posterior that is known, so it is for
benchmarks; for an observation of one's own there is the local version
:func:`sbi_core.adapters.sbi_diagnostics.lc2st`.

References:
    | Lopez-Paz & Oquab 2017, "Revisiting classifier two-sample tests", arXiv:1610.06545
    | Lueckmann et al. 2021, "Benchmarking simulation-based inference", arXiv:2101.04653
"""

__all__ = ["C2st", "c2st"]

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from sbi_core.diagnostics._ranks import FloatArray

if TYPE_CHECKING:
    from torch import Tensor

_BATCH = 256
_EPOCHS, _MOST_STEPS = 60, 1500
_CHECKS = 30  # looks at the validation rows
_RATE = 5e-3


@dataclass(frozen=True, slots=True)
class C2st:
    """Outcome of a classifier two-sample test.

    Attributes
    ----------
    accuracy : float
        Share of draws that are classified rightly when held out; 0.5 is ideal.
    sd : float
        Its binomial standard deviation if both sets came from one distribution.
    """

    accuracy: float
    sd: float

    @property
    def p(self) -> float:
        """One-sided p-value of ``accuracy`` under equal distributions (Gaussian)."""
        return float(stats.norm.sf((self.accuracy - 0.5) / self.sd))


def c2st(x: FloatArray, y: FloatArray, *, folds: int = 5, seed: int = 1) -> C2st:
    """Compare two sets of draws by classifiers with two hidden layers.

    Parameters
    ----------
    x : (n, d)
        Draws of the reference; they set the scale of the inputs.
    y : (m, d)
        Draws to judge. Both sets are cut to one size, a multiple of ``folds``.
    folds : int
        K of the cross-validation.
    seed : int
        Of folds, weights and order: the result is reproducible.

    Returns
    -------
    C2st

    Raises
    ------
    ValueError
        If shapes do not fit, a value is not finite, or there are fewer than 10 K draws.

    Notes
    -----
    Layers of max(64, 10 d) units. In every fold a tenth of the training rows chooses when to
    stop, so the classifiers do not over-fit; those of Lueckmann et al. (10 d units, trained to
    the end) see a little less. The K classifiers are trained side by side. Held-out
    classifications of different folds are slightly dependent, so ``p`` is only a guide.
    """
    from torch import as_tensor, float32

    x, y = _checked(x, y, folds)
    n = min(len(x), len(y)) // folds * folds
    rng = np.random.default_rng(seed)
    x, y = x[rng.permutation(len(x))[:n]], y[rng.permutation(len(y))[:n]]
    sd = x.std(axis=0, ddof=1)
    sd = np.where(sd > 0, sd, 1.0)
    # (fold, row, parameter): as many rows of either set in every fold
    parts = [((v - x.mean(axis=0)) / sd).reshape(folds, -1, x.shape[1]) for v in (x, y)]
    inputs = np.concatenate(parts, axis=1)
    labels = np.repeat([0.0, 1.0], n // folds)
    others = np.array([[j for j in range(folds) if j != k] for k in range(folds)])
    train = inputs[others].reshape(folds, -1, x.shape[1])
    order = rng.permutation(train.shape[1])
    networks = _Networks(folds, x.shape[1], seed)
    networks.fit(
        as_tensor(train[:, order], dtype=float32),
        as_tensor(np.tile(labels, folds - 1)[order], dtype=float32),
    )
    found = networks.logits(as_tensor(inputs, dtype=float32)).numpy() > 0
    return C2st(accuracy=float((found == labels).mean()), sd=float(0.5 / np.sqrt(2 * n)))


def _checked(
    x: FloatArray, y: FloatArray, folds: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"both sets must be (draws, parameters), not {x.shape} and {y.shape}")
    if folds < 2 or min(len(x), len(y)) < 10 * folds:
        raise ValueError(f"{min(len(x), len(y))} draws are too few for {folds} folds")
    for name, values in (("x", x), ("y", y)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} holds values that are not finite")
    return x.astype(np.float64), y.astype(np.float64)


class _Networks:
    """K perceptrons in one: every layer is a batched product (K, rows, in) x (K, in, out)."""

    def __init__(self, folds: int, size: int, seed: int) -> None:
        import torch

        self.generator = torch.Generator().manual_seed(seed)
        hidden = max(64, 10 * size)
        self.weights = []
        for a, b in ((size, hidden), (hidden, hidden), (hidden, 1)):
            w = torch.randn((folds, a, b), generator=self.generator) * np.sqrt(2.0 / a)
            self.weights += [w.requires_grad_(), torch.zeros((folds, 1, b)).requires_grad_()]

    def _forward(self, h: "Tensor") -> "Tensor":
        import torch

        for k in range(0, len(self.weights), 2):
            h = torch.baddbmm(self.weights[k + 1], h, self.weights[k])
            h = h.relu() if k < len(self.weights) - 2 else h
        return h[..., 0]

    def logits(self, rows: "Tensor") -> "Tensor":
        """Log odds (K, n) of label 1 for rows (K, n, d)."""
        import torch

        with torch.no_grad():
            return self._forward(rows)

    def fit(self, rows: "Tensor", labels: "Tensor") -> None:
        """Train on rows (K, n, d) with labels (n,); keep each fold's best weights."""
        import torch
        from torch.nn.functional import binary_cross_entropy_with_logits as loss_of

        every = max(1, min(_EPOCHS * rows.shape[1] // _BATCH, _MOST_STEPS) // _CHECKS)
        optimizer = torch.optim.Adam(self.weights, lr=_RATE, fused=True)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, every * _CHECKS)
        held = rows.shape[1] // 10
        check, target = rows[:, :held], labels[:held].expand(len(rows), -1)
        rows, labels = rows[:, held:], labels[held:]
        best = torch.full((len(rows),), torch.inf)
        kept = [w.detach().clone() for w in self.weights]
        for step in range(every * _CHECKS):
            ix = torch.randint(rows.shape[1], (_BATCH,), generator=self.generator)
            optimizer.zero_grad()
            wanted = labels[ix].expand(len(rows), -1)
            # mean over rows, sum over folds: the folds do not see each other
            loss = loss_of(self._forward(rows[:, ix]), wanted, reduction="sum") / _BATCH
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if (step + 1) % every == 0:
                now = loss_of(self.logits(check), target, reduction="none").mean(1)
                better = now < best
                best = torch.where(better, now, best)
                for old, new in zip(kept, self.weights, strict=True):
                    old[better] = new.detach()[better]
        self.weights = kept
