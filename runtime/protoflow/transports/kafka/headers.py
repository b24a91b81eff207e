"""Converts record headers to metadata and back, by CloudEvents' Kafka binding.

The binding writes attributes as `ce_<attribute>`, as metadata does, so most names stay unchanged.
`protoflow.codecs.bindings.KAFKA` does the same, but this code is faster.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TypeAlias

from protoflow import wire
from protoflow.message import Message

#: A header in the form of aiokafka.
Header: TypeAlias = tuple[str, bytes | None]

_SPECVERSION: Header = (wire.CE_SPECVERSION, b"1.0")


def read(headers: Collection[Header]) -> tuple[str | None, dict[str, str], int]:
    """Returns the message id if there is one, the metadata, and the bytes of the headers.

    A value that is not text is only in the native headers.
    """
    size = 0
    for name, value in headers:
        size += len(name) + len(value or b"")
    try:
        metadata = {name: value.decode() for name, value in headers}  # type: ignore[union-attr]
    except (AttributeError, UnicodeDecodeError):  # a value is missing, or is no text
        metadata = _readable(headers)
    id = metadata.pop(wire.CE_ID, None)
    # This is the same as in `protoflow.codecs.bindings`.
    id = metadata.get(wire.WATERMILL_ID) or id or metadata.pop(wire.MESSAGE_ID, None)
    if wire.CONTENT_TYPE not in metadata:
        for name in metadata:
            if name.lower() == wire.CONTENT_TYPE:
                metadata[wire.CONTENT_TYPE] = metadata.pop(name)
                break
    return id, metadata, size


def _readable(headers: Collection[Header]) -> dict[str, str]:
    """Returns the headers whose last values are text."""
    metadata: dict[str, str] = {}
    for name, value in headers:
        if value is None:
            continue
        try:
            metadata[name] = value.decode()
        except UnicodeDecodeError:
            metadata.pop(name, None)
    return metadata


def write(message: Message) -> list[Header]:
    """Returns the headers of a message: native ones, overridden by id and metadata."""
    metadata = message.metadata
    own = wire.CE_ID
    if metadata.get(wire.CONTENT_TYPE, "")[:23].lower() == wire.CLOUDEVENTS:
        own = wire.MESSAGE_ID
    headers: list[Header] = [(own, message.id.encode())]
    if own == wire.CE_ID and wire.CE_SPECVERSION not in metadata:
        headers.append(_SPECVERSION)
    headers += [(name, value.encode()) for name, value in metadata.items() if name != own]
    native = message.headers
    if not native or not isinstance(native, tuple | list):  # those of another transport
        return headers
    return _overlay(native, headers)


def _overlay(native: Sequence[Header], wanted: list[Header]) -> list[Header]:
    """Returns `native` overridden by `wanted`. Headers with equal values stay, including
    duplicates.

    Hop state (`pf_*`) belongs to the runtime: only its current values are written. So values that
    it dropped from the metadata do not return from the native headers.
    """
    last = {_folded(name): value for name, value in native}
    same = {name for name, value in wanted if last.get(name, b"\0?") == value}
    replaced = {name for name, _ in wanted} - same
    kept = [
        header
        for header in native
        if _folded(header[0]) not in replaced
        and (header[0] in same or not header[0].startswith(wire.PF_PREFIX))
    ]
    return kept + [header for header in wanted if header[0] not in same]


def _folded(name: str) -> str:
    return wire.CONTENT_TYPE if name.lower() == wire.CONTENT_TYPE else name
