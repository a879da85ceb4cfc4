"""[alpha/Fe] on a library made up for tests: does the path work, and what does it recover?

    python benchmarks/sfh/alpha.py [--n 20000] [--json FILE]

Writes two planes in MILES format: the embedded spectra, and the same with deeper or shallower lines
(the recipe of the package's tests). The library says that it is synthetic; so does the report.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from common import save, show

import sbi_core

TESTS = Path(__file__).resolve().parents[2] / "packages" / "sbi-sfh" / "tests"
sys.path.insert(0, str(TESTS))

from miles_files import alpha_factor, miles_name, write_spectrum  # noqa: E402

from sbi_sfh.embedded import embedded_library  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=20000)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "two-planes-synthetic"
        folder.mkdir()
        library = embedded_library()
        spectra = library.spectra()
        for i, mh in enumerate(library.mh):
            for j, age in enumerate(library.age_gyr):
                for a in (0.0, 0.4):
                    flux = spectra[i, j] * (alpha_factor(float(mh)) if a else 1.0)
                    path = folder / miles_name(float(mh), float(age), a)
                    write_spectrum(path, flux, SYNTH=True)
        run = sbi_core.run(
            "sfh",
            preset="quick",
            out=Path(scratch) / "run",
            overrides={
                "simulator.library": str(folder),
                "simulator.afe": True,
                "simulator.noise": "none",
                "simulate.n": args.n,
                "embedding.components": 60,
            },
        )
        accuracy = run.report["accuracy"]
    show("synthetic library, noise-free", ["", "R2", "MAE"],
         [[n, v["r2"], v["mae"]] for n, v in accuracy.items()])  # fmt: skip
    save(args.json, {"accuracy": accuracy})


if __name__ == "__main__":
    main()
