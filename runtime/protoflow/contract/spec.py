"""The contract as data: generated modules contain it, and all other parts read it.

A policy here merges the values of file, service and method. A value that none of them sets is None;
`protoflow.contract.policy` fills it at start. Durations are seconds.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import field
from typing import TypeAlias

from google.protobuf.message import Message as ProtoMessage

from protoflow.dataclass_record import dataclass_record

#: The class of a protobuf message, from a `_pb2` module.
ProtoClass: TypeAlias = type[ProtoMessage]


class Encoding(enum.StrEnum):
    """How a payload is encoded."""

    PROTOBUF = "protobuf"
    JSON = "json"


class Ordering(enum.StrEnum):
    """Which messages are handled in order."""

    NONE = "none"
    PER_KEY = "per_key"
    PER_PARTITION = "per_partition"


class UnhandledTypes(enum.StrEnum):
    """Decides what happens to a message whose type the subscription does not handle."""

    SKIP = "skip"
    DEAD_LETTER = "dead_letter"


class Start(enum.StrEnum):
    """The position at which a new group starts."""

    EARLIEST = "earliest"
    LATEST = "latest"


class Effects(enum.StrEnum):
    """How often the effects of a message are applied in the handler's database."""

    AT_LEAST_ONCE = "at_least_once"
    EXACTLY_ONCE = "exactly_once"


class OnExhausted(enum.StrEnum):
    """Decides what happens to a message whose attempts are exhausted."""

    DEAD_LETTER = "dead_letter"
    DROP = "drop"
    BLOCK = "block"


@dataclass_record
class RetryPolicy:
    """The policy for repeating failed runs; waits in seconds, None is inherited."""

    max_attempts: int | None = None
    initial_backoff: float | None = None
    max_backoff: float | None = None
    backoff_multiplier: float | None = None
    jitter: float | None = None
    max_elapsed: float | None = None


@dataclass_record
class DeadLetterPolicy:
    """The policy for messages that are given up; None is inherited."""

    topic: str | None = None
    on_exhausted: OnExhausted | None = None


@dataclass_record
class DeliveryPolicy:
    """The delivery policy of a handler; timeout in seconds, None is inherited."""

    ordering: Ordering | None = None
    concurrency: int | None = None
    timeout: float | None = None
    retry: RetryPolicy = RetryPolicy()
    dead_letter: DeadLetterPolicy = DeadLetterPolicy()
    unhandled: UnhandledTypes | None = None
    start: Start | None = None
    atomic: bool | None = None


#: The default limits of a batch: messages, and seconds.
BATCH_MESSAGES = 100
BATCH_WAIT = 0.1


@dataclass_record
class BatchPolicy:
    """The limits of a batch; None is the built-in value."""

    max_messages: int | None = None
    max_wait: float | None = None


@dataclass_record
class MessageSpec:
    """The event contract of one protobuf message.

    Attributes:
        type: the CloudEvents type; by default the full proto name.
        message_class: the class from the `_pb2` module.
        topic: the default topic with its prefix; may contain {variables}.
        partition_key: the name of the field that holds the key.
        subject: the name of the field that holds the CloudEvents subject.
        source: the CloudEvents source; may contain {variables}.
        data_schema: the CloudEvents dataschema.
        encoding: the encoding of the published payload; None means that of the config.
        aliases: other types that are decoded as this message.
        sensitive: the names of the fields that are never logged, by the full name of their message
            type. It covers each type that a value can contain at any depth, and may name more
            types. Empty means that a value has no sensitive field.
    """

    type: str
    message_class: ProtoClass
    topic: str | None = None
    partition_key: str | None = None
    subject: str | None = None
    source: str | None = None
    data_schema: str | None = None
    encoding: Encoding | None = None
    aliases: tuple[str, ...] = ()
    sensitive: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, message_class: ProtoClass) -> MessageSpec:
        """Returns the contract of a message without annotations; its type is its full name."""
        return cls(type=message_class.DESCRIPTOR.full_name, message_class=message_class)


def messages_by_name(*messages: MessageSpec) -> dict[str, MessageSpec]:
    """Returns the messages by the full names of their classes."""
    return {message.message_class.DESCRIPTOR.full_name: message for message in messages}


@dataclass_record
class PublicationSpec:
    """A message and the topic it is published to; the topic may contain {variables}."""

    topic: str
    message: MessageSpec


@dataclass_record
class MethodSpec:
    """One consuming rpc.

    Attributes:
        name: the full name, `shop.v1.Orders.BillOrder`.
        handler: the name of the Python method, `bill_order`.
        input: the consumed message.
        topic: the consumed topic; may contain {variables}.
        group: the consumer group; may contain {variables}.
        delivery: the merged policy of file, service and method.
        publication: the published output, if any.
        batched: whether the input is a stream; then the handler gets batches.
        streams: whether the output is a stream; then the handler is a generator.
        batch: the limits of a batch.
        broadcast: whether every process gets every message.
        effects: how often its effects are applied in the handler's database.
    """

    name: str
    handler: str
    input: MessageSpec
    topic: str
    group: str
    delivery: DeliveryPolicy = DeliveryPolicy()
    publication: PublicationSpec | None = None
    batched: bool = False
    streams: bool = False
    batch: BatchPolicy = BatchPolicy()
    broadcast: bool = False
    effects: Effects = Effects.AT_LEAST_ONCE


@dataclass_record
class ServiceSpec:
    """One proto service: `__protoflow_spec__` of a generated handler class."""

    name: str
    methods: tuple[MethodSpec, ...]


@dataclass_record
class ProducerSpec:
    """A generated producer: the names of its methods and their publications."""

    name: str
    publications: Mapping[str, PublicationSpec] = field(default_factory=dict)


@dataclass_record
class FileSpec:
    """One .proto file: `__protoflow_spec__` of a generated module.

    Attributes:
        source: the path of the .proto, `shop/v1/orders.proto`.
        services: its consuming services.
        messages: its messages with a topic or other options.
        producers: the generated producers.
    """

    source: str
    services: tuple[ServiceSpec, ...] = ()
    messages: tuple[MessageSpec, ...] = ()
    producers: tuple[ProducerSpec, ...] = ()
