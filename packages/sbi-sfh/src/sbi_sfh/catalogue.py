"""Redshifts and velocity dispersions from a table, for spectra whose files have none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from sbi_core import ObservationError, read_table
from sbi_sfh.formats.names import FACTS, plain
from sbi_sfh.formats.spectrum import FAILED, RawSpectrum

__all__ = ["Catalogue"]

_SAME = 1e-3  # difference of repeated redshifts, of which the first counts
_KINDS = ("redshift", "cosmic", "sigma")


@dataclass(frozen=True)
class Catalogue:
    """Facts of galaxies by identifier.

    Parameters
    ----------
    facts
        ``{identifier: {redshift, cosmic, sigma}}``.
    """

    facts: Mapping[str, Mapping[str, float]]

    @classmethod
    def read(cls, path: str) -> Catalogue:
        """Read a table with a column of identifiers and one of redshifts.

        Raises
        ------
        ObservationError
            If it lacks one of the two, or has different redshifts for one identifier.
        """
        table = read_table(path)
        by_name = {plain(n): n for n in reversed(table.colnames)}

        def values(kind: str) -> str | None:
            return next((by_name[a] for a in FACTS[kind] if a in by_name), None)

        names, redshift = values("id"), values("redshift")
        if names is None or redshift is None:
            msg = (
                f"catalogue '{path}': needs columns id and redshift, has "
                f"{', '.join(table.colnames)}"
            )
            raise ObservationError(msg)
        kinds = {kind: n for kind in _KINDS if (n := values(kind)) is not None}
        columns = {
            kind: np.ma.filled(np.ma.asarray(table[n]).astype(float), np.nan)
            for kind, n in kinds.items()
        }
        found: dict[str, dict[str, float]] = {}
        for k, name in enumerate(map(_word, table[names])):
            known = {kind: float(v[k]) for kind, v in columns.items() if np.isfinite(v[k])}
            first = found.setdefault(name, known).get("redshift", np.nan)
            if abs(first - known.get("redshift", np.nan)) > _SAME:
                msg = (
                    f"catalogue '{path}': '{name}' has the redshifts {first:g} and, in row {k}, "
                    f"{known['redshift']:g}; keep one row of each object"
                )
                raise ObservationError(msg)
        return cls(found)

    def completed(self, raw: RawSpectrum) -> RawSpectrum:
        """Return a spectrum with the facts that its file lacks."""
        known = self.facts.get(raw.id, {})
        given, failed = known.get("redshift"), raw.failed
        if given is not None and not given > FAILED:
            given, failed = None, f"{given:g}"
        lost = raw.redshift is None and raw.id not in self.facts
        return replace(
            raw,
            notes=(
                *raw.notes,
                *(["not in the catalogue (compare the identifiers)"] if lost else []),
            ),
            redshift=given if raw.redshift is None else raw.redshift,
            failed=failed,
            cosmic=known.get("cosmic") if raw.cosmic is None else raw.cosmic,
            sigma=known.get("sigma") if raw.sigma is None else raw.sigma,
        )


def _word(value: object) -> str:
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return text.strip()
