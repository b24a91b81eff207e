"""Publishes to JetStream; the server's PubAck confirms each message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

from protoflow.error_codes import NO_RIGHT_TO_PUBLISH
from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Message
from protoflow.transport.kit.submission import Submission
from protoflow.transports.nats.jetstream.held_topics import HeldTopics
from protoflow.transports.nats.jetstream.pending import Pending, is_plain, refusal
from protoflow.transports.nats.jetstream.topology import TopologyManager
from protoflow.transports.nats.names import JetStreamNames, check
from protoflow.transports.nats.wire import headers as wire_headers
from protoflow.transports.nats.wire.client import FastClient, publication
from protoflow.transports.nats.wire.connection import NatsConnection, subscribe
from protoflow.transports.nats.wire.reader import Received


class JetStreamPublisher:
    """Publishes in order; the server's answer to each message is its result.

    Args:
        topology: knows the existing streams.
        require_subscriber: whether publishing to a topic without a group is an error.

    Attributes:
        held: messages that wait until a stream stores them.
    """

    def __init__(
        self,
        connection: NatsConnection,
        names: JetStreamNames,
        topology: TopologyManager,
        *,
        require_subscriber: bool,
    ) -> None:
        self.held = HeldTopics(
            connection, topology, self._send, self._in_flight, require_subscriber=require_subscriber
        )
        self._max_payload = 0
        self._require_subscriber = require_subscriber
        self._connection = connection
        self._names = names
        self._topology = topology
        self._pending: dict[str, Pending] = {}
        self._numbers = count()
        self._next_look = 0.0
        self._inbox = ""
        self._ready = False

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """As `Transport.submit`."""
        batch = Submission(len(messages))
        deadline = self._connection.clock.monotonic() + self._connection.options.publish_timeout
        for index, message in enumerate(messages):
            try:
                pending = self._prepare(batch, index, message)
            except PublishRefusedError as error:
                batch.done(index, error)
                continue
            except Exception as error:  # an error in a message refuses only this message
                text = f"{message.topic}: it cannot be written: {error}"
                batch.done(index, PublishRefusedError(text))
                continue
            pending.number = next(self._numbers)
            pending.deadline = deadline
            pending.needs_group = self._require_subscriber and self.held.unheard(message)
            if self.held.must_wait(pending):
                self._hold(pending)
            else:
                self._send(pending)
        return batch.future

    async def close(self) -> None:
        """Fails unconfirmed messages."""
        await self.held.close()
        for pending in (*self._pending.values(), *self.held):
            pending.fail("the transport was closed before it was confirmed")
        self._pending.clear()

    async def connected(self, client: FastClient) -> None:
        """Sends unconfirmed messages again if the server drops second copies."""
        self._max_payload = client.max_payload
        self._inbox = client.new_inbox() + "."
        await subscribe(client, self._inbox + "*", self._on_acks)
        for token, pending in [*self._pending.items()]:
            if pending.sent and not pending.repeatable:
                del self._pending[token]
                pending.fail("connection lost before it was confirmed")
            elif error := pending.size_error(self._max_payload):
                # the server differs from the one for which the size was computed
                del self._pending[token]
                pending.done(error)
            else:
                self._write(token, pending)
        self._ready = True  # only now, so that later messages come after these

    def disconnected(self, detail: str) -> None:
        """Unconfirmed messages wait for the next client or their timeout."""
        self._ready = False

    def denied(self, subject: str) -> None:
        """Refuses messages that were published to the subject."""
        for token, pending in [*self._pending.items()]:
            if pending.subject.lower() == subject:
                del self._pending[token]
                pending.done(
                    PublishRefusedError(
                        f"not authorised to publish to {pending.topic}", code=NO_RIGHT_TO_PUBLISH
                    )
                )

    def tick(self, now: float) -> None:
        """Fails messages that were not confirmed in time."""
        if now < self._next_look:
            return
        self._next_look = now + self._connection.options.publish_timeout
        for token, pending in [*self._pending.items()]:
            if not self._is_late(pending, now):
                continue
            del self._pending[token]
            detail = self._connection.problem or "no answer from the server"
            pending.fail(f"not confirmed in time: {detail}")
        for pending in self.held:
            if self._is_late(pending, now):
                self.held.expire(pending)

    def _is_late(self, pending: Pending, now: float) -> bool:
        if pending.deadline <= now:
            return True
        self._next_look = min(self._next_look, pending.deadline)
        return False

    def _prepare(self, batch: Submission, index: int, message: Message) -> Pending:
        headers = wire_headers.encode(message)
        topic = message.topic
        subject = self._names.subject(topic, message.key)
        check(subject)
        if message.deduplication_id is not None:
            # Retries of all topics of a group share a stream, so they share its memory of ids.
            address = f":{topic}" if topic.startswith("=") else ""
            id = message.deduplication_id + address
            headers[wire_headers.MESSAGE_ID] = wire_headers.deduplication(id)
        if message.delay > 0:
            if problem := self._topology.delay_problem(topic, message.delay):
                raise PublishRefusedError(f"{topic}: {problem}")
            due = self._connection.clock.now() + message.delay
            headers |= wire_headers.schedule(due, subject)
            subject = self._names.schedule(topic)
        block = wire_headers.block(headers)
        pending = Pending(batch, index, message, subject, block)
        if error := pending.size_error(self._max_payload):
            raise error
        return pending

    def _send(self, pending: Pending) -> None:
        token = f"{pending.number:x}"
        self._pending[token] = pending
        if self._ready:
            self._write(token, pending)

    def _write(self, token: str, pending: Pending) -> None:
        pending.sent = True
        reply = (self._inbox + token).encode()
        self._connection.write(
            publication(pending.subject.encode(), pending.payload, reply, pending.block)
        )

    def _on_acks(self, acks: Sequence[Received]) -> None:
        start = len(self._inbox)
        for subject, _, _, payload in acks:
            token = subject[start:].decode("ascii", "replace")
            pending = self._pending.get(token)
            if pending is None:
                continue
            if payload:
                try:
                    error = None if is_plain(payload) else refusal(pending.topic, payload)
                except ValueError:
                    continue  # another client answered; the stream's answer is still to come
                del self._pending[token]
                pending.batch.done(pending.index, error)
            else:  # 503: no stream takes it
                del self._pending[token]
                pending.sent = False
                pending.misses += 1
                self._hold(pending)

    def _hold(self, pending: Pending) -> None:
        self._next_look = min(self._next_look, pending.deadline)
        self.held.add(pending)

    def _in_flight(self, topic: str) -> bool:
        return any(pending.topic == topic for pending in self._pending.values())
