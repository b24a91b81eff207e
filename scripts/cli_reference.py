"""The reference of the command, made of the commands themselves; see scripts/docs.py."""

from __future__ import annotations

from collections.abc import Iterator

import click
from protoflow.cli.app import app
from protoflow.cli.commands import COMMANDS


def reference() -> str:
    """A section for each command: usage, what it does, arguments and options."""
    context = click.Context(app, info_name="protoflow")
    lines: list[str] = []
    for name in COMMANDS:
        command = app.get_command(context, name)
        assert command is not None
        lines += _section(command, click.Context(command, context, info_name=name))
    return "\n".join(lines) + "\n"


def _section(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = command.get_usage(context).removeprefix("Usage: ")
    yield f"### `{context.command_path}`\n"
    yield f"```\n{' '.join(usage.split())}\n```\n"
    yield f"{_text(command)}\n"
    rows = [
        record
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)
        and "--help" not in parameter.opts
        and (record := parameter.get_help_record(context)) is not None
    ]
    if rows:
        yield "| option | meaning |\n|---|---|"
        yield from (f"| `{_cell(option)}` | {_cell(meaning)} |" for option, meaning in rows)
        yield ""
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from _section(child, click.Context(child, context, info_name=name))


def _text(command: click.Command) -> str:
    paragraphs = (command.help or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
