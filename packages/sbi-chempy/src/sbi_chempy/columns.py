r"""Which columns of a table of stars hold abundances, as catalogues name them.

A name is read as *element*, *ion* and *reference*, with or without brackets and separators:
``[Mg/Fe]``, ``__Mg_Fe_`` (astropy and VizieR), ``MG_FE``, ``mgfe``, ``FeI_H``, ``MgI``.

* Ions and molecules of one element (``CI`` and ``CH``, ``FeI`` and ``FeII``) are combined by
  inverse variance, :math:`x = \sum w_k x_k / \sum w_k` with :math:`w_k = 1 / \sigma_k^2`, and
  error :math:`(\sum w_k)^{-1/2} \max(1, \sqrt{\chi^2 / (n - 1)})`, so that ions that disagree
  widen it. A column of the element itself comes first.
* An element or ion without reference (``Mg``, ``MgI``) could be [X/H] or [X/Fe]: the option
  ``bare_columns`` decides, and is asked for.
* Absolute abundances A(X) = log10(n_X / n_H) + 12 (``A_Mg``, ``log_eps_Mg``) are converted to
  [X/H] with the Sun of the model (Asplund et al. 2009) if the option ``absolute`` is set.
* [M/H] is read as [Fe/H] where there is no iron.

The results are columns ``mg_fe``, ``mg_h``, ... of the reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sbi_chempy.config import Bare
from sbi_chempy.constants import ELEMENTS, SOLAR_A
from sbi_chempy.frame import OBSERVED
from sbi_core import ColumnReader, ObservationError

__all__ = ["add_named", "all_nines", "error_of", "listed", "plain"]

F64 = NDArray[np.float64]
REFERENCES = ("h", "fe", "mg")
MODEL = tuple(e.lower() for e in OBSERVED)
SUN = {e.lower(): a for e, a in zip(ELEMENTS, SOLAR_A, strict=True)}  # A(X)
_SYMBOLS = (
    "Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr "
    "Rb Sr Y Zr Nb Mo Ru Rh Pd Ag Cd Sn Sb Te Ba La Ce Pr Nd Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W "
    "Re Os Ir Pt Au Hg Tl Pb Bi Th U He"
).split()
_ION = r"(?P<ion>I{1,3}|IV|V)?"
_ANY = "|".join(sorted(_SYMBOLS, key=len, reverse=True))
_PROPER = re.compile(rf"(?P<element>{_ANY}){_ION}_?(?P<reference>H|Fe|Mg)?")
_LOOSE = re.compile(rf"(?P<element>{_ANY}){_ION}_?(?P<reference>H|Fe|Mg)", re.IGNORECASE)
_NUMBERED = re.compile(  # Mg1_Fe, [Mg I/Fe]
    rf"(?P<element>{_ANY})(?:_?(?P<number>[123])|_(?P<ion>I{{1,3}}|IV|V))_(?P<reference>H|Fe|Mg)",
    re.IGNORECASE,
)
_BARE_NUMBERED = re.compile(rf"({_ANY})(?:([12])|_(I{{1,2}}))", re.IGNORECASE)  # MG1, Mg I
_ROMAN = {"1": "I", "2": "II", "3": "III"}
_OTHERS = {  # like abundances, and not read
    re.compile(r"alpha_?(fe|m|h)", re.IGNORECASE): "alpha elements together",
    re.compile(rf"({_ANY})_?\d{{3,5}}_?(H|Fe)", re.IGNORECASE): "one spectral line: --column "
    "mg_fe=NAME reads a column as [Mg/Fe]",
    re.compile(rf"({_ANY})_?(over|to|by|vs)_?(H|Fe|Mg)", re.IGNORECASE): "unknown form: --column "
    "mg_fe=NAME reads a column as [Mg/Fe]",
}
_LEAST_ABSOLUTE = 3.5  # A(X) of the elements of the model is larger, [X/H] smaller
_ABSOLUTE = re.compile(
    rf"(?:a|log_?eps(?:ilon)?|eps|log_?e)_(?P<element>{_ANY}){_ION}", re.IGNORECASE
)
_MOLECULES = ("CH", "NH", "OH")  # [C/H], or, like ions, C from CH
_METALS = re.compile(r"m_?h", re.IGNORECASE)
_NO_VALUE = re.compile(  # columns beside an abundance: errors, flags, limits, numbers of lines
    r"([eblnfqruowdEB]|(?i:err|error|sigma|sig|unc|std|flag|nr|ivar|true|num))_.*"
    r"|(?i:.*_(e|err\w*|error|sigma|sig|unc|std|flag|ivar|rms|n|num|lines|nlines|lower|upper))"
    r"|(?i:.*err)"
)
_BOUNDS = (  # lower and upper bound of a value, in the case that catalogues write
    ("b_{}", "B_{}"), ("b_{}", "B_{}1"), ("{}_lower", "{}_upper"), ("{}_lo", "{}_hi"),
    ("{}_p16", "{}_p84"), ("{}_16", "{}_84"),
)  # fmt: skip
_ENOUGH = 20  # stars to compare spreads
_SHOWN = 8  # columns named in a note


@dataclass(frozen=True)
class _Named:
    """A column that holds an abundance; ``reference`` is "" for a bare element."""

    column: str
    element: str
    ion: str
    reference: str


def plain(name: str) -> str:
    """Return a column name with ``_`` for brackets and separators, its case unchanged."""
    return re.sub(r"[^A-Za-z0-9+]+", "_", name).strip("_")


def listed(columns: Iterable[str]) -> str:
    """Return e.g. ``"'a', 'b' and 3 more"``."""
    names = [f"'{c}'" for c in columns]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def all_nines(values: F64) -> NDArray[np.bool_]:
    """Return which values are marks of missing ones in dex: -9.99, 99, -999.9, ..."""
    bad = np.zeros(values.shape, bool)
    for k in np.flatnonzero(np.abs(np.nan_to_num(values)) >= 9):
        bad[k] = re.fullmatch(r"-?9+\.?9+", f"{values[k]:.6g}") is not None  # float32, too
    return bad


def error_of(reader: ColumnReader, names: Iterable[str], unit: str) -> str | None:
    """Return the column with the standard deviation of a quantity, or None.

    Inverse variances (``ivar_x``; 0 means not measured) and bounds (``b_x`` and ``B_x``,
    ``x_lower`` and ``x_upper``) become standard deviations; half the distance of the bounds.
    """
    names = list(names)
    direct = reader.find_error(names)
    if direct is not None:
        return direct
    weight = reader.find([form.format(n) for n in names for form in ("ivar_{}", "{}_ivar")])
    if weight is not None:
        ivar = reader.values(weight)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.where(ivar > 0, ivar**-0.5, np.nan)
        note = "inverse variances (ivar) read as errors"
        return _added(reader, f"e_{names[0]}", error, note)
    for low, high in ((a.format(n), b.format(n)) for n in names for a, b in _BOUNDS):
        if low in reader.table.colnames and high in reader.table.colnames:
            half = (reader.values(high, unit) - reader.values(low, unit)) / 2
            note = f"error of '{names[0]}': half the distance of '{low}' and '{high}'"
            one = _added(reader, f"e_{names[0]}", half, note)
            reader.table[one].unit = unit or None
            return one
    return None


def _added(reader: ColumnReader, name: str, values: F64, note: str) -> str:
    reader.add(name, values)
    if note not in reader.notes:
        reader.notes.append(note)
    return name


def add_named(
    reader: ColumnReader, *, bare: Bare | None = None, absolute: bool = False
) -> dict[str, str]:
    """Add columns ``fe_h``, ``mg_fe``, ... to the reader; return unused columns and the reason.

    Parameters
    ----------
    reader
        The table; changed in place.
    bare
        Meaning of elements without reference; None: ask for it where an element has no other
        column.
    absolute
        Whether to convert absolute abundances.

    Raises
    ------
    ObservationError
        If two columns hold the same abundance, or an option has to be set.
    """
    named, unused = _named(reader.table.colnames)
    if bare != "ignore":
        named = [replace(n, reference="absolute") if _large(reader, n) else n for n in named]
    _forget_sulphur(reader, named)
    for n in named:
        flag = reader.find((f"u_{n.column}",))  # of VizieR
        if flag is not None:
            reader.names.setdefault(f"l_{plain(n.column)}".lower(), flag)
    known = {n.element for n in named if n.reference}
    lost = [n for n in named if not n.reference and n.element not in known]
    if lost and bare is None and any(n.element in MODEL for n in lost):
        raise ObservationError(_which_reference(reader, lost))
    used: set[str] = set()
    for element in MODEL:
        mine = [n for n in named if n.element == element]
        if bare is None or bare == "ignore":
            mine = [n for n in mine if n.reference]
        for reference in REFERENCES:
            at = [n for n in mine if (n.reference or _meant(n, bare)) == reference]
            used |= _add(reader, f"{element}_{reference}", at)
        at = [n for n in mine if n.reference == "absolute"]
        if at and not any(reader.find((f"{element}_{r}",)) for r in REFERENCES):
            used |= _add_absolute(reader, element, at, absolute)
    used |= _add_metals(reader, unused)
    for n in named:
        if n.column not in used:
            unused.setdefault(n.column, _why(n, bare))
    meant = [n.column for n in named if not n.reference and n.column in used]
    if meant:
        form = "[X/H]" if bare == "x_h" else "[X/Fe]"
        reader.notes.append(f"read as {form} (simulator.bare_columns={bare}): {listed(meant)}")
        spreads = _spreads(reader, meant)
        if spreads is not None and spreads[2] != form:
            reader.notes.append(f"their spread from star to star is like that of {spreads[2]}")
    return unused


def _large(reader: ColumnReader, n: _Named) -> bool:
    """Return whether a bare element has values like absolute abundances."""
    data = reader.table[n.column]
    if n.reference or n.element not in MODEL or data.dtype.kind != "f" or data.ndim > 1:
        return False
    values = np.ma.filled(np.ma.asarray(data), np.nan)
    values = values[np.isfinite(values) & ~all_nines(values)]
    return bool(values.size and np.median(values) > _LEAST_ABSOLUTE)


def _why(n: _Named, bare: Bare | None) -> str:
    """Return why the column of an abundance is not used."""
    if n.element not in MODEL:
        mg = f"[{n.element.capitalize()}/Mg], " if n.reference == "mg" else ""
        return f"{mg}not an element of the model"
    if n.reference == "absolute" and n.element == "fe":
        return "[alpha/Fe], or A(Fe) beside [Fe/H]; --column fe_h=NAME reads [Fe/H]"
    if bare == "ignore" and not n.reference:
        return "simulator.bare_columns=ignore"
    if n.reference == "mg":
        return f"[{n.element.capitalize()}/Mg]; another column of the element is read"
    return "another column is read"


def _forget_sulphur(reader: ColumnReader, named: list[_Named]) -> None:
    """Take care that ``SI_Fe`` (S I) and ``NI_Fe`` (N I) are not read as silicon and nickel."""
    for n in named:
        key = f"{n.element}{n.ion}_{n.reference}".lower()
        if n.ion and reader.names.get(key) is not None and plain(n.column).lower() == key:
            del reader.names[key]
            for other in named:
                if f"{other.element}_{other.reference}" == key and not other.ion:
                    reader.add(other.column, reader.table[other.column])


def _meant(n: _Named, bare: Bare | None) -> str:
    return "fe" if bare == "x_fe" and n.element != "fe" else "h"


def _which_reference(reader: ColumnReader, bare: list[_Named]) -> str:
    """Return the question whether columns are [X/H] or [X/Fe], with what their values suggest."""
    columns = [n.column for n in bare if n.element in MODEL]
    msg = (
        f"{reader.source}: columns without reference element in the name: {listed(columns)}: --set "
        "simulator.bare_columns=x_h reads [X/H], x_fe [X/Fe], and ignore leaves them out"
    )
    spreads = _spreads(reader, columns)
    if spreads is None:
        return msg
    alone, less, form = spreads
    return (
        f"{msg}; values vary by {alone:.2f} dex from star to star, and by {less:.2f} dex after "
        f"subtracting [Fe/H], as {form} would"
    )


def _spreads(reader: ColumnReader, columns: Sequence[str]) -> tuple[float, float, str] | None:
    """Return the spread of values, without [Fe/H], and the form that has it; None if unknown."""
    iron = next((n for n in ("fe_h", "feh") if reader.find((n,)) is not None), None)
    if iron is None:
        return None
    fe = reader.values(str(reader.find((iron,))), "dex")
    x = np.stack([reader.values(c, "dex") for c in columns])
    good = np.isfinite(x) & np.isfinite(fe)
    if good.sum(1).min() < _ENOUGH:
        return None
    alone = np.median([np.std(v[g]) for v, g in zip(x, good, strict=True)])
    less = np.median([np.std((v - fe)[g]) for v, g in zip(x, good, strict=True)])
    return float(alone), float(less), "[X/Fe]" if alone < less else "[X/H]"


def _named(columns: Iterable[str]) -> tuple[list[_Named], dict[str, str]]:
    """Return the columns that hold abundances, and similar ones that are not read."""
    columns = list(columns)
    # with "Mg" or "SiI" beside it, "SI" is sulphur; beside "MG" it is silicon
    proper = any(re.match(r"(He|Ne|Mg|Si|Fe|Na|Al|Ca|Ti|Cr|Mn|Ni)(?![a-z])", plain(c))
                 for c in columns)  # fmt: skip
    numbered = any(re.fullmatch(r"(?i)(mg|si)(_I|1)", plain(c)) for c in columns)
    names = {plain(c) for c in columns}
    named, unused = [], {}
    for column in columns:
        name = plain(column)
        one = _parse(column, name, proper)
        if name[1:] == "_Mg" and "Mg" in names:  # n_Mg, lines of Mg
            continue
        match = _BARE_NUMBERED.fullmatch(name) if numbered else None
        other = next((why for form, why in _OTHERS.items() if form.fullmatch(name)), None)
        if one is not None and any(c.isalpha() and not c.isascii() for c in column):
            other = "a letter in its name is not understood"
        if other is not None:
            unused[column] = other
        elif match:
            ion = _ROMAN.get(match[2], match[3] or "").upper()
            named.append(_Named(column, match[1].lower(), ion, ""))
        elif one is not None:
            named.append(one)
        elif not _NO_VALUE.fullmatch(name):
            stem = name.rpartition("_")[0]
            similar = _parse(column, stem, proper) if stem else None
            if similar is not None and similar.element in MODEL:
                unused[column] = _reason(name.rpartition("_")[2])
    symbols = [n for n in named if not n.reference and not n.ion and n.element in MODEL]
    if not any(len(n.element) == 2 for n in symbols):  # "C", "N", "O" alone are other things
        named = [n for n in named if n not in symbols]
    if any(n.ion and not n.reference for n in named):  # beside "CI", "CH" is a molecule
        named = [
            replace(n, ion=n.column, reference="") if plain(n.column) in _MOLECULES else n
            for n in named
        ]
    # V, K, U, W may be magnitudes or velocities, A_V an extinction
    named = [n for n in named if n.reference in REFERENCES or n.ion or n.element in MODEL]
    return named, unused


def _reason(ending: str) -> str:
    """Return why a column with this ending is not read."""
    if ending.lower() == "gce":
        return "corrected for chemical evolution, which is what the model fits"
    if ending.capitalize() in _SYMBOLS:
        return "relative to an element other than Fe and Mg"
    return "unknown ending: --column mg_fe=NAME reads a column as [Mg/Fe]"


def _parse(column: str, name: str, proper: bool) -> _Named | None:
    match = _ABSOLUTE.fullmatch(name)
    if match:
        return _Named(column, match["element"].lower(), match["ion"] or "", "absolute")
    match = _NUMBERED.fullmatch(name)
    if match:
        ion = _ROMAN.get(match["number"], match["ion"] or "").upper()
        return _Named(column, match["element"].lower(), ion, match["reference"].lower())
    match = _PROPER.fullmatch(name)
    if match and not (name.isupper() and len(name) > 1 and not proper):
        reference = (match["reference"] or "").lower()
        return _Named(column, match["element"].lower(), match["ion"] or "", reference)
    match = _LOOSE.fullmatch(name)
    if match:
        ion = (match["ion"] or "").upper()
        return _Named(column, match["element"].lower(), ion, match["reference"].lower())
    if name.isupper() and name.capitalize() in OBSERVED:
        return _Named(column, name.lower(), "", "")
    return None


def _add(reader: ColumnReader, name: str, at: list[_Named]) -> set[str]:
    """Add one abundance from its columns; return those that were used."""
    direct = reader.find((name,))
    if direct is not None:
        return {direct}
    whole = [n.column for n in at if not n.ion]
    if len(whole) > 1:
        msg = (
            f"{reader.source}: columns '{whole[0]}' and '{whole[1]}' are both {_words(name)}; "
            f"choose one: --column {name}={whole[0]}"
        )
        raise ObservationError(msg)
    columns = whole or [n.column for n in at]
    if columns:
        value, error = _combined(reader, columns)
        if len(columns) > 1:
            reader.notes.append(
                f"{_words(name)}: {listed(columns)} combined by inverse variance"
                if error is not None
                else f"{_words(name)}: mean of {listed(columns)}, which have no errors"
            )
        reader.add(name, value)
        if error is not None:
            reader.add(f"e_{name}", error)
    return set(columns)


def _combined(reader: ColumnReader, columns: list[str]) -> tuple[F64, F64 | None]:
    """Return mean and error of columns of one quantity; no error if one of them has none."""
    x = np.stack([reader.values(c, "dex") for c in columns])
    x[np.stack([all_nines(v) for v in x])] = np.nan
    error_columns = [error_of(reader, (c,), "dex") for c in columns]
    if any(c is None for c in error_columns):
        n = np.isfinite(x).sum(0)
        return np.where(n > 0, np.nansum(x, 0) / np.maximum(n, 1), np.nan), None
    err = np.stack([reader.values(c, "dex") for c in error_columns if c is not None])
    if len(columns) == 1:
        return x[0], err[0]
    good = np.isfinite(x) & (err > 0)
    weight = np.where(good, 1 / np.where(good, err, 1) ** 2, 0)
    n, total = good.sum(0), weight.sum(0)
    safe = np.where(total > 0, total, 1)
    mean = (weight * np.where(good, x, 0)).sum(0) / safe
    chi2 = (weight * np.where(good, x - mean, 0) ** 2).sum(0)
    scatter = np.sqrt(np.maximum(1, chi2 / np.maximum(n - 1, 1)))
    # where no ion has an error the row keeps its value and the bad error, to be reported
    first = np.isfinite(x).argmax(0), np.arange(x.shape[1])
    return np.where(n > 0, mean, x[first]), np.where(n > 0, scatter / np.sqrt(safe), err[first])


def _add_absolute(reader: ColumnReader, element: str, at: list[_Named], absolute: bool) -> set[str]:
    columns = [n.column for n in at if not n.ion] or [n.column for n in at]
    value, error = _combined(reader, columns)
    measured = np.abs(value[np.isfinite(value)])
    if element == "fe" and measured.size and np.median(measured) < 2:
        return set()  # [a/Fe], the alpha elements together
    if not absolute:
        msg = (
            f"{reader.source}: {listed(columns)} is an absolute abundance, A(X) = log10(n_X/n_H) + "
            "12; --set simulator.absolute=true converts such columns to [X/H] with the Sun of "
            "Asplund et al. 2009, the scale of the model"
        )
        raise ObservationError(msg)
    name = f"{element}_h"
    reader.add(name, value - SUN[element])
    if error is not None:
        reader.add(f"e_{name}", error)
    reader.notes.append(
        f"{listed(columns)} converted to {_words(name)} with A(Sun) = {SUN[element]:.2f} (Asplund "
        "et al. 2009)"
    )
    return set(columns)


def _add_metals(reader: ColumnReader, unused: dict[str, str]) -> set[str]:
    """Read [M/H] as [Fe/H] where a table has no iron."""
    columns = [c for c in reader.table.colnames if _METALS.fullmatch(plain(c))]
    if not columns:
        return set()
    if reader.find(("fe_h", "fe_mg")) is not None:
        unused[columns[0]] = "[M/H]; [Fe/H] is read"
        return set()
    value, error = _combined(reader, columns[:1])
    reader.add("fe_h", value)
    if error is not None:
        reader.add("e_fe_h", error)
    reader.notes.append(
        f"'{columns[0]}' ([M/H]) read as [Fe/H], which the table lacks: they differ in stars "
        "enhanced in alpha elements"
    )
    return set(columns)


def _words(name: str) -> str:
    """Return e.g. ``[Mg/Fe]`` for ``mg_fe``."""
    element, _, reference = name.partition("_")
    return f"[{element.capitalize()}/{reference.capitalize()}]"
