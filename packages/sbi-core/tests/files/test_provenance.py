"""Who made a run, with what."""

import json

from sbi_core.files.provenance import describe, versions
from sbi_core.hookspecs import HOOK_API


def test_versions_are_those_installed():
    import numpy as np

    found = versions(["no-such-package"])
    assert found["numpy"] == np.__version__
    assert "sbi-core" in found
    assert "python" in found
    assert "no-such-package" not in found


def test_a_run_knows_its_seed_plugins_and_hook_api(registry):
    found = describe(registry.plugins, seed=7)
    json.dumps(found)
    assert found["hook_api"] == HOOK_API
    assert found["seed"] == 7
    assert found["plugins"]["toy"] == "toy (in memory) 0"
    assert found["created"].endswith("+00:00")


def test_outside_a_repository_there_is_no_commit(registry, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert describe(registry.plugins, seed=1)["git_commit"] == ""


def test_without_git_there_is_no_commit(registry, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert describe(registry.plugins, seed=1)["git_commit"] == ""


def test_hashes_of_prior_and_simulator_are_recorded(finished):
    import sbi_toy

    records = json.loads(finished.directory.provenance.read_text())
    assert records["hashes"]["prior"] == sbi_toy.SPACE.hash
    assert records["prior"] == sbi_toy.SPACE.to_spec()
    assert records["simulator"] == {"name": "toy", "version": "1"}
    assert all(s["status"] == "done" for s in records["stages"].values())
