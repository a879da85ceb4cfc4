"""Density estimators, and how to load one from a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sbi_core.components import Estimator
from sbi_core.errors import ComponentNotFoundError, DataFileError, near_matches
from sbi_core.estimators.categorical import CategoricalEstimator
from sbi_core.estimators.ensemble import EnsembleEstimator
from sbi_core.estimators.maf import MafEstimator
from sbi_core.estimators.mixed import MixedEstimator
from sbi_core.estimators.mixture import MixtureEstimator
from sbi_core.estimators.nsf import NsfEstimator
from sbi_core.estimators.ordinal import OrdinalEstimator
from sbi_core.estimators.sbi_fmpe import SbiFmpeEstimator
from sbi_core.estimators.sbi_maf import SbiMafEstimator
from sbi_core.estimators.sbi_npse import SbiNpseEstimator
from sbi_core.estimators.sbi_nsf import SbiNsfEstimator
from sbi_core.files.tensors import read_json

__all__ = ["BUILTIN", "load_estimator"]

BUILTIN: Mapping[str, type[Any]] = {
    c.name: c
    for c in (
        MafEstimator,
        MixtureEstimator,
        NsfEstimator,
        OrdinalEstimator,
        CategoricalEstimator,
        MixedEstimator,
        EnsembleEstimator,
        SbiMafEstimator,
        SbiNsfEstimator,
        SbiNpseEstimator,
        SbiFmpeEstimator,
    )
}


def load_estimator(
    directory: str | Path,
    classes: Mapping[str, type[Any]] | None = None,
    *,
    embeddings: Mapping[str, Any] | None = None,
) -> Estimator:
    """Load the estimator of a folder, whichever it is; executes nothing that is stored there.

    Parameters
    ----------
    directory
        Folder with ``config.json`` and ``weights.safetensors``.
    classes
        Estimators that are not built in, by name.
    embeddings
        Makers of embeddings that are not built in, by name; each gets the options.

    Raises
    ------
    ComponentNotFoundError
        If nobody knows the estimator named there.
    DataFileError
        If a file is missing or damaged.
    """
    name = read_json(Path(directory) / "config.json").get("estimator")
    if not isinstance(name, str):
        msg = f"{Path(directory) / 'config.json'} names no estimator"
        raise DataFileError(msg)
    known = {**BUILTIN, **(classes or {})}
    if name not in known:
        msg = f"no estimator '{name}'{near_matches(name, known)}: is its plugin installed?"
        raise ComponentNotFoundError(msg)
    rest = {} if embeddings is None else {"embeddings": embeddings}
    estimator: Estimator = known[name].load(directory, **rest)
    return estimator
