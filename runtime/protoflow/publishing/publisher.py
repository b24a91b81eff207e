"""Publishing at once: encoded, its topic made or verified, submitted, confirmed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from copy import copy
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn

from protoflow.clock import Clock
from protoflow.config.settings import Config
from protoflow.contract.spec import PublicationSpec
from protoflow.errors import CapabilityError, ProtoflowError
from protoflow.message import Message
from protoflow.output import AnyOutput
from protoflow.publishing.encoder import Encoder
from protoflow.publishing.submitter import Results, Submitter, delay_problem
from protoflow.stats.handlers import SentMessages
from protoflow.tracing import find_provider
from protoflow.transport.interface import Topology, TopologyMode, Transport
from protoflow.transports.built_in import messaging_system

if TYPE_CHECKING:
    from protoflow.tracing.spans import PublishTracing


# Read from many messages in one call: a loop in Python would cost more than what is read.
_delay, _id, _topic = attrgetter("delay"), attrgetter("id"), attrgetter("topic")
#: How many topics are remembered as made.
_REMEMBERED_TOPICS = 10_000


class MessagePublisher:
    """Encodes, makes topics, submits and counts; for `Service` and `Connection`."""

    def __init__(
        self, config: Config, transport: Transport, clock: Clock, sent: SentMessages | None = None
    ) -> None:
        self._transport = transport
        self._mode = config.topology
        self._system = messaging_system(config.url.scheme)
        self._ensured: set[str] = set()
        #: Submits what is published at once, and what schedulers publish.
        self.submitter = Submitter(transport, sent or SentMessages())
        self._publish: Callable[[Sequence[Message]], Awaitable[Results]] = self.submitter.publish
        # Where the transport lives; None while it is not open.
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Makes spans; None where no tracer provider is configured.
        self.tracing: PublishTracing | None = None
        self.encode = Encoder(config, clock.now)

    async def outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        """Publishes outputs; their ids. Raises PublishError, CapabilityError."""
        if asyncio.get_running_loop() is not self._loop:
            self._refuse()
        messages = [self.encode(publication, output) for output in outputs]
        await self.messages(messages, owned=True)
        return list(map(_id, messages))

    async def messages(self, messages: Sequence[Message], *, owned: bool = False) -> None:
        """Publishes messages. Raises the first error; the others may be published.

        Args:
            messages: the messages.
            owned: nobody else has them, so they may be written on.

        Raises:
            ProtoflowError: this is not open, or belongs to another event loop.
            PublishError: a message was not taken.
            CapabilityError: a delay that the transport cannot keep.
        """
        if asyncio.get_running_loop() is not self._loop:
            self._refuse()
        if not messages:
            return
        if any(map(_delay, messages)):
            self._check_delays(messages)
        if self.unknown(messages):
            await self.ensure(messages)
        if not owned and (apply_profile := self.encode.apply_profile) is not None:
            messages = [replace(m, metadata=apply_profile(m.id, m.metadata)) for m in messages]
        if self.tracing is None:
            errors = await self._publish(messages)
        else:
            errors = await self.tracing.publish(messages, self._publish, owned=owned)
        for error in errors:
            if error is not None:
                raise error

    def through(
        self, publish: Callable[[Sequence[Message]], Awaitable[Results]]
    ) -> MessagePublisher:
        """Returns a publisher on the running event loop that encodes as this one does, and hands
        messages to `publish`; it makes no topics, and needs no open transport."""
        other = copy(self)
        other._publish = publish
        other._mode, other._ensured = TopologyMode.NONE, set()
        other._loop = asyncio.get_running_loop()
        return other

    def _check_delays(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.delay > 0 and (text := delay_problem(message, self._transport.capabilities)):
                raise CapabilityError(text)

    def close(self) -> None:
        """Publishes no more."""
        self._loop = None

    def _refuse(self) -> NoReturn:
        """Raises one error whatever the transport; each would fail in a way of its own."""
        if self._loop is None:
            raise ProtoflowError(
                "not open: publish within `async with`, that is after the connection or the "
                "service was started and before it was stopped"
            )
        raise ProtoflowError(
            "used from another event loop than the one that it was opened on; from other threads "
            "use asyncio.run_coroutine_threadsafe(..., loop), or protoflow.connect_sync"
        )

    def open(self, provider: Any = None) -> None:
        """The transport is open, on this event loop. Publishes from now on, in spans if a tracer
        provider is given or configured."""
        self._loop = asyncio.get_running_loop()
        found = find_provider(provider)
        if found is not None:
            from protoflow.tracing.spans import PublishTracing

            self.tracing = PublishTracing(found, self._system)

    def known(self, topics: Sequence[str]) -> None:
        """These topics were made or verified already."""
        self._ensured.update(topics)

    def unknown(self, messages: Sequence[Message]) -> bool:
        """Whether the topic of one of these was not made or verified yet."""
        return not self._ensured.issuperset(map(_topic, messages))

    async def ensure(self, messages: Sequence[Message]) -> None:
        """Makes or verifies topics before the first message to them."""
        topics = tuple(sorted({message.topic for message in messages} - self._ensured))
        if not topics:
            return
        if self._mode is not TopologyMode.NONE:
            await self._transport.ensure(Topology(topics=topics), self._mode)
        if len(self._ensured) > _REMEMBERED_TOPICS:
            self._ensured.clear()  # topics made of data: they are verified again
        self._ensured.update(topics)
