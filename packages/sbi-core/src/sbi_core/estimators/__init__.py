"""Density estimators, and how to load one from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from sbi_core.components import Estimator
from sbi_core.errors import ConfigError, DataFileError
from sbi_core.files.tensors import read_json
from sbi_core.registry import Registry

__all__ = ["load_estimator"]


def load_estimator(directory: str | Path, registry: Registry | None = None) -> Estimator:
    """Load the trained estimator of a folder onto the CPU; executes nothing that is stored there.

    Raises
    ------
    ComponentNotFoundError
        If no installed plugin has the estimator or the embedding named there.
    DataFileError
        If a file is missing or damaged.
    """
    path = Path(directory) / "config.json"
    spec = read_json(path)
    name = spec.get("estimator")
    if not isinstance(name, str):
        msg = f"{path} names no estimator"
        raise DataFileError(msg)
    registry = registry or Registry([])
    component = registry.find("estimator", name)
    try:
        untrained = component.build(spec.get("options"))
    except (ConfigError, TypeError) as error:
        msg = f"{path} is incomplete or was altered ({error})"
        raise DataFileError(msg) from None
    return cast("Estimator", type(untrained).load(directory, registry=registry))
