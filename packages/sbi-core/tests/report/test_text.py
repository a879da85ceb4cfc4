import pytest

from sbi_core.report.text import (
    count,
    duration,
    interval,
    measurement,
    number,
    percent,
    plain,
    prior_words,
    tex_to_html,
    with_unit,
)


@pytest.mark.parametrize(
    ("mean", "sd", "printed"),
    [
        (-2.29834, 0.00311, "−2.2983 ± 0.0031"),
        (-2.29834, 0.0027, "−2.2983 ± 0.0027"),
        (1.0, 0.0996, "1.00 ± 0.10"),  # the error rounds up into the next decade
        (0.5, 0.96, "0.50 ± 0.96"),
        (4321.0, 120.0, "4320 ± 120"),
        (-0.0001, 0.02, "0.000 ± 0.020"),  # no minus before zero
        (3.42e9, 1.2e8, "(3.42 ± 0.12) × 10⁹"),
        (5.1e-7, 4.0e-8, "(5.10 ± 0.40) × 10⁻⁷"),
        (0.0, 25.0, "0 ± 25"),
        (2.5, 0.0, "2.500 ± 0"),
        (2.5, float("nan"), "2.500 ± not finite"),
        (float("nan"), 1.0, "not finite"),
    ],
)
def test_value_and_error_end_at_the_same_digit(mean, sd, printed):
    assert measurement(mean, sd) == printed


@pytest.mark.parametrize(
    ("ends", "printed"),
    [
        ((4.913, 5.2312, 5.562), ("5.23", "+0.33", "−0.32")),
        ((-0.6741, -0.6702, -0.6665), ("−0.6702", "+0.0037", "−0.0039")),
        ((1.0, 1.0, 1.5), ("1.00", "+0.50", "−0.00")),
        ((2.0, 2.0, 2.0), ("2.000", "0", "0")),
        ((float("nan"), 1.0, 2.0), ("not finite", "", "")),
    ],
)
def test_intervals_end_at_the_second_digit_of_the_smaller_error(ends, printed):
    assert interval(*ends) == printed


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


TRUNCATED = {"family": "truncnormal", "loc": 0.5, "scale": 1}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"family": "normal", "loc": -2.3, "scale": 0.3}, "normal, mean −2.3, sd 0.3"),
        (
            {"family": "truncnormal", "loc": 0.5, "scale": 1, "low": 0.3},
            "normal, mean 0.5, sd 1, above 0.3",
        ),
        (
            {"family": "truncnormal", "loc": 0.5, "scale": 1, "high": 2},
            "normal, mean 0.5, sd 1, below 2",
        ),
        ({"family": "dirichlet", "alpha": [1.0, 1.0]}, "Dirichlet(1, 1)"),
        ({"family": "table", "grid": list(range(99))}, "tabulated, 99 values from 0 to 98"),
        ({"family": "of the future", "a": 3}, "of the future(a=3)"),
        ({}, "unknown()"),
    ],
)
def test_priors_are_written_as_statisticians_write_them(spec, words):
    assert prior_words(spec) == words


@pytest.mark.parametrize(
    ("tex", "html"),
    [
        (r"\alpha_\mathrm{IMF}", "<msub><mi>α</mi><mrow><mi>IMF</mi></mrow></msub>"),
        (r"\log_{10} N", '</msub><mspace width="0.167em"></mspace><mi>N</mi>'),
        (r"M_\odot", "<msub><mi>M</mi><mo>⊙</mo></msub>"),
        (r"f_\mathrm{b}", "<msub><mi>f</mi><mtext>b</mtext></msub>"),
        (r"\mathrm{x\_out}", "<mi>x_out</mi>"),
        ("$z$", "<mi>z</mi>"),
        ("a<b", "<mi>a</mi><mo>&lt;</mo><mi>b</mi>"),
        (r"\text{&lt;b&gt;}", "<mtext>&lt;b&gt;</mtext>"),
        (r"\href{javascript:x}{y}", "<mi>y</mi>"),
    ],
)
def test_labels_become_mathml(tex, html):
    made = tex_to_html(tex)
    assert html in made
    assert made.startswith("<math>")
    assert "href" not in made


@pytest.mark.parametrize("tex", [r"\nonsense", "a_", "{a", "a}", "\\", "100 % off"])
def test_a_label_that_is_no_tex_falls_back_to_the_escaped_name(tex):
    assert tex_to_html(tex, fallback="a<b") == "a&lt;b"


def test_units_stand_in_brackets_behind_labels():
    assert with_unit("t", "Msun / yr") == r"t\ [\mathrm{Msun\ /\ yr}]"


def test_a_label_that_is_a_word_is_not_a_product_of_letters():
    assert tex_to_html("modulus") == "modulus"
    assert tex_to_html("$z$").startswith("<math>")
