"""The annotations as data, before they are seen from any module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from protoc_gen_protoflow.request import Declared, File, Location


class Leaf(NamedTuple):
    """One value of an annotation.

    Attributes:
        value: the value to compare with others; seconds for a duration.
        text: the value as Python text.
        place: where it is written.
        level: 0 in the file, 1 in the service or message, 2 in the method.
    """

    value: float | str
    text: str
    place: Location
    level: int


#: Values by path, `retry.max_attempts`.
Leaves = Mapping[str, Leaf]


class FileContract(NamedTuple):
    """What the options of a file say.

    Attributes:
        topic_prefix: goes before each topic that is written in the file.
        messages: the values that its messages inherit.
        delivery: the policy that its services inherit.
    """

    topic_prefix: str
    messages: Leaves
    delivery: Leaves


class MessageContract(NamedTuple):
    """What the options of a file, a message and its fields say about the message.

    Attributes:
        declared: the message.
        values: the fields of its `MessageSpec`, by name.
        aliases: other types that are read as this message.
        is_annotated: whether the message itself says something.
    """

    declared: Declared
    values: Leaves
    aliases: tuple[str, ...] = ()
    is_annotated: bool = False

    @property
    def type(self) -> str:
        """The CloudEvents type."""
        return str(self.values["type"].value)

    @property
    def topic(self) -> str | None:
        """The topic, prefix included."""
        leaf = self.values.get("topic")
        return str(leaf.value) if leaf else None

    @property
    def partition_key(self) -> str | None:
        """The name of the field that is the partition key."""
        leaf = self.values.get("partition_key")
        return str(leaf.value) if leaf else None


class MethodContract(NamedTuple):
    """What the options of an rpc that consumes say; see `MethodSpec`."""

    place: Location
    rpc: str
    input: MessageContract
    topic: str
    group: str
    delivery: Leaves
    output: MessageContract | None
    output_topic: str
    batched: bool
    streams: bool
    batch: Leaves
    broadcast: bool | None
    effects: Leaf | None
    comment: str


class ServiceContract(NamedTuple):
    """A service with at least one rpc that consumes."""

    file: File
    place: Location
    name: str
    methods: tuple[MethodContract, ...]
    comment: str
