"""Opening a run directory: its configuration, its verified records, the context of its stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sbi_core.data.gate import read_text
from sbi_core.data.writing import sync
from sbi_core.errors import ConfigError, RunDirectoryError, SbiError
from sbi_core.files.directory import RESTORE, RunDirectory, sha256_of
from sbi_core.files.integrity import read_records, verify_files
from sbi_core.pipeline.config import RunConfig, from_toml, resolve
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.stages import STAGES, StageSpec
from sbi_core.progress import Progress
from sbi_core.registry import Registry

__all__ = ["artefacts", "open_context", "read_config", "verified_records", "verify_stage"]


def open_context(
    directory: RunDirectory,
    config: RunConfig,
    registry: Registry | None = None,
    overrides: Sequence[str] = (),
) -> Context:
    """Return the context of a saved run, after its files are compared with their checksums.

    Raises
    ------
    RunDirectoryError
        If a file is missing or altered, or an earlier version made the run and it cannot be used.
    """
    registry = registry or Registry([config.plugin])
    if "analysis" not in config.model_fields_set:
        _complete(config, registry, directory)
    context = Context(config, registry, directory, Progress(), overrides=tuple(overrides))
    cheap = [spec.name for spec in STAGES if spec.cheap]  # nothing is made from them
    for name, record in verified_records(directory, cheap)["stages"].items():
        if record.get("status") == "done":
            context.facts[name] = record["facts"]
            context.artefacts |= record["artefacts"]
    return context


def read_config(directory: RunDirectory) -> RunConfig:
    """Return the configuration in run.toml.

    Raises
    ------
    RunDirectoryError
        If it cannot be read.
    """
    try:
        return from_toml(read_text(directory.config, "toml"))
    except (SbiError, OSError, ValueError, RecursionError) as error:  # not TOML, not UTF-8, ...
        msg = f"'{directory.config}' is damaged ({error}); {RESTORE}"
        raise RunDirectoryError(msg) from None


def verified_records(directory: RunDirectory, without: Sequence[str] = ()) -> dict[str, Any]:
    """Return provenance.json after comparing every file that it names with its SHA-256.

    Raises
    ------
    RunDirectoryError
        Naming the file that is missing, truncated or altered, and the stage that makes it.
    """
    records = read_records(directory, required=True)
    config = records.get("config", {})
    verify_files(directory, config, "the run wrote it; give the run its command again")
    for spec in STAGES:
        record = records["stages"].get(spec.name, {})
        if record.get("status") == "done" and spec.name not in without:
            verify_stage(directory, spec, record)
    return records


def verify_stage(directory: RunDirectory, spec: StageSpec, record: Mapping[str, Any]) -> None:
    """Raise when an artefact of a finished stage is gone or was altered."""
    advice = f"stage '{spec.name}' wrote it; pass --restart {spec.name} to make it again"
    verify_files(directory, record.get("artefacts", {}), advice)


def _complete(config: RunConfig, registry: Registry, directory: RunDirectory) -> None:
    """Complete a run of sbi-core 0.1.0, whose configuration names no analysis.

    Raises
    ------
    RunDirectoryError
        If the plugin has other options by now, with the command that makes the run again.
    """
    try:
        config.analysis = resolve(registry, config.plugin, preset=config.preset).analysis
        registry.find("simulator", config.simulator.name).build(config.simulator.options)
    except ConfigError as error:
        msg = (
            f"'{directory.root}' was made by an earlier version of plugin "
            f"'{config.plugin}' ({error}); make it again: sbi-run run {config.plugin} "
            f"--preset {config.preset} --seed {config.seed} --out {directory.root} "
            "--restart simulate"
        )
        raise RunDirectoryError(msg) from None


def artefacts(directory: RunDirectory, spec: StageSpec) -> dict[str, str]:
    """Return the SHA-256 of every file that a stage wrote, by its path below the run.

    Files and their folders are flushed to the disk: the record that names them follows.
    """
    hashes = {}
    for output in spec.outputs(directory):
        paths = sorted(output.rglob("*")) if output.is_dir() else [output]
        for path in paths:
            if path.is_file() and not path.name.startswith("."):
                hashes[str(path.relative_to(directory.root))] = sha256_of(path)
                sync(path)
        sync(*(p for p in (*paths, output, directory.root) if p.is_dir()))
    return hashes
