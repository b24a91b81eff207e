"""Decides when deliveries are ready: they may wait until due, or while paused or too many."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from protoflow.clock import Clock
from protoflow.message import Delivery
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.reader_wakeup import ReaderWakeup
from protoflow.transports.kafka.ready_deliveries import ReadyDeliveries


class PartitionFlow:
    """Decides for each partition which messages become ready, and whether it is read further.

    A resting partition is not polled, so that aiokafka keeps its prefetched messages. (If it were
    paused in aiokafka, these would be dropped and fetched again.) Positions never move backwards.
    """

    def __init__(
        self, ready: ReadyDeliveries, clock: Clock, window: int, wakeup: ReaderWakeup
    ) -> None:
        self._ready = ready
        self._clock = clock
        self._window = window
        self._wakeup = wakeup

    def accept(self, partition: Partition, deliveries: Sequence[Delivery]) -> None:
        """Adds messages that were just read from a partition."""
        if partition.paused or partition.hold or partition.backlog:
            now = self._clock.now()
            for delivery in deliveries:  # a wrong clock of the broker must not lengthen the wait
                delivery.time = min(delivery.time, now)
            partition.backlog.extend(deliveries)
            self.flow(partition)
            return
        self._ready.put(partition, deliveries)
        if partition.is_full(self._window):
            self.throttle(partition)

    def flow(self, partition: Partition) -> None:
        """Makes messages ready that need not wait any longer."""
        if not partition.live or partition.leaving:
            return
        if not partition.paused and not partition.hold:
            self._ready.put(partition, partition.backlog)
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
        self._ready.put(partition, due)
        if backlog:
            wait = backlog[0].time - limit
            asyncio.get_running_loop().call_later(wait, self.flow, partition)

    def throttle(self, partition: Partition) -> None:
        """Stops reading a partition that has enough messages, and starts again later."""
        if not partition.live or partition.leaving:
            return
        capped_at = partition.capped_at
        if capped_at is not None and partition.handed_out <= capped_at * 3 // 4:
            self._ready.uncap(partition)
        waits = partition.paused or partition.backlog or partition.capped_at is not None
        if not partition.resting:
            partition.resting = bool(waits) or partition.is_full(self._window)
        elif not waits and not partition.is_full(self._window * 3 // 4 + 1):
            partition.resting = False
            self._wakeup.wake()

    def pause(self, partition: Partition) -> None:
        """Keeps back the messages of a partition, and stops reading it."""
        partition.paused = True
        partition.backlog.extendleft(reversed(self._ready.withdraw(partition)))
        self.throttle(partition)

    def resume(self, partition: Partition) -> None:
        """Ends `pause`."""
        partition.paused = False
        self.flow(partition)
