"""Configuration: who wins, what is refused, and what the resolved file says."""

import shlex
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import sbi_toy

from sbi_core import Registry, hookimpl
from sbi_core.cli import app
from sbi_core.errors import ComponentNotFoundError, ConfigError, PluginError, SbiError
from sbi_core.pipeline.config import (
    RunConfig,
    _settings,
    after_training,
    command_words,
    differences,
    from_toml,
    resolve,
    to_toml,
)
from sbi_core.training.config import TrainConfig


@pytest.fixture
def configure(registry):
    """``configure("simulate.n=5", preset=..., file=...)`` resolves a configuration of the toy."""

    def make(*overrides, preset="quick", **options):
        return resolve(registry, "toy", preset=preset, overrides=overrides, **options)

    return make


# -- precedence -----------------------------------------------------------------------------------


def test_presets_change_the_base(configure):
    quick, standard = configure(), configure(preset="standard")
    assert (quick.simulate.n, standard.simulate.n) == (1200, 5000)
    assert quick.combine.sizes == standard.combine.sizes == [1, 3, 10]  # from the base
    assert standard.train["epochs"] == 7


def test_a_file_beats_the_preset_and_set_beats_the_file(configure, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("[simulate]\nn = 70\nshard_size = 7\n")
    config = configure("simulate.n=80", file=file)
    assert config.simulate.n == 80
    assert config.simulate.shard_size == 7
    assert config.simulate.executor == "serial"  # still from the preset


def test_options_of_the_command_line_beat_set(configure):
    config = configure("infer.draws=20", "seed=3", infer__draws=30, seed=4, device=None)
    assert config.infer.draws == 30
    assert config.seed == 4
    assert config.device == "cpu"


def test_the_rule_for_groups_simulates_where_parameters_are_shared(configure):
    assert RunConfig.model_fields["combiner"].default.name == "auto"
    assert configure("combiner.name=auto").combiner.name == "simulated-moments"
    assert configure("combiner.name=gaussian").combiner.name == "gaussian"


def test_every_option_is_spelled_out(configure):
    config = configure()
    # None has no word in TOML
    assert config.simulator.options == {"error": 0.5, "failing": 0.0, "shift": 0.0}
    assert config.train == TrainConfig().model_dump(mode="json")
    assert config.combiner.options["draws"] == 4000
    assert config.emulate.enabled is False
    assert "hidden" in config.emulate.options


def test_the_seed_of_a_file_counts_when_the_call_names_none(configure, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("seed = 12\n")
    assert configure(file=file, seed=None).seed == 12
    assert configure("seed=13", file=file, seed=None).seed == 13
    assert configure(file=file, seed=14).seed == 14


def test_overrides_may_be_a_mapping(registry):
    config = resolve(registry, "toy", preset="quick", overrides={"simulate.n": 5, "seed": 9})
    assert (config.simulate.n, config.seed) == (5, 9)


def test_another_component_loses_the_options_of_the_old_one(configure, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[estimator]\nname = "mixture"\ncomponents = 2\n')
    assert configure(file=file).estimator.options["components"] == 2
    config = configure("estimator.name=maf", file=file)
    assert config.estimator.name == "maf"
    assert "components" not in config.estimator.options


def test_another_estimator_infers_the_same_parameters(configure, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[estimator]\nname = "mixture"\nparameters = "all"\n')
    assert configure("estimator.name=maf", file=file).estimator.parameters == "all"


@pytest.mark.parametrize("reverse", [False, True])
def test_name_and_options_may_be_set_in_any_order(reverse, configure):
    words = ["estimator.name=mixture", "estimator.components=3"]
    config = configure(*(reversed(words) if reverse else words))
    assert (config.estimator.name, config.estimator.options["components"]) == ("mixture", 3)


def test_choosing_another_estimator_keeps_the_parameters_it_infers_at_their_default(configure):
    assert configure("estimator.name=mixture").estimator.parameters == "global"


# -- reading --set --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("simulate.n=20_000", ("simulate", "n"), 20_000),
        ("combine.sizes=[1, 5]", ("combine", "sizes"), [1, 5]),
        ("emulate.enabled=true", ("emulate", "enabled"), True),
        ("simulate.executor=process", ("simulate", "executor"), "process"),
        ('simulate.executor="process"', ("simulate", "executor"), "process"),
        (" device = cuda ", ("device",), "cuda"),
        ("infer.observations=a=b.csv", ("infer", "observations"), "a=b.csv"),
        ("infer.observations=2025-01-01", ("infer", "observations"), "2025-01-01"),
        ("infer.observations=007", ("infer", "observations"), "007"),
        ("combine.compare=[]", ("combine", "compare"), []),
    ],
)
def test_values_are_read_as_toml_or_as_bare_words(text, path, value, configure):
    found = configure(text)
    for name in path:
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize("text", ["simulate.n", "=5", "  =5", ""])
def test_set_without_key_or_sign_is_explained(text, configure):
    with pytest.raises(ConfigError, match="cannot read --set .*write section.key=value"):
        configure(text)


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("simulat.n=5", "unknown section 'simulat' in 'simulat.n'; did you mean 'simulate'"),
        ("simulate.nn=5", r"unknown option 'simulate.nn'.*\(known: n, shard_size"),
        ("simulate.shards_size=5", "did you mean 'shard_size'"),
        ("simulate.N=5", "unknown option 'simulate.N'; did you mean 'n'"),
        ("Simulate.n=5", "unknown section 'Simulate' in 'Simulate.n'; did you mean 'simulate'"),
        ("train.epoch=5", "unknown option 'train.epoch'; did you mean 'epochs'"),
        ("emulate.epoch=5", "unknown option 'emulate.epoch'; did you mean 'epochs'"),
        ("simulator.eror=5", "unknown option 'simulator.eror'; did you mean 'error'"),
        ("combiner.draw=5", "unknown option 'combiner.draw'; did you mean 'draws'"),
        ("simulate.n=many", "option 'simulate.n' = 'many': expects a whole number"),
        ("simulate.n=0", "option 'simulate.n' = 0: must be at least 1"),
        ("simulate.n=1.5", "option 'simulate.n' = 1.5"),
        ("simulator.error=-1", "option 'simulator.error' = -1: must be greater than 0"),
        ("train.epochs=none", "option 'train.epochs' = 'none'"),
        ("seed=-1", "option 'seed' = -1"),
        ("combine.sizes=5", "option 'combine.sizes' = 5: expects a list"),
        ("combiner.name=gausian", "unknown combiner 'gausian'; did you mean 'gaussian'"),
        ('combine.compare=["deepsat"]', "unknown combiner 'deepsat'; did you mean 'deepset'"),
        ("estimator.name=5", "option 'estimator.name' = 5"),
        ("simulate=5", "'simulate' is a section; set one of its keys"),
        ("train.epochs.x=5", "option 'train.epochs'"),
        ("seed.x=5", "option 'seed'"),
        ('estimator.parameters=["slop"]', "no parameter 'slop'; did you mean 'slope'"),
    ],
)
def test_a_mistake_is_explained_in_one_sentence(text, message, configure, registry, tmp_path):
    from sbi_core.pipeline.runner import execute

    with pytest.raises(SbiError, match=message) as raised:
        execute(configure(text), tmp_path / "run", registry)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_two_mistakes_are_both_named(configure):
    with pytest.raises(ConfigError) as raised:
        configure("simulate.n=0", "infer.draw=5")
    assert "simulate.n" in str(raised.value)
    assert "infer.draw" in str(raised.value)


