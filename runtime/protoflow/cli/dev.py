"""`protoflow dev`."""

from __future__ import annotations

from pathlib import Path

import click

from protoflow.cli import settings, supervisor

_FOLDER = Path(".protoflow")
#: Where the messages of `dev` are.
TRANSPORT = f"sqlite:///{_FOLDER}/dev.db"


def make_folder() -> None:
    """Makes the folder of the messages, which git ignores."""
    _FOLDER.mkdir(exist_ok=True)
    ignored = _FOLDER / ".gitignore"
    if not ignored.exists():
        ignored.write_text("*\n", encoding="utf-8")


@click.command("dev")
@click.argument("name", metavar="MODULE[:SERVICE|:HANDLER]")
@click.option(
    "--http",
    type=click.IntRange(1, 65535),
    default=8080,
    show_default=True,
    help="Port of the HTTP pages.",
)
@settings.logs_records
@click.pass_context
def command(ctx: click.Context, /, name: str, http: int, log_format: str, log_level: str) -> None:
    """Run the service of a module on SQLite with HTTP pages, and restart it on changes.

    The messages are in .protoflow/dev.db. This file overrides the transport of the environment and
    the TOML file, but not one that the module passes to Config. The pages bind to http_host.
    """
    make_folder()
    click.echo(f"other commands: export PROTOFLOW_TRANSPORT={TRANSPORT}", err=True)
    options = [f"--transport={TRANSPORT}", f"--http={http}"]
    options += [f"--log-format={log_format}", f"--log-level={log_level}"]
    ctx.exit(supervisor.run_reloading(name, options))
