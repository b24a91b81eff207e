"""Publishing to JetStream: many at a time, each confirmed by the server's PubAck."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count

from protoflow import wire
from protoflow.errors import PublishError, PublishRefusedError, TransportError
from protoflow.message import Message
from protoflow.transports.nats import headers as wire_headers
from protoflow.transports.nats.client import FastClient
from protoflow.transports.nats.connection import Connection, subscribe
from protoflow.transports.nats.js_api import JSON
from protoflow.transports.nats.js_topology import Architect
from protoflow.transports.nats.names import Names
from protoflow.transports.nats.reader import Received

_KNOWN_TOPICS = 10_000
_TOO_LARGE = 10054
_SCHEDULES_REFUSED = range(10188, 10193)


class _Batch:
    """The messages of one `submit`, and what came of them."""

    __slots__ = ("future", "left", "results")

    def __init__(self, size: int) -> None:
        self.results: list[PublishError | None] = [None] * size
        self.left = size
        self.future: asyncio.Future[Sequence[PublishError | None]] = (
            asyncio.get_running_loop().create_future()
        )

    def done(self, index: int, error: PublishError | None) -> None:
        self.results[index] = error
        self.left -= 1
        if not self.left and not self.future.done():
            self.future.set_result(self.results)


class _Pending:
    """A message that is not confirmed."""

    __slots__ = (
        "batch", "deadline", "headers", "index", "needs_group", "payload", "sent", "subject",
        "topic",
    )  # fmt: skip

    def __init__(
        self, batch: _Batch, index: int, message: Message, subject: str, headers: dict[str, str]
    ) -> None:
        self.batch = batch
        self.index = index
        self.topic = message.topic
        self.subject = subject
        self.payload = message.payload or b""
        self.headers = headers
        self.deadline = 0.0
        self.sent = False
        self.needs_group = False


class Publisher:
    """Publishes, and makes streams for topics that no topology named if it may."""

    def __init__(self, connection: Connection, names: Names, architect: Architect) -> None:
        self.creates = True
        self.known: set[str] = set()
        self.max_payload = 0
        #: Publishing to a topic that no group consumes is an error.
        self.require_subscriber = False
        self._heard: set[str] = set()
        self._connection = connection
        self._names = names
        self._architect = architect
        self._pending: dict[str, _Pending] = {}
        self._held: dict[str, list[_Pending]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._tokens = count()
        self._inbox = ""

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """As `Transport.submit`."""
        batch = _Batch(len(messages))
        deadline = self._connection.clock.monotonic() + self._connection.options.publish_timeout
        for index, message in enumerate(messages):
            try:
                pending = self._prepare(batch, index, message)
            except PublishRefusedError as error:
                batch.done(index, error)
                continue
            pending.deadline = deadline
            pending.needs_group = self.require_subscriber and self._unheard(message)
            if message.topic.startswith("=") or (
                message.topic in self.known and not pending.needs_group
            ):
                self._send(pending)
            else:
                self._hold(pending)
        if not messages:
            batch.future.set_result([])
        return batch.future

    async def close(self) -> None:
        """Fails what is not confirmed."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail_all(
            [*self._pending.values()], "the transport was closed before it was confirmed"
        )
        self._pending.clear()
        for waiting in self._held.values():
            self._fail_all(waiting, "the transport was closed")
        self._held.clear()

    async def connected(self, client: FastClient) -> None:
        """Sends again what is not confirmed, where the server drops the second copy."""
        self.max_payload = client.max_payload
        self._inbox = client.new_inbox() + "."
        await subscribe(client, self._inbox + "*", self._on_acks)
        for token, pending in [*self._pending.items()]:
            if pending.sent and wire_headers.MESSAGE_ID not in pending.headers:
                del self._pending[token]
                self._fail_all([pending], "connection lost before it was confirmed")
            else:
                self._write(token, pending)

    def disconnected(self, detail: str) -> None:
        """Nothing: unconfirmed messages wait for the next client or their timeout."""

    def denied(self, subject: str) -> None:
        """Refuses what was published to the subject."""
        for token, pending in [*self._pending.items()]:
            if pending.subject.lower() == subject:
                del self._pending[token]
                error = PublishRefusedError(f"not authorised to publish to {pending.topic}")
                pending.batch.done(pending.index, error)

    def tick(self, now: float) -> None:
        """Fails what was not confirmed in time."""
        for token, pending in [*self._pending.items()]:
            if pending.deadline > now:
                break
            del self._pending[token]
            detail = self._connection.problem or "no answer from the server"
            self._fail_all([pending], f"not confirmed in time: {detail}")

    def _prepare(self, batch: _Batch, index: int, message: Message) -> _Pending:
        try:
            headers = wire_headers.encode(message)
        except ValueError as error:
            raise PublishRefusedError(f"{message.topic}: {error}") from error
        subject = self._names.subject(message.topic, message.key)
        if message.deduplication_id is not None:
            # Retries of all topics of a group share a stream, and so one memory of ids.
            address = f":{message.topic}" if message.topic.startswith("=") else ""
            headers[wire_headers.MESSAGE_ID] = message.deduplication_id + address
        if message.delay > 0:
            if not self._architect.schedules:
                raise PublishRefusedError(
                    f"{message.topic}: this server has no delayed publish; NATS 2.12 has"
                )
            due = datetime.fromtimestamp(self._connection.clock.now() + message.delay, UTC)
            headers["Nats-Schedule"] = f"@at {due.isoformat().replace('+00:00', 'Z')}"
            headers["Nats-Schedule-Target"] = subject
            subject = self._names.schedule(message.topic)
        if problem := wire_headers.too_large(headers, message.payload or b"", self.max_payload):
            raise PublishRefusedError(f"{message.topic}: {problem}")
        return _Pending(batch, index, message, subject, headers)

    def _unheard(self, message: Message) -> bool:
        """Whether it is not known that a group consumes the topic; letters need none."""
        topic = message.topic
        return (
            topic not in self._heard
            and not topic.startswith("=")
            and wire.PF_DEAD_LETTER not in message.metadata
        )

    def _send(self, pending: _Pending) -> None:
        token = f"{next(self._tokens):x}"
        self._pending[token] = pending
        if self._connection.is_connected:
            self._write(token, pending)

    def _write(self, token: str, pending: _Pending) -> None:
        pending.sent = True
        self._connection.send(
            pending.subject, pending.payload, self._inbox + token, pending.headers
        )

    def _on_acks(self, acks: Sequence[Received]) -> None:
        for subject, _, _, payload in acks:
            pending = self._pending.pop(subject.decode()[len(self._inbox) :], None)
            if pending is None:
                continue
            if b'"error"' in payload:
                self._refused(pending, json.loads(payload)["error"])
            elif payload:
                pending.batch.done(pending.index, None)
            else:  # 503: no stream has this subject
                self._missing(pending)

    def _refused(self, pending: _Pending, error: JSON) -> None:
        code = error.get("err_code", 0)
        refused = code == _TOO_LARGE or code in _SCHEDULES_REFUSED
        kind = PublishRefusedError if refused else PublishError
        pending.batch.done(pending.index, kind(f"{pending.topic}: {error.get('description')}"))

    def _missing(self, pending: _Pending) -> None:
        if self.creates and pending.topic in self.known:
            self.known.discard(pending.topic)  # its stream was deleted under us
            self._hold(pending)
        else:
            self._fail_all([pending], "no stream keeps it")

    def _hold(self, pending: _Pending) -> None:
        """Keeps messages back, in order, until their topic has a stream."""
        topic = pending.topic
        if waiting := self._held.get(topic):
            waiting.append(pending)
            return
        self._held[topic] = [pending]
        task = asyncio.create_task(self._make(topic))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _make(self, topic: str) -> None:
        detail = ""
        try:
            client = self._connection.client
            if self.creates:
                detail = "\n".join(await self._architect.ensure_topic(client, topic))
            if self.require_subscriber and await self._architect.has_group(client, topic):
                self._heard.add(topic)
        except TransportError as error:
            detail = str(error)
        waiting = self._held.pop(topic)
        if detail:
            self._fail_all(waiting, detail)
            return
        if len(self.known) >= _KNOWN_TOPICS:
            self.known.clear()  # topics that come from data must not pile up
            self._heard.clear()
        self.known.add(topic)
        if topic not in self._heard:
            unheard = [pending for pending in waiting if pending.needs_group]
            self._fail_all(unheard, "no group consumes it, and require_subscriber is set")
            waiting = [pending for pending in waiting if not pending.needs_group]
        for pending in waiting:
            self._send(pending)

    def _fail_all(self, waiting: list[_Pending], detail: str) -> None:
        for pending in waiting:
            pending.batch.done(pending.index, PublishError(f"{pending.topic}: {detail}"))
