"""Feed malformed observations and configurations to ``sbi-run``: exit code 2 and one sentence each.

    python benchmarks/reliability/malformed.py --plugin chempy --json out.json

Every case is one call of the command line's entry point. It counts as clear when it ends with exit
code 2, with exactly one line ``sbi-run: ...`` on stderr, no traceback,
and no run directory left behind.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import io
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import h5py
import numpy as np
from astropy.io import fits
from astropy.table import Table

from sbi_core import Registry, get_simulator
from sbi_core.cli import main as sbi_run

CONFIGS = {
    "not TOML": [
        "[",
        "x",
        "a = ",
        "a = 1 2",
        "= 3",
        "[a\nb=1",
        'a = "',
        "a = 'x\ny'",
        "\x00",
        "[]",
    ],
    "unknown section": [
        "foo = 1",
        "[simulat]\nn = 5",
        "[trian]\nepochs = 3",
        "n = 5",
        "[[x]]\ny=1",
    ],
    "unknown key": [
        "[simulate]\nm = 5",
        "[train]\nepoch = 3",
        "[infer]\ndraw = 100",
        "[diagnose]\nobject = 50",
        "[combine]\nsize = [1]",
        "[emulate]\nlayers = 3",
        "[simulator]\nyield = 'x'",
        "[estimator]\nkomponents = 3",
        "[combiner]\ngroup = 3",
        "[embedding]\nwidth = 3",
    ],
    "wrong type": [
        "[simulate]\nn = 'many'",
        "[simulate]\nn = [1]",
        "[simulate]\nn = {}",
        "[simulate]\nn = 1.5",
        "[simulate]\nn = 1979-05-27",
        "simulate = 3",
        "[[simulate]]\nn = 3",
        "seed = 'one'",
        "seed = 1.5",
        "[train]\nepochs = 'all'",
        "[combine]\nsizes = 3",
        "[combine]\nsizes = ['a']",
        "[infer]\nobservations = 3",
        "device = 3",
        "[estimator]\nparameters = 3",
        "estimator = 'nsf'",
        "[emulate]\nenabled = 'perhaps'",
    ],
    "out of range": [
        "[simulate]\nn = 0",
        "[simulate]\nn = -5",
        "[simulate]\nn = nan",
        "[simulate]\nn = inf",
        "[simulate]\nshard_size = 0",
        "[simulate]\nworkers = 0",
        "seed = -1",
        "[train]\nepochs = 0",
        "[train]\nbatch_size = 0",
        "[train]\nlearning_rate = -1.0",
        "[infer]\ndraws = 1",
        "[diagnose]\ndraws = 1",
        "[diagnose]\nobjects = 1",
        "[simulate]\nn = 1000000000000000000",
        "[simulate]\nn = 1000000000000\nshard_size = 100000000",
    ],
    "unknown component": [
        "[estimator]\nname = 'mixtur'",
        "[estimator]\nname = ''",
        "[estimator]\nname = '../x'",
        "[combiner]\nname = 'gausian'",
        "[embedding]\nname = 'os.system'",
        "[simulator]\nname = 'nothing'",
        "[combine]\ncompare = ['nothing']",
        "device = 'tpu9'",
        "[simulate]\nexecutor = 'threads'",
        "[estimator]\nparameters = ['nothing']",
    ],
    "TOML surprises": [
        "x = " + "[" * 20_000,
        "x = " + "{a = " * 2_000 + "1" + "}" * 2_000,
        "a" + ".a" * 3_000 + " = 1",
        "seed = 1" + "0" * 5_000,
        "[simulate]\nn = 1" + "0" * 400,
        "[simulate]\nn = 5\nn = 6",
        "[simulate]\nn = 1e400",
        "['__class__']\nx = 1",
    ],
}
ARGUMENTS = {
    "options": [
        ["--set", "simulate.n"],
        ["--set", "=5"],
        ["--set", "simulate=5"],
        ["--set", "simulate.n=x"],
        ["--set", "simulate..n=5"],
        ["--set", "a.b.c.d=5"],
        ["--seed", "-1"],
        ["--seed", "x"],
        ["--draws", "1"],
        ["--workers", "0"],
        ["--stages", "nothing"],
        ["--restart", "nothing"],
        ["--executor", "nothing"],
        ["--dask-scheduler", "tcp://x", "--executor", "serial"],
        ["--device", "nothing"],
        ["--preset", "nothing"],
        ["--config", "nothing.toml"],
        ["--config", "."],
        ["--nothing"],
        ["--observations", "nothing.fits"],
        ["--observations", "."],
        ["--observations", ""],
        ["--column", "fe_h"],
        ["--column", "fe_h=a", "--column", "fe_h=b"],
        ["--missing", "many"],
    ]
}
STRICT = (  # rows that are left out and counted, unless the user asks for strict reading
    "a word among numbers",
    "no finite value",
    "an error that is none",
    "repeated identifiers",
    "a limit, or a mark of a missing value, in every column",
)


def _text(**columns: object) -> str:
    names = list(columns)
    rows = zip(*columns.values(), strict=True)
    return "\n".join([",".join(names), *(",".join(map(str, r)) for r in rows)]) + "\n"


def tables(name: str, folder: Path, rng: np.random.Generator) -> Iterator[tuple[str, Path]]:
    """Yield (class, file) of malformed observations with a column called ``name``."""

    def put(kind: str, suffix: str, content: bytes | str) -> tuple[str, Path]:
        path = folder / f"{len(list(folder.iterdir())):04d}{suffix}"
        raw = content.encode() if isinstance(content, str) else content
        path.write_bytes(raw)
        return kind, path

    good = Table({"id": ["p", "q", "r"], name: [0.1, 0.2, 0.3], f"e_{name}": [0.05] * 3})
    sound = {}
    for suffix, form in ((".fits", "fits"), (".vot", "votable"), (".ecsv", "ascii.ecsv")):
        good.write(folder / f"good{suffix}", format=form)
    good.write(folder / "good.h5", path="t", format="hdf5", serialize_meta=True)
    good.write(folder / "good.csv", format="ascii.csv")
    np.savez(folder / "good.npz", x=np.ones(3))
    for path in list(folder.glob("good.*")):
        sound[path.suffix] = path.read_bytes()
        path.unlink()
    for suffix in (".csv", ".tsv", ".ecsv", ".fits", ".fits.gz", ".vot", ".h5", ".npz", ".txt"):
        yield put("empty file", suffix, b"")
        yield put("random bytes", suffix, rng.bytes(500))
        yield put("zeros", suffix, bytes(5000))
        yield put("a pickle", suffix, b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os.")
    for suffix in (".fits", ".vot", ".h5", ".npz", ".ecsv"):
        content = sound[suffix]
        for part in (0.02, 0.2, 0.4, 0.6):
            yield put("truncated", suffix, content[: int(part * len(content))])
    for suffix in (".fits", ".h5", ".vot"):
        for at in range(6):
            changed = bytearray(sound[suffix])
            changed[at] ^= 255
            yield put("flipped bytes in the signature", suffix, bytes(changed))
    for suffix in (".xlsx", ".json", ".pkl", ".pt", "", ".CSV2", ".tar"):
        yield put("unknown format", suffix, "x")
    for other in (".fits", ".h5", ".npz", ".vot"):
        for suffix in (".fits", ".h5", ".npz", ".ecsv"):
            if suffix != other:
                yield put("another format's content", suffix, sound[other])
    yield put("no rows", ".csv", f"id,{name},e_{name}\n")
    yield put("no rows", ".csv", "\n\n")
    yield put("no column that is known", ".csv", _text(u=[1], v=[2]))
    yield put("no column that is known", ".csv", "<html><body>404</body></html>\n<p>\n")
    yield put("the same column twice", ".csv", _text(**{name: [1], name.upper() + " ": [2]}))
    yield put("the same column twice", ".csv", f"{name},{name}\n1,2\n")
    for cell in ("abc", "1,5;", "0x", "1e", "1_0", "1 2", "*", "n.a.x", "=1+1", "1e5e5"):
        column = ["0.1", cell, "0.3"] if "," not in cell else ["0.1", f'"{cell}"', "0.3"]
        yield put("a word among numbers", ".csv", _text(**{name: column, f"e_{name}": [0.1] * 3}))
    for cell in ("inf", "-inf", "1e400", "1e39"):
        yield put("no finite value", ".csv", _text(**{name: ["0.1", cell]}))
    for cell in ("1e30", "-1e30"):
        yield put("no sane value", ".csv", _text(**{name: [cell, cell]}))
    for cell in ("-9999", "-9999.99", "<0.3", ">1", "N/A"):
        kind = "a limit, or a mark of a missing value, in every column"
        yield put(kind, ".csv", _text(id=["p", "q"], **{name: ["0.1", cell]}))
        yield put("no value at all", ".csv", _text(id=["p", "q"], **{name: [cell, cell]}))
    for suffix in (".csv.gz", ".csv.bz2", ".csv.xz", ".ecsv.gz", ".vot.gz", ".tsv.xz"):
        yield put("no compressed file", suffix, b"id,x\n1,2\n")
    for suffix, packed in ((".csv.gz", gzip.compress), (".csv.bz2", bz2.compress)):
        content = packed(_text(u=[1, 2], v=[2, 3]).encode())
        yield put("a damaged compressed file", suffix, content[:-9])
        yield put("no column that is known", suffix, content)
    yield put("unknown format", ".parquet.gz", gzip.compress(b"PAR1"))
    yield put("no rows", ".csv", f"# id,{name}\n")
    yield put("no rows", ".csv", f"# made by a survey\nid;{name}\n")
    yield put("no column that is known", ".csv", "id;u;v\n1;2;3\n")
    yield put("the same column twice", ".csv", f"id;{name};{name}\np;1;2\n")
    yield put("ragged rows", ".csv", f"id;{name}\np;0,1;5\n")
    yield put("decimal commas among commas", ".csv", f'id,{name}\np,"0,1"\nq,"0,2"\n')
    yield put("an MRT without its description", ".mrt", f"id {name}\np 0.1\n")
    for cell in ("0", "-0.1", "nan", "inf", "", "-inf", "1e400"):
        yield put(
            "an error that is none",
            ".csv",
            _text(id=["p", "q"], **{name: [0.1, 0.2], f"e_{name}": ["0.1", cell]}),
        )
    yield put("no value at all", ".csv", _text(id=["p", "q"], **{name: ["", ""]}))
    yield put("no value at all", ".csv", _text(id=["p", "q"], **{name: ["nan", "nan"]}))
    for ids in (["p", "p"], ["1", "1"], ["007", "007"], ["p ", "p"]):
        yield put("repeated identifiers", ".csv", _text(id=ids, **{name: [0.1, 0.2]}))
    yield put("ragged rows", ".csv", f"id,{name}\np,0.1,5,6\nq\n")
    yield put("an open quote", ".csv", f'id,{name}\n"p,0.1\nq,0.2\n')
    yield put("not UTF-8", ".csv", f"id,{name}\n".encode() + b"\xff\xfe,0.1\n")
    yield put("UTF-16", ".csv", _text(id=["p"], **{name: [0.1]}).encode("utf-16"))
    for unit in ("kg", "mag", "Msun / furlong", "-"):
        table = good.copy()
        table[name].unit = unit if unit != "-" else "Jy"
        buffer = io.StringIO()
        table.write(buffer, format="ascii.ecsv")
        yield put("a unit that cannot be converted", ".ecsv", buffer.getvalue())
    for change in (
        ("datatype: float64", "datatype: complex128"),
        ("datatype: float64", "datatype: nothing"),
        ("%ECSV 1.0", "%ECSW 1.0"),
        ("# ---", "# !!python/object/apply:os.system ['true']"),
        ("# - {name", "# - {nome"),
        ("delimiter: ','", "delimiter: '#'"),
    ):
        text = sound[".ecsv"].decode()
        if change[0] in text:
            yield put("a damaged ECSV header", ".ecsv", text.replace(*change))
    for head in ("NAXIS2  =                    3", "NAXIS1  =", "TFIELDS =", "TFORM1  = '1A"):
        raw = sound[".fits"]
        at = raw.find(head.encode())
        if at >= 0:
            changed = raw[: at + 10] + b"999999999999".rjust(20) + raw[at + 30 :]
            yield put("a FITS header that lies", ".fits", changed)
    yield put("a gzip bomb or no gzip", ".fits.gz", gzip.compress(bytes(2**20)))
    yield put("a gzip bomb or no gzip", ".fits.gz", b"\x1f\x8b\x08\x00" + bytes(50))
    cube = fits.HDUList([fits.PrimaryHDU(np.zeros((2, 3)))])
    cube.writeto(folder / "image.fits")
    yield "a FITS image", folder / "image.fits"
    for k, shape in enumerate(((10**12,), (10**6, 10**6))):
        path = folder / f"huge{k}.h5"
        with h5py.File(path, "w") as f:
            f.create_dataset("t", shape, "f8", chunks=True)
        yield "HDF5 with huge dimensions", path
    with h5py.File(folder / "link.h5", "w") as f:
        f["t"] = h5py.ExternalLink("/etc/hostname", "/x")
    yield "HDF5 that points to other files", folder / "link.h5"
    with h5py.File(folder / "groups.h5", "w") as f:
        f.create_group("a/b")
    yield "HDF5 without a table", folder / "groups.h5"
    arrays: dict[str, object] = {"abundances": np.ones((2, 2)), "abundance_errs": np.ones((2, 1))}
    np.savez(folder / "shapes.npz", **arrays, elements=np.array(["Fe", "Mg"]))
    yield "npz with arrays that do not fit", folder / "shapes.npz"
    np.savez(folder / "objects.npz", x=np.array([{}], object), allow_pickle=True)
    yield "npz with objects", folder / "objects.npz"
    folders = folder / "dir.csv"
    folders.mkdir()
    yield "a directory", folders
    (folder / "dangling.csv").symlink_to(folder / "nowhere")
    yield "a dangling link", folder / "dangling.csv"


def call(arguments: list[str]) -> tuple[int | str, str]:
    """Return exit code and stderr of one command."""
    out, err = io.StringIO(), io.StringIO()
    code: int | str = 0
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            sbi_run(arguments)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException as error:  # a traceback, for the user
            return f"{type(error).__name__}: {str(error)[:100]}", err.getvalue()
    return code, err.getvalue()


def main() -> None:
    """Run all cases and print a table of classes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plugin", default="chempy")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--json")
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    Registry([options.plugin])
    name = get_simulator(options.plugin).observables[0].name
    counts: Counter[str] = Counter()
    unclear: dict[str, list[str]] = defaultdict(list)
    sentences: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        here = os.getcwd()
        files, work = Path(folder) / "files", Path(folder) / "work"
        files.mkdir(), work.mkdir()
        os.chdir(work)
        base = ["--plugin", options.plugin, "--preset", "quick", "--out", "run", "--quiet"]
        base += ["--stages", "simulate"]  # an input that is accepted costs little
        cases: list[tuple[str, list[str]]] = []
        for kind, path in tables(name, files, rng):
            strict = ["--strict"] if kind in STRICT else []
            cases.append(
                (
                    f"observations: {kind}",
                    [*strict, "--set", "simulate.n=10", "--observations", str(path)],
                )
            )
        for kind, texts in CONFIGS.items():
            for k, text in enumerate(texts):
                path = files / f"{kind}-{k}.toml".replace(" ", "-")
                path.write_text(text, encoding="utf-8")
                cases.append((f"configuration: {kind}", ["--config", str(path)]))
        for kind, lines in ARGUMENTS.items():
            cases += [(f"command line: {kind}", line) for line in lines]
        for k, (kind, arguments) in enumerate(cases):
            if options.verbose:
                print(k, kind, [a[:60] for a in arguments], flush=True)
            code, err = call([*base, *arguments])
            counts[kind] += 1
            said = [x for x in err.splitlines() if x.startswith("sbi-run:")]
            left = (work / "run").exists()
            shutil.rmtree(work / "run", ignore_errors=True)
            if code != 2 or len(said) != 1 or "Traceback" in err or left:
                unclear[kind].append(f"{arguments[-1][-60:]!r} -> {code}, {err[-200:]!r}")
            elif kind not in sentences:
                sentences[kind] = said[0].replace(folder, "")[:140]
        os.chdir(here)
    for kind, n in sorted(counts.items()):
        print(f"{n - len(unclear[kind]):4d} of {n:3d}  {kind}")
    bad = sum(map(len, unclear.values()))
    print(
        f"{sum(counts.values()) - bad} of {sum(counts.values())} malformed inputs: exit 2, one line"
    )
    for kind, cases_ in unclear.items():
        for case in cases_:
            print(f"  NOT CLEAR: {kind}: {case}")
    if options.json:
        record = {"counts": counts, "unclear": unclear, "sentences": sentences}
        Path(options.json).write_text(json.dumps(record, indent=1))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
