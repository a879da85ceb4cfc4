"""Template libraries from Gasoline (tipsy) snapshots, read with pynbody.

Needs the extra ``sbi-casbi[snapshots]``.
"""

from __future__ import annotations

__all__: list[str] = []
