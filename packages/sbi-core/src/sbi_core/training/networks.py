r"""The network of the built-in estimators: standardised input, embedding and head.

.. math:: (x, \sigma, m, c) \to \mathrm{standardise} \to h = e(x, \sigma, m, c)
          \to \log q(z\,|\,h)

Masked values are ignored: they are replaced before anything is computed, so that their value, NaN
included, changes no bit of the output.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from sbi_core.components import Embedding, InputShape
from sbi_core.data.batch import Batch
from sbi_core.errors import ConfigError, ObservationError, SbiError, counted, first_line
from sbi_core.training.loop import Trainable

__all__ = ["ConditionalNetwork", "Head", "Pooling", "Standardizer", "mlp", "pooling_of"]

Pooling = Literal["element", "channel", "feature", "raw"]


class Head(nn.Module):
    """A density q(z | h) of z (..., n, d) given features h (n, k).

    Attributes
    ----------
    noise_size
        Standard normal numbers that one draw needs.
    rows_per_call
        Draws times objects in one call: large enough to hide the cost of the call, small enough
        for the processor's cache (measured, benchmarks/inference/sampling.py).
    loss_is_nll
        True if :meth:`loss` is -log q; if not, the test loss is measured with :meth:`log_prob`.
    """

    noise_size: int
    rows_per_call: int = 8192
    loss_is_nll: bool = True

    def log_prob(self, z: Tensor, h: Tensor) -> Tensor:
        """Return log q(z | h), shape (..., n)."""
        raise NotImplementedError

    def draw(self, noise: Tensor, h: Tensor) -> Tensor:
        """Return z (..., n, d) of standard normal noise (..., n, noise_size)."""
        raise NotImplementedError

    def loss(self, z: Tensor, h: Tensor) -> Tensor:
        """Return the training loss of z (n, d), (n,): by default -log q(z | h)."""
        return -self.log_prob(z, h)


class Standardizer(nn.Module):
    """Shift and scale from training data, stored with the weights.

    ``x`` gets zero mean and unit variance over observed entries, and 0 where not observed;
    ``x_err`` likewise in log10; ``mask`` becomes 0/1; ``context`` is like ``x``, with NaN as
    missing. Constant entries are only shifted.

    Parameters
    ----------
    shape
        Shape of one row.
    pooling
        Entries that share a mean and a scale: none (``element``), those of one channel of an
        image (``channel``, first axis), those of one feature of a set (``feature``, last axis);
        ``raw`` leaves x as it is.
    """

    x_mean: Tensor
    x_scale: Tensor
    err_mean: Tensor
    err_scale: Tensor
    context_mean: Tensor
    context_scale: Tensor

    def __init__(self, shape: InputShape, pooling: Pooling = "element") -> None:
        super().__init__()
        self.shape, self.pooling = shape, pooling
        kept: dict[Pooling, set[int]] = {
            "element": set(range(len(shape.x))),
            "channel": {0},
            "feature": {len(shape.x) - 1},
            "raw": set(),
        }
        self.axes = tuple(k + 1 for k in range(len(shape.x)) if k not in kept[pooling])
        size = tuple(n if k in kept[pooling] else 1 for k, n in enumerate(shape.x))
        for name, s in (("x", size), ("err", size), ("context", (shape.context,))):
            self.register_buffer(f"{name}_mean", torch.zeros(s))
            self.register_buffer(f"{name}_scale", torch.ones(s))

    @torch.no_grad()
    def fit(self, batch: Batch) -> Standardizer:
        """Set means and scales from observed data and return self."""
        self.check(batch)
        seen = batch.observed
        if self.pooling != "raw":
            self._store("x", batch.x, seen, self.axes)
        if self.shape.has_err and batch.x_err is not None:
            self._store("err", torch.where(seen, batch.x_err, 1.0).log10(), seen, self.axes)
        if self.shape.context and batch.context is not None:
            self._store("context", batch.context, torch.isfinite(batch.context), ())
        return self

    def _store(self, name: str, value: Tensor, seen: Tensor, axes: tuple[int, ...]) -> None:
        dims = (0, *axes)
        clean = torch.where(seen, value, 0.0).double()
        count = seen.sum(dims, keepdim=True).clamp(min=1)
        mean = clean.sum(dims, keepdim=True) / count
        square = (torch.where(seen, clean - mean, 0.0) ** 2).sum(dims, keepdim=True) / count
        scale = square.sqrt()
        constant = scale <= 1e-6 * mean.abs().clamp(min=1e-30)
        getattr(self, f"{name}_mean").copy_(mean[0])
        getattr(self, f"{name}_scale").copy_(torch.where(constant, 1.0, scale)[0])

    def check(self, batch: Batch) -> None:
        """Check that a batch has the shape and fields of the training data.

        Raises
        ------
        ObservationError
            If it has not.
        """
        got, want = InputShape.of(batch), self.shape
        if self.pooling == "feature" and len(got.x) == 2 and got.x[0] < want.x[0]:
            got = replace(got, x=(want.x[0], got.x[1]))  # a set may be padded less
        if got.x != want.x or (want.context and got.context != want.context):
            msg = (
                f"data have x {got.x} and {counted(got.context, 'context column')} per object, the "
                f"estimator was trained on x {want.x} and {counted(want.context, 'context column')}"
            )
            raise ObservationError(msg)
        if want.has_err and batch.x_err is None:
            msg = "this estimator was trained with errors (x_err), but the data have none"
            raise ObservationError(msg)
        if not want.has_mask and batch.mask is not None and not bool(batch.mask.all()):
            rows = torch.nonzero(~batch.mask.reshape(len(batch), -1).all(1))[:5, 0].tolist()
            msg = f"this estimator was trained on complete data, values are missing in rows {rows}"
            raise ObservationError(msg)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        """Return standardised ``x, x_err, mask, context``; None for fields absent in training.

        All are new tensors, so that results do not depend on the batch's place in memory.
        """
        seen, dtype = batch.observed, self.x_mean.dtype
        x = torch.where(seen, (batch.x - self.x_mean) / self.x_scale, 0.0).to(dtype)
        err = mask = context = None
        if self.shape.has_err and batch.x_err is not None:
            log_err = torch.where(seen, batch.x_err, 1.0).log10()
            err = torch.where(seen, (log_err - self.err_mean) / self.err_scale, 0.0).to(dtype)
        if self.shape.has_mask:
            mask = seen.to(dtype)
        if self.shape.context and batch.context is not None:
            context = (batch.context - self.context_mean) / self.context_scale
            context = torch.where(torch.isfinite(context), context, 0.0).to(dtype)
        return x, err, mask, context


def pooling_of(shape: InputShape, embedding: Embedding) -> Pooling:
    """Return the pooling of means and scales of x that an embedding needs."""
    if embedding.raw_input:
        return "raw"
    if len(shape.x) < 2:
        return "element"
    return "feature" if embedding.takes_sets else "channel"


class ConditionalNetwork(Trainable):
    """q(z | observed data): standardizer, embedding and head.

    Parameters
    ----------
    standardizer
        Fitted or about to be loaded.
    embedding
        Module ``(x, x_err, mask, context) -> (n, k)``.
    head
        Density of z given k features.
    name
        Name of the embedding for messages; default: the class of its module.
    """

    def __init__(
        self, standardizer: Standardizer, embedding: nn.Module, head: Head, name: str = ""
    ) -> None:
        super().__init__()
        self.name = name or type(embedding).__name__
        self.standardizer = standardizer
        self.embedding = embedding
        self.head = head

    def features(self, batch: Batch) -> Tensor:
        """Return the features (n, k) of observed data.

        Raises
        ------
        ConfigError
            If the embedding fails, or returns another shape.
        """
        inputs = self.standardizer(batch)
        try:
            h: Tensor = self.embedding(*inputs)
        except (SbiError, MemoryError):
            raise
        except Exception as error:
            msg = (
                f"embedding '{self.name}' raised {type(error).__name__}: {first_line(error)} for "
                f"{counted(len(batch), 'row')}"
            )
            raise ConfigError(msg) from error
        want: tuple[object, ...] = (len(batch), self.embedding.out_features)
        if tuple(h.shape) != want:
            msg = (
                f"embedding '{self.name}' returns {tuple(h.shape)} for "
                f"{counted(len(batch), 'row')}, not {want}; return (n, out_features)"
            )
            raise ConfigError(msg)
        return h

    def loss(self, targets: Tensor, batch: Batch) -> Tensor:
        """Return the loss of the head, usually -log q(z | x), (n,), for z (n, d)."""
        return self.head.loss(targets, self.features(batch))


def mlp(
    size: int,
    hidden: tuple[int, ...],
    out: int | None = None,
    *,
    layer_norm: bool = False,
    activation: type[nn.Module] = nn.SiLU,
) -> nn.Sequential:
    """Return linear layers with an activation after each; ``out`` adds a last one without."""
    layers: list[nn.Module] = []
    for width in hidden:
        norm = [nn.LayerNorm(width)] if layer_norm else []
        layers += [nn.Linear(size, width), *norm, activation()]
        size = width
    if out is not None:
        layers.append(nn.Linear(size, out))
    return nn.Sequential(*layers)
