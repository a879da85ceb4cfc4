"""Options against models: one sentence per mistake, with near matches."""

from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from sbi_core.errors import ConfigError, SbiError, near_matches
from sbi_core.validation import checked_device, validate


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: float = Field(1.0, gt=0)


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int
    inner: Inner = Inner()
    names: list[str] = []
    kind: Literal["a", "b"] = "a"
    ends: Literal["full"] | tuple[float, float] = "full"

    @field_validator("size")
    @classmethod
    def even(cls, value):
        if value % 2:
            raise ValueError("must be even")
        return value


def test_good_options_make_the_model():
    made = validate(Options, {"size": 2, "inner": {"width": 3}}, "part")
    assert made == Options(size=2, inner=Inner(width=3.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "option 'part.size' is missing"),
        ({"size": 3}, "option 'part.size' = 3: must be even"),
        ({"size": "big"}, "option 'part.size' = 'big': expects a whole number"),
        ({"size": 2, "sise": 1}, "unknown option 'part.sise'; did you mean 'size'?"),
        ({"size": 2, "inner": {"widht": 1}}, "unknown option 'part.inner.widht'; did you mean"),
        (
            {"size": 2, "inner": {"width": 0}},
            "option 'part.inner.width' = 0: must be greater than 0",
        ),
        ({"size": 2, "inner": 5}, "option 'part.inner' = 5"),
        ({"size": 2, "names": ["a", 5]}, "option 'part.names.1' = 5: expects text; quote it"),
        ({"size": 2, "names": "a"}, "option 'part.names' = 'a': expects a list"),
        ({"size": 2, "kind": "c"}, "option 'part.kind' = 'c': expects 'a' or 'b'"),
        ({"size": 2, "Size": 2}, "unknown option 'part.Size'; did you mean 'size'?"),
        (
            {"size": 2, "ends": "all"},
            "option 'part.ends' = 'all': expects 'full', or expects a list, for example [1, 2]",
        ),
        (
            {"size": 2, "ends": [1, "x"]},
            "option 'part.ends' = [1, 'x']: expects 'full'; option 'part.ends.1' = 'x': expects a",
        ),
    ],
)
def test_a_mistake_names_key_value_and_reason(options, message):
    with pytest.raises(ConfigError) as raised:
        validate(Options, options, "part")
    assert str(raised.value).startswith(message)


def test_every_mistake_is_named_at_once():
    with pytest.raises(ConfigError) as raised:
        validate(Options, {"size": 3, "other": 1}, "part")
    assert str(raised.value).count(";") == 1


def test_without_a_part_the_key_stands_alone():
    with pytest.raises(ConfigError, match="^option 'size' is missing"):
        validate(Options, {}, "")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gausian", "; did you mean 'gaussian'?"),
        ("maff", "; did you mean 'maf'?"),
        ("MAF", "; did you mean 'maf'?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_near_matches_are_near(name, text):
    assert near_matches(name, ["gaussian", "maf", "published"]) == text


def test_errors_of_the_user_are_exit_code_2():
    def below(kind):
        return [kind, *(k for sub in kind.__subclasses__() for k in below(sub))]

    assert len(below(SbiError)) > 8
    assert {kind.exit_code for kind in below(SbiError)} == {2}


def test_a_device_that_is_not_there_is_said(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert checked_device("cpu").type == "cpu"
    with pytest.raises(ConfigError, match="'cuda' cannot be used: torch finds no CUDA device"):
        checked_device("cuda")
    with pytest.raises(ConfigError, match="unknown device 'gpu'"):
        checked_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match=r"only 1 CUDA device"):
        checked_device("cuda:1")
