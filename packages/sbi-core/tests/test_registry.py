"""Discovery and registry: a stranger's mistake costs the stranger only, and says so."""

import pickle
import subprocess
import sys
import types

import pytest
import sbi_toy
from pydantic import BaseModel, ConfigDict

from sbi_core import hookimpl
from sbi_core.errors import ComponentNotFoundError, ConfigError, PluginError
from sbi_core.registry import HOOKS, Registry, defects

GOOD = """
    from sbi_core import hookimpl

    @hookimpl
    def register_simulators(register):
        register("{name}", lambda: "made by {name}", summary="a stranger's simulator")
"""


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    width: float = 1.0


def plugin_of(**hooks):
    """A module object with the given hook implementations."""
    module = types.SimpleNamespace()
    for name, function in hooks.items():
        setattr(module, name, hookimpl(function))
    return module


def registers(name, factory=dict, **options):
    return lambda register: register(name, factory, **options)


def test_an_installed_distribution_is_found_by_its_entry_point(install):
    install("sbi-star", {"star": "star_plugin"}, star_plugin=GOOD.format(name="star"))
    registry = Registry()
    assert "star" in registry.installed
    plugin = registry.plugin("star")
    assert (plugin.status, plugin.distribution, plugin.version) == ("loaded", "sbi-star", "0.1")
    assert registry.build("simulator", "star") == "made by star"
    assert registry.find("simulator", "star").summary == "a stranger's simulator"


def test_the_built_in_components_come_through_the_same_hooks():
    registry = Registry([])
    names = {(c.kind, c.name) for c in registry.components()}
    assert ("combiner", "gaussian") in names
    assert ("combiner", "simulated-moments") in names
    assert ("estimator", "mixture") in names
    assert ("embedding", "mlp") in names
    assert {c.distribution for c in registry.components()} == {"sbi-core"}


def test_every_built_in_component_can_be_built_with_its_defaults():
    registry = Registry([])
    for component in registry.components():
        made = component.build()
        assert getattr(made, "name", component.name) == component.name


def test_every_built_in_option_has_a_description():
    for component in Registry([]).components():
        for name, field in component.options.model_fields.items() if component.options else ():
            assert field.description, f"{component.kind} {component.name}: {name}"


def test_only_the_asked_plugin_is_loaded_until_another_name_is_needed(install):
    install("sbi-one", {"one": "one_plugin"}, one_plugin=GOOD.format(name="one"))
    install("sbi-two", {"two": "two_plugin"}, two_plugin=GOOD.format(name="two"))
    registry = Registry(["one"])
    assert "two_plugin" not in sys.modules
    assert registry.build("simulator", "two") == "made by two"
    assert "two_plugin" in sys.modules


def test_two_distributions_with_one_name_are_both_named(install):
    install("sbi-one", {"one": "one_plugin"}, one_plugin=GOOD.format(name="shared"))
    install("sbi-two", {"two": "two_plugin"}, two_plugin=GOOD.format(name="shared"))
    with pytest.raises(PluginError) as raised:
        Registry().find("simulator", "shared")
    text = str(raised.value)
    assert "sbi-one and sbi-two" in text
    assert "'sbi-one:shared' or 'sbi-two:shared'" in text


def test_distribution_and_name_always_work(install):
    install("sbi-one", {"one": "one_plugin"}, one_plugin=GOOD.format(name="shared"))
    install("sbi-two", {"two": "two_plugin"}, two_plugin=GOOD.format(name="shared"))
    registry = Registry()
    assert registry.find("simulator", "sbi-two:shared").distribution == "sbi-two"
    assert registry.find("simulator", "sbi-one:shared").distribution == "sbi-one"
    assert registry.build("combiner", "sbi-core:gaussian").name == "gaussian"
    with pytest.raises(ComponentNotFoundError, match="unknown simulator 'sbi-three:shared'"):
        registry.find("simulator", "sbi-three:shared")


