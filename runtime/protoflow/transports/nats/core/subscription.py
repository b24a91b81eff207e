"""A subscription to core NATS: buffered within bounds, settled by being received."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import cast

from protoflow.errors import TransportError
from protoflow.ids import new_id
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transport.interface import SubscriptionListener, SubscriptionSettings
from protoflow.transports.nats.options import CoreOptions
from protoflow.transports.nats.wire import headers as wire_headers
from protoflow.transports.nats.wire.client import FastClient
from protoflow.transports.nats.wire.connection import NatsConnection, subscribe
from protoflow.transports.nats.wire.reader import Received

_log = logging.getLogger("protoflow.transports.nats")
#: Seconds before a right that was missing is asked for again.
_WITHOUT_RIGHT = 5.0


class CoreSubscription:
    """A member of a queue group, or with `broadcast` a subscriber of its own."""

    def __init__(
        self,
        connection: NatsConnection,
        settings: SubscriptionSettings,
        listener: SubscriptionListener,
        subject: str,
        options: CoreOptions,
    ) -> None:
        self._connection = connection
        self._settings = settings
        self._listener = listener
        self._subject = subject
        self._options = options
        self._number: bytes | None = None
        self._buffer: deque[Received] = deque()
        self._returned: list[tuple[float, int, Delivery]] = []
        self._bytes = 0
        self._in_flight = 0
        self._received = 0
        self._dropped = 0
        self._wake = asyncio.Event()
        self._paused = False
        self._stopped = False
        #: What is wrong with our rights, at the last look.
        self.missing_right = ""
        self._ask_again = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """As `Subscription.receive`. What came before `stop` is still handed out: there is
        nobody to give it back to."""
        while True:
            limit = min(max_messages, self._settings.max_in_flight - self._in_flight)
            if limit > 0 and not self._paused and (taken := self._take(limit, max_bytes)):
                return taken
            if self._stopped and not self._buffer:
                return ()
            self._wake.clear()
            await self._wake.wait()

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        """Done at once. What is given back comes again in this process; it is lost with it,
        and once the subscription is stopped."""
        results = [self._settle(settlement) for settlement in settlements]
        self._wake.set()
        if lost := results.count(SettleResult.LOST):
            _log.warning(
                "nats: messages given back are lost: core NATS keeps nothing",
                extra={"subscription": self._settings.name, "messages": lost},
            )
        future: asyncio.Future[Sequence[SettleResult]] = asyncio.get_running_loop().create_future()
        future.set_result(results)
        return future

    def _settle(self, settlement: Settlement) -> SettleResult:
        old = settlement.delivery
        if old.receipt is not self:
            return SettleResult.LOST  # settled before
        old.receipt = None
        self._in_flight -= 1
        if settlement.action is Action.ACK:
            return SettleResult.DONE
        if self._stopped:
            return SettleResult.LOST
        again = replace(
            old,
            failures=settlement.failures,
            first_failure=settlement.first_failure,
            receipt=self,
        )
        due = self._connection.clock.monotonic() + settlement.delay
        heapq.heappush(self._returned, (due, cast(int, old.position), again))
        return SettleResult.DONE

    def defer(self, message: Message, delay: float) -> Message | None:
        """None: nobody would keep it."""
        return None

    def pause(self, shards: Collection[str | int]) -> None:
        """As `Subscription.pause`; there is one shard, 0."""
        self._paused = self._paused or 0 in shards

    def resume(self, shards: Collection[str | int]) -> None:
        """As `Subscription.resume`."""
        self._paused = self._paused and 0 not in shards
        self._wake.set()

    async def stop(self) -> None:
        """As `Subscription.stop`: the server sends nothing more, what came is handed out."""
        if self._stopped:
            return
        number, self._number = self._number, None
        self._connection.leave(self)
        if self._asking is not None:
            self._asking.cancel()
        if number is not None:
            await self._connection.unsubscribe(number)
        self._stopped = True
        self._wake.set()

    async def connected(self, client: FastClient) -> None:
        """Subscribes."""
        await self._subscribe(client)
        self._listener.health_changed(True, "")

    async def _subscribe(self, client: FastClient) -> None:
        self.missing_right = ""
        queue = "" if self._settings.broadcast else self._settings.group
        self._number = await subscribe(client, self._subject, self._on_messages, queue)

    def disconnected(self, detail: str) -> None:
        """Nothing comes for a while, and what is published meanwhile is missed."""
        self._number = None
        self._listener.health_changed(False, f"{self._settings.name}: {detail}")

    def denied(self, subject: str) -> None:
        """A right is missing: it is asked for again, for it may be given while we live."""
        if subject == self._subject.lower():
            self.missing_right = f"not authorised to subscribe to {self._subject}"
            self._ask_again = self._connection.clock.monotonic() + _WITHOUT_RIGHT
            self._listener.health_changed(False, f"{self._settings.name}: {self.missing_right}")

    def tick(self, now: float) -> None:
        """Hands out again what is due; reports the end of a flood; asks again for rights."""
        if self._ask_again and now >= self._ask_again and self._connection.is_connected:
            self._ask_again = 0.0
            self._asking = asyncio.create_task(self._subscribe_again())
        if self._returned and self._returned[0][0] <= now:
            self._wake.set()
        if self._dropped and len(self._buffer) < self._options.pending_messages // 2:
            dropped, self._dropped = self._dropped, 0
            _log.error(
                "nats: slow consumer: messages were dropped",
                extra={"subscription": self._settings.name, "messages": dropped},
            )
            self._listener.health_changed(True, "")

    async def _subscribe_again(self) -> None:
        with contextlib.suppress(TransportError):
            await self._subscribe(self._connection.client)
            await self._connection.flush()
            if not self.missing_right:
                self._listener.health_changed(True, "")

    def _on_messages(self, messages: Sequence[Received]) -> None:
        options, buffer = self._options, self._buffer
        for message in messages:
            size = _size(message)
            if (
                len(buffer) >= options.pending_messages
                or self._bytes + size > options.pending_bytes
            ):
                self._drop()
            else:
                buffer.append(message)
                self._bytes += size
        self._wake.set()

    def _drop(self) -> None:
        self._dropped += 1
        if self._dropped == 1:
            self._listener.health_changed(
                False, f"{self._settings.name}: slow consumer, messages are dropped"
            )

    def _take(self, limit: int, max_bytes: int) -> list[Delivery]:
        taken: list[Delivery] = []
        now = self._connection.clock.monotonic() if self._returned else 0.0
        while self._returned and self._returned[0][0] <= now and len(taken) < limit:
            if taken and self._returned[0][2].size > max_bytes:
                break
            taken.append(heapq.heappop(self._returned)[2])
            max_bytes -= taken[-1].size
        buffer = self._buffer
        while buffer and len(taken) < limit:
            size = _size(buffer[0])
            if taken and size > max_bytes:
                break
            max_bytes -= size
            taken.append(self._delivery(buffer.popleft(), size))
        self._in_flight += len(taken)
        return taken

    def _delivery(self, received: Received, size: int) -> Delivery:
        self._bytes -= size
        self._received += 1
        _, _, block, payload = received
        unreadable: str | None = None
        try:
            message = wire_headers.decode(self._settings.topic, payload, block)
        except Exception as error:  # whatever a message holds, it harms nobody else
            unreadable = f"headers: {type(error).__name__}: {error}"
            message = Message(id="", topic=self._settings.topic, payload=payload)
        if not message.id:
            message.id = new_id()
        return Delivery(
            message=message,
            position=self._received,
            size=size,
            receipt=self,
            unreadable=unreadable,
        )


def _size(message: Received) -> int:
    _, _, block, payload = message
    return len(block) + len(payload)
