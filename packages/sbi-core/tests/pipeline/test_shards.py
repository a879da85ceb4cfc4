"""Shards made apart, refused before they are made when they cannot fit."""

import json

import pytest

from sbi_core.cli.simulate import slurm_script
from sbi_core.errors import ConfigError, RunDirectoryError
from sbi_core.files.lock import locked
from sbi_core.pipeline.config import resolve
from sbi_core.pipeline.runner import Run, execute, simulate_shards
from sbi_core.simulate.rows import ShardedBatch


@pytest.fixture
def config(registry):
    return resolve(registry, "toy", preset="quick")


def test_shards_of_several_calls_make_one_run(config, registry, tmp_path, finished):
    out = tmp_path / "parts"
    for first, last in ((3, 5), (0, 2)):
        assert simulate_shards(config, out, registry, first, last) == 6
    assert len(list((out / "sims").iterdir())) == 6
    run = execute(config, out, registry)
    assert run.report["combined"] == finished.report["combined"]


def test_shards_that_do_not_exist_are_refused(config, registry, tmp_path):
    with pytest.raises(ConfigError, match="--shards 4-6: this run has shards 0 to 5"):
        simulate_shards(config, tmp_path / "run", registry, 4, 6)
    assert list(tmp_path.iterdir()) == []


def test_the_same_shards_are_not_made_twice_at_once(config, registry, tmp_path):
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run", "shards-0-1"):
        with pytest.raises(RunDirectoryError, match="in use"):
            simulate_shards(config, tmp_path / "run", registry, 0, 1)
        simulate_shards(config, tmp_path / "run", registry, 2, 2)
        with pytest.raises(RunDirectoryError, match="in use"):
            execute(config, tmp_path / "run", registry)


def test_the_array_covers_every_shard_once(config):
    for shards, tasks in ((6, 50), (7, 3), (1, 1), (100, 7)):
        script = slurm_script(config, ["--plugin", "to y"], shards, tasks)
        last_task = int(script.split("--array=0-")[1].split("\n")[0])
        each = int(script.split("SLURM_ARRAY_TASK_ID * ")[1].split(")")[0])
        covered = [
            k for t in range(last_task + 1) for k in range(t * each, min((t + 1) * each, shards))
        ]
        assert covered == list(range(shards))
        assert last_task < tasks
        assert "sbi-run simulate --plugin 'to y' --shards" in script


def test_a_packed_run_of_the_first_version_is_refused_with_the_way_out(finished, registry):
    context, sims = finished._context, finished.directory.sims
    paths = sorted(sims.glob("part-*.h5"))
    paths[0].rename(sims / "pack.h5")
    for read in (lambda: ShardedBatch(paths), lambda: context.simulations):
        with pytest.raises(RunDirectoryError, match=r"pack.h5' holds .* --restart simulate"):
            read()


@pytest.mark.parametrize(
    ("n", "rows", "message"),
    [
        (10**18, 10**13, "8000000000.* would take .* of memory|one shard of"),
        (10**13, 10**8, "10000000000000 simulations of .* bytes would take .* of disk"),
        (10**12, 200, "makes 5000000000 files, at most 1000000 are allowed"),
    ],
)
def test_simulations_that_cannot_fit_are_refused_with_numbers(n, rows, message, toy_run, tmp_path):
    with pytest.raises(ConfigError, match=message):
        toy_run(f"simulate.n={n}", f"simulate.shard_size={rows}")
    assert [p.name for p in tmp_path.rglob("*") if p.suffix == ".h5"] == []


# -- integrity ------------------------------------------------------------------------------


UNCOVERED = ("log.txt", ".lock")


def test_every_artefact_is_recorded_and_every_flipped_byte_is_found(finished, registry, rng):
    root = finished.directory.root
    files = [p for p in sorted(root.rglob("*")) if p.is_file() and p.name not in UNCOVERED]
    assert {p.suffix for p in files} >= {".h5", ".nc", ".ecsv", ".npz", ".json", ".toml", ".html"}
    for path in files:
        content = path.read_bytes()
        for change in ("flipped", "truncated", "gone"):
            if change == "flipped":
                flipped = bytearray(content)
                flipped[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
                path.write_bytes(flipped)
            elif change == "truncated":
                path.write_bytes(content[: len(content) // 2])
            else:
                path.unlink()
            if not (change == "gone" and path.name == "provenance.json"):  # then nothing is known
                with pytest.raises(RunDirectoryError, match=path.name.replace(".", r"\.")):
                    Run(root, registry).verify()
            path.write_bytes(content)
    Run(root, registry).verify()


def test_records_of_a_later_version_are_refused(finished, registry):
    path = finished.directory.provenance
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99}))
    with pytest.raises(
        RunDirectoryError, match="written by a later sbi-core .records of schema 99"
    ):
        Run(finished.directory.root, registry).verify()


def test_a_report_that_was_altered_is_not_believed(finished):
    path = finished.directory.report_json
    path.write_text(path.read_text().replace('"seed": 1', '"seed": 2'))
    with pytest.raises(RunDirectoryError, match=r"report.json' was altered"):
        _ = finished.report


def test_a_report_that_was_written_again_is_known(finished, registry):
    finished.write_report()
    Run(finished.directory.root, registry).verify()


def test_a_second_process_is_refused(finished, toy_run):
    with locked(finished.directory.root), pytest.raises(RunDirectoryError, match="is in use by"):
        toy_run()