def test_two_distributions_with_one_plugin_name_are_both_named(install):
    install("sbi-one", {"same": "one_plugin"}, one_plugin=GOOD.format(name="one"))
    install("sbi-two", {"same": "two_plugin"}, two_plugin=GOOD.format(name="two"))
    with pytest.raises(PluginError, match="sbi-one.*sbi-two"):
        Registry().plugin("same")
    assert Registry().build("combiner", "gaussian").name == "gaussian"


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import a_module_nobody_has", "ModuleNotFoundError: No module named"),
        ("def broken(:", "SyntaxError"),
        ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        (
            "from sbi_core import hookimpl\n"
            "@hookimpl\n"
            "def register_simulators(register):\n"
            "    register()\n",
            "TypeError",
        ),
        (
            "from sbi_core import hookimpl\n"
            "@hookimpl\n"
            "def register_simulators(registre):\n"
            "    pass\n",
            "registre",
        ),
    ],
)
def test_a_broken_plugin_costs_only_itself(source, problem, install):
    install("sbi-bad", {"bad": "bad_plugin"}, bad_plugin=source)
    install("sbi-good", {"good": "good_plugin"}, good_plugin=GOOD.format(name="good"))
    registry = Registry()
    status = {p.name: p for p in registry.plugins}
    assert status["bad"].status == "failed"
    assert problem in status["bad"].problem
    assert registry.build("simulator", "good") == "made by good"
    with pytest.raises(PluginError, match=r"plugin 'bad' \(sbi-bad\) could not be loaded"):
        registry.plugin("bad")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import sys; sys.exit(5)", "SystemExit: 5 (bad_plugin.py, line 1)"),
        (
            "class Panic(BaseException): pass\nraise Panic('oops')",
            "Panic: oops (bad_plugin.py, line 2)",
        ),
    ],
)
def test_a_plugin_that_panics_on_import_costs_only_itself(source, problem, install):
    install("sbi-bad", {"bad": "bad_plugin"}, bad_plugin=source)
    registry = Registry()
    bad = {p.name: p for p in registry.plugins}["bad"]
    assert (bad.status, bad.problem) == ("failed", problem)


