"""A transport's parts of a document: servers, addresses, bindings, retry channels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any, TypeAlias

from protoflow.dataclass_record import dataclass_record
from protoflow.wire import CE_PREFIX, CONTENT_TYPE

#: The fields of an AsyncAPI object, as plain data.
Fields: TypeAlias = Mapping[str, Any]

TOPIC, DEAD_LETTER, RETRY = "topic", "dead-letter", "retry"


@dataclass_record
class RetryChannel:
    """The channel at the broker in which failed messages of a group wait for their retry.

    Attributes:
        address: the address; may contain `{wait}`.
        waits: the values of `{wait}`, ascending; empty if the address does not contain it.
        fields: bindings and extensions of the channel.
    """

    address: str
    waits: tuple[str, ...] = ()
    fields: Fields = field(default_factory=dict)


class Bindings:
    """Empty bindings, for a transport without an address that other programs could use.

    Attributes:
        header_prefix: the prefix of headers with attributes of CloudEvents.
        content_type: the header with the content type; "" if the protocol has a field for it.
    """

    header_prefix: str = CE_PREFIX
    content_type: str = CONTENT_TYPE

    def servers(self) -> Fields:
        """Returns the servers by name, without `security`."""
        return {}

    def security(self) -> Fields:
        """Returns the security schemes by name, without values."""
        return {}

    def address(self, topic: str) -> str:
        """Returns the address of a topic at the broker."""
        return topic

    def channel(self, topic: str, role: str) -> Fields:
        """Returns the fields of the channel of a topic.

        Args:
            topic: the physical topic.
            role: `topic` or `dead-letter`.
        """
        return {}

    def receive(self, topic: str, group: str) -> Fields:
        """Returns the fields of an operation that consumes a topic in a group."""
        return {}

    def send(self) -> Fields:
        """Returns the fields of an operation that publishes."""
        return {}

    def message(self, type: str, key: Fields | None) -> Fields:
        """Returns the fields of a message.

        Args:
            type: its CloudEvents type.
            key: the schema of its key; None if it has no key.
        """
        return {}

    def retries(self, topic: str, group: str, *, waits: bool) -> RetryChannel | None:
        """Returns the channel of a group's retries; None if they wait in the process or the topic.

        Args:
            topic: the physical topic.
            group: the group.
            waits: whether the broker has to store waits of this group.
        """
        return None


def servers(
    hosts: Iterable[tuple[str, int | None]], port: int, protocol: str, **fields: Any
) -> Fields:
    """Returns a server for each host, `broker`, `broker-2`...

    Hosts must not contain user and password.
    """
    found = [*hosts] or [("localhost", None)]
    return {
        "broker" if not index else f"broker-{index + 1}": {
            "host": f"{f'[{host}]' if ':' in host else host}:{given or port}",
            "protocol": protocol,
            **fields,
        }
        for index, (host, given) in enumerate(found)
    }


def with_fields(base: dict[str, Any], *added: Fields) -> dict[str, Any]:
    """Returns a copy of `base` with all additions; values that are mappings are merged."""
    for fields in added:
        for name, value in fields.items():
            old = base.get(name)
            base[name] = {**old, **value} if isinstance(old, dict) else value
    return base
