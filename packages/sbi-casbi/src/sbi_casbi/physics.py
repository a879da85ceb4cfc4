r"""Physics as nuisance: yields and outflows that differ between halos, as maps of the plane.

A library has one physics, but yields and outflows of real galaxies are uncertain. With
``physics_spread`` (s) all members of a halo are moved by standard normal numbers :math:`g`
of that halo. A star at [Fe/H] = f, [O/Fe] = o in a galaxy of mean [Fe/H] :math:`\bar f`, mass M
and infall redshift z moves to

.. math::
    f' &= \bar f + k\,(f - \bar f) + s\,g_1 + s\,g_2\,(\log M - 7)
          + 2 s\,g_3\,(e^{-z/2} - 0.6) + d(o), \\
    o' &= o + s\,g_4 - d(o), \qquad
    \log k = s\,g_5 + \tfrac{s}{4}\,g_6\,(\log M - 7), \\
    d(o) &= \log\left[1 + (10^{s\,g_7} - 1)\left(1 - 10^{o - o_\mathrm{cc}}\right)\right] ,

all logarithms to base ten. The terms are

* :math:`g_1, g_2, g_3`: outflows, which set the mass-metallicity relation: its zero point, slope
  and evolution. At given infall time [O/Fe] hardly depends on outflows;
* :math:`g_4`: the yield of the alpha element, or its solar abundance;
* :math:`g_5, g_6`: the width of metallicity distributions, which follows from the dependence of
  outflows on the mass of the growing galaxy;
* :math:`g_7`: the iron yield of type Ia supernovae. Their share of the iron of a star is
  :math:`1 - 10^{o - o_\mathrm{cc}}`, where :math:`o_\mathrm{cc}` is the plateau of core-collapse
  supernovae, so that the map is exact for given outflows.

Moving templates instead of computing more galaxies varies the physics continuously, in any
library.

References:
    | Weinberg, Andrews & Freudenburg 2017, ApJ 837, 183 (yields, outflows and the plane)
    | Kirby et al. 2013, ApJ 779, 102; Ma et al. 2016, MNRAS 456, 2140 (the relation)
    | Muratov et al. 2015, MNRAS 454, 2691; Kravtsov & Manwadkar 2022, MNRAS 514, 2667 (outflows)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sbi_casbi.cosmology import redshift
from sbi_casbi.library import Library
from sbi_casbi.plane import FINE, FINE_PER_PIXEL
from sbi_casbi.populations import Draw

__all__ = ["Physics", "PhysicsMap"]

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
_PIVOT = 7.0  # log10 M_star [Msun] at which slopes with mass move nothing
_EVOLUTION = 0.6  # exp(-z/2) at which the evolution moves nothing
# of zero point, slope, evolution, alpha, width, its slope, and SNe Ia, in units of physics_spread
_SPREADS = np.array([1.0, 1.0, 2.0, 1.0, 1.0, 0.25, 1.0])
_ENTRIES = 4_000_000  # bins of members that are moved at a time
_PLATEAU = 0.99  # share of the stars of the library below the plateau


@dataclass(frozen=True, slots=True)
class Physics:
    """Deviations of n halos from the physics of the library [dex], each (n,).

    Parameters
    ----------
    fe_h, slope, evolution
        Zero point of the mass-metallicity relation, per dex of mass, per unit of exp(-z/2).
    alpha
        Yield of the alpha element.
    width, width_slope
        log10 of the width of metallicity distributions, and per dex of mass.
    y_ia
        Iron yield of type Ia supernovae.
    """

    fe_h: F64
    slope: F64
    evolution: F64
    alpha: F64
    width: F64
    width_slope: F64
    y_ia: F64

    @classmethod
    def of(cls, g: F64, spread: float) -> Physics:
        """Return deviations of n halos from standard normal numbers (7, n)."""
        return cls(*(spread * _SPREADS[:, None] * g))

    @classmethod
    def draw(cls, n: int, spread: float, rng: np.random.Generator) -> Physics:
        """Return deviations of n halos, normal with ``spread`` [dex]."""
        return cls.of(rng.standard_normal((len(_SPREADS), n)), spread)

    def __getitem__(self, rows: slice) -> Physics:
        return Physics(*(getattr(self, name)[rows] for name in self.__slots__))


class PhysicsMap:
    """Superposition of members whose templates are moved by the physics of their halo.

    Parameters
    ----------
    library
        Its templates are moved.
    """

    def __init__(self, library: Library) -> None:
        self.library = library

    @cached_property
    def _entries(self) -> tuple[I64, I64, F32, F32, NDArray[np.int16]]:
        """Start and length per template; share, fine bin in [Fe/H] and in [O/Fe] per entry."""
        t = self.library.templates
        fe, o = np.divmod(t.indices, FINE)
        length = np.diff(t.indptr).astype(np.int64)
        start = t.indptr[:-1].astype(np.int64)
        return start, length, t.data.astype(np.float32), fe.astype(np.float32), o.astype(np.int16)

    @property
    def _bins(self) -> tuple[float, float]:
        """Widths of fine bins [dex]."""
        width = self.library.plane.pixel
        return width[0] / FINE_PER_PIXEL, width[1] / FINE_PER_PIXEL

    @cached_property
    def plateau(self) -> float:
        """[O/Fe] of core-collapse supernovae [dex]: almost all stars are below it."""
        stars = np.asarray(self.library.templates.sum(0)).reshape(FINE, FINE).sum(0)
        bin_ = int(np.searchsorted(np.cumsum(stars), _PLATEAU * stars.sum()))
        return float(self.library.plane.fine_low[1] + (bin_ + 0.5) * self._bins[1])

    def iron_shift(self, y_ia: F64) -> F64:
        """Return d [dex] per halo and fine bin of [O/Fe], (n, 160)."""
        o = self.library.plane.fine_low[1] + (np.arange(FINE) + 0.5) * self._bins[1]
        share = np.clip(1.0 - 10 ** (o - self.plateau), 0.0, 1.0)
        return np.asarray(np.log10(1.0 + (10 ** y_ia[:, None] - 1.0) * share))

    def superpose(self, draw: Draw, weight: F64, physics: Physics) -> F32:
        """Return stars per fine bin (n, 160, 160); those moved beyond the grid are left out.

        Parameters
        ----------
        draw
            Snapshots of n halos.
        weight
            Stars per member, (n, K).
        physics
            Deviations of the halos.
        """
        # templates of particles have thousands of bins: a part of the halos at a time bounds memory
        entries = np.where(draw.mask, self._entries[1][draw.rows], 0).sum(1)
        part = np.cumsum(entries) // _ENTRIES
        out = np.empty((len(draw.count), FINE, FINE), np.float32)
        for k in np.unique(part):
            rows = slice(*np.searchsorted(part, [k, k + 1]))
            some = Draw(draw.rows[rows], draw.count[rows])
            out[rows] = self._superposed(some, weight[rows], physics[rows])
        return out

    def _superposed(self, draw: Draw, weight: F64, physics: Physics) -> F32:
        mask, n = draw.mask, len(draw.count)
        start, length, share, fe, o = self._entries
        halo, row = np.broadcast_to(np.arange(n)[:, None], mask.shape)[mask], draw.rows[mask]
        move, stretch = self._member(row, halo, physics)
        d = self.iron_shift(physics.y_ia)
        step_fe, step_o = self._bins
        size = length[row]
        # positions of the entries of all members, one member after the other
        offset = np.cumsum(size) - size
        place = np.arange(int(size.sum())) + np.repeat(start[row] - offset, size)
        of_halo, column = np.repeat(halo, size), o[place]
        shift = (d / step_fe).astype(np.float32)[of_halo, column]
        to_fe = fe[place] * np.repeat(stretch, size) + np.repeat(move, size) + shift
        moved_o = np.arange(FINE) + (physics.alpha[:, None] - d) / step_o
        to_o = np.rint(moved_o).astype(np.int32)[of_halo, column]
        to_fe = np.rint(to_fe).astype(np.int32)
        inside = (to_fe >= 0) & (to_fe < FINE) & (to_o >= 0) & (to_o < FINE)
        index = ((of_halo * FINE + to_fe) * FINE + to_o)[inside]
        stars = share[place] * np.repeat(weight[mask], size)
        total = np.bincount(index, stars[inside], minlength=n * FINE * FINE)
        return np.asarray(total.astype(np.float32).reshape(n, FINE, FINE))

    def _member(self, row: I64, halo: I64, physics: Physics) -> tuple[F32, F32]:
        """Return by how many fine bins members move in [Fe/H], and how they stretch."""
        lib, step = self.library, self._bins[0]
        above = lib.log_mstar[row] - _PIVOT
        evolution = np.exp(-0.5 * redshift(lib.tau[row])) - _EVOLUTION
        stretch = 10 ** (physics.width[halo] + physics.width_slope[halo] * above)
        centre = (lib.moments[row, 0] - lib.plane.fine_low[0]) / step - 0.5
        move = (
            physics.fe_h[halo] + physics.slope[halo] * above + physics.evolution[halo] * evolution
        )
        move = move / step + centre * (1.0 - stretch)
        return move.astype(np.float32), stretch.astype(np.float32)
