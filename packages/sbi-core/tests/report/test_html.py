import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser

import matplotlib as mpl
import numpy as np
import pytest
from astropy.table import Table
from matplotlib.figure import Figure

from sbi_core.analyses import Drawing, Grid, Section
from sbi_core.diagnostics import judge_tarp
from sbi_core.report import html, measurement, plots, render, write_html
from sbi_core.report.figures import drawing_style, drawings, section_records, write_figures
from sbi_core.report.view import FLAGS, first_sentence, linked, main_combiner

BROWSER = shutil.which("chromium") or shutil.which("google-chrome") or ""
VOID = {"meta", "link", "br", "img", "input", "hr"}
FIGURES = {  # the section a picture belongs to, and the arrays it is made of
    "calibration": ["ranks", "draws", "tarp_levels", "tarp_ecp"],
    "recovery": ["theta", "mean", "sd"],
}
SECTIONS = {  # part of report.json, or further input -> id of the section it alone makes
    "simulation": "simulator",
    "emulator": "emulator",
    "training": "training",
    "accuracy": "recovery",
    "combined_calibration": "combined",
    "misspecification": "model",
    "flags": "flags",
    "parameters": "prior",
    "references": "cite",
    "config": "config",
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
    return render(**inputs)


@pytest.fixture
def words_only(monkeypatch):
    """Pages without figures, for tests of words (they are a hundred times faster)."""
    monkeypatch.setattr(html, "drawings", lambda *_: {})


def without(report, *parts):
    return {k: v for k, v in report.items() if k not in parts}


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


def test_results_come_first_then_tests_then_methods(page):
    order = ["posterior", "objects", "observations", "calibration", "combined", "run", "prior"]
    places = [page.index(f'<h3 id="{name}"') for name in order]
    assert places == sorted(places)
    assert (
        page.index('<h2 id="results"')
        < page.index('<h2 id="tests"')
        < page.index('<h2 id="methods"')
    )


def test_the_times_leave_out_what_was_not_done(inputs, words_only):
    timing = {"train_s": 20.0, "emulate_s": 0.009, "combine_s": 0.04, "total_s": 21.0}
    parts = without(inputs["report"], "emulator", "combined", "checks")
    for emulator in ({}, {"emulator": inputs["report"]["emulator"]}):
        page = render({**parts, "timing": timing, **emulator})
        assert ("train the emulator" in page) == bool(emulator)
        assert "train the estimator" in page
        assert "combine objects" not in page


def test_the_answer_comes_first_with_error_unit_and_number_of_objects(page):
    head = text_of(page.split('<h2 id="results"')[0])
    assert "αIMF and log10NIa from 1000 objects" in head
    assert re.search(r"NIa = −\d\.\d{4} ± 0\.00\d\d dex", head)
    assert "Calibration passed with warnings" in head
    assert "2026-03-04" in head


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
        timeout=600,
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


def test_tables_have_scopes_and_scroll_instead_of_running_out_of_the_page(page):
    for table in re.findall(r".{120}<table>.*?</table>", page, flags=re.DOTALL):
        assert re.search(r'<th scope="(col|row)"', table)
        assert "<th>" not in table
        assert 'class="scroll' in table[:120] or "stage" in table[:300]


def test_the_page_has_a_skip_link_and_a_dark_mode_in_which_figures_keep_their_paper(page):
    assert '<a class="skip" href="#content">' in page
    dark = page.split("prefers-color-scheme: dark")[1].split("@media")[0].split("* { box")[0]
    assert "figure svg { background: #fff" in dark


def test_whatever_scrolls_can_be_reached_by_the_keyboard(page):
    assert '<div class="scroll">' not in page
    assert (
        len(re.findall(r'class="scroll[ a-z]*" role="region"', page)) == page.count('"scroll') > 0
    )
    assert page.count('class="wide" tabindex="0"') == page.count('class="wide"') > 0
    assert ":focus-visible" in page


def test_versions_are_folded_away(page):
    assert re.search(r"<summary>Versions of \d+ packages</summary>", page)


def test_the_same_inputs_give_the_same_bytes_whatever_the_user_has_set(inputs, page):
    with mpl.rc_context({"font.size": 30, "svg.hashsalt": None, "axes.facecolor": "black"}):
        assert render(**inputs) == page


def test_every_figure_has_a_caption_of_one_sentence(page):
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page, flags=re.DOTALL)
    assert len(captions) == page.count("<svg") == 8
    assert all(c.endswith(".") and c.count(". ") == 0 for c in captions)


