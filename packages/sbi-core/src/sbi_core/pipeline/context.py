"""The context of a run, which every stage receives."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MethodType
from typing import Any, cast

from sbi_core.analyses import Analysis
from sbi_core.components import Combiner, Embedding, Estimator, Simulator, Training
from sbi_core.data.batch import Batch
from sbi_core.data.observations import Observations
from sbi_core.errors import (
    ComponentNotFoundError,
    PluginError,
    PriorMismatchError,
    RunDirectoryError,
)
from sbi_core.estimators import load_estimator
from sbi_core.files.directory import RunDirectory, read_arrays
from sbi_core.files.integrity import verify_files
from sbi_core.pipeline.config import RunConfig, Stage, after_training
from sbi_core.pipeline.held_out import held_out
from sbi_core.pipeline.reading import read_objects
from sbi_core.posterior import Posterior
from sbi_core.priors.space import ParameterSpace, canonical_hash
from sbi_core.progress import Progress
from sbi_core.registry import Registry
from sbi_core.rng import stream
from sbi_core.simulate.emulator import Emulator, EmulatorSimulator
from sbi_core.simulate.executors import default_workers
from sbi_core.simulate.probe import check_description, observed
from sbi_core.simulate.rows import ShardedBatch
from sbi_core.simulate.store import Shard, plan, read_all
from sbi_core.simulate.tolerance import Tolerance
from sbi_core.training.config import TrainConfig

__all__ = ["Context"]


@dataclass
class Context:
    """One run while it is being worked on.

    Attributes
    ----------
    facts
        Results of finished stages, by stage: JSON-serialisable parts of the report.
    cores
        Cores that may be busy at one time: the worker processes of the simulations.
    overrides
        Options of reading and analysis that differ from those of the run.
    artefacts
        SHA-256 of the files of finished stages, by path below the run directory.
    """

    config: RunConfig
    registry: Registry
    directory: RunDirectory
    progress: Progress
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    artefacts: dict[str, str] = field(default_factory=dict)
    cores: int = field(init=False)

    def __post_init__(self) -> None:
        section = self.config.simulate
        workers = section.workers or default_workers()
        self.cores = workers if section.executor == "process" else 1

    def verified(self, path: Path, stage: Stage) -> Path:
        """Return a folder of the run after comparing its recorded files with their SHA-256.

        Raises
        ------
        RunDirectoryError
            If one is missing or was altered.
        """
        below = path.relative_to(self.directory.root).parts
        files = {n: h for n, h in self.artefacts.items() if Path(n).parts[: len(below)] == below}
        verify_files(
            self.directory,
            files,
            f"stage '{stage}' wrote it; pass --restart {stage} to make it again",
        )
        return path

    @cached_property
    def inference(self) -> RunConfig:
        """The configuration with the overrides."""
        if not self.overrides:
            return self.config
        return after_training(self.config, self.registry, self.overrides)

    @cached_property
    def simulator(self) -> Simulator:
        """The simulator with this run's options."""
        section = self.inference.simulator
        try:
            built = self.registry.build("simulator", section.name, section.options)
        except ComponentNotFoundError as error:
            if self.config.plugin in self.registry.installed or not self.directory.config.exists():
                raise
            msg = (
                f"run '{self.directory.root}' needs plugin '{self.config.plugin}', which is not "
                f"installed; its provenance.json names package and version ({error})"
            )
            raise ComponentNotFoundError(msg) from None
        check_description(built)
        return cast("Simulator", built)

    @cached_property
    def tolerance(self) -> Tolerance:
        """How failures of the simulator are treated."""
        section = self.config.simulate
        return Tolerance(section.max_failed, section.time_limit, section.protect)

    @cached_property
    def embedding(self) -> Embedding:
        """The embedding factory."""
        section = self.config.embedding
        return Embedding.of(self.registry.build("embedding", section.name, section.options))

    @cached_property
    def analysis(self) -> Analysis:
        """The analysis, with this run's simulator and reference arrays."""
        analysis = self.bare_analysis()
        analysis.attach(self.simulator)
        path = self.directory.reference
        if path.name in self.artefacts:
            analysis.reference = read_arrays(self.verified(path, "diagnose"))
        return analysis

    def bare_analysis(self) -> Analysis:
        """Return the analysis without a simulator.

        Raises
        ------
        PluginError
            If what the plugin registers is no analysis.
        """
        section = self.inference.analysis
        built = self.registry.build("analysis", section.name, section.options)
        if not isinstance(built, Analysis):
            what = type(built).__name__
            msg = f"analysis '{section.name}' is a {what}; make it a subclass of sbi_core.Analysis"
            raise PluginError(msg)
        return built

    @cached_property
    def space(self) -> ParameterSpace:
        """The parameters that are inferred."""
        return self.simulator.parameters.select(self.config.estimator.parameters)

    def combiner(self, name: str | None = None) -> Combiner:
        """Return the run's combiner, or another one with its default options."""
        combiner = self.bare_combiner(name)
        combiner.attach(self.emulated if combiner.takes_emulator else self.simulator)
        combiner.progress = self.progress
        return combiner

    def bare_combiner(self, name: str | None = None) -> Combiner:
        """Return a combiner without a simulator.

        Raises
        ------
        PluginError
            If what the plugin registers is no combiner, or has another name.
        """
        section = self.config.combiner
        options = section.options if name in (None, section.name) else {}
        chosen = name or section.name
        built = self.registry.build("combiner", chosen, options)
        if not isinstance(built, Combiner):
            what = type(built).__name__
            msg = f"combiner '{chosen}' is a {what}; make it a subclass of sbi_core.Combiner"
            raise PluginError(msg)
        if built.name != chosen.rpartition(":")[2]:
            msg = (
                f"combiner '{chosen}' calls itself '{built.name}'; its `name` must be the one "
                "it is registered under"
            )
            raise PluginError(msg)
        return built

    @property
    def shares(self) -> bool:
        """True if objects of a group share inferred parameters."""
        return any(p.scope == "global" for p in self.space.parameters)

    @property
    def combiners(self) -> tuple[str, ...]:
        """Names of the run's combiner and of those it is compared with."""
        return tuple(dict.fromkeys([self.config.combiner.name, *self.config.combine.compare]))

    @property
    def nominal_combiner(self) -> str:
        """Name of the rule for nominal values of nuisance parameters.

        The first of the run's that is for these; the run's where none is.
        """
        rules = (self.bare_combiner(name) for name in self.combiners)
        plain = (r.name for r in rules if not r.marginalises and not r.comparison_only)
        return next(plain, self.config.combiner.name)

    @cached_property
    def emulated(self) -> Simulator:
        """The run's emulator in place of the simulator, where the run has one.

        Raises
        ------
        RunDirectoryError
            If the run should have one that is not trained yet.
        """
        if not self.config.emulate.enabled:
            return self.simulator
        if not (self.directory.emulator / "config.json").exists():
            msg = "a combiner of this run uses the emulator: stage 'emulate' has not run yet"
            raise RunDirectoryError(msg)
        emulator = Emulator.load(self.verified(self.directory.emulator, "emulate"))
        return EmulatorSimulator(self.simulator, emulator, carry_error=True)

    @cached_property
    def observations(self) -> Observations:
        """The configured observations, or the plugin's example."""
        section = self.config.infer
        if section.observations:
            simulator = self.simulator  # may change the working directory
            path = self.directory.path(section.observations)
            return read_objects(simulator, path, section.reading)
        if self.simulator.fixed_set:
            return held_out(self.simulator, self.training, self.config.seed, section.n_example)
        rng = stream(self.config.seed, "example")
        return self.simulator.example_observations(rng, section.n_example)

    @property
    def simulator_identity(self) -> str:
        """Hash of simulator, version, options, data and prior."""
        return canonical_hash(
            {
                "simulator": self.simulator.identity,
                "options": self.config.simulator.options,
                "prior": self.simulator.parameters.hash,
            }
        )

    @property
    def shards(self) -> list[Shard]:
        """The plan of the simulate stage."""
        c = self.config
        return plan(
            self.directory.sims,
            c.simulate.n,
            c.simulate.shard_size,
            c.seed,
            self.simulator_identity,
        )

    @cached_property
    def simulations(self) -> Batch:
        """All simulations in memory, failed rows included."""
        batch = read_all(self.shards)[0]
        self.verified(self.directory.sims, "simulate")
        return batch

    @cached_property
    def streamed(self) -> ShardedBatch:
        """The simulations that succeeded, read from their shards in blocks.

        Raises
        ------
        SimulationError
            If every simulation failed.
        """
        batch = ShardedBatch([s.path for s in self.shards])
        self.verified(self.directory.sims, "simulate")
        return batch

    @cached_property
    def training(self) -> Training:
        """Training data of the estimator: streamed if they exceed ``train.max_memory_gb``.

        Raises
        ------
        SimulationError
            If every simulation failed.
        """
        options = TrainConfig(**self.config.train)
        large = self.streamed.nbytes > options.max_memory_gb * 2**30
        return Training(
            batch=self.streamed if large else self.simulations.succeeded,
            space=self.space,
            columns=tuple(self.simulator.parameters.index(self.space.names)),
            observe=MethodType(observed, self.simulator),
            config=options,
            seed=self.config.seed,
            directory=self.directory.estimator,
            device=self.config.device,
        )

    def new_estimator(self) -> Estimator:
        """Return an untrained estimator."""
        section = self.config.estimator
        return cast("Estimator", self.registry.build("estimator", section.name, section.options))

    @cached_property
    def posterior(self) -> Posterior:
        """The trained posterior.

        Raises
        ------
        PriorMismatchError
            If the estimator was trained under another prior than the simulator has now.
        ComponentNotFoundError
            If the estimator that the configuration names is not installed.
        """
        self.registry.find("estimator", self.config.estimator.name)
        estimator = load_estimator(self.verified(self.directory.estimator, "train"), self.registry)
        if estimator.space.hash != self.space.hash:
            msg = (
                f"the estimator in '{self.directory.estimator}' was trained with prior version "
                f"{estimator.space.version} ({estimator.space.hash[:12]}), the simulator now has "
                f"version {self.space.version} ({self.space.hash[:12]}); train again"
            )
            raise PriorMismatchError(msg)
        return Posterior(estimator, seed=self.config.seed, device=self.config.device)
