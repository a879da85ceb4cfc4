"""Yield tables that come with the package.

One HDF5 file per table in ``data/yields``, made by ``scripts/build_yields.py`` from VICE 1.3.1
and crimsons 0.1.2 (both MIT); each carries its study, citation and the sha256 of its sources.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

from sbi_chempy.yields.tables import SnIaYield, YieldSet, YieldTable, read_yields

__all__ = ["DEFAULT_SET", "EMBEDDED", "load_embedded", "load_embedded_set"]

EMBEDDED: dict[str, tuple[str, ...]] = {
    "sn1a": ("iwamoto99-w7", "iwamoto99-wdd2", "seitenzahl13-n100", "gronow21-m10-03-1"),
    "sn2": (
        "nomoto13-net",
        "nomoto13-gross",
        "limongi18-v0",
        "limongi18-v150",
        "limongi18-v300",
        "woosley95",
    ),
    "agb": ("karakas10", "cristallo11", "ventura13", "karakas16"),
}
"""Names per channel, the default first."""

DEFAULT_SET: dict[str, str] = {channel: names[0] for channel, names in EMBEDDED.items()}


@cache
def load_embedded(channel: str, name: str) -> SnIaYield | YieldTable:
    """Load one table.

    Parameters
    ----------
    channel : "sn1a", "sn2" or "agb"
    name : one of ``EMBEDDED[channel]``

    Returns
    -------
    SnIaYield or YieldTable
    """
    if name not in EMBEDDED[channel]:
        raise ValueError(f"no embedded {channel} yields {name!r}; have {EMBEDDED[channel]}")
    folder = resources.files("sbi_chempy") / "data" / "yields"
    with resources.as_file(folder.joinpath(f"{channel}-{name}.h5")) as path:
        return read_yields(Path(path), name)[channel]


def load_embedded_set(
    sn1a: str = DEFAULT_SET["sn1a"],
    sn2: str = DEFAULT_SET["sn2"],
    agb: str = DEFAULT_SET["agb"],
    *,
    name: str = "",
) -> YieldSet:
    """Combine three embedded tables; without arguments the default set.

    Parameters
    ----------
    sn1a, sn2, agb : names from :data:`EMBEDDED`
    name : label of the set

    Returns
    -------
    YieldSet
    """
    chosen = {"sn1a": sn1a, "sn2": sn2, "agb": agb}
    tables = {channel: load_embedded(channel, table) for channel, table in chosen.items()}
    return YieldSet(**tables, name=name)  # type: ignore[arg-type]