def test_combiners_for_comparison_are_marked_and_never_the_answer(inputs, page):
    assert "is shown for comparison only" in page
    assert "It counts the prior too often." in page
    assert main_combiner(inputs["report"]) == "simulated-moments"
    assert plots.is_comparison({"combiner": "odd", "flags": ["comparison_only"]})
    assert not plots.is_comparison({"combiner": "odd"})


def test_combiners_have_a_warning_of_their_own(inputs, words_only):
    warnings = {"published": "It is wrong.", "gaussian": "Mind the N."}
    words = text_of(render(**{**inputs, "warnings": warnings}))
    assert "published is shown for comparison only; do not quote it. It is wrong." in words
    assert "gaussian: Mind the N." in words
    assert "simulated-moments:" not in words


def test_writing_replaces_the_file_as_a_whole(tmp_path, words_only, inputs):
    path = tmp_path / "report.html"
    path.write_text("old")
    write_html(path, **inputs)
    assert path.read_text(encoding="utf-8") == render(**inputs)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


# ------------------------------------------------------------------------------- absent parts


def test_nothing_at_all_still_makes_a_page():
    page = render({})
    assert "<h2" not in page
    assert "<h3" not in page
    assert "Calibration was not tested" in page
    assert "None" not in page
    Page(page)


REPORT_PARTS = (
    "schema plugin preset seed status created command versions timing parameters checks simulation "
    "emulator training calibration accuracy observations widths combined combined_calibration "
    "misspecification flags references"
).split()


@pytest.mark.parametrize("part", REPORT_PARTS)
def test_an_absent_part_of_the_report_leaves_no_trace(part, inputs, words_only):
    page = render(**{**inputs, "report": without(inputs["report"], part)})
    parsed = Page(page)
    assert "None" not in text_of(page)
    if part in SECTIONS:
        assert SECTIONS[part] not in parsed.ids
        assert f'href="#{SECTIONS[part]}"' not in page


@pytest.mark.parametrize("name", ["arrays", "history", "objects", "meanings", "warnings", "config"])
def test_an_absent_input_leaves_no_trace(name, inputs, words_only):
    page = render(**without(inputs, name))
    parsed = Page(page)
    assert "None" not in text_of(page)
    if name in SECTIONS:
        assert SECTIONS[name] not in parsed.ids


@pytest.mark.parametrize("section", FIGURES)
def test_figures_appear_with_their_data_alone(section, inputs):
    arrays = {name: inputs["arrays"][name] for name in FIGURES[section]}
    bare = {"parameters": inputs["report"]["parameters"]}
    assert set(drawings(bare, arrays)) == {section}


def test_figures_of_combinations_need_no_truth_or_samples(inputs):
    entries = [
        {
            "combiner": "gaussian",
            "n": n,
            "parameters": {"a_b": {"mean": 1.0, "sd": (n + 1) ** -0.5}},
        }
        for n in (0, 1, 10)
    ]
    assert set(drawings({"combined": entries}, {})) == {"convergence"}
    assert drawings({"combined": entries[:1]}, {}) == {}


