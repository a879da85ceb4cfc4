import pytest

from sbi_core.report.text import (
    count,
    duration,
    measurement,
    number,
    percent,
    plain,
    prior_words,
    tex_to_html,
)


@pytest.mark.parametrize(
    ("mean", "sd", "printed"),
    [
        (-2.29834, 0.00311, "−2.298 ± 0.003"),
        (-2.29834, 0.0027, "−2.2983 ± 0.0027"),
        (1.0, 0.0996, "1.00 ± 0.10"),  # the error rounds up into the next decade
        (0.5, 0.96, "0.5 ± 1.0"),
        (4321.0, 120.0, "4320 ± 120"),
        (-0.0001, 0.02, "0.000 ± 0.020"),  # no minus before zero
        (3.42e9, 1.2e8, "(3.42 ± 0.12) × 10⁹"),
        (5.1e-7, 4.0e-8, "(5.1 ± 0.4) × 10⁻⁷"),
        (0.0, 25.0, "0 ± 25"),
        (2.5, 0.0, "2.500 ± 0"),
        (2.5, float("nan"), "2.500 ± not finite"),
        (float("nan"), 1.0, "not finite"),
    ],
)
def test_value_and_error_end_at_the_same_digit(mean, sd, printed):
    assert measurement(mean, sd) == printed


def test_the_number_of_digits_of_the_error_can_be_fixed():
    assert measurement(-2.29834, 0.00311, 2) == "−2.2983 ± 0.0031"


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (0, "0"),
        (0.00123456, "0.00123"),
        (-12345.6, "−12300"),
        (99999.0, "1.00 × 10⁵"),
        (1.5e-7, "1.50 × 10⁻⁷"),
        (float("inf"), "not finite"),
    ],
)
def test_numbers_keep_significant_digits(value, printed):
    assert number(value) == printed


def test_counts_shares_and_plain_numbers():
    assert count(9999) == "9999"
    assert count(1234567) == "1\u202f234\u202f567"
    assert percent(0.00312) == "0.31\u202f%"
    assert plain(-2.30) == "−2.3"


@pytest.mark.parametrize(
    ("seconds", "printed"),
    [(0.0342, "34 ms"), (0.9999, "1.0 s"), (59.96, "1 min 0 s"), (3599.9, "1 h 0 min")],
)
def test_durations_carry_into_the_next_unit(seconds, printed):
    assert duration(seconds) == printed


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"family": "normal", "loc": -2.3, "scale": 0.3}, "N(−2.3, 0.3)"),
        ({"family": "truncnormal", "loc": 0.5, "scale": 1, "low": 0.3}, "N(0.5, 1), above 0.3"),
        ({"family": "truncnormal", "loc": 0.5, "scale": 1, "high": 2}, "N(0.5, 1), below 2"),
        ({"family": "dirichlet", "alpha": [1.0, 1.0]}, "Dirichlet(1, 1)"),
        ({"family": "table", "grid": list(range(99))}, "table, 99 values from 0 to 98"),
        ({"family": "of the future", "a": 3}, "of the future(a=3)"),
        ({}, "unknown()"),
    ],
)
def test_priors_are_written_as_statisticians_write_them(spec, words):
    assert prior_words(spec) == words


@pytest.mark.parametrize(
    ("tex", "html"),
    [
        (r"\alpha_\mathrm{IMF}", "<i>α</i><sub>IMF</sub>"),
        (r"\log_{10} N_\mathrm{Ia}", "log<sub>10</sub>\u2009<i>N</i><sub>Ia</sub>"),
        (r"\log M_\star / M_\odot", "log\u2009<i>M</i><sub>⋆</sub>/<i>M</i><sub>☉</sub>"),
        (r"{\beta}_{1}^{2}", "<i>β</i><sub>1</sub><sup>2</sup>"),
        (r"\dot{M}", "<i>M\u0307</i>"),
        (r"\mathrm{x\_out}", "x_out"),
        ("$z$", "<i>z</i>"),
    ],
)
def test_labels_become_html(tex, html):
    assert tex_to_html(tex) == html


@pytest.mark.parametrize("tex", [r"\frac{a}{b}", "a_", "{a", "a}", "\\"])
def test_a_label_beyond_that_falls_back_to_the_escaped_name(tex):
    assert tex_to_html(tex, fallback="a<b") == "a&lt;b"
