"""JSON payloads of plain Python types: dataclasses, TypedDicts, msgspec and pydantic.

The decoder is chosen once, at registration: pydantic for its models, else msgspec where it
is installed, else pydantic's adapter, else the standard library.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import cache
from typing import Any

from protoflow.errors import DecodeError


@cache
def json_decoder(kind: Any) -> Callable[[bytes], Any]:
    """A function from JSON bytes to this type; it raises DecodeError, without the payload."""
    read, errors = _reader(kind)
    name = getattr(kind, "__name__", str(kind))

    def decode(payload: bytes) -> Any:
        try:
            return read(payload)
        except errors as error:
            raise DecodeError(f"{len(payload)} bytes are no JSON of {name}") from _cause(error)

    return decode


def encode_json(value: Any) -> bytes:
    """JSON bytes. Raises TypeError for what has no JSON form."""
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


def _reader(kind: Any) -> tuple[Callable[[bytes], Any], tuple[type[Exception], ...]]:
    if (validate := getattr(kind, "model_validate_json", None)) is not None:
        return validate, (ValueError,)
    if kind in (Any, dict, list, object):
        return json.loads, (ValueError, RecursionError)
    msgspec = _optional("msgspec")
    if msgspec is not None:
        return msgspec.json.Decoder(kind).decode, (msgspec.DecodeError, ValueError)
    pydantic = _optional("pydantic")
    if pydantic is not None:
        return pydantic.TypeAdapter(kind).validate_json, (ValueError,)
    if dataclasses.is_dataclass(kind):
        return _flat_dataclass(kind), (ValueError, TypeError, RecursionError)
    return json.loads, (ValueError, RecursionError)


def _flat_dataclass(kind: Any) -> Callable[[bytes], Any]:
    names = {item.name for item in dataclasses.fields(kind)}

    def read(payload: bytes) -> Any:
        content = json.loads(payload)
        if not isinstance(content, dict):
            raise TypeError("not an object")
        # Tolerant, as everywhere: a new field of a producer breaks no consumer.
        return kind(**{name: value for name, value in content.items() if name in names})

    return read


def _cause(error: Exception) -> Exception | None:
    # pydantic quotes the input in its errors, which must not reach a log.
    return None if hasattr(error, "errors") else error


def _optional(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        return None
