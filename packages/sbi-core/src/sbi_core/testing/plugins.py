"""All checks of a plugin: of the plugin itself, and of everything it registers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, ClassVar

import click

from sbi_core.analyses import Analysis
from sbi_core.components import Embedding, InputShape
from sbi_core.errors import ConfigError, SbiError, near_matches
from sbi_core.registry import BUILTIN, Component, Registry, defects
from sbi_core.rng import stream
from sbi_core.testing.checks import Checks, fail, once, skip
from sbi_core.testing.combiners import CombinerChecks
from sbi_core.testing.embeddings import EmbeddingChecks
from sbi_core.testing.estimators import EstimatorChecks
from sbi_core.testing.pipelines import PipelineChecks
from sbi_core.testing.simulators import SimulatorChecks

__all__ = ["AnalysisChecks", "CommandChecks", "PluginChecks"]

_HEAVY = ("torch", "matplotlib", "scipy")


class CommandChecks(Checks[click.Command]):
    """A command of ``sbi-run PLUGIN`` is a click command; ``make`` returns it."""

    def test_it_has_a_help_text(self) -> None:
        """`sbi-run PLUGIN COMMAND --help` explains the command."""
        command = self.make()
        assert isinstance(command, click.Command), (
            f"the path leads to {type(command).__name__}; register the path of a click command"
        )
        assert command.help, "the command has no help text; give its function a docstring"


class AnalysisChecks(Checks[Analysis]):
    """An analysis describes itself; the test of the pipeline runs it."""

    def test_describes_itself(self) -> None:
        """It has the methods of an analysis, a name, and a sentence for every flag."""
        analysis = self.subject
        lacking = [m for m in ("attach", "check", "describe", "report") if not hasattr(analysis, m)]
        assert not lacking, f"it lacks {lacking}; subclass sbi_core.Analysis"
        name = getattr(analysis, "name", None)
        if not name or not isinstance(name, str):
            fail(f"attribute 'name' is {name!r}; set it to the name it is registered under")
        silent = [flag for flag, meaning in analysis.flag_meanings.items() if not str(meaning)]
        assert not silent, f"flags {silent} have no meaning; write a sentence in flag_meanings"


class PluginChecks(Checks[Registry]):
    """A plugin loads, and every component that it registers passes the tests of its kind.

    In pytest, ``test_component`` is repeated for every test of every component.

    Attributes
    ----------
    plugin
        Name of the plugin.
    module
        A module or object with hook implementations, for plugins that are not installed.
    options
        Options of components by name, where defaults will not do.
    exact
        Combiners that are exact for Gaussian posteriors.
    without
        Tests of components to leave out, by the names pytest shows, with * and ?; give the reason
        in a comment.

    Raises
    ------
    PluginError
        If the plugin is not installed or cannot be loaded.
    ConfigError
        If ``options`` or ``exact`` name no component of it, or ``without`` no test.
    """

    plugin: ClassVar[str] = ""
    module: ClassVar[Any] = None
    options: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    exact: ClassVar[Collection[str]] = ()
    without: ClassVar[Collection[str]] = ()

    def make(self) -> Registry:
        """Return the registry with the built-in components and this plugin."""
        extra = None if self.module is None else {self.plugin: self.module}
        return Registry([self.plugin], extra=extra)

    def test_loads_without_warnings(self) -> None:
        """Hooks are known and marked, paths lead somewhere, versions fit."""
        plugin = self.subject.plugin(self.plugin)
        sentences = [*plugin.warnings, *defects(plugin)]
        assert not sentences, f"{'; '.join(sentences)}; follow the advice, or update sbi-core"

    def test_summaries_are_given(self) -> None:
        """Every component has its line in `sbi-run plugins`."""
        silent = [c.name for c in self.subject.plugin(self.plugin).components if not c.summary]
        assert not silent, f'{silent} have no summary; pass summary="one line" to register'

    def test_discovery_is_light(self) -> None:
        """The entry point imports nothing heavy: `sbi-run plugins` answers within a second."""
        if self.module is not None or self.plugin == BUILTIN:
            skip("it is not installed")
        code = (
            "import sys; from importlib.metadata import entry_points as e; "
            "[p.load() for p in e(group='sbi_core', name=sys.argv[1])]; "
            "print([m for m in sys.argv[2:] if m in sys.modules])"
        )
        command = [sys.executable, "-c", code, self.plugin, *_HEAVY]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, (
            f"its entry point fails: {done.stderr[-300:]}; correct the module"
        )
        assert done.stdout.strip() == "[]", (
            f"importing the plugin's module imports {done.stdout.strip()}; "
            'give factory and config as text, "package.module:Class": they are imported when used'
        )

    def pytest_generate_tests(self, metafunc: Any) -> None:
        """Repeat ``test_component`` for every test of every component."""
        if "component_check" in metafunc.fixturenames:
            checks = self.component_checks()
            metafunc.parametrize("component_check", list(checks.values()), ids=list(checks))

    def test_component(self, component_check: Callable[[], None]) -> None:
        """One test of one component."""
        __tracebackhide__ = True
        component_check()

    @classmethod
    def checks(cls) -> dict[str, Callable[[], None]]:
        """Return the tests of the plugin and of its components, by name."""
        own = super().checks()
        del own["component"]
        return {**own, **cls.component_checks()}

    @classmethod
    def component_checks(cls) -> dict[str, Callable[[], None]]:
        """Return the tests of the components, by name: simulator-lotka-same-seed-same-bits."""
        components = cls.subject.plugin(cls.plugin).components
        _need_known(f"component of plugin '{cls.plugin}'", {*cls.options, *cls.exact}, components)
        checks = {
            f"{c.kind}-{c.name}-{name}": check
            for c in components
            for name, check in cls._of_component(c).checks().items()
        }
        for pattern in cls.without:
            matching = [name for name in checks if fnmatchcase(name, pattern)]
            if not matching:
                near = near_matches(pattern, checks)
                msg = f"'without' names a test that plugin '{cls.plugin}' lacks: '{pattern}'{near}"
                raise ConfigError(msg)
            for name in matching:
                del checks[name]
        return checks

    @classmethod
    def _of_component(cls, component: Component) -> type[Checks[Any]]:
        make = partial(component.build, cls.options.get(component.name, {}))
        match component.kind:
            case "simulator":
                return SimulatorChecks.of(make)
            case "embedding":
                return EmbeddingChecks.of(make, shapes=once(cls._shapes))
            case "estimator":
                return EstimatorChecks.of(make)
            case "combiner":
                return CombinerChecks.of(make, exact=component.name in cls.exact)
            case "pipeline":
                return PipelineChecks.of(lambda: cls.subject, pipeline=component.name)
            case "analysis":
                return AnalysisChecks.of(make)
            case _:
                return CommandChecks.of(make)

    @classmethod
    def _shapes(cls, tests: Any) -> list[InputShape]:
        """Return the shapes of the plugin's own simulators that an embedding takes."""
        embedding: Embedding = tests.subject
        taken = []
        for component in cls.subject.plugin(cls.plugin).components:
            if component.kind == "simulator":
                simulator = component.build()
                batch = simulator.draw(4, stream(1, "shape")).succeeded
                shape = InputShape.of(simulator.observe(batch, stream(1, "noise")))
                try:
                    embedding.build(shape)
                except SbiError:
                    continue
                taken.append(shape)
        return taken


def _need_known(kind: str, names: Collection[str], components: Collection[Component]) -> None:
    known = {c.name for c in components}
    for name in names:
        if name not in known:
            msg = f"no {kind} is called '{name}'{near_matches(name, known)}"
            raise ConfigError(msg)
