"""`protoflow lag`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import click

from protoflow.cli import contract, looking, output, plan, settings
from protoflow.config import Config
from protoflow.error_codes import NOT_SHOWN
from protoflow.errors import CapabilityError, TopologyError
from protoflow.routing.transport import part_of
from protoflow.transport import LagReader, SubscriptionSettings, Transport


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
        columns: tuple[str, ...] = ("topic", "group", "waiting", "oldest_s", "note")
        if any(row["source"] for row in rows):
            columns = ("topic", "source", *columns[1:])
        output.table(rows, columns, empty="the contract has no method that consumes")


async def _read(config: Config, subscriptions: list[SubscriptionSettings]) -> list[dict[str, Any]]:
    async with looking.connection(config, subscriptions) as connection:
        readers = {
            one.transport: part_of(connection.transport, one.transport) for one in subscriptions
        }
        silent = {
            name: f"{config.transport_named(name).url.scheme} does not report lag"
            for name, reader in readers.items()
            if not isinstance(reader, LagReader)
        }
        if silent and len(silent) == len(readers):
            raise CapabilityError(silent.values(), code=NOT_SHOWN)
        return [await _row(one, readers[one.transport], silent) for one in subscriptions]


async def _row(
    one: SubscriptionSettings, reader: Transport, silent: Mapping[str, str]
) -> dict[str, Any]:
    row: dict[str, Any] = {"topic": one.topic, "source": str(one.source or ""), "group": one.group}
    nothing = {"waiting": None, "oldest_s": None}
    if not isinstance(reader, LagReader):
        return row | nothing | {"note": silent[one.transport]}
    try:
        lag = await reader.lag(one.topic, one.group)
    except TopologyError as error:
        return row | nothing | {"note": str(error)}
    return row | {"waiting": lag.messages, "oldest_s": lag.seconds, "note": ""}
