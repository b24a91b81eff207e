"""Publishing: in order, pipelined, each message confirmed by the broker or an error."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import Callable, Sequence

from pamqp.commands import Basic

from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Message
from protoflow.transport import TopologyMode, TransportSettings
from protoflow.transports.rabbitmq import codec, frames
from protoflow.transports.rabbitmq.channel import FAILURES, Channel
from protoflow.transports.rabbitmq.delays import MAX_DELAY, Delays, units
from protoflow.transports.rabbitmq.link import Backoff, Link
from protoflow.transports.rabbitmq.names import Names
from protoflow.transports.rabbitmq.options import RabbitMQOptions
from protoflow.transports.rabbitmq.pending import Batch, Entry, Result

_TOO_LARGE = re.compile(r"larger than configured max size (\d+)")
_ACCESS_REFUSED, _PRECONDITION_FAILED = 403, 406


class Publisher:
    """Publishes on one channel of a link; what comes while there is none waits for it.

    Attributes:
        max_bytes: the largest payload that the broker takes.
        mode: whether what delays need may be made.
    """

    def __init__(
        self, link: Link, names: Names, settings: TransportSettings, options: RabbitMQOptions
    ) -> None:
        self.max_bytes = 0
        self.mode = TopologyMode.NONE
        self._link = link
        self._names = names
        self._settings = settings
        self._options = options
        self._channel: Channel | None = None
        self._waiting: deque[Entry] = deque()
        self._unconfirmed: dict[int, Entry] = {}
        self._tag = 0
        self._delays = Delays(link, names)
        self._held: list[Entry] = []
        self._preparing: asyncio.Task[None] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Opens the first channel."""
        await self._connect()
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        """Waits for confirmations, at most `confirm_timeout`, then closes. Idempotent."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is None:
            return
        entries = [*self._unconfirmed.values(), *self._waiting, *self._held]
        if entries:
            await asyncio.wait([entry.batch.future for entry in entries])
        supervisor.cancel()
        await asyncio.gather(supervisor, return_exceptions=True)
        if self._preparing is not None:
            self._preparing.cancel()
            await asyncio.gather(self._preparing, return_exceptions=True)
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._channel is not None:
            await self._channel.leave()
            self._channel = None

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[Result]]:
        """Publishes; see `Transport.submit`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sequence[Result]] = loop.create_future()
        if not messages:
            future.set_result([])
            return future
        batch = Batch(future, len(messages))
        deadline = loop.time() + self._options.confirm_timeout
        for index, message in enumerate(messages):
            if refusal := self._refusal(message):
                batch.done(index, refusal)
            elif self._supervisor is None:
                batch.done(index, PublishError("the transport is closed"))
            else:
                delayed = message.delay > 0 and not self._delays.ready
                entry = Entry(message, batch, index, deadline)
                (self._held if delayed else self._waiting).append(entry)
        if self._held and self._preparing is None:
            self._preparing = asyncio.create_task(self._prepare())
        self._flush()
        if self._sweeper is None:
            self._schedule_sweep()
        return future

    def _refusal(self, message: Message) -> PublishRefusedError | None:
        size = len(message.payload or b"")
        if size > self.max_bytes:
            return PublishRefusedError(
                f"message {message.id} to {message.topic} has {size} bytes, more than the "
                f"{self.max_bytes} that rabbitmq takes; make it smaller, or raise "
                "max_message_size at the server and option max_message_bytes"
            )
        if message.delay > MAX_DELAY:
            return PublishRefusedError(
                f"message {message.id} to {message.topic} has a delay of {message.delay:.0f} s, "
                f"more than the {MAX_DELAY:.0f} s that rabbitmq can keep"
            )
        return None

    def _flush(self) -> None:
        channel = self._channel
        if channel is None or channel.is_closed:
            return
        now, sent = self._settings.clock.now(), []
        while self._waiting:
            entry = self._waiting.popleft()
            if entry.settled:
                continue
            try:
                data = self._encode(channel, entry.message, now)
            except ValueError as error:
                entry.done(
                    PublishRefusedError(
                        f"message {entry.message.id} to {entry.message.topic}: {error}"
                    )
                )
                continue
            sent.append(data)
            self._tag += 1
            self._unconfirmed[self._tag] = entry
        if sent:
            channel.send(b"".join(sent))

    def _encode(self, channel: Channel, message: Message, now: float) -> bytes:
        exchange, routing_key = self._route(message)
        mandatory = message.mandatory or self._settings.require_subscriber
        route = frames.route(exchange, routing_key, mandatory)
        flags, properties = codec.encode(message, now, self._names.owner)
        if not frames.header_fits(properties, channel.frame_max):
            raise ValueError(
                f"its headers have {len(properties)} bytes, more than the {channel.frame_max} "
                "of a frame; carry less metadata, or raise frame_max at the server"
            )
        body = message.payload or b""
        return frames.content(channel.number, route, flags, properties, body, channel.frame_max)

    def _route(self, message: Message) -> tuple[str, str]:
        if message.delay > 0:
            return self._names.delayed(message.topic, units(message.delay))
        return self._names.route(message.topic)

    async def _prepare(self) -> None:
        """Makes delays possible, then lets go what waits for it."""
        error = await self._delays.prepare(self.mode)
        held, self._held, self._preparing = self._held, [], None
        if error is None:
            self._waiting += held
            self._flush()
        for entry in held if error is not None else ():
            entry.done(error)

    def _confirmed(self, tag: int, multiple: bool, accepted: bool) -> None:
        unconfirmed = self._unconfirmed
        if multiple:
            tags = []
            for known in unconfirmed:  # in the order in which they were sent
                if known > tag:
                    break
                tags.append(known)
        else:
            tags = [tag] if tag in unconfirmed else []
        for known in tags:
            entry = unconfirmed.pop(known)
            if entry.returned:
                entry.done(self._unroutable(entry.message))
            elif accepted:
                entry.done(None)
            else:
                entry.done(
                    PublishError(
                        f"rabbitmq did not take message {entry.message.id} to "
                        f"{entry.message.topic}: a queue refused it; look at its length limit "
                        "and at the server's alarms"
                    )
                )

    def _returned(self, frame: Basic.Return, properties: Basic.Properties) -> None:
        # The confirmation that follows does not say that the message was returned.
        id, routing_key = codec.message_id(properties), frame.routing_key
        for entry in self._unconfirmed.values():
            message = entry.message
            if message.id == id and not entry.returned and self._route(message)[1] == routing_key:
                entry.returned = True
                return

    def _unroutable(self, message: Message) -> PublishError:
        if "/" in message.topic:
            return PublishError(
                f"message {message.id}: queue {message.topic} does not exist; start the "
                "service with topology mode create"
            )
        return PublishError(
            f"nobody consumes topic {message.topic}, so message {message.id} was not kept; "
            "start a consumer of it once, or set require_subscriber to false"
        )

    async def _connect(self) -> None:
        channel = await self._link.channel()
        channel.on_confirm, channel.on_return = self._confirmed, self._returned
        channel.tap()
        self._channel, self._tag = channel, 0
        self.max_bytes = self.max_bytes or self._server_limit(
            (await self._link.connection()).version
        )
        self._flush()

    def _server_limit(self, version: tuple[int, int]) -> int:
        return self._options.max_message_bytes or (16 if version >= (4, 0) else 128) * 1024 * 1024

    async def _supervise(self) -> None:
        backoff = Backoff(self._settings)
        while True:
            if self._channel is not None:
                await asyncio.wait([self._channel.closing])
                self._lost(self._channel)
                self._channel = None
            with contextlib.suppress(*FAILURES):
                await self._connect()
                backoff.reset()
            if self._channel is None or self._channel.is_closed:
                await backoff.wait()

    def _lost(self, channel: Channel) -> None:
        entries, self._unconfirmed = [*self._unconfirmed.values()], {}
        code, text = channel.closed_by_broker or (0, "the connection was lost")
        guilty: Callable[[Message], bool] = _nobody
        if code == _PRECONDITION_FAILED and (match := _TOO_LARGE.search(text)):
            self.max_bytes = limit = int(match[1])
            guilty = lambda message: len(message.payload or b"") > limit  # noqa: E731
        elif code == _ACCESS_REFUSED:
            # It names the exchange or, with topic permissions, the routing key.
            named = [entry.message for entry in entries if f"'{entry.message.topic}'" in text]
            guilty = (lambda message: message in named) if named else _everybody
        for entry in entries:
            message = entry.message
            if guilty(message):
                refusal = self._refusal(message) or PublishRefusedError(
                    f"message {message.id} to {message.topic} was refused: {text}; grant the "
                    "user the right to write"
                )
                entry.done(refusal)
            else:
                entry.done(
                    PublishError(
                        f"rabbitmq did not confirm message {message.id} to {message.topic}, so "
                        f"whether it was taken is unknown: {text}"
                    )
                )

    def _schedule_sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(self._options.confirm_timeout / 4, self._sweep)

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        unsent = ((0, entry) for entry in (*self._waiting, *self._held))
        for tag, entry in [*self._unconfirmed.items(), *unsent]:
            if entry.deadline <= now:
                self._unconfirmed.pop(tag, None)
                state = self._link.problem or "the broker is slow or blocks publishers"
                entry.done(
                    PublishError(
                        f"rabbitmq did not confirm message {entry.message.id} to "
                        f"{entry.message.topic} within {self._options.confirm_timeout:g} s: {state}"
                    )
                )
        self._sweeper = None
        if self._unconfirmed or self._waiting or self._held:
            self._schedule_sweep()


def _nobody(_: Message) -> bool:
    return False


def _everybody(_: Message) -> bool:
    return True
