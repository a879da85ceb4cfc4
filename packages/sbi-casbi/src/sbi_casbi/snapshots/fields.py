"""Where a snapshot has the abundances of its stars: arrays of mass fractions, and their columns.

A field is ``ELEMENT=ARRAY`` or ``ELEMENT=ARRAY:COLUMN`` with the elements ``fe``, ``o``, ``mg``,
``h`` (hydrogen), ``he`` (helium) and ``z`` (all metals), and the name of the array in the file.
Hydrogen is ``h``; or 1 - z - he; or it follows from the metals (:mod:`sbi_casbi.abundances`).
Layouts of some simulations have names:

=============  ==================================================================================
``gasoline``   ``FeMassFrac``, ``OxMassFrac``, ``MgMassFrac``
``tng``        ``GFM_Metals``: H, He, C, N, O, Ne, Mg, Si, Fe
``eagle``      ``ElementAbundance/Iron``, ``/Oxygen``, ``/Magnesium``, ``/Hydrogen``
``fire``       ``Metallicity``: all metals, He, C, N, O, Ne, Mg, Si, S, Ca, Fe
=============  ==================================================================================

References:
    | Nelson et al. 2019, Computational Astrophysics and Cosmology 6, 2 (IllustrisTNG)
    | McAlpine et al. 2016, Astronomy and Computing 15, 72 (EAGLE)
    | Wetzel et al. 2023, ApJS 265, 44 (FIRE-2)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sbi_casbi.abundances import Element, hydrogen_of, metals_of
from sbi_core import ConfigError, DataFileError, counted

__all__ = ["LAYOUTS", "fields_of", "guessed", "mass_fractions"]

F64 = NDArray[np.float64]
Fields = Mapping[str, str]
LAYOUTS: Mapping[str, Fields] = {
    "gasoline": {"fe": "FeMassFrac", "o": "OxMassFrac", "mg": "MgMassFrac"},
    "tng": {k: f"GFM_Metals:{n}" for k, n in (("h", 0), ("o", 4), ("mg", 6), ("fe", 8))},
    "eagle": {
        "h": "ElementAbundance/Hydrogen",
        "o": "ElementAbundance/Oxygen",
        "mg": "ElementAbundance/Magnesium",
        "fe": "ElementAbundance/Iron",
    },
    "fire": {
        k: f"Metallicity:{n}" for k, n in (("z", 0), ("he", 1), ("o", 4), ("mg", 6), ("fe", 10))
    },
}
_ELEMENTS = ("fe", "o", "mg", "h", "he", "z")


def fields_of(words: str) -> Fields:
    """Return the fields of a layout's name, or of words such as ``fe=ARRAY:8,o=ARRAY:4``.

    Raises
    ------
    ConfigError
        If the name is unknown or the words are no fields.
    """
    if words in LAYOUTS:
        return LAYOUTS[words]
    parts = [part.partition("=") for part in words.split(",")]
    fields = {element.strip(): array.strip() for element, _, array in parts}
    named = all(re.fullmatch(r"[^:]+(:\d+)?", array) for array in fields.values())
    if not named or set(fields) - set(_ELEMENTS) or "fe" not in fields:
        msg = (
            f"fields '{words}' are neither a layout ({', '.join(LAYOUTS)}) nor a list such as "
            f"fe=ARRAY:8,o=ARRAY:4 (elements: {', '.join(_ELEMENTS)})"
        )
        raise ConfigError(msg)
    return fields


def guessed(snapshot: Any, name: str) -> Fields:
    """Return the layout whose arrays the stars of a snapshot have.

    Raises
    ------
    DataFileError
        If there is none.
    """
    arrays = set(snapshot.star.loadable_keys())
    for fields in LAYOUTS.values():
        if all(_in_pynbody(snapshot, fields[e].partition(":")[0]) in arrays for e in ("fe", "o")):
            return fields
    msg = (
        f"{name}: no known array of abundances among those of its stars "
        f"({', '.join(sorted(arrays))}): name them with --fields fe=ARRAY,o=ARRAY"
    )
    raise DataFileError(msg)


def mass_fractions(
    snapshot: Any, stars: Any, fields: Fields, element: Element, name: str
) -> tuple[F64, F64, F64]:
    """Return the mass fractions of iron, of the element, and of hydrogen, each (n,).

    Parameters
    ----------
    snapshot, stars
        As loaded by pynbody; the stars of the halo.
    fields
        Arrays and columns.
    element
        Oxygen or magnesium.
    name
        Name of the snapshot, for messages.

    Raises
    ------
    DataFileError
        If the snapshot has no such array or column.
    """
    wanted = dict.fromkeys(("fe", element, *(e for e in ("h", "he", "z") if e in fields)))
    if "h" not in fields and "z" not in fields:
        wanted["o"] = None  # the metals follow from iron and oxygen
    values: dict[str, F64] = {}
    for one in wanted:
        if one not in fields:
            msg = f"{name}: no array of the element '{one}' is named: add {one}=ARRAY to --fields"
            raise DataFileError(msg)
        array, _, column = fields[one].partition(":")
        values[one] = _array(snapshot, stars, array, column, name)
    fe, alpha = values["fe"], values[element]
    if "h" in values:
        return fe, alpha, values["h"]
    if "z" in values and "he" in values:
        return fe, alpha, 1.0 - values["z"] - values["he"]
    metals = values["z"] if "z" in values else metals_of(fe, values["o"])
    return fe, alpha, hydrogen_of(metals)


def _in_pynbody(snapshot: Any, array: str) -> str:
    """Return pynbody's name of an array of the file."""
    translate = getattr(snapshot, "_translate_array_name", None)
    return array if translate is None else str(translate(array, reverse=True))


def _array(snapshot: Any, stars: Any, array: str, column: str, name: str) -> F64:
    own = _in_pynbody(snapshot, array)
    try:
        values = np.asarray(stars[own], float)
    except KeyError:
        known = ", ".join(sorted(snapshot.star.loadable_keys()))
        msg = f"{name}: its stars have no array '{array}' (--fields); they have {known}"
        raise DataFileError(msg) from None
    columns = 1 if values.ndim == 1 else values.shape[1]
    wrong = None
    if values.ndim == 1 and column:
        wrong = f"is one column: write '{array}' without ':{column}'"
    elif values.ndim > 1 and not column:
        wrong = f"has {counted(columns, 'column')}: write '{array}:0' to '{array}:{columns - 1}'"
    elif column and int(column) >= columns:
        wrong = f"has {counted(columns, 'column')}, from 0, but the column {column} is asked for"
    if wrong:
        msg = f"{name}: array '{array}' of --fields {wrong}"
        raise DataFileError(msg)
    return values[:, int(column)] if column else values
