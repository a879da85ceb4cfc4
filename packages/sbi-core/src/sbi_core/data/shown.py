"""The table of results as it is shown: numbers with two digits of their errors."""

from __future__ import annotations

from typing import Any

import numpy as np
from astropy.table import Table
from astropy.table.pprint import TableFormatter

__all__ = ["SummaryTable"]

_VALUES = ("p16", "p50", "p84", "mean", "sd")


class _Rounding(TableFormatter):  # type: ignore[misc]
    """Formats a table of results; its columns keep all digits."""

    def _pformat_table(self, table: Table, *args: Any, **kwargs: Any) -> Any:
        shown = Table(table, copy=False)
        names = list(shown.colnames)
        for name in names:
            if name.endswith("_sd") and f"{name[:-3]}_p50" in names:
                form = _format_of(shown[name])
                for column in (f"{name[:-3]}_{value}" for value in _VALUES):
                    if column in names:
                        shown[column].info.format = form
        for name in names[names.index("flags") + 1 :] if "flags" in names else ():
            if shown[name].dtype.kind == "f":
                shown[name].info.format = ".4g"
        return super()._pformat_table(shown, *args, **kwargs)


class SummaryTable(Table):  # type: ignore[misc]
    """A table of results that is shown with two digits of the errors; files get all digits."""

    TableFormatter = _Rounding


def _format_of(errors: Any) -> str:
    """Return the format that gives the smallest error two digits."""
    known = np.asarray(errors, float)
    known = known[np.isfinite(known) & (known > 0)]
    if not known.size:
        return ".4g"
    digits = 1 - int(np.floor(np.log10(known.min())))
    return f".{max(digits, 0)}f" if -4 <= digits <= 8 else ".5g"
