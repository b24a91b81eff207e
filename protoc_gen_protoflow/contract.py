"""The annotations as data, before they are seen from any module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from protoc_gen_protoflow.problems import Location
from protoc_gen_protoflow.request import Declared, File


class Leaf(NamedTuple):
    """One value of a policy.

    Attributes:
        value: the value to compare with others; seconds for a duration.
        text: the value as Python text.
        place: where it is written.
        level: 0 in the file, 1 in the service, 2 in the method.
    """

    value: float | str
    text: str
    place: Location
    level: int


#: The values of a policy by path, `retry.max_attempts`.
Leaves = Mapping[str, Leaf]


class FileContract(NamedTuple):
    """What the options of a file say."""

    topic_prefix: str
    source: str | None
    encoding: str | None
    delivery: Leaves


class MessageContract(NamedTuple):
    """What the options of a message and its fields say; see `MessageSpec`."""

    declared: Declared
    type: str
    topic: str | None = None
    partition_key: str | None = None
    subject: str | None = None
    source: str | None = None
    data_schema: str | None = None
    encoding: str | None = None
    aliases: tuple[str, ...] = ()
    holds_sensitive: bool = False
    is_annotated: bool = False


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
    comment: str


class ServiceContract(NamedTuple):
    """A service with at least one rpc that consumes."""

    file: File
    place: Location
    name: str
    methods: tuple[MethodContract, ...]
    comment: str
