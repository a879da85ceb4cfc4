"""The pytest plugin: invisible to those who do not use it, one test per check for those who do."""

import re
import subprocess
import sys
import textwrap

import pytest
import sbi_toy

from sbi_core.testing.pytest_plugin import pytest_generate_tests

TESTS = """
    import pytest
    import sbi_toy
    from sbi_core import hookimpl

    @pytest.mark.sbi_plugin("toy", sbi_toy, only="simulator")
    def test_toy(sbi_check):
        sbi_check()

    class Frozen(sbi_toy.ToySimulator):
        def observe(self, batch, rng):
            return super().observe(batch, 1)

    class Plugin:
        @hookimpl
        def register_simulators(self, register):
            register("frozen", Frozen, summary="a fault")

    @pytest.mark.sbi_plugin("frozen", Plugin(), only="simulator")
    def test_frozen(sbi_check):
        sbi_check()
"""


@pytest.fixture
def session(tmp_path, toy_installed):
    """``session(source, *arguments)`` runs pytest on a file in an empty folder."""

    def run(source, *arguments, code=""):
        (tmp_path / "test_it.py").write_text(textwrap.dedent(source), encoding="utf-8")
        call = f"import sys, pytest; rc = pytest.main({['-q', '-rs', *arguments]!r})\n{code}"
        return subprocess.run(
            [sys.executable, "-c", call], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    return run


def test_a_session_without_it_imports_nothing_heavy(session):
    """Neither torch nor numpy, nor the checks: only a file that declares a mark."""
    done = session(
        "def test_nothing(): pass",
        code="print(rc, [m for m in ('torch', 'numpy', 'sbi_core.testing.plugins') "
        "if m in sys.modules], 'sbi_core.testing.pytest_plugin' in sys.modules)",
    )
    assert done.stdout.strip().endswith("0 [] True"), done.stdout + done.stderr


def test_it_shows_one_test_per_check_and_a_failure_says_what_to_do(session):
    done = session(TESTS, "-vv", code="sys.exit(rc)")
    assert done.returncode == 1, done.stdout
    assert "test_toy[simulator-toy-same-seed-same-bits] PASSED" in done.stdout
    assert "does not apply: nothing is missing" in done.stdout
    assert "test_frozen[simulator-frozen-noise-is-drawn-anew] FAILED" in done.stdout
    assert "simulator 'frozen', check noise-is-drawn-anew: observe returns the same" in done.stdout
    assert "To fix it: draw the noise in observe from its argument rng" in done.stdout
    assert "1 failed, 29 passed, 2 skipped" in done.stdout


class Metafunc:
    """What pytest hands to the hook, as far as it is looked at."""

    def __init__(self, *marks):
        self.fixturenames, self.marks, self.parameters = ["sbi_check"], marks, []
        self.definition, self.nodeid = self, "test_it.py::test_it"

    def get_closest_marker(self, name):
        return next((m.mark for m in self.marks if m.mark.name == name), None)

    def parametrize(self, name, values, **_):
        self.parameters = list(values)


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ((), "the fixture sbi_check needs @pytest.mark.sbi_plugin('NAME')"),
        ((pytest.mark.sbi_plugin(),), "the fixture sbi_check needs"),
        ((pytest.mark.sbi_plugin("toyy", sbi_toy, only="plugins"),), "did you mean 'plugin'"),
        ((pytest.mark.sbi_plugin("lotkaa"),), "unknown plugin 'lotkaa'"),
        ((pytest.mark.sbi_plugin("toy", sbi_toy, exact=["tooy"]),), "no component 'tooy'"),
        ((pytest.mark.sbi_plugin("toy", sbi_toy, options={"x": {}}),), "no component 'x'"),
        ((pytest.mark.sbi_plugin("toy", sbi_toy, without=["*zzz*"]),), "names no check"),
        ((pytest.mark.sbi_plugin("toy", sbi_toy, exakt=["x"]),), "exakt"),
    ],
)
def test_a_wrong_mark_is_a_usage_error(mark, message):
    with pytest.raises(pytest.UsageError, match=re.escape(message)):
        pytest_generate_tests(Metafunc(*mark))


def test_checks_can_be_chosen():
    every = Metafunc(pytest.mark.sbi_plugin("toy", sbi_toy))
    some = Metafunc(pytest.mark.sbi_plugin("toy", sbi_toy, without=["estimator-*", "plugin-*"]))
    for metafunc in (every, some):
        pytest_generate_tests(metafunc)
    kinds = [{c.kind for c in m.parameters} for m in (every, some)]
    assert kinds[0] - kinds[1] == {"estimator", "plugin"}


def test_other_tests_are_left_alone():
    metafunc = Metafunc()
    metafunc.fixturenames = ["tmp_path"]
    pytest_generate_tests(metafunc)
    assert metafunc.parameters == []
