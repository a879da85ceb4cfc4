"""``python -m sbi_sfh``: the command ``sbi-sfh``."""

import sys

from sbi_sfh.cli import main

if __name__ == "__main__":
    sys.exit(main())
