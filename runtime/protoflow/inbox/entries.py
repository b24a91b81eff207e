"""The entry of a message: what distinguishes it from every other, for one handler of one group."""

from __future__ import annotations

from typing import Final, NamedTuple

from protoflow import wire
from protoflow.context import Context
from protoflow.ids import derived_id, time_of
from protoflow.outcomes import DeadLetter

#: Characters of a source or an id that are kept as they are.
_LONGEST: Final = 200
_DAY: Final = 86400


class NoIdentity(DeadLetter):
    """The message came without an id, so it cannot be distinguished from a copy."""

    category = "no identity"


class Entry(NamedTuple):
    """What an inbox notes of a message.

    Attributes:
        day: the day that the id names, counted from the epoch; 0 where it names none. It follows
            from the id alone, so a copy that is published later has the same.
        source: the CloudEvents source; two producers may both number 1, 2, 3.
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
            "no identity: the message has no id, and the broker gives it none that stays; publish "
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
    """A text that every database takes; others are hashed, for anybody may choose them."""
    if len(text) <= _LONGEST and text.isprintable():
        return text
    return derived_id(text)
