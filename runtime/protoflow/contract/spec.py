"""The contract as data: what generated modules hold and everything else reads.

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
    """What happens to a message of a type that the subscription does not handle."""

    SKIP = "skip"
    DEAD_LETTER = "dead_letter"


class Start(enum.StrEnum):
    """Where a group without a position starts."""

    EARLIEST = "earliest"
    LATEST = "latest"


class Effects(enum.StrEnum):
    """How often the effects of a message show in the handler's database."""

    AT_LEAST_ONCE = "at_least_once"
    EXACTLY_ONCE = "exactly_once"


class OnExhausted(enum.StrEnum):
    """What happens when the attempts are exhausted."""

    DEAD_LETTER = "dead_letter"
    DROP = "drop"
    BLOCK = "block"


@dataclass_record
class RetryPolicy:
    """How failed runs are repeated; waits in seconds, None is inherited."""

    max_attempts: int | None = None
    initial_backoff: float | None = None
    max_backoff: float | None = None
    backoff_multiplier: float | None = None
    jitter: float | None = None
    max_elapsed: float | None = None


@dataclass_record
class DeadLetterPolicy:
    """What happens to a message that is given up; None is inherited."""

    topic: str | None = None
    on_exhausted: OnExhausted | None = None


@dataclass_record
class DeliveryPolicy:
    """How messages are delivered to a handler; timeout in seconds, None is inherited."""

    ordering: Ordering | None = None
    concurrency: int | None = None
    timeout: float | None = None
    retry: RetryPolicy = RetryPolicy()
    dead_letter: DeadLetterPolicy = DeadLetterPolicy()
    unhandled: UnhandledTypes | None = None
    start: Start | None = None
    atomic: bool | None = None


#: How batches are gathered where nothing else is said: messages, and seconds.
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
        type: the CloudEvents type, the proto full name unless the contract says another.
        message_class: the class from the `_pb2` module.
        topic: the default topic, prefix included; may hold {variables}.
        partition_key: the name of the field whose value is the key.
        subject: the name of the field whose value is the CloudEvents subject.
        source: the CloudEvents source; may hold {variables}.
        data_schema: the CloudEvents dataschema.
        encoding: how the payload is published; None is the config's.
        aliases: other types that are read as this message.
        sensitive: the names of the fields that never reach logs, by the full name of their message
            type: for each type that a value can hold, at any depth; it may name others too. Empty
            means that nothing in a value is sensitive.
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
        """Returns the contract of a message without annotations: its full name is its type."""
        return cls(type=message_class.DESCRIPTOR.full_name, message_class=message_class)


def messages_by_name(*messages: MessageSpec) -> dict[str, MessageSpec]:
    """Returns the messages by the full names of their classes."""
    return {message.message_class.DESCRIPTOR.full_name: message for message in messages}


@dataclass_record
class PublicationSpec:
    """A message and the topic it is published to; the topic may hold {variables}."""

    topic: str
    message: MessageSpec


@dataclass_record
class MethodSpec:
    """One rpc that consumes.

    Attributes:
        name: the full name, `shop.v1.Orders.BillOrder`.
        handler: the name of the Python method, `bill_order`.
        input: the consumed message.
        topic: the consumed topic; may hold {variables}.
        group: the consumer group; may hold {variables}.
        delivery: what file, service and method say, merged.
        publication: the published output, if any.
        batched: the input is a stream: the handler gets batches.
        streams: the output is a stream: the handler is a generator.
        batch: how batches are gathered.
        broadcast: every process gets every message.
        effects: how often its effects show in the handler's database.
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
    """One generated producer: its methods' names and what each publishes."""

    name: str
    publications: Mapping[str, PublicationSpec] = field(default_factory=dict)


@dataclass_record
class FileSpec:
    """One .proto file: `__protoflow_spec__` of a generated module.

    Attributes:
        source: the path of the .proto, `shop/v1/orders.proto`.
        services: its services that consume.
        messages: its messages with a topic or other options.
        producers: the generated producers.
    """

    source: str
    services: tuple[ServiceSpec, ...] = ()
    messages: tuple[MessageSpec, ...] = ()
    producers: tuple[ProducerSpec, ...] = ()
