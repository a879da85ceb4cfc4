"""Configuration of a run: defaults < pipeline < preset < file < ``--set``.

A pipeline is a TOML text with a table ``[base]`` and one ``[presets.NAME]`` per preset, each
with the sections of :class:`RunConfig`. The resolved configuration, nothing implicit, is
written to ``run.toml``.
"""

from __future__ import annotations

import copy
import datetime
import logging
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.fields import FieldInfo

from sbi_core.data.gate import read_text
from sbi_core.data.reading import Reading
from sbi_core.errors import (
    ComponentNotFoundError,
    ConfigError,
    DataFileError,
    PluginError,
    SbiError,
    near_matches,
)
from sbi_core.estimators.choice import estimator_for
from sbi_core.pipeline.fixed import sized_options
from sbi_core.priors.space import ParameterSpace
from sbi_core.registry import REPLACED, SIMULATIONS, Kind, Registry
from sbi_core.simulate.emulator import EmulatorConfig
from sbi_core.training.config import TrainConfig
from sbi_core.validation import validate

__all__ = [
    "PRESETS",
    "CombineSection",
    "ComponentSection",
    "DiagnoseSection",
    "EmulateSection",
    "InferSection",
    "RunConfig",
    "SimulateSection",
    "after_training",
    "assign",
    "assignments",
    "command_words",
    "completed",
    "differences",
    "reading_options",
    "resolve",
    "to_toml",
]

_LOG = logging.getLogger(__name__)
PRESETS = ("quick", "standard", "large", "paper")
_COMPONENTS: tuple[Kind, ...] = (
    "simulator",
    "embedding",
    "estimator",
    "combiner",
    "analysis",
)
_DERIVED = (  # options that follow from the file of a fixed set of simulations
    *(f"simulator.{k}" for k in ("file", "sha256", "prior", "parameters", "observables", "units")),
    *(f"simulator.{k}" for k in ("shape", "errors", "group_column")),
    "simulate.n",
)
_ENVIRONMENT = (  # never change the numbers
    "simulate.executor",
    "simulate.workers",
    "simulate.dask_scheduler",
    "device",
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _OpenSection(BaseModel):
    model_config = ConfigDict(extra="allow")

    @property
    def options(self) -> dict[str, Any]:
        """The keys that the section does not name: options of its component."""
        return dict(self.model_extra or {})


class ComponentSection(_OpenSection):
    """A component by its name in the registry; all other keys are its options."""

    name: str


class EstimatorSection(ComponentSection):
    """The estimator (auto: by parameters and simulations), and the parameters that it infers."""

    parameters: str | list[str] = Field(
        "global", description="Parameters to infer: global, local, all, or a list of names."
    )


class SimulateSection(_Section):
    """Number of simulations, their shards, and the executor."""

    n: int = Field(10_000, ge=1, le=10**18, description="Number of simulations.")
    shard_size: int = Field(5_000, ge=1, description="Simulations per file.")
    executor: str = Field("process", description="serial, process or dask.")
    workers: int | None = Field(None, ge=1, description="Worker processes; default: all cores.")
    dask_scheduler: str | None = Field(
        None, description="Address of a running dask scheduler; default: a local cluster."
    )
    max_failed: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Largest fraction of simulations that may raise an exception, crash or exceed "
        "the time limit; they are left out.",
    )
    time_limit: float | None = Field(
        None, gt=0, description="Seconds for one call of simulate; default: no limit."
    )
    protect: bool = Field(
        False,
        description="Run the simulator in a process that may crash; with several workers this is "
        "switched on after the first crash.",
    )


class EmulateSection(_OpenSection):
    """The emulator of the simulator; all keys but ``enabled`` are its options."""

    enabled: bool = Field(False, description="Train an emulator of the simulator.")


class DiagnoseSection(_Section):
    """Calibration of single objects."""

    objects: int = Field(
        1000, ge=20, description="Held-out simulations on which the calibration is tested."
    )
    draws: int = Field(1000, ge=50, description="Posterior draws per object.")


