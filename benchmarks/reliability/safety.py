"""Attack runs, catalogues and files in all ways of docs/safety.md; count what survived.

    python benchmarks/reliability/safety.py --json out.json
    python benchmarks/reliability/safety.py --only takeovers links --run RUN

Prints a table ``tried | survived | silent`` and ends with code 1 when something did not survive.
*Survived*: the sentence and exit code of the page, all other files as they were, and the same
result after the same command where the work can go on. *Silent*: a wrong result without a word.
Every case is printed, and recorded in the ``--json`` file, as soon as it ends; parts that are not
run keep what the file has. Needs a finished quick run of chempy (``--run``; made if not given).
Kills and full disks are those of ``kill_and_resume.py`` and ``disk_full.py`` beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from astropy.table import Table
from kill_and_resume import rounds

from sbi_core import SbiError, load_run
from sbi_core.cli import main as sbi_run
from sbi_core.data.writing import write_atomic
from sbi_core.errors import RunDirectoryError
from sbi_core.files.lock import locked

HERE = Path(__file__).parent
SMALL = {  # options that make quick runs short
    "chempy": ["simulate.n=3000", "train.epochs=4", "combiner.groups=60"],
    "casbi": ["simulate.n=1000", "train.epochs=2", "simulator.stems=1500",
              "simulator.support_halos=1000", "diagnose.objects=50", "infer.n_example=2"],
    "sfh": ["simulate.n=1500", "train.epochs=3", "estimator.encoder_epochs=2",
            "infer.n_example=2", "diagnose.objects=50"],
    "sedflow": ["simulate.n=2000", "train.epochs=3", "infer.n_example=3", "diagnose.objects=50"],
}  # fmt: skip
Outcome = tuple[str, bool, bool]  # what was tried; survived; silent


def cli(*words: object) -> tuple[int, str]:
    """Exit code and words of a command, run in this process."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            sbi_run([str(w) for w in words])
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except Exception as error:  # a traceback, for the user
            return 1, f"Traceback {type(error).__name__}: {error}"
    return code, out.getvalue()


