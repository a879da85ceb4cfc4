"""The command ``sbi-run``: one file per command, imported when it is used.

Exit codes: 0 finished; 2 bad input or configuration; 3 finished, but a calibration test failed;
130 interrupted (the same command continues the run).
"""

from __future__ import annotations

import atexit
import os
import re
import sys
import threading
from pathlib import Path

import click

from sbi_core.cli import options
from sbi_core.cli.groups import COMMANDS, EXIT_CALIBRATION, EXIT_INTERRUPTED, CoreGroup, examples
from sbi_core.cli.system_errors import explain
from sbi_core.errors import SbiError

__all__ = ["COMMANDS", "EXIT_CALIBRATION", "EXIT_INTERRUPTED", "app", "main"]

_HOME = re.compile(r"^((?:--)?[\w.-]+=|)~(?=/|$)")  # the shell leaves the ~ of --out=~/x


@click.group(
    cls=CoreGroup,
    modules={name: f"sbi_core.cli.{name.replace('-', '_')}" for name in COMMANDS},
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=examples(
        "sbi-run run chempy --preset quick",
        "sbi-run show chempy",
        "sbi-run infer runs/chempy-quick --observations stars.csv",
    ),
)
@click.option("--plugin", metavar="NAME", help="Run the pipeline of this plugin, as `run NAME`.")
@options.pipeline
@click.version_option(package_name="sbi-core", prog_name="sbi-run")
@click.pass_context
def app(ctx: click.Context, /, plugin: str | None, debug: bool, **given: object) -> None:
    """Simulation-based inference with plugins.

    `sbi-run run NAME` simulates, trains, tests the calibration, infers, combines and writes a
    report. `sbi-run run --simulations FILE --prior FILE` does so with simulations that you have.
    """
    given_first = ", ".join(
        p.opts[0] for p in app.params if _is_given(ctx, p) and p.name != "debug"
    )
    if ctx.invoked_subcommand is not None:
        if given_first:
            ctx.fail(f"options follow the command: put {given_first} after the command's name")
        return
    if plugin is None and not given["simulations"]:
        if given_first:
            ctx.fail(
                f"{given_first}: name the plugin to run, with --plugin NAME, or give --simulations"
            )
        click.echo(ctx.get_help())
        return
    from sbi_core.cli.run import run

    ctx.exit(run(plugin=plugin, **given))  # type: ignore[arg-type]


def _is_given(ctx: click.Context, option: click.Parameter) -> bool:
    source = ctx.get_parameter_source(str(option.name))
    return source is click.core.ParameterSource.COMMANDLINE


for _option in app.params:  # the help of `run` lists the options of the pipeline
    assert isinstance(_option, click.Option)
    _option.hidden = _option.name not in ("plugin", "version", "debug")


def main(args: list[str] | None = None) -> None:
    """Entry point: one sentence and exit code 2 for errors of the user."""
    before = threading.enumerate()
    try:
        _main(args)
    except SystemExit as end:
        left = [t for t in threading.enumerate() if t not in before and not t.daemon]
        if left:  # threads of plugins, for which the interpreter would wait
            atexit._run_exitfuncs()
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(end.code if isinstance(end.code, int) else 0)
        raise


def _main(args: list[str] | None) -> None:
    words = sys.argv[1:] if args is None else args
    argv = [_HOME.sub(lambda tilde: f"{tilde[1]}{Path.home()}", word) for word in words]
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a character that it cannot show must not end a run
            stream.reconfigure(errors="replace")
    try:
        code = app.main(args=argv, prog_name="sbi-run", standalone_mode=False)
    except SbiError as error:
        if "--debug" in argv:
            raise
        click.echo(f"sbi-run: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        click.echo(f"sbi-run: {_of_click(error)}", err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; the same command continues from here", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        sentence = explain(error)
        if sentence is None or "--debug" in argv:
            raise
        click.echo(f"sbi-run: {sentence}", err=True)
        sys.exit(SbiError.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _of_click(error: click.ClickException) -> str:
    """Return the message of an option or argument in our style, with the help to read."""
    text = error.format_message().rstrip(".")
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "sbi-run"
    return f"{text[:1].lower()}{text[1:]}; see `{path} --help`"
