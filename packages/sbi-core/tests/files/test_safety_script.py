import importlib.util
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[4] / "benchmarks" / "reliability"


@pytest.fixture
def safety(monkeypatch):
    if not FOLDER.exists():
        pytest.skip("no benchmarks beside the package")
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("safety", FOLDER / "safety.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _interrupted(run, n):
    yield "first", True, False
    yield "second", False, True
    raise KeyboardInterrupt


def test_an_interrupted_script_has_printed_and_recorded_what_was_done(
    safety, monkeypatch, tmp_path, capsys
):
    monkeypatch.setitem(safety.PARTS, "kills", (_interrupted, 2))
    record = tmp_path / "out.json"
    record.write_text(json.dumps({"disks": {"tried": 8}}))
    monkeypatch.setattr(sys, "argv", ["safety.py", "--only", "kills", "--json", str(record)])
    with pytest.raises(KeyboardInterrupt):
        safety.main()
    got = json.loads(record.read_text())
    assert got["disks"] == {"tried": 8}
    row = got["kills"]
    assert (row["tried"], row["survived"], row["silent"], row["lost"]) == (2, 1, 1, ["second"])
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == [
        "first",
        "second",
    ]


def test_kills_yield_run_by_run(safety, monkeypatch):
    def rounds(plugin, kills, options):
        yield {"kills": ["simulate"], "different": [], "shards_lost": 0}
        raise KeyboardInterrupt

    monkeypatch.setattr(safety, "rounds", rounds)
    assert next(safety.kills(Path(), 4)) == ("chempy, simulate", True, False)


def test_cases_of_another_script_arrive_while_it_runs(safety, monkeypatch, tmp_path):
    lines = (
        "import json, pathlib, sys, time",
        "path = pathlib.Path(sys.argv[2])",
        "path.write_text(json.dumps([1]))",
        "print('one', flush=True)",
        "sys.stdin.readline()",
    )
    (tmp_path / "script.py").write_text("\n".join(lines))
    monkeypatch.setattr(safety, "HERE", tmp_path)
    assert next(safety.recorded("script.py")) == 1
