"""Load artefacts made to harm: the outcome of each, and whether anything of them was executed.

    python benchmarks/reliability/hostile.py --json out.json

Every case runs in a process of its own under a memory limit of 4 GiB above what is loaded. It must
end with one of our errors, without the trace file that executed content would make.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import pickle
import resource
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from astropy.table import Table

from sbi_core import Observable, Observations, SbiError, load_run, read_observations
from sbi_core.data.writing import write_atomic
from sbi_core.files.directory import read_arrays, read_json
from sbi_core.files.tensors import read_tensors
from sbi_core.report.html import render
from sbi_core.simulate.rows import ShardedBatch

OBSERVABLES = (Observable("a"), Observable("b"))


class Trap:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def _read(path: Path) -> Any:
    return read_observations(path, OBSERVABLES, default_error=0.1)


def pickle_as_weights(folder: Path, trace: Path) -> Any:
    path = folder / "weights.safetensors"
    path.write_bytes(pickle.dumps(Trap(trace)))
    return read_tensors(path)


def torch_file_as_weights(folder: Path, trace: Path) -> Any:
    path = folder / "weights.safetensors"
    torch.save({"w": Trap(trace)}, path)
    return read_tensors(path)


def safetensors_with_huge_header(folder: Path, trace: Path) -> Any:
    path = folder / "weights.safetensors"
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    return read_tensors(path)


def pickle_as_npz(folder: Path, trace: Path) -> Any:
    path = folder / "diagnostics.npz"
    path.write_bytes(pickle.dumps(Trap(trace)))
    return read_arrays(path)


def npz_with_objects(folder: Path, trace: Path) -> Any:
    path = folder / "x.npz"
    np.savez(path, x=np.array([Trap(trace)], object))
    return read_arrays(path)


def _zeros(path: Path, n: int) -> Path:
    """Write an npz with n zero bytes, without holding them."""
    head = io.BytesIO()
    facts = {"shape": (n // 8,), "fortran_order": False, "descr": "<f8"}
    np.lib.format.write_array_header_1_0(head, facts)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as f,
        f.open("x.npy", "w", force_zip64=True) as member,
    ):
        member.write(head.getvalue())
        for _ in range(n // 2**24):
            member.write(bytes(2**24))
    return path


def zip_bomb_npz(folder: Path, trace: Path) -> Any:
    return read_arrays(_zeros(folder / "x.npz", 2**30))


def zip_bomb_observations(folder: Path, trace: Path) -> Any:
    return Observations.read(_zeros(folder / "x.npz", 2**30))


def npy_header_that_lies(folder: Path, trace: Path) -> Any:
    head = io.BytesIO()
    facts = {"shape": (2**50,), "fortran_order": False, "descr": "<f8"}
    np.lib.format.write_array_header_1_0(head, facts)
    with zipfile.ZipFile(folder / "x.npz", "w") as f:
        f.writestr("x.npy", head.getvalue())
    return read_arrays(folder / "x.npz")


def hdf5_with_huge_dims(folder: Path, trace: Path) -> Any:
    with h5py.File(folder / "x.h5", "w") as f:
        f.create_dataset("t", (2**40, 2**10), "f8", chunks=(2**10, 2**10))
    return _read(folder / "x.h5")


def shard_with_huge_dims(folder: Path, trace: Path) -> Any:
    path = folder / "part-000000.h5"
    with h5py.File(path, "w") as f:
        f.create_dataset("theta", (2**42, 6), "f8", chunks=(2**10, 6))
        f.create_dataset("x", (2**42, 8), "f8", chunks=(2**10, 8))
    return ShardedBatch([path])


def hdf5_link_to_another_file(folder: Path, trace: Path) -> Any:
    with h5py.File(folder / "x.h5", "w") as f:
        f["t"] = h5py.ExternalLink("/etc/passwd", "/x")
    return _read(folder / "x.h5")


def hdf5_external_storage(folder: Path, trace: Path) -> Any:
    with h5py.File(folder / "x.h5", "w") as f:
        f.create_dataset("t", (10,), "u1", external=[("/etc/passwd", 0, 10)])
    return _read(folder / "x.h5")


def fits_header_that_lies(folder: Path, trace: Path) -> Any:
    path = folder / "x.fits"
    Table({"a": np.arange(3.0)}).write(path)
    raw = path.read_bytes()
    at = raw.index(b"NAXIS2")
    path.write_bytes(raw[: at + 10] + b"9999999999999".rjust(20) + raw[at + 30 :])
    return _read(path)


def ecsv_with_yaml_tags(folder: Path, trace: Path) -> Any:
    path = folder / "x.ecsv"
    command = f"!!python/object/apply:os.system ['touch {trace}']"
    head = (
        f"# %ECSV 1.0\n# ---\n# datatype:\n# - {{name: a, datatype: float64}}\n# meta: {command}\n"
    )
    path.write_text(head + "a\n1.0\n")
    return _read(path)


def votable_with_entities(folder: Path, trace: Path) -> Any:
    path = folder / "x.vot"
    entities = '<!ENTITY a0 "lol">' + "".join(
        f'<!ENTITY a{k} "{f"&a{k - 1};" * 10}">' for k in range(1, 12)
    )
    path.write_text(f"<?xml version='1.0'?><!DOCTYPE V [{entities}]><VOTABLE>&a11;</VOTABLE>")
    return _read(path)


def json_nested_deeply(folder: Path, trace: Path) -> Any:
    (folder / "report.json").write_text("[" * 1_000_000)
    return read_json(folder / "report.json")


def run_toml(text: str) -> Callable[[Path, Path], Any]:
    def case(folder: Path, trace: Path) -> Any:
        (folder / "run.toml").write_text(text)
        return load_run(folder).simulator

    return case


def records_that_lead_out(folder: Path, trace: Path) -> Any:
    text = 'plugin = "x"\nsimulator = { name = "x" }\n'
    (folder / "run.toml").write_text(text)
    done = {"status": "done", "fingerprint": "", "facts": {}}
    stages = {"simulate": {**done, "artefacts": {"../../../etc/passwd": "0"}}}
    (folder / "provenance.json").write_text(json.dumps({"stages": stages}))
    return load_run(folder).verify()


def star_called_script(folder: Path, trace: Path) -> Any:
    """Not refused: shown as words."""
    name = "<script>alert(1)</script>"
    report = {
        "schema": 1, "plugin": name, "preset": name, "seed": 1, "status": "ok", "versions": {},
        "timing": {"total_s": 1.0}, "flags": [],
        "observations": {"n": 1, "source": name, "unsupported": 1, "notes": [name]},
    }  # fmt: skip
    page = render(report, objects=Table({"id": [name], "flags": ["outside_training"]}))
    if "<script" in page.lower():
        msg = "the page holds a script"
        raise AssertionError(msg)
    return "harmless: shown as words"


CASES: dict[str, Callable[[Path, Path], Any]] = {
    "a pickle called weights.safetensors": pickle_as_weights,
    "a torch file called weights.safetensors": torch_file_as_weights,
    "safetensors with a header of 4 EiB": safetensors_with_huge_header,
    "a pickle called diagnostics.npz": pickle_as_npz,
    "npz with objects": npz_with_objects,
    "npz that inflates to 1 GiB": zip_bomb_npz,
    "observations that inflate to 1 GiB": zip_bomb_observations,
    "npy header of 8 PiB": npy_header_that_lies,
    "HDF5 table of 8 PiB, nothing stored": hdf5_with_huge_dims,
    "shard of 2^42 rows, nothing stored": shard_with_huge_dims,
    "HDF5 link to /etc/passwd": hdf5_link_to_another_file,
    "HDF5 data set stored in /etc/passwd": hdf5_external_storage,
    "FITS header of 1e13 rows": fits_header_that_lies,
    "ECSV with YAML tags that call os.system": ecsv_with_yaml_tags,
    "VOTable with a billion entities": votable_with_entities,
    "JSON nested a million deep": json_nested_deeply,
    "run.toml nested 20 000 deep": run_toml("x = " + "[" * 20_000),
    "run.toml with a number of 5000 digits": run_toml("seed = 1" + "0" * 5_000),
    "run.toml naming os.system as plugin": run_toml(
        'plugin = "os"\n[simulator]\nname = "os:system"\n'
    ),
    "records that name /etc/passwd": records_that_lead_out,
    "a star called <script>": star_called_script,
}


def _attempt(name: str, folder: str, queue: Any) -> None:
    size = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * 4096
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**32, size + 2**32))
    trace = Path(folder) / "executed"
    try:
        outcome, good = f"{CASES[name](Path(folder), trace)}"[:60], name.startswith("a star")
    except SbiError as error:
        outcome, good = f"{type(error).__name__}: {str(error).replace(folder, '')}"[:150], True
    except BaseException as error:
        outcome, good = f"{type(error).__module__}.{type(error).__name__}: {error}"[:120], False
    queue.put((outcome, good and not trace.exists(), trace.exists()))


def main() -> None:
    """Run all cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    context = multiprocessing.get_context("fork")
    record, failed = {}, 0
    for name in CASES:
        if options.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder:
            queue = context.Queue()
            start = time.perf_counter()
            process = context.Process(target=_attempt, args=(name, folder, queue))
            process.start()
            process.join(180)
            if process.is_alive():
                process.kill()
            if queue.empty() and process.exitcode != 0:
                outcome, good, executed = f"the process ended with {process.exitcode}", False, False
            else:
                outcome, good, executed = queue.get(timeout=5)
            seconds = time.perf_counter() - start
        failed += not good
        record[name] = {"outcome": outcome, "good": good, "executed": executed, "seconds": seconds}
        if options.json:
            write_atomic(options.json, json.dumps(record, indent=1).encode())
        print(f"{'ok ' if good else 'BAD'} {name}\n      {outcome} ({seconds:.1f} s)", flush=True)
    print(f"{len(record) - failed} of {len(record)} as they should be")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
