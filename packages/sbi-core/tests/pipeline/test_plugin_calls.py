"""Mistakes of an analysis are one sentence, and cost no training."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import sbi_toy

from sbi_core import Analysis, Combiner, hookimpl
from sbi_core.errors import ComponentNotFoundError, ConfigError, PluginError
from sbi_core.pipeline.config import resolve
from sbi_core.pipeline.context import Context
from sbi_core.pipeline.plugin_calls import called, described
from sbi_core.pipeline.runner import execute
from sbi_core.posterior import PosteriorSamples
from sbi_core.progress import Progress
from sbi_core.registry import Registry

SAMPLES = PosteriorSamples(
    np.zeros((5, 3, len(sbi_toy.SPACE.names))), sbi_toy.SPACE, np.array(["a", "b", "c"])
)


class Odd(Analysis):
    name = "odd"

    def __init__(self, result):
        self.result = result

    def describe(self, posterior, objects, samples, seed):
        return self.result(samples)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (lambda _: 1 / 0, "raised ZeroDivisionError: division by zero .test_plugin_calls.py, line"),
        (lambda _: None, "returned NoneType; return samples.described"),
        (lambda s: replace(s, values=s.values[:, :2], id=s.id[:2]), "returned other objects or"),
        (lambda s: replace(s, flags=("x",)), "returned 1 flags for 3 objects"),
        (lambda s: s.described(derived={"d": np.zeros(3)}), "'d' of shape .3,.; expected"),
        (lambda s: s.described(derived={s.names[0]: np.zeros((5, 3))}), "the name of a parameter"),
        (lambda s: s.described(columns={"c": np.zeros(5)}), "column 'c' of shape .5,.; expected"),
        (lambda s: s.described(units={"d": "Mpcc"}), "unit 'Mpcc' of 'd', which astropy does not"),
    ],
)
def test_a_wrong_description_is_named(result, message):
    with pytest.raises(PluginError, match=f"^analysis 'odd': describe .*{message}"):
        described(Odd(result), None, None, SAMPLES, 1)


def test_a_right_description_passes():
    got = described(
        Odd(lambda s: s.described(derived={"d": np.zeros((5, 3))}, units={"d": "Mpc"})),
        None, None, SAMPLES, 1,
    )  # fmt: skip
    assert set(got.derived) == {"d"}


def test_messages_for_the_user_are_passed_on():
    with pytest.raises(ConfigError, match="^no draws of 'zz' .*estimator.parameters"):
        called(Odd(lambda s: s["zz"]), "describe", None, None, SAMPLES, 1)
    with pytest.raises(ConfigError, match="^1 flags for 3 objects; give one per object"):
        called(Odd(lambda s: s.described(flags=["x"])), "describe", None, None, SAMPLES, 1)


@pytest.mark.parametrize(
    ("kind", "made", "message"),
    [
        ("analysis", SimpleNamespace(name="odd"), "make it a subclass of sbi_core.Analysis"),
        ("combiner", SimpleNamespace(name="odd"), "make it a subclass of sbi_core.Combiner"),
        ("combiner", "misnamed", "combiner 'odd' calls itself 'other'"),
        ("analysis", "missing", "'nowhere_at_all:Analysis' cannot be imported"),
    ],
)
def test_what_is_no_component_is_found_before_anything_is_simulated(kind, made, message, tmp_path):
    class Other(Combiner):
        name = "other"

        def combine(self, posterior, observations, *, rng=0):
            raise NotImplementedError

    factory = {"misnamed": Other, "missing": "nowhere_at_all:Analysis"}
    make = factory[made] if isinstance(made, str) else lambda: made

    class Plugin:
        @hookimpl
        def register_analyses(self, register):
            if kind == "analysis":
                register("odd", make)

        @hookimpl
        def register_combiners(self, register):
            if kind == "combiner":
                register("odd", make)

    registry = Registry(["toy"], extra={"toy": sbi_toy, "odd": Plugin()})
    config = resolve(registry, "toy", preset="quick", overrides=[f"{kind}.name=odd"])
    with pytest.raises(PluginError, match=message):
        execute(config, tmp_path / "run", registry)
    assert not (tmp_path / "run").exists()


def test_a_run_whose_plugin_was_uninstalled_names_it(toy_run):
    run = toy_run("simulate.n=400", stages=["simulate"])
    alone = Context(run.config, Registry([]), run.directory, Progress())
    with pytest.raises(
        ComponentNotFoundError, match="run '.*run' needs plugin 'toy', which is not"
    ):
        _ = alone.simulator
