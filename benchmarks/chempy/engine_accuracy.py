"""Accuracy of the chempy engine against outputs of the original code.

Needs SBI_DATA_DIR (folder with ``chempy/ref_*.npz`` and ``chempy/stage_*.npz``)::

    python benchmarks/chempy/engine_accuracy.py --json accuracy.json

For every reference set: largest and median absolute difference per element in dex, for float64
and float32, torch and compiled kernel, and how many status flags differ. Rows where the original
silently ran 27 points (T above 13.797617 Gyr) are left out.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import torch

from sbi_chempy import imf, lifetimes
from sbi_chempy.constants import ABUNDANCES, N_STEPS
from sbi_chempy.engine import ChempyEngine
from sbi_chempy.ssp import ssp_return
from sbi_chempy.tracks import tracks
from sbi_chempy.yields import load_yields

REFERENCES = ("tng", "alternative", "alternative_net", "tng_nocosmic", "alternative_net_nocosmic")
VARIANTS = (
    ("torch", torch.float64),
    ("numba", torch.float64),
    ("torch", torch.float32),
    ("numba", torch.float32),
)


def compare(data: Path, name: str, kernel: str, dtype: torch.dtype) -> dict:
    with np.load(data / f"ref_{name}.npz") as file:
        keep = file["n_steps"] == N_STEPS + 1
        theta, want, flag = (file[k][keep] for k in ("params", "abundances", "status"))
        kind, f_cos = file["kind"][keep], float(file["f_cos"])
    yields = load_yields(name.removesuffix("_nocosmic").replace("_", "-"), data.parent)
    engine = ChempyEngine(
        yields, cosmic_accretion=f_cos, clamp_low_z=False, dtype=dtype, kernel=kernel
    )
    got, status = (x.numpy() for x in engine(torch.as_tensor(theta)))
    ok = (flag == 0) & (status == 0)
    error = np.abs(got[ok].astype(float) - want[ok])
    prior = error[kind[ok] == "prior"]
    return {
        "set": name,
        "kernel": kernel,
        "dtype": str(dtype).removeprefix("torch."),
        "rows": int(keep.sum()),
        "ok": int(ok.sum()),
        "flags_differ": int((status != flag).sum()),
        "max": float(error.max()),
        "median": float(np.median(error)),
        "p99": float(np.quantile(error, 0.99)),
        "p99_prior": float(np.quantile(prior, 0.99)),
        "max_per_output": dict(zip(ABUNDANCES, error.max(0).tolist(), strict=True)),
        "median_per_output": dict(zip(ABUNDANCES, np.median(error, 0).tolist(), strict=True)),
    }


def stages(data: Path, name: str) -> dict:
    """Largest difference of every intermediate result of one run, relative to its own scale."""
    with np.load(data / f"stage_{name}.npz") as file:
        stage = {key: file[key] for key in file.files}
    engine = ChempyEngine(load_yields(name.replace("_", "-"), data.parent), clamp_low_z=False)
    theta = torch.as_tensor(stage["params"])[None]
    z = torch.as_tensor(stage["ssp_Z"])
    table = ssp_return(
        engine,
        z,
        birth_mix=torch.as_tensor(stage["ssp_comp"]),
        age_step=float(stage["time"][1]),
        alpha_imf=float(theta[0, 0]),
        log10_n_ia=float(theta[0, 1]),
    )
    track = tracks(engine, theta)
    x = torch.as_tensor(imf.mass_grid())
    pairs = {
        "imf_dm": (imf.mass_weights(theta[:, 0])[0], stage["imf_dm"]),
        "lifetimes": (lifetimes.lifetime(x, z[:, None]), stage["lifetime_of_x"]),
        "turnoff_mass": (
            lifetimes.turnoff_mass(torch.as_tensor(stage["time"]), z[:, None]),
            stage["ssp_inverse_imf"],
        ),
        "ssp_return": (table.total.transpose(1, 2), stage["ssp_step_total"][:, :, 1:]),
        "sfr": (track.sfr[0], stage["sfr"]),
        "gas": (track.gas[0], stage["gas"]),
        "infall": (track.infall[0], stage["infall"]),
        "Z": (track.metallicity[0], stage["Z"]),
        "gas_elements": (track.gas_elements[0], stage["ISM"]),
        "corona_elements": (track.corona_elements[0], stage["reservoir"]),
    }
    return {
        key: float(np.abs(np.asarray(got) - want).max() / np.abs(want).max())
        for key, (got, want) in pairs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the numbers here")
    options = parser.parse_args()
    root = os.environ.get("SBI_DATA_DIR")
    if not root:
        parser.error("set SBI_DATA_DIR to the folder that holds chempy/ref_*.npz")
    data = Path(root) / "chempy"
    torch.set_num_threads(1)
    rows = [compare(data, name, *variant) for name in REFERENCES for variant in VARIANTS]
    head = f"{'set':26}{'kernel':7}{'dtype':9}{'ok/rows':>11}{'flags':>6}{'max':>10}{'median':>10}"
    print(f"{head}{'p99':>10}{'p99 prior':>11}   (dex)")
    for r in rows:
        counts = f"{r['ok']}/{r['rows']}"
        print(
            f"{r['set']:26}{r['kernel']:7}{r['dtype']:9}{counts:>11}{r['flags_differ']:>6}"
            f"{r['max']:10.1e}{r['median']:10.1e}{r['p99']:10.1e}{r['p99_prior']:11.1e}"
        )
    print("\nlargest difference per output (dex), torch")
    print(f"{'set':26}{'dtype':9}" + "".join(f"{a:>9}" for a in ABUNDANCES))
    for r in rows:
        if r["kernel"] == "torch":
            values = "".join(f"{v:9.0e}" for v in r["max_per_output"].values())
            print(f"{r['set']:26}{r['dtype']:9}{values}")
    stage = {name: stages(data, name) for name in ("tng", "alternative", "alternative_net")}
    print("\nstages of one run: largest difference / largest value")
    for key in stage["tng"]:
        print(f"{key:18}" + "".join(f"{s[key]:10.1e}" for s in stage.values()))
    if options.json:
        options.json.write_text(json.dumps({"references": rows, "stages": stage}, indent=1))


if __name__ == "__main__":
    main()
