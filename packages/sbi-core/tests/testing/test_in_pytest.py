"""The classes in a session of pytest: one test per requirement; mistakes in their use are named."""

import subprocess
import sys
import textwrap

import pytest
import sbi_toy

from sbi_core.embeddings.mlp import MlpEmbedding
from sbi_core.errors import ConfigError, PluginError
from sbi_core.hookspecs import hookimpl
from sbi_core.testing import PluginChecks

TESTS = """
    import sbi_toy
    from sbi_core.testing import PluginChecks, SimulatorChecks

    class TestToy(PluginChecks):
        plugin, module, without = "toy", sbi_toy, ("[pec]*-*",)

    class Frozen(sbi_toy.ToySimulator):
        def observe(self, batch, rng):
            return super().observe(batch, 1)

    class TestFrozen(SimulatorChecks):
        made = 0

        def make(self):
            type(self).made += 1
            return Frozen()

        def test_it_was_made_once(self):
            assert self.subject and self.made == 1
"""


def test_it_shows_one_test_per_requirement(tmp_path, toy_installed):
    (tmp_path / "test_it.py").write_text(textwrap.dedent(TESTS), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-vv", "-rs", "test_it.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    for test, outcome in (
        ("TestToy::test_component[simulator-toy-same-seed-same-bits]", "PASSED"),
        ("TestToy::test_loads_without_warnings", "PASSED"),
        ("TestFrozen::test_noise_is_fresh_in_every_call", "FAILED"),
        ("TestFrozen::test_it_was_made_once", "PASSED"),
    ):
        (line,) = (ln for ln in done.stdout.splitlines() if f"{test} " in ln and "%]" in ln)
        assert outcome in line
    assert "observe returns the same noise twice; draw the noise in observe from" in done.stdout
    assert "nothing is missing" in done.stdout
    assert "1 failed, 53 passed, 7 skipped" in done.stdout


@pytest.mark.parametrize(
    ("attributes", "error", "message"),
    [
        ({"plugin": "lotkaa"}, PluginError, "unknown plugin 'lotkaa'"),
        ({"exact": ["tooy"]}, ConfigError, "no component of plugin 'toy' is called 'tooy'"),
        ({"options": {"x": {}}}, ConfigError, "is called 'x'"),
        ({"without": ["*zzz*"]}, ConfigError, r"names a test that plugin 'toy' lacks: '\*zzz\*'"),
    ],
)
def test_a_mistake_in_its_use_is_named(attributes, error, message):
    body = {"plugin": "toy", "module": sbi_toy, **attributes}
    if body["plugin"] != "toy":
        body["module"] = None
    with pytest.raises(error, match=message):
        type("Tests", (PluginChecks,), body).checks()


def test_tests_can_be_left_out():
    class Every(PluginChecks):
        plugin, module = "toy", sbi_toy

    class Some(Every):
        without = ("estimator-*",)

    kinds = [{name.partition("-")[0] for name in tests.checks()} for tests in (Every, Some)]
    assert kinds[0] - kinds[1] == {"estimator"}


def test_an_embedding_is_tested_on_the_data_of_the_plugin_s_own_simulator():
    class Plugin:
        @hookimpl
        def register_simulators(self, register):
            register("toy", sbi_toy.ToySimulator, summary="s")

        @hookimpl
        def register_embeddings(self, register):
            register("three", OnlyThree, summary="takes vectors of three numbers")

    class Tests(PluginChecks):
        plugin, module = "three", Plugin()

    outcomes = Tests.run()
    assert outcomes["embedding-three-width-is-out-features"] == "passed"


class OnlyThree(MlpEmbedding):
    name = "three"

    def build(self, shape):
        if shape.x != (3,):
            msg = "three numbers, please"
            raise ConfigError(msg)
        return super().build(shape)
