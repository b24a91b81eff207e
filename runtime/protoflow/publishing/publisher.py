"""Immediate publishing: encode, create or verify the topic, submit, wait for confirmation."""

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
from protoflow.error_codes import NO_DELAY, NOT_PUBLISHING, OTHER_LOOP
from protoflow.errors import CapabilityError, ProtoflowError, Unprepared
from protoflow.message import Message
from protoflow.output import AnyOutput
from protoflow.publishing.encoder import Encoder
from protoflow.publishing.output_routes import OutputRoutes
from protoflow.publishing.submitter import Results, Submitter
from protoflow.routing.routes import output_systems
from protoflow.routing.transport import RoutedTransport, target_of
from protoflow.stats.handlers import SentMessages
from protoflow.tracing import find_provider
from protoflow.transport.capabilities import delay_problem
from protoflow.transport.interface import Topology, TopologyMode, Transport

if TYPE_CHECKING:
    from protoflow.publishing.framed_encoder import FramedEncoder
    from protoflow.tracing.spans import PublishTracing


# Reads several values from many messages in one call, because a Python loop would cost more.
_delay, _id, _topic = attrgetter("delay"), attrgetter("id"), attrgetter("topic")
#: The number of topics that are remembered as created.
_REMEMBERED_TOPICS = 10_000


class MessagePublisher:
    """Encodes, creates topics, submits and counts; for `Service` and `Connection`."""

    def __init__(
        self, config: Config, transport: Transport, clock: Clock, sent: SentMessages | None = None
    ) -> None:
        self._transport = transport
        self._mode = config.topology
        self._config = config
        self._sent = sent or SentMessages()
        self._ensured: set[str] = set()
        #: Submits the messages of this publisher and of schedulers.
        self.submitter = Submitter(transport, self._sent)
        self._publish: Callable[[Sequence[Message]], Awaitable[Results]] = self.submitter.publish
        # The event loop of the transport; None while it is not open.
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Makes spans; None if no tracer provider is configured.
        self.tracing: PublishTracing | None = None
        #: The encoder, if it frames messages; None if the settings name no schema registry.
        self.framed: FramedEncoder | None = None
        if config.registry is not None:
            from protoflow.publishing.framed_encoder import FramedEncoder

            self.framed = FramedEncoder(config, clock)
        self._now = clock.now
        self.encode = self.framed or Encoder(config, clock.now)

    async def outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        """Publishes outputs and returns their ids. Raises PublishError, CapabilityError."""
        if asyncio.get_running_loop() is not self._loop:
            self._refuse()
        try:
            messages = [self.encode(publication, output) for output in outputs]
        except Unprepared as needed:
            messages = await self._encoded(publication, outputs, needed)
        await self.messages(messages, owned=True)
        return list(map(_id, messages))

    async def _encoded(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput], needed: Unprepared
    ) -> list[Message]:
        """Returns outputs that could not be encoded at once. Raises SchemaRegistryError."""
        while True:
            await needed.prepare()
            try:
                return [self.encode(publication, output) for output in outputs]
            except Unprepared as another:
                needed = another

    async def messages(self, messages: Sequence[Message], *, owned: bool = False) -> None:
        """Publishes messages. Raises the first error; the others may be published.

        Args:
            messages: the messages.
            owned: whether no other code holds them, so that they may be changed.

        Raises:
            ProtoflowError: the publisher is not open, or belongs to another event loop.
            PublishError: the broker did not store a message.
            CapabilityError: the transport does not support a delay.
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
        """Returns a publisher on the running event loop that encodes in the same way and passes
        messages to `publish`. It creates no topics and needs no open transport."""
        other = copy(self)
        other._publish = publish
        other._mode, other._ensured = TopologyMode.NONE, set()
        other._loop = asyncio.get_running_loop()
        return other

    def _check_delays(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.delay > 0:
                target = target_of(self._transport, message.topic)
                if text := delay_problem(message, target.capabilities):
                    raise CapabilityError(text, code=NO_DELAY)

    def close(self) -> None:
        """Stops publishing."""
        self._loop = None

    def _refuse(self) -> NoReturn:
        """Raises the same error for every transport; each transport would fail differently."""
        if self._loop is None:
            raise ProtoflowError(
                "not open: publish inside `async with`, after the connection or the service was "
                "started and before it was stopped",
                code=NOT_PUBLISHING,
            )
        raise ProtoflowError(
            "used from an event loop other than the one that opened it; in other threads use "
            "asyncio.run_coroutine_threadsafe(..., loop), or protoflow.connect_sync",
            code=OTHER_LOOP,
        )

    def open(self, provider: Any = None) -> None:
        """Starts publishing on this event loop with an open transport.

        Spans are made if a tracer provider is given or configured.
        """
        self._loop = asyncio.get_running_loop()
        found = find_provider(provider)
        if found is not None:
            from protoflow.tracing.spans import PublishTracing

            self.tracing = PublishTracing(found, output_systems(self._config))

    def outputs_of(self, transport: str) -> OutputRoutes | None:
        """Returns the ways of the outputs of handlers that consume from a transport; None if there
        is only one transport."""
        if not isinstance(self._transport, RoutedTransport):
            return None
        return OutputRoutes(self._transport, transport, self._sent)

    def use(self, transport: Transport, *, frames: bool) -> None:
        """Publishes to another transport. It must be called before `open`.

        Args:
            transport: the other transport.
            frames: whether messages get the frames of a schema registry, which registers schemas.
        """
        self._transport = transport
        self.submitter = Submitter(transport, self._sent)
        self._publish = self.submitter.publish
        if self.framed is not None and not frames:
            validator = self.encode.validator
            self.encode = Encoder(self._config, self._now)
            self.encode.validator = validator

    def known(self, topics: Sequence[str]) -> None:
        """Notes topics that were already created or verified."""
        self._ensured.update(topics)

    def unknown(self, messages: Sequence[Message]) -> bool:
        """Whether a topic of these messages is not created or verified yet."""
        return not self._ensured.issuperset(map(_topic, messages))

    async def ensure(self, messages: Sequence[Message]) -> None:
        """Creates or verifies topics before the first message to them."""
        topics = tuple(sorted({message.topic for message in messages} - self._ensured))
        if not topics:
            return
        if self._mode is not TopologyMode.NONE:
            await self._transport.ensure(Topology(topics=topics), self._mode)
        if len(self._ensured) > _REMEMBERED_TOPICS:
            # topic names can come from data, so the set is bounded: topics are verified again
            self._ensured.clear()
        self._ensured.update(topics)
