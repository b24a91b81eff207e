"""The first start of a new project: its first message is handled without another command."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import click

from protoflow.cli import dev

#: The message that the contract of `files` takes, as protojson.
_MESSAGE = '{"orderId": "A-1", "cents": 1990}'


def start(ctx: click.Context, folder: Path, http: int) -> None:
    """Generates the code, publishes a message and runs `dev`; ends as these commands end."""
    os.chdir(folder)
    dev.make_folder()
    publish = ("publish", "OrderPlaced", _MESSAGE, "--transport", dev.TRANSPORT)
    for arguments in (("generate", "--quiet"), publish):
        click.echo(f"$ protoflow {shlex.join(arguments)}", err=True)
        command = [sys.executable, "-m", "protoflow.cli", *arguments]
        if code := subprocess.call(command):  # noqa: S603  its own commands
            ctx.exit(code)
    click.echo(f"$ protoflow dev app --http {http}", err=True)
    ctx.invoke(dev.command, name="app", http=http)
