"""Files of ``SBI_DATA_DIR/cases/sfh``: how each is read, and whether a run infers it.

    python benchmarks/sfh/formats.py [--run RUN] [--before FILE] [--json FILE]

Every file is read twice: as it is, and with the options that tell what it lacks (``OPTIONS``). A
file counts as *read* when spectra reach the pixels of the model without a flag, *flagged* when they
do with one, and *refused* when none can be used, with the reason. With RUN (a run of mode
``observed`` for z = 0.03), posteriors are drawn for the spectra that were read; FILE of an earlier
version gives the column *before*.
"""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
from common import save, show

import sbi_core
from sbi_sfh.config import SfhConfig
from sbi_sfh.simulator import SfhSimulator

RUN = {"mode": "observed", "redshift": 0.03}  # of the simulator
BEFORE = {**RUN, "wave_range": "sdss"}  # earlier versions needed the very last pixel
OPTIONS = {"vacuum": True, "wave_unit": "Angstrom", "default_redshift": 0.03}
SNR = {"assumed_snr": 60.0}  # where a file has no errors


def outcome(read, simulator, path):
    """Return (word, detail, observations) of one attempt to read a file."""
    try:
        found = read(simulator, path)
    except sbi_core.SbiError as error:
        return "refused", str(error), None
    except Exception as error:  # noqa: BLE001 - a traceback is what the table counts
        return "traceback", f"{type(error).__name__}: {error}".split("\n")[0], None
    flags = sorted(
        {
            w
            for words in getattr(found, "labels", {}).get("reading", [])
            for w in words.split(",")
            if w
        }
    )
    excluded = sorted({e.reason for e in getattr(found, "excluded", ())})
    detail = f"{len(found)} spectra" if len(found) > 1 else ""
    detail += f" ({len(found.excluded)} left out: {', '.join(excluded)})" if excluded else ""
    if flags:
        return "flagged", ", ".join([*flags, detail.strip()]).strip(", "), found
    return "read", detail.strip(), found


def table(folder, run):
    """Return {file: result} for all files of a folder."""
    known = SfhConfig.model_fields
    base = run.simulator.config if run else SfhConfig(**(RUN if set(SNR) <= set(known) else BEFORE))
    steps = [("as it is", base)]
    for name, more in (("options", OPTIONS), ("options and S/N", {**OPTIONS, **SNR})):
        if set(more) <= set(known):
            steps.append((name, base.model_copy(update=more)))
    simulators = [(name, SfhSimulator(config)) for name, config in steps]
    results = {}
    for path in sorted(folder.iterdir()):
        for name, simulator in simulators:
            word, detail, found = outcome(SfhSimulator.read_observations, simulator, path)
            if word in ("read", "flagged") and "redshift_assumed" not in detail:
                break
            if name == "as it is":
                first = detail
        how = "" if name == "as it is" or found is None else f" with {name}"
        results[path.name] = {"result": word + how, "detail": detail}
        if how or found is None:
            results[path.name]["as it is"] = first
        if run is not None and found is not None:
            samples = run.infer(found, 200)
            finite = bool(np.isfinite(samples.values).all())
            flags = sorted({w for words in samples.flags for w in str(words).split(",") if w})
            results[path.name] |= {"posterior": finite, "flags": flags}
    return results


def main():
    """Print the table and counts; write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--run", help="run directory of mode 'observed', z = 0.03")
    parser.add_argument("--before", type=Path, help="JSON of an earlier version")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    folder = Path(os.environ.get("SBI_DATA_DIR", "")) / "cases" / "sfh"
    if not folder.is_dir():
        sys.exit("set SBI_DATA_DIR to the folder with cases/sfh")
    results = table(folder, sbi_core.load_run(args.run) if args.run else None)
    before = json.loads(args.before.read_text())["files"] if args.before else {}
    rows = [
        [name, before.get(name, {}).get("result", "-"), r["result"],
         {True: "yes", False: "no"}.get(r.get("posterior"), "-"),
         ", ".join(r.get("flags", [])) or r["detail"][:90]]
        for name, r in results.items()
    ]  # fmt: skip
    show("Files of cases/sfh", ["file", "before", "now", "posterior", "flags or reason"], rows)
    counts = {}
    for r in results.values():
        counts[r["result"]] = counts.get(r["result"], 0) + 1
    print("\n" + ", ".join(f"{k}: {n}" for k, n in sorted(counts.items())))
    save(args.json, {"files": results, "counts": counts})


if __name__ == "__main__":
    main()
