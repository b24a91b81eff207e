"""Limits the messages of one partition in flight, so that others still get room."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from aiokafka import TopicPartition

from protoflow.transport.interface import SubscriptionSettings
from protoflow.transports.kafka.partition import Partition

#: A quarter of the limits stays free, because the scheduler only requests more from there on.
_QUARTER = 4


class FairShare:
    """Divides the limits of a subscription's messages in flight among its partitions.

    A quarter of the limits is divided evenly, so that each partition has a fixed part. Half is
    shared: a partition gets at most three times as much of it as it leaves to the others. So a
    single busy partition fills about half of the limits, and even if many partitions are blocked,
    the next one still gets messages. If there is only one partition, it has no limit of its own.

    Args:
        settings: the subscription, whose `max_in_flight` and `max_in_flight_bytes` are divided.
        partitions: its partitions in this process.
    """

    def __init__(
        self, settings: SubscriptionSettings, partitions: Mapping[TopicPartition, Partition]
    ) -> None:
        self._by_tp = partitions
        self._count = count = settings.max_in_flight
        self._bytes = settings.max_in_flight_bytes
        self._reserve = max(1, min(count // _QUARTER, count - settings.concurrency))
        # Limits are not divided if half of them would leave handlers idle.
        self._least = settings.concurrency if count < 2 * settings.concurrency else 1

    @property
    def partitions(self) -> Collection[Partition]:
        """The partitions that share."""
        return self._by_tp.values()

    def of(self, partition: Partition, count: int, free: int, free_bytes: int) -> int:
        """Returns how many of `count` ready messages of a partition may be handed out.

        Args:
            partition: the partition of the messages.
            count: the number of its ready messages.
            free: the number of requested messages, which is at most what the limits allow.
            free_bytes: the same in bytes.
        """
        held, mean = partition.handed_out, partition.mean_size
        room = _more(held, 0, free - self._count / 2)
        if mean:
            room = min(room, _more(held * mean, 0, free_bytes - self._bytes / 2) / mean)
        if room >= count:
            return count  # there is room, regardless of the other partitions
        sharing = [item for item in self.partitions if not item.own or item.unsettled]
        if len(sharing) < 2:
            return count
        own = max(1, self._count // _QUARTER // len(sharing))
        shared = self._count - self._reserve - own * len(sharing)
        most = _more(held, own, shared - _above(own, [item.handed_out for item in sharing]))
        if mean:
            own_bytes = self._bytes / _QUARTER / len(sharing)
            sizes = [item.handed_out * item.mean_size for item in sharing]
            left = self._bytes / 2 - _above(own_bytes, sizes)
            most = min(most, _more(held * mean, own_bytes, left) / mean)
        return min(count, max(int(most), int(room), self._least - held))


def _above(own: float, held: Sequence[float]) -> float:
    """Returns how much of the shared part is in use."""
    return sum(max(0, item - own) for item in held)


def _more(held: float, own: float, left: float) -> float:
    """Returns a partition's own part, and three quarters of the shared part that is left."""
    return max(0, own - held) + max(0, (3 * left - max(0, held - own)) / 4)
