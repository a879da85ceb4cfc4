"""Memory alignment of tensors.

The matrix kernels of some processors round differently when an operand does not start at a multiple
of 64 bytes. PyTorch allocates at such multiples, but slices of a tensor, NumPy arrays and
memory-mapped files start anywhere. Whatever enters a network is therefore copied to an aligned
address first, so that equal values give equal bits wherever they came from.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["ALIGNMENT", "align_weights", "aligned"]

ALIGNMENT = 64  # bytes, as in PyTorch's own allocator


def aligned(tensor: Tensor) -> Tensor:
    """Return a contiguous tensor that starts at a multiple of 64 bytes: a copy, if need be."""
    if tensor.is_contiguous() and tensor.data_ptr() % ALIGNMENT == 0:
        return tensor
    return tensor.clone(memory_format=torch.contiguous_format)


def align_weights(module: nn.Module) -> None:
    """Move every parameter and buffer of a module, in place, to aligned memory that it alone uses.

    Values do not change; gradients are dropped.
    """
    module.zero_grad(set_to_none=True)
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
