"""report.json follows its schema: keys are API."""

import copy

import pytest

from sbi_core.errors import ConfigError
from sbi_core.files.schema import REPORT_SCHEMA, check_report


def test_the_report_of_a_run_follows_the_schema(finished):
    report = finished.report
    assert report["schema"] == REPORT_SCHEMA
    check_report(report)
    for key in (
        "plugin", "preset", "seed", "status", "versions", "timing", "simulation", "training",
        "calibration", "accuracy", "observations", "combined", "flags",
    ):  # fmt: skip
        assert key in report, key
    assert {"simulate_s", "train_s", "diagnose_s", "infer_s", "combine_s", "total_s"} <= set(
        report["timing"]
    )
    assert set(report["calibration"]["parameters"]["slope"]["coverage"]) == {
        "0.50", "0.68", "0.90", "0.95",
    }  # fmt: skip


def test_a_part_that_does_not_apply_is_absent_not_null(finished):
    assert "emulator" not in finished.report
    assert "combined_calibration" not in finished.report

    def nulls(value):
        if isinstance(value, dict):
            return any(nulls(v) for v in value.values())
        return any(map(nulls, value)) if isinstance(value, list) else value is None

    assert not nulls(finished.report)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(extra=1), "unknown option 'report.json.extra'"),
        (lambda r: r.pop("seed"), "'report.json.seed' is missing"),
        (lambda r: r["simulation"].update(m=1), "unknown option 'report.json.simulation.m'"),
        (lambda r: r.update(status="fine"), "report.json.status"),
        (lambda r: r["combined"][0].pop("n"), "report.json.combined.0.n' is missing"),
    ],
)
def test_a_report_that_strays_is_refused(change, message, finished):
    report = copy.deepcopy(finished.report)
    change(report)
    with pytest.raises(ConfigError, match=message):
        check_report(report)
