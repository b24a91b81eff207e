"""What a dead letter becomes when it is replayed."""

from __future__ import annotations

from protoflow import wire
from protoflow.message import Message


def replayed(letter: Message) -> Message | None:
    """The message to publish to the letter's original topic: id, payload, key and headers
    kept, hop state (`pf_*`) and so the attempts gone. None if the letter names no origin."""
    topic = letter.metadata.get(wire.PF_ORIGINAL_TOPIC)
    if not topic:
        return None
    return Message(
        id=letter.id,
        topic=topic,
        payload=letter.payload,
        key=letter.key,
        metadata={
            name: value
            for name, value in letter.metadata.items()
            if not name.startswith(wire.PF_PREFIX)
        },
        headers=letter.headers,
    )
