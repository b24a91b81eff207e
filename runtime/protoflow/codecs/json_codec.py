"""JSON payloads of plain Python types: dataclasses, TypedDicts, msgspec and pydantic.

The decoder is chosen once, at registration: pydantic for its models; otherwise msgspec, pydantic's
adapter or the standard library, depending on what is installed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias, cast

from protoflow.codecs.json_text import loads
from protoflow.errors import DecodeError

#: Converts JSON bytes to a value; it may raise any exception.
Reader: TypeAlias = Callable[[bytes], Any]


@cache
def json_decoder(kind: Any) -> Callable[[bytes], Any]:
    """Returns a decoder from JSON bytes to this type; it raises DecodeError without the payload."""
    read = _reader(kind)
    name = getattr(kind, "__name__", str(kind))

    def decode(payload: bytes) -> Any:
        try:
            return read(payload)
        except Exception as error:
            # Its text may contain the payload, so it is neither repeated nor chained.
            text = f"{len(payload)} bytes are not JSON of {name} ({type(error).__name__})"
            raise DecodeError(text) from None

    return decode


def encode_json(value: Any) -> bytes:
    """Returns JSON bytes. Raises TypeError for values that have no JSON form."""
    if (dump := getattr(value, "model_dump_json", None)) is not None:
        text: str = dump()
        return text.encode()
    msgspec = _optional("msgspec")
    if msgspec is not None:
        encoded: bytes = msgspec.json.encode(value)
        return encoded
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return json.dumps(value, separators=(",", ":")).encode()


def _reader(kind: Any) -> Reader:
    if (validate := getattr(kind, "model_validate_json", None)) is not None:
        return cast("Reader", validate)
    if kind in (dict, list):
        return _of_kind(kind)
    if kind in (Any, object):
        return loads
    msgspec = _optional("msgspec")
    if msgspec is not None:
        return cast("Reader", msgspec.json.Decoder(kind).decode)
    pydantic = _optional("pydantic")
    if pydantic is not None:
        return cast("Reader", pydantic.TypeAdapter(kind).validate_json)
    return _flat_dataclass(kind) if dataclasses.is_dataclass(kind) else loads


def _of_kind(kind: type) -> Reader:
    def read(payload: bytes) -> Any:
        content = loads(payload)
        if not isinstance(content, kind):
            raise TypeError("another kind of value")
        return content

    return read


def _flat_dataclass(kind: Any) -> Reader:
    names = {item.name for item in dataclasses.fields(kind)}

    def read(payload: bytes) -> Any:
        content = loads(payload)
        if not isinstance(content, dict):
            raise TypeError("not an object")
        # Unknown fields are ignored, so a new field of a producer breaks no consumer.
        return kind(**{name: value for name, value in content.items() if name in names})

    return read


def _optional(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        return None
