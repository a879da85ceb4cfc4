"""A cube through a trained run: its spaxels or bins, shared between processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import reduce
from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np

from sbi_sfh.binning import binned
from sbi_sfh.formats import read_raw
from sbi_sfh.maps import Maps, maps_of
from sbi_sfh.simulator import SfhSimulator

if TYPE_CHECKING:
    from sbi_core import Run

__all__ = ["infer_cube", "merged"]

_Part = tuple[Maps, tuple[str, ...]]


def infer_cube(
    run: Run,
    cube: str,
    shape: tuple[int, int],
    draws: int,
    *,
    bin_snr: float | None = None,
    workers: int = 1,
) -> _Part:
    """Return the maps of a cube of ``shape`` (ny, nx), and what was noted about its spectra.

    Parameters
    ----------
    run
        In mode ``observed``.
    cube
        File.
    shape
        Rows and columns.
    draws
        Posterior draws per spaxel.
    bin_snr
        Signal to noise of bins; None: spaxels.
    workers
        Processes. Each reads the file and takes every n-th spectrum: files are faster to read than
        spectra to send.
    """
    if workers == 1:
        return _part(run, cube, shape, draws, bin_snr, 0, 1)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        same = (repeat(v) for v in (run, cube, shape, draws, bin_snr))
        parts = list(pool.map(_part, *same, range(workers), repeat(workers)))
    notes = tuple(dict.fromkeys(note for _, of_part in parts for note in of_part))
    return merged([maps for maps, _ in parts]), notes


def _part(
    run: Run,
    cube: str,
    shape: tuple[int, int],
    draws: int,
    bin_snr: float | None,
    first: int,
    step: int,
) -> _Part:
    """Return the maps and notes of every ``step``-th spectrum."""
    simulator = run.simulator_of(SfhSimulator)
    bins = None
    spectra = list(read_raw(cube))
    if bin_snr is not None:
        made, bins = binned(spectra, bin_snr, simulator.config.min_snr)
        spectra = list(made)
    data = simulator.prepared(spectra[first::step], cube)
    return maps_of(simulator, data, run.infer(data, draws), shape, bins), data.notes


def merged(parts: Sequence[Maps]) -> Maps:
    """Return maps of different spaxels as one."""
    words = tuple(sorted({w for m in parts for w in m.words}))
    flags = np.zeros_like(parts[0].flags)
    for m in parts:
        for k, word in enumerate(m.words):
            flags |= ((m.flags >> k) & 1).astype(np.int32) << words.index(word)
    names = dict.fromkeys(n for m in parts for n in m.values)
    empty = np.full(flags.shape, np.nan)
    values = {n: reduce(np.fmax, (m.values.get(n, empty) for m in parts)) for n in names}
    return Maps(values, flags, words)
