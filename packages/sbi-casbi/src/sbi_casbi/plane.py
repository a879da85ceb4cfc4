r"""The [Fe/H]-[O/Fe] plane: its pixels, and the fine grid of the templates.

A pixel consists of two fine bins per axis. Eight guard pixels surround the plane, because errors
scatter stars into it and out of it:

.. math:: n_\mathrm{fine} = 2\,(n_\mathrm{pix} + 2 \times 8) = 160 \quad (n_\mathrm{pix} = 64).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sbi_core import ConfigError

__all__ = ["FINE", "FINE_PER_PIXEL", "GUARD", "N_PIXELS", "PIXELS", "Plane"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
PIXELS = 64
N_PIXELS = PIXELS * PIXELS
GUARD = 8
FINE_PER_PIXEL = 2
FINE = FINE_PER_PIXEL * (PIXELS + 2 * GUARD)


@dataclass(frozen=True, slots=True)
class Plane:
    """64 x 64 pixels in [Fe/H] (first axis) and [O/Fe] (second axis).

    Parameters
    ----------
    fe_h, o_fe
        Lower and upper edge [dex].

    Raises
    ------
    ConfigError
        If an interval is empty or not finite.
    """

    fe_h: tuple[float, float] = (-4.5, 0.6)
    o_fe: tuple[float, float] = (-0.4, 0.8)

    def __post_init__(self) -> None:
        for name in ("fe_h", "o_fe"):
            low, high = map(float, getattr(self, name))
            if not (np.isfinite([low, high]).all() and high > low):
                msg = f"edges of {name} must be finite and increasing, got ({low}, {high})"
                raise ConfigError(msg)
            object.__setattr__(self, name, (low, high))

    @property
    def edges(self) -> tuple[F64, F64]:
        """Pixel edges of both axes, each (65,) [dex]."""
        return np.linspace(*self.fe_h, PIXELS + 1), np.linspace(*self.o_fe, PIXELS + 1)

    @property
    def pixel(self) -> tuple[float, float]:
        """Width of a pixel along both axes [dex]."""
        return (self.fe_h[1] - self.fe_h[0]) / PIXELS, (self.o_fe[1] - self.o_fe[0]) / PIXELS

    @property
    def fine_low(self) -> tuple[float, float]:
        """Lower end of the fine grid along both axes [dex]."""
        w = self.pixel
        return self.fe_h[0] - GUARD * w[0], self.o_fe[0] - GUARD * w[1]

    def fine_index(self, fe_h: F64, o_fe: F64) -> I64:
        """Return the fine bin of every star, flat (row [Fe/H], column [O/Fe]); -1 outside."""
        place = []
        for value, low, width in zip((fe_h, o_fe), self.fine_low, self.pixel, strict=True):
            place.append(np.floor((value - low) / (width / FINE_PER_PIXEL)).astype(np.int64))
        inside = np.all([(p >= 0) & (p < FINE) for p in place], axis=0)
        return np.where(inside, place[0] * FINE + place[1], -1)

    def histogram(self, fe_h: F64, o_fe: F64, weight: F64 | None = None) -> tuple[F64, float]:
        """Return stars per pixel (64, 64), and the number (or weight) outside the plane."""
        counts, _, _ = np.histogram2d(fe_h, o_fe, bins=list(self.edges), weights=weight)
        total = float(len(fe_h)) if weight is None else float(np.sum(weight))
        return counts, total - float(counts.sum())

    def same(self, other: Plane) -> bool:
        """Return True if both planes have the same edges, up to rounding."""
        return bool(np.allclose([*self.fe_h, *self.o_fe], [*other.fe_h, *other.o_fe], atol=1e-9))
