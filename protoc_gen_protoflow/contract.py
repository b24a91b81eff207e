"""The annotations as data, independent of any module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from protoc_gen_protoflow.request import Declared, File, Location


class Leaf(NamedTuple):
    """One value of an annotation.

    Attributes:
        value: the value to compare with others; seconds for a duration.
        text: the value as Python text.
        place: its location in the .proto.
        level: 0 in the file, 1 in the service or message, 2 in the method.
    """

    value: float | str
    text: str
    place: Location
    level: int


#: Values by path, for example `retry.max_attempts`.
Leaves = Mapping[str, Leaf]


class FileContract(NamedTuple):
    """The contents of the options of a file.

    Attributes:
        topic_prefix: the prefix of each topic in the file.
        messages: the values that its messages inherit.
        delivery: the policy that its services inherit.
    """

    topic_prefix: str
    messages: Leaves
    delivery: Leaves


class MessageContract(NamedTuple):
    """The options of a message, with those of its file and its fields.

    Attributes:
        declared: the message.
        values: the fields of its `MessageSpec`, by name.
        aliases: other types that are decoded as this message.
        is_annotated: whether the message itself has options.
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
        """The topic, including the prefix."""
        leaf = self.values.get("topic")
        return str(leaf.value) if leaf else None

    @property
    def partition_key(self) -> str | None:
        """The name of the field that is the partition key."""
        leaf = self.values.get("partition_key")
        return str(leaf.value) if leaf else None


class MethodContract(NamedTuple):
    """The options of a consuming rpc; see `MethodSpec`."""

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
    """A service with at least one consuming rpc."""

    file: File
    place: Location
    name: str
    methods: tuple[MethodContract, ...]
    comment: str
