"""The group `dlq`, and its commands that only read."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import click

from protoflow import wire
from protoflow.cli import output, records, settings
from protoflow.cli.dlq.access import PAGE, Access, all_of, found_in, row_of
from protoflow.cli.dlq.changes import purge, replay
from protoflow.cli.dlq.filters import Selection, filters
from protoflow.cli.exits import ExitCode
from protoflow.codecs.printable import printable
from protoflow.counted import counted
from protoflow.dead_letters import DeadLetters
from protoflow.errors import ProtoflowError

_LONGEST = 10_000
_COLUMNS = ("id", "time", "handler", "attempts", "error")


@click.group("dlq")
def command() -> None:
    """List, show, replay, purge and export dead letters.

    Commands work on the dead-letter topics of the contract, or on those of --topic. They never
    join a group, so a service may run meanwhile.
    """


@command.command("list")
@settings.connects
@settings.reads_contract
@settings.prints_json
@filters
@click.option("--limit", type=click.IntRange(1), default=PAGE, help="Most dead letters of a topic.")
@click.option("--cursor", default="", help="Start after this position; needs one --topic.")
@click.option("--exit-code", is_flag=True, help="Exit with 1 if there is a dead letter.")
@click.pass_context
def list_(
    ctx: click.Context,
    /,
    *,
    selection: Selection,
    as_json: bool,
    limit: int,
    cursor: str,
    exit_code: bool,
    **where: Any,
) -> None:
    """List dead letters, the oldest first."""
    access = Access(selection, where)
    if cursor and len(access.topics) != 1:
        raise click.UsageError("--cursor is a position in one topic; name it with --topic")

    async def read(dead_letters: DeadLetters) -> list[dict[str, Any]]:
        return [
            row_of(topic, record)
            for topic in access.topics
            for record in await dead_letters.list(
                topic, limit=limit, after=cursor, filter=selection.filter
            )
        ]

    try:
        rows = access.run(read)
    except ValueError as error:  # no fault yet: the transport parses the position
        if not cursor or isinstance(error, ProtoflowError):
            raise
        raise click.UsageError(f"--cursor: {error}; use one that --json shows") from None
    if as_json:
        output.as_json(rows)
    else:
        sources = ("source",) if any(row["source"] for row in rows) else ()
        output.table(rows, (*_COLUMNS, *sources), empty="no dead letters")
    if exit_code and rows:
        ctx.exit(ExitCode.FINDING)


@command.command("show")
@click.argument("id")
@settings.connects
@settings.reads_contract
@settings.prints_json
@filters
@click.option("--payload", is_flag=True, help="Decode the payload; sensitive fields stay hidden.")
def show(id: str, selection: Selection, as_json: bool, payload: bool, **where: Any) -> None:
    """Show one dead letter with the cause of its failure."""
    access = Access(selection, where)
    topic, record = access.run(lambda dead_letters: found_in(dead_letters, access.topics, id))
    fields = row_of(topic, record) | {
        "type": record.message.metadata.get(wire.CE_TYPE, ""),
        "key": records.key_text(record.message.key),
        "metadata": {
            name: value
            for name, value in record.message.metadata.items()
            if name.startswith((wire.PF_PREFIX, "ce_")) or name == wire.CORRELATION_ID
        },
    }
    if payload:
        fields["payload"] = records.payload(record.message, access.catalog)
    if as_json:
        output.as_json(fields)
        return
    for name, value in fields.items():
        if isinstance(value, dict):
            click.echo(f"{name}:")
            for key, item in value.items():
                text = item if isinstance(item, str) else json.dumps(item)
                click.echo(f"  {printable(key)}: {printable(text, _LONGEST)}")
        else:
            click.echo(f"{name}: {'-' if value is None else printable(str(value), _LONGEST)}")


@command.command("export")
@click.argument("file", type=click.Path(dir_okay=False))
@settings.connects
@settings.reads_contract
@filters
@click.option("--payloads", is_flag=True, help="Include raw payloads; nothing is hidden.")
def export(file: str, selection: Selection, payloads: bool, **where: Any) -> None:
    """Write dead letters to FILE, one JSON object a line; only you can read the file."""
    access = Access(selection, where)

    async def write(dead_letters: DeadLetters) -> int:
        count = 0
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise click.UsageError(f"{file}: {error.strerror}; name a new file") from None
        with open(descriptor, "w", encoding="utf-8") as lines:  # noqa: ASYNC230  one reader
            for topic in access.topics:
                async for record in all_of(dead_letters, topic, selection):
                    row = row_of(topic, record) | {"metadata": dict(record.message.metadata)}
                    if payloads:
                        key, body = record.message.key, record.message.payload
                        row["key"] = None if key is None else base64.b64encode(key).decode()
                        row["payload"] = None if body is None else base64.b64encode(body).decode()
                    lines.write(f"{json.dumps(row, ensure_ascii=False)}\n")
                    count += 1
        return count

    count = access.run(write)
    click.echo(f"{counted(count, 'dead letter')} in {Path(file)}")


command.add_command(replay)
command.add_command(purge)