def test_parts_of_parts_may_be_absent_too(words_only):
    report = {
        "simulation": {"failed": 0},
        "calibration": {"tarp": {}, "parameters": {"a": {}}},
        "accuracy": {"a": {"mae": 1.0}},
        "emulator": {},
        "observations": {"source": "mock"},
        "combined": [{"combiner": "published", "n": 3, "parameters": {"a": {"mean": 0, "sd": 1}}}],
        "combined_calibration": [{"combiner": "gaussian", "n": 3}],
    }
    page = render(report)
    Page(page)
    assert "None" not in text_of(page)


# -------------------------------------------------------------------------------------- words


HOSTILE = '<script>alert("x")</script>&--><b>'


def test_hostile_words_are_harmless_wherever_they_stand(inputs):
    value = {"mean": 1.0, "sd": 0.1, "truth": 1.0}
    prior = {"family": HOSTILE, HOSTILE: HOSTILE}
    column = {"label": HOSTILE, "unit": HOSTILE, "scope": HOSTILE, "description": HOSTILE}
    report = {
        "plugin": HOSTILE,
        "preset": HOSTILE,
        "seed": HOSTILE,
        "created": HOSTILE,
        "command": HOSTILE,
        "versions": {HOSTILE: HOSTILE, "sbi-core": HOSTILE},
        "parameters": {HOSTILE: {**column, "prior": prior, "inferred": True}},
        "checks": [{"stage": "diagnose", "test": "", "level": "fail", "sentence": HOSTILE}],
        "simulation": {"n": 1, "failed": 1, "failures": {HOSTILE: 1}},
        "emulator": {"median_abs_error": {HOSTILE: 0.1}},
        "calibration": {"parameters": {HOSTILE: {}}, "verdict": HOSTILE},
        "accuracy": {HOSTILE: {"mae": 1.0}},
        "observations": {"n": 1, "source": HOSTILE, "unsupported": 1, "notes": [HOSTILE]},
        "widths": {HOSTILE: {"prior": 1.0, "posterior": 1.0}},
        "combined": [
            {"combiner": HOSTILE, "group": HOSTILE, "n": n, "parameters": {HOSTILE: value},
             "flags": flags, "consistency_chi2": 1.0}
            for n, flags in ((1, []), (2, ["comparison_only"]))
        ],
        "combined_calibration": [{"combiner": HOSTILE, "n": 1, "z_rms": {HOSTILE: 1.0}}],
        "misspecification": [{"group": HOSTILE, "verdict": HOSTILE, "comparisons": {HOSTILE: 0.1}}],
        "flags": [HOSTILE],
        "references": [HOSTILE, "javascript:alert(1)"],
    }  # fmt: skip
    columns = {"id": [HOSTILE], "flags": [HOSTILE], HOSTILE: [HOSTILE]}
    columns |= {f"{HOSTILE}_{p}": [k] for k, p in enumerate(("p16", "p50", "p84"))}
    page = render(
        report,
        objects=Table(columns),
        meanings={HOSTILE: HOSTILE},
        warnings={HOSTILE: HOSTILE},
        config=HOSTILE,
    )
    parsed = Page(page)
    assert "script" not in parsed.tags
    assert "javascript:" not in "".join(re.findall(r'href="[^"]*"', page))
    assert HOSTILE not in page


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        (["pass", "pass"], "All calibration tests passed"),
        (["pass", "warn"], "Calibration passed with warnings"),
        (["warn", "fail"], "Calibration FAILED"),
        ([], "Calibration was not tested"),
    ],
)
def test_the_badge_says_the_worst_verdict(levels, words, words_only):
    checks = [{"level": level, "sentence": "A sentence."} for level in levels]
    assert words in render({"checks": checks})