def test_an_interrupt_while_a_plugin_is_imported_is_an_interrupt(install):
    install("sbi-bad", {"bad": "bad_plugin"}, bad_plugin="raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Registry()


def test_an_unknown_component_mentions_the_plugins_that_failed(install):
    install("sbi-bad", {"bad": "bad_plugin"}, bad_plugin="1/0")
    with pytest.raises(ComponentNotFoundError, match="failed to load: bad .see `sbi-run plugins`"):
        Registry().find("simulator", "whatever")


@pytest.mark.parametrize(
    ("kind", "wrong", "right"),
    [
        ("combiner", "gausian", "gaussian"),
        ("estimator", "mixtur", "mixture"),
        ("embedding", "identiti", "identity"),
    ],
)
def test_an_unknown_name_lists_near_matches(kind, wrong, right):
    with pytest.raises(ComponentNotFoundError) as raised:
        Registry([]).find(kind, wrong)
    assert f"unknown {kind} '{wrong}'; did you mean '{right}'" in str(raised.value)
    assert "(known: " in str(raised.value)


@pytest.mark.parametrize("name", ["recalibrated", "amortised"])
def test_the_name_of_a_replaced_combiner_points_to_the_new_one(name, registry):
    with pytest.raises(ComponentNotFoundError, match="was replaced; use 'simulated-moments'"):
        registry.find("combiner", name)


def test_an_unknown_plugin_lists_near_matches_and_what_is_installed(registry):
    with pytest.raises(PluginError, match="unknown plugin 'toyy'; did you mean 'toy'"):
        registry.plugin("toyy")
    with pytest.raises(PluginError, match="installed: .*toy"):
        registry.plugin("zzzzzz")


@pytest.mark.parametrize("name", ["chempy", "casbi", "sfh", "sedflow"])
def test_a_known_but_missing_package_comes_with_its_install_command(name, monkeypatch):
    monkeypatch.setattr("sbi_core.registry.entry_points", lambda group: [])
    registry = Registry()
    with pytest.raises(PluginError, match=f"not installed; run: pip install sbi-{name}$"):
        registry.plugin(name)
    with pytest.raises(ComponentNotFoundError, match=f"pip install sbi-{name}"):
        registry.find("simulator", name)


def test_a_hook_this_core_does_not_know_is_a_warning_with_a_near_match(registry):
    module = plugin_of(register_simulator=registers("x"), register_combiners=registers("mine"))
    found = Registry(["new"], extra={"new": module}).plugin("new")
    assert found.status == "loaded"
    assert len(found.warnings) == 1
    assert "hook 'register_simulator' is unknown" in found.warnings[0]
    assert "did you mean 'register_simulators'" in found.warnings[0]
    assert [c.name for c in found.components] == ["mine"]


def test_a_hook_without_its_mark_and_a_plugin_without_hooks_are_named():
    module = types.SimpleNamespace(register_simulators=registers("x"))
    bare = Registry(["p"], extra={"p": module}).plugin("p")
    assert bare.warnings == ("function 'register_simulators' is ignored: put @hookimpl above it",)
    empty = Registry(["p"], extra={"p": types.SimpleNamespace()}).plugin("p")
    assert "it registers nothing" in empty.warnings[0]


def test_paths_that_lead_nowhere_and_bad_toml_are_named_without_an_import(install):
    source = """
        from sbi_core import hookimpl

        @hookimpl
        def register_simulators(register):
            register("good", "heavy_module:Simulator", config="heavy_module:Config")
            register("no-class", "heavy_module:Simulater")
            register("no-module", "heavy_modul:Simulator")
            register("no-name", "heavy_module")

        @hookimpl
        def register_pipelines(register):
            register("bad", lambda: "[base", summary="not TOML")
            register("broken", lambda: 1 / 0)
    """
    heavy = "raise RuntimeError('imported')\nclass Simulator: pass\nclass Config: pass\n"
    install("sbi-p", {"p": "p_plugin"}, p_plugin=source, heavy_module=heavy)
    plugin = Registry(["p"]).plugin("p")
    assert plugin.warnings == ()
    found = defects(plugin)
    assert len(found) == 5
    text = "; ".join(found)
    assert "simulator 'no-class': 'heavy_module:Simulater' leads nowhere" in text
    assert "there is no module 'heavy_modul'" in text
    assert "write package.module:name" in text
    assert "pipeline 'bad': its text is not valid TOML" in text
    assert "pipeline 'broken': its text cannot be read: ZeroDivisionError" in text


def test_a_path_that_leads_nowhere_is_an_error_with_names():
    registry = Registry(
        extra={"p": plugin_of(register_simulators=registers("x", "sbi_core.rng:No"))}
    )
    with pytest.raises(PluginError, match=r"simulator 'x' of plugin 'p' .*sbi_core.rng:No.*cannot"):
        registry.build("simulator", "x")


def test_no_built_in_component_has_defects():
    assert [d for p in Registry().plugins for d in defects(p)] == []


def test_a_registry_can_be_pickled():
    registry = pickle.loads(pickle.dumps(Registry(["toy"], extra={"toy": sbi_toy})))
    assert registry.plugin("toy").status == "loaded"
    assert registry.build("simulator", "toy").parameters == sbi_toy.SPACE


def test_one_plugin_may_not_register_a_name_twice():
    def twice(register):
        register("x", dict)
        register("x", dict)

    found = Registry(extra={"p": plugin_of(register_simulators=twice)})
    with pytest.raises(PluginError, match=r"simulator 'x' is registered twice by p \(in memory\)"):
        found.plugin("p")


def test_names_with_a_colon_are_refused():
    found = Registry(extra={"p": plugin_of(register_simulators=registers("a:b"))})
    with pytest.raises(PluginError, match="'a:b' must not contain ':'"):
        found.plugin("p")


def test_one_name_may_serve_different_kinds():
    module = plugin_of(
        register_simulators=registers("x", lambda: 1), register_estimators=registers("x", lambda: 2)
    )
    registry = Registry(extra={"p": module})
    assert (registry.build("simulator", "x"), registry.build("estimator", "x")) == (1, 2)


def test_blocked_plugins_are_not_imported(install, monkeypatch):
    install("sbi-one", {"one": "one_plugin"}, one_plugin=GOOD.format(name="one"))
    monkeypatch.setenv("SBI_BLOCK_PLUGINS", "one, other")
    registry = Registry()
    assert {p.name: p.status for p in registry.plugins}["one"] == "blocked"
    assert "one_plugin" not in sys.modules
    with pytest.raises(PluginError, match="'one' is blocked: SBI_BLOCK_PLUGINS=one, other names"):
        registry.plugin("one")
    monkeypatch.delenv("SBI_BLOCK_PLUGINS")
    monkeypatch.setenv("SBI_LOAD_PLUGINS", "two")
    with pytest.raises(PluginError, match="'one' is blocked: SBI_LOAD_PLUGINS=two does not name"):
        Registry().plugin("one")


def test_only_allowed_plugins_are_loaded(install, monkeypatch):
    install("sbi-one", {"one": "one_plugin"}, one_plugin=GOOD.format(name="one"))
    install("sbi-two", {"two": "two_plugin"}, two_plugin=GOOD.format(name="two"))
    monkeypatch.setenv("SBI_LOAD_PLUGINS", "two")
    status = {p.name: p.status for p in Registry().plugins}
    assert (status["one"], status["two"], status["sbi-core"]) == ("blocked", "loaded", "loaded")


def test_an_empty_list_of_allowed_plugins_allows_none(install, monkeypatch):
    install("sbi-one", {"one": "one_plugin"}, one_plugin=GOOD.format(name="one"))
    monkeypatch.setenv("SBI_LOAD_PLUGINS", "")
    status = {p.name: p.status for p in Registry().plugins}
    assert status["one"] == "blocked"
    assert status["sbi-core"] == "loaded"


def test_options_are_validated_before_the_factory_is_called():
    made = []
    module = plugin_of(
        register_simulators=registers("x", lambda o: made.append(o) or made, config=Options)
    )
    registry = Registry(extra={"p": module})
    registry.build("simulator", "x", {"width": 2})
    assert made == [Options(width=2.0)]
    with pytest.raises(ConfigError, match="unknown option 'simulator.widht'; did you mean 'width'"):
        registry.build("simulator", "x", {"widht": 2})
    with pytest.raises(ConfigError, match="option 'simulator.width' = 'wide'"):
        registry.build("simulator", "x", {"width": "wide"})
    assert len(made) == 1


def test_a_component_without_options_refuses_them():
    registry = Registry(extra={"p": plugin_of(register_simulators=registers("x"))})
    with pytest.raises(ConfigError, match=r"simulator 'x' takes no options, got \['a'\]"):
        registry.build("simulator", "x", {"a": 1})


def test_registries_do_not_know_of_each_other():
    Registry(extra={"p": plugin_of(register_simulators=registers("x"))})
    with pytest.raises(ComponentNotFoundError):
        Registry([]).find("simulator", "x")


def test_every_kind_has_a_hook_and_every_hook_a_sentence():
    from sbi_core import hookspecs

    for name in HOOKS.values():
        assert getattr(hookspecs, name).__doc__
    specified = {n for n in vars(hookspecs) if n.startswith("register_")}
    assert specified == set(HOOKS.values())


def test_discovery_imports_neither_torch_nor_a_domain_package():
    code = (
        "import sys\n"
        "from sbi_core.registry import Registry\n"
        "Registry().plugins\n"
        "heavy = {'torch', 'scipy', 'astropy', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_toy_offers_what_a_pipeline_needs(registry):
    kinds = {c.kind for c in registry.plugin("toy").components}
    assert kinds == {"simulator", "estimator", "combiner", "pipeline"}
    assert registry.build("simulator", "toy").parameters is sbi_toy.SPACE


@pytest.mark.parametrize(
    ("kind", "built", "message"),
    [
        ("pipeline", None, "pipeline 'star' of plugin 'star' returned NoneType; .* text of a TOML"),
        ("pipeline", b"[base]", "returned bytes; it must return the text of a TOML file"),
        ("simulator", None, "simulator 'star' .* returned NoneType; it must return the simulator"),
    ],
)
def test_a_factory_that_returns_something_else_is_named(kind, built, message):
    plugin = plugin_of(**{HOOKS[kind]: registers("star", lambda: built)})
    with pytest.raises(PluginError, match=message):
        Registry(extra={"star": plugin}).build(kind, "star")


def test_a_misspelt_hook_is_pointed_to_where_its_component_is_missing():
    plugin = plugin_of(register_simulator=registers("star"))
    with pytest.raises(ComponentNotFoundError, match="warnings: star .see `sbi-run plugins`."):
        Registry(extra={"star": plugin}).build("simulator", "star")


class Odd:
    """A plugin whose components cannot be made."""

    @hookimpl
    def register_simulators(self, register):
        def fails():
            raise ValueError("no licence\nin two lines")

        register("fails", fails)

    @hookimpl
    def register_pipelines(self, register):
        register("text", "\n[base]\n[presets.quick]\n")


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("simulator", "fails", "cannot be made: ValueError: no licence (test_registry.py, line "),
        (
            "pipeline",
            "text",
            "'[base]' is not the path of a function or class; register a function",
        ),
    ],
)
def test_a_component_that_cannot_be_made_is_one_sentence(kind, name, message):
    registry = Registry([], extra={"odd": Odd()})
    with pytest.raises(PluginError) as caught:
        registry.build(kind, name)
    text = str(caught.value)
    assert text.startswith(f"{kind} '{name}' of plugin 'odd' (odd (in memory))")
    assert message in text
    assert "\n" not in text
    assert not any("\n" in sentence for sentence in defects(registry.plugin("odd")))


def test_a_hook_with_another_argument_says_what_to_write():
    class Plugin:
        @hookimpl
        def register_combiners(self, reg):
            pass

    plugin = Registry(["odd"], extra={"odd": Plugin()}).plugins[-1]
    assert plugin.status == "failed"
    assert plugin.problem == (
        "hook 'register_combiners' takes (reg); write def register_combiners(register):"
    )
