"""Messages as commands print them: decoded by the contract, with sensitive fields hidden."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from protoflow import wire
from protoflow.codecs.printable import printable
from protoflow.contract.catalog import Catalog
from protoflow.dead_letters.decoding import decoded
from protoflow.errors import DecodeError
from protoflow.message import Message
from protoflow.stats.dead_letters import timestamp

if TYPE_CHECKING:
    from protoflow.connection import Connection

_LONGEST = 200


def opener(
    connection: Connection, topic: str, catalog: Catalog
) -> Callable[[Message], Awaitable[Message]]:
    """Returns what takes frames of a schema registry off messages that name no type; a broken
    frame stays."""
    framed = connection.message_publisher.framed
    if framed is None or not framed.registry.of_topic(topic).enabled:
        return _as_it_is
    from protoflow.schema_registry.frame_reader import FrameReader

    types = {one.message_class.DESCRIPTOR.full_name: one.type for one in catalog.messages.values()}
    reader = FrameReader(framed.registry, types)

    async def opened(message: Message) -> Message:
        try:
            return await reader.learned(message)
        except DecodeError:
            return message

    return opened


async def _as_it_is(message: Message) -> Message:
    return message


def payload(message: Message, catalog: Catalog) -> Any:
    """Returns the message as plain data; a text in brackets if the contract lacks its type."""
    return decoded(message, catalog.message)


def as_dict(message: Message, time: float, position: str, catalog: Catalog) -> dict[str, Any]:
    """Returns a message for `--json`."""
    return {
        "time": timestamp(time) or "-",
        "id": message.id,
        "type": message.metadata.get(wire.CE_TYPE, ""),
        "key": key_text(message.key),
        "position": position,
        "payload": payload(message, catalog),
    }


def line(fields: dict[str, Any]) -> str:
    """Returns the message on one line, for people."""
    value = fields["payload"]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    parts = [fields["time"], fields["id"], fields["type"] or "-", fields["key"] or "-"]
    return "  ".join(printable(part, _LONGEST) for part in parts) + f"  {printable(text, 10_000)}"


def key_text(key: bytes | None) -> str | None:
    """Returns a key as text, or as hexadecimal if it is not text."""
    if key is None:
        return None
    try:
        text = key.decode()
    except UnicodeDecodeError:
        return f"0x{key.hex()}"
    return text if text.isprintable() else f"0x{key.hex()}"
