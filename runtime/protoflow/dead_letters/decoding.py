"""Decodes payloads of stored messages and hides their sensitive fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from protoflow import wire
from protoflow.codecs.framing import without_frame
from protoflow.codecs.payload import decode
from protoflow.codecs.plain import shown
from protoflow.contract.spec import MessageSpec
from protoflow.counted import counted
from protoflow.errors import DecodeError
from protoflow.message import Message


def decoded(message: Message, find: Callable[[str], MessageSpec | None]) -> Any:
    """Returns the payload as plain data, with sensitive fields hidden.

    Args:
        message: the message.
        find: returns the contract of a CloudEvents type.

    Returns:
        The data; a text in brackets if the type is unknown; None without a payload.
    """
    if message.payload is None:
        return None
    spec = find(message.metadata.get(wire.CE_TYPE, ""))
    if spec is None:
        return f"({counted(len(message.payload), 'byte')})"
    try:
        payload = without_frame(message.payload)
        value = decode(payload, message.metadata.get(wire.CONTENT_TYPE), spec.message_class)
    except DecodeError as error:
        return f"({error})"
    return shown(value, spec.sensitive)
