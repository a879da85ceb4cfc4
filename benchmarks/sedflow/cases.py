"""Tables as users have them: how each file of ``cases/sedflow`` is read and inferred.

Every file is given to a trained run as it is, and again with the options that its message calls
for. "before" is commit 7c15160. Most files hold the same eight galaxies: r = 102.64 nmgy first.

    SBI_DATA_DIR=... python benchmarks/sedflow/cases.py runs/sedflow-quick --out cases.json
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from common import arguments, write

from sbi_core import SbiError, load_run

BEFORE = {
    "casjobs_model.csv": "refused: no flux_b or mag_b",
    "casjobs_ugriz.csv": "refused: no flux_b or mag_b",
    "dup.ecsv": "refused: repeated id",
    "flam.ecsv": "refused: unit",
    "fmt_flux.csv": "refused: no unit, no option for it",
    "fmt_nmgy.fits": "refused: no unit, no option for it",
    "ivar.ecsv": "refused: no errors",
    "legacy.fits": "refused: no errors",
    "legacy_tunit.fits": "refused: no errors",
    "legit_faint_mag.ecsv": "refused: look like magnitudes",
    "legit_faint_refused.ecsv": "refused: look like magnitudes",
    "mags_as_nmgy_sentinel.ecsv": "read, no remark",
    "strnum.csv": "refused: N/A is not a number",
    "vega.ecsv": "read as AB magnitudes, silently",
    "zodd.ecsv": "read, six of eight rows outside the redshift range",
}
OPTIONS = {  # what a user adds, where the file lacks a fact
    "casjobs_model.csv": {"overrides": ["simulator.extinction=corrected"]},
    "casjobs_ugriz.csv": {"overrides": ["simulator.extinction=corrected"]},
    "fmt_flux.csv": {"units": {"": "nmgy"}},
    "fmt_nmgy.fits": {"units": {"": "nmgy"}},
    "legacy.fits": {"overrides": ["simulator.extinction=none"]},
    "legacy_tunit.fits": {"overrides": ["simulator.extinction=none"]},
}


def main():
    args = arguments(__doc__, run=True, draws={"type": int, "default": 200})
    folder = Path(os.environ.get("SBI_DATA_DIR", "")) / "cases" / "sedflow"
    files = sorted(p for p in folder.iterdir() if p.suffix in (".csv", ".ecsv", ".fits"))
    rows = {}
    for path in files:
        rows[path.name] = row = {"as it is": outcome(args, path)}
        if path.name in OPTIONS:
            row["options"] = OPTIONS[path.name]
            row["with options"] = outcome(args, path, **OPTIONS[path.name])
    print("| file | before | now | with options |")
    print("|---|---|---|---|")
    for name, row in rows.items():
        row["before"] = BEFORE.get(name, "")
        more = f"{row['options']}: {row['with options']['text']}" if "options" in row else ""
        print(f"| {name} | {row['before']} | {row['as it is']['text']} | {more} |")
    write(args, rows)


def outcome(args, path, overrides=(), units=None):
    """Return how many rows of a file are inferred, which are left out and why, and the notes."""
    try:
        run = load_run(args.run, overrides=overrides)
        objects = run.observations(path, units=units)
        summary = run.infer(path, args.draws, units=units).summary()
    except SbiError as error:
        return {"text": f"refused: {str(error).replace(str(path), path.name)}"}
    bands = [b for b in "FNugriz" if np.isfinite(objects.labels[f"nmgy_{b}"]).any()]
    reasons = [e.reason for e in objects.excluded]
    mass = np.asarray(summary["logmstar_p50"], float)
    left_out = "".join(f", {reasons.count(r)} {r}" for r in sorted(set(reasons)))
    return {
        "text": f"{len(objects)} rows inferred in {''.join(bands)}{left_out}; r = "
        f"{objects.labels['nmgy_r'][0]:.2f} nmgy, log M = {mass[np.isfinite(mass)][0]:.2f}",
        "ids": objects.id.tolist(),
        "r_nmgy": objects.labels["nmgy_r"].tolist(),
        "notes": list(objects.notes),
        "excluded": reasons,
    }


if __name__ == "__main__":
    main()
