"""Stellar yields: tables, their files, the embedded sets, and selection by name."""

from sbi_chempy.yields.chempy_raw import RAW_SETS, find_missing_files, read_chempy_directory
from sbi_chempy.yields.chempy_tables import RAW_TABLES, read_chempy_table
from sbi_chempy.yields.embedded import DEFAULT_SET, EMBEDDED, load_embedded, load_embedded_set
from sbi_chempy.yields.select import YieldsNotFoundError, load_yields
from sbi_chempy.yields.tables import (
    SnIaYield,
    YieldRows,
    YieldSet,
    YieldTable,
    YieldTableError,
    read_yields,
    row_edges,
    write_yields,
)

__all__ = [
    "DEFAULT_SET",
    "EMBEDDED",
    "RAW_SETS",
    "RAW_TABLES",
    "SnIaYield",
    "YieldRows",
    "YieldSet",
    "YieldTable",
    "YieldTableError",
    "YieldsNotFoundError",
    "find_missing_files",
    "load_embedded",
    "load_embedded_set",
    "load_yields",
    "read_chempy_directory",
    "read_chempy_table",
    "read_yields",
    "row_edges",
    "write_yields",
]
