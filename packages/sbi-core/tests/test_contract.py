"""Plugins built against an older and a newer contract, and one that is broken."""

import re
import subprocess
import sys

import pytest

from sbi_core import __version__, hookspecs, registry, run
from sbi_core.errors import PluginError
from sbi_core.hookspecs import HOOK_API
from sbi_core.registry import Registry

OLDER = """
    from sbi_core import hookimpl

    HOOK_API = {api}

    @hookimpl
    def register_models(register):
        register("old", lambda: "made by the older plugin", summary="called models then")
"""
NEWER = """
    from sbi_core import hookimpl

    HOOK_API = {api}

    @hookimpl
    def register_simulators(register):
        register("new", lambda: "made by the newer plugin", summary="s", units="strict")

    @hookimpl
    def register_reports(register):
        register("page", lambda: None)
"""


@pytest.fixture
def future(monkeypatch):
    """This core as it may be one day: hooks were renamed, the contract has another number."""

    def be(api, oldest, renamed):
        monkeypatch.setattr(registry, "HOOK_API", api)
        monkeypatch.setattr(hookspecs, "OLDEST_HOOK_API", oldest)
        monkeypatch.setattr(hookspecs, "RENAMED", renamed)

    return be


def test_a_plugin_for_an_older_contract_works_with_a_warning(install, future):
    future(2, 1, {"register_models": "register_simulators"})
    install("sbi-old", {"old": "old_plugin"}, old_plugin=OLDER.format(api=1))
    registry = Registry()
    found = registry.plugin("old")
    assert found.status == "loaded"
    assert found.warnings == (
        "hook 'register_models' is now called 'register_simulators'; the old name goes away in "
        "the next minor release",
    )
    assert registry.build("simulator", "old") == "made by the older plugin"


def test_a_plugin_for_a_contract_that_is_gone_is_refused_with_the_command(install, future):
    future(3, 2, {})
    install("sbi-old", {"old": "old_plugin"}, old_plugin=OLDER.format(api=1))
    with pytest.raises(PluginError) as raised:
        Registry().plugin("old")
    assert "written for HOOK_API 1, this sbi-core supports 2 to 3" in str(raised.value)
    assert "pip install -U sbi-old" in str(raised.value)


def test_a_plugin_for_a_newer_contract_gives_what_this_core_understands(install):
    install("sbi-new", {"new": "new_plugin"}, new_plugin=NEWER.format(api=HOOK_API + 1))
    registry = Registry()
    found = registry.plugin("new")
    assert found.status == "loaded"
    text = " ".join(found.warnings)
    assert f"written for HOOK_API {HOOK_API + 1}, this sbi-core has {HOOK_API}" in text
    assert "pip install -U sbi-core" in text
    assert "hook 'register_reports' is not known" in text
    assert registry.build("simulator", "new") == "made by the newer plugin"


def test_a_keyword_of_a_newer_contract_is_an_error_where_none_is_stated(install):
    install("sbi-new", {"new": "new_plugin"}, new_plugin=NEWER.format(api=HOOK_API))
    with pytest.raises(PluginError, match=r"got \['units'\], which HOOK_API 1 does not know"):
        Registry().plugin("new")


def test_a_contract_that_is_no_number_is_refused(install):
    install("sbi-new", {"new": "new_plugin"}, new_plugin=NEWER.format(api="'two'"))
    with pytest.raises(PluginError, match="HOOK_API of the plugin is 'two'"):
        Registry().plugin("new")


@pytest.mark.parametrize(
    ("range_", "warned"),
    [(">=0.1", False), (">=7,<8", True), ("<0.1", True), ("", False), ("==", False)],
)
def test_a_plugin_for_other_versions_of_the_core_says_so(range_, warned, install):
    source = OLDER.format(api=1).replace("register_models", "register_simulators")
    folder = install("sbi-old", {"old": "old_plugin"}, old_plugin=source)
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
