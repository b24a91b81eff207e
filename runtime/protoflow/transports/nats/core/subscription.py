"""A subscription to core NATS: the buffer is bounded, and receipt is settlement."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Sequence
from dataclasses import replace

from protoflow.errors import TransportError
from protoflow.ids import new_id
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transport.interface import SubscriptionListener, SubscriptionSettings
from protoflow.transport.kit.ready_queue import ReadyQueue
from protoflow.transports.nats.options import CoreOptions
from protoflow.transports.nats.wire import headers as wire_headers
from protoflow.transports.nats.wire.client import FastClient
from protoflow.transports.nats.wire.connection import NatsConnection, subscribe
from protoflow.transports.nats.wire.reader import Received

_log = logging.getLogger("protoflow.transports.nats")
#: Seconds before a missing right is requested again.
_WITHOUT_RIGHT = 5.0


class CoreSubscription:
    """A member of a queue group or, with `broadcast`, a separate subscriber."""

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
        self._ready = ReadyQueue()
        self._in_flight = 0
        self._received = 0
        self._dropped = 0
        self._stopped = False
        #: The missing right, at the last check.
        self.missing_right = ""
        self._ask_again = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """As `Subscription.receive`. Messages that came before `stop` are still handed out, because
        the server takes none back."""
        ready = self._ready
        while True:
            ready.signal.clear()
            limit = min(max_messages, self._settings.max_in_flight - self._in_flight)
            if taken := ready.take(limit, max_bytes):
                self._in_flight += len(taken)
                return taken
            if self._stopped and not len(ready):
                return ()
            await ready.signal.wait()

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        """Settles immediately. A message that is given back is delivered again in this process. It
        is lost if the process ends or the subscription is stopped."""
        results = [self._settle(settlement) for settlement in settlements]
        self._ready.signal.wake()
        if lost := results.count(SettleResult.LOST):
            _log.warning(
                "nats: messages given back are lost: core NATS stores nothing",
                extra={"subscription": self._settings.name, "messages": lost},
            )
        future: asyncio.Future[Sequence[SettleResult]] = asyncio.get_running_loop().create_future()
        future.set_result(results)
        return future

    def _settle(self, settlement: Settlement) -> SettleResult:
        old = settlement.delivery
        if old.receipt is not self:
            return SettleResult.LOST  # it was settled before
        old.receipt = None
        self._in_flight -= 1
        if settlement.action is Action.ACK:
            return SettleResult.DONE
        if self._stopped:
            return SettleResult.LOST
        again = replace(
            old, failures=settlement.failures, first_failure=settlement.first_failure, receipt=self
        )
        if settlement.delay > 0:
            asyncio.get_running_loop().call_later(settlement.delay, self._ready.put_back, again)
        else:
            self._ready.put_back(again)
        return SettleResult.DONE

    def defer(self, message: Message, delay: float) -> Message | None:
        """Returns None, because no broker would keep the message."""
        return None

    def pause(self, shards: Collection[str | int]) -> None:
        """See `Subscription.pause`; the only shard is 0."""
        self._ready.pause(shards)

    def resume(self, shards: Collection[str | int]) -> None:
        """As `Subscription.resume`."""
        self._ready.resume(shards)

    async def stop(self) -> None:
        """See `Subscription.stop`: nothing more arrives, and received messages are handed out."""
        if self._stopped:
            return
        number, self._number = self._number, None
        self._connection.leave(self)
        if self._asking is not None:
            self._asking.cancel()
        if number is not None:
            await self._connection.unsubscribe(number)
        self._stopped = True
        self._ready.signal.wake()

    async def connected(self, client: FastClient) -> None:
        """Subscribes."""
        await self._subscribe(client)
        self._listener.health_changed(True, "")

    async def _subscribe(self, client: FastClient) -> None:
        self.missing_right = ""
        queue = "" if self._settings.broadcast else self._settings.group
        self._number = await subscribe(client, self._subject, self._on_messages, queue)

    def disconnected(self, detail: str) -> None:
        """Reports that no messages arrive, and that messages published meanwhile are missed."""
        self._number = None
        self._listener.health_changed(False, f"{self._settings.name}: {detail}")

    def denied(self, subject: str) -> None:
        """Handles a missing right: it is requested again, because it may be granted later."""
        if subject == self._subject.lower():
            self.missing_right = f"not authorised to subscribe to {self._subject}"
            self._ask_again = self._connection.clock.monotonic() + _WITHOUT_RIGHT
            self._listener.health_changed(False, f"{self._settings.name}: {self.missing_right}")

    def tick(self, now: float) -> None:
        """Reports the end of a flood, and requests missing rights again."""
        if self._ask_again and now >= self._ask_again and self._connection.is_connected:
            self._ask_again = 0.0
            self._asking = asyncio.create_task(self._subscribe_again())
        if self._dropped and len(self._ready) < self._options.pending_messages // 2:
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
        options, ready = self._options, self._ready
        for received in messages:
            _, _, block, payload = received
            size = len(block) + len(payload)
            if len(ready) >= options.pending_messages or ready.bytes + size > options.pending_bytes:
                self._drop()
            else:
                ready.append(self._delivery(block, payload, size))

    def _drop(self) -> None:
        self._dropped += 1
        if self._dropped == 1:
            self._listener.health_changed(
                False, f"{self._settings.name}: slow consumer, messages are dropped"
            )

    def _delivery(self, block: bytes, payload: bytes, size: int) -> Delivery:
        self._received += 1
        unreadable: str | None = None
        try:
            message = wire_headers.decode(self._settings.topic, payload, block)
        except Exception as error:  # an error in a message affects only this message
            unreadable = f"headers: {type(error).__name__}: {error}"
            message = Message(id="", topic=self._settings.topic, payload=payload)
        anonymous = not message.id
        if anonymous:
            message.id = new_id()
        return Delivery(
            message=message, position=self._received, size=size, receipt=self, anonymous=anonymous,
            unreadable=unreadable,
        )  # fmt: skip
