"""A run: stages executed in order, each skipped when its result is there and still valid.

Stage results are identified by a fingerprint: the configuration keys that decide about them, the
fingerprints of the stages before, and the identity of the simulator.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from sbi_core.analyses.findings import Findings, Section
from sbi_core.components import Simulator
from sbi_core.data.limits import read_text
from sbi_core.data.observations import Observations
from sbi_core.errors import ConfigError, RunDirectoryError, SbiError, near_matches
from sbi_core.files.directory import RunDirectory, atomic_write, read_json, sha256_of
from sbi_core.files.integrity import read_records, verify_files, write_records
from sbi_core.files.lock import locked
from sbi_core.files.provenance import describe
from sbi_core.pipeline.ahead import Ahead
from sbi_core.pipeline.config import RunConfig, differences, from_toml, resolve, to_toml
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.estimate import check_resources
from sbi_core.pipeline.inference import infer_in_memory
from sbi_core.pipeline.model_check import check_group
from sbi_core.pipeline.reading import read_objects
from sbi_core.pipeline.stage import StageSpec
from sbi_core.pipeline.stages import STAGES, stage_names
from sbi_core.posterior import CombinedPosterior, Posterior, PosteriorSamples
from sbi_core.priors.space import canonical_hash
from sbi_core.progress import Progress
from sbi_core.registry import Registry
from sbi_core.rng import stream, torch_defaults
from sbi_core.simulate.executors import get_executor

__all__ = ["Run", "execute", "simulate_shards"]

_log = logging.getLogger("sbi_core")


@torch_defaults()
def execute(
    config: RunConfig,
    out: str | Path,
    registry: Registry,
    *,
    stages: Sequence[str] | None = None,
    restart: str | None = None,
    progress: Progress | None = None,
) -> Run:
    """Execute the stages of a run that are not done yet.

    Parameters
    ----------
    config
        The resolved configuration.
    out
        Run directory.
    registry
        Where components are found.
    stages
        Run only these stages; the stages before must be done.
    restart
        Delete the results of this stage and of all later ones, and run them again.
    progress
        Where progress is shown.

    Raises
    ------
    RunDirectoryError
        If the directory holds another configuration, or a stage's input is missing.
    """
    for name in [*(stages or ()), *([restart] if restart else [])]:
        if name not in stage_names():
            known = ", ".join(stage_names())
            msg = f"unknown stage '{name}'{near_matches(name, stage_names())} (known: {known})"
            raise ConfigError(msg)
    directory = RunDirectory(out)
    context = Context(config, registry, directory, progress or Progress())
    prints = _fingerprints(context)
    # before anything is written: bad input leaves no trace
    _ = context.space
    _check_machine(config)
    if config.infer.observations:
        _refuse_outputs(Path(config.infer.observations), directory)
        _ = context.observations
    if restart == STAGES[0].name or not directory.provenance.exists():
        check_resources(context)
    directory.create()
    with locked(directory.root):
        _execute(context, prints, stages, restart)
    return Run(directory.root, registry)


def _refuse_outputs(observations: Path, directory: RunDirectory) -> None:
    """Raise when the observations are a file that the run writes."""
    path = observations.resolve()
    outputs = [output.resolve() for spec in STAGES for output in spec.outputs(directory)]
    if any(path == output or output in path.parents for output in outputs):
        msg = f"'{observations}' is a file that this run writes; copy it, or choose another --out"
        raise ConfigError(msg)


def _execute(
    context: Context,
    prints: Mapping[str, str],
    stages: Sequence[str] | None,
    restart: str | None,
) -> None:
    """Execute the stages; the caller holds the lock."""
    directory = context.directory
    records = read_records(directory)
    names: list[str] = list(stage_names())
    again = STAGES[names.index(restart) :] if restart else ()
    for spec in again:
        records["stages"].pop(spec.name, None)
    _refuse_mixing(context, records, prints)  # before anything is deleted
    if again:
        directory.remove(*(path for spec in again for path in spec.outputs(directory)))
    with atomic_write(directory.config) as f:
        f.write(to_toml(context.config))
    write_records(directory, records)
    with _logging_to(directory.log):
        todo = _todo(context, records, prints, stages)
        with Ahead(context) as ahead:
            order = _late(todo) if ahead.possible else todo
            for k, spec in enumerate(order):
                for later in order[k + 1 :]:
                    ready = [name for name in later.ahead if name in context.facts]
                    if any([ahead.start(later, name) for name in ready]):
                        _started(context, later, records, prints)
                _one(context, spec, records, prints, ahead)


def _todo(
    context: Context,
    records: Mapping[str, Any],
    prints: Mapping[str, str],
    stages: Sequence[str] | None,
) -> list[StageSpec]:
    """Return the wanted stages that are not done, after a check of those that are."""
    todo: list[StageSpec] = []
    for spec in STAGES:
        wanted = stages is None or spec.name in stages
        done = records["stages"].get(spec.name, {})
        if done.get("status") == "done" and done["fingerprint"] == prints[spec.name]:
            _verify(context.directory, spec, done)
            context.facts[spec.name] = done["facts"]
            if wanted:
                context.progress.say(f"{spec.name:>9}: already done")
        elif wanted:
            there = {*context.facts, *(s.name for s in todo)}
            missing = [name for name in spec.after if name not in there]
            if missing and not spec.optional:
                msg = f"stage '{spec.name}' needs '{missing[0]}', which has not run yet"
                raise RunDirectoryError(msg)
            todo.append(spec)
    return todo


def _late(todo: Sequence[StageSpec]) -> list[StageSpec]:
    """Return the stages; those that can work ahead stand just before the first that needs them."""
    order = [spec for spec in todo if not spec.ahead]
    for spec in todo:
        if spec.ahead:
            users = [k for k, other in enumerate(order) if spec.name in other.after]
            order.insert(min(users, default=len(order)), spec)
    return order


def simulate_shards(
    config: RunConfig,
    out: str | Path,
    registry: Registry,
    first: int,
    last: int,
    progress: Progress | None = None,
) -> int:
    """Simulate some shards of a run, beside other processes that simulate others.

    Parameters
    ----------
    config
        The resolved configuration.
    out
        Run directory.
    registry
        Where components are found.
    first, last
        Numbers of the shards, both included.
    progress
        Where progress is shown.

    Returns
    -------
    int
        Number of shards that the run has.

    Raises
    ------
    ConfigError
        If the run has no such shards.
    RunDirectoryError
        If the directory holds another configuration, or another process works on these shards.
    """
    from sbi_core.pipeline.stages.simulate import fill

    directory = RunDirectory(out)
    context = Context(config, registry, directory, progress or Progress())
    _check_machine(config)
    check_resources(context)
    shards = context.shards
    if not 0 <= first <= last < len(shards):
        msg = f"--shards {first}-{last}: this run has shards 0 to {len(shards) - 1}"
        raise ConfigError(msg)
    directory.create()
    with locked(directory.root, f"shards-{first}-{last}"):
        _refuse_mixing(context, read_records(directory), _fingerprints(context))
        if not directory.config.exists():
            with atomic_write(directory.config) as f:
                f.write(to_toml(config))
        fill(context, context.simulator, shards[first : last + 1], "simulate", shards)
    return len(shards)


def _check_machine(config: RunConfig) -> None:
    """Raise when executor or device are not there."""
    import torch

    section = config.simulate
    get_executor(section.executor, section.workers, section.dask_scheduler)
    try:
        torch.empty(0, device=config.device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        first = str(error).strip().split("\n")[0]
        msg = f"device '{config.device}' cannot be used: {first}"
        raise ConfigError(msg) from None


def _one(
    context: Context,
    spec: StageSpec,
    records: dict[str, Any],
    prints: Mapping[str, str],
    ahead: Ahead,
) -> None:
    """Execute one stage, or take its result from the background process."""
    _started(context, spec, records, prints)
    start = perf_counter()
    done = ahead.result(spec)
    waited = perf_counter() - start
    result = spec.execute(context) if done is None else done[0]
    facts = dict(result.facts)
    if result.verdicts:
        facts["verdicts"] = [[v.level, v.sentence, v.test] for v in result.verdicts]
    if spec.arrays is not None and result.arrays:
        np.savez_compressed(spec.arrays(context.directory), **result.arrays)
    facts["stage_seconds"] = round(perf_counter() - start, 3)
    if done is not None:
        facts["stage_seconds"] = round(done[1], 3)
        facts["hidden_seconds"] = round(max(0.0, done[1] - waited), 3)  # beside other stages
        context.progress.say(f"{spec.name:>9}: done in the background ({done[1]:.1f} s)")
    context.facts[spec.name] = facts
    records["stages"][spec.name] = {
        "status": "done",
        "fingerprint": prints[spec.name],
        "facts": facts,
        "artefacts": _artefacts(context.directory, spec),
    }
    write_records(context.directory, records)
    _log.info("stage %s done in %.1f s", spec.name, facts["stage_seconds"])


def _started(
    context: Context, spec: StageSpec, records: dict[str, Any], prints: Mapping[str, str]
) -> None:
    """Record that the results of a stage may be in the directory from now on."""
    records |= describe(context.registry.plugins, context.config.seed)
    records["prior"] = context.simulator.parameters.to_spec()
    records["hashes"] = {
        "prior": context.simulator.parameters.hash,
        "proposal": context.simulator.parameters.hash,
        "simulator": context.simulator_identity,
    }
    records["simulator"] = context.simulator.identity
    records["stages"][spec.name] = {"status": "started", "fingerprint": prints[spec.name]}
    write_records(context.directory, records)
    _log.info("stage %s started", spec.name)


def _fingerprints(context: Context) -> dict[str, str]:
    config = context.config.model_dump(mode="json")
    prints: dict[str, str] = {}
    for spec in STAGES:
        parts: dict[str, Any] = {key: _at(config, key) for key in spec.uses}
        parts |= {f"after {name}": prints[name] for name in spec.after}
        parts |= spec.inputs(context)
        prints[spec.name] = canonical_hash(parts)
    return prints


def _at(tree: Mapping[str, Any], key: str) -> Any:
    value: Any = tree
    for name in key.split("."):
        value = value[name]
    return value


def _read_config(directory: RunDirectory) -> RunConfig:
    try:
        return from_toml(read_text(directory.config))
    except (SbiError, OSError, ValueError, RecursionError) as error:  # not TOML, not UTF-8, ...
        msg = f"'{directory.config}' is damaged: {error}"
        raise RunDirectoryError(msg) from None


def _refuse_mixing(context: Context, records: Mapping[str, Any], prints: Mapping[str, str]) -> None:
    """Raise when results in the directory belong to another configuration."""
    stages = records["stages"]
    lasting = [spec.name for spec in STAGES if not spec.cheap]
    stale = [n for n in lasting if n in stages and stages[n]["fingerprint"] != prints[n]]
    if not stale:
        return
    changed = ["the simulator, its data or its prior"]
    if context.directory.config.exists():
        old = _read_config(context.directory)
        changed = differences(old, context.config) or changed
    listed = "; ".join(changed[:4]) + ("; ..." if len(changed) > 4 else "")
    msg = (
        f"'{context.directory.root}' holds a run with another configuration ({listed}), which "
        f"invalidates {', '.join(stale)}; choose another --out to keep that run, or pass "
        f"--restart {stale[0]} to delete its results from that stage on"
    )
    raise RunDirectoryError(msg)


def _artefacts(directory: RunDirectory, spec: StageSpec) -> dict[str, str]:
    found = {}
    for output in spec.outputs(directory):
        files = sorted(p for p in output.rglob("*") if p.is_file()) if output.is_dir() else [output]
        for path in files:
            if path.is_file() and not path.name.startswith("."):
                found[str(path.relative_to(directory.root))] = sha256_of(path)
    return found


def _verify(directory: RunDirectory, spec: StageSpec, record: Mapping[str, Any]) -> None:
    """Raise when an artefact of a finished stage is gone or was altered."""
    advice = f"stage '{spec.name}' wrote it; pass --restart {spec.name} to make it again"
    verify_files(directory, record.get("artefacts", {}), advice)


class _LogFile(logging.FileHandler):
    """Leaves out what cannot be written: on a full disk the stage itself says what is wrong."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say nothing, where the base class prints a traceback."""


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level = _log.level
    _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    try:
        yield
    finally:
        _log.removeHandler(handler)
        _log.setLevel(level)
        handler.close()


