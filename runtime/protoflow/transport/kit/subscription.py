"""A subscription to a queue broker, built from three functions of a transport."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Hashable, Sequence
from functools import partial

from protoflow.clock import Clock
from protoflow.errors import TransportError
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.transport.interface import SubscriptionListener, SubscriptionSettings
from protoflow.transport.kit.backoff import Backoff
from protoflow.transport.kit.health_reporter import HealthReporter
from protoflow.transport.kit.lease_renewer import LeaseRenewer
from protoflow.transport.kit.leases import LeaseTable
from protoflow.transport.kit.queue_source import QueueSource, Results
from protoflow.transport.kit.ready_queue import ReadyQueue
from protoflow.transport.kit.settlement_batch import SettlementBatch
from protoflow.transport.kit.supervisor import describe

_log = logging.getLogger("protoflow.transport.kit")
_FIRST_RETRY, _LAST_RETRY = 0.1, 5.0


def queue_subscription(
    source: QueueSource,
    settings: SubscriptionSettings,
    listener: SubscriptionListener,
    clock: Clock,
) -> QueueSubscription:
    """Returns a `Subscription` to a queue broker.

    The transport claims, settles and renews. All else happens here. Claimed deliveries wait until
    they are handed out, or are given back at the end. Leases are renewed and their loss is
    reported. Settlements are fenced. After an error of the broker, calls are repeated with growing
    waits.
    """
    return QueueSubscription(source, settings, listener, clock)


class QueueSubscription:
    """See `queue_subscription`.

    Attributes:
        leases: the deliveries that are held.
        health: takes further problems from the transport.
        stopped: whether `stop` was called.
    """

    def __init__(
        self,
        source: QueueSource,
        settings: SubscriptionSettings,
        listener: SubscriptionListener,
        clock: Clock,
    ) -> None:
        lease = settings.lease if source.lease is None else source.lease
        self.settings = settings
        self.stopped = False
        self.health = HealthReporter(listener)
        self.leases = LeaseTable(lease, settings.max_hold)
        self._source = source
        self._listener = listener
        self._clock = clock
        self._backoff = Backoff(_FIRST_RETRY, _LAST_RETRY, clock.random)
        self._loop = asyncio.get_running_loop()
        self._ready = ReadyQueue(
            max_messages=settings.max_in_flight, max_bytes=settings.max_in_flight_bytes
        )
        self._renewer = LeaseRenewer(
            source, settings, clock, self.leases, self._report_lost, self._rest
        )
        self._resting = False
        self._giving_back: set[asyncio.Task[None]] = set()
        self._fetching: asyncio.Future[Sequence[Delivery]] | None = None
        self._on_the_way: dict[asyncio.Future[Results], SettlementBatch] = {}

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """See `Subscription.receive`."""
        ready = self._ready
        while not self.stopped:
            if not self._resting and (taken := ready.take(max_messages, max_bytes)):
                return taken
            ready.signal.clear()
            if self._may_fetch() and await self._fetch_some(max_messages, max_bytes):
                continue
            await ready.signal.wait()
        return ()

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Results]:
        """See `Subscription.settle`."""
        future: asyncio.Future[Results] = self._loop.create_future()
        batch = self.settling(settlements)
        if not batch.accepted:
            future.set_result(batch.results)
            return future
        try:
            answer = asyncio.ensure_future(self._source.settle(batch.accepted))
        except Exception as error:
            _fail(future, batch, error)
            return future
        self._on_the_way[answer] = batch
        answer.add_done_callback(partial(self._answered, future))
        return future

    def settling(self, settlements: Sequence[Settlement]) -> SettlementBatch:
        """Returns the settlement batch of a transaction, which must confirm it."""
        return SettlementBatch(self.leases, settlements, self._clock.monotonic())

    def defer(self, message: Message, delay: float) -> Message | None:
        """See `Subscription.defer`."""
        return None if self._source.defer is None else self._source.defer(message, delay)

    async def available(self) -> int | None:
        """See `Availability`."""
        if self.paused or self.stopped:
            return 0
        waiting = None if self._source.available is None else await self._source.available()
        return None if waiting is None else waiting + len(self._ready)

    @property
    def waiting(self) -> bool:
        """Whether a receiver waits for deliveries."""
        return self._ready.signal.waiting

    @property
    def paused(self) -> bool:
        """Whether every shard is paused."""
        return bool(self._ready.paused) and self._ready.paused >= self._source.shards

    def pause(self, shards: Collection[str | int]) -> None:
        """See `Subscription.pause`."""
        self._ready.pause(shards)

    def resume(self, shards: Collection[str | int]) -> None:
        """See `Subscription.resume`."""
        self._ready.resume(shards)

    def wake(self) -> None:
        """Calls `fetch` again if a receiver waits; from any thread."""
        self._ready.signal.wake()

    def wake_after(self, seconds: float) -> None:
        """Calls `wake` after some seconds; of several calls, the earliest counts."""
        if not self.stopped:
            self._ready.signal.wake_after(seconds)

    def receipts(self) -> set[Hashable]:
        """Returns the receipts of deliveries that are held or being settled."""
        found = set(self.leases.held)
        for batch in self._on_the_way.values():
            for settlement in batch.accepted:
                found.add(settlement.delivery.receipt)
                found.update(other.receipt for other in settlement.others)
        return found

    def accept(self, deliveries: Sequence[Delivery]) -> None:
        """Hands out claimed deliveries, beside those that `fetch` returns."""
        self.leases.add(deliveries, self._clock.monotonic())
        self._ready.extend(deliveries)
        if self._resting:  # their settlement was in progress
            self._give_back_ready()

    def lose(self, deliveries: Sequence[Delivery] | None = None) -> None:
        """Reports leases as lost; None means all leases, including those being settled."""
        if deliveries is None:
            lost = self.leases.clear()
        else:
            lost = [delivery for delivery in deliveries if self.leases.release(delivery)]
        self.wake()
        if not lost:
            return
        _log.warning(
            "leases were lost", extra={"subscription": self.settings.name, "deliveries": len(lost)}
        )
        self._report_lost(lost)

    async def stop(self) -> None:
        """See `Subscription.stop`. Deliveries that were handed out can still be settled, and are
        renewed until then or `close`."""
        self.stopped = True
        self._ready.signal.close()
        if (fetching := self._fetching) is not None:
            await asyncio.wait([fetching])
            self._keep_fetched(fetching)  # its callback may not have run yet
        await self._renewer.give_back(self._ready.close())
        if self._giving_back:
            await asyncio.wait(self._giving_back)
        while self._on_the_way:
            await asyncio.wait([*self._on_the_way])
        self._end_if_idle()

    async def close(self) -> None:
        """Stops, and gives back all unsettled deliveries. Idempotent."""
        await self.stop()
        await self._renewer.give_back([*self.leases.held.values()])
        await self.end()

    async def end(self) -> None:
        """Stops renewing leases."""
        self._renewer.end()
        await self._renewer.wait()
        self.leases.clear()

    def _may_fetch(self) -> bool:
        return not self.paused and not self._resting and self._ready.has_room

    def _rest(self, seconds: float) -> None:
        """Hands out nothing for a while, so that redelivered messages are not overtaken."""
        self._resting = True
        self._loop.call_later(seconds, self._rested)
        self._give_back_ready()

    def _rested(self) -> None:
        self._resting = False
        self.wake()

    def _give_back_ready(self) -> None:
        task = self._loop.create_task(self._renewer.give_back(self._ready.clear()))
        self._giving_back.add(task)
        task.add_done_callback(self._giving_back.discard)

    async def _fetch_some(self, max_messages: int, max_bytes: int) -> bool:
        """Returns whether `take` should be tried again at once."""
        try:
            if self._fetching is None:
                self._fetching = asyncio.ensure_future(self._source.fetch(max_messages, max_bytes))
                self._fetching.add_done_callback(self._keep_fetched)
            fetching = self._fetching
            fetched = await asyncio.shield(fetching)
            self._keep_fetched(fetching)  # its callback may not have run yet
        except Exception as error:
            self.health.set(self, describe(error))
            self.wake_after(self._backoff.next())
            return False
        if not self.health.healthy:
            self.health.set(self, None)
        self._backoff.reset()
        if not fetched and self._source.poll is not None:
            self.wake_after(self._source.poll)
        return bool(fetched)

    def _keep_fetched(self, fetching: asyncio.Future[Sequence[Delivery]]) -> None:
        if self._fetching is not fetching:
            return
        self._fetching = None
        if not fetching.cancelled() and fetching.exception() is None:
            self.accept(fetching.result())

    def _answered(self, future: asyncio.Future[Results], answer: asyncio.Future[Results]) -> None:
        batch = self._on_the_way.pop(answer)
        try:
            results = batch.confirm(answer.result())
        except (Exception, asyncio.CancelledError) as error:
            _fail(future, batch, error)
        else:
            if not future.done():
                future.set_result(results)
        self._end_if_idle()

    def _report_lost(self, deliveries: Sequence[Delivery]) -> None:
        waiting = {*self._ready.withdraw(deliveries)}
        if handed_out := [each for each in deliveries if each not in waiting]:
            self._listener.deliveries_lost(handed_out)
        self.wake()

    def _end_if_idle(self) -> None:
        if self.stopped and not (self.leases.held or self._on_the_way or self._renewer.owed):
            self._renewer.end()


def _fail(future: asyncio.Future[Results], batch: SettlementBatch, error: BaseException) -> None:
    """Handles a failed request, whose result is unknown."""
    results = batch.unknown()
    if future.done():
        return
    if isinstance(error, TransportError) and SettleResult.UNKNOWN in results:
        future.set_exception(error)
        future.exception()  # its reader may have ended
        return
    if not isinstance(error, TransportError):
        _log.error("settling failed", exc_info=error)
    future.set_result(results)
