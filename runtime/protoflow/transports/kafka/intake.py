"""What was read on its way to the scheduler: held until due, paused, bounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from protoflow.clock import Clock
from protoflow.message import Delivery
from protoflow.transports.kafka.inbox import Inbox
from protoflow.transports.kafka.partition import Partition


class Intake:
    """Decides for each partition what goes on into the inbox and whether more is read.

    A partition that rests is not asked for; aiokafka keeps what it has prefetched of it. (Were
    it paused, aiokafka would drop that and fetch it again.) Nothing is ever sought back.
    """

    def __init__(
        self, inbox: Inbox, clock: Clock, window: int, notice_careful: Callable[[], None]
    ) -> None:
        self._inbox = inbox
        self._clock = clock
        self._window = window
        self._notice_careful = notice_careful
        self._roused: asyncio.Future[None] | None = None

    def accept(self, partition: Partition, deliveries: Sequence[Delivery]) -> None:
        """Takes what was just read of a partition."""
        if partition.paused or partition.hold or partition.careful_until or partition.backlog:
            partition.backlog.extend(deliveries)
            self.flow(partition)
            return
        self._inbox.put(deliveries)
        if partition.is_full(self._window):
            self.throttle(partition)

    def flow(self, partition: Partition) -> None:
        """Lets go on what need not wait any longer."""
        if not partition.live or partition.leaving:
            return
        if partition.careful_until:
            self._notice_careful()
        elif not partition.paused and not partition.hold:
            self._inbox.put(partition.backlog)
            partition.backlog.clear()
        elif not partition.paused:
            self._flow_due(partition)
        self.throttle(partition)

    def _flow_due(self, partition: Partition) -> None:
        backlog = partition.backlog
        limit = self._clock.now() - partition.hold
        due = []
        while backlog and backlog[0].time <= limit:
            due.append(backlog.popleft())
        self._inbox.put(due)
        if backlog:
            self._wait(partition, backlog[0].time - limit)

    def _wait(self, partition: Partition, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self.flow, partition)

    def is_due(self, partition: Partition) -> bool:
        """Whether the first message of the backlog may be handed out by now."""
        if not partition.backlog:
            return False
        wait = partition.backlog[0].time + partition.hold - self._clock.now()
        if partition.hold and wait > 0:
            self._wait(partition, wait)
            return False
        return True

    def throttle(self, partition: Partition) -> None:
        """Reads no more of a partition that waits, and more again when it does not."""
        if not partition.live or partition.leaving:
            return
        full = partition.is_full(self._window)
        if not partition.resting and (full or partition.paused or partition.backlog):
            partition.resting = True
        elif (
            partition.resting
            and not partition.paused
            and not partition.backlog
            and not partition.is_full(self._window * 3 // 4 + 1)
        ):
            partition.resting = False
            if self._roused is not None and not self._roused.done():
                self._roused.set_result(None)

    def rousing(self) -> asyncio.Future[None]:
        """Done when a partition that rests now is to be read again."""
        if self._roused is None or self._roused.done():
            self._roused = asyncio.get_running_loop().create_future()
        return self._roused

    def pause(self, partition: Partition) -> None:
        """Keeps back what is there of a partition, and reads no more."""
        partition.paused = True
        partition.backlog.extendleft(reversed(self._inbox.withdraw(partition.shard)))
        self.throttle(partition)

    def resume(self, partition: Partition) -> None:
        """Ends `pause`."""
        partition.paused = False
        self.flow(partition)
