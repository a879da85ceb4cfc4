"""Random tables of objects in every format, what readers have to make of them, and the readers."""

import bz2
import csv
import gzip
import lzma
import warnings

import numpy as np
import pandas as pd
from astropy.table import MaskedColumn, QTable, Table

from sbi_core.components import Simulator
from sbi_core.data.observations import Observable, repeated
from sbi_core.data.reading import Reading
from sbi_core.errors import SbiError
from sbi_core.pipeline.reading import objects_of, open_objects, read_objects

TEXT = ("csv", "tsv", "semicolon")
TYPED = ("ecsv", "txt", "mrt", "fits", "vot", "h5", "parquet")
FORMATS = (*TEXT, *TYPED)
SPELLINGS = ("{x}_{y}", "[{X}/{Y}]", "{XX}_{YY}", "__{X}_{Y}_", "{X}-{Y}", "{X}/{Y}")
ERRORS = ("e_{}", "{}_err", "{}_ERROR", "err_{}", "sigma_{}", "E_{}", "{}_std")
NAMES = ("mg_fe", "fe_h", "o_fe")
MISSING = ("", "N/A", "nan", "NaN", "null", "--", "None", "-9999", "-999.0", "-9999.99")
BAD_ERRORS = ("0.0", "-1.0", "inf")
IDS = (
    "star-{}", "00{}", "{}.10", "{}E5", "{}", "#{}", "{}" + "x" * 300, '{} 5" star', "a, {}; b",
    "'{}'", "étoile {}",
)  # fmt: skip
COMPRESSED = {"": None, ".gz": gzip, ".bz2": bz2, ".xz": lzma}


class Plain(Simulator):
    """Three observables; nothing is simulated."""

    name, version = "plain", "1"
    observables = tuple(Observable(n, unit="dex") for n in NAMES)
    default_error = 0.1

    def simulate(self, theta, rng):
        raise NotImplementedError


