"""Options of reading tables, and the names under which columns are found.

Column names are compared after normalisation: lower case, without brackets, ``/``, ``-`` and blanks
as ``_``, one ``_`` for several, none at the ends; ``[Mg/Fe]``, ``__Mg_Fe_``, ``mg_fe`` and
``MG_FE`` are the same column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

__all__ = [
    "GROUP_NAMES",
    "ID_NAMES",
    "Reading",
    "chosen_columns",
    "chosen_units",
    "current",
    "normalise",
    "using",
]

ID_NAMES = (
    "id", "object_id", "star_id", "source_id", "name", "apogee_id", "sobject_id", "objid",
    "specobjid", "targetid", "nsaid",
)  # fmt: skip
GROUP_NAMES = ("group", "galaxy", "cluster")


def normalise(name: str) -> str:
    """Return a column name in the form used for comparison."""
    # a byte order mark (Excel), or "#" (numpy.savetxt), stands before the first name of a header
    plain = re.sub(r"[\[\]()]", "", name.strip().lstrip("\ufeff#").lower())
    return re.sub(r"[\s/\-_]+", "_", plain.strip()).strip("_")


@dataclass(frozen=True)
class Reading:
    """Options of reading tables.

    Parameters
    ----------
    columns
        ``{name: column}``: the table's ``column`` is read as ``name``.
    strict
        Refuse a table with a row that cannot be used, instead of leaving the row out.
    missing
        Numbers that mark missing values; None: those of the plugin.
    start
        Number of the first row, where the table is a part of a file.
    units
        ``{name: unit}``: unit of a column; of the name ``""``: of all columns without one.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    strict: bool = False
    missing: Sequence[float] | None = None
    start: int = 0
    units: Mapping[str, str] = field(default_factory=dict)

    @property
    def words(self) -> tuple[str, ...]:
        """Columns that are read as identifier or group: words, whatever they look like."""
        named = (*ID_NAMES, *GROUP_NAMES)
        return tuple(c for name, c in self.columns.items() if normalise(name) in named)


_CURRENT: ContextVar[Reading | None] = ContextVar("reading", default=None)


@contextmanager
def using(reading: Reading) -> Iterator[None]:
    """Read with these options where a simulator opens a file by itself."""
    token = _CURRENT.set(reading)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def current() -> Reading:
    """Return the options of :func:`using`, or the default ones."""
    return _CURRENT.get() or Reading()


def chosen_columns() -> Mapping[str, str]:
    """Return the names that the caller chose columns for (option ``--column NAME=COLUMN``).

    A simulator whose files are more than tables (``columns_by_itself``) applies them itself.
    """
    return current().columns


def chosen_units() -> Mapping[str, str]:
    """Return the units that the caller gave (option ``--unit NAME=UNIT``), by name or column."""
    return current().units
