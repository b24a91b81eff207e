"""`protoflow publish`."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from google.protobuf import json_format

from protoflow.cli import contract, output, settings
from protoflow.cli.exits import ExitCode
from protoflow.cli.values import Finite
from protoflow.config import Config
from protoflow.connection import Connection
from protoflow.contract.spec import MessageSpec, PublicationSpec
from protoflow.errors import ProtoflowError
from protoflow.output import Output


@click.command("publish")
@click.argument("type_name", metavar="TYPE")
@click.argument("source", metavar="JSON|-|@FILE")
@settings.connects
@settings.reads_contract
@settings.prints_json
@click.option("--topic", help="Topic; that of the contract by default.")
@click.option("--key", help="Key; the partition key by default.")
@click.option("--delay", type=Finite(0), help="Seconds before the delivery.")
@click.option("--metadata", multiple=True, metavar="K=V", help="Metadata; repeatable.")
@click.option("--count", type=click.IntRange(1), default=1, help="Times to publish each message.")
@click.option("--rate", type=Finite(0, min_open=True), help="Most messages a second.")
def command(
    type_name: str,
    source: str,
    transport: str | None,
    config_file: str | None,
    contract_name: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Publish messages of TYPE, and print the id of each confirmed message.

    TYPE is the full name of a message or its last part. Write the message as protojson: in the
    argument, or as lines of standard input (-) or of a file (@FILE).
    """
    config = settings.broker_of(transport, config_file)
    spec = contract.message(contract.load(contract_name), type_name)
    topic = spec.topic if options["topic"] is None else options["topic"]
    if not topic:
        raise click.UsageError(f"{spec.type} has no topic in the contract; give --topic")
    publication = PublicationSpec(topic=topic, message=spec)
    outputs = _outputs(spec, source, options)
    asyncio.run(_publish(config, publication, outputs, options["rate"], as_json))


async def _publish(
    config: Config,
    publication: PublicationSpec,
    outputs: Iterator[Output[Any]],
    rate: float | None,
    as_json: bool,
) -> None:
    published = 0
    async with Connection(config) as connection:
        started = time.monotonic()
        try:
            for made in outputs:
                if rate is not None:
                    await asyncio.sleep(max(0.0, started + published / rate - time.monotonic()))
                (id,) = await connection.publish_outputs(publication, (made,))
                published += 1
                if as_json:
                    output.as_json({"id": id, "type": publication.message.type})
                else:
                    click.echo(id)
        except (click.UsageError, ProtoflowError) as error:
            if not published:
                raise
            raise _PartlyError(f"{error}; {published} published before this error") from error


class _PartlyError(click.ClickException):
    """A failure after the first messages were published."""

    exit_code = ExitCode.PARTLY


def _outputs(spec: MessageSpec, source: str, options: dict[str, Any]) -> Iterator[Output[Any]]:
    metadata = dict(_pair(text) for text in options["metadata"])
    delay = options["delay"]
    for place, text in _texts(source):
        message = spec.message_class()
        try:
            json_format.Parse(text, message)
        except json_format.ParseError as error:
            raise click.UsageError(f"{place} is not a {spec.type}: {error}") from None
        for _ in itertools.repeat(None, options["count"]):
            yield Output(
                message,
                key=options["key"],
                metadata=metadata or None,
                delay=None if delay is None else datetime.timedelta(seconds=delay),
            )


def _texts(source: str) -> Iterator[tuple[str, str]]:
    """Yields the messages, each with its position in the input."""
    if source == "-":
        if sys.stdin is None:
            raise click.UsageError("standard input is closed")
        yield from _lines("standard input", sys.stdin)
    elif source.startswith("@"):
        try:
            with Path(source[1:]).open(encoding="utf-8") as file:
                yield from _lines(source[1:], file)
        except (OSError, UnicodeDecodeError) as error:
            raise click.UsageError(f"{source[1:]} cannot be read: {error}") from None
    else:
        yield "the argument", source


def _lines(name: str, lines: Any) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield f"{name}:{number}", line


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--metadata {text}: write NAME=VALUE")
    return name, value
