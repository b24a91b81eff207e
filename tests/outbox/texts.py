"""A contract of one message, as a generated module would have it."""

from __future__ import annotations

from google.protobuf.wrappers_pb2 import StringValue
from protoflow import gencode

TEXT = gencode.MessageSpec(
    type="google.protobuf.StringValue",
    message_class=StringValue,
    topic="texts",
    partition_key="value",
)


class TextProducer(gencode.Producer):
    __protoflow_spec__ = gencode.ProducerSpec(
        name="TextProducer", publications=gencode.events(publish_text=TEXT)
    )
    publish_text: gencode.Publish[StringValue]
    publish_text_many: gencode.PublishMany[StringValue]


class TextProducerSync(gencode.ProducerSync):
    __protoflow_spec__ = TextProducer.__protoflow_spec__
    publish_text: gencode.PublishSync[StringValue]
    publish_text_many: gencode.PublishManySync[StringValue]
