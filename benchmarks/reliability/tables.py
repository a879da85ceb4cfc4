"""Random tables in every format: the readers of runs, ``infer`` and Python must agree.

    python benchmarks/reliability/tables.py --tables 500

Spellings of columns, identifiers, groups, missing values, limits, bad cells, repeated identifiers,
separators, line ends, compression, order of columns and chunk sizes are random. Every table is read
whole, in parts, and from memory (astropy, pandas, dict), and compared with what was written. The
same tables, fewer of them, are tested by packages/sbi-core/tests/fuzz/test_fuzz_tables.py.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2] / "packages/sbi-core/tests/fuzz"
sys.path.insert(0, str(TESTS))

from table_files import FORMATS, check  # noqa: E402


def main() -> None:
    """Check tables of all formats; print those that are read differently."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=500)
    parser.add_argument("--first", type=int, default=1000, help="first seed")
    options = parser.parse_args()
    wrong = 0
    for k in range(options.tables):
        form, seed = FORMATS[k % len(FORMATS)], options.first + k // len(FORMATS)
        with tempfile.TemporaryDirectory() as folder:
            try:
                check(seed, form, Path(folder))
            except Exception as error:
                wrong += 1
                print(f"{form}, seed {seed}: {type(error).__name__}: {str(error)[:200]}")
    print(f"{options.tables - wrong} of {options.tables} tables: the same objects everywhere")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
