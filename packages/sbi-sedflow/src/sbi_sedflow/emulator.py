r"""Cross-check: the neural emulator of FSPS spectra that the PROVABGS code uses.

Four networks, one per wavelength range, of nine inputs (three stick-breaking fractions, two
metallicity coefficients, three dust parameters, age of the universe; no burst):

.. math:: h_0 = (x - s)/c, \quad a = h_i W_i + b_i, \quad
          h_{i+1} = a\,\left[\beta_i + \frac{1 - \beta_i}{1 + e^{-\alpha_i a}}\right]

for eight layers, the last one linear, and

.. math:: \ln L_\lambda = [(h\,c_p + s_p)\,P]\,c_s + s_s
          \quad\text{[Lsun/Å per Msun formed]}.

The original weights are pickles; ``sbi-run sedflow emulator convert`` reads them with an unpickler
that accepts only numpy arrays, and writes npz.

References:
    | Alsing et al. 2020, ApJS 249, 5 (Speculator); Hahn et al. 2023, ApJ 945, 16
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from sbi_core import ConfigError, DataFileError, checked_file, read_npz
from sbi_sedflow.ssp.grid import write_arrays

__all__ = ["ProvabgsEmulator", "convert_pickles", "restricted_load"]

F64 = NDArray[np.float64]
_BLOCKS, _LAYERS = 4, 9
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}
_PIECES = (
    "theta_shift", "theta_scale", "pca_shift", "pca_scale", "spec_shift", "spec_scale",
    "pca_matrix",
)  # fmt: skip


class ProvabgsEmulator:
    """Spectra of the published emulator.

    Parameters
    ----------
    path
        npz with ``bK_W0 .. bK_wave`` for K = 0..3.

    Raises
    ------
    DataFileError
        If the file is missing, damaged, pickled, or lacks an array.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        if path.suffix in (".pkl", ".pickle"):
            msg = (
                f"'{path}' is a pickle, which can execute code: convert it with "
                "`sbi-run sedflow emulator convert FILE... --out FILE.npz`"
            )
            raise DataFileError(msg)
        stored = read_npz(path)
        arrays = {n: np.asarray(stored[n], np.float64) for n in _names() if n in stored}
        missing = [n for n in _names() if n not in arrays]
        if missing:
            msg = f"'{path}' lacks {', '.join(missing[:4])} ({len(missing)} arrays)"
            raise DataFileError(msg)
        self._arrays = arrays
        self.wave: F64 = np.concatenate([arrays[f"b{k}_wave"] for k in range(_BLOCKS)])

    def luminosity(
        self, sticks: ArrayLike, gamma: ArrayLike, dust: ArrayLike, age_gyr: ArrayLike
    ) -> F64:
        """Return L_lambda (n, 4899) in Lsun / Angstrom per Msun formed.

        Parameters
        ----------
        sticks : (n, 3)
            Fractions k of the stick breaking: beta1 = 1 - k1, beta2 = k1 (1 - k2), ...
        gamma : (n, 2)
            Metallicity coefficients, linear.
        dust : (n, 3)
            tau_bc, tau_ism, n_dust.
        age_gyr : (n,)
            Age of the universe.

        Raises
        ------
        ConfigError
            If shapes disagree.
        """
        age = np.asarray(age_gyr, float).reshape(-1, 1)
        parts = [np.atleast_2d(np.asarray(v, float)) for v in (sticks, gamma, dust)]
        if [p.shape for p in parts] != [(len(age), 3), (len(age), 2), (len(age), 3)]:
            shapes = [p.shape for p in parts]
            msg = f"sticks, gamma, dust must be (n, 3), (n, 2), (n, 3) for n ages, got {shapes}"
            raise ConfigError(msg)
        x = np.concatenate([*parts, age], axis=1)
        return np.concatenate([self._block(k, x) for k in range(_BLOCKS)], axis=1)

    def _block(self, k: int, x: F64) -> F64:
        a = {name.partition("_")[2]: v for name, v in self._arrays.items()
             if name.startswith(f"b{k}_")}  # fmt: skip
        h = (x - a["theta_shift"]) / a["theta_scale"]
        for i in range(_LAYERS - 1):
            y = h @ a[f"W{i}"] + a[f"bias{i}"]
            gate = special.expit(a[f"alpha{i}"] * y)
            h = y * (a[f"beta{i}"] + (1 - a[f"beta{i}"]) * gate)
        h = h @ a[f"W{_LAYERS - 1}"] + a[f"bias{_LAYERS - 1}"]
        log = (h * a["pca_scale"] + a["pca_shift"]) @ a["pca_matrix"]
        return np.asarray(np.exp(log * a["spec_scale"] + a["spec_shift"]))


