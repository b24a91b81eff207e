"""Protobuf types with rules of buf.validate, made without its .proto: the options are written as
bytes, so the extension is unknown to this process, as it is to most services."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from protoflow.contract.spec import MessageSpec, PublicationSpec

#: buf/validate/validate.proto: (buf.validate.field) = 1159, FieldRules.string = 14,
#: StringRules.min_len = 2; (buf.validate.oneof) = 1159, OneofRules.required = 1.
_MIN_LENGTH_3 = bytes([14 << 3 | 2, 2, 2 << 3, 3])
_REQUIRED = bytes([1 << 3, 1])


def _extension(payload: bytes) -> bytes:
    tag = 1159 << 3 | 2
    return bytes([tag & 0x7F | 0x80, tag >> 7, len(payload)]) + payload


def _classes() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="test/v1/rules.proto", package="test.v1", syntax="proto3"
    )
    ruled = file.message_type.add(name="Ruled")
    name = ruled.field.add(name="name", number=1, type=9, label=1)
    name.options.ParseFromString(_extension(_MIN_LENGTH_3))
    outer = file.message_type.add(name="Outer")
    outer.field.add(name="items", number=1, type=11, label=3, type_name=".test.v1.Ruled")
    choice = file.message_type.add(name="Choice")
    choice.field.add(name="a", number=1, type=9, label=1, oneof_index=0)
    choice.oneof_decl.add(name="one").options.ParseFromString(_extension(_REQUIRED))
    plain = file.message_type.add(name="Plain")
    plain.field.add(name="self", number=1, type=11, label=1, type_name=".test.v1.Plain")
    plain.field.add(name="email", number=2, type=9, label=1)
    card = plain.nested_type.add(name="Card")
    card.field.add(name="number", number=1, type=9, label=1)
    plain.field.add(name="cards", number=3, type=11, label=3, type_name=".test.v1.Plain.Card")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return {
        kind.name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"test.v1.{kind.name}")
        )
        for kind in file.message_type
    }


_made = _classes()
Ruled, Outer, Choice, Plain = (_made[name] for name in ("Ruled", "Outer", "Choice", "Plain"))

RULED = MessageSpec(type="test.v1.Ruled", message_class=Ruled, topic="ruled")
OUTER = MessageSpec(type="test.v1.Outer", message_class=Outer, topic="outer")
CHOICE = MessageSpec(type="test.v1.Choice", message_class=Choice, topic="choice")
PLAIN = MessageSpec(
    type="test.v1.Plain",
    message_class=Plain,
    topic="plain",
    sensitive={"test.v1.Plain": ("email",), "test.v1.Plain.Card": ("number",)},
)
TO_RULED = PublicationSpec(topic="ruled", message=RULED)
TO_PLAIN = PublicationSpec(topic="plain", message=PLAIN)
