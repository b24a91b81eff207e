"""The leases of one subscription: counted, renewed, and reported when lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, Protocol

from protoflow.message import Delivery, Message, Settlement
from protoflow.transport.interface import SubscriptionSettings
from protoflow.transports.nats.wire.headers import decode
from protoflow.transports.nats.wire.reader import Received

_NS = 1_000_000_000
#: How many times in the length of a lease it is looked at whether it must be renewed.
_SWEEPS = 60
_WORKING = b"+WPI"
NAK: Final = b"-NAK"


class Buffer(Protocol):
    """Leases that wait to be handed out."""

    def add(self, lease: Lease) -> None:
        """Puts in what arrived, or what is to be handed out again."""

    def take(self, now: float, accept: Callable[[Lease], bool]) -> bool:
        """Offers what may be handed out now, in order, until `accept` says no more; False
        then."""
        ...

    def ready(self, now: float) -> int:
        """How many could be handed out now."""
        ...

    def settled(self, lease: Lease) -> None:
        """What was handed out is done or given back."""

    def drain(self) -> list[Lease]:
        """Takes out everything, in order."""
        ...


class Source(Protocol):
    """Where messages come from, as a delivery names it."""

    @property
    def stream(self) -> str:
        """The stream."""
        ...

    @property
    def shard(self) -> str | int:
        """The shard."""
        ...

    @property
    def window(self) -> int:
        """How many messages it lends at once if they go to one process at a time, else 0."""
        ...

    @property
    def own(self) -> bool:
        """Whether only the runtime writes there: it is the group's own stream."""
        ...

    def close(self) -> None:
        """Nothing of it is handed out until it is known again what is the first of it."""

    #: How many messages of it we hold, and those of them that wait to be handed out.
    held: int
    buffer: Buffer


class Lease:
    """A message that the server lent us.

    Attributes:
        reply: where it is settled.
        source: the consumer that it came from.
        arrived: when it came.
        renewed: when it came or was last renewed.
        handed: when it was handed out; 0.0 before that.
        due: when it may be handed out again.
        sequence: where it stands in its stream.
        delivery: what is or will be handed out.
        ended: it is not ours any more.
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
        """The lease of a message as it comes."""
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>,
        # with two tokens more before that for domain and account, and one more at the end.
        _, reply, block, payload = received
        tokens = reply.decode().split(".")
        at = 4 if len(tokens) == 9 else 6
        sequence = tokens[at + 1]
        shard = source.shard
        unreadable: str | None = None
        try:
            message = decode(topic, payload, block)
        except Exception as error:  # whatever a message holds, it harms nobody else
            unreadable = f"headers: {type(error).__name__}: {error}"
            message = Message(id="", topic=topic, payload=payload)
        if not message.id:
            message.id = f"{source.stream}:{sequence}"
        delivery = Delivery(
            message=message,
            deliveries=int(tokens[at]),
            shard=shard,
            # A group's own stream counts anew: not to look like a position in the topic's.
            position=sequence if isinstance(shard, int) else f"{shard}:{sequence}",
            time=int(tokens[at + 3]) / _NS,
            size=len(block) + len(payload),
            receipt=reply,  # not the lease: a cycle a message is work for the collector
            own_place=source.own,
            unreadable=unreadable,
        )
        return cls(delivery, source, int(sequence), now)

    def again(self, settlement: Settlement, now: float) -> Lease:
        """The same message, to be handed out once more without the broker's help; who holds
        the old delivery settles nothing with it."""
        delivery = replace(
            settlement.delivery,
            failures=settlement.failures,
            first_failure=settlement.first_failure,
        )
        lease = Lease(delivery, self.source, self.sequence, self.renewed)
        lease.arrived = self.arrived
        lease.due = now + settlement.delay
        return lease


class Leases:
    """The unsettled messages of a subscription, those not yet handed out included.

    Args:
        write: sends commands to the server.
    """

    def __init__(self, settings: SubscriptionSettings, write: Callable[[bytes], None]) -> None:
        self._settings = settings
        self._write = write
        self._leases: dict[bytes, Lease] = {}
        self._bytes = 0
        self._next_sweep = 0.0
        self.handed = 0

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        return iter(tuple(self._leases.values()))

    def of(self, delivery: Delivery) -> Lease | None:
        """The lease that a delivery was handed out with; None if it is not ours any more."""
        lease = self._leases.get(delivery.receipt)
        return lease if lease is not None and lease.delivery is delivery else None

    @property
    def credit(self) -> int:
        """How many more messages there may be."""
        if self._bytes >= self._settings.max_in_flight_bytes:
            return 0
        return self._settings.max_in_flight - len(self._leases)

    def add(self, lease: Lease) -> None:
        """A message came."""
        if (old := self._leases.get(lease.reply)) is not None:
            self.release(old)
        self._leases[lease.reply] = lease
        lease.source.held += 1
        self._bytes += lease.delivery.size

    def hand_out(self, lease: Lease, now: float) -> Delivery:
        """The message is handed out."""
        lease.handed = now
        self.handed += 1
        return lease.delivery

    def release(self, lease: Lease) -> bool:
        """The message is no longer ours; False if it was not any more."""
        if lease.ended:
            return False
        lease.ended = True
        del self._leases[lease.reply]
        lease.source.held -= 1
        self._bytes -= lease.delivery.size
        if lease.handed:
            self.handed -= 1
        return True

    def sweep(self, now: float, *, connected: bool) -> list[Lease]:
        """Renews what is due, at most for `max_hold`; what was not renewed in time is lost,
        and reported. What nobody took in all that time is given back for another process."""
        settings = self._settings
        lost: list[Lease] = []
        if now < self._next_sweep:
            return lost
        self._next_sweep = now + settings.lease / _SWEEPS
        for lease in self:
            age = now - lease.renewed
            if age < settings.lease / 3:
                continue
            if age >= settings.lease:
                self.release(lease)
                lost.append(lease)
            elif not connected:
                continue
            elif now - (lease.handed or lease.arrived) <= settings.max_hold:
                self._write(encode_command(lease.reply, _WORKING))
                lease.renewed = now
            elif not lease.handed:
                self.release(lease)
                self._write(encode_command(lease.reply, NAK))
                lost.append(lease)
        return lost


def encode_command(reply: bytes, payload: bytes) -> bytes:
    """What is said to the server of a message, in the words of its protocol."""
    return b"PUB %b %d\r\n%b\r\n" % (reply, len(payload), payload)
