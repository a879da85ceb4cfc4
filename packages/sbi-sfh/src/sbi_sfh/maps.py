"""Maps of a cube: one image per parameter, with the sky coordinates of the cube.

Every spaxel is a galaxy for the trained run. Extensions hold medians (``T50``) and half of the
central 68 % (``T50_ERR``) of the parameters, the share of the mass that formed in the last gigayear
(``YOUNG``), S/N, chi-squared, redshift, and flags as bits whose words stand in the header
(``FLAG0``, ...).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from sbi_core import Observations, PosteriorSamples, written
from sbi_sfh.own_age import delays

if TYPE_CHECKING:
    from sbi_sfh.simulator import SfhSimulator

__all__ = ["Maps", "draw_maps", "maps_of", "write_maps", "young_share"]

F64 = NDArray[np.float64]
_PLACE = re.compile(r"-x(\d+)-y(\d+)$")
_BIN = re.compile(r"-bin(\d+)$")
_SHOWN = ("t50", "t90", "mh", "young", "chi2", "snr")
_YOUNG = 1.0  # Gyr
_COLUMNS = {"snr": "snr", "chi2_per_pixel": "chi2"}
_UNITS = {"mh": "dex", "afe": "dex"}


@dataclass(frozen=True)
class Maps:
    """Images (ny, nx) by name; NaN where a spaxel has no result.

    Parameters
    ----------
    values
        Images by name; ``NAME_err`` is half of the central 68 % of NAME.
    flags
        Bits of the flags, (ny, nx).
    words
        The flag of every bit.
    """

    values: Mapping[str, F64]
    flags: NDArray[np.int32]
    words: tuple[str, ...]


def young_share(times: F64, fractions: F64, end: float) -> F64:
    """Return the mass formed in the last gigayear over all mass, (S, n).

    Parameters
    ----------
    times : (S, n, q) Gyr
        Times by which the fractions had formed.
    fractions : (q,)
        Fractions of the mass.
    end
        Age of the Universe, Gyr.

    Notes
    -----
    The growth is linear between the times, and from the last one to the end: the last tenth of the
    mass is not constrained better.
    """
    ends = np.zeros((*times.shape[:2], 1))
    t = np.concatenate([ends, times, ends + end], axis=2)
    q = np.concatenate([[0.0], fractions, [1.0]])
    at = end - _YOUNG
    k = np.clip((t <= at).sum(2) - 1, 0, len(q) - 2)
    low, high = (np.take_along_axis(t, i[..., None], 2)[..., 0] for i in (k, k + 1))
    part = (at - low) / np.where(high > low, high - low, 1.0)
    return np.asarray(1.0 - (q[k] + np.clip(part, 0.0, 1.0) * (q[k + 1] - q[k])))


def maps_of(
    simulator: SfhSimulator,
    objects: Observations,
    samples: PosteriorSamples,
    shape: tuple[int, int],
    bins: Mapping[tuple[int, int], int] | None = None,
) -> Maps:
    """Return the maps of the spaxels of a cube of ``shape`` (ny, nx).

    Parameters
    ----------
    simulator
        Its percentiles and age of the Universe.
    objects
        The spaxels, as read.
    samples
        Their posterior.
    shape
        Rows and columns of the cube.
    bins
        The bin of every spaxel (x, y); default: spaxels are objects.
    """
    labels = [objects.labels[n] for n in (("bin",) if bins else ("x", "y"))]
    keys = [tuple(map(int, v)) for v in zip(*labels, strict=True)]
    number = {key: k for k, key in enumerate(keys)}
    words_of = dict(zip(keys, map(str, samples.flags), strict=True))
    for e in objects.excluded:
        if (place := (_BIN if bins else _PLACE).search(e.id)) is not None:
            words_of[tuple(map(int, place.groups()))] = e.reason
    spaxels: dict[tuple[int, ...], tuple[int, ...]] = {key: key for key in words_of}
    if bins:
        spaxels = {place: (j,) for place, j in bins.items()}
    words = tuple(sorted({w for f in words_of.values() for w in f.split(",") if w}))
    row, flags = np.full(shape, -1), np.zeros(shape, np.int32)
    for (x, y), key in spaxels.items():
        row[y, x] = number.get(key, -1)
        for word in filter(None, words_of.get(key, "").split(",")):
            flags[y, x] |= 1 << words.index(word)
    fractions = np.asarray(simulator.recovery.fractions)
    draws = {name: samples.values[..., k] for k, name in enumerate(samples.names)}
    late = delays(objects.labels, len(objects), simulator.config.t_end)
    draws["young"] = young_share(
        samples.values[..., : len(fractions)] + late[:, None], fractions, simulator.config.t_end
    )
    values: dict[str, F64] = {}

    def image(of: Any) -> F64:
        return np.where(row >= 0, np.asarray(of, float)[row], np.nan)

    for name, drawn in draws.items():
        low, middle, high = np.percentile(drawn, [16, 50, 84], axis=0)
        values[name], values[f"{name}_err"] = image(middle), image(0.5 * (high - low))
    for column, name in _COLUMNS.items():
        values[name] = image(samples.columns[column])
    for name in ("redshift", "velocity"):
        if name in objects.labels:
            values[name] = image(objects.labels[name])
    return Maps(values, flags, words)


def write_maps(path: Path, maps: Maps, sky: fits.Header, about: Mapping[str, Any]) -> None:
    """Write maps as FITS, an extension each, with the cards of the sky coordinates."""
    primary = fits.PrimaryHDU()
    primary.header.update(about)
    hdus: list[Any] = [primary]
    for name, values in maps.values.items():
        hdu = fits.ImageHDU(values.astype(np.float32), header=sky, name=name.upper())
        unit = _unit(name.removesuffix("_err"))
        hdu.header.update({"BUNIT": unit} if unit else {})
        hdus.append(hdu)
    flags = fits.ImageHDU(maps.flags, header=sky, name="FLAGS")
    flags.header.update({f"FLAG{k}": word for k, word in enumerate(maps.words)})
    with written(path) as temporary:
        fits.HDUList([*hdus, flags]).writeto(temporary, overwrite=True)


def _unit(name: str) -> str:
    return "Gyr" if re.fullmatch(r"t\d+(_\d)?", name) else _UNITS.get(name, "")


def draw_maps(path: Path, maps: Maps, names: Sequence[str] = _SHOWN) -> None:
    """Draw some maps as a figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.0, 6.0), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    labels = {"mh": "[M/H]", "young": "mass of the last Gyr", "chi2": "χ² per pixel", "snr": "S/N"}
    for ax, name in zip(axes, names, strict=True):
        values = maps.values[name]
        seen = values[np.isfinite(values)]
        low, high = np.percentile(seen, [2, 98]) if len(seen) else (0.0, 1.0)
        shown = ax.imshow(values, origin="lower", vmin=low, vmax=high, interpolation="nearest")
        unit = _unit(name)
        bar = figure.colorbar(shown, ax=ax)
        bar.set_label(f"{labels.get(name, name)}{f' [{unit}]' if unit else ''}")
        ax.set(xlabel="x [spaxel]", ylabel="y [spaxel]")
    with written(path) as temporary:
        figure.savefig(temporary, dpi=130)
