"""A saved run: its posterior, inference of further objects, combination, report."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any, TypeVar

from astropy.table import Table

from sbi_core.analyses import Findings, Section
from sbi_core.components import Simulator
from sbi_core.data.observations import Observations
from sbi_core.data.reading import Reading
from sbi_core.data.writing import write_atomic
from sbi_core.diagnostics import Verdict, combine_verdicts
from sbi_core.diagnostics.support import SupportScale
from sbi_core.errors import ConfigError, RunDirectoryError
from sbi_core.files.directory import RunDirectory, read_json
from sbi_core.files.integrity import read_records, verify_files, write_records
from sbi_core.files.lock import locked
from sbi_core.pipeline.catalogue import table_meta
from sbi_core.pipeline.config import completed
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.inference import catalogue_flags, infer_in_memory, support_flags
from sbi_core.pipeline.model_check import check_group, flagged
from sbi_core.pipeline.opening import artefacts, open_context, read_config, verified_records
from sbi_core.pipeline.reading import read_objects, written_beside
from sbi_core.pipeline.stages import STAGES, stage_names
from sbi_core.posterior import (
    UNLIKE,
    UNLIKE_NOMINAL,
    Calibration,
    CombinedPosterior,
    Posterior,
    PosteriorSamples,
)
from sbi_core.progress import make_progress
from sbi_core.registry import Registry
from sbi_core.rng import stream, torch_defaults
from sbi_core.threads import single_thread

__all__ = ["Run"]

S = TypeVar("S", bound=Simulator)


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
        self.config = read_config(self.directory)
        verified_records(self.directory, stage_names())  # the configuration only
        self._registry = registry
        self._overrides = tuple(overrides)
        self._scales = dict[bytes, SupportScale]()
        self.temporary: Any = None  # keeps a temporary directory as long as the run

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the place of the run: the other process reads it from there."""
        return Run, (self.directory.root.resolve(), self._registry, self._overrides)

    @cached_property
    def _context(self) -> Context:
        return open_context(self.directory, self.config, self._registry, self._overrides)

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
        return verified_records(self.directory, without)

    @property
    def simulator(self) -> Simulator:
        """The simulator of this run."""
        return self._context.simulator

    def simulator_of(self, *kinds: type[S]) -> S:
        """Return the simulator of this run, which must be of one of these classes.

        Raises
        ------
        ConfigError
            Naming the plugin of the run and the one that is expected: the name of the first class.
        """
        try:
            simulator: Simulator | None = self.simulator
        except ConfigError:  # an override may be an option of the expected plugin
            plain = Run(self.directory.given, self._registry)
            if not self._overrides or isinstance(plain.simulator, kinds):
                raise
            simulator = None
        if not isinstance(simulator, kinds):
            msg = (
                f"'{self.directory.given}' is a run of {self.config.plugin}, expected one of "
                f"{kinds[0].name}; name another run"
            )
            raise ConfigError(msg)
        return simulator

    @property
    def posterior(self) -> Posterior:
        """The trained posterior."""
        posterior = self._context.posterior
        posterior.run = self
        return posterior

    @property
    def report(self) -> dict[str, Any]:
        """The contents of report.json."""
        record = read_records(self.directory, required=True)["stages"].get("report", {})
        name = self.directory.report_json.name
        advice = "it was written; make it again: sbi-run report RUN"
        known = record.get("artefacts", {}).get(name)
        if known is None:
            msg = f"no record verifies '{self.directory.report_json}'; write it: sbi-run report RUN"
            raise RunDirectoryError(msg)
        verify_files(self.directory, {name: known}, advice)
        report: dict[str, Any] = read_json(self.directory.report_json)
        return report

    def observations(
        self,
        source: Any,
        columns: Mapping[str, str] | None = None,
        *,
        strict: bool = False,
        missing: Sequence[float] | None = None,
        units: Mapping[str, str] | None = None,
    ) -> Observations:
        """Return the objects of a file or table as the run's simulator reads them.

        Parameters
        ----------
        source
            A file name, a table in memory (astropy ``Table`` or ``QTable``, pandas ``DataFrame``,
            dict of columns), or observations.
        columns
            ``{name: column}``: the table's ``column`` is read as ``name``.
        strict
            Refuse rows that cannot be used, instead of leaving them out.
        missing
            Numbers that mark missing values; default: those of the plugin.
        units
            ``{name: unit}`` of columns; of the name ``""``: of all columns without one.
        """
        if isinstance(source, str) and not source.strip():
            msg = "observations: expected the name of a file, got an empty text"
            raise ConfigError(msg)
        if isinstance(source, (str, Path)):  # the simulator may change the working directory
            source = Path(source).expanduser().absolute()
        reading = Reading(columns or {}, strict, missing, units=units or {})
        return read_objects(self.simulator, source, reading)

    @torch_defaults()
    def infer(
        self,
        observations: Any,
        draws: int | None = None,
        *,
        columns: Mapping[str, str] | None = None,
        strict: bool = False,
        missing: Sequence[float] | None = None,
        units: Mapping[str, str] | None = None,
    ) -> PosteriorSamples:
        """Return posterior draws for every object, with all that tables of results hold.

        Parameters
        ----------
        observations, columns, strict, missing, units
            The objects; see :meth:`observations`.
        draws
            Posterior draws per object; default: those of the run.

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
        data = self.observations(observations, columns, strict=strict, missing=missing, units=units)
        samples = infer_in_memory(self._context, data, int(number))
        return replace(samples, meta=table_meta(self._context, data.source, int(number)))

    @torch_defaults()
    def combine(
        self,
        observations: Any,
        combiner: str | None = None,
        *,
        columns: Mapping[str, str] | None = None,
        strict: bool = False,
        missing: Sequence[float] | None = None,
        units: Mapping[str, str] | None = None,
    ) -> CombinedPosterior:
        """Combine all objects, which must belong to one group, into one posterior.

        Parameters
        ----------
        observations, columns, strict, missing, units
            The objects; see :meth:`observations`.
        combiner
            Name of the rule; default: that of the run.

        Returns
        -------
        CombinedPosterior
            With the flag ``unlike_the_simulator``, and a ``warning`` that is printed first, where
            the simulator, with the combined parameters, does not make objects like these (20
            objects or more, plugins that set ``combine.reference``), and
            ``objects_outside_training`` as in reports. ``excluded`` are the rows left out.

        Raises
        ------
        ConfigError
            If the objects belong to several groups.
        """
        data = self.observations(observations, columns, strict=strict, missing=missing, units=units)
        if len(data.groups) > 1:
            msg = f"the objects belong to {len(data.groups)} groups; combine one group at a time"
            raise ConfigError(msg)
        rng = stream(self.config.seed, "combine", combiner or self.config.combiner.name)
        rule = self._context.combiner(combiner)
        if rule.groups_needed:
            rule.restore(self._context.verified(self.directory.combiner(rule.name), "combine"))
        with single_thread():
            combined = rule.combine(self.posterior, data, rng=rng)
            checked = None if rule.marginalises else check_group(self._context, combined, data)
        flags = (*combined.flags, *catalogue_flags(self._context, data))
        if len(data) == 1:
            flags = (*flags, "single_object")
        if rule.marginalises and UNLIKE not in flags and self._fails_nominally(data):
            flags += (UNLIKE_NOMINAL,)
        combined = replace(combined, flags=flags, excluded=data.excluded)
        return flagged(combined, checked)

    @property
    def nominal_combiner(self) -> str:
        """Name of the rule that combines objects for nominal values of nuisance parameters."""
        return self._context.nominal_combiner

    def _fails_nominally(self, data: Observations) -> bool:
        """Return True if the model with nominal nuisance parameters does not make the objects."""
        nominal = self.nominal_combiner
        rule = self._context.bare_combiner(nominal)
        return not rule.marginalises and UNLIKE in self.combine(data, nominal).flags

    @torch_defaults()
    def outside(self, observations: Observations) -> tuple[str, ...]:
        """Return the flags of objects unlike the simulations of a fixed set.

        Empty for other simulators, whose objects :meth:`infer` flags.
        """
        if not self.simulator.fixed_set:
            return ()
        return support_flags(self._context, observations, self._scales)

    def calibrate(self, *, quiet: bool = True) -> Calibration:
        """Return the results of the stage ``diagnose``, which runs if it has not yet.

        Parameters
        ----------
        quiet
            Show no progress.
        """
        self._execute(["diagnose"], quiet=quiet)
        facts = self._context.facts["diagnose"]
        verdicts = [Verdict(*v) for v in facts["verdicts"]]
        names = self._context.space.names
        tests = facts["calibration"]["parameters"]
        rows: dict[str, Any] = {"parameter": list(names)}
        rows["sbc_p"] = [tests[n]["sbc_p"] for n in names]
        for level in tests[names[0]]["coverage"]:
            rows[f"coverage_{level}"] = [tests[n]["coverage"][level] for n in names]
        table = Table(rows)
        for name in table.colnames[1:]:
            table[name].info.format = ".3f"
        return Calibration(
            combine_verdicts(verdicts).level,
            tuple(v.sentence for v in verdicts if v.level != "pass"),
            facts["calibration"]["objects"],
            table,
        )

    def finish(
        self, path: str | Path | None = None, observations: Any = None, *, quiet: bool = True
    ) -> Path:
        """Run all stages that are left and return the path of the report.

        Parameters
        ----------
        path
            A copy of the report is written there.
        observations
            Objects to infer; default: those of the run.
        quiet
            Show no progress.
        """
        target = None if path is None else Path(path).expanduser().absolute()
        if target is not None and not target.parent.is_dir():
            msg = f"cannot write '{path}': folder '{target.parent}' does not exist"
            raise ConfigError(msg)
        again = False
        if observations is not None:
            objects = self.observations(observations)
            file = written_beside(objects, self.directory)
            again = self.directory.posterior.exists()
            self.config = self.config.model_copy(deep=True)
            self.config.infer.observations = file
        self._execute(None, quiet=quiet, restart="infer" if again else None)
        if target is None:
            return self.directory.report_html
        write_atomic(target, self.directory.report_html.read_bytes())
        return target

    def save(self, directory: str | Path) -> None:
        """Copy the run directory; :func:`sbi_core.load_run` reads the copy.

        Raises
        ------
        RunDirectoryError
            If there is something in that place.
        """
        target = Path(directory).expanduser()
        if target.exists():
            msg = f"'{target}' exists; choose another folder"
            raise RunDirectoryError(msg)
        shutil.copytree(self.directory.root, target)

    def _execute(
        self, stages: list[str] | None, *, quiet: bool, restart: str | None = None
    ) -> None:
        from sbi_core.pipeline.runner import execute  # which imports this module

        context = self._context
        progress = make_progress(quiet=quiet)
        execute(
            completed(self.config.model_copy(deep=True), context.registry),
            self.directory,
            context.registry,
            stages=stages,
            restart=restart,
            progress=progress,
        )
        trained = context.__dict__.get("posterior")
        del self.__dict__["_context"]
        if trained is not None:  # nothing was trained anew
            self._context.__dict__["posterior"] = trained

    def write_report(self) -> None:
        """Write report.json and report.html again from the recorded facts."""
        from sbi_core.pipeline.stages.report import execute as write

        with locked(self.directory.root):
            self.directory.refuse_links()
            context = self._context
            write(context)
            records = read_records(self.directory)
            for spec in STAGES:
                record = records["stages"].get(spec.name, {})
                if record.get("status") == "done" and spec.name == "report":
                    record["artefacts"] = artefacts(self.directory, spec)
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
        """
        from sbi_core.pipeline.stages.report import build_report, page_inputs
        from sbi_core.report.figures import drawing_style, drawings, write_figures

        target = Path(folder).absolute() if folder else self.directory.root / "figures"
        context = self._context
        report = build_report(context)
        inputs = page_inputs(context, report)
        self.directory.refuse_links()
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
        from sbi_core.report.text import measurement
        from sbi_core.report.view import first_sentence

        first = state = rows = ""
        if self.directory.report_json.exists():
            report = self.report
            first = first_sentence(report)
            verdict = report.get("calibration", {}).get("verdict", "not tested")
            state = f": calibration {escape(verdict)}"
            for entry in report.get("combined", []):
                values = ", ".join(
                    f"{escape(name)} = {measurement(p['mean'], p['sd'])}"
                    for name, p in entry["parameters"].items()
                )
                rows += (
                    f"<tr><td>{escape(entry['combiner'])}</td><td>{entry['n']}</td>"
                    f"<td>{values}</td></tr>"
                )
        head = f"<p><b>{escape(self.config.plugin)}</b> ({escape(self.config.preset)}){state}</p>"
        if first:
            head = f"<p><strong>{escape(first)}</strong></p>{head}"
        if not rows:
            return f"{head}{self._context.space._repr_html_()}"
        return f"{head}<table><tr><th>combiner</th><th>N</th><th>result</th></tr>{rows}</table>"