class RandomTable:
    """Cells as text, and what is left of them after reading."""

    def __init__(self, rng, form):
        self.rng, self.form = rng, form
        self.n = n = int(rng.integers(1, 14))
        self.cells, self.units, self.words = {}, {}, set()
        self.x, self.err = np.full((n, 3), np.nan), np.full((n, 3), np.nan)
        self.bad = np.zeros(n, bool)
        for name in rng.permutation(NAMES)[: rng.integers(1, 4)]:
            self._observable(str(name))
        self._names()
        if rng.random() < 0.5:
            self.cells["n_lines"] = [
                "0",
                *(str(v) if rng.random() < 0.8 else "" for v in range(1, n)),
            ]
        order = rng.permutation(list(self.cells))
        self.cells = {str(c): self.cells[str(c)] for c in order}
        self.columns = {}  # what the user names
        if rng.random() < 0.3 and self.id_column:
            self.columns["id"] = "Nr"
            self.cells = {("Nr" if c == self.id_column else c): v for c, v in self.cells.items()}
            self.words = {"Nr" if c == self.id_column else c for c in self.words}

    def _observable(self, name):
        rng, n, k = self.rng, self.n, NAMES.index(name)
        x, y = name.split("_")
        form = str(rng.choice(SPELLINGS))
        title = form.format(x=x, y=y, X=x.title(), Y=y.title(), XX=x.upper(), YY=y.upper())
        value, seen = np.round(rng.normal(0, 0.3, n), 3), rng.random(n) > 0.25
        seen[0] |= self.form == "mrt"  # astropy writes none with an empty column
        gaps = rng.choice(MISSING, n)
        cells = [str(v) if s else str(g) for v, s, g in zip(value, seen, gaps, strict=True)]
        if rng.random() < 0.2:
            limit = rng.random(n) < 0.3
            limit[0] = True
            self.cells[f"l_{title}"] = ["<" if m else "" for m in limit]
            self.words.add(f"l_{title}")
            seen &= ~limit
        if self.form in TEXT and rng.random() < 0.3:
            row = int(rng.integers(n))
            cells[row] = str(rng.choice(["high", "1e", "0x1", "1_0", "0.1 0.2"]))
            self.bad[row], seen[row] = True, False
        if self.form in TEXT and rng.random() < 0.3:
            row = int(rng.integers(n))
            if not self.bad[row]:
                cells[row], seen[row] = f"<{value[row]}", False
        self.cells[title] = cells
        error = np.full(n, 0.1)
        if rng.random() < 0.9:
            error = np.round(rng.uniform(0.01, 0.2, n), 3)
            words = [str(v) for v in error]
            for row in np.flatnonzero(rng.random(n) < 0.1):
                words[row] = str(rng.choice(BAD_ERRORS[: 2 if self.form == "mrt" else 3]))
                self.bad[row] |= seen[row]
            self.cells[str(rng.choice(ERRORS)).format(title)] = words
        if self.form in ("ecsv", "fits", "vot"):
            self.units[title] = str(rng.choice(["", "dex", "[-]", "[Sun]"]))
        self.x[:, k], self.err[:, k] = np.where(seen, value, np.nan), np.where(seen, error, np.nan)

    def _names(self):
        rng, n = self.rng, self.n
        self.id_column = None
        self.ids, self.groups = [str(k) for k in range(n)], ["all"] * n
        if rng.random() < 0.8:
            some = {"txt": 5, "mrt": 5, "fits": -1}.get(self.form)  # FITS is ASCII
            style = str(rng.choice(IDS[:some]))
            numbers = rng.permutation(n)
            if rng.random() < 0.3:
                numbers = rng.integers(0, n, n)
            cells = [style.format(k) for k in numbers]
            if rng.random() < 0.3:
                cells = [c if not k or rng.random() < 0.8 else "" for k, c in enumerate(cells)]
            self.id_column = str(rng.choice(["id", "ID", "Star_ID", "name"]))
            self.cells[self.id_column] = cells
            self.words.add(self.id_column)
            self.ids = [c or f"row-{k}-without-id" for k, c in enumerate(cells)]
        if rng.random() < 0.4:
            cells = [str(rng.choice(["M67", "NGC-188", "1.10", ""])) for _ in range(n)]
            cells[0] = "M67"
            self.cells["group"] = cells
            self.words.add("group")
            self.groups = [c or "ungrouped" for c in cells]

    def answer(self):
        """Return rows, identifiers, groups, values and errors of the objects."""
        seen = np.isfinite(self.x)
        good = np.flatnonzero(seen.any(1) & ~self.bad)
        ids = np.asarray(self.ids, np.str_)
        good = good[~repeated(ids[good], seen[good].sum(1))]
        return (
            good.tolist(), ids[good].tolist(), [self.groups[k] for k in good],
            *(np.nan_to_num(v[good], nan=-77).round(4).tolist() for v in (self.x, self.err)),
        )  # fmt: skip

    # -- the table in files and in memory ---------------------------------------------------

    def typed(self):
        """Return an astropy table with numbers and masks."""
        table = Table()
        for name, cells in self.cells.items():
            mask = np.asarray([c in ("", "N/A", "null", "--", "None") for c in cells])
            if name in self.words or not all(map(_is_number, cells)):
                mask = np.asarray([not c for c in cells])
                column = MaskedColumn(np.asarray(cells, np.str_), mask=mask)
            else:
                numbers = [0.0 if m else float(c) for c, m in zip(cells, mask, strict=True)]
                if self.form == "mrt":  # fixed width, no NaN
                    mask |= ~np.isfinite(numbers)
                column = MaskedColumn(np.where(mask, 0, numbers), mask=mask)
            table[name] = column if mask.any() or self.rng.random() < 0.3 else column.filled()
            if self.units.get(name):
                table[name].unit = self.units[name]
            if table[name].dtype.kind == "f" and self.rng.random() < 0.3:
                table[name].format = ".1f"
        return table

    def written(self, folder):
        """Write the table; return the path."""
        suffix = {"semicolon": "csv"}.get(self.form, self.form)
        path = folder / f"t.{suffix}"
        if self.form in TEXT:
            self._text(path)
        else:
            self._astropy(self.typed(), path)
        packed = str(self.rng.choice(list(COMPRESSED)))
        if COMPRESSED[packed] is None or self.form in ("h5", "parquet"):
            return path
        target = path.with_name(path.name + packed)
        with COMPRESSED[packed].open(target, "wb") as f:
            f.write(path.read_bytes())
        return target

    def _astropy(self, table, path):
        options = {
            "ecsv": {"format": "ascii.ecsv"}, "txt": {"format": "ascii.basic"},
            "mrt": {"format": "ascii.mrt"}, "vot": {"format": "votable"},
            "h5": {"path": "t", "serialize_meta": True}, "fits": {}, "parquet": {},
        }[self.form]  # fmt: skip
        for name in table.colnames:
            table[name].format = None  # formats of the display would be written
        table.write(path, overwrite=True, **options)

    def _text(self, path):
        rng = self.rng
        delimiter = {"csv": ",", "tsv": "\t", "semicolon": ";"}[self.form]
        comma = self.form == "semicolon" and rng.random() < 0.5
        rows = [list(self.cells), *(list(r) for r in zip(*self.cells.values(), strict=True))]
        if comma:
            numeric = [c not in self.words for c in self.cells]
            rows[1:] = [
                [c.replace(".", ",") if m else c for c, m in zip(r, numeric, strict=True)]
                for r in rows[1:]
            ]
        end = str(rng.choice(["\n", "\r\n", "\r"]))
        with path.open("w", encoding=str(rng.choice(["utf-8", "utf-8-sig"])), newline="") as f:
            if rng.random() < 0.3:
                f.write(f"# made for a test{end}# of readers{end}")
            quoting = csv.QUOTE_ALL if rng.random() < 0.3 else csv.QUOTE_MINIMAL
            writer = csv.writer(f, delimiter=delimiter, lineterminator=end, quoting=quoting)
            for k, row in enumerate(rows):
                writer.writerow(row)
                if k and rng.random() < 0.1:
                    f.write(end)

    def in_memory(self):
        """Yield the kinds of tables in memory."""
        table = self.typed()
        yield table
        yield QTable(table)
        words = {c: [v or None for v in cells] for c, cells in self.cells.items()}
        yield words
        frame = pd.DataFrame(words)
        if self.rng.random() < 0.5:
            frame = table.to_pandas()
        for name in frame.columns:
            if frame[name].dtype.kind == "O" and self.rng.random() < 0.3:
                frame[name] = frame[name].astype("category")
        index = self.columns.get("id", self.id_column)
        yield frame.set_index(index) if index and self.rng.random() < 0.5 else frame


