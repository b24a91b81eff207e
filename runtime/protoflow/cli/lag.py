"""`protoflow lag`."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from protoflow.cli import contract, looking, output, plan, settings
from protoflow.config import Config
from protoflow.errors import CapabilityError, TopologyError
from protoflow.routing.transport import part_of
from protoflow.transport import LagReader, SubscriptionSettings


@click.command("lag")
@click.argument("group", required=False)
@settings.connects
@settings.reads_contract
@settings.prints_json
def command(
    group: str | None,
    transport: str | None,
    config_file: str | None,
    contract_name: str | None,
    as_json: bool,
) -> None:
    """Show how many messages wait in each group of the contract, or in GROUP."""
    config = settings.broker_of(transport, config_file)
    found = plan.planned(contract.load(contract_name), config).topology.subscriptions
    wanted = [one for one in found if group in (None, one.group)]
    if group and not wanted:
        known = ", ".join(sorted({one.group for one in found})) or "none"
        raise click.UsageError(f"the contract has no group {group}; it has {known}")
    rows = asyncio.run(_read(config, wanted))
    if as_json:
        output.as_json(rows)
    else:
        columns = ("topic", "group", "waiting", "oldest_s", "note")
        output.table(rows, columns, empty="the contract has no method that consumes")


async def _read(config: Config, subscriptions: list[SubscriptionSettings]) -> list[dict[str, Any]]:
    rows = []
    async with looking.connection(config, subscriptions) as connection:
        for one in subscriptions:
            reader = part_of(connection.transport, one.transport)
            if not isinstance(reader, LagReader):
                scheme = config.transport_named(one.transport).url.scheme
                raise CapabilityError(f"{scheme} does not report lag")
            row: dict[str, Any] = {"topic": one.topic, "group": one.group}
            try:
                lag = await reader.lag(one.topic, one.group)
                row |= {"waiting": lag.messages, "oldest_s": lag.seconds, "note": ""}
            except TopologyError as error:
                row |= {"waiting": None, "oldest_s": None, "note": str(error)}
            rows.append(row)
    return rows
