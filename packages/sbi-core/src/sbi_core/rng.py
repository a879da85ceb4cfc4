r"""Random numbers: one root seed, a named stream for every use.

Stream :math:`(s, a, b, \dots)` is ``Philox(SeedSequence([s, h(a), h(b), ...]))`` with *h* the
first eight bytes of SHA-256 for words and the identity for integers: counter-based (Salmon et
al. 2011), independent of the order of calls and of the number of workers.

PyTorch's global generator and its default dtype belong to the caller: :func:`seeded` and
:func:`torch_defaults` set them for a block and restore them.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = [
    "RngLike",
    "as_generator",
    "seeded",
    "splitmix64",
    "stream",
    "torch_defaults",
    "torch_generator",
]

RngLike = "np.random.Generator | torch.Generator | int"
_GENERATORS = threading.RLock()  # held while the global generators are in use


def _word(key: int | str) -> int:
    if isinstance(key, str):
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    return int(key)


def stream(seed: int, *keys: int | str) -> np.random.Generator:
    """Return the generator of a named stream.

    Parameters
    ----------
    seed
        Root seed of the run, a non-negative integer.
    keys
        Name of the stream, e.g. ``("simulate", 12)``.
    """
    entropy = [int(seed), *(_word(k) for k in keys)]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


def splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return every number with its bits mixed (splitmix64, Steele et al. 2014, OOPSLA)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def as_generator(rng: np.random.Generator | torch.Generator | int) -> np.random.Generator:
    """Return a numpy generator for a numpy generator, a torch generator or an integer seed.

    Raises
    ------
    TypeError
        For anything else; ``None`` is refused because an unseeded draw cannot be repeated.
    """
    if isinstance(rng, np.random.Generator):
        return rng
    if isinstance(rng, (int, np.integer)) and not isinstance(rng, bool):
        return stream(int(rng), "user")
    if type(rng).__name__ == "Generator" and type(rng).__module__.startswith("torch"):
        assert isinstance(rng, torch.Generator)
        word = torch.randint(0, 2**62, (1,), generator=rng, device=rng.device).item()
        return stream(int(word), "torch")
    msg = f"rng must be a numpy Generator, a torch Generator or an integer seed, not {rng!r}"
    raise TypeError(msg)


def torch_generator(
    rng: np.random.Generator | torch.Generator | int, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a torch generator on ``device``, seeded by one draw from ``rng``.

    A torch generator already on ``device`` is returned unchanged.
    """
    if isinstance(rng, torch.Generator) and rng.device == torch.device(device):
        return rng
    seed = int(as_generator(rng).integers(0, 2**63 - 1))
    return torch.Generator(device=device).manual_seed(seed)


class _DefaultDtype:
    """float32 as the default dtype while any thread is inside; afterwards the caller's."""

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0
        self.before: torch.dtype | None = None

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.before = torch.get_default_dtype()
                torch.set_default_dtype(torch.float32)
            self.inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0 and self.before is not None:
                torch.set_default_dtype(self.before)


_DEFAULT_DTYPE = _DefaultDtype()


@contextmanager
def torch_defaults() -> Iterator[None]:
    """Run a block (or, as a decorator, a function) with PyTorch's own defaults.

    These are float32, and gradients that are recorded. Results then do not depend on
    ``torch.set_default_dtype``, ``torch.no_grad`` or ``torch.inference_mode`` of the caller.
    """
    with _DEFAULT_DTYPE, torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def seeded(rng: np.random.Generator | int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed PyTorch's global generators for a block, and restore them after it.

    The block has PyTorch's default settings (:func:`torch_defaults`). One thread at a time is in
    such a block: others wait, so that their numbers do not mix.

    Parameters
    ----------
    rng
        The seed, or a generator that draws it.
    device
        Device whose generator is seeded, beside that of the CPU.
    """
    seed = int(rng.integers(0, 2**63 - 1)) if isinstance(rng, np.random.Generator) else rng
    device = torch.device(device)
    cuda = [device.index or 0] if device.type == "cuda" else []
    with _GENERATORS, torch.random.fork_rng(devices=cuda), torch_defaults():
        torch.manual_seed(seed)
        yield
