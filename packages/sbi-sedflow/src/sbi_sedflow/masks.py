"""Missing bands of training galaxies: all non-empty patterns, common ones often.

For F N u g r i z:

40 % complete; 13 % without both ultraviolet bands; 4 % each without F, without N, without u, and
with g, r and i only, g, r and z only, and g, r, i and z only; 12 % every band dropped with
probability 0.35; 10 % uniform over the 127 non-empty patterns; and 1 % with no band at all, for
which the posterior is the prior.

For other sets: 45 % complete; 20 % without the bands of one survey, chosen at random, if there are
several, else without one band; 20 % every band dropped with probability 0.35; 14 % uniform over all
non-empty patterns; 1 % with no band.

With a catalogue of the user (``simulator.noise_catalogue``) half of the training galaxies have the
patterns of random rows of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sbi_sedflow.bandsets import BandSet
from sbi_sedflow.constants import N_BANDS

__all__ = ["PATTERNS", "SHARES", "draw_masks"]

SHARES = {
    "complete": 0.40, "no_uv": 0.13, "no_f": 0.04, "no_n": 0.04, "no_u": 0.04, "gri": 0.04,
    "grz": 0.04, "griz": 0.04, "random": 0.12, "any": 0.10, "empty": 0.01,
}  # fmt: skip
PATTERNS = {
    "complete": (1, 1, 1, 1, 1, 1, 1),
    "no_f": (0, 1, 1, 1, 1, 1, 1),
    "no_n": (1, 0, 1, 1, 1, 1, 1),
    "no_uv": (0, 0, 1, 1, 1, 1, 1),
    "no_u": (1, 1, 0, 1, 1, 1, 1),
    "ugriz": (0, 0, 1, 1, 1, 1, 1),
    "gri": (0, 0, 0, 1, 1, 1, 0),
    "grz": (0, 0, 0, 1, 1, 0, 1),
    "griz": (0, 0, 0, 1, 1, 1, 1),
}
_DROP = 0.35


def draw_masks(
    n: int,
    generator: torch.Generator,
    bands: BandSet | None = None,
    observed: Tensor | None = None,
) -> Tensor:
    """Return masks (n, B), True = observed; default bands F N u g r i z.

    Parameters
    ----------
    n
        Rows.
    generator
        Random numbers.
    bands
        The bands; default F N u g r i z.
    observed : (N, B)
        Masks of a catalogue.
    """
    if observed is not None:
        donor = torch.randint(0, len(observed), (n,), generator=generator)
        theirs = torch.rand(n, 1, generator=generator, dtype=torch.float32) < 0.5
        return torch.where(theirs, observed[donor], draw_masks(n, generator, bands))
    if bands is not None and not bands.is_default:
        return _of_surveys(n, generator, bands)
    edges = torch.tensor(list(SHARES.values())).cumsum(0)
    u = torch.rand(n, generator=generator, dtype=torch.float32)
    kind = torch.searchsorted(edges, u, right=True).clamp_max(len(SHARES) - 1)
    bits = 1 << torch.arange(N_BANDS)
    dropped = torch.rand(n, N_BANDS, generator=generator, dtype=torch.float32) >= _DROP
    number = torch.randint(1, 2**N_BANDS, (n, 1), generator=generator)
    uniform = (number & bits) != 0
    table = torch.ones(len(SHARES), N_BANDS, dtype=torch.bool)
    names = list(SHARES)
    for row, name in enumerate(names):
        if name in PATTERNS:
            table[row] = torch.tensor(PATTERNS[name], dtype=torch.bool)
    table[names.index("empty")] = False
    mask = table[kind]
    mask = torch.where((kind == names.index("random"))[:, None], dropped, mask)
    return torch.where((kind == names.index("any"))[:, None], uniform, mask)


def _of_surveys(n: int, generator: torch.Generator, bands: BandSet) -> Tensor:
    size = len(bands)
    parts = bands.groups if len(bands.groups) > 1 else tuple((k,) for k in range(size))
    without = torch.ones(len(parts), size, dtype=torch.bool)
    for row, part in enumerate(parts):
        without[row, list(part)] = False
    u = torch.rand(n, generator=generator, dtype=torch.float32)[:, None]
    which = torch.randint(0, len(parts), (n,), generator=generator)
    dropped = torch.rand(n, size, generator=generator, dtype=torch.float32) >= _DROP
    number = torch.randint(1, 2**size, (n, 1), generator=generator)
    uniform = (number & (1 << torch.arange(size))) != 0
    mask = torch.ones(n, size, dtype=torch.bool)
    for upto, other in ((0.55, without[which]), (0.35, dropped), (0.15, uniform)):
        mask = torch.where(u < upto, other, mask)
    return mask & (u >= 0.01)
