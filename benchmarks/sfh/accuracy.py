"""Accuracy, calibration and time of a preset at several signal-to-noise ratios.

    python benchmarks/sfh/accuracy.py --preset standard --snr none 100 30 [--out DIR] [--json FILE]

Runs the whole pipeline cold for every value and prints R2, MAE, coverage, SBC and TARP.
"""

import argparse
import time
from pathlib import Path

from common import save, show

import sbi_core


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--snr", nargs="+", default=["none", "100", "30"])
    parser.add_argument("--set", nargs="*", default=[], help="further options, section.key=value")
    parser.add_argument("--out", type=Path, default=Path("runs/sfh-accuracy"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    found = {}
    for snr in args.snr:
        noise = "simulator.noise=none" if snr == "none" else f"simulator.snr={snr}"
        cpu = time.process_time()
        run = sbi_core.run(
            "sfh", preset=args.preset, out=args.out / f"snr-{snr}", overrides=[noise, *args.set]
        )
        report = run.report
        report["cpu_s"] = time.process_time() - cpu
        found[snr] = report
        coverage = report["calibration"]["parameters"]
        rows = [
            [name, v["r2"], v["mae"],
             *(coverage[name]["coverage"][c] for c in ("0.50", "0.68", "0.90")),
             coverage[name]["sbc_p"]]
            for name, v in report["accuracy"].items()
        ]  # fmt: skip
        title = (
            f"S/N {snr}: {report['timing']['total_s']:.0f} s, {report['cpu_s']:.0f} CPU s here, "
            f"{report['simulation']['per_second']} spectra/s; TARP "
            f"{report['calibration']['tarp']['max_deviation']:.3f}; "
            f"{report['calibration']['verdict']}; ordered {report['domain']['ordered draws']:.0%}"
        )
        show(title, ["", "R2", "MAE", "50 %", "68 %", "90 %", "SBC p"], rows)
    save(args.json, found)


if __name__ == "__main__":
    main()
