"""Converts messages to entries of an outbox, and back."""

from __future__ import annotations

import json
import time
from typing import Any, Final, NamedTuple

from protoflow.codecs.framing import HEADER, header_of
from protoflow.errors import PublishRefusedError
from protoflow.message import Message
from protoflow.outbox.store import Pending

#: The name in the stored metadata for a frame that is sent in a binary header.
_FRAME: Final = "pf_frame"


class Entry(NamedTuple):
    """A message as the columns of a row.

    Attributes:
        id, topic, payload, key: as in the message.
        metadata: a JSON object; with it the frame of a schema registry, if it is in a header.
        due: the earliest time of delivery, in seconds since the epoch; 0.0 means immediately.
        stored: the time of writing.
    """

    id: str
    topic: str
    payload: bytes | None
    key: bytes | None
    metadata: str
    due: float
    stored: float


def entry_of(message: Message) -> Entry:
    """Returns the entry of a message. Raises PublishRefusedError if it cannot be stored."""
    now = time.time()
    try:
        metadata = dict(message.metadata)
        if message.headers and (frame := _frame_of(message.headers)) is not None:
            metadata[_FRAME] = frame.decode("latin-1")
        "".join([*metadata, *metadata.values()])  # the values are strings
        for value in (message.payload, message.key):
            if value is not None:
                memoryview(value)
        for text in (message.id, message.topic):
            text.encode()  # databases refuse lone surrogates
            if "\0" in text:
                raise ValueError("it contains a NUL")
        due = now + message.delay if message.delay else 0.0
    except (TypeError, ValueError, AttributeError) as error:
        raise PublishRefusedError(
            f"message {message.id!r} for {message.topic!r} cannot be stored: {error}"
        ) from error
    return Entry(
        message.id, message.topic, message.payload, message.key, json.dumps(metadata), due, now
    )


def pending_of(
    position: int, id: str, topic: str, payload: Any, key: Any, metadata: str, due: float
) -> Pending:
    """Returns the message of a row, and the error in it."""
    flaw = None
    try:
        decoded = json.loads(metadata)
        "".join([*decoded, *decoded.values()])
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        decoded, flaw = {}, f"its metadata cannot be read ({type(error).__name__})"
    headers = None
    if _FRAME in decoded:
        headers = ((HEADER, decoded.pop(_FRAME).encode("latin-1", "replace")),)
    message = Message(
        id=id,
        topic=topic,
        payload=payload,
        key=key,
        metadata=decoded,
        headers=headers,
        delay=max(0.0, due - time.time()) if due else 0.0,
        deduplication_id=f"{id}:{topic}",
    )
    return Pending(position, message, flaw)


def _frame_of(headers: Any) -> bytes | None:
    """Returns the frame that this process made; the headers of a received message are not kept."""
    return header_of(headers) if isinstance(headers, tuple) and len(headers) == 1 else None
