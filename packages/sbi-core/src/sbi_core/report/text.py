r"""Numbers and TeX labels as a reader expects them in print.

A value is rounded where its error ends: two digits of the error when they begin with 1 or 2,
otherwise one, so that rounding changes no error by more than a sixth.

>>> measurement(-2.29834, 0.00311)
'−2.298 ± 0.003'
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

__all__ = [
    "count",
    "duration",
    "measurement",
    "number",
    "percent",
    "plain",
    "prior_words",
    "tex_to_html",
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


def measurement(mean: float, sd: float, digits: int | None = None) -> str:
    """Return ``mean ± sd``, both rounded at the same decimal place.

    Parameters
    ----------
    mean, sd
        Value and its standard deviation.
    digits
        Significant digits of the error; by default two below 3 and one from there.

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
    power = math.floor(math.log10(max(abs(mean), sd)))
    if not -3 <= power < 5:
        inner = measurement(mean / 10.0**power, sd / 10.0**power, digits)
        return f"({inner}) × 10{exponent_words(power)}"
    mantissa, exponent = f"{sd:.1e}".split("e")
    kept = digits or (2 if float(mantissa) < 3 else 1)
    decimals = min(kept - 1 - int(exponent), 15)
    return f"{_fixed(mean, decimals)} ± {_fixed(sd, decimals)}"


def plain(value: float) -> str:
    """Return a number as somebody wrote it down, up to six digits and without padding.

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
    "normal": "N({loc}, {scale})",
    "truncnormal": "N({loc}, {scale})",
    "halfnormal": "half-normal({scale})",
    "lognormal": "log-normal({loc}, {scale})",
    "uniform": "U({low}, {high})",
    "loguniform": "log-uniform({low}, {high})",
    "integer": "integers {low} to {high}",
    "beta": "Beta({a}, {b})",
    "dirichlet": "Dirichlet({alpha})",
    "sticks": "stick-breaking with Beta({a}; {b})",
    "mvnormal": "N({mean}, covariance in the configuration)",
    "table": "table, {grid}",
    "discrete": "one of {values}",
    "fixed": "fixed at {value}",
    "implicit": "implicit, drawn by {sampler}",
}
_TRUNCATED = ("truncnormal", "beta")


def prior_words(spec: Mapping[str, Any]) -> str:
    """Return a prior's table (``Prior.to_spec()``) as statisticians write it.

    >>> prior_words({"family": "truncnormal", "loc": 0.5, "scale": 0.1, "low": 0, "high": 1})
    'N(0.5, 0.1), between 0 and 1'
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

_SYMBOLS = {
    **dict(
        zip(
            "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma "
            "tau upsilon phi chi psi omega varepsilon vartheta varphi varrho varsigma "
            "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega".split(),
            "αβγδεζηθικλμνξπρστυφχψωεϑφϱςΓΔΘΛΞΠΣΥΦΨΩ",
            strict=True,
        )
    ),
    **{"odot": "☉", "oplus": "⊕", "star": "⋆", "ast": "∗", "times": "×", "cdot": "·", "pm": "±"},
    **{"infty": "∞", "sim": "∼", "le": "≤", "leq": "≤", "ge": "≥", "geq": "≥", "ell": "ℓ"},
    **{"langle": "⟨", "rangle": "⟩", "prime": "′", "mid": "|", "ldots": "…", "partial": "∂"},
    **{"quad": "\u2003", "left": "", "right": "", "to": "→", "approx": "≈", "propto": "∝"},
}
_FUNCTIONS = {"log", "ln", "lg", "exp", "sin", "cos", "tan", "max", "min"}
_UPRIGHT = {"mathrm", "mathsf", "text", "textrm", "operatorname", "mathtt"}
_STYLED = {"mathbf": "b", "mathit": "i"}
_ACCENTS = {"dot": "\u0307", "ddot": "\u0308", "hat": "\u0302", "tilde": "\u0303", "bar": "\u0304"}
_SPACES = {",": _THIN, ";": _THIN, ":": _THIN, " ": "\u00a0", "!": ""}
_TOKEN = re.compile(r"\\[A-Za-z]+ *|\\.|\s+|.", re.DOTALL)


def tex_to_html(label: str, fallback: str = "") -> str:
    r"""Return a TeX label as escaped HTML; ``fallback`` (escaped) for TeX it does not know.

    >>> tex_to_html(r"\alpha_\mathrm{IMF}")
    '<i>α</i><sub>IMF</sub>'
    """
    try:
        return _Tex(label.replace("$", "")).html()
    except ValueError:
        return escape(fallback or label)


class _Tex:
    """The part of TeX that labels are written in: symbols, groups, scripts, fonts, accents."""

    def __init__(self, source: str) -> None:
        # TeX ignores spaces in formulae, except the escaped one.
        found = [t if t == "\\ " else t.strip() for t in _TOKEN.findall(source)]
        self.tokens = [t for t in found if t]
        self.upright = False

    def html(self) -> str:
        out = "".join(self.atoms())
        if self.tokens:
            raise ValueError("a brace is closed but was never opened")
        return out

    def atoms(self) -> Iterator[str]:
        """Yield atoms with their scripts, up to the end of the group."""
        while self.tokens and self.tokens[0] != "}":
            head = self.tokens[0].lstrip("\\")
            yield self.atom()
            while self.tokens and self.tokens[0] in "_^":
                tag = "sub" if self.tokens.pop(0) == "_" else "sup"
                yield f"<{tag}>{self.atom()}</{tag}>"
            if head in _FUNCTIONS and self.tokens and re.match(r"[\\\w]", self.tokens[0]):
                yield _THIN

    def atom(self) -> str:
        """Return one group, command or character."""
        if not self.tokens:
            raise ValueError("something is missing at the end")
        token = self.tokens.pop(0)
        if token == "{":
            return self.group()
        if token.startswith("\\") and len(token) > 1:
            return self.command(token[1:])
        if token in "}_^\\":
            raise ValueError(f"unexpected {token}")
        if token.isalpha() and not self.upright:
            return f"<i>{escape(token)}</i>"
        return escape(token.replace("-", _MINUS) if not self.upright else token)

    def group(self) -> str:
        out = "".join(self.atoms())
        if not self.tokens:
            raise ValueError("a brace is not closed")
        self.tokens.pop(0)
        return out

    def command(self, name: str) -> str:
        if name in _SYMBOLS:
            symbol = _SYMBOLS[name]
            return f"<i>{symbol}</i>" if symbol.isalpha() and symbol.islower() else symbol
        if name in _FUNCTIONS:
            return name
        if name in _UPRIGHT:
            return self.upright_atom()
        if name in _STYLED:
            return f"<{_STYLED[name]}>{self.upright_atom()}</{_STYLED[name]}>"
        if name in _ACCENTS:
            return re.sub(r"(?<![<&/])\b(\w)\b(?!>)", rf"\1{_ACCENTS[name]}", self.atom(), count=1)
        if name in _SPACES:
            return _SPACES[name]
        if not name.isalpha():
            return escape(name)  # an escaped character, such as \_ or \%
        raise ValueError(f"unknown command {name}")

    def upright_atom(self) -> str:
        before, self.upright = self.upright, True
        out = self.atom()
        self.upright = before
        return out