def test_a_first_look_names_what_it_does_not_give(words_only):
    coverage = {"0.5": 0.5, "0.68": 0.68}
    parameters = {
        "t10": {"sbc_p": 0.3, "coverage": {**coverage, "0.5": 0.7}},
        "t20": {"sbc_p": 1e-6, "coverage": coverage},
        "t30": {"sbc_p": 0.4, "coverage": coverage},
    }
    calibration = {"verdict": "fail", "objects": 400, "parameters": parameters}
    sentence = "50 % intervals of t10 contain 70.0 % of true values: the posterior is too wide."
    report = {
        "calibration": calibration,
        "flags": ["calibration_failed"],
        "checks": [{"level": "fail", "sentence": sentence, "test": "coverage"}],
    }
    page = render({"preset": "quick", **report})
    assert "A first look: the errors of t10, t20 failed their tests" in page
    assert f"{sentence} The errors of the other parameters passed." in page
    assert "FAILED" not in page
    assert "not reliable" not in page
    page = render({"preset": "standard", **report})
    assert "Calibration FAILED" in page
    assert "the quoted uncertainties are not reliable" in page
    parts = {"simulation": {"n": 50_000, "failed": 0}, "training": {"epochs": 31}}
    more = "--set simulate.n=200000 --set train.epochs=16"
    assert more in render({"preset": "standard", **parts, **report})
    fixed = {"preset": "standard", "plugin": "simulations", **parts, **report}
    assert "--set simulate.n" not in render(fixed)
    del parameters["t10"], parameters["t20"]  # a joint test fails
    assert "Calibration FAILED" in render({"preset": "quick", "calibration": calibration})


def test_the_verdict_of_the_report_counts_too(words_only):
    page = render({"calibration": {"verdict": "fail"}})
    assert "Calibration FAILED" in page


def test_a_badge_that_is_not_green_leads_to_the_tests(words_only):
    link = '<a class="small" href="#tests">'
    for level, shown in (("pass", False), ("warn", True), ("fail", True)):
        page = render(
            {"checks": [{"level": level, "sentence": "A sentence.", "stage": "diagnose"}]}
        )
        assert (link in page, 'id="tests"' in page) == (shown, True)


def test_passed_tests_of_a_table_need_no_sentence_but_failures_stay_open(words_only):
    checks = [
        *({"level": "pass", "sentence": f"Test {k}.", "test": "sbc"} for k in range(9)),
        {"level": "pass", "sentence": "A test of the domain.", "test": ""},
        {"level": "fail", "sentence": "This failed.", "test": "sbc"},
    ]
    page = render({"checks": checks})
    assert "10 of 11 tests passed" in page
    assert "This failed." in page
    assert "Test 3." not in page
    assert page.index("This failed.") < page.index("A test of the domain.")


def test_a_value_that_failed_is_marked_in_the_table(words_only):
    coverage = {"0.50": 0.80, "0.68": 0.68}
    parts = {"a": {"sbc_p": 1e-9, "coverage": coverage}, "b": {"sbc_p": 0.4, "coverage": {}}}
    page = render({"calibration": {"objects": 500, "parameters": parts}})
    marked = re.findall(r'<span class="fail">✗&nbsp;(.*?)</span>', page)
    assert marked == ["2.0 × 10⁻⁹", "80.0 %"]
    assert "Holm" in page


def test_disagreement_between_parts_is_said_in_words(words_only):
    entry = {"combiner": "gaussian", "n": 100, "parameters": {"a": {"mean": 0.0, "sd": 1.0}}}
    entry |= {"consistency_chi2": 60.0, "consistency_p": 1e-5}
    page = text_of(render({"combined": [entry]}))
    assert "parts disagree" in page
    assert "cannot detect an error common to all objects" in page


def test_the_report_tells_where_no_object_has_a_flag(inputs):
    table = inputs["objects"].copy()
    table["flags"] = ""
    assert "The column flags is empty for all objects." in text_of(
        render(**{**inputs, "objects": table})
    )


def test_the_limit_of_tarp_is_that_of_its_verdict(page):
    assert "with data-dependent reference points (0.005 or less fails)." in text_of(page)
    assert judge_tarp(0.0051, tests=2).level == "pass"
    assert judge_tarp(0.0049, tests=2).level == "fail"