def _names() -> list[str]:
    layers = [f"{n}{i}" for n in ("W", "bias") for i in range(_LAYERS)]
    layers += [f"{n}{i}" for n in ("alpha", "beta") for i in range(_LAYERS - 1)]
    return [f"b{k}_{n}" for k in range(_BLOCKS) for n in (*layers, *_PIECES, "wave")]


class _ArraysOnly(pickle.Unpickler):
    """Unpickler that accepts only numpy arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return super().find_class(module, name)
        msg = f"the pickle contains '{module}.{name}'; only numpy arrays are read"
        raise DataFileError(msg)


def restricted_load(data: bytes) -> Any:
    """Return the content of a pickle of lists, numbers and numpy arrays.

    Raises
    ------
    DataFileError
        If it contains anything else, or is damaged.
    """
    try:
        return _ArraysOnly(io.BytesIO(data)).load()
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, ValueError) as error:
        msg = f"the pickle is damaged: {error}"
        raise DataFileError(msg) from None


def convert_pickles(paths: Sequence[str | Path], out: str | Path) -> Path:
    """Convert the four original files, blue to red, into one npz; return its path.

    Raises
    ------
    DataFileError
        If there are not four, or one is not a list of 18 items in the known order.
    """
    if len(paths) != _BLOCKS:
        msg = f"expected {_BLOCKS} files, one per wavelength range, got {len(paths)}"
        raise DataFileError(msg)
    arrays: dict[str, NDArray[Any]] = {}
    for k, path in enumerate(paths):
        if not Path(path).is_file():
            msg = f"no file '{path}'"
            raise DataFileError(msg)
        items = restricted_load(checked_file(path).read_bytes())
        if not isinstance(items, (list, tuple)) or len(items) < 14:
            msg = f"'{path}' is not an emulator of PROVABGS: expected a list of 18 items"
            raise DataFileError(msg)
        arrays |= _block_arrays(k, items, path)
    return write_arrays(out, arrays, {"source": [Path(p).name for p in paths]})


def _block_arrays(k: int, items: Sequence[Any], path: str | Path) -> Mapping[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for name, values, count in zip(
        ("W", "bias", "alpha", "beta"), items[:4], (9, 9, 8, 8), strict=True
    ):
        if not isinstance(values, (list, tuple)) or len(values) != count:
            msg = f"'{path}': item '{name}' does not hold {count} arrays"
            raise DataFileError(msg)
        arrays |= {f"b{k}_{name}{i}": np.asarray(v, np.float32) for i, v in enumerate(values)}
    ordered = ("theta_shift", "theta_scale", "pca_shift", "pca_scale", "spec_shift", "spec_scale",
               "pca_matrix")  # fmt: skip
    pieces = [v for v in items[4:13] if isinstance(v, np.ndarray)][: len(ordered)]
    if len(pieces) != len(ordered):
        msg = f"'{path}': expected {len(ordered)} arrays of shifts, scales and components"
        raise DataFileError(msg)
    arrays |= {
        f"b{k}_{name}": np.asarray(v, np.float32) for name, v in zip(ordered, pieces, strict=True)
    }
    arrays[f"b{k}_wave"] = np.asarray(items[13], np.float64)
    return arrays
