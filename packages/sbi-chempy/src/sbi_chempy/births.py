r"""Real stars for simulated ones: which may have a given birth time.

Simulated stars take the observed birth times, errors and abundance errors of real stars. A star i
with observed time o and error e is drawn for the true birth time t with a probability proportional
to

.. math:: p_i(t) \propto p(t)\,g_{k(i)}(t)\,N(o_i;\,t, e_i^2), \qquad
          \int p_i(t)\,\mathrm{d}t = 1,

with the prior p(t) of the model and the fraction :math:`g_k(t)` of stars born at t
that have an error of class k (a range of errors, or no observed time). Errors often grow with age,
so that an error alone tells something about the true time. g is the maximum-likelihood estimate, by
expectation and maximisation (twenty steps from equal fractions),

.. math:: g_k(t) = \frac{\sum_{i\in k} p_i(t)}{\sum_i p_i(t)} ,

with one more star of average errors per cell of t.

References:
    | Richardson 1972, JOSA 62, 55; Lucy 1974, AJ 79, 745 (the steps)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sbi_chempy.constants import T_END_GYR
from sbi_core import Prior

__all__ = ["MANY", "StarsByBirth"]

MANY = 100  # observed birth times, from which their distribution is known well enough

_CELLS = 138  # of birth times
_WIDTH = T_END_GYR / _CELLS
_TINY = 1e-300
_CLASSES = 12  # of errors, at most
_STARS_PER_CLASS = 20
_STEPS = 20
_MOST = 20_000  # evenly chosen stars represent more
_LEAST = 0.05  # probability of a birth time, relative to the model, below which no star has it


@dataclass(frozen=True, slots=True)
class StarsByBirth:
    """Real stars, to be drawn for true birth times.

    Parameters
    ----------
    star : (m,) int64
        Rows of the real stars.
    total : (cells, m)
        Cumulative probabilities of the stars in each cell of birth time.
    fits : (cells,) bool
        Real stars have such birth times.
    """

    star: Tensor
    total: Tensor
    fits: Tensor

    @classmethod
    def of(cls, context: Tensor, prior: Prior) -> StarsByBirth:
        """Return the stars with context columns (n, 3): observed time, error, 1 if observed."""
        star = torch.arange(0, len(context), -(-len(context) // _MOST))
        value, error, observed = context[star].double().nan_to_num().T
        centre = (torch.arange(_CELLS, dtype=torch.float64) + 0.5) * _WIDTH
        density = torch.as_tensor(np.exp(prior.log_prob(centre.numpy()[:, None]))).reshape(-1, 1)
        density = density / density.sum()
        spread = (error**2 + _WIDTH**2 / 12).sqrt()
        log_like = -0.5 * ((value - centre[:, None]) / spread) ** 2
        log_like = torch.where(observed > 0, log_like - log_like.max(0).values, 0.0)
        likelihood, kind = density * log_like.exp(), _classes(error, observed > 0)
        count = torch.bincount(kind).double()
        fraction = (count / len(star))[:, None].expand(-1, _CELLS)  # (classes, cells)
        for _ in range(_STEPS):
            p = likelihood * fraction[kind].T
            p = p / p.sum(0).clamp_min(_TINY)
            counted = torch.zeros_like(fraction).T.index_add(1, kind, p).T
            counted = counted + (count / len(star))[:, None]
            fraction = counted / counted.sum(0)
        p = likelihood * fraction[kind].T
        total = (p / p.sum(0).clamp_min(_TINY)).cumsum(1)
        return cls(star, total, total[:, -1] > _LEAST * density[:, 0] * len(star))

    def draw(self, t_birth: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return a row for each birth time (n,) [Gyr], and whether real stars have such times."""
        cell = (t_birth.double() / _WIDTH).long().clamp(0, _CELLS - 1)
        level = torch.rand(len(cell), generator=generator, dtype=torch.float64)
        level = level * self.total[cell, -1]
        drawn = torch.empty_like(cell)
        counts = torch.bincount(cell, minlength=_CELLS).tolist()
        for k, rows in enumerate(torch.split(cell.argsort(stable=True), counts)):
            drawn[rows] = torch.searchsorted(self.total[k], level[rows])
        return self.star[drawn.clamp_max(len(self.star) - 1)], self.fits[cell]


def _classes(error: Tensor, observed: Tensor) -> Tensor:
    """Return the class of each star: ranges of errors with equal numbers; the last has none."""
    known = error[observed].log()
    number = min(_CLASSES, max(1, len(known) // _STARS_PER_CLASS))
    inner = torch.linspace(0, 1, number + 1, dtype=torch.float64)[1:-1]
    kind = torch.full((len(error),), number)
    kind[observed] = torch.searchsorted(torch.quantile(known, inner), known)
    return kind
