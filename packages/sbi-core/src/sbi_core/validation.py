"""Options checked against pydantic models, with one sentence per mistake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from sbi_core.errors import ConfigError, near_matches

if TYPE_CHECKING:
    import torch

__all__ = ["checked_device", "explain", "validate"]

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], options: Mapping[str, Any], where: str) -> Model:
    """Return ``model(**options)``.

    Parameters
    ----------
    model
        A pydantic model; models that forbid extra keys get near-match suggestions.
    options
        What the user wrote.
    where
        How to name this part of the configuration, e.g. ``"simulator"``.

    Raises
    ------
    ConfigError
        One sentence per mistake: key, what is wrong, what is known.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        raise ConfigError(explain(error, model, where)) from None


def checked_device(device: str | torch.device) -> torch.device:
    """Return a torch device that is there.

    Raises
    ------
    ConfigError
        If torch does not know it, or does not find it on this machine.
    """
    import torch

    try:
        found = torch.device(device)
    except RuntimeError:
        msg = f"unknown device '{device}': use 'cpu', 'cuda' or 'cuda:1'"
        raise ConfigError(msg) from None
    if found.type == "cuda":
        n = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if n == 0:
            msg = f"device '{device}' was asked for, but torch finds no CUDA device: use 'cpu'"
            raise ConfigError(msg)
        if (found.index or 0) >= n:
            msg = f"device '{device}' was asked for, but torch finds only {n} CUDA device(s)"
            raise ConfigError(msg)
    return found


def explain(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """Return one sentence per mistake in a pydantic error."""
    sentences = []
    for item in error.errors():
        key = ".".join([where, *(str(k) for k in item["loc"])]).strip(".")
        if item["type"] == "extra_forbidden":
            known = _fields_at(model, item["loc"][:-1])
            near = near_matches(str(item["loc"][-1]), known)
            listed = ", ".join(known) or "no options"
            sentences.append(f"unknown option '{key}'{near} (known: {listed})")
        elif item["type"] == "missing":
            sentences.append(f"option '{key}' is missing")
        else:
            message = item["msg"].removeprefix("Value error, ")
            sentences.append(f"option '{key}' = {item['input']!r}: {message}")
    return "; ".join(sentences)


def _fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    for step in loc:
        field = model.model_fields.get(str(step))
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
