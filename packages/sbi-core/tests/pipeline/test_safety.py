"""A run directory of unknown origin: links, missing records, files of others, altered results."""

import json
import os
import shutil

import numpy as np
import pytest

from sbi_core import Batch, Observations
from sbi_core.data import writing
from sbi_core.errors import RunDirectoryError
from sbi_core.files.directory import RunDirectory
from sbi_core.pipeline.runner import Run


@pytest.fixture
def victim(tmp_path):
    folder = tmp_path / "victim"
    (folder / "sub").mkdir(parents=True)
    (folder / "thesis.txt").write_text("precious")
    (folder / "sub" / "part-000000.h5").write_text("precious")
    return folder


def state(folder):
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


PLANTED = ["log.txt", "sims", "estimator", "groups", "combiner", "summary.ecsv", "posterior.nc",
           "combined.npz", "diagnostics.npz", "metrics.jsonl", "report.html", "run.toml", ".lock",
           "estimator/link", "combiner/link", "export", ".infer.chunks"]  # fmt: skip


@pytest.mark.parametrize("restart", [None, "simulate"])
@pytest.mark.parametrize("name", PLANTED)
def test_nothing_is_written_or_deleted_through_a_planted_link(
    name, restart, finished, toy_run, victim
):
    path = finished.directory.root / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    target = victim if "." not in name else victim / "thesis.txt"
    path.symlink_to(target)
    before = state(victim)
    with pytest.raises(RunDirectoryError, match="link|outside the run"):
        toy_run(restart=restart)
    assert state(victim) == before


def test_a_run_on_another_disk_is_reached_by_a_link_to_all_of_it(finished, toy_run, tmp_path):
    root, scratch = finished.directory.root, tmp_path / "scratch"
    scratch.mkdir()
    shutil.move(root / "sims", scratch / "sims")
    (root / "sims").symlink_to(scratch / "sims")
    with pytest.raises(RunDirectoryError, match=r"sims' is a link .* move the whole run there \("):
        toy_run()
    (root / "sims").unlink()
    shutil.move(scratch / "sims", root / "sims")
    shutil.move(root, scratch / "run")
    root.symlink_to(scratch / "run")
    shards = state(scratch / "run" / "sims")
    toy_run(restart="train")
    assert state(scratch / "run" / "sims") == shards
    assert root.is_symlink()


def test_a_run_toml_of_megabytes_is_not_parsed(finished):
    with finished.directory.config.open("a") as f:
        f.write("# a comment\n" * 100_000)
    with pytest.raises(RunDirectoryError, match=r"at most 1\.0 MiB are read \(SBI_LIMITS=toml"):
        Run(finished.directory.root, finished._registry)


def test_restart_checks_everything_before_it_removes_anything(finished, toy_run):
    root = finished.directory.root
    (root / "groups").mkdir(exist_ok=True)
    (root / "groups" / "thesis.txt").write_text("precious")
    before = state(root)
    with pytest.raises(RunDirectoryError, match="thesis.txt': this run did not make it; move it"):
        toy_run(restart="train")
    after = state(root)
    after.pop(str(root / ".lock")), before.pop(str(root / ".lock"))
    assert after == before
    (root / "groups" / "thesis.txt").unlink()
    (root / "notes.txt").write_text("mine")
    toy_run(restart="train")
    assert (root / "notes.txt").read_text() == "mine"


def test_a_run_without_records_is_refused_with_the_way_out(finished, toy_run, toy, rng):
    root = finished.directory.root
    (root / "provenance.json").unlink()
    objects = toy.example_observations(rng, 3)
    message = "provenance.json' is missing: .* --restart train"
    for use in (
        lambda: finished.infer(objects, 10),
        lambda: finished.verify(),
        lambda: finished.report,
        lambda: finished.combine(objects),
        lambda: finished.write_report(),
        lambda: toy_run(),
        lambda: toy_run(stages=["report"]),
    ):
        with pytest.raises(RunDirectoryError, match=message):
            use()
    shards = state(root / "sims")
    toy_run(restart="train")
    assert state(root / "sims") == shards
    assert finished.infer(objects, 10).values.shape[1] == 3


def test_weights_altered_after_the_run_was_opened_are_noticed(finished, toy, rng):
    objects = toy.example_observations(rng, 3)
    _ = finished.simulator
    path = next(finished.directory.estimator.rglob("*.*"))
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(RunDirectoryError, match="was altered .* --restart train"):
        finished.infer(objects, 10)


def test_a_report_without_a_record_is_not_believed(finished):
    records = json.loads(finished.directory.provenance.read_text())
    assert finished.report["status"]
    finished.directory.report_json.write_text("{}")
    with pytest.raises(RunDirectoryError, match="report.json' was altered"):
        _ = finished.report
    assert "report.json" in records["stages"]["report"]["artefacts"]


def test_what_a_record_names_was_flushed_before(toy_run, tmp_path, monkeypatch):
    """The order of a power cut: every artefact and its folder, then the record."""
    synced, fsync, replace = {}, os.fsync, os.replace
    problems = []

    def syncing(opened):
        fsync(opened)
        info = os.fstat(opened)
        synced[info.st_ino] = info.st_mtime_ns

    def replacing(old, new):
        replace(old, new)
        if os.path.basename(new) == "provenance.json":
            run = RunDirectory(tmp_path / "run")
            stages = json.loads(run.provenance.read_text())["stages"]
            for record in stages.values():
                for name in record.get("artefacts", ()):
                    for path in (run.root / name, (run.root / name).parent):
                        if path.stat().st_ino not in synced:
                            problems.append(str(path))

    monkeypatch.setattr(writing.os, "fsync", syncing)
    monkeypatch.setattr(writing.os, "replace", replacing)
    toy_run()
    assert problems == []
    assert synced


def test_objects_without_a_mask_are_combined(finished, toy, rng):
    objects = toy.example_observations(rng, 24)
    batch = objects.batch.numpy()
    bare = Batch.of_arrays(x=np.nan_to_num(batch["x"]), x_err=batch["x_err"])
    plain = Observations.from_batch(bare, observables=objects.observables)
    assert finished.combine(plain).n == 24
    assert isinstance(Run(finished.directory.root, finished._registry), Run)
