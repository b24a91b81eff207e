"""Random messages of any type, with values that lie on edges."""

from __future__ import annotations

import random
from typing import Any

from google.protobuf import struct_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor import FieldDescriptor as F

_TEXTS = ("", "a", "ab", "abc", "abcd", "cd", "AB-7", "a.b", "axb", "a.bz", "(c)", "x(c)", "+",
          "a+", "$", "é", "日本", "日本語", "🎉", "abcde", "never", "0", "AB-", "A")  # fmt: skip
_SMALL = (0, 1, 2, 3, 7, 9, 10)
_SIGNED = (*_SMALL, -1, -2, -3)
_FLOATS = (0.0, 0.1, 0.5, 1.0, 1.5, -0.1, 1e-7, 1e30, float("inf"), float("-inf"), float("nan"))
_DEPTH = 3


class Sampler:
    """Makes messages.

    Args:
        seed: where randomness starts.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def message(self, kind: type[Any], depth: int = 0) -> Any:
        """A message with some of its fields set."""
        made = kind()
        special = _SPECIAL.get(kind.DESCRIPTOR.full_name)
        if special is not None:
            special(made, self._random)
            return made
        for field in kind.DESCRIPTOR.fields:
            nested = field.message_type is not None
            if self._random.random() < (0.3 if nested and depth else 0.7) and depth < _DEPTH:
                self._set(made, field, depth)
        return made

    def _set(self, made: Any, field: Any, depth: int) -> None:
        value = getattr(made, field.name)
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key = field.message_type.fields_by_name["key"]
            inner = field.message_type.fields_by_name["value"]
            for _ in range(self._random.randrange(4)):
                chosen = self._scalar(key)
                if inner.message_type is not None:
                    value[chosen].CopyFrom(self.message(type(value[chosen]), depth + 1))
                else:
                    value[chosen] = self._scalar(inner)
        elif field.is_repeated:
            for _ in range(self._random.randrange(5)):
                if field.message_type is not None:
                    one = value.add()
                    one.CopyFrom(self.message(type(one), depth + 1))
                else:
                    value.append(self._scalar(field))
        elif field.message_type is not None:
            value.CopyFrom(self.message(type(value), depth + 1))
            value.SetInParent()
        else:
            setattr(made, field.name, self._scalar(field))

    def _scalar(self, field: Any) -> Any:
        choose = self._random.choice
        if field.enum_type is not None:
            return choose([value.number for value in field.enum_type.values])
        match field.type:
            case F.TYPE_STRING:
                return choose(_TEXTS)
            case F.TYPE_BYTES:
                return self._random.randbytes(self._random.randrange(7))
            case F.TYPE_BOOL:
                return choose((True, False))
            case F.TYPE_DOUBLE | F.TYPE_FLOAT:
                return choose(_FLOATS)
            case F.TYPE_UINT32 | F.TYPE_FIXED32:
                return choose((*_SMALL, 2**32 - 1))
            case F.TYPE_UINT64 | F.TYPE_FIXED64:
                return choose((*_SMALL, 2**64 - 1))
            case F.TYPE_INT64 | F.TYPE_SINT64 | F.TYPE_SFIXED64:
                return choose((*_SIGNED, 2**63 - 1, -(2**63)))
        return choose((*_SIGNED, 2**31 - 1, -(2**31)))


def _timestamp(made: Any, source: random.Random) -> None:
    made.seconds, made.nanos = source.randrange(2**32), source.choice((0, 1, 10**6))


def _duration(made: Any, source: random.Random) -> None:
    made.seconds = source.choice((0, 1, -5, 3600))
    made.nanos = 0 if made.seconds < 0 else source.choice((0, 5, 10**6))


def _struct(made: Any, source: random.Random) -> None:
    made.update({"a": 1, "b": [None, "x", {"c": True}]} if source.random() < 0.7 else {})


def _value(made: Any, source: random.Random) -> None:
    made.CopyFrom(source.choice([
        struct_pb2.Value(null_value=struct_pb2.NULL_VALUE),
        struct_pb2.Value(number_value=1.5),
        struct_pb2.Value(string_value="x"),
        struct_pb2.Value(bool_value=False),
    ]))  # fmt: skip


def _list(made: Any, source: random.Random) -> None:
    made.extend(["x", 1, None] if source.random() < 0.7 else [])


def _any(made: Any, source: random.Random) -> None:
    if source.random() < 0.8:
        made.Pack(source.choice([
            timestamp_pb2.Timestamp(seconds=5), wrappers_pb2.StringValue(value="x"),
        ]))  # fmt: skip


def _mask(made: Any, source: random.Random) -> None:
    made.paths.extend(["a_b", "c.d_e"] if source.random() < 0.7 else [])


_SPECIAL = {
    f"google.protobuf.{name}": make
    for name, make in {
        "Timestamp": _timestamp, "Duration": _duration, "Struct": _struct, "Value": _value,
        "ListValue": _list, "Any": _any, "FieldMask": _mask,
    }.items()
}  # fmt: skip
