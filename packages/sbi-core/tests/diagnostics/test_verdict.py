import pytest

from sbi_core.diagnostics import (
    Verdict,
    combine_verdicts,
    judge_coverage,
    judge_importance,
    judge_pit,
    judge_ppc,
    judge_prior_conflict,
    judge_sbc,
    judge_skill,
    judge_tarp,
    judge_z_rms,
)


def test_sbc_limit_is_shared_among_the_quantities():
    assert judge_sbc("alpha", 0.004, tests=3).level == "pass"
    assert judge_sbc("alpha", 0.004).level == "fail"
    assert judge_tarp(0.2).level == "pass"
    assert judge_tarp(1e-5).level == "fail"


@pytest.mark.parametrize(
    ("coverage", "level", "word"),
    [
        (0.70, "pass", "consistent with nominal"),
        (0.60, "fail", "too narrow"),
        (0.76, "fail", "too wide"),
    ],
)
def test_coverage_is_judged_in_binomial_sigmas(coverage, level, word):
    got = judge_coverage("alpha", coverage, 0.68, objects=1000)  # sigma = 0.0148
    assert got.level == level
    assert word in got.sentence
    assert "68 % intervals of alpha" in got.sentence


def test_the_same_deviation_of_few_objects_passes():
    assert judge_coverage("alpha", 0.60, 0.68, objects=100).level == "pass"


@pytest.mark.parametrize(
    ("z_rms", "level"),
    [(1.0, "pass"), (0.8, "pass"), (1.3, "pass"), (1.45, "warn"), (0.7, "warn")]
    + [(1.8, "fail"), (0.5, "fail"), (32.4, "fail")],
)
def test_gates_of_the_combined_z_rms(z_rms, level):
    assert judge_z_rms("alpha", z_rms, repeats=10_000).level == level


def test_few_repeats_widen_the_gate():
    assert judge_z_rms("alpha", 1.45, repeats=8).level == "pass"  # error 25 %
    assert judge_z_rms("alpha", 1.45, repeats=8, pooled=50).level == "warn"  # error 4 %


def test_words_say_which_way_errors_are_wrong():
    assert "too small" in judge_z_rms("alpha", 2.0, repeats=300).sentence
    assert "too large" in judge_z_rms("alpha", 0.4, repeats=300).sentence


def test_the_overall_verdict_is_the_worst_and_says_why():
    good, doubt, bad = Verdict("pass", "A."), Verdict("warn", "B."), Verdict("fail", "C.")
    assert combine_verdicts([good, good]).level == "pass"
    assert combine_verdicts([good, doubt]) == Verdict(
        "warn", "1 of 2 calibration checks did not pass: B."
    )
    overall = combine_verdicts([doubt, good, bad])
    assert overall.level == "fail"
    assert overall.sentence.endswith("C. B.")
    assert not overall.ok
    assert doubt.ok


def test_nothing_judged_is_no_pass():
    assert combine_verdicts([]).level == "warn"


def test_a_number_that_is_not_one_fails():
    nan = float("nan")
    assert judge_sbc("alpha", nan).level == "fail"
    assert judge_coverage("alpha", nan, 0.68, objects=10).level == "fail"
    assert judge_z_rms("alpha", nan, repeats=10).level == "fail"


def test_gates_of_the_further_diagnostics():
    assert [judge_skill("n", v).level for v in (0.4, -0.01, -1.0)] == ["pass", "warn", "fail"]
    assert [judge_importance("q", v).level for v in (0.5, 0.05, 1e-3)] == ["pass", "warn", "fail"]
    assert judge_importance("q", 0.5, 0.9).level == "warn"
    assert [judge_pit("n", v).level for v in (0.2, 1e-4)] == ["pass", "fail"]


@pytest.mark.parametrize("judge", [judge_ppc, judge_prior_conflict])
def test_gates_per_object_share_the_false_alarms_and_never_fail(judge):
    nan = float("nan")
    assert judge([0.004, 0.5, 0.6]).level == "pass"
    assert judge([1e-9, 0.5, nan]).level == "warn"
    assert judge([nan]).level == "warn"


def test_numbers_that_are_none_never_pass():
    nan = float("nan")
    verdicts = [judge_skill("n", nan), judge_importance("q", nan)]
    assert all(v.level == "fail" for v in verdicts)