def _is_number(cell):
    try:
        return "_" not in cell and (cell in MISSING or not np.isnan(float(cell)))
    except ValueError:
        return False


def answer_of(objects, start=0):
    """Return the same of observations that were read."""
    x = np.where(objects.batch.observed, objects.batch.x, np.nan)
    err = np.where(objects.batch.observed, objects.batch.x_err, np.nan)
    return (
        (objects.rows + start).tolist(), objects.id.tolist(), objects.group.tolist(),
        *(np.nan_to_num(v.astype(float), nan=-77).round(4).tolist() for v in (x, err)),
    )  # fmt: skip


def in_chunks(simulator, path, rows, reading):
    """Return the answer of a file in parts; of repeated identifiers one is kept, as infer does."""
    source = open_objects(simulator, path, rows, reading)
    parts = [objects_of(simulator, source, k) for k in range(len(source))]
    answers = [answer_of(p, source.bounds(k)[0]) for k, p in enumerate(parts)]
    joined = [sum((list(a[i]) for a in answers), []) for i in range(5)]
    seen = np.asarray([sum(v != -77 for v in row) for row in joined[3]], int)
    keep = np.flatnonzero(~repeated(np.asarray(joined[1], np.str_), seen))
    return tuple([column[k] for k in keep] for column in joined)


def check(seed, form, folder):
    """Compare all readers with the truth for one random table."""
    rng = np.random.default_rng([seed, FORMATS.index(form)])
    table = RandomTable(rng, form)
    want = table.answer()
    simulator, reading = Plain(), Reading(table.columns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = table.written(folder)
        sources = [("whole", path), *((type(t).__name__, t) for t in table.in_memory())]
        for name, source in sources:
            try:
                got = answer_of(read_objects(simulator, source, reading))
            except SbiError as error:
                if want[0] or "nothing to infer" not in str(error):
                    raise
                continue
            assert got == want, name
        for rows in {1, int(rng.integers(1, 8)), 100}:
            assert in_chunks(simulator, path, rows, reading) == want, f"chunks of {rows}"
