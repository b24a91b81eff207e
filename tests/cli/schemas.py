"""The committed schemas of what commands print with --json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import click
import protoflow.cli
from jsonschema import Draft202012Validator
from protoflow.cli.app import app

FOLDER = Path(protoflow.cli.__file__).with_name("schemas")
#: Commands that print one JSON object a line.
STREAMS = {"publish", "replay", "tail"}
#: Written to a file, whatever the options.
FILES = {"dlq-export"}


def commands(group: click.Group = app, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command and its name in a file name, `dlq-list`."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield "-".join((*path, name)), command


def printing_json() -> set[str]:
    """The commands that have --json."""
    return {
        name
        for name, command in commands()
        if any("--json" in parameter.opts for parameter in command.params)
    }


@cache
def validator(name: str) -> Draft202012Validator:
    """The schema of a command."""
    file = FOLDER / f"{name}.json"
    assert file.exists(), (
        f"protoflow {name.replace('-', ' ')} --json has no schema: write {file}, and a run of it"
        " into tests/cli/test_schemas.py"
    )
    schema = json.loads(file.read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def name_of(arguments: Sequence[str]) -> str:
    """The command that arguments run."""
    known = dict(commands())
    if arguments[0] in known:
        return arguments[0]
    return f"{arguments[0]}-{arguments[1]}"


def validate(arguments: Sequence[str], out: str) -> None:
    """Checks what a command has printed with --json."""
    name = name_of(arguments)
    for text in out.splitlines() if name in STREAMS | FILES else [out]:
        validator(name).validate(json.loads(text))
