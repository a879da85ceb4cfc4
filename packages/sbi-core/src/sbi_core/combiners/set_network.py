r"""q(Lambda | x_1 .. x_N) for sets of any size: the network of the combiner ``deepset``.

Every object is mapped by one network to a summary :math:`h_i` and to a Gaussian likelihood
(:math:`J_i` positive semi-definite, :math:`b_i`); sets are described by the mean of the
summaries and by the Gaussian that the sums give, in unconstrained space, where the prior is
N(0, I):

.. math:: P = I + \sum_i J_i = R R^T, \quad P m = \sum_i b_i, \quad
          e = \rho\left(\frac1N \sum_i h_i,\ m,\ \log \frac{\mathrm{diag} R^2}{1 + N},\
          \log(1 + N)\right), \quad
          r = R^T (\Lambda - m) - \sqrt N\,g(e),

with a mixture of Gaussians for r given e. The mixture learns what the sums leave out, in units of
the width of the posterior of N objects; a network without this scale would give posteriors that
are too wide for large N. The error of a sum grows as :math:`\sqrt N`, hence the factor of g. All
parts are trained together.

References:
    | Deep Sets (Zaheer et al., 2017), https://arxiv.org/abs/1703.06114
    | Radev et al. 2020, https://arxiv.org/abs/2003.06281 (sets of varying size)
    | Mixture Density Networks (Bishop, 1994), Aston University NCRG/94/004
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sbi_core.data.batch import Batch
from sbi_core.embeddings.identity import Joined
from sbi_core.training.mixture_head import MixtureHead
from sbi_core.training.networks import Standardizer, mlp

__all__ = ["SetNetwork", "exists"]

_SMALL = 0.1  # first J of an object, in units of the prior's precision


def exists(batch: Batch) -> Tensor:
    """Return True for objects with at least one observed value, (n,); the others are padding."""
    return batch.observed.flatten(1).any(1)


class SetNetwork(nn.Module):
    """The density q(Lambda | x_1 .. x_N); see the module.

    Parameters
    ----------
    standardizer
        Standardisation of single objects; fitted, or loaded later.
    dim
        Number of shared parameters, unconstrained.
    member
        Widths of the network of one object.
    pooled
        Length of the summary h.
    hidden
        Widths of the networks of the set.
    components
        Gaussians of the mixture.
    """

    def __init__(
        self,
        standardizer: Standardizer,
        dim: int,
        *,
        member: tuple[int, ...],
        pooled: int,
        hidden: tuple[int, ...],
        components: int,
    ) -> None:
        super().__init__()
        self.standardizer, self.dim, self.pooled = standardizer, dim, pooled
        self.joined = Joined(standardizer.shape)
        self.sizes = (pooled, dim, dim * dim)
        self.member = mlp(self.joined.out_features, member, sum(self.sizes))
        features = pooled + 2 * dim + 1
        self.shift = mlp(features, hidden, dim)
        self.head = MixtureHead(features, dim, components, hidden)
        last = self.shift[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def terms(self, batch: Batch) -> Tensor:
        """Return what every object adds to the sums over its set, (n, t): h, b and J."""
        out: Tensor = self.member(self.joined(*self.standardizer(batch)))
        h, b, root = torch.split(out, list(self.sizes), dim=-1)
        a = root.reshape(-1, self.dim, self.dim).tril(-1)
        diagonal = functional.softplus(root[..., :: self.dim + 1] - 1.0)
        a = _SMALL**0.5 * (a + torch.diag_embed(diagonal))
        return torch.cat([h, b, (a @ a.mT).flatten(-2)], -1)

    def forward(self, total: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        r"""Return m (B, d), R (B, d, d), :math:`\sqrt N g` (B, d) and e (B, k).

        Parameters
        ----------
        total : (B, t)
            Sums of :meth:`terms` over the objects of every set.
        count : (B,)
            Their number, at least 1.
        """
        h, b, j = torch.split(total, list(self.sizes), dim=-1)
        n = count.to(total.dtype).unsqueeze(-1)
        precision = j.reshape(-1, self.dim, self.dim)
        precision = precision + torch.eye(self.dim, dtype=total.dtype, device=total.device)
        root = torch.linalg.cholesky(precision)
        m = torch.cholesky_solve(b.unsqueeze(-1), root).squeeze(-1)
        width = 2 * root.diagonal(dim1=-2, dim2=-1).log() - n.log1p()
        # m is clipped: far from all truths nothing can be learned
        e = torch.cat([h / n, m.clamp(-6.0, 6.0), width, n.log1p()], -1)
        return m, root, n.sqrt() * self.shift(e), e

    def log_prob(self, z: Tensor, total: Tensor, count: Tensor) -> Tensor:
        """Return log q of z (B, d), (B,)."""
        m, root, shift, e = self(total, count)
        r = (root.mT @ (z - m).unsqueeze(-1)).squeeze(-1) - shift
        log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        log_q: Tensor = self.head.log_prob(r, e) + log_det
        return log_q

    def moments(self, total: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """Return exact mean (B, d) and covariance (B, d, d) of q."""
        m, root, shift, e = self(total, count)
        r, cov = self.head.moments(e)
        inverse = torch.linalg.inv(root.double()).mT
        mean = m + (inverse @ (r + shift).unsqueeze(-1)).squeeze(-1)
        return mean, inverse @ cov @ inverse.mT

    def draw(self, noise: Tensor, total: Tensor, count: Tensor) -> Tensor:
        """Return z (S, d) of one set (total (1, t)) for standard normal noise (S, d + 1)."""
        m, root, shift, e = self(total, count)
        r = self.head.draw(noise.unsqueeze(1), e).squeeze(1) + shift
        z: Tensor = m + r @ torch.linalg.inv(root)[0]
        return z
