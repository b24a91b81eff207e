"""`protoflow tail`."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

import click

from protoflow.cli import contract, looking, output, plan, records, settings
from protoflow.cli.values import time_of
from protoflow.config import Config
from protoflow.config.options import did_you_mean
from protoflow.contract.catalog import Catalog
from protoflow.contract.spec import Ordering, Start
from protoflow.error_codes import NOT_SHOWN
from protoflow.errors import CapabilityError, TransportError
from protoflow.message import Delivery, Settlement
from protoflow.routing.routes import Routes
from protoflow.routing.transport import read_from
from protoflow.transport import SubscriptionSettings, Topology, TopologyMode, Transport
from protoflow.transport.topic_reader import TopicReader, TopicRecord

_BYTES = 16 * 1024 * 1024


@click.command("tail")
@click.argument("topic")
@settings.connects
@settings.reads_contract
@settings.prints_json
@click.option(
    "--from",
    "start",
    metavar="earliest|latest|TIME",
    help="Begin there; by default at the latest message, with --no-follow at the earliest.",
)
@click.option(
    "--where", multiple=True, metavar="FIELD=VALUE", help="Show only messages with this value."
)
@click.option("-n", "--number", type=click.IntRange(1), help="Stop after this number of messages.")
@click.option("--follow/--no-follow", default=True, help="Continue with new messages (default).")
def command(
    topic: str,
    transport: str | None,
    config_file: str | None,
    contract_name: str | None,
    as_json: bool,
    start: str | None,
    where: tuple[str, ...],
    number: int | None,
    follow: bool,
) -> None:
    """Show the messages of TOPIC: time, id, type, key and payload without sensitive fields.

    The command joins no group and settles no message. TOPIC is a topic of the contract, a message
    type or a topic of the broker. TIME is ISO 8601, such as 2026-11-27T05:00:00Z.
    """
    config = settings.broker_of(transport, config_file)
    catalog = contract.optional(contract_name)
    conditions = [_condition(text, catalog) for text in where]
    physical = plan.topic_named(topic, catalog, config)
    asyncio.run(
        _tail(
            config,
            physical,
            _start(start or ("latest" if follow else "earliest")),
            follow,
            catalog,
            conditions,
            number,
            as_json,
        )
    )


async def _tail(
    config: Config,
    topic: str,
    start: Start | float,
    follow: bool,
    catalog: Catalog,
    conditions: Sequence[tuple[str, str]],
    number: int | None,
    as_json: bool,
) -> None:
    routes = Routes(config)
    place = routes.sources(routes.of_topic(topic)).place(topic)
    if place:
        click.echo(f"topic {topic} at {place}", err=True)
    subscriptions = plan.subscriptions_of(catalog, config)
    async with looking.connection(config, subscriptions) as connection:
        reader = read_from(connection.transport, topic)
        if place and not isinstance(reader, TopicReader):
            raise CapabilityError(
                f"{place} belongs to other programs, and this broker shows a queue only to its "
                "consumers; look at it with the broker's own tools"
            )
        found = _records(reader, topic, start, follow)
        async with contextlib.aclosing(found):  # type: ignore[type-var]  # generators, all of them
            opened = records.opener(connection, topic, catalog)
            count = 0
            async for record in found:
                message = await opened(record.message)
                fields = records.as_dict(message, record.time, record.position, catalog)
                if not all(_fits(fields["payload"], *one) for one in conditions):
                    continue
                if as_json:
                    output.as_json(fields)
                else:
                    click.echo(records.line(fields))
                count += 1
                if count == number:
                    return


def _records(
    transport: Transport, topic: str, start: Start | float, follow: bool
) -> AsyncIterator[TopicRecord]:
    if isinstance(transport, TopicReader):
        return transport.read_topic(topic, start=start, follow=follow)
    if start is not Start.LATEST or not follow:
        raise CapabilityError(
            "this broker shows only new messages; leave out --from and --no-follow", code=NOT_SHOWN
        )
    if not transport.capabilities.broadcast:
        raise CapabilityError(
            "this transport cannot show a topic without joining a group", code=NOT_SHOWN
        )
    return _broadcast(transport, topic)


class _Quiet:
    """Listens to a subscription that has no state to lose."""

    def __init__(self) -> None:
        self.problem = ""

    async def shards_revoked(self, shards: Collection[str | int], drain: float) -> None:
        """Does nothing, because no message is in flight."""

    def deliveries_lost(self, deliveries: Sequence[Delivery]) -> None:
        """Does nothing, because the messages were already shown."""

    def health_changed(self, healthy: bool, detail: str) -> None:
        """Does nothing, because the subscription reconnects itself."""
        if not healthy:
            click.echo(detail, err=True)

    def suspects_waiting(self) -> None:
        """Does nothing, because no handler runs."""


async def _broadcast(transport: Transport, topic: str) -> AsyncIterator[TopicRecord]:
    """Yields new messages, through a private queue that ends with this process."""
    one = SubscriptionSettings(
        name=f"{topic}/tail", topic=topic, group=f"tail-{uuid.uuid4().hex[:12]}",
        ordering=Ordering.NONE, start=Start.LATEST, broadcast=True, dead_letter_topics=(),
        internal=True,
    )  # fmt: skip
    await transport.ensure(Topology(subscriptions=(one,), topics=()), TopologyMode.CREATE)
    subscription = await transport.subscribe(one, _Quiet())
    try:
        while True:
            found = await subscription.receive(100, _BYTES)
            for delivery in found:
                yield TopicRecord(
                    message=delivery.message, position=str(delivery.position), time=delivery.time
                )
            with contextlib.suppress(TransportError):
                await subscription.settle([Settlement(delivery) for delivery in found])
    finally:
        await subscription.stop()


def _start(text: str) -> Start | float:
    if text in ("earliest", "latest"):
        return Start(text)
    try:
        return time_of(text)
    except ValueError:
        raise click.UsageError(
            f"--from {text}: write earliest, latest or an ISO 8601 time"
        ) from None


def _condition(text: str, catalog: Catalog) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise click.UsageError(f"--where {text}: write FIELD=VALUE")
    if not catalog.files:
        raise click.UsageError("--where needs a contract: give --contract MODULE")
    last = name.rpartition(".")[2]
    hidden = {field for spec in catalog.messages.values() for names in spec.sensitive.values()
              for field in names}  # fmt: skip
    if any(part in hidden for part in (name, last, *name.split("."))):
        raise click.UsageError(f"--where {name}: the field is sensitive, so it is not searched")
    known = {field.name for spec in catalog.messages.values()
             for field in spec.message_class.DESCRIPTOR.fields}  # fmt: skip
    first = name.partition(".")[0]
    if first not in known:
        raise click.UsageError(
            f"--where {name}: no message of the contract has a field {first}"
            f"{did_you_mean(first, known)}"
        )
    return name, value


def _fits(payload: Any, name: str, value: str) -> bool:
    """Returns whether a field of plain data has this text as value."""
    for part in name.split("."):
        if not isinstance(payload, dict) or part not in payload:
            return False
        payload = payload[part]
    return (
        str(payload).lower() == value.lower()
        if isinstance(payload, bool)
        else str(payload) == value
    )
