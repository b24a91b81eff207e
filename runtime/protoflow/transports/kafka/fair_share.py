"""How much of one partition may be in flight, so that a blocked one leaves room for others."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from aiokafka import TopicPartition

from protoflow.transport.interface import SubscriptionSettings
from protoflow.transports.kafka.partition import Partition

#: This share of the bounds stays free: the scheduler asks for more only when so much is.
_RESERVE = 4


class FairShare:
    """Bounds what is handed out of a partition by twice what is free beside the reserve.

    One partition alone gets half of the bounds. Each further one that is blocked takes less than
    the one before, so that something is always left for those that are not; partitions that are
    idle count for nothing. With one partition there is no bound.

    Args:
        settings: the subscription, whose `max_in_flight` and `max_in_flight_bytes` are shared.
        partitions: its partitions in this process.
    """

    def __init__(
        self, settings: SubscriptionSettings, partitions: Mapping[TopicPartition, Partition]
    ) -> None:
        self._by_tp = partitions
        self._count = count = settings.max_in_flight
        self._bytes = settings.max_in_flight_bytes
        self._reserve = max(1, min(count // _RESERVE, count - settings.concurrency))
        self._reserve_bytes = self._bytes // _RESERVE
        # Bounds so tight that half of them would leave handlers idle are not shared.
        self._least = settings.concurrency if count < 2 * settings.concurrency else 1

    @property
    def partitions(self) -> Collection[Partition]:
        """The partitions that share."""
        return self._by_tp.values()

    def of(self, partition: Partition, count: int, free: int, free_bytes: int) -> int:
        """How many of `count` ready messages of a partition may be handed out.

        Args:
            partition: whose they are.
            count: how many there are.
            free: how many messages are asked for; at most as many as are free.
            free_bytes: the same in bytes.
        """
        most = self._most(partition, free, free_bytes)
        if most >= count or not self._is_shared():
            return count
        used = size = 0.0
        for item in self._by_tp.values():
            handed_out = item.handed_out
            used += handed_out
            size += handed_out * item.mean_size
        return min(count, self._most(partition, self._count - used, self._bytes - size))

    def _most(self, partition: Partition, free: float, free_bytes: float) -> int:
        held = partition.handed_out
        most = (2 * (free - self._reserve) - held) / 3
        mean = partition.mean_size
        if mean:
            room = 2 * (free_bytes - self._reserve_bytes) - held * mean
            most = min(most, room / (3 * mean))
        return max(int(most), self._least - held)

    def _is_shared(self) -> bool:
        """Whether more than one partition has messages, or may get some."""
        sharing = 0
        for partition in self._by_tp.values():
            if not partition.own or partition.unsettled:
                sharing += 1
                if sharing > 1:
                    return True
        return False
