"""Run mypy over the sources of every package and example that is present."""

import os
import subprocess
import sys

from workspace import ROOT, examples, packages


def main() -> int:
    sources = [str(package.src) for package in [*packages(), *examples()] if package.src.is_dir()]
    if not sources:
        print("no packages to check")
        return 0
    return subprocess.call(
        [sys.executable, "-m", "mypy", *sources, *sys.argv[1:]],
        cwd=ROOT,
        # The sources themselves, not whatever copy of them may be installed.
        env={**os.environ, "MYPYPATH": os.pathsep.join(sources)},
    )


if __name__ == "__main__":
    sys.exit(main())
