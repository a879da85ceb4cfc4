"""The model card that the report stage writes beside the estimator."""

import json

from sbi_core.report import model_card


def test_a_finished_run_has_a_card_that_says_what_and_how_far(finished):
    text = finished.directory.card.read_text()
    report = finished.report
    for word in (
        "# Model card: toy-exact for toy",
        "`toy` (version 1)",
        "`slope`, `offset`",
        "marginalises over: `size`",
        "1200 simulations",
        "prior version toy-1",
        finished.simulator.parameters.hash,
        "On 120 held-out simulations",
        "Toy & Toy 2025",
        "## Limits",
    ):
        assert word in text, word
    p = report["calibration"]["parameters"]["offset"]
    assert f"| offset | {p['sbc_p']:.2g} | {100 * p['coverage']['0.50']:.1f} %" in text
    assert f"* sbi-core {report['versions']['sbi-core']}" in text


def test_writing_it_leaves_the_estimator_valid_and_repeats(finished, toy_run):
    before = finished.directory.card.read_bytes()
    finished.write_report()
    assert finished.directory.card.read_bytes() == before
    record = json.loads(finished.directory.provenance.read_text())["stages"]
    assert "estimator/card.md" in record["report"]["artefacts"]
    assert "estimator/card.md" not in record["train"]["artefacts"]


def test_a_missing_card_is_written_with_the_report(finished, toy_run):
    finished.directory.card.unlink()
    run = toy_run(restart="report")
    assert run.directory.card.exists()


def test_an_unchecked_estimator_says_so():
    column = {"unit": "", "scope": "global", "prior": {}, "inferred": True}
    report = {
        "plugin": "toy",
        "seed": 1,
        "flags": ["objects_disagree"],
        "parameters": {"a": column},
    }
    text = model_card(report, {}, {"simulator": {"name": "toy", "version": "1"}})
    assert "**Not checked.**" in text
    assert "`objects_disagree`" in text
