"""The pytest plugin: invisible to those who do not use it, one test per check for those who do."""

import subprocess
import sys
import textwrap

import pytest

PASSING = """
    import pytest
    import sbi_toy

    @pytest.mark.sbi_plugin("toy", sbi_toy, only="simulator")
    def test_conformance(sbi_check):
        sbi_check()
"""


@pytest.fixture
def session(tmp_path, toy_installed):
    """``session(source, *arguments)`` runs pytest on a file in an empty folder."""

    def run(source, *arguments, code=""):
        (tmp_path / "test_it.py").write_text(textwrap.dedent(source), encoding="utf-8")
        call = f"import sys, pytest; rc = pytest.main({['-q', '-rs', *arguments]!r}); {code}"
        return subprocess.run(
            [sys.executable, "-c", call + "; sys.exit(rc)" if not code else call],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
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


def test_it_shows_one_test_per_check(session):
    done = session(PASSING, "-v")
    assert done.returncode == 0, done.stdout
    assert "test_conformance[simulator-toy-same-seed-same-bits] PASSED" in done.stdout
    assert "does not apply: nothing is missing" in done.stdout
    assert "15 passed, 1 skipped" in done.stdout


def test_a_failure_is_one_sentence_with_the_check_the_values_and_the_fix(session):
    done = session(
        """
        import pytest
        import sbi_toy
        from sbi_core import hookimpl

        class Frozen(sbi_toy.ToySimulator):
            def observe(self, batch, rng):
                return super().observe(batch, 1)

        class Plugin:
            @hookimpl
            def register_simulators(self, register):
                register("frozen", Frozen, summary="a fault")

        @pytest.mark.sbi_plugin("frozen", Plugin())
        def test_conformance(sbi_check):
            sbi_check()
        """
    )
    assert done.returncode == 1, done.stdout
    assert "1 failed" in done.stdout
    assert "simulator 'frozen', check noise-is-drawn-anew: observe returns the same" in done.stdout
    assert "To fix it: draw the noise in observe from its argument rng" in done.stdout


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        ("", "the fixture sbi_check needs @pytest.mark.sbi_plugin('NAME')"),
        ("@pytest.mark.sbi_plugin('lotkaa')", "unknown plugin 'lotkaa'"),
        ("@pytest.mark.sbi_plugin('toy', only='simulators')", "did you mean 'simulator'"),
        ("@pytest.mark.sbi_plugin('toy', exact=['gausian'])", "no component 'gausian'"),
        ("@pytest.mark.sbi_plugin('toy', without=['*nothing*'])", "without names no check"),
        ("@pytest.mark.sbi_plugin('toy', exakt=['x'])", "exakt"),
    ],
)
def test_a_wrong_mark_is_a_usage_error(session, mark, message):
    done = session(f"import pytest\n\n{mark}\ndef test_it(sbi_check): sbi_check()\n")
    assert done.returncode in (2, 4), done.stdout
    assert message in done.stdout + done.stderr
