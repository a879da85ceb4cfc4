"""Estimators that estimators are made of, by name: built in, or from an installed plugin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sbi_core.components import Estimator
from sbi_core.validation import validate

__all__ = ["build_estimator"]


def build_estimator(name: str, options: Mapping[str, Any], where: str) -> Estimator:
    """Return an untrained estimator.

    Parameters
    ----------
    name
        Its registry name.
    options
        Its options.
    where
        How to name them in errors.

    Raises
    ------
    ComponentNotFoundError
        If nobody knows it.
    ConfigError
        If an option is wrong.
    """
    from sbi_core.estimators import BUILTIN

    if name in BUILTIN:
        made: Estimator = BUILTIN[name](validate(BUILTIN[name].config_type, options, where))
        return made
    from sbi_core.registry import Registry

    found: Estimator = Registry().build("estimator", name, options)
    return found
