"""The shared state of the parts of a Kafka transport."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient

from protoflow.transport.interface import SubscriptionSettings, TransportSettings
from protoflow.transports.kafka import names
from protoflow.transports.kafka.options import KafkaOptions


@dataclass(slots=True, eq=False)
class Listing:
    """Queries for all topics, which subscriptions that start together share.

    Attributes:
        turn: held while a query waits for its answer.
        asked: the number of queries.
        answered: the last query that was answered.
    """

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    asked: int = 0
    answered: int = 0


@dataclass(slots=True, kw_only=True, eq=False)
class KafkaContext:
    """The settings, and the client for queries to the broker.

    Attributes:
        settings: the settings of the runtime.
        options: the options of the transport.
        client: the arguments that all of aiokafka's clients share.
        admin: the client for topics and positions.
        forget: called with a subscription that has stopped.
        existing: topics that existed when the transport was opened, or were seen later.
        listing: the queries that update `existing`.
        roomy: retry and dead-letter topics, which allow larger messages than others.
        writer: the name of this process in the metadata of its commits.
    """

    settings: TransportSettings
    options: KafkaOptions
    client: dict[str, Any]
    admin: AIOKafkaAdminClient
    forget: Callable[[Any], None]  # Any: a subscription, which knows this module
    existing: set[str] = field(default_factory=set)
    listing: Listing = field(default_factory=Listing)
    roomy: set[str] = field(default_factory=set)
    writer: str = field(default_factory=lambda: secrets.token_hex(3))

    def physical(self, topic: str) -> str:
        """Returns the name of a topic, or of its source, at the broker."""
        return names.place(topic, self.settings.sources)

    def group_id(self, settings: SubscriptionSettings) -> str:
        """Returns the consumer group that a subscription joins."""
        return self.settings.sources.consumer(settings.topic, settings.group)