def state(folder: Path) -> dict[str, bytes]:
    """The content of all files of a folder."""
    return {str(p): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@contextlib.contextmanager
def copy_of(run: Path) -> Iterator[Path]:
    """A copy of a run in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copytree(run, Path(folder) / "run"))


# -- corruptions x commands -----------------------------------------------------------------


def corruptions(run: Path, n: int) -> Iterator[Outcome]:
    """Flip a bit, cut, empty or remove a file; then use the run in one of six ways."""
    rng = np.random.default_rng(1)
    with copy_of(run) as root:
        opened = load_run(root)
        objects = opened._context.observations
        rows = objects[:3]
        rows.write(root.parent / "stars.npz")
        uses: dict[str, tuple[str, Callable[[], Any]]] = {
            "load_run": ("", lambda: load_run(root).simulator),
            "infer": ("", lambda: load_run(root).infer(rows, 5)),
            "combine": ("", lambda: load_run(root).combine(rows)),
            "report of Python": ("report.json", lambda: load_run(root).report),
            "write_report": ("", lambda: load_run(root).write_report()),
            "export": ("", lambda: failing(cli("export", root, "--out", root.parent / "e"))),
            "run again": ("", lambda: failing(cli("run", "chempy", "--out", root, *again(root)))),
        }
        before = state(root)
        names = [
            name
            for name in (str(p.relative_to(root)) for p in sorted(root.rglob("*")) if p.is_file())
            if name not in ("log.txt", ".lock")
        ]
        for k in range(n):
            name = names[k % len(names)]
            use = list(uses)[int(rng.integers(len(uses)))]
            path = root / name
            content = path.read_bytes()
            kind = ("flip", "flip", "cut", "empty", "remove")[int(rng.integers(5))]
            changed = bytearray(content)
            changed[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
            new = {"flip": bytes(changed), "cut": content[: len(content) // 2], "empty": b""}
            path.unlink() if kind == "remove" else path.write_bytes(new[kind])
            only, call = uses[use]
            # what the report stage wrote is compared where it is read
            cheap = name in ("report.html", "report.json", "estimator/card.md")
            noticed, words = False, ""
            try:
                call()
            except SbiError as error:
                noticed, words = True, str(error)
            except Exception as error:
                words = f"TRACEBACK {type(error).__name__}: {error}"
            remade = cheap and use in ("write_report", "run again")
            read = (only, "run.toml", "provenance.json")
            healed = use == "run again" and name == "run.toml" and path.exists()
            healed = healed and path.read_bytes() == content  # written again from the command
            unread = (
                healed or (only and name not in read) or (cheap and not remade and only != name)
            )
            survived = noticed or bool(unread) or (remade and "TRACEBACK" not in words)
            yield f"{kind} {name}, {use}: {words[:90]}", survived, not survived and not words
            for extra in set(map(str, root.rglob("*"))) - set(before):
                Path(extra).unlink() if Path(extra).is_file() else None
            for there, data in before.items():
                if not Path(there).exists() or Path(there).read_bytes() != data:
                    Path(there).write_bytes(data)


def failing(result: tuple[int, str]) -> None:
    """Raise what a command said when it ended with code 2."""
    code, words = result
    if code == 2:
        raise RunDirectoryError(words)
    if "Traceback" in words:
        raise AssertionError(words)


def again(root: Path) -> list[str]:
    """Options of the command that made a run."""
    seed = str(load_run(root).config.seed)
    return ["--preset", "quick", "--workers", "1", "--quiet", "--seed", seed]


# -- planted links --------------------------------------------------------------------------


def links(run: Path, n: int) -> Iterator[Outcome]:
    """Plant a link to a folder with a thesis; nothing of it may change."""
    folders = ("sims", "estimator", "groups", "combiner", "export", "figures", ".infer.chunks",
               "estimator/link", "sims/link", "combiner/link")  # fmt: skip
    files = ("log.txt", ".lock", "run.toml", "provenance.json", "summary.ecsv", "posterior.nc",
             "combined.ecsv", "combined.npz", "diagnostics.npz", "metrics.jsonl", "report.html",
             "report.json", "estimator/weights.safetensors", "sims/part-000000.h5",
             ".infer-stars.ecsv.chunks")  # fmt: skip
    for k, name in enumerate((*folders, *files)[:n]):
        with copy_of(run) as root:
            load_run(run)._context.observations[:3].write(root.parent / "stars.npz")
            victim = root.parent / "victim"
            (victim / "sub").mkdir(parents=True)
            for part in ("thesis.txt", "sub/part-000000.h5"):
                (victim / part).write_text("precious")
            path = root / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            path.parent.mkdir(exist_ok=True)
            whole = name in folders or "chunks" in name
            path.symlink_to(victim if whole else victim / "thesis.txt")
            before = state(victim)
            options = [*again(run), "--out", root]
            said = [
                cli("run", "chempy", *options),
                cli("run", "chempy", *options, "--restart", ("simulate", "report")[k % 2]),
                cli("infer", root, "--observations", root.parent / "stars.npz", "--draws", 20),
                cli("export", root),
            ]
            fine = state(victim) == before and not any("Traceback" in w for _, w in said)
            yield f"{name}: {[c for c, _ in said]}", fine, state(victim) != before


# -- locks ----------------------------------------------------------------------------------

_HOLDER = """
import sys, time
from pathlib import Path
from sbi_core.data.writing import write_atomic
from sbi_core.errors import RunDirectoryError
from sbi_core.files.lock import locked
root = Path(sys.argv[1])
with locked(root):
    print("held", flush=True)
    sys.stdin.readline()
    try:
        write_atomic(root / "result", b"of the first")
        print("written", flush=True)
    except RunDirectoryError as error:
        print(error, flush=True)
"""


def _contend(root: Path, barrier: Any, queue: Any, rounds: int) -> None:
    from sbi_core.files import lock

    lock._PATIENCE = 0.3
    for k in range(rounds):
        barrier.wait()
        try:
            with locked(root):
                start = time.monotonic()
                time.sleep(0.02)
                queue.put((k, start, time.monotonic()))
        except RunDirectoryError:
            pass
        barrier.wait()


def takeovers(run: Path, n: int) -> Iterator[Outcome]:
    """Six processes race for the lock of a holder that was killed; never two hold it together."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        context = multiprocessing.get_context("fork")
        barrier, queue = context.Barrier(7), context.Queue()
        args = (root, barrier, queue, n)
        processes = [context.Process(target=_contend, args=args) for _ in range(6)]
        for p in processes:
            p.start()
        stale = {"pid": 2**22 - 5, "host": "gone", "since": "x", "token": "t"}
        for _ in range(n):
            (root / ".lock").write_text(json.dumps(stale))
            barrier.wait()
            barrier.wait()
        held: dict[int, list[tuple[float, float]]] = {}
        for p in processes:
            p.join(10)
        while not queue.empty():
            k, start, stop = queue.get()
            held.setdefault(k, []).append((start, stop))
        for k in range(n):
            spans = sorted(held.get(k, []))
            double = any(a[1] > b[0] for a, b in zip(spans, spans[1:], strict=False))
            yield (
                f"round {k}: {len(spans)} held it, one after another",
                bool(spans) and not double,
                double,
            )


def _holder(root: Path, *before: str) -> subprocess.Popen[str]:
    command = [*before, sys.executable, "-c", _HOLDER, str(root)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    child = subprocess.Popen(command, text=True, **pipes)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    return child


def namespaces(run: Path, n: int) -> Iterator[Outcome]:
    """A holder in another PID namespace (and host): respected and named; freed by a kill."""
    for k in range(n):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            try:
                child = _holder(
                    root, "unshare", "-Urpf", "--mount-proc", "--kill-child", *(["--uts"] * (k % 2))
                )
            except (OSError, AssertionError):
                yield "no user namespaces here", False, False
                continue
            try:
                with locked(root):
                    taken = True
            except RunDirectoryError as error:
                taken, words = False, str(error)
            named = not taken and "of another container" in words
            os.kill(child.pid, signal.SIGKILL)  # the first process of the namespace dies with it
            child.wait()
            free, end = False, time.monotonic() + 10
            while not free and time.monotonic() < end:
                with contextlib.suppress(RunDirectoryError), locked(root):
                    free = True
            yield f"respected and named: {named}; free after a kill: {free}", named and free, taken


def suspended(run: Path, n: int) -> Iterator[Outcome]:
    """SIGSTOP the owner: the lock stays; with the lock file removed, the fence stops the owner."""
    for k in range(n):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            child = _holder(root)
            child.send_signal(signal.SIGSTOP)
            taken = False
            with contextlib.suppress(RunDirectoryError), locked(root):
                taken = True
            if k % 2:  # somebody "helps": the lock is lost, and taken over
                (root / ".lock").unlink()
                with locked(root):
                    (root / "result").write_bytes(b"of the second")
                    child.send_signal(signal.SIGCONT)
                    words = child.communicate("go\n")[0]
                good = (
                    root / "result"
                ).read_bytes() == b"of the second" and "lost its lock" in words
            else:
                child.send_signal(signal.SIGCONT)
                good = "written" in child.communicate("go\n")[0]
            yield f"{'taken over' if k % 2 else 'waited for'}: {good}", good and not taken, not good


# -- files that change ----------------------------------------------------------------------


def changes(run: Path, n: int) -> Iterator[Outcome]:
    """Replace a catalogue while it is read or inferred, in every format; then restore it."""
    from sbi_core.pipeline import chunk_files

    whole = chunk_files.infer_chunk
    suffixes = (
        ".fits",
        ".fits.gz",
        ".ecsv",
        ".csv",
        ".tsv",
        ".txt",
        ".h5",
        ".parquet",
        ".vot",
        ".npz",
    )
    with copy_of(run) as root:
        objects = load_run(root)._context.observations
        table = objects.to_table()
        table = table[[c for c in table.colnames if not c.startswith("true_")]]
        table.meta.clear()
        for k in range(n):
            suffix, moment = suffixes[k % len(suffixes)], ("infer", "read")[k // len(suffixes) % 2]
            path, other = root.parent / f"cat{suffix}", root.parent / f"new{suffix}"
            for target, shift in ((path, 0.0), (other, 0.25)):
                _catalogue(objects, table, target, shift)
            out, content = root.parent / "out.ecsv", path.read_bytes()
            words = ["infer", root, "--observations", path, "--draws", 20, "--chunk", 20, "--quiet"]
            cli(*words, "--out", root.parent / "calm.ecsv")
            calm = Table.read(root.parent / "calm.ecsv", format="ascii.ecsv")
            done: list[int] = []

            def infer_chunk(*args: Any, p=path, o=other, d=done) -> Any:  # noqa: ANN001
                if len(d) == 2:
                    p.write_bytes(o.read_bytes())
                d.append(1)
                return whole(*args)

            if moment == "infer":
                chunk_files.infer_chunk = infer_chunk
                code, said = cli(*words, "--out", out)
                chunk_files.infer_chunk = whole
            else:
                code, said = _changed_while_read(path, other, [*words, "--out", out])
            path.write_bytes(content)
            again_code, _ = cli(*words, "--out", out)
            same = again_code == 0 and _equal(calm, out)
            noticed = code == 2 and "changed" in said
            whole_result = code == 0 and (same or moment == "read")
            survived = same and (noticed or whole_result) and "Traceback" not in said
            yield (
                f"{suffix}, {moment}: exit {code}, then {again_code}, same {same}",
                survived,
                not same,
            )
            out.unlink(missing_ok=True)


def _catalogue(objects: Any, table: Table, path: Path, shift: float) -> None:
    if path.suffix == ".npz":
        moved = objects.batch.with_(x=objects.batch.x + shift)
        type(objects).from_batch(
            moved, id=objects.id.tolist(), observables=objects.observables,
            context_names=objects.context_names, truth_names=objects.truth_names,
        ).write(path, overwrite=True)  # fmt: skip
        return
    moved = table.copy()
    for name in ("fe_h", "mg_fe"):
        moved[name] = moved[name] + shift * moved[name].unit if moved[name].unit else moved[name]
    for column in moved.colnames:
        moved[column].unit = None
    forms = {".ecsv": "ascii.ecsv", ".csv": "ascii.csv", ".tsv": "ascii.tab", ".txt": "ascii.basic",
             ".h5": "hdf5", ".parquet": "parquet", ".vot": "votable"}  # fmt: skip
    options: dict[str, Any] = {"path": "t"} if path.suffix == ".h5" else {}
    moved.write(path, format=forms.get(path.suffix, "fits"), overwrite=True, **options)


def _changed_while_read(path: Path, other: Path, words: list[Any]) -> tuple[int, str]:
    """Replace the file in the moment its first rows are turned into observations."""
    from sbi_chempy.simulator import ChempySimulator

    original = ChempySimulator.observations_of

    def observations_of(self: Any, *args: Any, **options: Any) -> Any:
        path.write_bytes(other.read_bytes())
        ChempySimulator.observations_of = original
        return original(self, *args, **options)

    ChempySimulator.observations_of = observations_of
    try:
        return cli(*words)
    finally:
        ChempySimulator.observations_of = original


def _equal(calm: Table, out: Path) -> bool:
    now = Table.read(out, format="ascii.ecsv")
    return all(
        np.array_equal(np.asarray(calm[c]), np.asarray(now[c]), equal_nan=calm[c].dtype.kind == "f")
        for c in calm.colnames
    )


# -- hostile files and records --------------------------------------------------------------


def hostile(run: Path, n: int) -> Iterator[Outcome]:
    """The cases of hostile.py, and records and tables that refer elsewhere, or explode."""
    for name, case in recorded("hostile.py"):
        yield f"{name}: {case['outcome']}", case["good"], case["executed"]
    for name, make in _records().items():
        with copy_of(run) as root:
            make(root)
            start = time.monotonic()
            code, words = cli("infer", root, "--observations", root.parent / "x.csv", "--draws", 20)
            quick = time.monotonic() - start < 60 and "invalid value" not in words
            yield (
                f"{name}: {words.strip()[:90]}",
                code == 2 and quick and "Trace" not in words,
                code == 0,
            )


def _records() -> dict[str, Callable[[Path], None]]:
    def special(name: str, kind: str) -> Callable[[Path], None]:
        def make(root: Path) -> None:
            (root / name).unlink()
            os.mkfifo(root / name) if kind == "fifo" else (root / name).symlink_to(kind)

        return make

    def outside(name: str) -> Callable[[Path], None]:
        """Replace a record by an HDF5 file whose data lie elsewhere, as deep as can be."""

        def make(root: Path) -> None:
            with h5py.File(root.parent / "secret.h5", "w") as f:
                f["t"] = np.ones(3)
            with h5py.File(root / name, "w") as f:
                f["a/b/c/e"] = h5py.ExternalLink(str(root.parent / "secret.h5"), "/t")

        return make

    names = ("run.toml", "provenance.json", "estimator/weights.safetensors", "posterior.nc",
             "combined.npz", "sims/part-000000.h5", "combined.ecsv", "summary.ecsv")  # fmt: skip
    cases = {
        f"{n} is {k}": special(n, k) for n in names for k in ("fifo", "/dev/zero", "/etc/passwd")
    }
    cases |= {f"{n} refers elsewhere": outside(n) for n in ("posterior.nc", "sims/part-000000.h5")}

    def catalogue(content: bytes, suffix: str = ".csv") -> Callable[[Path], None]:
        def make(root: Path) -> None:
            (root.parent / "x.csv").symlink_to(root.parent / f"table{suffix}")
            (root.parent / f"table{suffix}").write_bytes(content)

        return make

    import bz2
    import gzip
    import lzma

    zeros = bytes(2**27)
    cases |= {
        f"catalogue, {name}": catalogue(content)
        for name, content in {
            "gzip bomb": gzip.compress(zeros, 1),
            "bz2 bomb": bz2.compress(zeros),
            "xz bomb": lzma.compress(zeros, preset=1),
            "gzip in gzip": gzip.compress(gzip.compress(b"fe_h\n1\n")),
            "zstd": b"\x28\xb5\x2f\xfd" + bytes(100),
            "zip": b"PK\x03\x04" + bytes(100),
            "300,000 columns": b",".join(b"c%d" % k for k in range(300_000)) + b"\n",
            "20,000 columns": b",".join(b"c%d" % k for k in range(20_000)) + b"\n",
            "a line of 2 MiB": b"id,fe_h\n" + b"L" * 2**21 + b",1\n",
            "NUL bytes": b"id,fe_h\n" + bytes(1000),
            "no UTF-8": b"id,fe_h\n\xff\xfe,1\n",
            "an open quote": b'id,fe_h\n"s,1\n',
            "nothing": b"",
        }.items()
    }
    return cases


# -- power cut: the order of fsync and rename -------------------------------------------------

_CALL = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)")
_PATHS = re.compile(r'"([^"]*)"')


def power(run: Path, n: int) -> Iterator[Outcome]:
    """Trace a run (strace): fsync of the file, rename, fsync of the folder; then its record."""
    with tempfile.TemporaryDirectory() as folder:
        out, trace = Path(folder).resolve() / "run", Path(folder) / "trace"
        calls = "trace=openat,close,fsync,rename,renameat,renameat2"
        options = [w for o in SMALL["chempy"] for w in ("--set", o)]
        command = [sys.executable, "-m", "sbi_core.cli", "run", "chempy", "--preset", "quick"]
        command += ["--workers", "1", "--quiet", "--out", str(out), *options]
        subprocess.run(["strace", "-f", "-o", str(trace), "-e", calls, *command], check=False)
        opened: dict[tuple[str, str], str] = {}
        flushed: set[str] = set()  # since it last changed
        waiting: list[str] = []  # renamed, folder not flushed yet
        for line in trace.read_text(errors="replace").splitlines():
            match = _CALL.match(line)
            if match is None or match[4].startswith("-"):
                continue
            process, call, args, result = match.groups()
            paths = [str(Path(p)) for p in _PATHS.findall(args)]
            if call == "openat" and paths:
                opened[process, result] = paths[-1]
                if "O_WRONLY" in args or "O_RDWR" in args:
                    flushed.discard(paths[-1])
            elif call == "fsync":
                path = opened.get((process, args), "")
                flushed.add(path)
                waiting = [w for w in waiting if str(Path(w).parent) != path]
            elif call.startswith("rename") and paths[-1].startswith(str(out)):
                old, new = paths[-2:]
                before = old in flushed
                late = [w for w in waiting if Path(new).name == "provenance.json"]
                waiting.append(new)
                flushed.add(new)
                name = str(Path(new).relative_to(out))
                fine = before and not late
                yield f"{name}: flushed before {before}, not flushed {late}", fine, False
        stages = json.loads((out / "provenance.json").read_text())["stages"]
        recorded = {k: v for r in stages.values() for k, v in r.get("artefacts", {}).items()}
        for name in recorded:
            yield f"{name} was flushed", str(out / name) in flushed, False


# -- kills and full disks (their own scripts) -----------------------------------------------


def kills(run: Path, n: int) -> Iterator[Outcome]:
    """Kill runs of all four plugins at random moments; the same command ends with the same bits."""
    for plugin, share in zip(SMALL, np.diff(np.linspace(0, n, 5).astype(int)), strict=True):
        options = [w for s in SMALL[plugin] for w in ("--set", s)]
        for result in rounds(plugin, int(share), options):
            bad = bool(result["different"] or result["shards_lost"])
            for moment in result["kills"]:
                yield f"{plugin}, {moment}", not bad, bad


def disks(run: Path, n: int) -> Iterator[Outcome]:
    """Fill the disk in every stage: one sentence, and after it is freed the same bits."""
    none = True
    for row in recorded("disk_full.py", *(w for o in SMALL["chempy"] for w in ("--set", o))):
        none, fine = False, row["exit_code"] == 2 and not row.get("different")
        words = f"{row['moment']}: exit {row['exit_code']}, {row['message'][:80]}"
        yield words, fine, bool(row.get("different"))
    if none:
        yield "no separate mount namespace here", False, False


def recorded(script: str, *options: str) -> Iterator[Any]:
    """Yield the cases that a script beside this file records, each as soon as it is printed."""
    with tempfile.TemporaryDirectory() as folder:
        record, n = Path(folder) / "record.json", 0
        command = [sys.executable, str(HERE / script), "--json", str(record), *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in child.stdout:
                cases = json.loads(record.read_text()) if record.exists() else []
                cases = list(cases.items()) if isinstance(cases, dict) else cases
                yield from cases[n:]
                n = len(cases)


PARTS: dict[str, tuple[Callable[[Path, int], Iterator[Outcome]], int]] = {
    "corruptions": (corruptions, 1000),
    "hostile": (hostile, 60),
    "links": (links, 25),
    "takeovers": (takeovers, 300),
    "namespaces": (namespaces, 4),
    "suspended": (suspended, 6),
    "changes": (changes, 20),
    "power": (power, 1),
    "disks": (disks, 8),
    "kills": (kills, 50),
}


def main() -> None:
    """Run the parts and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--run", type=Path, help="a finished quick run of chempy")
    parser.add_argument("--n", type=int, help="of each part; default: those of the page")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    record: dict[str, Any] = {}
    if options.json and options.json.exists():
        record = json.loads(options.json.read_text())
    with tempfile.TemporaryDirectory() as folder:
        run = options.run or Path(folder) / "run"
        if options.run is None and set(options.only) - {"kills", "disks", "takeovers", "power"}:
            cli("run", "chempy", "--preset", "quick", "--workers", "1", "--quiet", "--out", run)
        for name in options.only:
            part, n = PARTS[name]
            start = time.monotonic()
            row = record[name] = {"tried": 0, "survived": 0, "silent": 0, "seconds": 0, "lost": []}
            for words, survived, silent in part(run.resolve(), options.n or n):
                row["tried"] += 1
                row["survived"] += survived
                row["silent"] += silent
                row["seconds"] = round(time.monotonic() - start, 1)
                row["lost"] += [] if survived else [words]
                print(
                    f"{name:<12} {row['tried']:5d} {'' if survived else 'LOST '}{words}"[:200],
                    flush=True,
                )
                if options.json:
                    write_atomic(options.json, json.dumps(record, indent=1).encode())
    print(f"\n{'':<12} tried | survived | silent")
    for name, row in record.items():
        print(f"{name:<12} {row['tried']:5d} | {row['survived']:8d} | {row['silent']:6d}")
    sys.exit(any(row["survived"] < row["tried"] for row in record.values()))


if __name__ == "__main__":
    main()
