r"""From the abundance columns of a table to the ones a frame observes.

A missing column is made from those that are there with

.. math:: [X/R] = [X/H] - [R/H], \qquad [X/H] = [X/Fe] + [Fe/H] = [X/Mg] + [Mg/H],

by the shortest such sum. Errors of the columns that enter are taken as independent:
:math:`\sigma^2 = \sum \sigma_c^2` over the columns left after cancelling.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from sbi_core import ColumnReader, Observable, ObservationError

__all__ = ["add_converted"]

Sum = dict[str, int]  # column -> coefficient


def add_converted(
    reader: ColumnReader, observables: Sequence[Observable], default_error: float
) -> list[str]:
    """Add columns that can be made from others to the table; return notes.

    Parameters
    ----------
    reader
        The table; changed in place.
    observables
        The abundances looked for, e.g. ``mg_fe``, ``fe_h`` or ``o_mg``, ``mg_h``.
    default_error
        Standard deviation [dex] of a column without errors.

    Raises
    ------
    ObservationError
        If a column of an element is there but the one that would convert it is not.
    """
    notes = []
    for o in observables:
        element, _, reference = o.name.partition("_")
        relative_to_mg = reference == "mg" or o.name == "mg_h"
        direct = reader.find((o.name,))
        if direct is not None:
            if relative_to_mg and reader.find_error((o.name,)) is None:
                # an error of [X/Mg] is larger than one of [X/Fe]; noise that all share needs it
                terms = 1 if o.name == "fe_mg" else 2
                _put(reader, f"e_{o.name}", np.full(len(reader.table), terms**0.5 * default_error))
                notes.append(f"'{direct}' has no errors, {terms**0.5 * default_error:.3g} assumed")
            continue
        terms_of = _shortest(reader, element, reference)
        if terms_of is None:
            _refuse_dead_end(reader, o.name, element, reference)
            continue
        notes.append(_convert(reader, o.name, terms_of, default_error, relative_to_mg))
    return notes


def _ways(element: str) -> list[Sum]:
    """Sums of columns that make [X/H], those with [X/Fe] first."""
    pairs = [{f"{element}_{r}": 1, f"{r}_h": 1} for r in ("fe", "mg") if r != element]
    return [*pairs, {f"{element}_h": 1}]


def _shortest(reader: ColumnReader, element: str, reference: str) -> Sum | None:
    """Shortest sum of columns present that makes [X/R], or None."""
    sums: list[Sum] = []
    for plus, minus in product(_ways(element), [{}] if reference == "h" else _ways(reference)):
        names = dict.fromkeys((*plus, *minus))
        total = {n: plus.get(n, 0) - minus.get(n, 0) for n in names}
        total = {n: c for n, c in total.items() if c}
        if all(reader.find((n,)) is not None for n in total):
            sums.append(total)
    return min(sums, key=len, default=None)


def _convert(
    reader: ColumnReader, name: str, terms: Sum, default_error: float, always_errors: bool
) -> str:
    value = np.zeros(len(reader.table))
    variance = np.zeros(len(reader.table))
    columns = []
    has_errors = True
    for k, (term, coefficient) in enumerate(terms.items()):
        column = reader.find((term,))
        assert column is not None
        columns.append(column)
        value = value + coefficient * reader.values(column, "dex")
        error = reader.find_error((column,))
        if error is not None:
            variance = variance + (coefficient * reader.values(error, "dex")) ** 2
        elif always_errors:
            variance = variance + (coefficient * default_error) ** 2
        elif k == 0:
            has_errors = False  # the default applies to the result
    _put(reader, name, value)
    if has_errors:
        # an upper limit where the errors of the columns are positively correlated
        _put(reader, f"e_{name}", np.sqrt(variance))
    symbol = "H" if name.endswith("_h") else name.rpartition("_")[2].capitalize()
    x = "X" if symbol != "H" else name.partition("_")[0].capitalize()
    helpers = "' and '".join(columns[1:])
    note = f"'{columns[0]}' converted to [{x}/{symbol}]"
    return f"{note} with '{helpers}'" if helpers else note


def _put(reader: ColumnReader, name: str, values: object) -> None:
    reader.table[name] = values
    reader.names[name] = name


def _refuse_dead_end(reader: ColumnReader, name: str, element: str, reference: str) -> None:
    """Raise where the element was measured in a form that nothing in the table converts."""
    column = reader.find((f"{element}_h",))
    if column is not None and reference != "h":
        msg = (
            f"{reader.source}: column '{column}' is [X/H], which needs a column '{reference}_h' to "
            f"become '{name}'"
        )
        raise ObservationError(msg)
    column = reader.find((f"{element}_fe",))
    if reference == "mg" and column is not None:
        msg = (
            f"{reader.source}: column '{column}' is [X/Fe], which needs a column 'mg_fe' to become "
            f"'{name}'"
        )
        raise ObservationError(msg)
