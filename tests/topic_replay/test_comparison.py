"""The fields of two outputs that differ, and which of them are noise."""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from protoflow.contract.spec import MessageSpec
from protoflow.message import Message
from protoflow.topic_replay import Comparison, Entry, Noise, Result, Status
from protoflow.transport import TopicRecord

_TYPE = "billed.v1.Billed"
#: Two ids that were made long before the replay.
_OLD, _WRONG = "01HKT0000000000000000000A1", "01HKT0000000000000000000B2"


def _billed() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="billed.proto", package="billed.v1", syntax="proto3"
    )
    field = descriptor_pb2.FieldDescriptorProto
    file.message_type.add(name="Billed").field.add(
        name="id", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(_TYPE))


def test_a_field_that_is_called_id_is_no_id_of_an_output() -> None:
    """The id of a message may be derived from the handler; a wrong reference is a finding."""
    billed = _billed()
    spec = MessageSpec(message_class=billed, type=_TYPE, topic="billed")

    def result(id: str, reference: str) -> Result:
        output = Message(
            id=id,
            topic="billed",
            payload=billed(id=reference).SerializeToString(),
            metadata={"ce_type": _TYPE, "content-type": "application/protobuf"},
        )
        return Result(Status.DONE, [output])

    comparison = Comparison(lambda _kind: spec, Noise())
    record = TopicRecord(message=Message(id="m", topic="t", payload=b""))
    found = comparison.of(Entry(record, [result(_OLD, _OLD), result(_WRONG, _WRONG)]))
    assert [(each.path, each.old, each.new) for each in found] == [("id", _OLD, _WRONG)]
    assert comparison.masked == {"Billed.id": 1}, "the id of the output"
