"""Options checked against pydantic models, with one sentence per mistake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sbi_core.errors import ConfigError, counted, near_matches

if TYPE_CHECKING:
    import torch

__all__ = ["Options", "checked_device", "validate"]

Model = TypeVar("Model", bound=BaseModel)


class Options(BaseModel):
    """Options of a component: unknown names are errors, and none changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def validate(model: type[Model], options: Mapping[str, Any], where: str) -> Model:
    """Return ``model(**options)``.

    Parameters
    ----------
    model
        A pydantic model; models that forbid extra keys get near-match suggestions.
    where
        Name of this part of the configuration, e.g. ``"simulator"``.

    Raises
    ------
    ConfigError
        One sentence per mistake: key, problem, known options.
    """
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        raise ConfigError(_explained(error, model, options, where)) from None


def checked_device(device: str | torch.device) -> torch.device:
    """Return a torch device that exists.

    Raises
    ------
    ConfigError
        If the name is not valid, or torch finds no such device on this machine.
    """
    import torch

    try:
        chosen = torch.device(device)
    except RuntimeError:
        msg = f"unknown device '{device}': use 'cpu', 'cuda' or 'cuda:1'"
        raise ConfigError(msg) from None
    if chosen.type == "cuda":
        n = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if n == 0:
            msg = f"device '{device}' cannot be used: torch finds no CUDA device: use 'cpu'"
            raise ConfigError(msg)
        if (chosen.index or 0) >= n:
            msg = f"device '{device}' cannot be used: torch finds only {counted(n, 'CUDA device')}"
            raise ConfigError(msg)
    return chosen


def _explained(
    error: ValidationError, model: type[BaseModel], options: Mapping[str, Any], where: str
) -> str:
    """Return one sentence per option that is wrong."""
    sentences: dict[str, str] = {}
    for item in error.errors():
        loc = _in_options(item["loc"], options)
        key = ".".join([where, *map(str, loc)]).strip(".")
        if item["type"] == "extra_forbidden":
            known = _fields_at(model, loc[:-1])
            near = near_matches(str(loc[-1]), known)
            listed = ", ".join(known) or "no options"
            sentences[key] = f"unknown option '{key}'{near} (known: {listed})"
        elif item["type"] == "missing":
            sentences[key] = f"option '{key}' is missing"
        elif key in sentences:  # a value may have one of several types, and has none of them
            sentences[key] += f", or {_expected(item)}"
        else:
            sentences[key] = f"option '{key}' = {item['input']!r}: {_expected(item)}"
            if item["type"] == "string_type" and isinstance(item["input"], (int, float)):
                sentences[key] += f"; quote it: --set '{key}=\"...\"'"
    return "; ".join(sentences.values())


def _in_options(loc: tuple[int | str, ...], options: Mapping[str, Any]) -> tuple[int | str, ...]:
    """Return a place without the words by which pydantic names the alternatives of a type."""
    steps: list[int | str] = []
    value: Any = options
    for step in loc:
        if isinstance(value, Mapping) and (step in value or not steps):
            steps.append(step)
            value = value.get(step)
        elif isinstance(value, (list, tuple)) and isinstance(step, int):
            steps.append(step)
            value = value[step] if step < len(value) else None
        elif isinstance(value, Mapping) and step == loc[-1]:  # a key that is missing
            steps.append(step)
    return tuple(steps)


_WORDS = {
    "int": "expects a whole number",
    "float": "expects a number",
    "finite_number": "expects a finite number",
    "bool": "expects true or false",
    "string_type": "expects text",
    "list_type": "expects a list, for example [1, 2]",
    "tuple_type": "expects a list, for example [1, 2]",
    "dict_type": "expects a table of options",
    "model_type": "expects a table of options",
    "model_attributes_type": "expects a table of options",
    "literal_error": "expects {expected}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "string_too_short": "must not be empty",
}


def _expected(item: Mapping[str, Any]) -> str:
    """Return in plain words what an option expects."""
    kind = str(item["type"])
    words = _WORDS.get(kind) or _WORDS.get(kind.partition("_")[0])
    if words is None:
        return str(item["msg"]).removeprefix("Value error, ")
    return words.format(**item.get("ctx", {}))


def _fields_at(model: type[BaseModel], loc: tuple[int | str, ...]) -> list[str]:
    for step in loc:
        field = model.model_fields.get(str(step))
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
