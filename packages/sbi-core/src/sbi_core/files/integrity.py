"""provenance.json: schema, seal, and the SHA-256 of everything that a run wrote.

The seal is the hash of all other content, so that a flipped byte in the records is noticed, too. It
protects against damage and mistakes, not against somebody who computes it again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sbi_core.errors import RunDirectoryError
from sbi_core.files.directory import RESTORE, RunDirectory, read_json, sha256_of, write_json

__all__ = ["SCHEMA", "missing_records", "read_records", "verify_files", "write_records"]

SCHEMA = 1


def write_records(directory: RunDirectory, records: dict[str, Any]) -> None:
    """Write the records with their schema, the hash of run.toml, and their seal."""
    records["schema"] = SCHEMA
    if directory.config.exists():
        records["config"] = {directory.config.name: sha256_of(directory.config)}
    records["seal"] = _seal(records)
    if directory.provenance.exists() and read_json(directory.provenance) == _as_read(records):
        return  # nothing was done: the file keeps its date
    write_json(directory.provenance, records)


def missing_records(directory: RunDirectory, why: str) -> RunDirectoryError:
    """Return the error about a run without records, with the way out."""
    return RunDirectoryError(
        f"'{directory.provenance}' is missing: {why}; restore it from a copy of the run, or give "
        "the run its command again with --restart train (simulations are kept) or "
        "another run directory (out)"
    )


def read_records(directory: RunDirectory, *, required: bool = False) -> dict[str, Any]:
    """Read the records; those of a run in which no stage has started are ``{"stages": {}}``.

    Parameters
    ----------
    required
        Whether results of the run are going to be used.

    Raises
    ------
    RunDirectoryError
        If they are damaged or altered, or written by a later version; missing though required.
    """
    if not directory.provenance.exists():
        if required:
            raise missing_records(directory, "nothing in this run can be verified")
        return {"stages": {}}
    records = read_json(directory.provenance)
    stages = records.get("stages") if isinstance(records, dict) else None
    if not isinstance(stages, dict) or not all(map(_is_record, stages.values())):
        msg = f"'{directory.provenance}' is damaged; {RESTORE}"
        raise RunDirectoryError(msg)
    schema = records.get("schema", SCHEMA)
    if not isinstance(schema, int) or schema > SCHEMA:
        msg = (
            f"'{directory.root}' was written by a later sbi-core (records of schema {schema!r}, "
            f"this one reads {SCHEMA}): upgrade sbi-core, or choose another run directory (out)"
        )
        raise RunDirectoryError(msg)
    sealed = "schema" in records or "seal" in records
    if sealed and records.get("seal") != _seal(records):
        msg = f"'{directory.provenance}' was damaged or altered; {RESTORE}"
        raise RunDirectoryError(msg)
    found: dict[str, Any] = records
    return found


def verify_files(directory: RunDirectory, files: Mapping[str, str], advice: str) -> None:
    """Raise RunDirectoryError, naming the file, when one is gone, altered, or outside the run."""
    root = directory.root.resolve()
    for name, expected in files.items():
        path = directory.root / name
        if root not in path.resolve().parents:
            msg = f"'{directory.provenance}' names a file outside the run directory: {name}"
            raise RunDirectoryError(msg)
        if not path.is_file() or sha256_of(path) != expected:
            what = "was altered" if path.is_file() else "is missing"
            msg = f"'{path}' {what} since {advice}"
            raise RunDirectoryError(msg)


def _seal(records: Mapping[str, Any]) -> str:
    rest = {k: v for k, v in records.items() if k != "seal"}
    return hashlib.sha256(json.dumps(_as_read(rest), sort_keys=True).encode()).hexdigest()


def _as_read(records: Mapping[str, Any]) -> Any:
    """Return the records as JSON gives them back: keys that are numbers become words."""
    return json.loads(json.dumps(records))


def _is_record(stage: Any) -> bool:
    needed: dict[str, type] = {"fingerprint": str}
    if not isinstance(stage, dict) or stage.get("status") not in ("started", "done"):
        return False
    if stage["status"] == "done":
        needed |= {"facts": dict, "artefacts": dict}
    return all(isinstance(stage.get(k), t) for k, t in needed.items())
