"""`protoflow topology`: the topics and groups of the contract, and whether they exist."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from protoflow.cli import contract, looking, output, plan, settings
from protoflow.cli.exits import ExitCode
from protoflow.config import Config
from protoflow.connection import Connection
from protoflow.error_codes import NOT_SHOWN
from protoflow.errors import CapabilityError, TopologyError
from protoflow.routing.routes import Routes
from protoflow.routing.transport import parts_of, shares_of
from protoflow.transport import KeepsTables, PrintsPolicy, Topology, TopologyMode


@click.command("topology")
@click.argument("action", type=click.Choice(["plan", "apply", "verify", "policy"]))
@settings.connects
@settings.reads_contract
@settings.prints_json
@click.pass_context
def command(
    ctx: click.Context,
    /,
    action: str,
    transport: str | None,
    config_file: str | None,
    contract_name: str | None,
    as_json: bool,
) -> None:
    """Compare topics, queues and streams of the contract with those of the broker.

    plan and verify change nothing, and exit with 1 if anything is missing (+) or differs (!).
    apply creates what is missing. policy prints the rights that a service of the contract needs,
    where the broker describes them in a document: SNS and SQS. With several transports, it prints
    one policy for each such transport, by name.
    """
    config = settings.broker_of(transport, config_file)
    wanted = plan.planned(contract.load(contract_name), config).topology
    if action == "policy":
        output.as_json(asyncio.run(_policy(config, wanted)))
        return
    names = [*_named(config, wanted)]
    rows = asyncio.run(_compared(config, names, wanted, apply=action == "apply"))
    if as_json:
        output.as_json(rows)
    else:
        for row in rows:
            click.echo(f"{row['state']} {row['name']}{': ' if row['note'] else ''}{row['note']}")
    if any(row["state"] != "=" for row in rows):
        ctx.exit(ExitCode.FINDING)


async def _policy(config: Config, wanted: Topology) -> Mapping[str, Any]:
    async with looking.connection(config) as connection:
        shares = shares_of(connection.transport, wanted)
        found = {
            name: part.policy(shares[name])
            for name, part in parts_of(connection.transport).items()
            if isinstance(part, PrintsPolicy)
        }
    if not found:
        schemes = " and ".join(dict.fromkeys(url.scheme for url in config.urls))
        raise CapabilityError(
            f"{schemes}: there are no policy documents; see docs/security", code=NOT_SHOWN
        )
    return found.get("", found)


async def _compared(
    config: Config, parts: Sequence[tuple[str, Topology]], wanted: Topology, *, apply: bool
) -> list[dict[str, Any]]:
    opened = await _applied(config) if apply else looking.connection(config)
    async with opened as connection:
        if apply:
            await connection.transport.ensure(wanted, TopologyMode.CREATE)
        rows = []
        for name, part in parts:
            state, note = "=", ""
            try:
                await connection.transport.ensure(part, TopologyMode.VERIFY)
            except TopologyError as error:
                note = str(error).replace("\n", "; ")
                state = "+" if "missing" in note else "!"
            rows.append({"name": name, "state": state, "note": note})
        return rows


async def _applied(config: Config) -> Connection:
    """Opens a connection to a broker after creating the tables of its transport."""
    connection = Connection(config)
    for transport in parts_of(connection.transport).values():
        if isinstance(transport, KeepsTables):
            await transport.apply_tables()
    return connection


def _named(config: Config, wanted: Topology) -> Iterator[tuple[str, Topology]]:
    """Yields each subscription and each topic separately, so that each gets its own result."""
    routes = Routes(config)
    for one in wanted.subscriptions:
        place = "" if one.source is None else f" from {one.source}"
        yield f"subscription {one.name}{place}", Topology(subscriptions=(one,), topics=())
    for topic in wanted.topics:
        place = routes.sources(routes.of_topic(topic)).place(topic)
        name = f"topic {topic} at {place}" if place else f"topic {topic}"
        yield name, Topology(subscriptions=(), topics=(topic,))
