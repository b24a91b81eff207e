"""A context for unit tests that call a handler directly."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.message import Message as ProtoMessage

from protoflow import wire
from protoflow.config.settings import Config
from protoflow.context import Context
from protoflow.ids import new_id
from protoflow.message import Delivery, Message
from protoflow.publishing.encoder import Encoder
from protoflow.testing.virtual_time import START


def context(
    message: ProtoMessage | None = None,
    *,
    id: str | None = None,
    topic: str = "test",
    key: bytes | str | None = None,
    metadata: Mapping[str, str] | None = None,
    attempt: int = 1,
    handler: str = "test",
    group: str = "test",
) -> Context:
    """Returns a context for a handler; `outputs` holds the messages published through it.

    Args:
        message: the message to handle; its payload and type go into `context.message`.
        id: the message id; default: a new one.
        topic: the topic of the message.
        key: the key of the message.
        metadata: the metadata of the message.
        attempt: the number of the run, from 1.
        handler: the full name of the method.
        group: the consumer group.
    """
    kind = {} if message is None else {wire.CE_TYPE: message.DESCRIPTOR.full_name}
    raw = Message(
        id=id or new_id(),
        topic=topic,
        payload=None if message is None else message.SerializeToString(),
        key=key.encode() if isinstance(key, str) else key,
        metadata={wire.CONTENT_TYPE: wire.PROTOBUF, **kind, **(metadata or {})},
    )
    delivery = Delivery(message=raw, failures=attempt - 1)
    encode = Encoder(Config(environ={}), lambda: START)
    return Context(delivery, raw, attempt, handler, group, encode)
