r"""Random numbers: one root seed, a named stream for every use.

Stream :math:`(s, a, b, \dots)` is ``Philox(SeedSequence([s, h(a), h(b), ...]))`` with *h* the
first eight bytes of SHA-256 for words and the identity for integers: counter-based (Salmon et
al. 2011), independent of the order of calls and of the number of workers.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

__all__ = ["RngLike", "as_generator", "stream", "torch_generator"]

RngLike = "np.random.Generator | torch.Generator | int"


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
        What the stream is for, e.g. ``("simulate", 12)``.
    """
    entropy = [int(seed), *(_word(k) for k in keys)]
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(entropy)))


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
        import torch

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
    import torch

    if isinstance(rng, torch.Generator) and rng.device == torch.device(device):
        return rng
    seed = int(as_generator(rng).integers(0, 2**63 - 1))
    return torch.Generator(device=device).manual_seed(seed)
