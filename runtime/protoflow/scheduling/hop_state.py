"""Hop state: the metadata of a message that the broker retries or that is dead-lettered.

Payload and native headers stay untouched; hop state is plain metadata. Every hop writes it again.
It is only read from places to which only the runtime writes. Values of other clients under these
names are ignored and not passed on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from protoflow import wire
from protoflow.message import Delivery, Message
from protoflow.outcomes import DeadLetter, Outcome
from protoflow.pipeline import HandlerSpec

_TEXT_LIMIT = 1024
#: More failed runs than any policy allows: the runtime cannot have written a larger number.
_MOST_FAILURES = 1_000_000
#: The longest valid wait for a retry, in seconds; RetryAfter may ask for days.
LONGEST_WAIT = 30 * 86400.0
#: Names that begin like hop state but do not belong to it: a trace link, a foreign id.
_NO_HOP_STATE = frozenset({wire.PF_TRACEPARENT, wire.GO_CORRELATION_ID})


def retry_message(delivery: Delivery, spec: HandlerSpec, due: float) -> Message:
    """Returns the message to publish for a later run of this group only."""
    message = delivery.message
    return replace(
        message,
        metadata={
            **_without_hop_state(message.metadata),
            **(delivery.hop or {}),
            wire.PF_GROUP: spec.group,
            wire.PF_ATTEMPT: str(delivery.failures),
            wire.PF_FIRST_FAILURE: f"{delivery.first_failure:.3f}",
            wire.PF_ORIGINAL_TOPIC: message.topic,
            wire.PF_DUE: f"{due:.3f}",
            **({wire.PF_REPROCESS: "true"} if is_reprocessed(delivery, spec.group) else {}),
        },
        # The position is new at every hop, so a broker does not drop a replayed message as a
        # duplicate.
        deduplication_id=f"{message.id}:{spec.group}:r{delivery.failures}.{delivery.shard}/{delivery.position}",
        mandatory=True,
        delay=0.0,
    )


def dead_letter_message(
    delivery: Delivery, spec: HandlerSpec, outcome: Outcome, text: str, now: float
) -> Message:
    """Returns the dead letter for a message; `text` must not contain sensitive values."""
    cause = outcome.__cause__ or outcome
    category = outcome.category if isinstance(outcome, DeadLetter) else "other"
    metadata = {
        **_without_hop_state(delivery.message.metadata),
        **(delivery.hop or {}),
        **_origin(delivery, spec, now),
        wire.PF_ERROR_CLASS: category,
        wire.PF_ERROR_TYPE: as_utf8(type(cause).__name__),
        wire.PF_ERROR_MESSAGE: as_utf8(text),
    }
    if delivery.first_failure:
        metadata[wire.PF_FIRST_FAILURE] = f"{delivery.first_failure:.3f}"
    if delivery.deliveries:
        metadata[wire.PF_DELIVERIES] = str(delivery.deliveries)
    return _addressed(delivery, spec, metadata)


def smallest_dead_letter(dead_letter: Message) -> Message:
    """Returns a dead letter with minimal metadata, after the broker refused it as too large."""
    kept = (
        wire.PF_DEAD_LETTER,
        wire.PF_GROUP,
        wire.PF_ORIGINAL_TOPIC,
        wire.PF_ORIGINAL_SOURCE,
        wire.PF_ORIGINAL_SHARD,
        wire.PF_ORIGINAL_POSITION,
        wire.PF_ERROR_CLASS,
        wire.CE_TYPE,
        wire.CE_SOURCE,
        wire.CONTENT_TYPE,
    )
    metadata = {name: dead_letter.metadata[name] for name in kept if name in dead_letter.metadata}
    return replace(dead_letter, metadata=metadata, headers=None)


def stub(delivery: Delivery, spec: HandlerSpec, category: str, now: float) -> Message:
    """Returns a dead letter with only the topic, shard and position of the message.

    It is used for a message that cannot be dead-lettered in another way.
    """
    metadata = {
        **_origin(delivery, spec, now),
        wire.PF_ERROR_CLASS: "stub",
        wire.PF_ERROR_TYPE: category,
        wire.PF_ERROR_MESSAGE: "the message could not be written as a dead letter; it is at "
        f"{spec.topic}, shard {delivery.shard}, position {delivery.position}",
    }
    message = _addressed(delivery, spec, metadata)
    # An empty payload: with no payload and no key it would be a tombstone, which Kafka refuses.
    return replace(message, id=as_utf8(message.id, 200), payload=b"", key=None, headers=None)


def stub_of(dead_letter: Message, delivery: Delivery, spec: HandlerSpec, now: float) -> Message:
    """Returns the stub of a refused dead letter; it keeps the class of the cause."""
    made = stub(delivery, spec, dead_letter.metadata.get(wire.PF_ERROR_TYPE, ""), now)
    error_class = dead_letter.metadata.get(wire.PF_ERROR_CLASS, "stub")
    return replace(made, metadata={**made.metadata, wire.PF_ERROR_CLASS: error_class})


def as_utf8(text: str, limit: int = _TEXT_LIMIT) -> str:
    """Returns an error text that every broker accepts: valid UTF-8, cut to a number of bytes."""
    return text.encode(errors="replace")[:limit].decode(errors="ignore")


def _origin(delivery: Delivery, spec: HandlerSpec, now: float) -> dict[str, str]:
    origin = {
        wire.PF_DEAD_LETTER: "true",
        wire.PF_GROUP: spec.group,
        wire.PF_HANDLER: spec.name,
        wire.PF_ATTEMPT: str(delivery.failures),
        wire.PF_ORIGINAL_TOPIC: delivery.message.topic,
        wire.PF_ORIGINAL_SHARD: str(delivery.shard),
        wire.PF_ORIGINAL_POSITION: str(delivery.position),
        wire.PF_DEAD_LETTERED_AT: f"{now:.3f}",
    }
    if spec.source:
        origin[wire.PF_ORIGINAL_SOURCE] = spec.source
    if delivery.time:
        origin[wire.PF_ORIGINAL_TIME] = f"{delivery.time:.3f}"
    return origin


def _without_hop_state(metadata: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in metadata.items()
        if not name.startswith(wire.PF_PREFIX) or name in _NO_HOP_STATE
    }


def _addressed(delivery: Delivery, spec: HandlerSpec, metadata: dict[str, str]) -> Message:
    message = delivery.message
    return replace(
        message,
        topic=spec.dead_letter_topic,
        metadata=metadata,
        deduplication_id=f"{message.id}:{spec.group}:d{message.topic}/{delivery.shard}/{delivery.position}",
        mandatory=True,
        delay=0.0,
    )


def failures_of(delivery: Delivery, group: str) -> tuple[int, float]:
    """Returns the failed runs of this group that a message from one of the runtime's own places
    names, and the time of the first. The values count only together with the name of this group,
    and not on a dead letter."""
    metadata = delivery.message.metadata
    if (
        not delivery.own_place
        or metadata.get(wire.PF_GROUP) != group
        or wire.PF_DEAD_LETTER in metadata
    ):
        return 0, 0.0
    failures = _number(metadata.get(wire.PF_ATTEMPT), _MOST_FAILURES)
    return int(failures), _number(metadata.get(wire.PF_FIRST_FAILURE), math.inf)


def is_reprocessed(delivery: Delivery, group: str) -> bool:
    """Whether an operator asked to handle a message again although the inbox has recorded it."""
    metadata = delivery.message.metadata
    return (
        delivery.own_place
        and wire.PF_REPROCESS in metadata
        and metadata.get(wire.PF_GROUP) == group
    )


def wait_of(delivery: Delivery, group: str, now: float) -> float:
    """Returns the seconds until a retried message is due; 0.0 or less means now."""
    metadata = delivery.message.metadata
    if not delivery.own_place or metadata.get(wire.PF_GROUP) != group:
        return 0.0
    return min(_number(metadata.get(wire.PF_DUE), math.inf) - now, LONGEST_WAIT)


def _number(text: str | None, most: float) -> float:
    try:
        number = float(text or 0)
    except ValueError:
        return 0.0  # foreign text must not cause an error here
    return number if math.isfinite(number) and 0.0 <= number <= most else 0.0
