"""Whatever a configuration says, it is resolved or refused with one sentence."""

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sbi_core.errors import ConfigError, RunDirectoryError, SbiError
from sbi_core.pipeline.config import RunConfig, from_toml, resolve, to_toml
from sbi_core.pipeline.runner import Run

QUICK = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LETTERS = "ab.=[]{}\"'\\#, \n\té\u2028\x00"


def is_a_sentence(error):
    assert str(error).strip()
    assert "Traceback" not in str(error)


SECTIONS = st.sampled_from([*RunConfig.model_fields, "simulat", "", "a.b", "__class__", "train "])
KEYS = st.sampled_from(
    ["n", "name", "draws", "observations", "sizes", "epochs", "options", "model_config", "..", ""]
)
VALUES = st.recursive(
    st.one_of(
        st.integers(-(10**30), 10**30),
        st.floats(),
        st.booleans(),
        st.text(LETTERS, max_size=10),
        st.dates(),
        st.times(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.text(LETTERS, max_size=5), inner, max_size=3),
    ),
    max_leaves=6,
)


@QUICK
@given(tree=st.dictionaries(SECTIONS, st.one_of(VALUES, st.dictionaries(KEYS, VALUES)), max_size=3))
def test_files_of_any_content(tree, registry, tmp_path):
    path = tmp_path / "x.toml"
    try:
        path.write_text(tomli_w.dumps(tree), encoding="utf-8")
    except (TypeError, ValueError, UnicodeEncodeError):
        return
    try:
        config = resolve(registry, "toy", preset="quick", file=path)
    except SbiError as error:
        is_a_sentence(error)
        return
    assert to_toml(from_toml(to_toml(config))) == to_toml(config)


@QUICK
@given(text=st.text(LETTERS, max_size=200))
def test_texts_of_any_kind(text, registry, tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(text, encoding="utf-8", errors="replace", newline="")
    try:
        resolve(registry, "toy", preset="quick", file=path)
    except SbiError as error:
        is_a_sentence(error)


@QUICK
@given(
    key=st.one_of(SECTIONS, KEYS, st.text(LETTERS, max_size=10)),
    inner=KEYS,
    value=st.text(LETTERS, max_size=10),
)
def test_assignments_of_any_kind(key, inner, value, registry):
    for text in (f"{key}={value}", f"{key}.{inner}={value}"):
        try:
            resolve(registry, "toy", preset="quick", overrides=[text])
        except SbiError as error:
            is_a_sentence(error)


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 50_000,
        "x = " + "{a = " * 5_000 + "1" + "}" * 5_000,
        "seed = 1" + "0" * 5_000,
        "[simulate]\nn = nan",
        "[simulate]\nn = 1e400",
        "[simulate]\nn = 1979-05-27",
        "simulate = 3",
        "[[simulate]]\nn = 3",
    ],
)
def test_surprises_of_toml_are_refused(text, registry, tmp_path):
    path = tmp_path / "x.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        resolve(registry, "toy", preset="quick", file=path)
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    with pytest.raises(RunDirectoryError, match=r"run.toml' is damaged"):
        Run(tmp_path)
