"""Received messages that wait to be handed out: first in, first out, or in lanes.

JetStream redelivers a message that was given back after newer ones. So an active ordered
subscription gives nothing back: it keeps the message, and the lane waits.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from operator import attrgetter

from protoflow.contract.spec import Ordering
from protoflow.message import Delivery, Message, Settlement
from protoflow.transports.nats.wire.headers import FROM_A_SCHEDULE, decode
from protoflow.transports.nats.wire.reader import Received

_NS = 1_000_000_000
_sequence = attrgetter("sequence")


@dataclass(eq=False, repr=False, kw_only=True)
class Source:
    """The consumer of messages, as a delivery refers to it.

    Attributes:
        stream: the stream.
        shard: the shard of its deliveries.
        buffer: its messages that wait to be handed out.
        window: the number of unsettled messages of the consumer if one process at a time gets its
            messages; 0 if all processes get them.
        own: whether the stream belongs to the group, so that only the runtime writes to it.
        replays: the subject of replays among its messages; only the runtime writes to it.
        held: the number of its messages that this process holds.
    """

    stream: str
    shard: str | int
    buffer: Buffer
    window: int = 0
    own: bool = False
    replays: bytes = b""
    held: int = 0

    def close(self) -> None:
        """Hands out no message until the first message is known again."""


class Lease:
    """A message that the server delivered, with its acknowledgement deadline.

    Attributes:
        reply: the subject for its settlement.
        source: the consumer of the message.
        arrived: the time of arrival.
        renewed: the time of arrival or of the last renewal.
        handed: the time when it was handed out; 0.0 before.
        due: the earliest time to hand it out again.
        sequence: its sequence in the stream.
        delivery: the current or next delivery.
        ended: whether this process has lost it.
    """

    __slots__ = (
        "arrived", "delivery", "due", "ended", "handed", "renewed", "reply", "sequence", "source",
    )  # fmt: skip

    def __init__(self, delivery: Delivery, source: Source, sequence: int, now: float) -> None:
        self.reply: bytes = delivery.receipt
        self.source = source
        self.arrived = now
        self.renewed = now
        self.handed = 0.0
        self.due = 0.0
        self.sequence = sequence
        self.delivery = delivery
        self.ended = False

    @classmethod
    def of(cls, received: Received, source: Source, topic: str, now: float) -> Lease:
        """Returns the lease of an arriving message."""
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>,
        # with two tokens more before that for domain and account, and one more at the end.
        subject, reply, block, payload = received
        tokens = reply.decode().split(".")
        at = 4 if len(tokens) == 9 else 6
        sequence = tokens[at + 1]
        shard = source.shard
        unreadable: str | None = None
        try:
            message = decode(topic, payload, block)
        except Exception as error:  # an error in a message affects only this message
            unreadable = f"headers: {type(error).__name__}: {error}"
            message = Message(id="", topic=topic, payload=payload)
        if not message.id:
            message.id = f"{source.stream}:{sequence}"
        delivery = Delivery(
            message=message,
            deliveries=int(tokens[at]),
            shard=shard,
            # A group's own stream has other sequences, which must not look like positions in the
            # topic.
            position=sequence if isinstance(shard, int) else f"{shard}:{sequence}",
            time=int(tokens[at + 3]) / _NS,
            size=len(block) + len(payload),
            # The lease is not stored here: a cycle per message would be work for the garbage
            # collector.
            receipt=reply,
            # A publisher to a topic with schedules can make the server write to any subject of its
            # stream, but the server marks such messages.
            own_place=source.own or (subject == source.replays and FROM_A_SCHEDULE not in block),
            unreadable=unreadable,
        )
        return cls(delivery, source, int(sequence), now)

    def again(self, settlement: Settlement, now: float) -> Lease:
        """Returns a new delivery of the same message, which this process hands out again. The old
        delivery can settle nothing."""
        delivery = replace(
            settlement.delivery,
            failures=settlement.failures,
            first_failure=settlement.first_failure,
        )
        lease = Lease(delivery, self.source, self.sequence, self.renewed)
        lease.arrived = self.arrived
        lease.due = now + settlement.delay
        return lease


class Buffer:
    """A buffer without lanes: first in, first out."""

    def __init__(self) -> None:
        self._waiting: deque[Lease] = deque()

    def add(self, lease: Lease) -> None:
        """Adds a message that arrived or must be handed out again."""
        self._waiting.append(lease)

    def take(self, now: float, accept: Callable[[Lease], bool]) -> bool:
        """Offers available messages in order until `accept` returns False; then returns False."""
        waiting = self._waiting
        while waiting:
            if not accept(waiting[0]):
                return False
            waiting.popleft()
        return True

    def ready(self, now: float) -> int:
        """Returns the number of messages that could be handed out now."""
        return sum(not lease.ended for lease in self._waiting)

    def settled(self, lease: Lease) -> None:
        """Notes that a message was settled or given back."""

    def drain(self) -> list[Lease]:
        """Removes and returns all messages, in order."""
        waiting = [*self._waiting]
        self._waiting.clear()
        return waiting


class OrderedBuffer(Buffer):
    """A buffer in which a message waits for the earlier ones of its lane.

    A lane is blocked by a message that is not due, and by a later message that is handed out and
    not settled.
    """

    def __init__(self, ordering: Ordering) -> None:
        self._ordering = ordering
        self._sorted: list[Lease] = []
        self._handed: dict[Hashable, set[int]] = {}

    def add(self, lease: Lease) -> None:
        """As `Buffer.add`."""
        insort(self._sorted, lease, key=_sequence)

    def take(self, now: float, accept: Callable[[Lease], bool]) -> bool:
        """As `Buffer.take`."""
        blocked: set[Hashable] = set()
        kept: list[Lease] = []
        more = True
        for index, lease in enumerate(self._sorted):
            if lease.ended:
                continue  # the message was lost while it waited, so its lane is free
            lane = self._lane(lease)
            handed = self._handed.get(lane)
            if lane in blocked or lease.due > now or (handed and max(handed) > lease.sequence):
                blocked.add(lane)
                kept.append(lease)
            elif accept(lease):
                self._handed.setdefault(lane, set()).add(lease.sequence)
            else:
                kept += self._sorted[index:]
                more = False
                break
        self._sorted = kept
        return more

    def ready(self, now: float) -> int:
        """As `Buffer.ready`."""
        blocked: set[Hashable] = set()
        count = 0
        for lease in self._sorted:
            lane = self._lane(lease)
            if lease.ended or lane in blocked:
                continue
            handed = self._handed.get(lane)
            if lease.due > now or (handed and max(handed) > lease.sequence):
                blocked.add(lane)
            else:
                count += 1
        return count

    def settled(self, lease: Lease) -> None:
        """As `Buffer.settled`."""
        lane = self._lane(lease)
        if handed := self._handed.get(lane):
            handed.discard(lease.sequence)
            if not handed:
                del self._handed[lane]

    def drain(self) -> list[Lease]:
        """As `Buffer.drain`."""
        waiting, self._sorted = self._sorted, []
        return waiting

    def _lane(self, lease: Lease) -> Hashable:
        if self._ordering is Ordering.PER_PARTITION:
            return b""
        return lease.delivery.message.key or lease.sequence
