"""The broker, the contract and the dead-letter topics of one command."""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import click

from protoflow import wire
from protoflow.cli import contract, looking, plan, settings
from protoflow.cli.dlq.filters import Selection
from protoflow.clock import Clock
from protoflow.config import Config
from protoflow.connection import transport_for
from protoflow.contract.catalog import Catalog
from protoflow.dead_letters import DeadLetterRecord, DeadLetters
from protoflow.error_codes import NO_CONTRACT, NOT_REPLAYABLE
from protoflow.errors import ConfigError, DeadLetterNotFoundError
from protoflow.routing.transport import claims_of, read_from
from protoflow.stats.dead_letters import timestamp
from protoflow.transport import SubscriptionSettings, Topology, TopologyMode

T = TypeVar("T")

PAGE = 100


class Access:
    """The broker, the contract and the topics of one command."""

    def __init__(self, selection: Selection, where: dict[str, Any]) -> None:
        self.config: Config = settings.broker_of(where["transport"], where["config_file"])
        named = where["contract_name"]
        # With --topic, the contract only decodes; otherwise it also names the topics.
        self.catalog: Catalog = (
            contract.optional(named) if selection.topics else contract.load(named)
        )
        self.topics = selection.topics or self._planned(selection)
        if not self.topics and (selection.handler or selection.group):
            raise ConfigError(
                "the contract has no such handler or group; for a removed one, give --topic",
                code=NO_CONTRACT,
            )

    def run(self, act: Callable[[DeadLetters], Awaitable[T]]) -> T:
        """Connects, acts and disconnects."""

        async def connected() -> T:
            async with _connection(self.config, self._subscriptions()) as dead_letters:
                return await act(dead_letters)

        return asyncio.run(connected())

    def destination(self, name: str) -> str:
        """Returns the topic that `--to` names.

        Raises:
            ConfigError: the dead letters themselves are in this topic.
            TopologyError: the topic does not exist.
        """
        topic = plan.topic_named(name, self.catalog, self.config)
        if topic in self.topics:
            raise ConfigError(
                f"--to {name}: the dead letters are in this topic; name another",
                code=NOT_REPLAYABLE,
            )

        async def verify() -> None:
            async with looking.connection(self.config, self._subscriptions()) as connection:
                place = read_from(connection.transport, topic)  # a replay goes there
                await place.ensure(Topology(topics=(topic,)), TopologyMode.VERIFY)

        asyncio.run(verify())
        return topic

    def _subscriptions(self) -> Sequence[SubscriptionSettings]:
        return plan.subscriptions_of(self.catalog, self.config)

    def _planned(self, selection: Selection) -> tuple[str, ...]:
        found = {
            handler.dead_letter_topic: handler.transport
            for handler in plan.planned(self.catalog, self.config).handlers
            if selection.handler in (None, handler.registration.name)
            and selection.group in (None, handler.group)
        }
        return tuple(sorted(self._readable(found)))

    def _readable(self, topics: Mapping[str, str]) -> Collection[str]:
        """Returns the topics on transports that can list dead letters; all if none can."""
        claims = claims_of(transport_for(self.config, Clock()))
        if not isinstance(claims, Mapping):
            return topics
        hidden = [topic for topic, name in topics.items() if not claims[name].dead_letters]
        if len(hidden) == len(topics):
            return topics  # reading them fails, with the reason
        for topic in hidden:
            text = f"{topic}: the transport {topics[topic]} cannot list its dead letters"
            click.echo(text, err=True)
        return topics.keys() - hidden


@asynccontextmanager
async def _connection(
    config: Config, subscriptions: Sequence[SubscriptionSettings]
) -> AsyncIterator[DeadLetters]:
    async with looking.connection(config, subscriptions) as connection:
        if connection.journal is not None:
            connection.journal.actor = _user()
        yield connection.dead_letters


def _user() -> str:
    """Returns the user of the command, for the journal."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may have no name for its user
        name = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return f"{name}@{socket.gethostname()}"


async def all_of(
    dead_letters: DeadLetters, topic: str, selection: Selection
) -> AsyncIterator[DeadLetterRecord]:
    """Yields all matching dead letters of a topic, page by page."""
    after = ""
    while page := await dead_letters.list(topic, limit=PAGE, after=after, filter=selection.filter):
        for record in page:
            yield record
        after = page[-1].position


async def found_in(
    dead_letters: DeadLetters, topics: Sequence[str], id: str
) -> tuple[str, DeadLetterRecord]:
    """Returns the dead letter of an id, and its topic. Raises DeadLetterNotFoundError."""
    for topic in topics:
        try:
            return topic, await dead_letters.show(topic, id)
        except DeadLetterNotFoundError:
            continue
    raise DeadLetterNotFoundError(f"no dead letter {id} in {', '.join(topics)}")


def row_of(topic: str, record: DeadLetterRecord) -> dict[str, Any]:
    """Returns a dead letter as a row of the list."""
    metadata = record.message.metadata
    return {
        "id": record.message.id,
        "time": timestamp(record.time) or "-",
        "topic": topic,
        "position": record.position,
        "handler": metadata.get(wire.PF_HANDLER, ""),
        "group": metadata.get(wire.PF_GROUP, ""),
        "source": metadata.get(wire.PF_ORIGINAL_SOURCE, ""),
        "attempts": metadata.get(wire.PF_ATTEMPT, ""),
        "error_class": metadata.get(wire.PF_ERROR_CLASS, ""),
        "error_type": metadata.get(wire.PF_ERROR_TYPE, ""),
        "error": metadata.get(wire.PF_ERROR_MESSAGE, ""),
    }
