"""The command ``sbi-run``: one file per command, imported when it is used.

Exit codes: 0 fine; 2 bad input or configuration; 3 finished, but a calibration gate failed;
130 interrupted (run the same command again to go on).
"""

from __future__ import annotations

import importlib
import sys

import click

from sbi_core.errors import SbiError

__all__ = ["EXIT_CALIBRATION", "EXIT_INTERRUPTED", "app", "main"]

EXIT_CALIBRATION = 3
EXIT_INTERRUPTED = 130
_COMMANDS = {
    "plugins": "plugins",
    "show": "show",
    "simulate": "simulate",
    "pack": "pack",
    "infer": "infer",
    "combine": "combine",
    "compare": "compare",
    "report": "report",
    "export": "export",
    "refine": "refine",
    "tune": "tune",
    "data": "data",
    "cite": "cite",
    "new-plugin": "new_plugin",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"sbi_core.cli.{_COMMANDS[cmd_name]}")
        command: click.Command = module.command
        return command


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--plugin", metavar="NAME", help="Run this plugin's pipeline, e.g. chempy.")
@click.option(
    "--preset", default="standard", show_default=True, help="quick, standard, large or paper."
)
@click.option("--observations", metavar="FILE", help="Objects to infer; default: an example.")
@click.option("--out", metavar="DIR", help="Run directory; default runs/NAME-PRESET.")
@click.option(
    "--set", "overrides", metavar="KEY=VALUE", multiple=True,
    help="Set an option, e.g. simulate.n=20000 (repeatable; see `sbi-run show NAME`).",
)  # fmt: skip
@click.option("--config", metavar="FILE", help="TOML file with options.")
@click.option("--seed", type=click.IntRange(min=0), help="Root seed; default 1.")
@click.option("--stages", metavar="A,B", help="Only these stages.")
@click.option("--restart", metavar="STAGE", help="Do this stage and all after it again.")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes; default: all cores.")
@click.option("--executor", help="process, serial or dask.")
@click.option("--dask-scheduler", metavar="ADDR", help="Running dask scheduler; default: local.")
@click.option("--device", help="cpu or cuda.")
@click.option("--draws", type=click.IntRange(min=10), help="Posterior draws per object.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option("--debug", is_flag=True, help="Show the traceback of errors.")
@click.version_option(package_name="sbi-core", prog_name="sbi-run")
@click.pass_context
def app(ctx: click.Context, /, debug: bool, **options: object) -> None:
    """Simulation-based inference with plugins.

    `sbi-run --plugin chempy` simulates, trains, checks the calibration, infers, combines and
    writes a report. The same command again goes on where it was interrupted.
    """
    ctx.ensure_object(dict)["debug"] = debug
    if ctx.invoked_subcommand is not None:
        return
    if options["plugin"] is None:
        click.echo(ctx.get_help())
        return
    from sbi_core.cli.run import run

    ctx.exit(run(**options))  # type: ignore[arg-type]


def main(args: list[str] | None = None) -> None:
    """Entry point: one sentence and exit code 2 for errors of the user."""
    argv = sys.argv[1:] if args is None else args
    try:
        code = app.main(args=argv, prog_name="sbi-run", standalone_mode=False)
    except SbiError as error:
        if "--debug" in argv:
            raise
        click.echo(f"sbi-run: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; the same command again goes on from here", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:
        sentence = _of_the_system(error)
        if sentence is None or "--debug" in argv:
            raise
        click.echo(f"sbi-run: {sentence}", err=True)
        sys.exit(SbiError.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _of_the_system(error: Exception) -> str | None:
    from sbi_core.cli.system_errors import explain

    return explain(error)
