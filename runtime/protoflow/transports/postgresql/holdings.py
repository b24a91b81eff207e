"""What a member holds: the interface between a subscription and its kind of group."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, Protocol

from protoflow.message import Action, Delivery, Settlement
from protoflow.transports.postgresql.database import Connection
from protoflow.transports.postgresql.turn import Turn


class InClaim(NamedTuple):
    """The receipt of a message of the log, claimed by a member of a group without an order."""

    claim: int
    bucket: int
    seq: int


class InBucket(NamedTuple):
    """The receipt of a message of the log, in a bucket that the member owns."""

    bucket: int
    seq: int
    turn: int


class InWaiting(NamedTuple):
    """The receipt of a row that waited."""

    id: int
    bucket: int
    turn: int


class Holdings(Protocol):
    """Claims for a member, and settles what it claimed.

    Attributes:
        turn: taken from `lock` until the result of `write` was called.
    """

    turn: Turn

    async def fetch(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """See `QueueSource.fetch`."""
        ...

    def take_back(self) -> None:
        """Takes back the deliveries of the last `fetch`, which its caller did not get; the next
        `fetch` returns them."""

    def begin(self, settlements: Sequence[Settlement]) -> None:
        """Settlements are on their way from now on."""

    async def lock(
        self, connection: Connection, deliveries: Collection[Delivery]
    ) -> tuple[set[Delivery], str]:
        """Returns which deliveries are held, and keeps it so until the transaction ends; and
        the transaction's id."""
        ...

    async def write(
        self, connection: Connection, settlements: Sequence[Settlement]
    ) -> Callable[[], None]:
        """Settles what is held; the result is called once that is committed."""
        ...

    def end(self, settlements: Sequence[Settlement]) -> None:
        """Settlements are no longer on their way."""

    async def claimable(self) -> int:
        """See `Availability`."""
        ...

    def clear(self) -> None:
        """Everything was lost."""

    async def stop(self) -> None:
        """Claims nothing more."""

    def abort(self) -> None:
        """Claims nothing more, and waits for nothing."""


def handed_out_again(settlement: Settlement, turn: int) -> Delivery:
    """Returns the delivery of a settlement as it is handed out the next time."""
    delivery = settlement.delivery
    return dataclasses.replace(
        delivery,
        receipt=delivery.receipt._replace(turn=turn),
        failures=settlement.failures,
        first_failure=settlement.first_failure,
        deliveries=delivery.deliveries + (settlement.action is Action.NACK),
        hop=None,
    )