def test_an_unknown_preset_lists_near_matches(configure):
    with pytest.raises(ConfigError, match=r"plugin 'toy' has no preset 'quik'; did you mean 'qui"):
        configure(preset="quik")


def test_an_unknown_plugin_is_refused_first(registry):
    with pytest.raises(PluginError, match="unknown plugin"):
        resolve(registry, "nonsense", preset="quick")


def test_a_plugin_without_pipeline_says_so(registry):
    with pytest.raises(PluginError, match="unknown pipeline 'sbi-core'"):
        resolve(registry, "sbi-core", preset="quick")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "configuration file '.*' does not exist"),
        (b"n = [1,", "cannot be read: "),
        (b"\xff\xfe", "cannot be read: "),
        (b"[simulat]\nn = 5\n", "unknown option 'simulat'; did you mean 'simulate'"),
        (b"simulate = 5\n", "option 'simulate' = 5"),
        (b"train = 5\n", "option 'train' = 5"),
        (b"estimator = 'maf'\n", "option 'estimator' = 'maf'"),
    ],
)
def test_a_bad_file_is_explained(content, message, configure, tmp_path):
    file = tmp_path / "mine.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        configure(file=file)


def test_a_file_may_begin_with_a_byte_order_mark(configure, tmp_path):
    (tmp_path / "mine.toml").write_text("[simulate]\nn = 70\n", encoding="utf-8-sig")
    assert configure(file=tmp_path / "mine.toml").simulate.n == 70


def test_paths_are_taken_as_observations(registry, monkeypatch):
    monkeypatch.setenv("HOME", "/home/astronomer")
    for given in (Path("~/stars.csv"), "~/stars.csv"):
        config = resolve(registry, "toy", preset="quick", overrides={"infer.observations": given})
        assert config.infer.observations == "/home/astronomer/stars.csv"


