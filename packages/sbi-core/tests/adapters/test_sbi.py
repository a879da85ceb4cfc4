import os
import subprocess
import sys
from pathlib import Path

import pytest

import sbi_core
from sbi_core.adapters.sbi import build_head
from sbi_core.errors import ConfigError


def test_a_missing_package_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "sbi", None)
    monkeypatch.setitem(sys.modules, "sbi.neural_nets", None)
    with pytest.raises(ConfigError, match="'sbi-maf' needs the package sbi, which cannot be imp"):
        build_head("sbi-maf", 3, 2, {"hidden": 8, "transforms": 4})


def test_the_core_does_not_import_sbi_and_using_it_leaves_no_folder(tmp_path):
    code = (
        "import sys, sbi_core.estimators.sbi, sbi_core.adapters.sbi as a\n"
        "assert not any(m == 'sbi' or m.startswith(('sbi.', 'nflows')) for m in sys.modules)\n"
        "a.build_head('sbi-maf', 3, 2, {'hidden': 8, 'transforms': 4})\n"
    )
    path = os.pathsep.join([str(Path(sbi_core.__file__).parents[1]), *sys.path])
    env = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []
