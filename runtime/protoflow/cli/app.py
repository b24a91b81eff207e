"""The group of commands, their common options, and the exit code of a run."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, cast

import click

from protoflow.cli.commands import COMMANDS
from protoflow.cli.exits import ExitCode, code_of
from protoflow.error_codes import FILE, INTERNAL, USAGE, coded
from protoflow.errors import ProtoflowError


class _Commands(click.Group):
    """Imports a command only when it is run; the list of commands comes from a table."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns the command with this name."""
        row = COMMANDS.get(cmd_name)
        if row is None:
            return None
        return cast(click.Command, importlib.import_module(row.module).command)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command. A reader such as `head` may close its output early."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Otherwise Python would report the failed flush at exit, and click would exit with 1.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.DONE

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands, from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, row.help) for name, row in COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Print the traceback of an internal error.")
def app(debug: bool) -> None:
    """Contract-first, event-driven Python, from the shell."""


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns the exit code."""
    try:
        return int(app.main(list(arguments), prog_name="protoflow", standalone_mode=False) or 0)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except click.UsageError as error:
        click.UsageError(coded(error.format_message(), USAGE), error.ctx).show()
        return ExitCode.USAGE
    except click.ClickException as error:
        click.ClickException(coded(error.format_message(), USAGE)).show()
        return error.exit_code if error.exit_code > 1 else ExitCode.USAGE
    except (click.Abort, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    except ProtoflowError as error:
        _report(error)
        return code_of(error)
    except Exception as error:
        if "--debug" in arguments:
            raise
        if isinstance(error, OSError) and error.filename is not None:
            _say(f"error: {coded(f'{error.filename}: {error.strerror}', FILE)}")
            return ExitCode.USAGE
        what = f"{type(error).__name__}: {error}; --debug prints the traceback"
        _say(f"internal error: {coded(what, INTERNAL)}")
        return ExitCode.INTERNAL


def _report(error: ProtoflowError) -> None:
    for problem in str(error).splitlines():
        _say(f"error: {problem}")


def _say(text: str) -> None:
    click.echo(text, err=True)
