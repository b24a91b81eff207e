"""What the server lent to one subscription: counted, renewed, and noticed when lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final, Protocol

from nats.aio.msg import Msg

from protoflow.message import Delivery, Settlement
from protoflow.transport import SubscriptionSettings
from protoflow.transports.nats import headers as wire_headers

_NS = 1_000_000_000
_WORKING = b"+WPI"
NAK: Final = b"-NAK"


class Source(Protocol):
    """Where messages come from, as a delivery tells it."""

    @property
    def stream(self) -> str:
        """The stream."""
        ...

    @property
    def shard(self) -> str | int:
        """The shard."""
        ...

    #: How many messages of it we hold.
    held: int


class Lease:
    """A message that the server lent us.

    Attributes:
        message: as it came.
        source: the consumer that it came from.
        arrived: when it came.
        renewed: when it came or was last renewed.
        handed: when it was handed out; 0.0 before that.
        due: when it may be handed out again.
        sequence: where it stands in its stream.
        delivery: what is or will be handed out.
    """

    __slots__ = ("arrived", "delivery", "due", "handed", "message", "renewed", "sequence", "source")

    def __init__(self, message: Msg, source: Source, now: float, delivery: Delivery) -> None:
        self.message = message
        self.source = source
        self.arrived = now
        self.renewed = now
        self.handed = 0.0
        self.due = 0.0
        self.sequence = 0
        self.delivery = delivery

    @classmethod
    def of(cls, message: Msg, source: Source, topic: str, now: float) -> Lease:
        """The lease of a message as it comes."""
        delivery, sequence = _delivery(message, source, topic)
        lease = cls(message, source, now, delivery)
        lease.sequence = sequence
        return lease

    def again(self, settlement: Settlement, now: float) -> Lease:
        """The same message, to be handed out once more without the broker's help; who holds
        the old delivery settles nothing with it."""
        delivery = replace(
            settlement.delivery,
            failures=settlement.failures,
            first_failure=settlement.first_failure,
        )
        lease = Lease(self.message, self.source, self.renewed, delivery)
        lease.arrived = self.arrived
        lease.sequence = self.sequence
        lease.due = now + settlement.delay
        return lease


def _delivery(message: Msg, source: Source, topic: str) -> tuple[Delivery, int]:
    # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>,
    # with two tokens more before that for domain and account, and one more at the end.
    tokens = message.reply.split(".")
    at = 4 if len(tokens) == 9 else 6
    sequence, headers = tokens[at + 1], message.headers
    # A group's own stream counts anew: the position must not look like one of the topic's.
    position = sequence if isinstance(source.shard, int) else f"{source.shard}:{sequence}"
    fallback = f"{source.stream}:{sequence}"
    delivery = Delivery(
        message=wire_headers.decode(topic, message.data, headers, fallback),
        deliveries=int(tokens[at]),
        shard=source.shard,
        position=position,
        time=int(tokens[at + 3]) / _NS,
        size=len(message.data) + (sum(map(len, headers.values())) if headers else 0),
        receipt=message.reply,  # not the lease: a cycle a message is work for the collector
    )
    return delivery, int(sequence)


class Leases:
    """The unsettled messages of a subscription, those not yet handed out included.

    Args:
        send: publishes a payload to an acknowledgement subject.
    """

    def __init__(self, settings: SubscriptionSettings, send: Callable[[str, bytes], None]) -> None:
        self._settings = settings
        self._send = send
        self._leases: dict[str, Lease] = {}
        self._bytes = 0
        self.handed = 0

    def __len__(self) -> int:
        return len(self._leases)

    def __iter__(self) -> Iterator[Lease]:
        return iter(tuple(self._leases.values()))

    def __contains__(self, lease: Lease) -> bool:
        return self._leases.get(lease.message.reply) is lease

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
        self._leases[lease.message.reply] = lease
        lease.source.held += 1
        self._bytes += lease.delivery.size

    def hand(self, lease: Lease, now: float) -> Delivery:
        """The message is handed out."""
        lease.handed = now
        self.handed += 1
        return lease.delivery

    def release(self, lease: Lease) -> bool:
        """The message is no longer ours; False if it was not any more."""
        if lease not in self:
            return False
        del self._leases[lease.message.reply]
        lease.source.held -= 1
        self._bytes -= lease.delivery.size
        if lease.handed:
            self.handed -= 1
        return True

    def sweep(self, now: float, *, connected: bool) -> list[Lease]:
        """Renews what is due, at most for `max_hold`; what was not renewed in time is lost,
        and told. What nobody took in all that time is given back for another process."""
        settings = self._settings
        lost: list[Lease] = []
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
                self._send(lease.message.reply, _WORKING)
                lease.renewed = now
            elif not lease.handed:
                self.release(lease)
                self._send(lease.message.reply, NAK)
        return lost
