"""Names of the commands and numbers of the exit codes."""

from __future__ import annotations

__all__ = ["COMMANDS", "EXIT_CALIBRATION", "EXIT_INTERRUPTED"]

EXIT_CALIBRATION = 3
EXIT_INTERRUPTED = 130
COMMANDS = (  # in the order in which they are used
    "run",
    "show",
    "plugins",
    "infer",
    "combine",
    "compare",
    "refine",
    "report",
    "export",
    "cite",
    "data",
    "simulate",
    "tune",
    "new-plugin",
)
