"""What is written on a message that is retried by the broker or dead-lettered.

Payload and native headers stay untouched; hop state is plain metadata.
"""

from __future__ import annotations

from dataclasses import replace

from protoflow import wire
from protoflow.message import Delivery, Message
from protoflow.outcomes import DeadLetter, Outcome
from protoflow.pipeline import HandlerSpec

_TEXT_LIMIT = 1024


def retry_message(delivery: Delivery, spec: HandlerSpec, due: float) -> Message:
    """The message as it is published for a later run of this group alone."""
    message = delivery.message
    return replace(
        message,
        metadata={
            **message.metadata,
            **(delivery.hop or {}),
            wire.PF_GROUP: spec.group,
            wire.PF_ATTEMPT: str(delivery.failures),
            wire.PF_FIRST_FAILURE: f"{delivery.first_failure:.3f}",
            wire.PF_ORIGINAL_TOPIC: message.topic,
            wire.PF_DUE: f"{due:.3f}",
        },
        # The position is new at every hop, so a replayed message is not swallowed.
        deduplication_id=f"{message.id}:{spec.group}:r{delivery.failures}.{delivery.shard}/{delivery.position}",
        mandatory=True,
        delay=0.0,
    )


def dead_letter(
    delivery: Delivery, spec: HandlerSpec, outcome: Outcome, text: str, now: float
) -> Message:
    """The message as it is dead-lettered; `text` must hold nothing sensitive."""
    message = delivery.message
    cause = outcome.__cause__ or outcome
    category = outcome.category if isinstance(outcome, DeadLetter) else "other"
    letter = {
        **message.metadata,
        **(delivery.hop or {}),
        wire.PF_DEAD_LETTER: "true",
        wire.PF_GROUP: spec.group,
        wire.PF_HANDLER: spec.name,
        wire.PF_ATTEMPT: str(delivery.failures),
        wire.PF_ORIGINAL_TOPIC: message.topic,
        wire.PF_ORIGINAL_SHARD: str(delivery.shard),
        wire.PF_ORIGINAL_POSITION: str(delivery.position),
        wire.PF_ERROR_CLASS: category,
        wire.PF_ERROR_TYPE: type(cause).__name__,
        wire.PF_ERROR_MESSAGE: text.encode()[:_TEXT_LIMIT].decode(errors="ignore"),
        wire.PF_DEAD_LETTERED_AT: f"{now:.3f}",
    }
    if delivery.time:
        letter[wire.PF_ORIGINAL_TIME] = f"{delivery.time:.3f}"
    if delivery.first_failure:
        letter[wire.PF_FIRST_FAILURE] = f"{delivery.first_failure:.3f}"
    if delivery.deliveries:
        letter[wire.PF_DELIVERIES] = str(delivery.deliveries)
    letter.pop(wire.PF_DUE, None)
    return _addressed(message, spec, letter, delivery)


def least_letter(letter: Message) -> Message:
    """The letter with the least metadata, for when it was refused for its size."""
    kept = (
        wire.PF_DEAD_LETTER,
        wire.PF_GROUP,
        wire.PF_ORIGINAL_TOPIC,
        wire.PF_ERROR_CLASS,
        wire.CE_TYPE,
        wire.CE_SOURCE,
        wire.CONTENT_TYPE,
    )
    metadata = {name: letter.metadata[name] for name in kept if name in letter.metadata}
    return replace(letter, metadata=metadata, headers=None)


def _addressed(
    message: Message, spec: HandlerSpec, metadata: dict[str, str], delivery: Delivery
) -> Message:
    return replace(
        message,
        topic=spec.dead_letter_topic,
        metadata=metadata,
        deduplication_id=f"{message.id}:{spec.group}:d{message.topic}/{delivery.shard}/{delivery.position}",
        mandatory=True,
        delay=0.0,
    )


def failures_of(message: Message, group: str) -> tuple[int, float]:
    """Failed runs of this group that the message tells of, and when the first was. They
    are believed only beside the name of this group, and not on a dead letter."""
    metadata = message.metadata
    if metadata.get(wire.PF_GROUP) != group or wire.PF_DEAD_LETTER in metadata:
        return 0, 0.0
    return int(_number(metadata.get(wire.PF_ATTEMPT))), _number(metadata.get(wire.PF_FIRST_FAILURE))


def due_of(message: Message, group: str) -> float:
    """When a message that waits for a retry is due, in seconds since the epoch; 0.0: now."""
    if message.metadata.get(wire.PF_GROUP) != group:
        return 0.0
    return _number(message.metadata.get(wire.PF_DUE))


def _number(text: str | None) -> float:
    try:
        return max(0.0, float(text or 0))
    except ValueError:
        return 0.0  # foreign text: not ours to fail on
