"""Proves which message kills the process: by start marks, or without order by a solo queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from protoflow.error_codes import LEASE_LOST
from protoflow.errors import TransportError
from protoflow.message import Delivery, Settlement, SettleResult
from protoflow.transports.rabbitmq.context import SubscriptionContext
from protoflow.transports.rabbitmq.session import Results
from protoflow.transports.rabbitmq.solo_queue import SoloQueue
from protoflow.transports.rabbitmq.start_marks import StartMarks

#: Seconds between checks of the solo queue for messages of other processes.
_CHECK_SECONDS = 60.0

SettleCallback = Callable[[Sequence[Settlement]], Results]

_T = TypeVar("_T")


class Isolation:
    """The start marks of one subscription; see `protoflow.transport.Isolation`."""

    def __init__(self, context: SubscriptionContext, marks: StartMarks | None) -> None:
        self._listener = context.listener
        self._marks = marks
        self._broadcast = context.settings.broadcast
        self._checked = 0.0
        self._steps: set[asyncio.Task[Any]] = set()
        self._marked: Delivery | None = None  # the delivery of an ordered shard: it runs, or ends
        self._solo = SoloQueue(context, self._lost)

    @property
    def held(self) -> int:
        """The number of deliveries from the solo queue that this process holds."""
        return len(self._solo.held)

    @property
    def used(self) -> bool:
        """Whether this process had deliveries of the solo queue. A delivery whose mark is being
        written is not held, but is settled here."""
        return self._solo.session is not None

    async def begin(self) -> None:
        """Checks for messages that must run alone. Raises TransportError."""
        if self._broadcast:
            return
        self._checked = asyncio.get_running_loop().time()
        if not await self._solo.waiting():
            return
        if self._marks is not None:
            await self._solo.drain()
        else:
            self._listener.suspects_waiting()

    async def check(self, max_hold: float) -> None:
        """Is called about every second. Raises TransportError."""
        now = asyncio.get_running_loop().time()
        self._solo.expire(now - max_hold)
        if now - self._checked >= _CHECK_SECONDS and not self.held:
            await self.begin()

    async def end(self) -> None:
        """Handles the normal end of the process: no mark stays. Raises TransportError."""
        try:
            while self._steps:
                await asyncio.wait(self._steps)
        finally:
            for step in self._steps:
                step.cancel()
        if self._marks is not None and self._marked is not None:
            await self._marks.clear(self._marked)
        await self._solo.give_back()

    async def isolate(
        self, delivery: Delivery | None, settle: SettleCallback
    ) -> tuple[Delivery, int] | None:
        """See `protoflow.transport.Isolation`; `settle` is for deliveries of the shards' queues."""
        return await self._whole(self._isolate(delivery, settle))

    async def mark(self, delivery: Delivery) -> None:
        """See `protoflow.transport.Isolation`."""
        await self._whole(self._mark(delivery))

    async def clear(self, delivery: Delivery) -> None:
        """See `protoflow.transport.Isolation`."""
        await self._whole(self._clear(delivery))

    async def _whole(self, step: Coroutine[Any, Any, _T]) -> _T:
        """Completes a step even if the caller is cancelled, for example when the process ends. Half
        a step would leave a mark that is never cleared."""
        task = asyncio.get_running_loop().create_task(step)
        self._steps.add(task)
        task.add_done_callback(self._steps.discard)
        return await asyncio.shield(task)

    async def _isolate(
        self, delivery: Delivery | None, settle: SettleCallback
    ) -> tuple[Delivery, int] | None:
        if delivery is not None:
            if self._broadcast:
                return delivery, 0
            if self._marks is not None:
                return delivery, self._marks.count(delivery)
            if self._solo.holds(delivery):
                return delivery, delivery.receipt.marks
            if not delivery.receipt.session.holds(delivery):
                return None  # its lease is already lost
            await self._solo.move(delivery)
            await settle((Settlement(delivery),))
        if self._marks is not None or self._broadcast:
            return None
        found = await self._solo.take()
        return (found, found.receipt.marks) if found is not None else None

    async def _mark(self, delivery: Delivery) -> None:
        if self._marks is not None:
            self._marked = delivery
            await self._marks.write(delivery)
        elif not self._broadcast:
            await self._solo.write(delivery, delivery.receipt.marks + 1)
            if not self._solo.holds(delivery):
                raise TransportError(
                    "the message to be run alone is no longer held here", code=LEASE_LOST
                )

    async def _clear(self, delivery: Delivery) -> None:
        if self._marks is not None:
            await self._marks.clear(delivery)
            if self._marked is delivery:
                self._marked = None
        elif not self._broadcast:
            await self._solo.write(delivery, 0)

    def settle(self, settlements: Sequence[Settlement], others: SettleCallback) -> Results:
        """Settles deliveries, some of which may belong to the solo queue."""
        mine = {
            index: settlement
            for index, settlement in enumerate(settlements)
            if settlement.delivery.receipt.session is self._solo.session
        }
        if not mine:
            return others(settlements)
        rest = [each for index, each in enumerate(settlements) if index not in mine]
        return asyncio.ensure_future(self._settle(mine, others(rest), len(settlements)))

    async def _settle(
        self, mine: dict[int, Settlement], rest: Results, size: int
    ) -> Sequence[SettleResult]:
        found = dict(zip(mine, await self._solo.settle([*mine.values()]), strict=True))
        others = iter(await rest)
        return [found[index] if index in found else next(others) for index in range(size)]

    def _lost(self, delivery: Delivery) -> None:
        self._listener.deliveries_lost((delivery,))
        self._listener.suspects_waiting()
