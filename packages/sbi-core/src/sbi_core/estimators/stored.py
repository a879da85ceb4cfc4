"""``config.json`` of an estimator: options, prior, versions and record of the training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from sbi_core.components import TrainingRecord
from sbi_core.data.writing import write_atomic
from sbi_core.errors import DataFileError
from sbi_core.files.provenance import versions
from sbi_core.files.tensors import read_json
from sbi_core.hookspecs import HOOK_API
from sbi_core.priors.space import ParameterSpace

__all__ = ["read_spec", "record_of", "restoring", "write_spec"]

_SCHEMA = 1


def write_spec(
    directory: Path,
    name: str,
    config: BaseModel,
    space: ParameterSpace,
    record: TrainingRecord | None,
    **more: Any,
) -> None:
    """Write ``config.json``, with ``more`` entries that are JSON-serialisable."""
    content = {
        "schema": _SCHEMA,
        "estimator": name,
        "options": config.model_dump(mode="json"),
        "HOOK_API": HOOK_API,
        "versions": versions(),
        "space": space.to_spec(),
        "space_hash": space.hash,
        **more,
        "training": None if record is None else asdict(record),
    }
    write_atomic(directory / "config.json", json.dumps(content, indent=1).encode())


def read_spec(directory: Path, name: str) -> dict[str, Any]:
    """Read ``config.json`` of the estimator with that registry name.

    Raises
    ------
    DataFileError
        If it is missing, damaged, or describes another estimator.
    """
    path = directory / "config.json"
    spec = read_json(path)
    if spec.get("estimator") != name or spec.get("schema") != _SCHEMA:
        got = f"'{spec.get('estimator')}' (schema {spec.get('schema')})"
        msg = f"{path} describes an estimator {got}, expected '{name}' (schema {_SCHEMA})"
        raise DataFileError(msg)
    return spec


@contextmanager
def restoring(directory: Path) -> Iterator[None]:
    """Turn missing or wrong entries of ``config.json`` into one sentence.

    Raises
    ------
    DataFileError
        If an entry is missing or has the wrong type.
    """
    try:
        yield
    except (KeyError, TypeError, ValidationError) as error:
        path = directory / "config.json"
        msg = f"{path} is incomplete or was altered ({type(error).__name__}: {error})"
        raise DataFileError(msg) from None


def record_of(spec: Mapping[str, Any]) -> TrainingRecord | None:
    """Return the record of the training that :func:`write_spec` stored."""
    stored = spec["training"]
    if stored is None:
        return None
    return TrainingRecord(**{**stored, "history": tuple(stored["history"])})
