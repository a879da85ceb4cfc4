r"""The halo simulator: N dwarf galaxies superposed in the [Fe/H]-[O/Fe] plane.

With unit-mass templates :math:`P_i` and masses :math:`M_i`, the expected number of stars in pixel
p is

=============  ===================================================  ===========================
``counts``     rate                                                 the number of stars
=============  ===================================================  ===========================
``shape``      :math:`N_* \sum_i M_i P_{ip} / \sum_i M_i`           carries no information
``absolute``   :math:`\kappa \sum_i M_i P_{ip}`                     is that of a complete sample
``particles``  star particles, summed, without Poisson noise        depends on N (compatibility)
=============  ===================================================  ===========================

convolved with Gaussian errors of both abundances; counts are Poisson distributed. A row of ``x``
contains the 4096 pixels (rates, or fractions of the stars, before ``observe``; counts after it),
the stars outside the plane, :math:`\log_{10}` of the number of stars, and both errors.

References:
    | Viterbo & Buck 2024, arXiv:2411.17269
    | Cunningham et al. 2022, ApJ 934, 172; Deason et al. 2023, MNRAS 520, 6091
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.spatial import cKDTree
from torch import Tensor

from sbi_casbi.abundances import LABELS
from sbi_casbi.config import CasbiConfig
from sbi_casbi.dwarfs import DwarfConfig, build_dwarfs
from sbi_casbi.features import summary_features
from sbi_casbi.library import SPLITS, Library, Split, read_library
from sbi_casbi.parameters import COLUMNS, column_names, parameter_space, summarise
from sbi_casbi.physics import Physics, PhysicsMap
from sbi_casbi.plane import N_PIXELS
from sbi_casbi.populations import BudgetRule, Draw, budget_sets, draw_sets, snapshot_weights
from sbi_casbi.readers import halo_of_table, read_halo
from sbi_casbi.smoothing import kernel, smooth
from sbi_casbi.snapshots.builder import cached_library
from sbi_casbi.surrogate import surrogate_library
from sbi_core import (
    Batch,
    ConfigError,
    Observations,
    Rng,
    Simulator,
    as_generator,
    counted,
    stream,
    torch_generator,
)

if TYPE_CHECKING:
    from astropy.table import Table

__all__ = ["OVERFLOW", "X_SIZE", "CasbiSimulator", "load_library"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
OVERFLOW, LOG_N, SIGMA_FE, SIGMA_O = range(N_PIXELS, N_PIXELS + 4)
X_SIZE = N_PIXELS + 4
_BLOCK = 256  # halos smoothed at a time
_MILKY_WAY_POOL = 1000
# log10 of the accreted mass and of the largest member [Msun], its infall [Gyr]: value, scale
_MILKY_WAY = np.array([[9.15, 8.7, 3.8], [0.15, 0.2, 1.0]])
_PMF_HALOS = 2000  # halos that give the prior of N of the budget sampler
_CITATIONS = (
    "Viterbo & Buck 2024, arXiv:2411.17269 (CASBI)",
    "Cunningham et al. 2022, ApJ 934, 172",
    "Deason et al. 2023, MNRAS 520, 6091",
)
_EMBEDDED = (
    "Weinberg, Andrews & Freudenburg 2017, ApJ 837, 183 (arXiv:1604.07435)",
    "Kirby et al. 2013, ApJ 779, 102",
)


def load_library(config: CasbiConfig) -> Library:
    """Return the library selected by the options.

    Raises
    ------
    DataFileError
        If a file or folder cannot be used.
    """
    if config.snapshots is not None:
        return cached_library(config.snapshots)
    name = config.surrogate_of if config.library == "surrogate" else config.library
    if name not in ("embedded", "grumpy"):
        return read_library(name)
    dwarfs = DwarfConfig(
        stems=config.stems,
        cuts=config.cuts,
        seed=config.library_seed,
        backend="onezone" if name == "embedded" else "grumpy",
        alpha=config.alpha or "o",
        dm_coupling=config.dm_coupling,
        y_ia_factor=config.y_ia_factor,
    )
    return build_dwarfs(dwarfs, fractions=config.split_fractions)


class CasbiSimulator(Simulator):
    """Stellar halos made of accreted dwarf galaxies.

    Parameters
    ----------
    config
        Options; default: the embedded library, population ``uniform``, complete samples.
    library
        A library to use instead of the one selected by the options.

    Raises
    ------
    DataFileError
        If the library cannot be read.

    References
    ----------
    Viterbo & Buck 2024, arXiv:2411.17269.
    """

    name = "casbi"
    version = "1"
    input_help = """
        A table of the stars of one halo (FITS, ECSV, CSV), one row per star:
        fe_h, o_fe      [Fe/H] and [O/Fe], dex
        e_fe_h, e_o_fe  their standard deviations, dex
        With simulator.alpha = mg: mg_fe and e_mg_fe instead of oxygen.
        Other column names: --column fe_h=NAME.
        Or a histogram of 64 x 64 pixels with its edges (npz, npy).
    """

    def __init__(self, config: CasbiConfig | None = None, library: Library | None = None) -> None:
        self.config = config or CasbiConfig()
        self.library = library or load_library(self.config)
        if self.config.alpha not in (None, self.library.alpha):
            label = LABELS[self.library.alpha]
            msg = f"simulator.alpha = '{self.config.alpha}', but the library has {label}"
            raise ConfigError(msg)
        self.observables = ()
        if self.config.library == "surrogate":
            self.library = surrogate_library(self.library, self.config)
        c = self.config
        rows = self.library.rows("train")
        budget = c.population == "budget"
        self.parameters = parameter_space(
            self.library,
            self._weights("train")[0] if not budget else rows,
            None if budget else self._weights("train")[1],
            c.n_min,
            c.n_max,
            self._budget_pmf() if budget else None,
        )

    # -- identity -----------------------------------------------------------------

    @property
    def identity(self) -> dict[str, Any]:
        """Name, version, and the hash of the library, which is the effective prior."""
        return {"name": self.name, "version": self.version, "library": self.library.hash}

    @property
    def citations(self) -> tuple[str, ...]:  # type: ignore[override]
        """References for the method and for the embedded library."""
        return (*_CITATIONS, *(_EMBEDDED if self.library.is_embedded else ()))

    @property
    def member_names(self) -> tuple[str, ...]:
        """Names of the set-valued parameters."""
        return tuple(p.name for p in self.parameters.members)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of theta."""
        return column_names(self.config.n_min, dark_mass=self.library.has_dark_mass)

    # -- drawing snapshots ---------------------------------------------------------

    def _weights(self, split: Split) -> tuple[I64, F64]:
        return self._all_weights[split]

    @cached_property
    def _all_weights(self) -> dict[Split, tuple[I64, F64]]:
        population = "uniform" if self.config.population == "budget" else self.config.population
        return {s: snapshot_weights(self.library, population, s) for s in SPLITS}

    def _budget_pmf(self) -> F64:
        draw = self._sets(_PMF_HALOS, "train", stream(0, "budget"))
        c = self.config
        counts = np.bincount(draw.count - c.n_min, minlength=c.n_max - c.n_min + 1)
        smooth_counts = np.convolve(counts, np.ones(5) / 5, mode="same") + 0.5
        return np.asarray(smooth_counts / smooth_counts.sum())

    def _sets(
        self, n: int, split: Split, rng: np.random.Generator, count: I64 | None = None
    ) -> Draw:
        c = self.config
        if c.population == "budget" and count is None:
            rows = self.library.rows(split)
            rule = BudgetRule(total=c.budget_mass)
            parts = budget_sets(rows, self.library.log_mstar, n, c.n_max, rule, rng)
            if parts.count.min() >= c.n_min:
                return parts
            fewest = counted(int(parts.count.min()), "member")
            msg = (
                f"the budget sampler made a halo of {fewest}, less than "
                f"n_min = {c.n_min}: set simulator.n_min=1"
            )
            raise ConfigError(msg)
        rows, weight = self._weights(split)
        if count is None:
            count = rng.integers(c.n_min, c.n_max + 1, n)
        return draw_sets(rows, weight, self.library.log_mstar, count, c.n_max, rng)

    def draw_from(self, n: int, rng: Rng, split: Split, count: ArrayLike | None = None) -> Batch:
        """Return n noise-free halos of snapshots of one split.

        Parameters
        ----------
        n
            Number of halos.
        rng
            Seed or generator.
        split
            Split from which snapshots are drawn.
        count
            Members of every halo, (n,); default: drawn from the population.

        Raises
        ------
        ConfigError
            If a number of members is outside n_min..n_max.
        """
        gen = as_generator(rng)
        number = None if count is None else self._checked_count(count)
        draw = self._sets(n, split, gen, number)
        key = torch.full((n,), -1 - SPLITS.index(split))
        return self._halos(draw, gen).with_(split_key=key)

    def _checked_count(self, count: ArrayLike) -> I64:
        values = np.asarray(count)
        c = self.config
        wrong = (values < c.n_min) | (values > c.n_max) | (values != np.rint(values))
        if wrong.any():
            k = int(np.flatnonzero(wrong)[0])
            msg = (
                f"row {k}: n_sub = {values[k]:g}, but it must be an integer from {c.n_min} to "
                f"{c.n_max} (100 members are the most a halo can have)"
            )
            raise ConfigError(msg)
        return np.asarray(values, np.int64)

    def draw(self, n: int, rng: Rng) -> Batch:
        """Return n noise-free halos, each from snapshots of one split (80/10/10 % of the halos).

        ``split_key`` gives the split, so that no galaxy is used for both training and test.
        """
        gen = as_generator(rng)
        fractions = (0.8, 0.1, 0.1)
        split = np.searchsorted(np.cumsum(fractions)[:2], gen.random(n), side="right")
        order = np.argsort(split, kind="stable")
        parts = [
            self.draw_from(int((split == k).sum()), gen, s)
            for k, s in enumerate(SPLITS)
            if (split == k).any()
        ]
        back = torch.as_tensor(np.argsort(order, kind="stable"))
        return Batch.cat(parts)[back]

    def simulate(self, theta: ArrayLike | Tensor, rng: Rng) -> Batch:
        """Return noise-free halos.

        Parameters
        ----------
        theta
            Columns of theta (n, c), of which N is used and members are drawn from the population;
            or sets of members (n, K, d), zero-padded, for which the nearest unused snapshots are
            used. The theta of the snapshots is returned.
        rng
            Seed or generator.

        Raises
        ------
        ConfigError
            If shapes are wrong or a number of members is outside n_min..n_max.
        """
        values = np.asarray(theta.detach().cpu() if isinstance(theta, Tensor) else theta, float)
        gen = as_generator(rng)
        if values.ndim == 2 and values.shape[1] == len(self.columns):
            return self.draw_from(len(values), gen, "train", values[:, 0])
        if values.ndim == 3 and values.shape[2] == len(self.parameters.members):
            count = (values[:, :, 0] != 0).sum(1)
            return self._halos(self.nearest(values, count), gen, dequantise=False)
        d = len(self.parameters.members)
        msg = f"theta must have shape (n, {len(self.columns)}) or (n, K, {d}), got {values.shape}"
        raise ConfigError(msg)

    def nearest(self, members: F64, count: ArrayLike) -> Draw:
        """Return the nearest snapshots of the training split, each at most once per halo.

        Parameters
        ----------
        members
            Sets (n, K, d), physical units.
        count
            N of every set, (n,).

        Raises
        ------
        ConfigError
            If a number of members is outside n_min..n_max.
        """
        number = self._checked_count(count)
        rows, tree, scale = self._tree
        mask = np.arange(members.shape[1]) < number[:, None]
        _, near = tree.query(members[mask] / scale, k=1)
        flat = np.full(mask.shape, -1)
        flat[mask] = near
        chosen = np.zeros((len(members), self.config.n_max), np.int64)
        for i, n in enumerate(number):
            chosen[i, :n] = rows[_distinct(flat[i, :n], members[i, :n] / scale, tree)]
        chosen_mask = np.arange(chosen.shape[1]) < number[:, None]
        mass = np.where(chosen_mask, -self.library.log_mstar[chosen], np.inf)
        order = np.argsort(mass, axis=1, kind="stable")
        return Draw(np.take_along_axis(chosen, order, axis=1), number)

    @cached_property
    def _tree(self) -> tuple[I64, Any, F64]:
        rows = self.library.rows("train")
        theta = self.library.theta[rows]
        if not self.library.has_dark_mass:
            theta = theta[:, [0, 2]]
        scale = theta.std(0)
        return rows, cKDTree(theta / scale), scale

    # -- superposition -------------------------------------------------------------

    def _halos(self, draw: Draw, gen: np.random.Generator, *, dequantise: bool = True) -> Batch:
        """Return noise-free rows of x and the theta of the snapshots in them."""
        c = self.config
        n = len(draw.count)
        sigma_fe, sigma_o = gen.uniform(*c.sigma_fe, n), gen.uniform(*c.sigma_o, n)
        shift = c.zero_point * gen.standard_normal((2, n))
        physics = Physics.draw(n, c.physics_spread, gen) if c.physics_spread else None
        x = np.empty((n, X_SIZE), np.float32)
        for k in range(0, n, _BLOCK):
            part = slice(k, k + _BLOCK)
            some = Draw(draw.rows[part], draw.count[part])
            x[part, :N_PIXELS], x[part, OVERFLOW] = self.rates(
                some,
                sigma_fe[part],
                sigma_o[part],
                shift[:, part],
                physics[part] if physics else None,
            )
        x[:, LOG_N] = np.log10(np.maximum(x[:, : OVERFLOW + 1].sum(1), 1e-30))
        x[:, SIGMA_FE], x[:, SIGMA_O] = sigma_fe, sigma_o
        members, mask = self._theta_set(draw, gen, dequantise=dequantise)
        theta = summarise(members, draw.count, c.n_min, dark_mass=self.library.has_dark_mass)
        return Batch.of_arrays(
            x=x,
            theta=theta.astype(np.float32),
            theta_set=members.astype(np.float32),
            theta_mask=mask,
        )

    def _theta_set(
        self, draw: Draw, gen: np.random.Generator, *, dequantise: bool
    ) -> tuple[F64, NDArray[np.bool_]]:
        theta = self.library.theta[draw.rows]
        if dequantise and self.library.tau_width > 0:
            theta[..., 2] += self.library.tau_width * gen.uniform(-0.5, 0.5, draw.rows.shape)
        if not self.library.has_dark_mass:
            theta = theta[..., [0, 2]]
        return np.where(draw.mask[..., None], theta, 0.0), draw.mask

    def rates(
        self,
        draw: Draw,
        sigma_fe: F64,
        sigma_o: F64,
        shift: F64,
        physics: Physics | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return stars per pixel (n, 4096) and outside the plane (n,).

        Expected numbers for counts ``absolute``, fractions that sum to one for ``shape``, star
        particles for ``particles``.

        Parameters
        ----------
        draw
            Snapshots of n halos.
        sigma_fe, sigma_o
            Errors [dex], (n,).
        shift
            Offsets of both zero points [dex], (2, n).
        physics
            Deviations of the halos from the physics of the library.
        """
        lib, n = self.library, len(draw.count)
        weight = self._member_weights(draw)
        rows = columns = slice(None)
        if physics is None:
            fine, rows, columns = self._superposed(draw, weight)
        else:
            fine = self._map.superpose(draw, weight, physics)
        spread = [np.hypot(s, m) for s, m in zip((sigma_fe, sigma_o), lib.mixing, strict=True)]
        if self.config.counts == "particles":
            spread = [np.zeros(n), np.zeros(n)]
        a_fe, a_o = (
            kernel(s, d, w) for s, d, w in zip(spread, shift, lib.plane.pixel, strict=True)
        )
        inside = smooth(fine, a_fe[:, :, rows], a_o[:, :, columns]).reshape(n, -1).clip(min=0.0)
        total = weight.sum(1, where=draw.mask)
        return inside.astype(np.float32), np.maximum(total - inside.sum(1), 0.0).astype(np.float32)

    def _superposed(self, draw: Draw, weight: F64) -> tuple[NDArray[np.float32], slice, slice]:
        """Return stars per fine bin (n, r, c), and which rows and columns of the grid they are."""
        n = len(draw.count)
        mask = draw.mask
        halo = np.broadcast_to(np.arange(n)[:, None], mask.shape)[mask]
        mix = sparse.csr_matrix(
            (weight[mask], (halo, draw.rows[mask])), shape=(n, len(self.library)), dtype=np.float32
        )
        rows, columns, templates = self.library.box
        size = (rows.stop - rows.start, columns.stop - columns.start)
        return (mix @ templates).toarray().reshape(n, *size), rows, columns

    @cached_property
    def _map(self) -> PhysicsMap:
        return PhysicsMap(self.library)

    def _member_weights(self, draw: Draw) -> F64:
        """Return stars per member, (n, K)."""
        c, lib = self.config, self.library
        if c.counts == "particles":
            if (lib.n_star[draw.rows][draw.mask] == 0).any():
                msg = "counts = 'particles' needs a library made of star particles"
                raise ConfigError(msg)
            return lib.n_star[draw.rows].astype(float)
        mass = np.where(draw.mask, 10 ** lib.log_mstar[draw.rows], 0.0)
        if c.counts == "shape":
            return np.asarray(mass / mass.sum(1, keepdims=True))
        assert c.kappa is not None
        return np.asarray(c.kappa * mass)

    # -- observation ---------------------------------------------------------------

    def observe(self, batch: Batch, rng: Rng) -> Batch:
        """Return the batch with Poisson counts, newly drawn at every call."""
        c = self.config
        if c.counts == "particles":
            return batch
        gen = torch_generator(rng, batch.x.device)
        x = batch.x.clone()
        rate = x[:, : OVERFLOW + 1]
        if c.counts == "shape":
            low, high = np.log(c.n_star[0]), np.log(c.n_star[1])
            u = torch.rand((len(x), 1), generator=gen, device=x.device)
            rate = rate * torch.exp(low + (high - low) * u)
        x[:, : OVERFLOW + 1] = torch.poisson(rate, generator=gen)
        x[:, LOG_N] = x[:, : OVERFLOW + 1].sum(1).clamp(min=1.0).log10()
        return batch.with_(x=x)

    def observe_like(self, batch: Batch, like: Batch, rng: Rng) -> Batch:
        """Return the batch with Poisson counts; the errors of the abundances are in it already."""
        return self.observe(batch, rng)

    def log_likelihood(self, simulated: Batch, observed: Batch) -> F64:
        """Return the Poisson log likelihood of counts (n,), up to a constant per halo."""
        rate = simulated.x[:, : OVERFLOW + 1].double()
        counts = observed.x[:, : OVERFLOW + 1].double()
        if self.config.counts == "shape":
            rate = rate * counts.sum(1, keepdim=True)
        value = (torch.xlogy(counts, rate.clamp(min=1e-12)) - rate).sum(1)
        return np.asarray(value.cpu().numpy())

    rows_are_objects = False  # a list of stars is one halo

    def observations_of(self, table: Table, source: str) -> Observations:
        """Return the halo of a list of stars."""
        return halo_of_table(table, source, self.library, self.config)

    def read_observations(self, path: str | Path) -> Observations:
        """Return the halo of a file: a list of stars, or a 64 x 64 histogram (npy, npz)."""
        return read_halo(path, self.library, self.config)

    def example_observations(self, rng: Rng, n: int = 8) -> Observations:
        """Return mock halos of galaxies that are not used for training.

        The first is, of many drawn ones, the closest to the Milky Way's (Deason, Belokurov &
        Sanders 2019; Naidu et al. 2021): 1.4e9 Msun, of which a galaxy of 5e8 Msun that fell in
        ten billion years ago.
        """
        gen = as_generator(rng)
        clean = self.draw_from(n, gen, "test")
        if n:
            clean = Batch.cat([self._like_milky_way(gen), clean[1:]])
        batch = self.observe(clean, gen)
        return Observations.from_batch(
            batch,
            id=[f"halo-{k + 1}" for k in range(n)],
            truth_names=self.parameters.names,
            source=f"mock halos of {self.library.source}, held-out galaxies; the first is the one "
            "closest to the Milky Way's",
        )

    def _like_milky_way(self, gen: np.random.Generator) -> Batch:
        """Return the noise-free halo of many that is closest to the Milky Way's, (1,)."""
        sets = self._sets(_MILKY_WAY_POOL, "test", gen)
        theta = self.library.theta[sets.rows]
        columns = summarise(np.where(sets.mask[..., None], theta, 0.0), sets.count, 1)
        seen = columns[:, [COLUMNS.index("log_mtot"), len(COLUMNS), len(COLUMNS) + 2]]
        distance = ((seen - _MILKY_WAY[0]) / _MILKY_WAY[1]) ** 2
        k = int(distance.sum(1).argmin())
        one = Draw(sets.rows[k : k + 1], sets.count[k : k + 1])
        return self._halos(one, gen).with_(split_key=torch.full((1,), -1 - SPLITS.index("test")))

    def summaries(self, batch: Batch) -> Batch:
        """Return features of halos: star count, overflow, moments and quantiles of the plane."""
        return Batch(x=summary_features(batch.x))


def _distinct(nearest: I64, points: F64, tree: Any) -> I64:
    """Return indices of the tree, with repetitions replaced by the nearest unused ones."""
    if len(np.unique(nearest)) == len(nearest):
        return nearest
    used: set[int] = set()
    out = nearest.copy()
    for j, index in enumerate(nearest):
        if int(index) in used:
            _, near = tree.query(points[j], k=min(len(used) + 1, tree.n))
            out[j] = next(int(p) for p in np.atleast_1d(near) if int(p) not in used)
        used.add(int(out[j]))
    return out
