"""Messages as trees of fields, and the fields in which two trees differ."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from google.protobuf.message import Message as ProtoMessage

from protoflow import wire
from protoflow.codecs.payload import decode
from protoflow.codecs.sensitive import Sensitive, inside, is_any, is_hidden
from protoflow.contract.spec import MessageSpec
from protoflow.errors import DecodeError
from protoflow.message import Message

#: Stands for a field that one side does not have.
ABSENT: Final = "(absent)"
_HIDDEN: Final = "***"
_TIMES: Final = ("google.protobuf.Timestamp", "google.protobuf.Duration")


class Hidden:
    """A value that is compared and not shown."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class FieldDifference(NamedTuple):
    """A field in which two messages differ; values that are not shown are `***`."""

    path: str
    old: Any
    new: Any
    in_payload: bool = False


def tree_of(
    message: Message, find: Callable[[str], MessageSpec | None], *, payload: bool = True
) -> dict[str, Any]:
    """Returns everything of an output that consumers see. A payload of an unknown type is compared
    and not shown."""
    metadata: dict[str, Any] = {
        name: value for name, value in message.metadata.items() if name != wire.CE_TYPE
    }
    tree: dict[str, Any] = {"topic": message.topic, "id": message.id, "key": _text(message.key)}
    if message.delay:
        tree["delay"] = message.delay
    content = _payload(message, find) if payload else {}
    if isinstance(content, dict):
        return {**content, _ROOT: {**tree, "metadata": metadata}}
    return {_ROOT: {**tree, "payload": content, "metadata": metadata}}


#: The part of a tree that is beside the payload; its fields have no prefix either.
_ROOT: Final = "\0"


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[FieldDifference]:
    """Yields the differing fields of two trees: first those beside the payload."""
    yield from _walk(old.get(_ROOT), new.get(_ROOT), "")
    rest = [{name: tree[name] for name in tree if name != _ROOT} for tree in (old, new)]
    for each in _walk(rest[0], rest[1], ""):
        yield each._replace(in_payload=True)


def _walk(old: Any, new: Any, path: str) -> Iterator[FieldDifference]:
    if isinstance(old, Hidden) and isinstance(new, Hidden):
        if any(True for _ in _walk(old.value, new.value, path)):
            yield FieldDifference(path, _HIDDEN, _HIDDEN)
    elif isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys((*old, *new)):
            inner = f"{path}.{name}" if path else name
            yield from _walk(old.get(name, ABSENT), new.get(name, ABSENT), inner)
    elif isinstance(old, list) and isinstance(new, list):
        for index in range(max(len(old), len(new))):
            sides = [side[index] if index < len(side) else ABSENT for side in (old, new)]
            yield from _walk(sides[0], sides[1], f"{path}[{index}]")
    elif old != new and not (old != old and new != new):  # two NaN are the same value
        yield FieldDifference(path, _shown(old), _shown(new))


def _shown(value: Any) -> Any:
    if isinstance(value, Hidden):
        return _HIDDEN
    if isinstance(value, dict):
        return {name: _shown(item) for name, item in value.items()}
    return [_shown(item) for item in value] if isinstance(value, list) else value


def _payload(message: Message, find: Callable[[str], MessageSpec | None]) -> Any:
    payload = message.payload
    if payload is None:
        return ABSENT
    spec = find(message.metadata.get(wire.CE_TYPE, ""))
    content_type = message.metadata.get(wire.CONTENT_TYPE)
    if spec is not None:
        try:
            decoded = decode(payload, content_type, spec.message_class)
        except DecodeError:
            return Hidden(payload)
        return _fields(decoded, spec.sensitive)
    if content_type is not None and "json" in content_type:
        try:
            return _hidden_leaves(json.loads(payload))
        except ValueError:
            return Hidden(payload)
    return Hidden(payload)


def _hidden_leaves(value: Any) -> Any:
    """Hides the values of JSON without a contract, which cannot say what is sensitive."""
    if isinstance(value, dict):
        return {name: _hidden_leaves(item) for name, item in value.items()}
    return [_hidden_leaves(item) for item in value] if isinstance(value, list) else Hidden(value)


def _fields(message: Any, sensitive: Sensitive) -> Any:
    if message.DESCRIPTOR.full_name in _TIMES:
        try:
            return message.ToJsonString()
        except ValueError:  # out of range: its numbers are compared
            pass
    if is_any(message) and (held := inside(message)) is not None:
        content = _fields(held, sensitive)
        tree = content if isinstance(content, dict) else {"value": content}
        return {"@type": message.type_url, **tree}
    tree = {}
    for field, value in message.ListFields():
        name = f"[{field.full_name}]" if field.is_extension else field.name
        content = _field(field, value, sensitive)
        tree[name] = Hidden(content) if is_hidden(field, sensitive) else content
    return tree


def _field(field: Any, value: Any, sensitive: Sensitive) -> Any:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        entry = kind.fields_by_name["value"]
        return {str(key): _value(entry, value[key], sensitive) for key in value}
    if field.is_repeated:
        return [_value(field, item, sensitive) for item in value]
    return _value(field, value, sensitive)


def _value(field: Any, value: Any, sensitive: Sensitive) -> Any:
    if isinstance(value, ProtoMessage):
        return _fields(value, sensitive)
    if field.enum_type is not None:
        named = field.enum_type.values_by_number.get(value)
        return value if named is None else named.name
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _text(key: bytes | None) -> str | None:
    if key is None:
        return None
    try:
        return key.decode()
    except UnicodeDecodeError:
        return f"0x{key.hex()}"