class Run:
    """A run directory and what can be done with it.

    Parameters
    ----------
    directory
        A directory written by ``sbi-run`` or :func:`sbi_core.run`.
    registry
        Where components are found; default: the installed plugins.
    overrides
        Options that differ from those of the run, ``"section.key=value"``: options of the analysis,
        and those of the simulator that change only how files are read.
    """

    def __init__(
        self,
        directory: str | Path,
        registry: Registry | None = None,
        overrides: Iterable[str] = (),
    ) -> None:
        self.directory = RunDirectory(directory)
        self.directory.require()
        self.config = _read_config(self.directory)
        self._registry = registry
        self._overrides = tuple(overrides)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the place of the run: the other process reads it from there."""
        return Run, (self.directory.root.resolve(), self._registry, self._overrides)

    @cached_property
    def _context(self) -> Context:
        registry = self._registry or Registry([self.config.plugin])
        if "analysis" not in self.config.model_fields_set:
            self._take_analysis(registry)
        context = Context(
            self.config, registry, self.directory, Progress(), overrides=self._overrides
        )
        cheap = [spec.name for spec in STAGES if spec.cheap]  # nothing is made from them
        stages = self.verify(without=cheap)["stages"]
        for name, record in stages.items():
            if record.get("status") == "done":
                context.facts[name] = record["facts"]
        return context

    def _take_analysis(self, registry: Registry) -> None:
        """Complete a run of sbi-core 0.1.0, whose configuration names no analysis.

        Raises
        ------
        RunDirectoryError
            If the plugin has other options by now, with the command that makes the run again.
        """
        config = self.config
        try:
            config.analysis = resolve(registry, config.plugin, preset=config.preset).analysis
            registry.find("simulator", config.simulator.name).build(config.simulator.options)
        except ConfigError as error:
            msg = (
                f"'{self.directory.root}' was made by an earlier version of plugin "
                f"'{config.plugin}' ({error}); make it again: sbi-run run {config.plugin} "
                f"--preset {config.preset} --seed {config.seed} --out {self.directory.root} "
                "--restart simulate"
            )
            raise RunDirectoryError(msg) from None

    def verify(self, without: Sequence[str] = ()) -> dict[str, Any]:
        """Compare everything that finished stages wrote with its recorded SHA-256.

        Done when a run is first used, but for the report, which is compared when it is read.
        Returns the records.

        Parameters
        ----------
        without
            Stages that are left out.

        Raises
        ------
        RunDirectoryError
            Naming the file that is missing, truncated or altered, and the stage that makes it.
        """
        records = read_records(self.directory)
        config = records.get("config", {})
        verify_files(self.directory, config, "the run wrote it; give the run its command again")
        for spec in STAGES:
            record = records["stages"].get(spec.name, {})
            if record.get("status") == "done" and spec.name not in without:
                _verify(self.directory, spec, record)
        return records

    @property
    def simulator(self) -> Simulator:
        """The simulator of this run."""
        return self._context.simulator

    @property
    def posterior(self) -> Posterior:
        """The trained posterior."""
        return self._context.posterior

    @property
    def report(self) -> dict[str, Any]:
        """The contents of report.json."""
        record = read_records(self.directory)["stages"].get("report", {})
        name = self.directory.report_json.name
        known = record.get("artefacts", {}).get(name)
        if known:
            verify_files(self.directory, {name: known}, "it was written; make it again: report RUN")
        found: dict[str, Any] = read_json(self.directory.report_json)
        return found

    def observations(self, source: Any, columns: Mapping[str, str] | None = None) -> Observations:
        """Return the objects of a file or table as the run's simulator reads them.

        Parameters
        ----------
        source
            A file name, a table in memory (astropy ``Table`` or ``QTable``, pandas ``DataFrame``,
            dict of columns), or observations.
        columns
            ``{name: column}``: the table's ``column`` is read as ``name``.
        """
        return read_objects(self.simulator, source, columns)

    @torch_defaults()
    def infer(
        self,
        observations: Any,
        draws: int | None = None,
        *,
        columns: Mapping[str, str] | None = None,
    ) -> PosteriorSamples:
        """Return posterior draws for every object, with all that tables of results hold.

        Parameters
        ----------
        observations
            See :meth:`observations`.
        draws
            Posterior draws per object; default: those of the run.
        columns
            ``{name: column}``: the table's ``column`` is read as ``name``.

        Returns
        -------
        PosteriorSamples
            ``samples["name"]`` are draws (draw, object), ``samples.summary()`` is the table that
            ``sbi-run infer`` writes. Objects unlike the simulations carry the flag
            ``outside_training``.

        Raises
        ------
        ConfigError
            If ``draws`` is not a whole number above 0.
        ObservationError
            If the objects cannot be read.
        """
        number = self.config.infer.draws if draws is None else draws
        if isinstance(number, bool) or int(number) != number or number < 1:
            msg = f"draws must be a whole number above 0, got {draws!r}"
            raise ConfigError(msg)
        data = self.observations(observations, columns)
        return infer_in_memory(self._context, data, int(number))

    @torch_defaults()
    def combine(
        self,
        observations: Any,
        combiner: str | None = None,
        *,
        columns: Mapping[str, str] | None = None,
    ) -> CombinedPosterior:
        """Combine all objects, which must belong to one group, into one posterior.

        Parameters
        ----------
        observations
            See :meth:`observations`.
        combiner
            Name of the rule; default: that of the run.
        columns
            ``{name: column}``: the table's ``column`` is read as ``name``.

        Returns
        -------
        CombinedPosterior
            With the flag ``unlike_the_simulator`` where the simulator, with the combined
            parameters, does not make objects like these (plugins that set ``combine.reference``).

        Raises
        ------
        ConfigError
            If the objects belong to several groups.
        """
        data = self.observations(observations, columns)
        if len(data.groups) > 1:
            msg = f"the objects belong to {len(data.groups)} groups; combine one group at a time"
            raise ConfigError(msg)
        rng = stream(self.config.seed, "combine", combiner or self.config.combiner.name)
        rule = self._context.combiner(combiner)
        if rule.groups_needed:
            rule.restore(self.directory.combiner(rule.name))
        combined = rule.combine(self.posterior, data, rng=rng)
        checked = check_group(self._context, combined, data)
        if checked is None:
            return combined
        entry, verdict = checked
        unlike = () if verdict.level == "pass" else ("unlike_the_simulator",)
        return replace(
            combined,
            diagnostics={**combined.diagnostics, "misspecification_p": entry["p"]},
            flags=(*combined.flags, *unlike),
        )

    def write_report(self) -> None:
        """Write report.json and report.html again from the recorded facts."""
        from sbi_core.pipeline.stages.report import execute as write

        with locked(self.directory.root):
            context = self._context
            write(context)
            records = read_records(self.directory)
            for spec in STAGES:
                record = records["stages"].get(spec.name, {})
                if record.get("status") == "done" and spec.name == "report":
                    record["artefacts"] = _artefacts(self.directory, spec)
            if records["stages"]:
                write_records(self.directory, records)

    def write_figures(self, kind: str = "pdf", folder: str | Path | None = None) -> list[Path]:
        """Write the figures of the report as files with editable text.

        The figures of a plugin are drawn anew, for which its objects are inferred again.

        Parameters
        ----------
        kind
            ``pdf``, ``png`` or ``svg``.
        folder
            Where; default: ``figures`` in the run directory.

        Returns
        -------
        list of Path
        """
        from sbi_core.pipeline.stages.report import build_report, page_inputs
        from sbi_core.report.figures import drawing_style, drawings, write_figures

        context = self._context
        report = build_report(context)
        inputs = page_inputs(context, report)
        target = Path(folder) if folder else self.directory.root / "figures"
        sections = self._sections()
        with drawing_style():
            made = drawings(report, inputs["arrays"], inputs["history"])
            return write_figures(made, sections, target, kind)

    def _sections(self) -> list[Section]:
        """Return the sections of the plugin's analysis with their figures."""
        from sbi_core.pipeline.stages.diagnose import analysis_tests
        from sbi_core.pipeline.stages.infer import analysis_report

        context = self._context
        results: Findings | None = None
        if self.directory.infer_sections.exists():
            objects = context.observations
            samples = infer_in_memory(context, objects, self.config.infer.draws)
            results = analysis_report(context, objects, samples)
        tests = analysis_tests(context) if self.directory.diagnose_sections.exists() else None
        return [section for part in (results, tests) if part for section in part.sections]

    def __repr__(self) -> str:
        return f"Run({self.config.plugin}, {self.config.preset}, '{self.directory.root}')"

    def _repr_html_(self) -> str:
        from html import escape

        from sbi_core.report.text import measurement

        rows = ""
        if self.directory.report_json.exists():
            for entry in self.report.get("combined", []):
                values = ", ".join(
                    f"{escape(name)} = {measurement(p['mean'], p['sd'])}"
                    for name, p in entry["parameters"].items()
                )
                rows += (
                    f"<tr><td>{escape(entry['combiner'])}</td><td>{entry['n']}</td>"
                    f"<td>{values}</td></tr>"
                )
        head = f"<b>{escape(self.config.plugin)}</b> ({escape(self.config.preset)})"
        return f"{head}<table><tr><th>combiner</th><th>N</th><th>result</th></tr>{rows}</table>"
