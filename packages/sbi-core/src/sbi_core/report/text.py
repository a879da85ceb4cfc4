r"""Numbers, priors and TeX labels as a reader expects them in print.

One rule of rounding everywhere: two significant digits of the error, and the value to the same
decimal place.

>>> measurement(-2.29834, 0.00311)
'−2.2983 ± 0.0031'
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from html import escape, unescape
from itertools import groupby
from typing import TYPE_CHECKING, Any

from latex2mathml.converter import convert_to_element

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

__all__ = [
    "count",
    "duration",
    "interval",
    "measurement",
    "number",
    "p_value",
    "percent",
    "plain",
    "prior_words",
    "tex_to_html",
    "with_unit",
]

_MINUS, _THIN, _NARROW = "\u2212", "\u2009", "\u202f"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MISSING = "not finite"

# ------------------------------------------------------------------------------------- numbers


def number(value: float, digits: int = 3) -> str:
    """Return a number with so many significant digits.

    >>> number(0.00123456), number(-12345.6), number(1234567.0)
    ('0.00123', '−12300', '1.23 × 10⁶')
    """
    value = float(value)
    if not math.isfinite(value):
        return _MISSING
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = int(exponent)
    if -4 <= power < 5:
        return _fixed(value, digits - 1 - power)
    return f"{mantissa.replace('-', _MINUS)} × 10{exponent_words(power)}"


def measurement(mean: float, sd: float) -> str:
    """Return ``mean ± sd``: two significant digits of the error, and as many decimals of the mean.

    Returns
    -------
    str
        With a common power of ten outside 0.001 to 100 000.
    """
    mean, sd = float(mean), float(sd)
    if not math.isfinite(mean):
        return _MISSING
    if not (math.isfinite(sd) and sd > 0):
        return f"{number(mean, 4)} ± {number(sd)}"
    power = _common_power(mean, sd)
    decimals = _decimals(sd / 10.0**power)
    value, error = (_fixed(v / 10.0**power, decimals) for v in (mean, sd))
    words = f"{value} ± {error}"
    return f"({words}) × 10{exponent_words(power)}" if power else words


def interval(low: float, middle: float, high: float, *others: float) -> tuple[str, ...]:
    """Return a value with the distances to the ends of its interval, rounded by the smaller one.

    Further values, for example the true one, are rounded to the same decimal place.

    >>> interval(4.913, 5.2312, 5.562, 5.1)
    ('5.23', '+0.33', '−0.32', '5.10')
    """
    up, down = high - middle, middle - low
    if not all(map(math.isfinite, (low, middle, high))):
        return (_MISSING, "", "", *(number(v, 4) for v in others))
    errors = [e for e in (up, down) if e > 0]
    if not errors:
        return (*(number(v, 4) for v in (middle, 0, 0)), *(number(v, 4) for v in others))
    power = _common_power(middle, max(errors))
    unit = 10.0**power
    decimals = _decimals(min(errors) / unit)
    value, above, below, *rest = (_fixed(v / unit, decimals) for v in (middle, up, down, *others))
    tail = f" × 10{exponent_words(power)}" if power else ""
    return value + tail, f"+{above}", f"{_MINUS}{below}", *(v + tail for v in rest)


def _common_power(value: float, error: float) -> int:
    """Return the power of ten that is written apart: 0 from 0.001 to 100 000."""
    power = math.floor(math.log10(max(abs(value), error)))
    return 0 if -3 <= power < 5 else power


def _decimals(error: float) -> int:
    """Return the decimal place of the second significant digit of an error."""
    return min(1 - int(f"{error:.1e}".split("e")[1]), 15)


def p_value(p: float) -> str:
    """Return a p-value with two digits.

    >>> p_value(0.4123), p_value(3e-65)
    ('0.41', '3.0 × 10⁻⁶⁵')
    """
    return number(p, 2)


def plain(value: float) -> str:
    """Return a number with up to six digits and without padding.

    >>> plain(-2.30), plain(13.797617)
    ('−2.3', '13.7976')
    """
    return f"{value:.6g}".replace("-", _MINUS)


def exponent_words(power: int) -> str:
    """Return an integer exponent in superscript digits."""
    return str(power).translate(_SUPERSCRIPT)


def count(n: float) -> str:
    """Return a whole number with narrow spaces between thousands from 10 000 on."""
    n = int(n)
    text = f"{n:,}".replace(",", _NARROW) if abs(n) >= 10_000 else str(n)
    return text.replace("-", _MINUS)


def percent(fraction: float) -> str:
    """Return a fraction in per cent, with two significant digits below 10 %."""
    value = 100 * float(fraction)
    return f"{number(value, 2 if abs(value) < 9.95 else 3)}{_NARROW}%"


def duration(seconds: float) -> str:
    """Return a time in the units people use.

    >>> duration(0.034), duration(12.34), duration(75), duration(5400)
    ('34 ms', '12.3 s', '1 min 15 s', '1 h 30 min')
    """
    s = float(seconds)
    if not math.isfinite(s):
        return _MISSING
    if s < 0.9995:
        return f"{round(1000 * s)} ms"
    if s < 59.95:
        return f"{s:.1f} s"
    if s < 3599.5:
        minutes, rest = divmod(round(s), 60)
        return f"{minutes} min {rest} s"
    hours, rest = divmod(round(s / 60), 60)
    return f"{hours} h {rest} min"


def _fixed(value: float, decimals: int) -> str:
    """Return value with so many decimals; negative decimals round to tens, hundreds, ..."""
    rounded = round(value, decimals)
    text = f"{rounded:.{max(decimals, 0)}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", _MINUS)


# -------------------------------------------------------------------------------------- priors

_PRIOR_WORDS = {
    "normal": "normal, mean {loc}, sd {scale}",
    "truncnormal": "normal, mean {loc}, sd {scale}",
    "halfnormal": "half-normal, scale {scale}",
    "lognormal": "log-normal, ln x with mean {loc}, sd {scale}",
    "uniform": "uniform, {low} to {high}",
    "loguniform": "log-uniform, {low} to {high}",
    "integer": "integers {low} to {high}",
    "beta": "Beta({a}, {b})",
    "dirichlet": "Dirichlet({alpha})",
    "sticks": "stick-breaking with Beta({a}; {b})",
    "mvnormal": "multivariate normal, mean {mean}, covariance in the configuration",
    "table": "tabulated, {grid}",
    "discrete": "one of {values}",
    "fixed": "fixed at {value}",
    "implicit": "implicit, drawn by {sampler}",
}
_TRUNCATED = ("truncnormal", "beta")


def prior_words(spec: Mapping[str, Any]) -> str:
    """Return a prior's table (``Prior.to_spec()``) in words.

    >>> prior_words({"family": "truncnormal", "loc": 0.5, "scale": 0.1, "low": 0, "high": 1})
    'normal, mean 0.5, sd 0.1, between 0 and 1'
    """
    family = str(spec.get("family", "unknown"))
    values = {k: _value_words(v) for k, v in spec.items() if k != "family"}
    try:
        words = _PRIOR_WORDS[family].format(**values)
    except KeyError:
        return f"{family}({', '.join(f'{k}={v}' for k, v in values.items())})"
    return words + (_limits(values) if family in _TRUNCATED else "")


def _limits(values: Mapping[str, str]) -> str:
    low, high = values.get("low"), values.get("high")
    if low is not None and high is not None:
        return f", between {low} and {high}"
    if low is not None:
        return f", above {low}"
    return f", below {high}" if high is not None else ""


def _value_words(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        if len(value) > 6:
            return f"{len(value)} values from {_value_words(value[0])} to {_value_words(value[-1])}"
        return ", ".join(_value_words(v) for v in value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return plain(value)
    return str(value)


# ----------------------------------------------------------------------------------------- TeX

_FUNCTION = re.compile(r"(\\(?:log|ln|lg|exp)(?:_\{[^{}]*\}|_\w)?)\s+(?=[\\\w{])")
_LETTER = re.compile(r"\\mathrm\{(\w)\}")
_WORD = re.compile(r"[A-Za-z]{3,}")  # a name, not a product of letters
_TAGS = {"mi", "mn", "mo", "mtext", "mrow", "msub", "msup", "msubsup", "mover", "munder", "mfrac",
         "msqrt", "mspace"}  # fmt: skip
_SPACE = re.compile(r"0?\.\d+em")


def tex_to_html(label: str, fallback: str = "") -> str:
    r"""Return a TeX label as MathML; ``fallback`` (escaped) where it is not valid TeX.

    >>> tex_to_html(r"\alpha_\mathrm{IMF}")
    '<math><mrow><msub><mi>α</mi><mrow><mi>IMF</mi></mrow></msub></mrow></math>'
    """
    tex = label.replace("$", "")
    if _WORD.fullmatch(tex):
        return tex
    if _balanced(tex):
        # the converter sets \log x without a space, and a single upright letter in italics
        tex = _LETTER.sub(r"\\text{\1}", _FUNCTION.sub(r"\1\\,", tex))
        try:
            return _mathml(convert_to_element(tex))
        except Exception:  # a dozen classes without a common base
            pass
    return escape(fallback or label)


def _balanced(tex: str) -> bool:
    """Return True if braces match and there is no comment; the converter does not check this."""
    depth = 0
    for token in re.findall(r"\\.|[{}%]", tex):
        depth += {"{": 1, "}": -1}.get(token, 0)
        if depth < 0 or token == "%":
            return False
    return depth == 0 and not tex.endswith("\\")


def _mathml(element: Element) -> str:
    """Return an element and what is in it; of attributes, only what labels need.

    Raises
    ------
    ValueError
        If it holds an unknown command, or more than a formula (links, for example).
    """
    text = unescape(element.text or "")
    if (element.tag != "math" and element.tag not in _TAGS) or "\\" in text:
        msg = f"'{element.tag}' with '{text}' does not belong into a label"
        raise ValueError(msg)
    inner = escape(text)
    for upright, same in groupby(element, _is_upright_letter):
        if upright:  # one identifier of several letters, which is upright by itself
            letters = escape("".join(unescape(e.text or "") for e in same))
            normal = ' mathvariant="normal"' if len(letters) == 1 else ""
            inner += f"<mi{normal}>{letters}</mi>"
        else:
            inner += "".join(map(_mathml, same))
    width = element.get("width", "")
    space = f' width="{width}"' if _SPACE.fullmatch(width) else ""
    return f"<{element.tag}{space}>{inner}</{element.tag}>"


def _is_upright_letter(element: Element) -> bool:
    return element.tag == "mi" and element.get("mathvariant") == "normal"


# ----------------------------------------------------------------------------------------- units


def with_unit(label: str, unit: str) -> str:
    r"""Return a TeX label with its unit in brackets, for axes.

    >>> with_unit(r"t_{50}", "Gyr"), with_unit(r"\alpha", "")
    ('t_{50}\\ [\\mathrm{Gyr}]', '\\alpha')
    """
    if not unit:
        return label
    words = re.sub(r"([_%#&])", r"\\\1", unit).replace(" ", r"\ ")
    return rf"{label}\ [\mathrm{{{words}}}]"
