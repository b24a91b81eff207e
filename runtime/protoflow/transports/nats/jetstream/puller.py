"""Pulls from one consumer with long-lived, supervised requests.

Each request names a number of messages and an expiry. The server answers with that many messages to
our inbox, or with a status message with the number of missing messages. If the heartbeats of a
request stop, the request counts as lost and is repeated.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from protoflow.transports.nats.jetstream.buffers import Source
from protoflow.transports.nats.wire.client import FastClient, publication
from protoflow.transports.nats.wire.connection import NatsConnection, subscribe
from protoflow.transports.nats.wire.headers import read
from protoflow.transports.nats.wire.reader import Received

_log = logging.getLogger("protoflow.transports.jetstream")
_NS = 1_000_000_000
_HEARTBEAT = 2.0
_BACKOFF = 0.5
_BACKOFF_WITHOUT_RIGHT = 5.0
_LENT = b"$JS.ACK."
_PIN = b"\r\nNats-Pin-Id:"
_ENDED = ("Batch Completed", "Message Size Exceeds MaxBytes")
#: The only priority group of our pinned consumers.
PIN_GROUP: Final = "protoflow"


class Owner(Protocol):
    """The subscription that a puller belongs to."""

    @property
    def credit(self) -> int:
        """Returns how many more messages may arrive."""
        ...

    def arrived(self, messages: Sequence[Received], puller: Puller, now: float) -> None:
        """Receives messages."""

    def late(self) -> None:
        """Notes that messages arrive after a delay that is long for a lease."""

    def answered(self, puller: Puller, problem: str | None, *, gone: bool = False) -> None:
        """Notes whether the puller gets answers; `gone`: its consumer may not exist any more."""

    def pinned(self, puller: Puller) -> None:
        """Notes that the puller now gets the messages and possibly did not before. None of them may
        be handed out until `open` is set."""

    def unpinned(self, puller: Puller) -> None:
        """Notes that another process now gets the messages; no requests are sent until
        `compete`."""


@dataclass(eq=False, repr=False, kw_only=True)
class Puller(Source):
    """Receives the messages of one consumer.

    Attributes:
        connection: writes the requests.
        owner: gets the messages.
        api: the prefix of JetStream's API.
        consumer: the consumer.
        batch: the highest number of messages in a request.
        max_bytes: the highest number of bytes for a request.
        expires: seconds that a request waits at the server.
        pin_timeout: seconds of silence after which another process gets the messages; 0.0 if the
            server does not pin a process.
        lease: the duration of a lease in seconds.
    """

    connection: NatsConnection
    owner: Owner
    api: str
    consumer: str
    batch: int
    max_bytes: int
    expires: float
    pin_timeout: float = 0.0
    lease: float = 30.0

    def __post_init__(self) -> None:
        self.open = not self.pin_timeout
        self.paused = False
        self.pin = ""
        self.is_stopped = False
        self._waiting = False
        self._certain = False
        self.consume(self.consumer)
        self._heartbeat = min(_HEARTBEAT, self.expires / 3, self.lease / 6)
        self._inbox = ""
        self._number: bytes | None = None
        self._requested = 0
        self._asked = 0.0
        self._heard = 0.0
        self._retry_at = 0.0

    def consume(self, consumer: str) -> None:
        """Starts to consume from this consumer of the stream."""
        self.consumer = consumer
        self._subject = f"{self.api}.CONSUMER.MSG.NEXT.{self.stream}.{consumer}"

    async def connected(self, client: FastClient) -> None:
        """Starts again with this client."""
        if self.is_stopped:
            return
        self._inbox = client.new_inbox()
        self._requested = 0
        self._retry_at = 0.0
        self._certain = False
        self._number = await subscribe(client, self._inbox, self._on_messages)
        self.pull()

    def disconnected(self) -> None:
        """Notes that requests get no answers; messages in flight are redelivered later."""
        self._number = None
        self.close()
        self._requested = 0

    async def stop(self) -> None:
        """Sends no more requests; returns when all messages that the server sent have arrived."""
        self.is_stopped = True
        number, self._number = self._number, None
        if number is not None:
            await self.connection.unsubscribe(number)

    def covers(self, subject: str) -> bool:
        """Whether this puller needs a subject, which is in lower case."""
        return subject in (self._subject.lower(), self._inbox.lower())

    def refused(self, subject: str) -> None:
        """Handles a missing right, which may be granted later."""
        self._requested = 0
        self._retry_at = self.connection.clock.monotonic() + _BACKOFF_WITHOUT_RIGHT
        self.owner.answered(self, f"not authorised for {subject}")

    def pull(self) -> None:
        """Requests more messages if there is enough room."""
        if self.paused or self._waiting or self._retry_at or self._number is None:
            return
        credit = self.window - self.held if self.window else self.owner.credit
        room = min(self.batch, credit) - self._requested
        if room <= 0 or (self._requested and room < self.batch // 4):
            return
        self._ask(room, self.max_bytes, self.expires)

    def close(self) -> None:
        """See `Source.close`; if one message at a time is delivered, the order is always known."""
        self.open = not self.pin_timeout

    def compete(self) -> None:
        """Requests again, after `unpinned`."""
        self._waiting = False
        self.pull()

    def tick(self, now: float) -> None:
        """Requests again if the server is silent, after a pause, or to keep the pin."""
        if self._retry_at:
            if now < self._retry_at:
                return
            self._retry_at = 0.0
        elif self._requested and now - self._heard > 2.5 * self._heartbeat:
            self._requested = 0
            self.owner.answered(self, "the server is silent")
        self.pull()
        if self.pin and now - self._asked > self.pin_timeout / 3 and self._number:
            # no message fits into one byte: this request only shows that the client lives
            self._ask(1, 1, 1.0)

    def _ask(self, count: int, max_bytes: int, expires: float) -> None:
        now = self._asked = self.connection.clock.monotonic()
        if not self._requested:
            self._heard = now
        self._requested += count
        pin = f',"group":"{PIN_GROUP}"' if self.pin_timeout else ""
        if self.pin:
            pin += f',"id":"{self.pin}"'
        heartbeat = min(self._heartbeat, expires / 3)
        request = (
            f'{{"batch":{count},"max_bytes":{max_bytes},"expires":{int(expires * _NS)}'
            f',"idle_heartbeat":{int(heartbeat * _NS)}{pin}}}'
        )
        self.connection.write(
            publication(self._subject.encode(), request.encode(), self._inbox.encode())
        )

    def _on_messages(self, received: Sequence[Received]) -> None:
        now = self.connection.clock.monotonic()
        if self._requested and now - self._heard > self.lease / 2:
            self.owner.late()
        self._heard = now
        messages: list[Received] = []
        for item in received:
            if item[1].startswith(_LENT):
                messages.append(item)
                continue
            self._take(messages, now)
            messages = []
            try:
                self._on_status(read(item[2]), now)
            except ValueError:
                _log.exception("jetstream: an answer to a request was unreadable")
        self._take(messages, now)

    def _take(self, messages: list[Received], now: float) -> None:
        if not messages:
            return
        self._requested = max(0, self._requested - len(messages))
        if self.pin_timeout:
            for _, _, block, _ in messages:
                self._check_pin(_pin_of(block))
        self.owner.arrived(messages, self, now)

    def _on_status(self, headers: dict[str, str], now: float) -> None:
        status, description = headers.get("Status", ""), headers.get("Description", "")
        if status == "100":
            self.owner.answered(self, None)
        elif status == "408" or description in _ENDED:
            unsent = int(headers.get("Nats-Pending-Messages", self._requested))
            self._requested = max(0, self._requested - unsent)
            self.owner.answered(self, None)
            self.pull()
        elif status == "423":
            self._requested = 0
            if self.pin:
                self.pin, self.open, self._waiting = "", False, True
                self.owner.unpinned(self)
        else:
            self._requested = 0
            self._retry_at = now + _BACKOFF * (0.5 + self.connection.clock.random())
            gone = status == "503" or description == "Consumer Deleted"
            self.owner.answered(self, description or f"status {status}", gone=gone)

    def _check_pin(self, pin: str) -> None:
        if pin != self.pin or not self._certain:
            self.pin, self.open, self._certain = pin, False, True
            self.owner.pinned(self)


def _pin_of(block: bytes) -> str:
    at = block.find(_PIN) + len(_PIN)
    return block[at : block.find(b"\r\n", at)].strip().decode() if at >= len(_PIN) else ""
