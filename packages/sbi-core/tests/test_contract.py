"""Plugins built against another version of the core, and one that is broken."""

import re
import subprocess
import sys

import pytest

from sbi_core import __version__, run
from sbi_core.registry import Registry

SOURCE = """
    from sbi_core import hookimpl

    @hookimpl
    def register_simulators(register):
        register("old", lambda: "made by the older plugin", summary="s")
"""


@pytest.mark.parametrize(
    ("range_", "warned"),
    [(">=0.1", False), (">=7,<8", True), ("<0.1", True), ("", False), ("==", False)],
)
def test_a_plugin_for_other_versions_of_the_core_says_so(range_, warned, install):
    folder = install("sbi-old", {"old": "old_plugin"}, old_plugin=SOURCE)
    with (folder / "sbi_old-0.1.dist-info" / "METADATA").open("a") as file:
        file.write(f"Requires-Dist: numpy\nRequires-Dist: sbi-core{range_}\n")
    found = Registry().plugin("old")
    assert found.status == "loaded"
    assert bool(found.warnings) == warned
    if warned:
        text = found.warnings[0]
        assert re.match(rf"it needs sbi-core[<>=0-9.,]+, this is sbi-core {__version__}: ", text)


def test_a_broken_plugin_leaves_the_others_working(install, toy_installed, tmp_path):
    """Installed beside a good one: the good one runs, the list names the broken one."""
    install("sbi-broken", {"broken": "broken_plugin"}, broken_plugin="raise RuntimeError('oops')")
    call = [sys.executable, "-c", "from sbi_core.cli import main; main()"]
    listed = subprocess.run([*call, "plugins"], capture_output=True, text=True, check=False)
    assert listed.returncode == 0
    assert "broken  (sbi-broken 0.1)  [failed]" in listed.stdout
    assert "problem: RuntimeError: oops" in listed.stdout
    assert "toy  (sbi-toy 0.1)" in listed.stdout
    good = run("toy", preset="quick", out=tmp_path / "run")
    assert good.report["plugin"] == "toy"
