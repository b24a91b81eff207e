"""The leases of one subscription: counted, renewed, and reported when lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from protoflow.message import Delivery
from protoflow.transport.interface import SubscriptionSettings
from protoflow.transports.nats.jetstream.buffers import Lease

#: The number of checks for renewal in the time of one lease.
_SWEEPS = 60
_WORKING = b"+WPI"
NAK: Final = b"-NAK"


class Leases:
    """The unsettled messages of a subscription, including those not handed out yet.

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
        """Returns the lease of a delivery; None if this process has lost it."""
        lease = self._leases.get(delivery.receipt)
        return lease if lease is not None and lease.delivery is delivery else None

    @property
    def credit(self) -> int:
        """Returns how many more messages may arrive."""
        if self._bytes >= self._settings.max_in_flight_bytes:
            return 0
        return self._settings.max_in_flight - len(self._leases)

    def add(self, lease: Lease) -> None:
        """Adds an arrived message."""
        if (old := self._leases.get(lease.reply)) is not None:
            self.release(old)
        self._leases[lease.reply] = lease
        lease.source.held += 1
        self._bytes += lease.delivery.size

    def hand_out(self, lease: Lease, now: float) -> Delivery:
        """Notes that the message is handed out."""
        lease.handed = now
        self.handed += 1
        return lease.delivery

    def release(self, lease: Lease) -> bool:
        """Removes a message; returns False if it was lost before."""
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
        """Renews leases that are due, for at most `max_hold`. Leases that were not renewed in time
        are lost and reported. Messages that no receiver took in all that time are given back for
        another process."""
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
    """Returns the protocol command about a message."""
    return b"PUB %b %d\r\n%b\r\n" % (reply, len(payload), payload)
