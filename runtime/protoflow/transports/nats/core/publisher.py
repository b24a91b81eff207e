"""Publishes to core NATS; a result means that the server has received the message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from protoflow.error_codes import NO_DELAY, TOO_LARGE
from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Message
from protoflow.transport.kit.submission import Submission
from protoflow.transports.nats.names import check, tokens
from protoflow.transports.nats.wire import headers as wire_headers
from protoflow.transports.nats.wire.client import FastClient, publication
from protoflow.transports.nats.wire.connection import NatsConnection, subscribe
from protoflow.transports.nats.wire.reader import Received


@dataclass(slots=True)
class _Command:
    index: int
    topic: str
    subject: str
    payload: bytes
    block: bytes
    token: str


class _Batch(Submission):
    """The messages of one `submit`."""

    __slots__ = ("commands", "sent")

    def __init__(self, size: int, deadline: float) -> None:
        super().__init__(size, deadline)
        self.commands: list[_Command] = []
        self.sent = False

    def fail(self, problem: str) -> None:
        """Fails all messages without a result."""
        for command in self.commands:
            self.done(command.index, PublishError(f"{command.topic}: {problem}"))


class CorePublisher:
    """Publishes in order; one flush confirms everything before it.

    Args:
        prefix: the prefix of a topic in its subject.
        mandatory: whether a message without a subscriber is an error.
    """

    def __init__(self, connection: NatsConnection, prefix: str, *, mandatory: bool) -> None:
        self._connection = connection
        self._prefix = prefix
        self._mandatory = mandatory
        self._batches: list[_Batch] = []
        self._unheard: set[str] = set()
        self._tokens = count()
        self._inbox = ""
        self._ready = False
        self._max_payload = 0

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """As `Transport.submit`."""
        clock, options = self._connection.clock, self._connection.options
        batch = _Batch(len(messages), clock.monotonic() + options.publish_timeout)
        for index, message in enumerate(messages):
            try:
                batch.commands.append(self._prepare(index, message))
            except PublishRefusedError as error:
                batch.done(index, error)
        if batch.commands:
            self._batches.append(batch)
            if self._ready:
                self._send(batch)
        return batch.future

    def close(self) -> None:
        """Fails all unconfirmed messages."""
        for batch in self._batches:
            batch.fail("the transport was closed before it was confirmed")
        self._batches.clear()

    async def connected(self, client: FastClient) -> None:
        """Sends messages that waited for a connection."""
        self._max_payload = client.max_payload
        self._inbox = client.new_inbox() + "."
        self._unheard.clear()
        await subscribe(client, self._inbox + "*", self._on_status)
        for batch in self._batches:
            if not batch.sent:
                self._send(batch)
        self._ready = True  # only now, so that later messages come after these

    def disconnected(self, detail: str) -> None:
        """Messages that were sent and not confirmed may be lost; they are not sent twice."""
        self._ready = False

    def denied(self, subject: str) -> None:
        """Refuses messages that were published to the subject."""
        for batch in self._batches:
            for command in batch.commands:
                if batch.sent and command.subject.lower() == subject:
                    text = f"not authorised to publish to {command.topic}"
                    batch.done(command.index, PublishRefusedError(text))

    def tick(self, now: float) -> None:
        """Fails messages that were not confirmed in time."""
        while self._batches and self._batches[0].deadline <= now:
            problem = self._connection.problem or "no answer from the server"
            self._batches.pop(0).fail(f"not confirmed in time: {problem}")

    def _prepare(self, index: int, message: Message) -> _Command:
        topic, payload = message.topic, message.payload or b""
        if message.delay > 0:
            raise PublishRefusedError(f"{topic}: core NATS has no delayed publish", code=NO_DELAY)
        subject = self._prefix + tokens(topic)
        try:
            check(subject)
            block = wire_headers.block(wire_headers.encode(message))
            problem = wire_headers.too_large(block, payload, self._max_payload)
        except Exception as error:  # an error in a message refuses only this message
            raise PublishRefusedError(f"{topic}: it cannot be written: {error}") from error
        if problem:
            raise PublishRefusedError(f"{topic}: {problem}")
        token = f"{next(self._tokens):x}" if message.mandatory or self._mandatory else ""
        return _Command(index, topic, subject, payload, block, token)

    def _send(self, batch: _Batch) -> None:
        batch.sent = True
        write = self._connection.write
        for command in batch.commands:
            if len(command.block) + len(command.payload) > self._max_payload:
                limit = f"larger than the server's max_payload of {self._max_payload}"
                batch.done(
                    command.index, PublishRefusedError(f"{command.topic}: {limit}", code=TOO_LARGE)
                )
                continue  # the server differs from the one for which the size was computed
            # If a message has a reply subject and no subscriber, the server answers.
            reply = self._inbox + command.token if command.token else ""
            write(
                publication(
                    command.subject.encode(), command.payload, reply.encode(), command.block
                )
            )
        self._connection.flush().add_done_callback(lambda flushed: self._sent(batch, flushed))

    def _sent(self, batch: _Batch, flushed: asyncio.Future[None]) -> None:
        for command in batch.commands:
            if command.token in self._unheard:
                self._unheard.discard(command.token)
                text = "nobody is subscribed, and core NATS stores nothing"
                batch.done(command.index, PublishError(f"{command.topic}: {text}"))
        lost = flushed.exception()
        if lost is None:
            batch.finish()
        else:
            batch.fail(f"{lost}; it may be lost")
        if batch in self._batches:
            self._batches.remove(batch)
        if not self._batches:
            self._unheard.clear()  # the answer is for messages that were given up before

    def _on_status(self, answers: Sequence[Received]) -> None:
        for subject, _, block, _ in answers:
            if wire_headers.read(block).get("Status") == "503":
                self._unheard.add(subject.decode()[len(self._inbox) :])
