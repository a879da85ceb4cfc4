"""Stage ``diagnose``: tests that fail are made once more with other simulations."""

import pytest
import sbi_toy

from sbi_core.diagnostics import Verdict
from sbi_core.pipeline.stages import StageResult, diagnose
from sbi_core.report.view import _calibration_rows

STAGES = ["simulate", "train", "diagnose", "infer", "report"]
MANY = ("simulate.n=8000", "diagnose.objects=150", "combine.sizes=[1]")


@pytest.fixture
def narrow(monkeypatch):
    """Draws of the toy a third too narrow."""
    exact = sbi_toy.exact_moments

    def moments(batch):
        mean, cov = exact(batch)
        return mean, cov * (2 / 3) ** 2

    monkeypatch.setattr(sbi_toy, "exact_moments", moments)


def test_a_posterior_that_is_too_narrow_fails_twice(narrow, toy_run):
    report = toy_run(*MANY, stages=STAGES).report
    part = report["calibration"]
    assert (part["objects"], part["again"]["objects"], part["verdict"]) == (150, 600, "fail")
    failed = [c["sentence"] for c in report["checks"] if c["level"] == "fail"]
    assert len(failed) >= 4
    assert all("With the first 150 simulations, before 600 others: " in s for s in failed)
    assert not all(ok for row in _calibration_rows(report) for _, ok in row["coverage"])


def test_too_few_other_simulations_are_no_second_test(narrow, toy_run):
    part = toy_run("combine.sizes=[1]", "diagnose.objects=60", stages=STAGES).report["calibration"]
    assert part["verdict"] == "fail"  # 60 of 120 held out: 60 others are not enough
    assert "again" not in part


def test_a_test_that_failed_by_chance_passes(toy_run, monkeypatch):
    judge = diagnose.judge_coverage
    seen = []

    def unlucky(name, coverage, nominal, *, objects):
        seen.append(objects)
        if (name, nominal, objects) == ("offset", 0.68, 150):
            coverage = 0.5
        return judge(name, coverage, nominal, objects=objects)

    monkeypatch.setattr(diagnose, "judge_coverage", unlucky)
    run = toy_run(*MANY, stages=STAGES)
    assert set(seen) == {150, 600}
    assert run.report["calibration"]["verdict"] == "pass"
    (again,) = [c for c in run.report["checks"] if "With the first 150" in c["sentence"]]
    assert again["level"] == "pass"
    assert "offset contain 50.0 % of true values (-4.7 sigma)" in again["sentence"]
    page = run.directory.report_html.read_text(encoding="utf-8")
    assert "made again, by the same criteria, with 600 other simulations" in page
    assert "offset contain 50.0 %" in page


def test_only_what_failed_is_judged_again():
    """A test that passed first keeps its result, whatever the second one says."""
    good, bad = Verdict("pass", "good.", "coverage"), Verdict("fail", "bad.", "sbc")
    facts = {"calibration": {"objects": 3}}
    first, second = StageResult(facts, [good, bad]), StageResult(facts, [bad, good])
    merged = diagnose.merged(first, second)
    assert [v.level for v in merged.verdicts] == ["pass", "pass"]
    assert merged.verdicts[0] is good