def test_a_pipeline_that_is_not_toml_is_named(registry):
    class Bad:
        @hookimpl
        def register_pipelines(self, register):
            register("bad", lambda: "[base", summary="not TOML")

    with pytest.raises(PluginError, match="pipeline of plugin 'bad' is not valid TOML: "):
        resolve(Registry(["bad"], extra={"bad": Bad()}), "bad", preset="quick")


def test_only_options_of_reading_and_analysis_change_after_the_training(configure, registry):
    config = configure()
    changed = after_training(config, registry, ["simulator.shift=1.5"])
    assert changed.simulator.options["shift"] == 1.5
    assert changed.model_copy(update={"simulator": config.simulator}) == config
    with pytest.raises(ConfigError, match="'simulator.shifts' is not an option; did you mean"):
        after_training(config, registry, ["simulator.shifts=1"])
    for text in ("simulator.error=2", "train.epochs=3"):
        with pytest.raises(ConfigError, match="is fixed by the training .*: simulator.shift, anal"):
            after_training(config, registry, [text])
    with pytest.raises(ConfigError, match="option 'simulator.shift' = 'x': expects a number"):
        after_training(config, registry, ["simulator.shift=x"])


def test_a_directory_is_no_configuration_file(configure, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: "):
        configure(file=tmp_path)


@pytest.mark.parametrize(("key", "call"), [("plugin", "toy"), ("preset", "quick")])
def test_plugin_and_preset_of_a_file_must_not_contradict_the_call(key, call, configure, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(f'{key} = "other"\n')
    with pytest.raises(ConfigError, match=f"file has {key} = 'other', but the command '{call}'"):
        configure(file=file)
    with pytest.raises(ConfigError, match=f"the configuration file has {key} = 'other'"):
        configure(f"{key}=other")


def test_a_configuration_has_a_limit_that_can_be_raised(configure, tmp_path, monkeypatch):
    file = tmp_path / "mine.toml"
    file.write_text("seed = 5\n" + "# a comment\n" * 100_000)
    with pytest.raises(ConfigError, match=r"has 1\.1 MiB, at most 1\.0 MiB .*SBI_LIMITS=toml=\.\."):
        configure(file=file)
    monkeypatch.setenv("SBI_LIMITS", "toml=2e6")
    assert configure(file=file).seed == 5


# -- run.toml -------------------------------------------------------------------------------------


def test_the_resolved_configuration_survives_its_file(configure):
    config = configure("estimator.name=mixture", "train.max_seconds=5", "combine.sizes=[2]")
    again = from_toml(to_toml(config))
    assert differences(config, again) == []
    assert to_toml(again) == to_toml(config)


def test_the_resolved_file_can_be_used_as_configuration(configure, tmp_path):
    config = configure("simulate.n=77", "simulator.error=0.25")
    file = tmp_path / "run.toml"
    file.write_text(to_toml(config))
    assert configure(file=file) == config


def test_run_toml_names_every_section(configure):
    sections = tomllib.loads(to_toml(configure()))
    assert set(RunConfig.model_fields) <= set(sections)


def test_differences_name_key_old_and_new(configure):
    found = differences(configure(), configure("simulate.n=7", "simulator.error=0.1"))
    assert found == ["simulator.error: 0.5 -> 0.1", "simulate.n: 1200 -> 7"]


def test_where_it_is_computed_makes_no_difference(configure):
    other = configure("simulate.workers=3", "simulate.executor=process", "device=cuda")
    assert differences(configure(), other) == []


# -- the command that makes a run again -----------------------------------------------------------


def resolved_by_the_command_line(registry, words, monkeypatch):
    """The configuration that ``sbi-run WORDS`` runs."""
    executed = []

    def execute(config, out, *_, **__):
        executed.append((config, str(out.given)))
        raise SystemExit

    monkeypatch.setattr("sbi_core.pipeline.runner.execute", execute)
    monkeypatch.setattr("sbi_core.cli.run.Registry", lambda _: registry)
    with pytest.raises(SystemExit):
        app.main(args=words, standalone_mode=False)
    return executed[0]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["simulate.n=77", "seed=12"],
        ["combiner.name=gaussian", "combiner.draws=500"],
        ["combine.sizes=[1, 2, 4]", "combine.remedies=true", "train.learning_rate=3e-4"],
        ["infer.observations=my stars; rm -r.csv", "combine.compare=[]"],
        ["estimator.parameters=['slope']", "simulate.workers=3"],
    ],
)
def test_the_printed_command_resolves_to_the_same_configuration(
    overrides, configure, registry, monkeypatch
):
    config = configure(*overrides)
    line = shlex.join(command_words(config, registry, "my runs/one"))
    again, out = resolved_by_the_command_line(registry, shlex.split(line), monkeypatch)
    assert differences(config, again) == []
    assert out == "my runs/one"
    assert "workers" not in line  # changes no number