class InferSection(_Section):
    """The objects that are inferred."""

    draws: int = Field(1000, ge=10, description="Posterior draws per object.")
    observations: str | None = Field(
        None, min_length=1, description="File of the objects; default: the plugin's example."
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        description="Columns of the file by the name they are read as, for example {fe_h = 'FeH'}.",
    )
    strict: bool = Field(
        False,
        description="Refuse a file with rows that cannot be used, instead of leaving them out.",
    )
    missing: list[float] | None = Field(
        None,
        description="Numbers that mark missing values; default: -999, -9999, -99999, -999.99, "
        "-9999.99, -32768, ±1e20, ±1e30 and those of the plugin.",
    )
    units: dict[str, str] = Field(
        default_factory=dict,
        description="Units of columns, for example {flux_r = 'uJy'}; with an empty name: of all "
        "columns without one.",
    )
    n_example: int = Field(100, ge=1, description="Number of objects in the example.")

    @property
    def reading(self) -> Reading:
        """The options of reading the file."""
        return Reading(self.columns, self.strict, self.missing, units=self.units)

    @field_validator("observations", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return str(Path(value).expanduser()) if isinstance(value, (str, Path)) and value else value


class CombineSection(_Section):
    """Numbers of objects to combine, rules to compare, and the calibration of the combination."""

    sizes: list[int] = Field(
        [1, 3, 10, 30, 100, 300, 1000], description="Numbers of objects to combine."
    )
    compare: list[str] = Field([], description="Further combiners, shown for comparison.")
    calibration_groups: int = Field(
        0,
        ge=0,
        description="Simulated groups of max(sizes) objects on which the combination is tested.",
    )
    remedies: bool = Field(
        False,
        description="Also show the combination with an error floor (+tau) and as a power "
        "posterior (+beta).",
    )
    reference: int = Field(
        0,
        ge=0,
        description="Simulated objects to which the observed ones are compared (model check).",
    )


class RunConfig(_Section):
    """All options that determine the results of a run."""

    plugin: str
    preset: str = "standard"
    seed: int = Field(1, ge=0, description="Seed of all random numbers.")
    device: str = Field("cpu", description="Torch device: cpu, cuda or cuda:1.")
    simulator: ComponentSection
    simulate: SimulateSection = SimulateSection()
    emulate: EmulateSection = EmulateSection()
    embedding: ComponentSection = ComponentSection(name="mlp")
    estimator: EstimatorSection = EstimatorSection(name="auto")
    train: dict[str, Any] = Field(default_factory=dict)
    diagnose: DiagnoseSection = DiagnoseSection()
    infer: InferSection = InferSection()
    combiner: ComponentSection = ComponentSection(name="auto")
    combine: CombineSection = CombineSection()
    analysis: ComponentSection = ComponentSection(name="none")


def resolve(
    registry: Registry,
    plugin: str,
    *,
    preset: str = "standard",
    file: str | Path | None = None,
    overrides: Mapping[str, Any] | Iterable[str] = (),
    defaults: Mapping[str, Any] | None = None,
    **direct: Any,
) -> RunConfig:
    """Return the full configuration of a run, with the values of all options.

    Parameters
    ----------
    registry
        Where plugins and components are found.
    plugin, preset
        The pipeline and its size.
    file
        TOML file with sections of :class:`RunConfig`.
    overrides
        ``{"section.key": value}`` or strings ``"section.key=value"``.
    defaults
        ``{"section.key": value}`` that complete the preset; file and overrides come after them.
    direct
        Values for top-level or dotted keys (with ``__`` for the dot); None is ignored.

    Raises
    ------
    ConfigError
        If a key is unknown (with near matches) or a value has the wrong type.
    """
    given = {} if file is None else _read_toml(Path(file).expanduser())
    registry.plugin(plugin)
    tree = _pipeline(registry, plugin, preset)
    for key, value in assignments(defaults or {}):
        assign(tree, key, value)
    _merge(tree, given)
    for key, value in assignments(overrides):
        assign(tree, key, value)
    for key, value in direct.items():
        if value is not None:
            assign(tree, key.replace("__", "."), value)
    for key, chosen in (("plugin", plugin), ("preset", preset)):
        if tree.setdefault(key, chosen) != chosen:
            msg = (
                f"the configuration file has {key} = {tree[key]!r}, but the command '{chosen}'; "
                f"pass --{key} {tree[key]}"
            )
            raise ConfigError(msg)
    try:
        return _checked(tree, registry)
    except (ConfigError, ComponentNotFoundError) as error:
        if str(error) != _fault_of_preset(registry, plugin, preset):
            raise
        msg = f"preset '{preset}' in the pipeline of plugin '{plugin}': {error}"
        raise type(error)(msg) from None


def _fault_of_preset(registry: Registry, plugin: str, preset: str) -> str:
    """Return what is wrong with a preset before a user changes options; empty if nothing is."""
    tree = {"plugin": plugin, "preset": preset, **_pipeline(registry, plugin, preset)}
    try:
        _checked(tree, registry)
    except SbiError as error:
        return str(error)
    return ""


def _checked(tree: dict[str, Any], registry: Registry) -> RunConfig:
    """Return a configuration with the values of all options.

    Raises
    ------
    ConfigError
        If a key is unknown (with near matches) or a value has the wrong type.
    """
    for kind in _COMPONENTS:  # a section without a name has the options of the default component
        default = RunConfig.model_fields[kind].default
        if isinstance(tree.get(kind), dict) and isinstance(default, ComponentSection):
            tree[kind].setdefault("name", default.name)
    config = validate(RunConfig, tree, "")
    if config.estimator.name == "auto":
        config.estimator.name = _estimator_for(config, registry)
    if config.combiner.name == "auto":
        config.combiner.name = _combiner_for(config, registry)
    for name in config.combine.compare:
        registry.find("combiner", name)
    return completed(config, registry)


def completed(config: RunConfig, registry: Registry) -> RunConfig:
    """Spell out all options of a configuration, also those that ``run.toml`` cannot express."""
    for kind in _COMPONENTS:
        _complete(config, registry, kind)
    config.train = validate(TrainConfig, config.train, "train").model_dump(mode="json")
    emulator = validate(EmulatorConfig, config.emulate.options, "emulate")
    config.emulate = EmulateSection(
        enabled=config.emulate.enabled, **emulator.model_dump(mode="json")
    )
    return config


def reading_options(reading: Reading) -> dict[str, Any]:
    """Return the options of reading for :func:`resolve`; what was not given is left as it is."""
    return {
        "infer__columns": dict(reading.columns) or None,
        "infer__strict": reading.strict or None,
        "infer__missing": None if reading.missing is None else list(reading.missing),
        "infer__units": dict(reading.units) or None,
    }


def after_training(
    config: RunConfig, registry: Registry, overrides: Mapping[str, Any] | Iterable[str]
) -> RunConfig:
    """Return a configuration with other options for objects that a trained run infers.

    These are the options of the analysis, and those of the simulator that only change how files
    are read: their fields have ``json_schema_extra={"reading": True}``.

    Raises
    ------
    ConfigError
        If an option is unknown, or is fixed by the training.
    """
    model = registry.find("simulator", config.simulator.name).options
    fields = list(model.model_fields.items()) if model else []
    free = [f"simulator.{name}" for name, field in fields if _is_read(field)]
    tree = config.model_dump(mode="json")
    for key, value in assignments(overrides):
        allowed = key.startswith("analysis.") or ".".join(key.split(".")[:2]) in free
        if not allowed:
            listed = ", ".join([*free, "analysis.*"])
            unknown = key.startswith("simulator.") and key.split(".")[1] not in dict(fields)
            fault = "is not an option" if unknown else "is fixed by the training of the run"
            msg = (
                f"option '{key}' {fault}{near_matches(key, free)} (options that can change: "
                f"{listed})"
            )
            raise ConfigError(msg)
        assign(tree, key, value)
    changed = validate(RunConfig, tree, "")
    for kind in ("simulator", "analysis"):
        _complete(changed, registry, kind)
    return changed


def _is_read(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("reading"))


def _complete(config: RunConfig, registry: Registry, kind: Kind) -> None:
    """Spell out all options of a component."""
    section: ComponentSection = getattr(config, kind)
    checked = registry.find(kind, section.name).checked(section.options)
    # TOML cannot express None: what is written to run.toml must read back as the same options
    options = {} if checked is None else checked.model_dump(mode="json", exclude_none=True)
    fixed = {k: getattr(section, k) for k in type(section).model_fields}
    setattr(config, kind, type(section)(**fixed, **options))


def _estimator_for(config: RunConfig, registry: Registry) -> str:
    """Return the name of the estimator for the parameters and the number of simulations."""
    simulator = registry.build("simulator", config.simulator.name, config.simulator.options)
    space = simulator.parameters.select(config.estimator.parameters)
    return estimator_for(space, config.simulate.n)


def _combiner_for(config: RunConfig, registry: Registry) -> str:
    """Return the rule that is calibrated for any number of objects, where objects can be simulated.

    Without shared parameters nothing is combined, and the rule that needs nothing is named.
    """
    simulator = registry.build("simulator", config.simulator.name, config.simulator.options)
    shared = any(p.scope == "global" for p in simulator.parameters.parameters)
    return "simulated-moments" if shared and not simulator.fixed_set else "gaussian"


def _pipeline(registry: Registry, plugin: str, preset: str) -> dict[str, Any]:
    try:
        spec = tomllib.loads(registry.build("pipeline", plugin))
    except tomllib.TOMLDecodeError as error:
        msg = f"the pipeline of plugin '{plugin}' is not valid TOML: {error}"
        raise PluginError(msg) from None
    presets = spec.get("presets", {})
    if not presets:
        msg = f"the pipeline of plugin '{plugin}' has no presets: it needs [presets.quick]"
        raise PluginError(msg)
    if preset not in presets:
        listed = ", ".join(presets)
        msg = (
            f"plugin '{plugin}' has no preset '{preset}'{near_matches(preset, presets)} ({listed})"
        )
        raise ConfigError(msg)
    tree: dict[str, Any] = copy.deepcopy(spec.get("base", {}))
    _merge(tree, presets[preset])
    tree.setdefault("simulator", {}).setdefault("name", plugin)
    _use_successor(tree, plugin)
    return tree


def _use_successor(tree: dict[str, Any], plugin: str) -> None:
    """Take the successor of a replaced combiner, with default options, and say so."""
    section = tree.get("combiner")
    name = section.get("name") if isinstance(section, dict) else None
    successor = REPLACED.get(("combiner", str(name)))
    if successor is None:
        return
    tree["combiner"] = {"name": successor}
    _LOG.warning(
        "the presets of plugin '%s' name combiner '%s', which was replaced: '%s' is used, with its "
        "default options",
        plugin,
        name,
        successor,
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        # copied, because nesting that Python cannot follow must end here and not later
        return copy.deepcopy(tomllib.loads(read_text(path, "toml")))
    except FileNotFoundError:
        msg = f"configuration file '{path}' does not exist"
        raise ConfigError(msg) from None
    except (OSError, ValueError, RecursionError, DataFileError) as error:
        msg = f"configuration file '{path}' cannot be read: {error}"
        raise ConfigError(msg) from None


def _merge(tree: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Merge nested tables; a component that changes its name loses the old one's options.

    Which parameters are inferred is no option of the estimator, and stays.
    """
    for key, value in changes.items():
        old = tree.get(key)
        if isinstance(value, Mapping) and isinstance(old, dict):
            if "name" in value and key in _COMPONENTS and value["name"] != old.get("name"):
                inferred = {k: v for k, v in old.items() if (key, k) == ("estimator", "parameters")}
                old.clear()
                old.update(inferred)
            _merge(old, value)
        elif isinstance(value, str) and "\0" in value:  # ends paths and names in C libraries
            msg = f"option '{key}' of the configuration contains a NUL character: {value!r}"
            raise ConfigError(msg)
        else:
            tree[key] = copy.deepcopy(value)


def assignments(overrides: Mapping[str, Any] | Iterable[str]) -> list[tuple[str, Any]]:
    """Return the keys and values of overrides; names of components come first."""
    if isinstance(overrides, Mapping):
        pairs = list(overrides.items())
    else:
        pairs = [_parse(text) for text in overrides]
    # names first: naming another component drops the options of the one it replaces
    return sorted(pairs, key=lambda p: not p[0].endswith(".name"))


def _parse(text: str) -> tuple[str, Any]:
    key, sign, raw = text.partition("=")
    if not sign or not key.strip():
        msg = f"cannot read --set '{text}'; write section.key=value, e.g. simulate.n=20000"
        raise ConfigError(msg)
    raw = raw.strip()
    try:
        value = tomllib.loads(f"v = {raw}")["v"]
    except tomllib.TOMLDecodeError:
        value = raw  # a bare word is a string
    if isinstance(value, (datetime.date, datetime.time)):
        value = raw  # no option is a date, but a file name may look like one
    return key.strip(), value


def assign(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key of a configuration; tables given as a value are replaced, not merged.

    Raises
    ------
    ConfigError
        If there is no such section, or the key is a section.
    """
    *parents, last = key.split(".")
    nested: Any = value
    for name in reversed([*parents, last]):
        nested = {name: nested}
    first = (parents or [last])[0]
    if first not in RunConfig.model_fields:
        known = list(RunConfig.model_fields)
        msg = f"unknown section '{first}' in '{key}'{near_matches(first, known)}"
        raise ConfigError(f"{msg} (known: {', '.join(known)})")
    if not parents and first in tree and isinstance(tree[first], dict):
        msg = f"'{key}' is a section; set one of its keys, e.g. {key}.name=..."
        raise ConfigError(msg)
    if isinstance(value, Mapping):
        target = tree
        for name in parents:
            target = target.setdefault(name, {})
        target[last] = dict(value)
        return
    _merge(tree, nested)


def to_toml(config: RunConfig) -> str:
    """Return the configuration as TOML; options that are None are left out."""
    return tomli_w.dumps(_without_none(config.model_dump(mode="json")))


def from_toml(text: str) -> RunConfig:
    """Return the configuration that :func:`to_toml` wrote."""
    return validate(RunConfig, tomllib.loads(text), "")


def command_words(config: RunConfig, registry: Registry, out: str) -> list[str]:
    """Return the arguments of ``sbi-run`` that resolve to a configuration.

    Options that equal those of the preset are left out, as are those of the machine (workers,
    executor), which change no result. Where ``--set`` cannot express a difference, the arguments
    name the configuration file of the run instead.
    """
    given = _of_simulations(config)
    if given == []:
        return ["report", out]
    plugin = ["run", config.plugin] if given is None else given
    words = [*plugin, "--preset", config.preset, "--seed", str(config.seed)]
    if config.infer.observations:
        words += ["--observations", config.infer.observations]
    if out != f"runs/{config.plugin}-{config.preset}":
        words += ["--out", out]
    try:
        settings = _settings(config, registry)
    except ConfigError:  # a run of another version, with options that no longer exist
        return [*words, "--config", f"{out}/run.toml"]
    return [*words, *(word for text in settings for word in ("--set", text))]


def _of_simulations(config: RunConfig) -> list[str] | None:
    """Return the first words of the command of a fixed set; empty: it was in memory."""
    options = config.simulator.options
    if config.plugin != SIMULATIONS:
        return None
    if not options.get("file"):
        return []
    column = options.get("group_column")
    words = ["--simulations", options["file"], "--prior", options.get("prior", "")]
    return [*words, "--group-column", column] if column else words


def _settings(config: RunConfig, registry: Registry) -> list[str]:
    """Return ``KEY=VALUE`` of everything that differs from the preset.

    Raises
    ------
    ConfigError
        If there is no such list.
    """
    given: dict[str, Any] = {"seed": config.seed}
    if config.infer.observations is not None:
        given["infer.observations"] = config.infer.observations
    settings = list[str]()
    if _of_simulations(config) is not None:  # what the file itself decides
        fixed = _table(config)
        given |= {k: fixed[k] for k in fixed if k.startswith(_DERIVED)}
        options = config.simulator.options
        shape, noise = options.get("shape", ()), bool(options.get("noise"))
        space = ParameterSpace.from_spec({"parameters": options["parameters"]})
        sized = sized_options(config.preset, config.simulate.n, shape, space, noise=noise)
        given |= sized
    names = [f"{kind}.name" for kind in _COMPONENTS]  # first: other components, other options
    try:
        _resolved(registry, config, given)
    except ComponentNotFoundError:  # the preset names a component that is gone
        now = _table(config)
        settings += [f"{k}={_toml_value(now[k])}" for k in names if k in now]
    for keys in (names, list(_table(config))):
        made = _resolved(registry, config, given | dict(assignments(settings)))
        ours, theirs = _table(config), _table(made)
        changed = [k for k in keys if k in ours and ours[k] != theirs.get(k)]
        matter = [k for k in changed if not k.startswith(_ENVIRONMENT)]
        settings += [f"{k}={_toml_value(ours[k])}" for k in matter]
    left = differences(_resolved(registry, config, given | dict(assignments(settings))), config)
    if left:
        msg = f"--set cannot express {left[0]}"
        raise ConfigError(msg)
    return settings


def _resolved(registry: Registry, config: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
    return resolve(registry, config.plugin, preset=config.preset, overrides=overrides)


def _table(config: RunConfig) -> dict[str, Any]:
    """Return all options that are set, by dotted key."""
    return _flat(_without_none(config.model_dump(mode="json")))


def _toml_value(value: Any) -> str:
    """Return a value as ``--set`` reads it."""
    return " ".join(tomli_w.dumps({"v": value}).partition("=")[2].split())


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(v) for v in value]
    return value


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = [_flat(v, f"{prefix}{k}.") for k, v in value.items()]
        return {k: v for item in items for k, v in item.items()}
    return {prefix[:-1]: value}


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """Return ``"key: old -> new"`` for every option that differs and matters to the numbers."""
    a, b = _table(old), _table(new)
    keys = [k for k in dict.fromkeys([*a, *b]) if not k.startswith(_ENVIRONMENT)]
    return [f"{k}: {a.get(k)!r} -> {b.get(k)!r}" for k in keys if a.get(k) != b.get(k)]


Stage = Literal["simulate", "emulate", "train", "diagnose", "infer", "combine", "report"]
