r"""Optimisers over flat weights, and the one-cycle learning rate.

.. math:: \eta(s) = \eta_{\max}\,\left[\tfrac1{25} + \tfrac{24}{25}
          \tfrac{1 - \cos \pi s/w}{2}\right]\ (s < w), \qquad
          \eta_{\max}\,\left[10^{-3} + (1 - 10^{-3})
          \tfrac{1 + \cos \pi (s - w)/(n - w)}{2}\right]\ (s \ge w)

at step *s* of *n*, with a warm-up of *w = 0.1 n* steps.

References:
    | Super-convergence (Smith & Topin, 2017), https://arxiv.org/abs/1708.07120
    | The Road Less Scheduled (Defazio et al., 2024), https://arxiv.org/abs/2405.15682
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import schedulefree
import torch
from torch import Tensor, nn

from sbi_core.training.config import TrainConfig

__all__ = ["FlatWeights", "make_optimizer", "one_cycle", "set_mode"]


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Return the learning rate at a step of a cycle of that many steps."""
    warm = max(1.0, 0.1 * steps)
    if step < warm:
        return peak * (0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * step / warm)))
    t = (step - warm) / max(1.0, steps - warm)
    return peak * (1e-3 + (1 - 1e-3) * 0.5 * (1 + math.cos(math.pi * t)))


class FlatWeights:
    """All trainable weights of a network in one tensor, and their gradients in another.

    The parameters of the network become views of them, so that clearing, norm, clipping and step
    take one kernel each instead of one per layer. Views start at addresses that are not aligned;
    :func:`sbi_core.data.alignment.align_weights` ends that after training.

    Attributes
    ----------
    weights
        The flat tensors, one per dtype.
    """

    def __init__(self, network: nn.Module) -> None:
        self.weights: list[nn.Parameter] = []
        trained = [p for p in network.parameters() if p.requires_grad]
        for dtype in dict.fromkeys(p.dtype for p in trained):
            group = [p for p in trained if p.dtype == dtype]
            flat = nn.Parameter(torch.cat([p.detach().reshape(-1) for p in group]))
            flat.grad = torch.zeros_like(flat)
            start = 0
            for p in group:
                part = slice(start, start + p.numel())
                p.data, p.grad = flat.data[part].view_as(p), flat.grad[part].view_as(p)
                start += p.numel()
            self.weights.append(flat)

    @property
    def _gradients(self) -> list[Tensor]:
        return [w.grad for w in self.weights if w.grad is not None]

    def clear(self) -> None:
        """Set all gradients to zero."""
        for gradient in self._gradients:
            gradient.zero_()

    def norm(self) -> Tensor:
        """Return the norm of all gradients, a scalar."""
        norms = [torch.linalg.vector_norm(gradient) for gradient in self._gradients]
        total: Tensor = torch.stack(norms).square().sum().sqrt()
        return total

    def scale(self, factor: float) -> None:
        """Multiply all gradients by a factor."""
        for gradient in self._gradients:
            gradient.mul_(factor)


def make_optimizer(weights: Sequence[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser that the options name."""
    if config.optimizer == "adam-onecycle":
        return torch.optim.AdamW(weights, config.peak, weight_decay=config.weight_decay, fused=True)

    optimizer: torch.optim.Optimizer = schedulefree.AdamWScheduleFree(
        weights,
        lr=config.peak,
        weight_decay=config.weight_decay,
        warmup_steps=config.warmup_steps,
    )
    return optimizer


def set_mode(network: nn.Module, optimizer: torch.optim.Optimizer, training: bool) -> None:
    """Switch the network and, if it is schedule-free, the optimiser between the two modes.

    A schedule-free optimiser holds other weights in evaluation mode.
    """
    network.train(training)
    switch = getattr(optimizer, "train" if training else "eval", None)
    if switch is not None:
        switch()
