"""Several transports behind the interface of one, selected by topic and subscription."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from dataclasses import replace
from typing import Any

from protoflow.contract.spec import Start
from protoflow.error_codes import NOT_SHOWN
from protoflow.errors import CapabilityError, ConfigError, PublishError, TransportError
from protoflow.message import Message
from protoflow.routing.dead_letters import RoutedDeadLetterStore
from protoflow.routing.message_finder import find_on_all
from protoflow.routing.routes import Routes
from protoflow.transport.interface import (
    Capabilities,
    NamesTopics,
    ReportsWarnings,
    Subscription,
    SubscriptionListener,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    Transport,
)
from protoflow.transport.kit.submission import submit_by_share
from protoflow.transport.lag import Lag, LagReader
from protoflow.transport.message_finder import FoundMessages, MessageQuery
from protoflow.transport.topic_reader import Point, TopicReader, TopicRecord

_log = logging.getLogger("protoflow.routing")

#: The capabilities that a reader of topics and groups needs on some transport only.
_READING = ("lag", "dead_letters", "reads_topics")


class RoutedTransport:
    """Several transports. The scheduler of a subscription uses its own transport directly.

    Args:
        parts: the transports by name, `default` first.
        routes: selects the transport of a topic or group.
    """

    def __init__(self, parts: Mapping[str, Transport], routes: Routes) -> None:
        self.parts = parts
        self.routes = routes
        self.dead_letters = RoutedDeadLetterStore(parts, routes)

    @property
    def capabilities(self) -> Capabilities:
        """The capabilities of the default transport, with `lag`, `dead_letters` and
        `reads_topics` if any transport has them."""
        claims = [part.capabilities for part in self.parts.values()]
        found: dict[str, Any] = {
            name: any(getattr(one, name) for one in claims) for name in _READING
        }
        return replace(claims[0], **found)

    async def open(self) -> None:
        """Connects all; if one fails, closes the others. The error names all that failed."""
        try:
            await _on_each({name: part.open() for name, part in self.parts.items()})
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Flushes and disconnects all."""
        await _on_each({name: part.close() for name, part in self.parts.items()})

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Creates or verifies each transport's share; the error names all that differ."""
        self.routes.learn(topology.subscriptions)
        shares = {name: self.share(topology, name) for name in self.parts}
        await _on_each(
            {
                name: self.parts[name].ensure(share, mode)
                for name, share in shares.items()
                if share.subscriptions or share.topics
            }
        )

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Publishes each message to the transport of its topic; the order holds within one."""
        parts, of_topic = self.parts, self.routes.of_topic
        return submit_by_share(messages, lambda message: parts[of_topic(message.topic)].submit)

    def shares(self, messages: Sequence[Message]) -> dict[str, list[Message]]:
        """Returns the messages by the transport to which they are published."""
        found: dict[str, list[Message]] = {}
        of_topic = self.routes.of_topic
        for message in messages:
            found.setdefault(of_topic(message.topic), []).append(message)
        return found

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> Subscription:
        """Joins the group on its transport."""
        return await self.parts[settings.transport].subscribe(settings, listener)

    def health(self) -> str | None:
        """Returns the problems of the transports that cannot be reached; None if there are none."""
        broken = ((name, part.health()) for name, part in self.parts.items())
        return "; ".join(f"{name}: {text}" for name, text in broken if text is not None) or None

    def warnings(self) -> Mapping[str, str]:
        """See `ReportsWarnings`: those of all transports."""
        found: dict[str, str] = {}
        for part in self.parts.values():
            if isinstance(part, ReportsWarnings):
                found |= part.warnings()
        return found

    async def lag(self, topic: str, group: str) -> Lag:
        """Returns the lag of a group. Raises CapabilityError if its transport reports none."""
        name = self.routes.consumed_from(topic, group)
        part = self.parts[name]
        if not (part.capabilities.lag and isinstance(part, LagReader)):
            raise CapabilityError(f"the transport {name} does not report lag", code=NOT_SHOWN)
        return await part.lag(topic, group)

    def read_topic(
        self,
        topic: str,
        *,
        start: Start | Point,
        end: Point | None = None,
        follow: bool = False,
    ) -> AsyncIterator[TopicRecord]:
        """Reads a topic. Raises CapabilityError if its transport cannot."""
        part = self.part_with(topic)
        if not isinstance(part, TopicReader):
            raise CapabilityError(f"the transport of {topic} cannot read topics", code=NOT_SHOWN)
        return part.read_topic(topic, start=start, end=end, follow=follow)

    def part_with(self, topic: str) -> Transport:
        """Returns the transport on which a topic is read."""
        return self.parts[self.routes.of_place(topic)]

    async def find_message(self, query: MessageQuery) -> FoundMessages:
        """Searches each transport for its topics and groups."""
        return await find_on_all(self.parts, self.routes, query)

    def share(self, topology: Topology, name: str) -> Topology:
        """Returns what a transport has of a topology: its subscriptions, and the topics that are
        published to it."""
        return Topology(
            subscriptions=tuple(one for one in topology.subscriptions if one.transport == name),
            topics=tuple(one for one in topology.topics if self.routes.of_topic(one) == name),
        )


def shares_of(transport: Transport, topology: Topology) -> Mapping[str, Topology]:
    """Returns the topology of each transport by name; a single one has no name."""
    if isinstance(transport, RoutedTransport):
        return {name: transport.share(topology, name) for name in transport.parts}
    return {"": topology}


def warn_of_unused_options(transport: Transport, used: Collection[str]) -> None:
    """Warns of topics that the options of a transport name, and that no handler uses: an option
    with a mistyped name has no effect."""
    for part in parts_of(transport).values():
        if isinstance(part, NamesTopics):
            for option, names in part.topics_of_options().items():
                for topic in sorted({*names} - {*used}):
                    extra = {"option": option, "topic": topic}
                    _log.warning("a topic of an option is not used by any handler", extra=extra)


def claims_of(transport: Transport) -> Capabilities | Mapping[str, Capabilities]:
    """Returns the capabilities of a transport, or of several by name."""
    if isinstance(transport, RoutedTransport):
        return {name: part.capabilities for name, part in transport.parts.items()}
    return transport.capabilities


def parts_of(transport: Transport) -> Mapping[str, Transport]:
    """Returns the transports of a service by name; a single one has no name."""
    return transport.parts if isinstance(transport, RoutedTransport) else {"": transport}


def target_of(transport: Transport, topic: str) -> Transport:
    """Returns the transport to which messages of a topic are published."""
    if isinstance(transport, RoutedTransport):
        return transport.parts[transport.routes.of_topic(topic)]
    return transport


def output_transports(transport: Transport) -> Callable[[str], str]:
    """Returns a function that names the transport of a topic; a single one has no name."""
    return transport.routes.of_topic if isinstance(transport, RoutedTransport) else lambda _: ""


def part_of(transport: Transport, name: str) -> Transport:
    """Returns the transport of this name; a single one whatever the name is."""
    return transport.parts[name] if isinstance(transport, RoutedTransport) else transport


def read_from(transport: Transport, topic: str) -> Transport:
    """Returns the transport on which a topic is read."""
    return transport.part_with(topic) if isinstance(transport, RoutedTransport) else transport


def learn(transport: Transport, subscriptions: Iterable[SubscriptionSettings]) -> None:
    """Gives several transports the places of subscriptions, so that these can be read."""
    if isinstance(transport, RoutedTransport):
        transport.routes.learn(subscriptions)


async def _on_each(calls: Mapping[str, Awaitable[object]]) -> None:
    """Awaits calls to several transports. Raises the first error, with the texts of all."""
    results = await asyncio.gather(*calls.values(), return_exceptions=True)
    failed = {
        name: result
        for name, result in zip(calls, results, strict=True)
        if isinstance(result, BaseException)
    }
    if not failed:
        return
    first = next(iter(failed.values()))
    if isinstance(first, TransportError | ConfigError):
        texts = (f"transport {name}: {error}" for name, error in failed.items())
        raise type(first)("\n".join(texts)) from first
    raise first
