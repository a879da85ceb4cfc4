r"""Inverse of a masked autoregressive transform at the cost of one forward pass.

The usual inverse of :math:`u_i = f(z_i;\,\phi_i(z_{<i}, h))` evaluates the whole network once per
coordinate and keeps one coordinate of each. But a hidden unit depends on certain coordinates only:
it is computed once, as soon as these are known. Sorted by the last coordinate they need, the units
that become known together are a block of columns, and every weight of the network is used once for
all coordinates instead of once for each. What depends on the features alone is computed once per
object instead of once per draw.

References:
    | MADE (Germain et al., 2015), https://arxiv.org/abs/1502.03509 (masks)
    | Masked Autoregressive Flow (Papamakarios et al., 2017), https://arxiv.org/abs/1705.07057
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["inverse", "plan"]


class _Plan:
    """When which unit of one masked network is known.

    Parameters
    ----------
    linear
        Its masked linear layers.
    activations
        The elementwise modules between them.
    order
        Rank of every coordinate, (d,): coordinates of rank r depend on those of lower rank.
    total
        Numbers the network gives per coordinate.
    """

    def __init__(
        self, linear: list[Any], activations: list[nn.Module], order: Tensor, total: int
    ) -> None:
        self.linear, self.activations = linear, activations
        self.passes = int(order.max()) + 1
        self.coordinates = [torch.nonzero(order == r)[:, 0] for r in range(self.passes)]
        self.dim = len(order)
        known = torch.cat([order, order.new_full((linear[0].in_features - self.dim,), -1)])
        self.sorted: list[Tensor] = []
        self.ends: list[list[int]] = []  # ends[l][r]: units of layer l known from ranks below r
        for layer in linear[:-1]:
            depends = torch.where(layer.mask.cpu().bool(), known, -1).amax(1)
            by = torch.argsort(depends, stable=True)
            self.sorted.append(by)
            counts = [int((depends < r).sum()) for r in range(self.passes + 1)]
            self.ends.append(counts)
            known = depends
        self.outputs = [
            (c[:, None] * total + torch.arange(total)).reshape(-1) for c in self.coordinates
        ]


def plan(transform: Any) -> _Plan | None:
    """Return the plan of a zuko ``MaskedAutoregressiveTransform``; None for anything else."""
    hyper, order = getattr(transform, "hyper", None), getattr(transform, "order", None)
    if not isinstance(hyper, nn.Sequential) or order is None:
        return None
    linear, activations = list(hyper)[::2], list(hyper)[1::2]
    plain = all(isinstance(layer, nn.Linear) and hasattr(layer, "mask") for layer in linear)
    simple = all(isinstance(a, (nn.ReLU, nn.SiLU, nn.ELU, nn.Tanh)) for a in activations)
    if not plain or not simple or len(linear) != len(activations) + 1:
        return None
    return _Plan(linear, activations, order.cpu(), int(transform.total))


def inverse(transform: Any, steps: _Plan, y: Tensor, h: Tensor) -> Tensor:
    """Return z (..., n, d) with transform(h)(z) = y, for features h (n, k)."""
    d, lead, device = steps.dim, y.shape[:-1], y.device
    weights, biases = [], []
    before: Tensor | None = None
    for layer, by in zip(steps.linear, [*steps.sorted, None], strict=True):
        weight, bias = layer.mask * layer.weight, layer.bias
        if before is not None:
            weight = weight[:, before.to(device)]
        if by is not None:
            weight, bias = weight[by.to(device)], bias[by.to(device)]
        weights.append(weight)
        biases.append(bias)
        before = by
    first = functional.linear(h, weights[0][:, d:], biases[0])  # once per object
    into = weights[0][:, :d]
    z = torch.zeros_like(y)
    hidden = [y.new_empty((*lead, len(by))) for by in steps.sorted]
    done: list[int] = []
    for r in range(steps.passes):
        for k, ends in enumerate(steps.ends):
            a, b = (0 if r == 0 else ends[r - 1]), ends[r]
            if a == b:
                continue
            if k == 0:
                value = first[:, a:b].expand(*lead, b - a)
                if done:
                    value = value + functional.linear(z[..., done], into[a:b][:, done])
            else:
                m = steps.ends[k - 1][r]
                value = functional.linear(
                    hidden[k - 1][..., :m], weights[k][a:b, :m], biases[k][a:b]
                )
            hidden[k][..., a:b] = steps.activations[k](value)
        out, m = steps.outputs[r].to(device), steps.ends[-1][r]
        phi = functional.linear(hidden[-1][..., :m], weights[-1][out, :m], biases[-1][out])
        new = steps.coordinates[r].to(device)
        shaped = phi.reshape(*lead, len(new), -1)
        sizes = [int(torch.Size(s).numel()) for s in transform.shapes]
        parts = [
            p.reshape(*p.shape[:-1], *s)
            for p, s in zip(torch.split(shaped, sizes, -1), transform.shapes, strict=True)
        ]
        z[..., new] = transform.univariate(*parts).inv(y[..., new])
        done += new.tolist()
    return z
