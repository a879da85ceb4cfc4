"""The documentation says what the code does: keys, options, hooks, exit codes, public names."""

import ast
import importlib.util
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import sbi_core
from sbi_core import hookspecs
from sbi_core.cli import EXIT_CALIBRATION, EXIT_INTERRUPTED, app
from sbi_core.errors import SbiError
from sbi_core.files import schema
from sbi_core.pipeline import config, stages
from sbi_core.registry import Registry
from sbi_core.report import view

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"

pytestmark = pytest.mark.skipif(not DOCS.is_dir(), reason="the documentation is not here")


def page(name):
    return (DOCS / f"{name}.md").read_text(encoding="utf-8")


def rows(text):
    """Words in backticks in the first cell of every table row, with the rest of the row."""
    for line in text.splitlines():
        cells = re.split(r"(?<!\\)\|", line.strip())
        if line.startswith("|") and len(cells) > 3:
            for word in re.findall(r"`([^`]+)`", cells[1]):
                yield word, cells[2:]


def section(text, title):
    """The text below a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", text, re.DOTALL | re.MULTILINE)
    assert found, f"no section '{title}'"
    return found[1]


# -- report.json ----------------------------------------------------------------------------

PARTS = {
    "parameters": schema.ParameterPart,
    "checks": schema.Check,
    "widths": schema.Width,
    "simulation": schema.Simulation,
    "emulator": schema.EmulatorErrors,
    "training": schema.TrainingPart,
    "calibration": schema.Calibration,
    "accuracy": schema.Accuracy,
    "observations": schema.ObservationsPart,
    "combined": schema.Combined,
    "combined_calibration": schema.CombinedCalibration,
    "marginalised": schema.Marginalised,
    "misspecification": schema.Misspecification,
    "Top level": schema.Report,
}


@pytest.mark.parametrize("title", PARTS)
def test_the_keys_of_a_part_of_the_report_are_those_of_its_schema(title):
    documented = {word for word, _ in rows(section(page("run-directory"), title))}
    assert documented == {name.rstrip("_") for name in PARTS[title].model_fields}


@pytest.mark.parametrize("model", [schema.ParameterCalibration, schema.CombinedParameter])
def test_the_keys_per_parameter_are_documented(model):
    text = page("run-directory")
    assert [name for name in model.model_fields if f"`{name}`" not in text] == []


def test_every_part_of_the_report_has_its_section():
    models = {
        m for _, m in inspect.getmembers(schema, inspect.isclass) if issubclass(m, schema._Part)
    }
    inner = {schema._Part, schema.ParameterCalibration, schema.CombinedParameter}
    assert models - inner == set(PARTS.values())


def test_every_flag_is_documented():
    documented = {word for word, _ in rows(section(page("run-directory"), "flags"))}
    assert documented == set(view.FLAGS)


def test_timings_are_documented():
    text = section(page("run-directory"), "Top level")
    assert [s for s in stages.stage_names() if f"`{s}_s`" not in text] == []
    assert "`total_s`" in text


# -- configuration --------------------------------------------------------------------------


def test_the_tables_of_options_are_those_of_the_code():
    """If this fails: python tools/option_tables.py."""
    code = (
        "import option_tables as t; texts = [p.read_text(encoding='utf-8') for p in t.PAGES]; "
        "assert [t.filled(text) for text in texts] == texts"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "tools",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"run: python tools/option_tables.py\n{done.stderr[-500:]}"


needs_all_plugins = pytest.mark.skipif(
    not all(importlib.util.find_spec(f"sbi_{n}") for n in ("chempy", "casbi", "sfh", "sedflow")),
    reason="the page shows all plugins of the project; some are not installed",
)


@needs_all_plugins
def test_the_page_of_plugins_is_what_the_command_prints():
    """If this fails: python tools/shown_plugins.py."""
    code = "import shown_plugins as t; assert t.PAGE.read_text() == t.page()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "tools",
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"run: python tools/shown_plugins.py\n{done.stderr[-500:]}"


STAGES_WITH_OPTIONS = ("simulate", "emulate", "train", "diagnose", "infer", "combine")


@pytest.mark.parametrize("name", STAGES_WITH_OPTIONS)
def test_every_stage_has_its_table_of_options(name):
    found = [word for word, _ in rows(section(page("configuration"), name))]
    assert found
    assert all(word.startswith(f"{name}.") for word in found)


def test_every_section_of_the_configuration_is_documented():
    text = page("configuration")
    titles = "\n".join(re.findall(r"^## (.*)$", text, re.MULTILINE))
    top = {word for word, _ in rows(section(text, "Top level"))}
    names = set(config.RunConfig.model_fields)
    assert [n for n in sorted(names - top) if not re.search(rf"\b{n}\b", titles)] == []
    assert top == {n for n in names if not re.search(rf"\b{n}\b", titles)}


def test_every_built_in_component_is_documented():
    text = section(page("configuration"), "Options of the built-in components")
    found = set(re.findall(r"^`(\w+) = ([\w-]+)`", text, re.MULTILINE))
    assert found == {(c.kind, c.name) for c in Registry([]).components()}


# -- command line ---------------------------------------------------------------------------


@needs_all_plugins
def test_the_page_of_commands_is_their_help():
    """If this fails: python tools/command_page.py."""
    code = "import command_page as t; text = t.PAGE.read_text(); assert t.filled(text) == text"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "tools", capture_output=True, text=True
    )
    assert done.returncode == 0, f"run: python tools/command_page.py\n{done.stderr[-500:]}"


def commands():
    """Every command of the core with the words that call it."""
    context = click.Context(app)
    for name in app.list_commands(context):
        command = app.get_command(context, name)
        if isinstance(command, click.Group):
            yield from ((f"{name} {n}", c) for n, c in command.commands.items())
        else:
            yield name, command


@pytest.mark.parametrize(("words", "command"), [pytest.param(w, c, id=w) for w, c in commands()])
def test_every_help_is_made_of_sentences_and_has_an_example(words, command):
    assert f"sbi-run {words}" in command.epilog
    for text in (command.help, *(o.help for o in command.params if isinstance(o, click.Option))):
        first = text.strip().partition("\n\n")[0]
        assert first[0].isupper() or first.startswith(("process,", "cpu", "serial,"))
        assert first.endswith((".", ":"))


def test_no_command_is_documented_that_does_not_exist():
    said = set()
    for file in [ROOT / "README.md", *DOCS.glob("*.md"), *ROOT.glob("packages/*/README.md")]:
        said |= set(re.findall(r"\bsbi-run (data [a-z]+|[a-z][a-z-]*)", file.read_text()))
    plugins = {"chempy", "casbi", "sfh", "sedflow", "cluster"}
    assert said <= {words for words, _ in commands()} | plugins


def test_files_of_objects_are_documented_with_their_option():
    """``infer`` and ``combine`` take one argument, the run; a second one is an error."""
    words = re.compile(r"sbi-run (?:infer|combine) (?!-)[^\s`]+ (?!-)[^\s`]")
    for file in (ROOT / "README.md", *DOCS.glob("*.md")):
        commands = re.findall(r"`([^`\n]+)`", file.read_text(encoding="utf-8"))
        assert not [c for c in commands if words.match(c)], file.name


def test_the_stages_are_named():
    text = section(page("cli"), "`sbi-run run NAME`")
    assert [s for s in stages.stage_names() if f"`{s}`" not in text] == []


@pytest.mark.parametrize("file", ["README.md", "docs/cli.md"])
def test_the_exit_codes_are_documented(file):
    text = section((ROOT / file).read_text(encoding="utf-8"), "Exit codes")
    codes = {int(c) for c in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    assert codes == {0, SbiError.exit_code, EXIT_CALIBRATION, EXIT_INTERRUPTED}


def test_the_environment_variables_are_documented():
    documented = {word for word, _ in rows(section(page("cli"), "Environment"))}
    used = set()
    for file in Path(sbi_core.__file__).parent.rglob("*.py"):
        used |= set(re.findall(r"\"(SBI_[A-Z_]+)\"", file.read_text(encoding="utf-8")))
    assert documented == used


# -- plugins --------------------------------------------------------------------------------


def hooks():
    return {
        name: f"{name}({', '.join(inspect.signature(f).parameters)})"
        for name, f in inspect.getmembers(hookspecs, inspect.isfunction)
        if name.startswith("register_")
    }


def test_every_hook_is_documented_with_its_signature():
    documented = {word for word, _ in rows(section(page("write-a-plugin"), "The hooks"))}
    assert documented == set(hooks().values())


def test_the_signature_of_register_is_documented():
    parameters = list(inspect.signature(hookspecs.Register.__call__).parameters.values())[1:]
    names = [
        p.name if p.default is p.empty else f"{p.name}={json.dumps(p.default)}" for p in parameters
    ]
    names = [n.replace("=null", "=None") for n in names]
    first = next(k for k, p in enumerate(parameters) if p.kind is p.KEYWORD_ONLY)
    signature = f"register({', '.join([*names[:first], '*', *names[first:]])})"
    assert signature in page("write-a-plugin")


def test_every_prior_family_is_documented():
    from sbi_core.priors.families import FAMILIES

    documented = {word for word, _ in rows(section(page("write-a-plugin"), "Priors"))}
    assert documented == set(FAMILIES)
    assert f"{len(FAMILIES)} families" in page("coming-from")


def test_the_table_of_diagnostics_names_functions_that_exist():
    from sbi_core import diagnostics
    from sbi_core.adapters import sbi_diagnostics

    own, adapted = page("diagnostics").split("Two tests of the package sbi")
    for text, module in ((own, diagnostics), (adapted.split("<!-- run -->")[0], sbi_diagnostics)):
        cells = [line.split("|")[2] for line in text.splitlines() if line.startswith("| ")]
        named = re.findall(r"`(\w+)`", " ".join(cells))
        assert named
        assert [name for name in named if name not in module.__all__] == []


def test_every_public_name_is_documented():
    text = page("python-api")
    named = set(re.findall(r"sbi_core\.(\w+)", text))
    assert set(sbi_core.__all__) - named == set()


@pytest.mark.parametrize("file", sorted(f.name for f in DOCS.glob("*.md")))
def test_every_code_block_is_executed_or_marked(file):
    """Blocks of Python and of the shell: `<!-- run -->` runs them in the session docs."""
    blocks = re.findall(
        r"^(?:<!-- (run|shown only) -->\n+)?```(?:python|console)", page(file[:-3]), re.MULTILINE
    )
    assert "" not in blocks, f"{blocks.index('') + 1}th block: put <!-- run --> above it"


def test_the_tests_of_every_kind_are_documented():
    from sbi_core import testing

    kinds = {n.removesuffix("Checks").lower() for n in testing.__all__ if n.endswith("Checks")}
    lines = section(page("write-a-plugin"), "Test it").splitlines()
    documented = {line.split("|")[1].strip() for line in lines if line.startswith("| ")}
    assert kinds - {""} <= documented


def test_the_plugin_of_the_readme_is_a_module_that_stands_alone(tmp_path):
    """Its two blocks, put into the files they name, are a plugin (running it: docs session)."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    source = re.search(r"```python\n# sbi_cluster.py\n(.*?)```", text, re.DOTALL)[1]
    (tmp_path / "sbi_cluster.py").write_text(source, encoding="utf-8")
    code = (
        "import sbi_cluster, sbi_core\n"
        "found = sbi_core.Registry([], extra={'cluster': sbi_cluster})\n"
        "plugin = found.plugin('cluster')\n"
        "assert plugin.status == 'loaded' and not plugin.warnings\n"
        "assert {c.kind for c in plugin.components} == {'simulator', 'pipeline'}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# -- numbers and their nouns ----------------------------------------------------------------


def test_nouns_agree_with_their_numbers():
    """No "row(s)" in a message, a help text or a page: sbi_core.counted."""
    either = re.compile(r"(?<![\\\w])[a-z]{2,}\(e?s\)")
    texts = [(p.name, p.read_text(encoding="utf-8")) for p in DOCS.rglob("*.md")]
    for path in ROOT.glob("packages/*/src/**/*.py"):
        strings = [
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        texts.append((path.name, "\n".join(strings)))
    assert [(name, either.findall(text)) for name, text in texts if either.search(text)] == []
