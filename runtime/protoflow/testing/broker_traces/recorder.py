"""Records the calls of a transport, and its answers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Sequence
from typing import Any

from protoflow import wire
from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.testing.broker_traces.events import Event
from protoflow.transport.interface import Subscription, SubscriptionListener, Transport
from protoflow.transport.settings import SubscriptionSettings

Write = Callable[[Event], None]


class TraceWriter:
    """Appends events to a file; written events survive a SIGKILL."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def __call__(self, event: Event) -> None:
        """Appends an event."""
        os.write(self._file, event.line().encode())


class RecordedTransport:
    """A transport whose calls are recorded, and which otherwise behaves like the original.

    Args:
        transport: the original transport.
        member: the name of the process in the trace.
        write: gets the events.
        now: returns the time, by one clock of all processes.
    """

    def __init__(
        self, transport: Transport, member: str, write: Write, now: Callable[[], float]
    ) -> None:
        self._transport = transport
        self.member = member
        self.write = write
        self.now = now
        #: The topics in which retries of a group wait, and in which its dead letters are stored.
        self.own_places: dict[str, str] = {}
        self.dead_letter_topics: dict[str, str] = {}
        self._calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def record(self, kind: str, **fields: Any) -> None:
        """Records an event of this process."""
        self.write(Event(time=self.now(), member=self.member, kind=kind, **fields))

    def begin(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Records that messages are published; returns the data that identifies the calls."""
        calls: list[dict[str, Any]] = []
        for message in messages:
            self._calls += 1
            group = self.own_places.get(message.topic) or self.dead_letter_topics.get(message.topic)
            attempt = int(message.metadata.get(wire.PF_ATTEMPT, "0")) if group else 0
            calls.append(
                {"topic": message.topic, "message": message.id, "call": self._calls}
                | {"group": group or "", "attempt": attempt, "key": _text(message.key)}
            )
            own = message.topic in self.own_places
            dead = message.topic in self.dead_letter_topics
            detail = "retry" if own else "dead letter" if dead else ""
            self.record("publish", **calls[-1], detail=detail)
        return calls

    def end(self, calls: list[dict[str, Any]], errors: Sequence[PublishError | None]) -> None:
        """Records the results of the calls."""
        for call, error in zip(calls, errors, strict=True):
            refused = isinstance(error, PublishRefusedError)
            detail = "stored" if error is None else "refused" if refused else "unknown"
            self.record("published", **call, detail=detail)

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """See `Transport.submit`."""
        calls = self.begin(messages)
        future = self._transport.submit(messages)

        def ended(done: asyncio.Future[Sequence[PublishError | None]]) -> None:
            failed = done.cancelled() or done.exception() is not None
            self.end(calls, [PublishError()] * len(calls) if failed else done.result())

        future.add_done_callback(ended)
        return future

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> Subscription:
        """See `Transport.subscribe`."""
        self.dead_letter_topics |= dict.fromkeys(settings.dead_letter_topics, settings.name)
        recorded = RecordedSubscription(self, settings, listener)
        self.record(
            "join", topic=settings.topic, group=settings.name,
            detail=f"{settings.ordering.name} {settings.lease:g}",
        )  # fmt: skip
        recorded.subscription = await self._transport.subscribe(settings, recorded)
        return recorded

    async def close(self) -> None:
        """See `Transport.close`."""
        await self._transport.close()
        self.record("closed")


class RecordedSubscription:
    """A subscription whose calls are recorded; also the listener of the original subscription."""

    subscription: Any

    def __init__(
        self, transport: RecordedTransport, settings: SubscriptionSettings,
        listener: SubscriptionListener,
    ) -> None:  # fmt: skip
        self._transport = transport
        self._settings = settings
        self._listener = listener
        self._numbers: dict[Delivery, int] = {}
        self._last = 0
        self.health_changed = listener.health_changed
        self.suspects_waiting = listener.suspects_waiting

    def __getattr__(self, name: str) -> Any:
        return getattr(self.subscription, name)

    # Called by the scheduler.

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """See `Subscription.receive`."""
        found: Sequence[Delivery] = await self.subscription.receive(max_messages, max_bytes)
        for delivery in found:
            self._delivered(delivery)
        return found

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        """See `Subscription.settle`."""
        calls = []
        for each in settlements:
            for delivery in (each.delivery, *each.others):
                self._record("settle", delivery, detail=each.action.name, attempt=each.failures)
            calls.append(self._transport.begin(each.outputs))
        future: asyncio.Future[Sequence[SettleResult]] = self.subscription.settle(settlements)

        def ended(done: asyncio.Future[Sequence[SettleResult]]) -> None:
            failed = done.cancelled() or done.exception() is not None
            results = [SettleResult.UNKNOWN] * len(settlements) if failed else done.result()
            for each, result, outputs in zip(settlements, results, calls, strict=True):
                for delivery in (each.delivery, *each.others):
                    self._record("settled", delivery, detail=result.name)
                error = None if result is SettleResult.DONE else PublishError()
                self._transport.end(outputs, [error] * len(outputs))

        future.add_done_callback(ended)
        return future

    def defer(self, message: Message, delay: float) -> Message | None:
        """See `Subscription.defer`."""
        deferred: Message | None = self.subscription.defer(message, delay)
        if deferred is not None:
            self._transport.own_places[deferred.topic] = self._settings.name
        return deferred

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """See `Isolation.isolate`."""
        found: tuple[Delivery, int] | None = await self.subscription.isolate(delivery)
        if found is not None and found[0] not in self._numbers:
            self._delivered(found[0])
        return found

    def pause(self, shards: Collection[str | int]) -> None:
        """See `Subscription.pause`."""
        self.subscription.pause(shards)

    def resume(self, shards: Collection[str | int]) -> None:
        """See `Subscription.resume`."""
        self.subscription.resume(shards)

    async def stop(self) -> None:
        """See `Subscription.stop`."""
        try:
            await self.subscription.stop()
        finally:
            self._transport.record("stopped", group=self._settings.name)

    # Called by the transport.

    async def shards_revoked(self, shards: Collection[str | int], drain: float) -> None:
        """See `SubscriptionListener.shards_revoked`."""
        names = [str(shard) for shard in shards]
        for shard in names:
            self._transport.record("revoke", group=self._settings.name, shard=shard)
        await self._listener.shards_revoked(shards, drain)
        for shard in names:
            self._transport.record("revoked", group=self._settings.name, shard=shard)

    def deliveries_lost(self, deliveries: Sequence[Delivery]) -> None:
        """See `SubscriptionListener.deliveries_lost`."""
        for delivery in deliveries:
            self._record("lost", delivery)
        self._listener.deliveries_lost(deliveries)

    def _delivered(self, delivery: Delivery) -> None:
        self._last += 1
        self._numbers[delivery] = self._last
        attempt = delivery.failures
        if delivery.own_place and not attempt:
            attempt = int(delivery.message.metadata.get(wire.PF_ATTEMPT, "0"))
        self._record(
            "deliver", delivery, attempt=attempt, key=_text(delivery.message.key),
            detail=f"{delivery.deliveries}",
        )  # fmt: skip

    def _record(self, kind: str, delivery: Delivery, **fields: Any) -> None:
        self._transport.record(
            kind, topic=self._settings.topic, group=self._settings.name,
            message=delivery.message.id, delivery=self._numbers.get(delivery, 0),
            shard=str(delivery.shard), place=str(delivery.position), **fields,
        )  # fmt: skip


def _text(key: bytes | None) -> str:
    return (key or b"").decode(errors="replace")
