"""The entry of a message: its unique identity for one handler of one group."""

from __future__ import annotations

from typing import Final, NamedTuple

from protoflow import wire
from protoflow.context import Context
from protoflow.ids import derived_id, time_of
from protoflow.outcomes import DeadLetter

#: This many characters of a source or an id are kept unchanged.
_LONGEST: Final = 200
_DAY: Final = 86400


class NoIdentity(DeadLetter):
    """The message came without an id, so it cannot be distinguished from a copy."""

    category = "no identity"


class Entry(NamedTuple):
    """The data of a message that an inbox records.

    Attributes:
        day: the day in the id, counted from the epoch; 0 if the id has none. It only depends on the
            id, so a copy that is published later has the same day.
        source: the CloudEvents source, because two producers may both use the ids 1, 2, 3.
        id: the message id.
    """

    day: int
    source: str
    id: str


def entry_of(context: Context) -> Entry:
    """Returns the entry of a message. Raises NoIdentity."""
    delivery = context.delivery
    if delivery.anonymous:
        raise NoIdentity(
            "no identity: the message has no id, and the broker gives it no permanent one; publish "
            "it with the CloudEvents attribute id"
        )
    message = context.message
    time = time_of(message.id)
    return Entry(
        int(time // _DAY) if time is not None else 0,
        _storable(message.metadata.get(wire.CE_SOURCE, "")),
        _storable(message.id),
    )


def _storable(text: str) -> str:
    """Returns a text that every database accepts: long ones are hashed."""
    if len(text) <= _LONGEST and text.isprintable():
        return text
    return derived_id(text)