def test_the_printed_command_is_short_where_nothing_differs(configure, registry):
    words = command_words(configure(), registry, "runs/toy-quick")
    assert words == ["run", "toy", "--preset", "quick", "--seed", "1"]


def test_options_that_no_longer_exist_are_read_from_the_configuration_of_the_run(
    configure, registry
):
    config = configure().model_copy(update={"train": {"gone": 3}})
    words = command_words(config, registry, "old")
    assert words[-4:] == ["--out", "old", "--config", "old/run.toml"]


def test_a_section_without_a_name_is_that_of_the_default_component(registry, monkeypatch):
    text = '[base]\nestimator = { parameters = "all" }\nembedding = { hidden = [8] }\n'
    text += "[presets.quick]\n"
    monkeypatch.setattr(sbi_toy, "PIPELINE", text)
    config = resolve(registry, "toy", preset="quick")
    assert (config.estimator.name, config.estimator.parameters) == ("mixture", "all")
    assert (config.embedding.name, config.embedding.options["hidden"]) == ("mlp", [8])


def test_a_pipeline_without_presets_is_named():
    plugin = SimpleNamespace(register_pipelines=hookimpl(lambda register: register("p", str)))
    with pytest.raises(PluginError, match="pipeline of plugin 'p' has no presets"):
        resolve(Registry(extra={"p": plugin}), "p", preset="quick")


def test_a_nul_character_in_a_file_is_refused(configure, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('[infer]\nobservations = "a\\u0000b.csv"\n')
    with pytest.raises(ConfigError, match="'observations' of the configuration contains a NUL"):
        configure(file=file)


def _old_plugin(combiner):
    class Old:
        @staticmethod
        @hookimpl
        def register_pipelines(register):
            text = '[base]\nsimulator = { name = "toy" }\n'
            text += f'combiner = {{ name = "{combiner}", groups = 300 }}\n'
            register("old", lambda: f"{text}[presets.quick]\nsimulate = {{ n = 100 }}\n")

    return Registry([], extra={"toy": sbi_toy, "old": Old})


def test_a_preset_that_names_a_component_that_is_gone_can_be_overridden():
    registry = _old_plugin("long-gone")
    with pytest.raises(ComponentNotFoundError, match="unknown combiner 'long-gone'"):
        resolve(registry, "old", preset="quick")
    config = resolve(registry, "old", preset="quick", overrides=["combiner.name=gaussian"])
    assert 'combiner.name="gaussian"' in _settings(config, registry)


def test_a_preset_with_a_replaced_combiner_runs_with_its_successor_and_says_so(caplog):
    config = resolve(_old_plugin("recalibrated"), "old", preset="quick")
    assert config.combiner.name == "simulated-moments"
    assert "groups" not in config.combiner.options
    assert "plugin 'old' name combiner 'recalibrated', which was replaced" in caplog.text


@pytest.mark.parametrize(
    ("preset", "fault"),
    [
        ("train = { epocs = 5 }", "unknown option 'train.epocs'; did you mean 'epochs'?"),
        ("diagnose = { objects = 3 }", "option 'diagnose.objects' = 3"),
        ("analysis = { name = 'nobody' }", "unknown analysis 'nobody'"),
        ("combiner = 'gaussian'", "option 'combiner' = 'gaussian': expects a table"),
    ],
)
def test_a_fault_of_a_preset_names_the_pipeline_and_one_of_the_user_does_not(preset, fault):
    class Plugin:
        @hookimpl
        def register_pipelines(self, register):
            text = f"[base]\nsimulator = {{ name = 'toy' }}\n[presets.quick]\n{preset}"
            register("odd", lambda: text)

    registry = Registry(["toy"], extra={"toy": sbi_toy, "odd": Plugin()})
    with pytest.raises(SbiError) as caught:
        resolve(registry, "odd", preset="quick", overrides=["simulate.n=100"])
    text = str(caught.value)
    assert text.startswith(f"preset 'quick' in the pipeline of plugin 'odd': {fault}")
    with pytest.raises(SbiError) as caught:
        resolve(registry, "toy", preset="quick", overrides=["train.epocs=5"])
    assert str(caught.value).startswith("unknown option 'train.epocs'")
