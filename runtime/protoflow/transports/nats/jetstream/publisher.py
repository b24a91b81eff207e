"""Publishes to JetStream; the server's PubAck confirms each message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import count

from protoflow import wire
from protoflow.errors import PublishError, PublishRefusedError, TransportError
from protoflow.message import Message
from protoflow.transport.kit.submission import Submission
from protoflow.transports.nats.jetstream.pending import Pending, give_up, is_plain, refusal
from protoflow.transports.nats.jetstream.topology import TopologyManager
from protoflow.transports.nats.names import JetStreamNames, check
from protoflow.transports.nats.wire import headers as wire_headers
from protoflow.transports.nats.wire.client import FastClient, publication
from protoflow.transports.nats.wire.connection import NatsConnection, subscribe
from protoflow.transports.nats.wire.reader import Received

_KNOWN_TOPICS = 10_000
#: Seconds before what no stream took is sent again; doubles up to the second.
_FIRST_WAIT = 0.02
_LONGEST_WAIT = 1.0
#: So many times it is sent again before the stream is looked for, ...
_PATIENCE = 3
#: ... and so many times that is done before the stream counts as missing.
_LOOKS = 2


class JetStreamPublisher:
    """Publishes, and makes streams for topics that no topology named if it may.

    What no stream takes is held back, with everything of its topic that comes after it, and
    sent again in order: a stream without leader for a moment is no failed publication.
    """

    def __init__(
        self, connection: NatsConnection, names: JetStreamNames, topology: TopologyManager
    ) -> None:
        self.creates = True
        self.known: set[str] = set()
        self.max_payload = 0
        #: Publishing to a topic that no group consumes is an error.
        self.require_subscriber = False
        self._heard: set[str] = set()
        self._delays: set[str] = set()
        self._connection = connection
        self._names = names
        self._topology = topology
        self._pending: dict[str, Pending] = {}
        self._held: dict[str, list[Pending]] = {}
        self._why: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
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
            except Exception as error:  # whatever a message holds, it is refused by itself
                text = f"{message.topic}: it cannot be written: {error}"
                batch.done(index, PublishRefusedError(text))
                continue
            pending.number = next(self._numbers)
            pending.deadline = deadline
            pending.needs_group = self.require_subscriber and self._unheard(message)
            topic = pending.topic
            if topic in self._held or not self._is_known(pending):
                self._hold(pending)
            else:
                self._send(pending)
        return batch.future

    async def close(self) -> None:
        """Fails what is not confirmed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pending in self._all():
            pending.fail("the transport was closed before it was confirmed")
        self._pending.clear()
        self._held.clear()

    async def connected(self, client: FastClient) -> None:
        """Sends again what is not confirmed, where the server drops the second copy."""
        self.max_payload = client.max_payload
        self._inbox = client.new_inbox() + "."
        await subscribe(client, self._inbox + "*", self._on_acks)
        for token, pending in [*self._pending.items()]:
            if pending.sent and not pending.repeatable:
                del self._pending[token]
                pending.fail("connection lost before it was confirmed")
            elif error := pending.size_error(self.max_payload):
                del self._pending[token]  # another server than the one it was measured for
                pending.done(error)
            else:
                self._write(token, pending)
        self._ready = True  # not before: what is submitted now comes after all of these

    def disconnected(self, detail: str) -> None:
        """Unconfirmed messages wait for the next client or their timeout."""
        self._ready = False

    def denied(self, subject: str) -> None:
        """Refuses what was published to the subject."""
        for token, pending in [*self._pending.items()]:
            if pending.subject.lower() == subject:
                del self._pending[token]
                pending.done(PublishRefusedError(f"not authorised to publish to {pending.topic}"))

    def tick(self, now: float) -> None:
        """Fails what was not confirmed in time."""
        if now < self._next_look:
            return
        self._next_look = now + self._connection.options.publish_timeout
        for token, pending in [*self._pending.items()]:
            if not self._is_late(pending, now):
                continue
            del self._pending[token]
            detail = self._connection.problem or "no answer from the server"
            pending.fail(f"not confirmed in time: {detail}")
        for topic, waiting in self._held.items():
            late = [pending for pending in waiting if self._is_late(pending, now)]
            for pending in late:
                waiting.remove(pending)
                detail = self._connection.problem or self._why.get(topic) or "no stream keeps it"
                pending.fail(f"not confirmed in time: {detail}")

    def _is_late(self, pending: Pending, now: float) -> bool:
        if pending.deadline <= now:
            return True
        self._next_look = min(self._next_look, pending.deadline)
        return False

    def _all(self) -> list[Pending]:
        held = [pending for waiting in self._held.values() for pending in waiting]
        return [*self._pending.values(), *held]

    def _prepare(self, batch: Submission, index: int, message: Message) -> Pending:
        headers = wire_headers.encode(message)
        topic = message.topic
        subject = self._names.subject(topic, message.key)
        check(subject)
        if message.deduplication_id is not None:
            # Retries of all topics of a group share a stream, and so one memory of ids.
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
        if error := pending.size_error(self.max_payload):
            raise error
        return pending

    def _is_known(self, pending: Pending) -> bool:
        """Whether nothing is to be found out about its stream before it is sent."""
        topic = pending.topic
        if topic.startswith("="):
            return True
        if pending.delayed and topic not in self._delays:
            return False
        return topic in self.known and not pending.needs_group

    def _unheard(self, message: Message) -> bool:
        """Whether it is not known that a group consumes the topic; dead letters need none."""
        topic = message.topic
        return (
            topic not in self._heard
            and not topic.startswith("=")
            and wire.PF_DEAD_LETTER not in message.metadata
        )

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
                    continue  # somebody else's answer: the stream's is still to come
                del self._pending[token]
                pending.batch.done(pending.index, error)
            else:  # 503: nobody takes it
                del self._pending[token]
                pending.sent = False
                pending.misses += 1
                self._hold(pending)

    def _hold(self, pending: Pending) -> None:
        """Keeps messages back until their topic has a stream that takes them."""
        topic = pending.topic
        self._next_look = min(self._next_look, pending.deadline)
        if (waiting := self._held.get(topic)) is not None:
            waiting.append(pending)
            return
        self._held[topic] = [pending]
        task = asyncio.create_task(self._release(topic))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _release(self, topic: str) -> None:
        """Sends what is held back as soon as it can be, in the order of submission."""
        clock = self._connection.clock
        missing, wait = 0, 0.0
        while waiting := self._held.get(topic):
            misses = max(pending.misses for pending in waiting)
            wait = min(max(2 * wait, _FIRST_WAIT if misses else 0.0), _LONGEST_WAIT)
            if wait:
                await clock.sleep(wait * (0.5 + clock.random()))
            problem = ""
            try:
                if not 0 < misses < _PATIENCE:
                    problem = await self._look(topic, again=bool(misses))
            except TransportError as error:
                self._why[topic] = str(error)
                wait = wait or _FIRST_WAIT
                continue
            if not problem and not self._in_flight(topic):
                break
            missing += bool(problem)
            if missing >= _LOOKS or (problem and not misses):
                for pending in self._held.pop(topic, ()):
                    pending.fail(problem)
                return
            wait = wait or _FIRST_WAIT
        self._let_go(topic)

    def _in_flight(self, topic: str) -> bool:
        """Whether some of a topic are not answered: they may have to go first."""
        return any(pending.topic == topic for pending in self._pending.values())

    async def _look(self, topic: str, *, again: bool) -> str:
        """What is wrong with the stream of a topic; it is made if it may be. Raises
        TransportError: it is not known now."""
        if self.creates and not topic.startswith("="):
            if problems := await self._topology.ensure_topic(topic):
                return "\n".join(problems)
        elif again and not await self._topology.knows(topic):
            return "no stream keeps it"
        if topic.startswith("="):
            return ""
        if late := [pending for pending in self._held[topic] if pending.delayed]:
            if text := await self._topology.ensure_delays(topic, changes=self.creates):
                give_up(self._held[topic], late, text)
            else:
                self._delays.add(topic)
        if self.require_subscriber:
            if await self._topology.has_group(topic):
                self._heard.add(topic)
            else:
                unheard = [pending for pending in self._held[topic] if pending.needs_group]
                text = "no group consumes it, and require_subscriber is set"
                give_up(self._held[topic], unheard, text)
        return ""

    def _let_go(self, topic: str) -> None:
        waiting = self._held.pop(topic, [])
        self._why.pop(topic, None)
        if len(self.known) >= _KNOWN_TOPICS:
            self.known.clear()  # topics that come from data must not pile up
            self._heard.clear()
            self._delays.clear()
        self.known.add(topic)
        for pending in sorted(waiting, key=lambda one: one.number):
            self._send(pending)
