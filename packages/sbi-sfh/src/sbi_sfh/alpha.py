r"""Check that two [alpha/Fe] planes of a library differ as alpha enhancement predicts.

At fixed [M/H] and ages of 2 Gyr and more, enhancement strengthens Mgb and weakens Fe5270, Fe5335
and NaD; the ratio

.. math:: R = \frac{[\mathrm{Mgb}/\langle\mathrm{Fe}\rangle]_{0.4}}
                   {[\mathrm{Mgb}/\langle\mathrm{Fe}\rangle]_{0.0}}

lies between 1.4 and 2.2 in the alpha-MILES models. Swapped planes fail every part of the test.

References:
    | Vazdekis et al. 2015, MNRAS 449, 1177
    | Thomas, Maraston & Bender 2003, MNRAS 339, 897
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from sbi_sfh.constants import FWHM_PER_SIGMA
from sbi_sfh.indices import INDICES, covers, equivalent_width
from sbi_sfh.ssp import SspLibrary

__all__ = ["AlphaCheck", "check_alpha"]

F64 = NDArray[np.float64]
_FWHM = 8.4  # Angstrom, resolution at which Lick-type indices are compared
_OLD = 2.0  # Gyr
_EXPECTED = {"Mgb": 1.0, "Fe5270": -1.0, "Fe5335": -1.0, "NaD": -1.0}
_RATIO = (1.2, 2.5)
_WEAK = 0.5  # Angstrom, iron lines below which no ratio is taken


@dataclass(frozen=True, slots=True)
class AlphaCheck:
    """Result of the check.

    Parameters
    ----------
    right_sign
        Share of grid points whose index moves the right way, by index.
    ratio
        Smallest, median and largest R; NaN where indices are not covered.
    problems
        One sentence per problem; empty if there is none.
    """

    right_sign: dict[str, float]
    ratio: tuple[float, float, float]
    problems: tuple[str, ...]


def check_alpha(library: SspLibrary) -> AlphaCheck:
    """Compare the first and the last [alpha/Fe] plane of a library."""
    old = library.age_gyr >= _OLD
    native = library.fwhm
    pixels = np.sqrt(max(_FWHM**2 - native**2, 0.0)) / FWHM_PER_SIGMA
    pixels /= library.wave[1] - library.wave[0]
    planes = [
        gaussian_filter1d(library.spectra(k)[:, old], pixels, axis=-1, mode="nearest")
        for k in (0, len(library.afe) - 1)
    ]
    widths = [
        {
            name: equivalent_width(library.wave, plane, INDICES[name])
            for name in _EXPECTED
            if covers(library.wave, INDICES[name].blue) and covers(library.wave, INDICES[name].red)
        }
        for plane in planes
    ]
    right = {
        name: float((_EXPECTED[name] * (widths[1][name] - widths[0][name]) > 0).mean())
        for name in widths[0]
    }
    problems = [
        f"{name} moves the wrong way from [alpha/Fe] = {library.afe[0]:g} to "
        f"{library.afe[-1]:g} in {100 * (1 - share):.0f} % of the grid points above {_OLD:g} Gyr"
        for name, share in right.items()
        if share < 1.0
    ]
    if problems and all(share < 0.5 for share in right.values()):
        problems.insert(0, "the [alpha/Fe] planes seem to be swapped")
    ratio = (np.nan, np.nan, np.nan)
    if {"Mgb", "Fe5270", "Fe5335"} <= set(right):
        iron = [0.5 * (w["Fe5270"] + w["Fe5335"]) for w in widths]
        strong = np.minimum(*iron) > _WEAK  # indices near zero have no meaningful ratio
        if strong.any():
            r = [w["Mgb"][strong] / fe[strong] for w, fe in zip(widths, iron, strict=True)]
            change = r[1] / r[0]
        else:
            change = np.full(1, np.nan)
        ratio = (float(change.min()), float(np.median(change)), float(change.max()))
        if ratio[0] < _RATIO[0] or ratio[2] > _RATIO[1]:
            problems.append(
                f"Mgb/<Fe> changes by factors of {ratio[0]:.2f} to {ratio[2]:.2f} between the "
                f"planes, expected {_RATIO[0]:g} to {_RATIO[1]:g}"
            )
    return AlphaCheck(right, ratio, tuple(problems))
