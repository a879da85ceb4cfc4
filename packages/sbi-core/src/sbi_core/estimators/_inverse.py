r"""Inverse of a masked autoregressive transform at the cost of one forward pass.

The usual inverse of :math:`u_i = f(z_i;\,\phi_i(z_{<i}, h))` evaluates the whole network once per
coordinate and keeps one coordinate of each result. But every hidden unit depends on some
coordinates only, and can be computed once, as soon as these are known. Sorted by the last
coordinate that they need, the units of one step are a block of rows, and every weight is used once
instead of once per coordinate. Terms that depend on the features alone are computed once per object
instead of once per draw. Units lie along the first axis and draws along the last, so that blocks
are contiguous and elementwise functions run over long rows.

References:
    | MADE (Germain et al., 2015), https://arxiv.org/abs/1502.03509 (masks)
    | Masked Autoregressive Flow (Papamakarios et al., 2017), https://arxiv.org/abs/1705.07057
    | Neural Spline Flows (Durkan et al., 2019), https://arxiv.org/abs/1906.04032 (splines)
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from zuko.transforms import MonotonicAffineTransform, MonotonicRQSTransform

__all__ = ["Plan", "inverse", "plan"]

_BOUND = 5.0  # splines act on [-5, 5]


class Plan:
    """Order in which the units of a masked network are computed.

    Parameters
    ----------
    transform
        The ``MaskedAutoregressiveTransform`` of zuko.
    slope
        Smallest slope of its elementwise function.
    spline
        True for rational-quadratic splines, False for affine functions.
    """

    def __init__(self, transform: Any, slope: float, spline: bool) -> None:
        self.slope, self.spline = slope, spline
        self.linear, self.activations = list(transform.hyper)[::2], list(transform.hyper)[1::2]
        order, total = transform.order.cpu(), int(transform.total)
        self.passes = int(order.max()) + 1
        self.total, self.dim = total, len(order)
        self.sequence = torch.argsort(order, stable=True)  # order in which coordinates are computed
        self.known = [int((order < r).sum()) for r in range(self.passes + 1)]
        inputs = self.linear[0].in_features
        depends = torch.cat([order, order.new_full((inputs - self.dim,), -1)])
        self.sorted: list[Tensor] = []
        self.ends: list[list[int]] = []  # ends[l][r]: units of layer l that need ranks below r only
        for layer in self.linear[:-1]:
            depends = torch.where(layer.mask.cpu().bool(), depends, -1).amax(1)
            self.sorted.append(torch.argsort(depends, stable=True))
            self.ends.append([int((depends < r).sum()) for r in range(self.passes + 1)])
        self.outputs = (self.sequence[:, None] * total + torch.arange(total)).reshape(-1)

    def weights(self) -> list[tuple[Tensor, Tensor]]:
        """Return masked weights and biases, rows and columns in the order of computation."""
        device = self.linear[0].weight.device
        inputs = torch.arange(self.dim, self.linear[0].in_features)
        columns = torch.cat([self.sequence, inputs])
        made = []
        for layer, rows in zip(self.linear, [*self.sorted, self.outputs], strict=True):
            r, c = rows.to(device), columns.to(device)
            made.append(((layer.mask * layer.weight)[r][:, c], layer.bias[r]))
            columns = rows
        return made


def plan(transform: Any) -> Plan | None:
    """Return the plan of a zuko ``MaskedAutoregressiveTransform``; None for other transforms."""
    hyper, order = getattr(transform, "hyper", None), getattr(transform, "order", None)
    if not isinstance(hyper, nn.Sequential) or order is None:
        return None
    linear, between = list(hyper)[::2], list(hyper)[1::2]
    if not all(isinstance(layer, nn.Linear) and hasattr(layer, "mask") for layer in linear):
        return None
    if not all(isinstance(a, (nn.ReLU, nn.SiLU, nn.ELU, nn.Tanh)) for a in between):
        return None
    made = transform.univariate
    options = made.keywords if isinstance(made, partial) else {}
    kind = made.func if isinstance(made, partial) else made
    if kind not in (MonotonicAffineTransform, MonotonicRQSTransform) or set(options) - {"slope"}:
        return None
    return Plan(transform, options.get("slope", 1e-3), kind is MonotonicRQSTransform)


@torch.no_grad()
def inverse(steps: Plan, y: Tensor, h: Tensor) -> Tensor:
    """Return z (S, n, d) whose transform given features h (n, k) is y (S, n, d); no gradients."""
    draws, n, d = y.shape
    (into, bias), *rest = steps.weights()
    first = functional.linear(h, into[:, d:], bias).T[:, None]  # once per object
    into = into[:, :d].contiguous()
    target = y.reshape(draws * n, d).T[steps.sequence.to(y.device)]
    z = torch.empty_like(target, memory_format=torch.contiguous_format)
    hidden = [y.new_empty((len(by), draws * n)) for by in steps.sorted]
    for r in range(steps.passes):
        for k, ends in enumerate(steps.ends):
            a, b = (0 if r == 0 else ends[r - 1]), ends[r]
            if a == b:
                continue
            block = hidden[k][a:b]
            if k == 0:
                block.view(b - a, draws, n).copy_(first[a:b])
                if steps.known[r]:
                    block.addmm_(into[a:b, : steps.known[r]], z[: steps.known[r]])
            else:
                m = steps.ends[k - 1][r]
                weight, bias = rest[k - 1]
                torch.addmm(bias[a:b, None], weight[a:b, :m], hidden[k - 1][:m], out=block)
            _activate(steps.activations[k], block)
        a, b = steps.known[r], steps.known[r + 1]
        rows, m = slice(a * steps.total, b * steps.total), steps.ends[-1][r]
        weight, bias = rest[-1]
        phi = torch.addmm(bias[rows, None], weight[rows, :m], hidden[-1][:m])
        solve = _spline if steps.spline else _affine
        z[a:b] = solve(phi.view(b - a, steps.total, -1), target[a:b], steps.slope)
    back = torch.empty_like(z)
    back[steps.sequence.to(y.device)] = z
    return back.T.reshape(draws, n, d)


def _activate(activation: nn.Module, block: Tensor) -> None:
    if isinstance(activation, nn.ReLU):
        block.relu_()
    else:
        block.copy_(activation(block))


def _squashed(raw: Tensor, limit: float) -> Tensor:
    """Return raw numbers mapped smoothly into (-|limit|, |limit|)."""
    return raw / (1 + (raw / limit).abs())


def _affine(phi: Tensor, y: Tensor, slope: float) -> Tensor:
    """Return x with exp(a) x + b = y, for phi (c, 2, rows) and y (c, rows)."""
    return (y - phi[:, 0]) * torch.exp(-_squashed(phi[:, 1], math.log(slope)))


def _knots(raw: Tensor, slope: float) -> Tensor:
    """Return bin widths as knots (c, bins + 1, rows) from -bound to bound."""
    width = _squashed(raw, math.log(slope) / 2).exp()
    knots = raw.new_zeros((raw.shape[0], raw.shape[1] + 1, raw.shape[2]))
    for k in range(raw.shape[1]):  # long rows: quicker than a cumulative sum over a short axis
        torch.add(knots[:, k], width[:, k], out=knots[:, k + 1])
    return knots.mul_(2 * _BOUND / knots[:, -1:]).sub_(_BOUND)


def _spline(phi: Tensor, y: Tensor, slope: float) -> Tensor:
    """Return x whose rational-quadratic spline is y, for phi (c, 3 bins - 1, rows)."""
    bins = (phi.shape[1] + 1) // 3
    horizontal = _knots(phi[:, :bins], slope)
    vertical = _knots(phi[:, bins : 2 * bins], slope)
    inside = (y > -_BOUND) & (y <= _BOUND)
    k = (vertical[:, 1:-1] < y[:, None]).sum(1, keepdim=True)
    x0, x1 = horizontal.gather(1, k)[:, 0], horizontal.gather(1, k + 1)[:, 0]
    y0, y1 = vertical.gather(1, k)[:, 0], vertical.gather(1, k + 1)[:, 0]
    edge = torch.zeros_like(y[:, None])
    raw = torch.cat([edge, phi[:, 2 * bins :], edge], dim=1)
    d0, d1 = (_squashed(raw.gather(1, j)[:, 0], math.log(slope)).exp() for j in (k, k + 1))
    height, s = y1 - y0, (y1 - y0) / (x1 - x0)
    off = torch.where(inside, y - y0, 0.0)
    bend = off * (d0 + d1 - 2 * s)
    a, b, c = height * (s - d0) + bend, height * d0 - bend, -s * off
    share = 2 * c / (-b - (b**2 - 4 * a * c).clamp(min=0).sqrt())
    return torch.where(inside, x0 + share * (x1 - x0), y)