@pytest.mark.parametrize(
    ("outside", "n", "many"), [(0, 5, False), (1, 1, True), (10, 1000, False), (3, 10, True)]
)
def test_only_more_objects_outside_than_chance_explains_are_a_warning(outside, n, many, words_only):
    page = render({"observations": {"n": n, "source": "x", "unsupported": outside}})
    assert ("would be expected by chance" in page) == many


def test_flags_of_objects_are_explained_and_name_their_objects(page):
    text = text_of(page)
    assert "look like the simulations" not in text
    assert "oddThe spectrum is odd; look at it.1star 1" in text
    assert re.search(r"outside_trainingThe data lie outside.*?2star 0, star 1", text)


def test_flags_of_the_run_stand_at_the_top_with_advice(words_only):
    page = render({"flags": list(FLAGS), "seed": 1})
    top = page.split('<h2 id="methods"')[0]
    assert all(sentence.split("'")[0] in unescape(top) for sentence in FLAGS.values())


def test_every_object_has_a_row_with_units_errors_and_truth(page):
    table = re.search(r'aria-label="single objects".*?</table>', page, flags=re.DOTALL)[0]
    text = text_of(table)
    assert "[dex]" in text
    assert "star 0−2.10 +0.10 −0.10true −2.10−3.00 +0.20 −0.20true −3.00" in text
    assert table.count('<th scope="row">') == 4


def test_results_of_single_objects_are_open_where_nothing_is_combined(inputs, words_only):
    assert "<details><summary>Table of 4 objects<" in render(**inputs)
    one = {**inputs, "objects": inputs["objects"][:1]}
    assert "<details><summary>Table of 1 object<" in render(**one)
    alone = {**inputs, "report": without(inputs["report"], "combined")}
    page = render(**alone)
    assert "Posteriors of 1000 objects" in page
    assert "<summary>Table of" not in page


def test_a_single_object_has_a_corner_plot_with_prior_and_truth(inputs):
    rng = np.random.default_rng(1)
    arrays = {"object/star 0": rng.normal(size=(200, 2)), "truth/star 0": np.zeros(2)}
    arrays["prior"] = 3 * rng.normal(size=(100, 2))
    made = drawings(without(inputs["report"], "combined", "combined_calibration"), arrays)
    assert list(made) == ["objects"]
    (drawing,) = made["objects"].values()
    assert len(drawing.figure.axes) == 4
    assert "black lines mark the true values" in drawing.caption


def test_parameters_as_wide_as_the_prior_are_called_unconstrained(page):
    table = page.split('aria-label="widths of prior and posterior"')[1].split("</table>")[0]
    assert table.count(">hardly constrained<") == 1


def test_each_group_has_its_own_answer(words_only):
    entries = [
        {"combiner": "gaussian", "group": g, "n": n, "parameters": {"a": {"mean": 1.0, "sd": 0.1}}}
        for g in ("north", "south")
        for n in (1, 50)
    ]
    page = text_of(render({"combined": entries}))
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
    arrays = {
        "combined/north/gaussian": np.ones((60, 1)),
        "combined/south/gaussian": np.ones((70, 1)),
    }
    drawings({"combined": entries}, arrays)
    assert drawn == [("north", 60), ("south", 70)]


def test_card_table_and_corner_print_the_same_number(inputs, page):
    entry = next(e for e in inputs["report"]["combined"] if e["n"] == 1000)
    value = measurement(
        entry["parameters"]["alpha_imf"]["mean"], entry["parameters"]["alpha_imf"]["sd"]
    )
    assert page.count(value) >= 2  # card and table
    figure = drawings(inputs["report"], inputs["arrays"])["posterior"]["corner"].figure
    assert any(value in ax.get_title() for ax in figure.axes)


def test_references_become_links_only_where_they_name_a_place():
    assert '<a href="https://arxiv.org/abs/1804.06788">' in linked("Talts 2018, arXiv:1804.06788.")
    assert '<a href="https://doi.org/10.21105/joss.02505">' in linked("doi:10.21105/joss.02505")
    assert linked("A&A 702, A184") == "A&amp;A 702, A184"
    assert '"><b>' not in linked('https://a.b/"><b>')


