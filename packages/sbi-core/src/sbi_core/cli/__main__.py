"""``python -m sbi_core.cli``: the same as ``sbi-run``."""

from sbi_core.cli import main

if __name__ == "__main__":
    main()
