"""Messages, their deliveries, and how deliveries are settled."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True, kw_only=True)
class Message:
    """A payload with its id, topic, key and metadata. Do not change it after creation.

    CloudEvents attributes other than the id stand in `metadata` as `ce_<attribute>`, the
    content type as `content-type`; each transport maps them to its protocol's binding.

    Attributes:
        id: the message id; never changes through retry, dead letter and replay.
        topic: the topic, namespace included.
        payload: the bytes; None is a tombstone.
        key: the partition key; None is no key.
        metadata: string pairs beside the payload.
        headers: the broker's own headers as received, opaque; a transport that publishes
            a message with headers writes these, and lays `metadata` over them by name.
        delay: publishing only: seconds before the message may be delivered.
        deduplication_id: publishing only: what the broker deduplicates by, where it can.
        mandatory: publishing only: it is an error if nobody keeps the message.
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
        # No payload, key or metadata: they may hold what must not be logged.
        size = "tombstone" if self.payload is None else f"{len(self.payload)} bytes"
        return f"Message(id={self.id!r}, topic={self.topic!r}, {size})"


@dataclass(slots=True, kw_only=True, eq=False)
class Delivery:
    """One delivery of a message by the broker.

    Attributes:
        message: the message as it came.
        failures: failed runs of this handler before. A transport sets it only where its
            store remembers (a column of the row); the runtime reads `pf_attempt` itself.
        first_failure: when the first run failed, in seconds since the epoch; 0.0 is never.
        deliveries: the broker's count of hand-outs, this one included; 0 where it counts none.
        shard: the partition, shard or queue that it came from; lanes of PER_PARTITION.
        position: where in the shard, for people (offset, sequence, row id).
        time: when the broker got the message, in seconds since the epoch; 0.0 if unknown.
        size: bytes of payload, key and headers, as the in-flight bound counts them.
        receipt: what the transport needs to settle; opaque.
        hop: metadata that a retry or dead letter of it carries in place of the message's
            own; set by tracing.
        own_place: whether it comes from a place that only the runtime writes to: the group's
            own retry topic, queue, stream or row. Hop state (`pf_attempt`, `pf_due`...) in the
            metadata is believed only then.
        suspect: the transport has a reason to take it for a message that kills the process: a
            start mark without an end, or starts without progress. It runs alone (`Isolation`).
        anonymous: the message came without an id. The one that it has was made up, and is another
            at every delivery.
        unreadable: why the client library or the transport could not read the message, which
            holds what could be read; None is that all was read. It is dead-lettered as it came.
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
    """How a delivery is settled."""

    ACK = 0
    NACK = 1
    RELEASE = 2


@dataclass(slots=True, eq=False)
class Settlement:
    """One delivery and how it is settled.

    Attributes:
        delivery: the delivery.
        action: ACK is done; NACK gives back after a failed run, for delivery after `delay`;
            RELEASE gives back work that was not finished, uncounted where the broker can.
        delay: NACK only: seconds before the next delivery.
        failures: NACK and RELEASE: failed runs so far, to be remembered where it can be.
        first_failure: NACK and RELEASE: when the first run failed, seconds since the epoch.
        outputs: ACK only, given only to transports with `atomic`: messages to be
            published in the same transaction; the dead letter is one of them.
        others: ACK only, given only to transports with `atomic`: deliveries that are
            acknowledged in the same transaction. One of them lost: the result is LOST, and
            nothing of the settlement happened.

    A settlement holds absolute values, so it can be repeated: a delivery that is settled
    already is answered as before.
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

    #: The broker has it.
    DONE = 0
    #: The delivery is no longer held here: another process has the message, or soon will. Also
    #: where no repetition can help, as when the AMQP channel of the delivery is gone.
    LOST = 1
    #: It could not be written, or its answer got lost, and the delivery is still held: the
    #: engine repeats the same settlement until the answer is another one.
    UNKNOWN = 2
    #: Only with outputs, where the transport is `atomic`: an output was refused (too large,
    #: nobody consumes it), so nothing of the settlement happened; the delivery is still held.
    REFUSED = 3