def section():
    with drawing_style():
        figure = Figure()
        figure.subplots().plot([1, 2])
        return Section(
            "Halo <1>",
            ("a < b",),
            (Drawing(figure, "c > d"),),
            (Grid(("x", "n", "words"), [("7", (4.913, 5.2312, 5.562), "long")], "A <caption>"),),
        )


def sections():
    return json.loads(json.dumps(section_records([section(), section()], "infer")))


def test_sections_of_a_domain_are_printed_escaped_with_their_figures():
    records = [
        {**r, "stage": stage} for r, stage in zip(sections(), ("infer", "diagnose"), strict=True)
    ]
    page = render({"plugin": "toy"}, sections=records)
    parsed = Page(page)
    assert page.count("Halo &lt;1&gt;</h3>") == 2
    assert "a &lt; b" in page
    assert "A &lt;caption&gt;" in page
    assert "<svg" in page
    assert len(parsed.ids) == len(set(parsed.ids))
    first, second = (page.index(f'<h3 id="domain-{k}"') for k in (1, 2))
    assert page.index('<h2 id="results"') < first < page.index('<h2 id="tests"') < second


def test_columns_of_numbers_are_aligned_and_rounded_and_words_are_not():
    page = render({"plugin": "toy"}, sections=sections())
    assert '<td class="n v">5.23 <span class="errors"><span>+0.33</span>' in page
    assert '</td><td class="text">long</td>' in page


@pytest.mark.parametrize("kind", ["pdf", "png", "svg"])
def test_figures_are_written_as_files_with_editable_text(kind, inputs, tmp_path):
    made = {"training": drawings({}, {}, inputs["history"])["training"]}
    paths = write_figures(made, [section(), section()], tmp_path / "figures", kind)
    assert [p.name for p in paths] == [
        f"training.{kind}", f"01-halo-1-1.{kind}", f"02-halo-1-1.{kind}"
    ]  # fmt: skip
    content = [p.read_bytes() for p in paths]
    if kind == "pdf":
        assert all(b"/Type0" in c for c in content)  # letters of a font instead of outlines
    if kind == "svg":
        assert all(b"<text" in c for c in content)


def test_letters_of_an_embedded_picture_may_spell_anything():
    """A heat map of a run ended in ``/OnQ7nTcwPigAAAABJRU5ErkJggg==``."""
    from sbi_core.errors import RunDirectoryError
    from sbi_core.report.html import _refuse_active

    _refuse_active('<svg><image href="data:image/png;base64,\niVBO/OnQ7nTcwPigAAAA=="/></svg>')
    for active in (
        '<svg><image href="data:image/png;base64,AA==" onload="x()"/></svg>',
        "<svg><image href=data:image/png;base64,AA/onload=x() /></svg>",
        '<svg onload="x()"></svg>',
    ):
        with pytest.raises(RunDirectoryError, match="altered"):
            _refuse_active(active)


def failing(*groups, failed=(), **more):
    """A report of groups, of which some are not what the model makes."""
    value = {"mean": 1.0, "sd": 0.1}
    entries = [
        {
            "combiner": "gaussian",
            "n": 50,
            "parameters": {"a": value},
            "flags": ["unlike_the_simulator"] if g in failed else [],
            **({"group": g} if g else {}),
        }
        for g in groups
    ]
    checks = [
        {
            **({"group": g} if g else {}),
            "n": 50,
            "p": 1e-30 if g in failed else 0.5,
            "chi2": 310.4,
            "dof": 44,
            "verdict": f"Verdict on {g}.",
            "comparisons": {},
            "observables": {},
        }
        for g in groups
    ]
    flags = ["unlike_the_simulator"] if failed else []
    return {"combined": entries, "misspecification": checks, "flags": flags, **more}


