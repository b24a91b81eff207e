"""`protoflow schemas`: the schemas of the contract, and those of the schema registry."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import click

from protoflow.cli import contract, output, plan, settings
from protoflow.cli.exits import ExitCode
from protoflow.config import Config
from protoflow.contract.catalog import Catalog
from protoflow.contract.spec import Encoding, ProtoClass
from protoflow.schema_registry.comparison import Comparison, compared
from protoflow.schema_registry.registry import SchemaRegistry


@click.command("schemas")
@click.argument("action", type=click.Choice(["check", "register"]))
@settings.connects
@settings.reads_contract
@settings.prints_json
@click.option("--registered", is_flag=True, help="check exits with 1 if a schema is missing, too.")
@click.pass_context
def command(
    ctx: click.Context, /, action: str, transport: str | None, config_file: str | None,
    contract_name: str | None, as_json: bool, registered: bool,
) -> None:  # fmt: skip
    """Compare the schemas of the contract with those of the schema registry.

    check changes nothing, and exits with 1 if the registry would refuse a schema (!). Schemas that
    could be registered are marked with +. register registers them, and exits with 1 if the registry
    refuses all of them, with 4 if it refuses some. No broker is needed.
    """
    config = settings.config_of(transport, config_file)
    registry = SchemaRegistry(config, random.random)
    outputs = list(_outputs(contract.load(contract_name), config, registry))
    rows = asyncio.run(compared(registry, outputs, register=action == "register"))
    if as_json:
        output.as_json([asdict(row) for row in rows])
    else:
        for row in rows:
            click.echo(_line(row))
        if not rows:
            click.echo("the contract publishes no message with a frame", err=True)
    ctx.exit(_code(action, rows, registered=registered))


def _outputs(
    catalog: Catalog, config: Config, registry: SchemaRegistry
) -> Iterator[tuple[str, ProtoClass]]:
    """Yields topics and the types that are published to them, each pair once."""
    pairs = [(spec.topic, spec) for spec in catalog.messages.values() if spec.topic]
    pairs += [
        (method.publication.topic, method.publication.message)
        for method in catalog.methods
        if method.publication is not None
    ]
    found = {(plan.physical(topic, config), spec.message_class): spec for topic, spec in pairs}
    for (topic, message_class), spec in found.items():
        encoding = spec.encoding or config.encoding
        if encoding is Encoding.PROTOBUF and registry.of_topic(topic).enabled:
            yield topic, message_class


def _line(row: Comparison) -> str:
    what = f" ({row.message})" if row.message else ""
    text = f"{row.state} {row.subject}: {row.file}{what}"
    if row.id is not None:
        version = f"version {row.version}, " if row.version else ""
        text += f", {version}id {row.id}"
    return f"{text}: {row.note}" if row.note else text


def _code(action: str, rows: Sequence[Comparison], *, registered: bool) -> ExitCode:
    states = [row.state for row in rows]
    if "!" in states:
        partly = action == "register" and "=" in states
        return ExitCode.PARTLY if partly else ExitCode.FINDING
    missing = "+" in states and (registered or action == "register")
    return ExitCode.FINDING if missing else ExitCode.DONE
