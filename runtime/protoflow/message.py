"""Messages, their deliveries, and how deliveries are settled."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Message:
    """A payload with its id, topic, key and metadata. Do not change it after creation.

    CloudEvents attributes except the id are in `metadata` as `ce_<attribute>`, and the content type
    is `content-type`. Each transport maps them to its protocol's binding.

    Attributes:
        id: the message id; never changes through retry, dead letter and replay.
        topic: the topic, namespace included.
        payload: the bytes; None is a tombstone.
        key: the partition key; None is no key.
        metadata: string pairs beside the payload.
        headers: the broker's own headers as received, opaque. A transport that publishes the
            message writes these headers, and then `metadata`, which replaces headers of the same
            name.
        delay: publishing only: seconds before the message may be delivered.
        deduplication_id: publishing only: the id by which the broker deduplicates, if it can.
        mandatory: publishing only: it is an error if no queue or stream stores the message.
    """

    id: str
    topic: str
    payload: bytes | None
    key: bytes | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    headers: Any = None  # Any: each broker client has a type of its own
    delay: float = 0.0
    deduplication_id: str | None = None
    mandatory: bool = False

    def __repr__(self) -> str:
        # Payload, key and metadata are left out: they may contain values that must not be logged.
        size = "tombstone" if self.payload is None else f"{len(self.payload)} bytes"
        return f"Message(id={self.id!r}, topic={self.topic!r}, {size})"


@dataclass(slots=True, kw_only=True, eq=False)
class Delivery:
    """One delivery of a message by the broker.

    Attributes:
        message: the message as received.
        failures: failed runs of this handler so far. A transport sets it only if its store keeps
            the count (a column of the row); the runtime itself reads `pf_attempt`.
        first_failure: the time of the first failed run, in seconds since the epoch; 0.0 if none
            failed.
        deliveries: the broker's count of hand-outs, including this one; 0 if it does not count.
        shard: the partition, shard or queue of the message; each is a lane of PER_PARTITION.
        position: the position in the shard, for people (offset, sequence, row id).
        time: the time when the broker received the message, in seconds since the epoch; 0.0 if
            unknown.
        size: bytes of payload, key and headers, as the in-flight bound counts them.
        receipt: the transport's own data for the settlement; opaque.
        hop: metadata that replaces the message's own in its retry or dead letter; tracing sets it.
        own_place: whether it comes from a place to which only the runtime writes: the group's
            own retry topic, queue, stream or row. Hop state (`pf_attempt`, `pf_due`...) in the
            metadata is used only then.
        suspect: whether the transport suspects that the message kills the process, because of a
            start mark without an end, or starts without progress. It runs alone (`Isolation`).
        anonymous: whether the message came without an id. Its id was then generated, and differs at
            every delivery.
        unreadable: why the client library or the transport could not read the message, which holds
            the readable parts; None if all was read. It is dead-lettered as received.
    """

    message: Message
    failures: int = 0
    first_failure: float = 0.0
    deliveries: int = 0
    shard: str | int = 0
    position: str | int = ""
    time: float = 0.0
    size: int = 0
    receipt: Any = None  # Any: each transport has a type of its own
    hop: Mapping[str, str] | None = None
    own_place: bool = False
    suspect: bool = False
    anonymous: bool = False
    unreadable: str | None = None

    @property
    def attempt(self) -> int:
        """The number of the run that this delivery is for, from 1."""
        return self.failures + 1


class Action(enum.IntEnum):
    """The way in which a delivery is settled."""

    ACK = 0
    NACK = 1
    RELEASE = 2


@dataclass(slots=True, eq=False)
class Settlement:
    """A delivery, and the way in which it is settled.

    Attributes:
        delivery: the delivery.
        action: ACK means done; NACK gives the message back after a failed run, for delivery after
            `delay`; RELEASE gives back unfinished work, and the broker does not count it if
            possible.
        delay: NACK only: seconds before the next delivery.
        failures: NACK and RELEASE: failed runs so far, stored if the transport can.
        first_failure: NACK and RELEASE: the time of the first failed run, in seconds since the
            epoch.
        outputs: ACK only, for transports with `atomic`: messages to be published in the same
            transaction, including a dead letter.
        others: ACK only, for transports with `atomic`: deliveries that are acknowledged in the same
            transaction. If one of them is lost, the result is LOST, and no part of the settlement
            took place.

    A settlement holds absolute values, so it can be repeated: for a delivery that is already
    settled, the answer is the same.
    """

    delivery: Delivery
    action: Action = Action.ACK
    delay: float = 0.0
    failures: int = 0
    first_failure: float = 0.0
    outputs: Sequence[Message] = ()
    others: Sequence[Delivery] = ()


class SettleResult(enum.IntEnum):
    """The result of a settlement."""

    #: The broker has stored the settlement.
    DONE = 0
    #: The delivery is no longer held here: another process has the message, or soon will. It is
    #: also used if no repetition can help, for example because the delivery's AMQP channel is
    #: closed.
    LOST = 1
    #: The settlement could not be written, or its answer was lost, and the delivery is still held.
    #: The engine repeats the same settlement until it gets another answer.
    UNKNOWN = 2
    #: Only with outputs, if the transport is `atomic`: an output was refused (too large, or no
    #: queue takes it), so no part of the settlement took place. The delivery is still held.
    REFUSED = 3