@pytest.mark.parametrize(
    ("groups", "failed", "words"),
    [
        (["", ], [""], "These objects are not what this model makes (chi2 = 310 for 44 numbers): "
         "the error bar does not hold."),
        (["n", "s"], ["s"], "The objects of group 's' are not what this model makes (chi2 = 310 "
         "for 44 numbers): the error bar does not hold."),
        (["n", "s", "w"], ["n", "s"], "The objects of 2 of 3 groups ('n', 's') are not what this "
         "model makes: the error bars do not hold."),
        (["n", "s"], [], ""),
    ],
)  # fmt: skip
def test_objects_that_the_model_does_not_make_are_the_headline(groups, failed, words, words_only):
    report = failing(*groups, failed=failed)
    assert first_sentence(report) == words
    page = render(report)
    title = unescape(text_of(re.search(r"<h1>(.*?)</h1>", page, re.DOTALL)[1])).strip()
    assert title.startswith(words.replace("chi2", "χ²") or "a from")
    assert page.count('<div class="card off">') == len(failed)
    assert page.count("The error bar does not hold for these objects.") == len(failed)
    badge = '<span class="badge fail">Not what this model makes</span>'
    assert (badge in page) == bool(failed)
    if failed:
        assert page.index("</h1>") < page.index(badge) < page.index('<div class="card')


def test_the_badge_of_the_calibration_does_not_count_the_check_of_the_model(words_only):
    checks = [
        {"level": "pass", "sentence": "Fine.", "test": "z_rms", "stage": "combine"},
        {"level": "warn", "sentence": "Other objects.", "test": "model", "stage": "combine"},
    ]
    page = render(failing("", failed=[""], checks=checks))
    assert "All calibration tests passed" in page
    assert "Calibration passed with warnings" not in page


def test_a_report_of_an_earlier_version_says_so_without_the_numbers():
    report = failing("", failed=[""])
    del report["combined"][0]["flags"], report["misspecification"][0]["chi2"]
    assert first_sentence(report).startswith("These objects are not what this model makes: ")
    assert "The error bar does not hold for these objects." in text_of(render(report))


def test_both_results_of_the_headline_and_the_error_budget(inputs, words_only):
    report = inputs["report"]
    entries = report["combined"]
    wide = [
        entry | {
            "combiner": "group-moments",
            "parameters": {n: v | {"sd": 0.25} for n, v in entry["parameters"].items()},
        }
        for entry in entries
        if entry["combiner"] == "simulated-moments"
    ]  # fmt: skip
    budget = {
        "all": [0.25, 0.2], "yields": [0.15, 0.2], "births": [0.25, 0.1], "none": [0.01, 0.01]
    }  # fmt: skip
    left = {"Mg": {"mean": [-2.2, -3.1], "sd": [0.3, 0.2]}}
    part = {"nominal": "simulated-moments", "budget": budget, "without": left}
    page = render({**report, "combined": [*wide, *entries], "marginalised": [part]})
    head, text = text_of(page.split('<h2 id="results"')[0]), text_of(page)
    assert head.count("if the model is exactly right: −") == 2
    assert "which do not average out with the number of objects: yields, births." in head
    assert "±\u00a00.25" in head or "± 0.25" in head
    assert "Error budget" in text
    assert re.search(r"yields\s*0\.150?\s*64", text)  # 1 - (0.15 / 0.25)^2
    assert re.search(r"Mg\s*−2\.20 ± 0\.30\s*−3\.10 ± 0\.20", text)
    assert "contradict" not in head
    wrong = [
        e | {"flags": ["unlike_the_simulator"]} if e["combiner"] == "simulated-moments" else e
        for e in entries
    ]
    page = render({**report, "combined": [*wide, *wrong], "marginalised": [part]})
    assert text_of(page).count("; these objects contradict it") == 2
    assert "Error budget" not in text_of(render(report))
