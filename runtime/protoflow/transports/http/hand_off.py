"""HTTP in front of another transport, which stores what is received before it is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final
from urllib.parse import quote

from protoflow import wire
from protoflow.codecs.cloudevents import is_structured, unwrap
from protoflow.config.secret import Secret
from protoflow.config.url import TransportURL
from protoflow.error_codes import TRANSPORT_OPTION
from protoflow.errors import ConfigError, PublishError, PublishRefusedError
from protoflow.ids import new_id
from protoflow.message import Message
from protoflow.transport.interface import (
    Capabilities,
    ReportsWarnings,
    Subscription,
    SubscriptionListener,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    Transport,
    TransportSettings,
)
from protoflow.transport.kit.submission import submit_by_share
from protoflow.transports import create
from protoflow.transports.http.endpoint import Store
from protoflow.transports.http.options import HttpOptions
from protoflow.transports.http.requests import Answer, later
from protoflow.transports.http.room import Room
from protoflow.transports.http.subscription import STOPPING
from protoflow.transports.http.transport import HttpTransport

_STORED: Final = Answer(202)
#: The most messages, and their bytes, that are being read and stored; others come later.
_MOST: Final = 1000
_MOST_BYTES: Final = 64 * 1024 * 1024
#: The optional interfaces of the store that this transport has, too.
_OPTIONAL: Final = (
    *("dead_letters", "lag", "read_topic", "find_message"),
    *("creates_tables", "apply_tables", "policy"),
)


class HandOffTransport:
    """Implements `Transport`: the other transport has the topics, and its own capabilities.

    Messages to topics with targets are sent there, all others are published to the other transport.
    """

    def __init__(self, settings: TransportSettings, options: HttpOptions, hand_off: Secret) -> None:
        url = TransportURL.parse(hand_off.reveal())
        self._http = HttpTransport(settings, options)
        self._store: Transport = create(replace(settings, url=url, options={}))
        if not self._store.capabilities.durable:
            raise ConfigError(
                f"transport: http: option hand_off: {url.scheme}:// is not durable",
                code=TRANSPORT_OPTION,
            )
        self._inbox = Store(self._receive, Room(_MOST, _MOST_BYTES))
        self._closed = False
        for name in _OPTIONAL:
            if hasattr(self._store, name):
                setattr(self, name, getattr(self._store, name))
        self.capabilities = self._own_capabilities()

    async def open(self) -> None:
        """See `Transport.open`. If one part cannot be opened, nothing stays open."""
        await self._http.open()
        try:
            await self._store.open()
        except BaseException:
            await self._http.close()
            raise
        self.capabilities = self._own_capabilities()

    async def close(self) -> None:
        """See `Transport.close`."""
        self._closed = True
        try:
            await self._http.close()
        finally:
            await self._store.close()

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """See `Transport.ensure`."""
        await self._http.ensure(topology, mode)
        await self._store.ensure(topology, mode)

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """See `Transport.submit`."""
        has_target = self._http.publisher.has_target
        at_targets, stored = self._http.submit, self._store.submit
        return submit_by_share(
            messages, lambda message: at_targets if has_target(message.topic) else stored
        )

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> Subscription:
        """See `Transport.subscribe`."""
        subscription = await self._store.subscribe(settings, listener)
        if not settings.internal:
            await self._http.endpoint(settings.topic, self._inbox)
        return subscription

    def health(self) -> str | None:
        """See `Transport.health`."""
        return self._store.health()

    def warnings(self) -> Mapping[str, str]:
        """See `ReportsWarnings`: the targets that are disabled, and those of the store."""
        store = self._store
        return {
            **(store.warnings() if isinstance(store, ReportsWarnings) else {}),
            **self._http.warnings(),
        }

    def topics_of_options(self) -> Mapping[str, Collection[str]]:
        """See `NamesTopics`."""
        return self._http.topics_of_options()

    def _own_capabilities(self) -> Capabilities:
        """Returns those of the store. Outputs are not atomic, because they may have targets."""
        claimed = self._store.capabilities
        limits = [self._http.options.max_message_bytes, claimed.max_message_bytes]
        return replace(
            claimed, atomic=False, atomic_on_demand=False,
            max_message_bytes=min(limit for limit in limits if limit is not None),
        )  # fmt: skip

    async def _receive(self, messages: Sequence[Message]) -> Answer:
        """Stores the messages of a request."""
        if self._closed:
            return STOPPING
        for message in messages:
            message.id = message.id or new_id()
            message.deduplication_id = _unique(message)
        try:
            async with asyncio.timeout(self._http.options.answer_timeout):
                errors = await asyncio.shield(self._submit(messages))
        except TimeoutError:
            return later(503, "the messages were not stored in time", 5)
        failures = [error for error in errors if error is not None]
        if not failures:
            return _STORED
        if all(isinstance(error, PublishRefusedError) for error in failures):
            return Answer(422, "the message cannot be stored")
        return later(503, "the messages were not stored", 5)

    def _submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Stores messages. They count until the store has answered, whoever still waits for it."""
        count, size = len(messages), sum(len(message.payload or b"") for message in messages)
        future = self._store.submit(messages)
        self._inbox.room.add(count, size)
        future.add_done_callback(lambda _: self._inbox.room.remove(count, size))
        return future


def _unique(message: Message) -> str:
    """Returns the id for deduplication. Two senders of CloudEvents may use the same id."""
    structured = is_structured(message.metadata.get(wire.CONTENT_TYPE, ""))
    source = (unwrap(message) if structured else message).metadata.get(wire.CE_SOURCE)
    own = message.id if source is None else f"{quote(source)} {message.id}"
    return f"{own}:{message.topic}"
