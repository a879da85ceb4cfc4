"""Who made a run, with what: versions, machine, seeds, hashes."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from sbi_core.hookspecs import HOOK_API
from sbi_core.registry import Plugin

__all__ = ["describe", "versions"]

_PACKAGES = ("sbi-core", "torch", "numpy", "scipy", "zuko", "sbi", "nflows", "schedulefree", "h5py")


def versions(extra: Iterable[str] = ()) -> dict[str, str]:
    """Return versions of the packages that decide about numbers: ours, plugins, what they need."""
    found = {"python": platform.python_version()}
    needed = [name for plugin in extra for name in (plugin, *_requirements(plugin))]
    for name in dict.fromkeys([*_PACKAGES, *needed]):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _requirements(distribution: str) -> list[str]:
    """Return what a distribution needs, without extras."""
    try:
        lines = requires(distribution) or []
    except PackageNotFoundError:
        return []
    plain = [line for line in lines if "extra ==" not in line]
    return [re.split(r"[\s<>=!~;\[(]", line, maxsplit=1)[0] for line in plain]


def describe(plugins: Iterable[Plugin], seed: int) -> dict[str, Any]:
    """Return what is known about this invocation, JSON-serialisable."""
    loaded = [p for p in plugins if p.status == "loaded"]
    return {
        "hook_api": HOOK_API,
        "seed": seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(p.distribution for p in loaded),
        "plugins": {p.name: f"{p.distribution} {p.version}" for p in loaded},
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "python": sys.version.split()[0],
        },
        "git_commit": _git_commit(),
    }


def _git_commit() -> str:
    """Return the commit of the working directory, or an empty string."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
            cwd=Path.cwd(),
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
