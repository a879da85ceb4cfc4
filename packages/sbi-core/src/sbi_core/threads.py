"""One thread where the number of threads would change the bits, all of them where it cannot.

Sums that PyTorch and BLAS share among threads depend on their number in the last bits. Rows that
are computed independently of each other do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from threadpoolctl import threadpool_limits

__all__ = ["available_threads", "single_thread"]

_BEFORE: ContextVar[int] = ContextVar("_BEFORE", default=0)


@contextmanager
def single_thread() -> Iterator[None]:
    """Use one thread in torch and BLAS: the same bits whatever the number of cores."""
    before = torch.get_num_threads()
    token = _BEFORE.set(max(before, _BEFORE.get()))
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)
        _BEFORE.reset(token)


def available_threads() -> int:
    """Return how many threads a loop over independent rows may use.

    This is ``torch.get_num_threads()`` of the caller of a run, which itself computes with one
    thread so that its numbers do not depend on the machine. Workers have one.
    """
    return max(torch.get_num_threads(), _BEFORE.get())
