r"""Write ``data/yield_scatter.json``: what the stars of each yield table make.

Usage::

    python scripts/build_scatter.py --yields DIRECTORY

with an original Chempy yield directory (``sbi-run data fetch chempy-yields``). The embedded tables
and those of the directory enter; of a study that is in both, the embedded one. Per table: newly
made mass of the eight elements per unit mass formed, at five metallicities; null where a table
does not carry the element.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from sbi_chempy.constants import FACTOR_CHANNELS, FACTOR_ELEMENTS
from sbi_chempy.yields import EMBEDDED, RAW_TABLES, load_embedded, load_yields
from sbi_chempy.yields.scatter import LOG_Z, imf_weighted

RAW = {c: ("tng", *RAW_TABLES[c]) for c in RAW_TABLES}
"""Tables of the directory, but for those of studies that are embedded."""


def main() -> None:
    """Command line: write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--yields", type=Path, required=True, help="Chempy yield directory")
    folder = Path(__file__).parents[1] / "src" / "sbi_chempy" / "data"
    parser.add_argument("--output", type=Path, default=folder / "yield_scatter.json")
    options = parser.parse_args()
    channels: dict[str, dict[str, object]] = {}
    for channel in FACTOR_CHANNELS:
        tables = {name: load_embedded(channel, name) for name in EMBEDDED[channel]}
        for name in RAW.get(channel, ()):
            chosen = load_yields({channel: name}, yield_directory=options.yields)
            tables[name] = getattr(chosen, channel)
        channels[channel] = {
            name: {
                # models of SN Ia differ like studies: deflagration, delayed detonation
                "study": name if channel == "sn1a" else name.split("-")[0],
                "citation": table.citation,
                "hash": table.hash,
                "made": _rounded(imf_weighted(table)),
            }
            for name, table in tables.items()
        }
    content = {
        "about": __doc__.splitlines()[0].partition(": ")[2],
        "unit": "Msun newly made per Msun formed (SN Ia: 10^-2.89 events per Msun)",
        "log10_z_over_0.0134": LOG_Z,
        "elements": FACTOR_ELEMENTS,
        "channels": channels,
    }
    options.output.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _rounded(made: np.ndarray) -> list[list[float | None]]:
    return [[float(f"{v:.4g}") if np.isfinite(v) else None for v in row] for row in made]


if __name__ == "__main__":
    main()
