r"""A learned correction of the error of a Gaussian combination.

For a combined mean *m* and covariance :math:`C = LL^T` of N objects in unconstrained space, a
network predicts the normalised error

.. math:: r = L^{-1}(\Lambda - m) \sim N(\sqrt N\,g(\phi),\, S(\phi)), \qquad
          \phi = (m,\ \log\mathrm{diag}\,L + \tfrac12\log N,\ L_{jk}\sqrt N,\ \log N),

so that *g* is the error of a single object in units of its own width, which grows by the factor
:math:`\sqrt N` when objects are combined. The corrected posterior is
:math:`N(m + L\mu_r,\ L S L^T)`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sbi_core.rng import stream
from sbi_core.train import seeded

__all__ = ["Correction", "Examples", "features", "fit_correction"]

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Examples:
    """Combinations with known truth.

    Parameters
    ----------
    features : (n, k)
        See :func:`features`.
    residual : (n, d)
        r, the normalised error.
    n_objects : (n,)
        N.
    group : (n,)
        Which simulated group each belongs to; groups are never split between sets.
    """

    features: F64
    residual: F64
    n_objects: F64
    group: NDArray[np.int64]


def features(mean: F64, chol: F64, n_objects: F64) -> F64:
    """Return phi (n, 2d + d(d-1)/2 + 1) for means (n, d), Cholesky factors (n, d, d), N (n,)."""
    d = mean.shape[1]
    rows, columns = np.tril_indices(d, -1)
    diagonal = np.log(np.einsum("nii->ni", chol)) + 0.5 * np.log(n_objects)[:, None]
    off = chol[:, rows, columns] * np.sqrt(n_objects)[:, None]
    return np.concatenate([mean, diagonal, off, np.log(n_objects)[:, None]], 1)


class Correction(nn.Module):
    """The network: standardised features to mean and Cholesky factor of r.

    Parameters
    ----------
    d
        Number of shared parameters.
    hidden
        Width of the two hidden layers.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, d: int, hidden: int) -> None:
        super().__init__()
        self.d = d
        k = 2 * d + d * (d - 1) // 2 + 1
        self.register_buffer("centre", torch.zeros(k))
        self.register_buffer("scale", torch.ones(k))
        self.mean_net = _mlp(k, hidden, d)
        self.width_net = _mlp(k, hidden, d * (d + 1) // 2)

    def forward(self, phi: Tensor, n_objects: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean (n, d) and lower Cholesky factor (n, d, d) of r."""
        h = (phi - self.centre) / self.scale
        mean = torch.sqrt(n_objects)[:, None] * 0.1 * self.mean_net(h)
        raw = self.width_net(h)
        chol = torch.diag_embed(torch.exp(raw[:, : self.d]))
        rows, columns = torch.tril_indices(self.d, self.d, -1)
        chol[:, rows, columns] = raw[:, self.d :]
        return mean, chol

    def nll(self, phi: Tensor, n_objects: Tensor, residual: Tensor) -> Tensor:
        """Return the negative log density of r, (n,), without its constant."""
        mean, chol = self(phi, n_objects)
        white = torch.linalg.solve_triangular(chol, (residual - mean)[..., None], upper=False)
        log_det = torch.log(torch.diagonal(chol, dim1=1, dim2=2)).sum(1)
        return torch.as_tensor(0.5 * (white[..., 0] ** 2).sum(1) + log_det)


def _mlp(k: int, hidden: int, out: int) -> nn.Sequential:
    last = nn.Linear(hidden, out)
    nn.init.zeros_(last.weight)  # start without any correction
    nn.init.zeros_(last.bias)
    return nn.Sequential(
        nn.Linear(k, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last
    )


def fit_correction(
    examples: Examples, *, hidden: int, epochs: int, batch_size: int, seed: int
) -> tuple[Correction, dict[str, float]]:
    """Train on nine tenths of the groups, keep the weights that are best on the rest.

    Returns
    -------
    Correction
        The network.
    dict
        ``nll_before`` and ``nll_after``: mean over validation examples, nats, without and with
        the correction.
    """
    d = examples.residual.shape[1]
    with seeded(stream(seed, "correction", "weights")):
        network = Correction(d, hidden)
    data = [
        torch.as_tensor(a, dtype=torch.float32)
        for a in (examples.features, examples.n_objects, examples.residual)
    ]
    groups = np.unique(examples.group)
    held = stream(seed, "correction", "split").permutation(groups)[: max(1, len(groups) // 10)]
    is_val = torch.as_tensor(np.isin(examples.group, held))
    train, val = ([a[rows] for a in data] for rows in (~is_val, is_val))
    network.centre.copy_(train[0].mean(0))
    network.scale.copy_(train[0].std(0).clamp_min(1e-6))
    steps = epochs * math.ceil(len(train[0]) / batch_size)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps, pct_start=0.1)
    before = float((0.5 * (val[2] ** 2).sum(1)).mean())
    best, kept = before, {k: v.clone() for k, v in network.state_dict().items()}
    for epoch in range(epochs):
        order = torch.as_tensor(stream(seed, "correction", epoch).permutation(len(train[0])))
        for rows in torch.split(order, batch_size):
            loss = network.nll(*(a[rows] for a in train)).mean()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            now = float(network.nll(*val).mean())
        if now < best:
            best, kept = now, {k: v.clone() for k, v in network.state_dict().items()}
    network.load_state_dict(kept)
    return network, {"nll_before": before, "nll_after": best}
