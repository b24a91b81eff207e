"""Publishes in order and pipelined; each message is confirmed by the broker or fails."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Collection, Sequence

from protoflow.error_codes import UNCONFIRMED
from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Message
from protoflow.transport.interface import TopologyMode, TransportSettings
from protoflow.transport.kit.submission import Submission
from protoflow.transports.rabbitmq import codec, frames
from protoflow.transports.rabbitmq.channel import Channel
from protoflow.transports.rabbitmq.delayed_publishing import Delays, units
from protoflow.transports.rabbitmq.limits import Limits
from protoflow.transports.rabbitmq.link import Link, new_backoff
from protoflow.transports.rabbitmq.losses import Losses
from protoflow.transports.rabbitmq.names import Names
from protoflow.transports.rabbitmq.options import RabbitMQOptions
from protoflow.transports.rabbitmq.pending import Entry, Result, Unconfirmed, oldest
from protoflow.transports.rabbitmq.reading import Properties
from protoflow.transports.rabbitmq.unrouted import UnroutedTopics

_logger = logging.getLogger("protoflow.rabbitmq")
_PATIENCE = 10.0  # seconds that a message may be unconfirmed before readiness turns red


class Publisher:
    """Publishes on one channel of a link; without a channel, messages wait for it.

    Attributes:
        limits: the limits of the broker.
        mode: whether the queues of delays may be created.
    """

    def __init__(
        self, link: Link, names: Names, settings: TransportSettings, options: RabbitMQOptions
    ) -> None:
        self.limits = Limits(options)
        self.mode = TopologyMode.NONE
        self._link = link
        self._names = names
        self._settings = settings
        self._options = options
        self._channel: Channel | None = None
        self._waiting: deque[Entry] = deque()
        self._unconfirmed = Unconfirmed()
        self._losses = Losses(self._route)
        self._unrouted = UnroutedTopics(settings.require_subscriber)
        self._delays = Delays(link, names)
        self._held: list[Entry] = []
        self._preparing: asyncio.Task[None] | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def problem(self) -> str | None:
        """The problem if messages are unconfirmed for long."""
        since = oldest(map(iter, self._open()))
        if since is None:
            return None
        if (waited := asyncio.get_running_loop().time() - since) <= _PATIENCE:
            return None
        return f"a message is unconfirmed for {waited:.0f} s: {self._reason()}"

    async def open(self) -> None:
        """Opens the first channel."""
        self._link.on_blocked = self._flush
        await self._connect()
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        """Waits for confirmations, at most `confirm_timeout`, and closes. It is idempotent."""
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is None:
            return
        entries = [*itertools.chain(*self._open())]
        channel, tasks = self._channel, [supervisor]
        tasks += [self._preparing] if self._preparing is not None else []
        try:
            if futures := {entry.batch.future for entry in entries if not entry.settled}:
                await asyncio.wait(futures)
        finally:  # this runs even if the shutdown time is over
            for task in tasks:
                task.cancel()
            if self._sweeper is not None:
                self._sweeper.cancel()
            self._channel = None
            self._waiting.clear()
            for entry in entries:
                entry.done(
                    PublishError(
                        "the transport was closed before rabbitmq confirmed it", code=UNCONFIRMED
                    )
                )
        await asyncio.gather(*tasks, return_exceptions=True)
        if channel is not None:
            await channel.leave()

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[Result]]:
        """Publishes; see `Transport.submit`."""
        batch = Submission(len(messages))
        now = asyncio.get_running_loop().time()
        deadline = now + self._options.confirm_timeout
        for index, message in enumerate(messages):
            if refusal := self.limits.refusal(message):
                batch.done(index, refusal)
            elif self._supervisor is None:
                batch.done(index, PublishError(self._link.problem or "the transport is closed"))
            else:
                delayed = message.delay > 0 and not self._delays.ready
                entry = Entry(message, batch, index, now, deadline)
                (self._held if delayed else self._waiting).append(entry)
        if self._held and self._preparing is None:
            self._preparing = asyncio.create_task(self._prepare())
        self._flush()
        if self._sweeper is None:
            self._schedule_sweep()
        return batch.future

    def _open(self) -> tuple[Collection[Entry], ...]:
        """Yields entries without a result: sent, waiting, and waiting for queues of delays."""
        return self._unconfirmed.entries.values(), self._waiting, self._held

    def _flush(self) -> None:
        channel = self._channel
        # A blocked server would later confirm messages that it has not read yet. So nothing is
        # written then, and messages that are given up were not sent.
        if channel is None or channel.is_closed or self._link.blocked is not None:
            return
        now, sent = self._settings.clock.now(), []
        while self._waiting and not self._losses.alone:
            entry = self._waiting.popleft()
            if entry.settled or self._unconfirmed.knows(entry):
                continue
            busy = bool(self._unconfirmed.entries)
            if self._losses.suspects and not self._losses.may_send(entry, busy):
                self._waiting.appendleft(entry)
                break
            try:
                data = self._encode(channel, entry, now)
            except Exception as error:  # whatever the error is, it belongs to this message
                entry.done(PublishRefusedError(f"{entry}: {error}"))
                self._losses.over()
                continue
            sent.append(data)
            self._unconfirmed.add(entry)
        if sent:
            channel.send(b"".join(sent))

    def _encode(self, channel: Channel, entry: Entry, now: float) -> bytes:
        message = entry.message
        exchange, routing_key = self._route(message)
        # Without an exchange, the message goes to a queue of other programs, which must exist.
        mandatory = message.mandatory or not exchange or self._unrouted.asks(entry)
        route = frames.route(exchange, routing_key, mandatory)
        flags, properties = codec.encode(message, now, self._names.owner)
        if not frames.header_fits(properties, channel.frame_max):
            raise ValueError(
                f"its headers have {len(properties)} bytes, more than the {channel.frame_max} "
                "of a frame; send less metadata, or raise frame_max at the server"
            )
        body = message.payload or b""
        return frames.content(channel.number, route, flags, properties, body, channel.frame_max)

    def _route(self, message: Message) -> tuple[str, str]:
        if message.delay > 0:
            if queue := self._names.sources.place(message.topic):
                raise ValueError(f"queue {queue} keeps no delays; publish it when it is due")
            return self._names.delayed(message.topic, units(message.delay))
        return self._names.route(message.topic)

    async def _prepare(self) -> None:
        """Creates the queues of delays, and then sends the messages that wait for them."""
        error = await self._delays.prepare(self.mode)
        held, self._held, self._preparing = self._held, [], None
        if error is None:
            self._waiting += held
            self._flush()
        for entry in held if error is not None else ():
            entry.done(error)

    def _confirmed(self, tag: int, multiple: bool, accepted: bool) -> None:
        for entry in self._unconfirmed.take(tag, multiple):
            if entry.returned and (error := self._unrouted.returned(entry)) is not None:
                entry.done(error)
            elif accepted:
                self._unconfirmed.confirm(entry)
            else:
                entry.done(
                    PublishError(
                        f"rabbitmq did not take {entry}: a queue refused it; check its length "
                        "limit and the server's alarms"
                    )
                )
        if self._losses.suspects:
            self._losses.over()
            self._flush()

    def _returned(self, routing_key: str, properties: Properties) -> None:
        # The confirmation that follows does not show that the message was returned.
        id = codec.message_id(properties)
        for entry in self._unconfirmed.entries.values():
            message = entry.message
            if message.id == id and not entry.returned and self._route(message)[1] == routing_key:
                entry.returned = True
                return

    async def _connect(self) -> None:
        channel = await self._link.channel()
        channel.on_confirm, channel.on_return = self._confirmed, self._returned
        channel.tap()
        self._channel = channel
        if not self.limits.max_bytes:
            self.limits.learn((await self._link.connection()).version)
        self._flush()

    async def _supervise(self) -> None:
        clock = self._settings.clock
        backoff = new_backoff(clock)
        while True:
            if self._channel is not None:
                await asyncio.wait([self._channel.closing])
                self._lost(self._channel)
                self._channel = None
            try:
                await self._connect()
                backoff.reset()
            except Exception as error:  # the error may be temporary
                _logger.info("publishing has no channel yet", extra={"error": str(error)})
            if self._channel is None or self._channel.is_closed:
                await clock.sleep(backoff.next())

    def _lost(self, channel: Channel) -> None:
        entries = self._unconfirmed.clear()
        code, text = channel.closed_by_broker or (0, "the connection was lost")
        if limit := self._losses.too_large(code, text):
            self.limits.max_bytes = limit
        if self._losses.missing(code, text):
            self._delays.ready = False
        for entry, error in self._losses.judge(entries, code, text, self.limits.refusal):
            entry.done(error)

    def _reason(self) -> str:
        if (reason := self._link.blocked) is not None:
            return f"rabbitmq blocks publishers ({reason}); check the server's alarms"
        return self._link.problem or "rabbitmq is slow, or a queue has no leader"

    def _schedule_sweep(self) -> None:
        self._sweeper = None
        if any(self._open()):
            wait = self._options.confirm_timeout / 4
            self._sweeper = asyncio.get_running_loop().call_later(wait, self._sweep)

    def _sweep(self) -> None:
        """Gives up messages that were not confirmed in time."""
        now = asyncio.get_running_loop().time()
        seconds = f"{self._options.confirm_timeout:g} s"
        for tag, entry in [*self._unconfirmed.entries.items()]:
            if entry.deadline <= now and not entry.settled:
                text = f"rabbitmq did not confirm {entry} within {seconds}: {self._reason()}"
                self._unconfirmed.give_up(tag, PublishError(text))
        for entry in (*self._waiting, *self._held):
            if entry.deadline <= now:
                text = f"rabbitmq did not confirm {entry} within {seconds}, and it was not sent: "
                entry.done(PublishError(text + self._reason()))
        self._waiting = deque(entry for entry in self._waiting if not entry.settled)
        self._held = [entry for entry in self._held if not entry.settled]
        self._schedule_sweep()
