import dataclasses
import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest

from sbi_core.report import ReportInputs, html, plots, render, write_html
from sbi_core.report.content import linked
from sbi_core.report.figures import figures
from sbi_core.report.inputs import is_comparison

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or ""
VOID = {"meta", "link", "br", "img", "input", "hr"}
FIGURES = {  # the section a picture belongs to, and the fields it is made of
    "training": ["history"],
    "calibration": ["ranks", "draws", "tarp_levels", "tarp_ecp"],
    "recovery": ["truth_and_mean"],
}
SECTIONS = {  # part of report.json, or field of the inputs -> id of the section it alone makes
    "simulation": "simulator",
    "emulator": "emulator",
    "training": "training",
    "accuracy": "recovery",
    "combined_calibration": "combined",
    "flags": "flags",
    "parameters": "prior",
    "citations": "cite",
    "config_toml": "config",
}


class Page(HTMLParser):
    """Checks nesting; collects tags, ids, attributes."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.loads = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        if "id" in values:
            self.ids.append(values["id"])
        if tag != "a":
            self.loads += [
                v for k, v in attrs if k in ("src", "href", "xlink:href", "data", "srcset")
            ]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="session")
def page(inputs):
    return render(inputs)


@pytest.fixture
def words_only(monkeypatch):
    """Pages without figures, for tests of words (they are a hundred times faster)."""
    monkeypatch.setattr(html, "figures", lambda inputs: {})


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<svg.*?</svg>|<[^>]+>", "", page,
                                      flags=re.DOTALL))  # fmt: skip


# -------------------------------------------------------------------------------- the whole page


def test_a_complete_page_is_well_formed_and_has_every_section(page):
    parsed = Page(page)
    assert {
        *SECTIONS.values(),
        "run",
        "calibration",
        "observations",
        "posterior",
        "consistency",
    } <= {*parsed.ids}
    assert len(parsed.ids) == len(set(parsed.ids))
    links = re.findall(r'(?:href="#|url\(#)([^")]+)', page)
    assert set(links) <= set(parsed.ids)


def test_the_times_leave_out_what_was_not_done(inputs, words_only):
    timing = {"train_s": 20.0, "emulate_s": 0.009, "combine_s": 0.04, "total_s": 21.0}
    parts = {k: v for k, v in inputs.report.items() if k not in ("emulator", "combined")}
    for emulator in ({}, {"emulator": inputs.report["emulator"]}):
        report = {**parts, "timing": timing, **emulator}
        page = render(dataclasses.replace(inputs, report=report, verdicts=(), failures=()))
        assert ("train the emulator" in page) == bool(emulator)
        assert "train the estimator" in page
        assert "combine objects" not in page


def test_the_answer_comes_first_with_error_unit_and_number_of_objects(page):
    head = text_of(page.split('<h2 id="run"')[0])
    assert "αIMF and log10 NIa from 1000 objects" in head
    assert re.search(r"NIa = −\d\.\d{3} ± 0\.004 dex", head)
    assert "Calibration passed with warnings" in head


def test_the_page_loads_nothing_and_runs_nothing(page):
    parsed = Page(page)
    assert "script" not in parsed.tags
    assert all(value.startswith("#") for value in parsed.loads)
    assert not re.search(r"@import|url\((?!#)", page)
    assert "default-src 'none'" in page


def requests_of(page, folder):
    """Addresses on the network that a real browser asks for because a page wants them."""
    folder.mkdir()
    file, log = folder / "report.html", folder / "log.json"
    file.write_text(page, encoding="utf-8")
    done = subprocess.run(
        [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"),
            *(f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", file.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "</html>" in done.stdout
    events = [e.get("params", {}) for e in json.loads(log.read_text(encoding="utf-8"))["events"]]
    # what the browser wants for itself has no origin
    mine = [e for e in events if e.get("initiator", "not an origin") != "not an origin"]
    return {e["url"] for e in mine if str(e.get("url", "")).startswith("http")}


@pytest.mark.skipif(not BROWSER, reason="no chromium here")
def test_a_browser_requests_nothing_for_the_page(page, tmp_path):
    assert requests_of(page, tmp_path / "report") == set()
    other = "<!doctype html><html><img src='http://localhost:9/picture.png'></html>"
    assert requests_of(other, tmp_path / "other") == {"http://localhost:9/picture.png"}


def test_every_figure_has_its_caption_as_alternative_text(page):
    for figure in re.findall(r"<figure.*?</figure>", page, flags=re.DOTALL):
        caption = re.search(r"<figcaption>(.*?)</figcaption>", figure, flags=re.DOTALL)[1]
        label = re.search(r'<svg role="img" aria-label="([^"]*)"', figure)[1]
        assert unescape(label) == unescape(text_of(caption))


def test_whatever_scrolls_can_be_reached_by_the_keyboard(page):
    assert '<div class="scroll">' not in page
    assert page.count('class="scroll" role="region"') == page.count('class="scroll"') > 0
    assert page.count('class="wide" tabindex="0"') == page.count('class="wide"') > 0
    assert ":focus-visible" in page


def test_versions_are_folded_away(page):
    assert re.search(r"<summary>Versions of \d+ packages</summary>", page)


def test_the_same_inputs_give_the_same_bytes_whatever_the_user_has_set(inputs, page):
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": None, "axes.facecolor": "black"}):
        assert render(inputs) == page


def test_every_figure_has_a_caption_of_one_sentence(page):
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page, flags=re.DOTALL)
    assert len(captions) == page.count("<svg") == 8
    assert all(c.endswith(".") and c.count(". ") == 0 for c in captions)


def test_combiners_for_comparison_are_marked_and_never_the_answer(inputs, page):
    assert "is shown for comparison only" in page
    assert inputs.main_combiner == "recalibrated"
    assert is_comparison({"combiner": "odd", "flags": ["comparison_only"]})
    assert not is_comparison({"combiner": "odd"})


def test_combiners_have_a_warning_of_their_own(inputs):
    warned = dataclasses.replace(
        inputs, warnings={"published": "It is wrong.", "gaussian": "Mind the N."}
    )
    words = text_of(render(warned))
    assert "published is shown for comparison only; do not quote it. It is wrong." in words
    assert "gaussian: Mind the N." in words
    assert "recalibrated:" not in words


def test_writing_replaces_the_file_as_a_whole(tmp_path, words_only, inputs):
    path = tmp_path / "report.html"
    path.write_text("old")
    write_html(inputs, path)
    assert path.read_text(encoding="utf-8") == render(inputs)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


# ------------------------------------------------------------------------------- absent parts


def test_nothing_at_all_still_makes_a_page():
    page = render(ReportInputs(report={}))
    assert "<h2" not in page
    assert "Calibration was not checked" in page
    assert "None" not in page
    Page(page)


REPORT_PARTS = (
    "schema plugin preset seed status versions timing simulation emulator training calibration "
    "accuracy observations combined combined_calibration flags"
).split()


@pytest.mark.parametrize("part", REPORT_PARTS)
def test_an_absent_part_of_the_report_leaves_no_trace(part, inputs, words_only):
    fewer = {k: v for k, v in inputs.report.items() if k != part}
    page = render(dataclasses.replace(inputs, report=fewer, verdicts=(), failures=()))
    parsed = Page(page)
    assert "None" not in text_of(page)
    if part in SECTIONS:
        assert SECTIONS[part] not in parsed.ids
        assert f'href="#{SECTIONS[part]}"' not in page


FIELDS = [f for f in dataclasses.fields(ReportInputs) if f.name != "report"]


@pytest.mark.parametrize("field", FIELDS, ids=lambda f: f.name)
def test_an_absent_field_leaves_no_trace(field, inputs, words_only):
    missing = dataclasses.MISSING
    empty = field.default if field.default is not missing else field.default_factory()
    page = render(dataclasses.replace(inputs, **{field.name: empty}))
    parsed = Page(page)
    assert "None" not in text_of(page)
    if field.name in SECTIONS:
        assert SECTIONS[field.name] not in parsed.ids


@pytest.mark.parametrize("section", FIGURES)
def test_figures_appear_with_their_data_alone(section, inputs):
    data = {name: getattr(inputs, name) for name in FIGURES[section]}
    bare = ReportInputs(report={}, inferred=inputs.inferred, **data)
    assert set(figures(bare)) == {section}


def test_figures_of_combinations_need_no_truth_or_samples(inputs):
    entries = [
        {
            "combiner": "gaussian",
            "n": n,
            "parameters": {"a_b": {"mean": 1.0, "sd": (n + 1) ** -0.5}},
        }
        for n in (0, 1, 10)
    ]
    made = figures(ReportInputs(report={"combined": entries}))
    assert set(made) == {"convergence"}
    assert figures(ReportInputs(report={"combined": entries[:1]})) == {}


def test_parts_of_parts_may_be_absent_too(words_only):
    report = {
        "simulation": {"failed": 0},
        "calibration": {"tarp": {}, "parameters": {"a": {}}},
        "accuracy": {"a": {"mae": 1.0}},
        "emulator": {},
        "observations": {"source": "mock"},
        "combined": [{"combiner": "odd", "n": 3, "parameters": {"a": {"mean": 0, "sd": 1}}}],
        "combined_calibration": [{"combiner": "gaussian", "n": 3}],
    }
    page = render(ReportInputs(report=report))
    Page(page)
    assert "None" not in text_of(page)


# -------------------------------------------------------------------------------------- words


HOSTILE = '<script>alert("x")</script>&--><b>'


def test_hostile_words_are_harmless_wherever_they_stand(inputs):
    value = {"mean": 1.0, "sd": 0.1, "truth": 1.0}
    report = {
        "plugin": HOSTILE,
        "preset": HOSTILE,
        "seed": HOSTILE,
        "versions": {HOSTILE: HOSTILE},
        "emulator": {"median_abs_error": {HOSTILE: 0.1}},
        "calibration": {"parameters": {HOSTILE: {}}, "verdict": HOSTILE},
        "accuracy": {HOSTILE: {"mae": 1.0}},
        "observations": {"n": 1, "source": HOSTILE, "unsupported": 1},
        "combined": [
            {"combiner": HOSTILE, "group": HOSTILE, "n": n, "parameters": {HOSTILE: value}}
            for n in (1, 2)
        ],
        "combined_calibration": [{"combiner": HOSTILE, "n": 1, "z_rms": {HOSTILE: 1.0}}],
        "flags": [HOSTILE],
    }
    prior = {"family": HOSTILE, HOSTILE: HOSTILE}
    page = render(
        ReportInputs(
            report=report,
            parameters=[{"name": HOSTILE, "unit": HOSTILE, "description": HOSTILE, "prior": prior}],
            inferred=[HOSTILE],
            labels={HOSTILE: HOSTILE},
            failures=[(HOSTILE, 1)],
            verdicts=[("fail", HOSTILE)],
            notes=[HOSTILE],
            flagged=[(HOSTILE, HOSTILE)],
            citations=[HOSTILE, "javascript:alert(1)"],
            command=HOSTILE,
            config_toml=HOSTILE,
            literature=[{"label": HOSTILE, "n": 1, "parameters": {HOSTILE: value}}],
        )
    )
    parsed = Page(page)
    assert "script" not in parsed.tags
    assert "b" not in parsed.tags
    assert "javascript:" not in "".join(re.findall(r'href="[^"]*"', page))


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        (["pass", "pass"], "Calibration checks passed"),
        (["pass", "warn"], "Calibration passed with warnings"),
        (["warn", "fail"], "Calibration FAILED"),
        ([], "Calibration was not checked"),
    ],
)
def test_the_badge_says_the_worst_verdict(levels, words, words_only):
    verdicts = [(level, "A sentence.") for level in levels]
    assert words in render(ReportInputs(report={}, verdicts=verdicts))


def test_the_verdict_of_the_report_counts_too(words_only):
    page = render(ReportInputs(report={"calibration": {"verdict": "fail"}}))
    assert "Calibration FAILED" in page


def test_many_passed_checks_fold_away_but_failures_stay_open(words_only):
    verdicts = [("pass", f"Check {k} is fine.") for k in range(9)] + [("fail", "This is not.")]
    page = render(ReportInputs(report={}, verdicts=verdicts))
    assert "9 checks passed" in page
    assert page.index("This is not.") < page.index("<details>")


def test_disagreement_between_parts_is_said_in_words(words_only):
    entry = {"combiner": "gaussian", "n": 100, "parameters": {"a": {"mean": 0.0, "sd": 1.0}}}
    entry |= {"consistency_chi2": 60.0, "consistency_p": 1e-5}
    page = text_of(render(ReportInputs(report={"combined": [entry]})))
    assert "the parts disagree by more than chance" in page
    assert "not an error common to all" in page


def test_objects_beyond_the_list_are_counted(words_only):
    report = {"observations": {"n": 500, "unsupported": 130}}
    flagged = [(str(k), "unlike the simulations") for k in range(100)]
    assert "106 more are marked" in render(ReportInputs(report=report, flagged=flagged))


def test_each_group_has_its_own_answer(words_only):
    entries = [
        {"combiner": "gaussian", "group": g, "n": n, "parameters": {"a": {"mean": 1.0, "sd": 0.1}}}
        for g in ("north", "south")
        for n in (1, 50)
    ]
    page = text_of(render(ReportInputs(report={"combined": entries})))
    assert "from 2 groups of objects" in page
    assert "north, N = 50" in page
    assert "south, N = 50" in page


def test_the_corner_plot_of_several_groups_shows_them_together(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "corner", lambda x, *_, name, **__: drawn.append((name, len(x))))
    value = {"mean": 1.0, "sd": 0.1}
    entries = [
        {"combiner": "gaussian", "group": g, "n": 9, "parameters": {"a": value}}
        for g in ("north", "south")
    ]
    samples = {"north/gaussian": np.ones((60, 1)), "south/gaussian": np.ones((70, 1))}
    inputs = ReportInputs(report={"combined": entries}, combined_samples=samples)
    figures(inputs)
    assert drawn == [("north", 60), ("south", 70)]


def test_blocks_of_parameters_have_a_row_per_column(words_only):
    block = {"name": "w", "label": "w", "prior": {"family": "dirichlet", "alpha": [1.0, 1.0, 1.0]}}
    page = text_of(render(ReportInputs(report={}, parameters=[block], inferred=["w1", "w2"])))
    assert page.count("inferred") == 2
    assert page.count("marginalised") == 1


def test_references_become_links_only_where_they_name_a_place():
    assert '<a href="https://arxiv.org/abs/1804.06788">' in linked("Talts 2018, arXiv:1804.06788.")
    assert '<a href="https://doi.org/10.21105/joss.02505">' in linked("doi:10.21105/joss.02505")
    assert linked("A&A 702, A184") == "A&amp;A 702, A184"
    assert '"><b>' not in linked('https://a.b/"><b>')


def test_sections_of_a_domain_are_printed_escaped_with_their_figures():
    from matplotlib.figure import Figure

    from sbi_core.analyses.findings import Drawing, Grid, Section
    from sbi_core.report.domain import drawing_style, section_records

    with drawing_style():
        figure = Figure()
        figure.subplots().plot([1, 2])
        section = Section(
            "Halo <1>", ("a < b",), (Drawing(figure, "c > d"),), (Grid(("x",), [("7",)]),)
        )
        records = json.loads(json.dumps(section_records([section, section], "infer")))
    page = render(ReportInputs(report={"plugin": "toy"}, sections=records))
    parsed = Page(page)
    assert page.count("Halo &lt;1&gt;</h2>") == 2
    assert "a &lt; b" in page
    assert "<svg" in page
    assert len(parsed.ids) == len(set(parsed.ids))
