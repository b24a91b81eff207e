"""Makes the operations: the messages that the service receives and sends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from protoflow.asyncapi import channels, extensions
from protoflow.asyncapi.bindings import Fields, with_fields
from protoflow.asyncapi.channels import Channels, full_name
from protoflow.asyncapi.comments import Comments, described
from protoflow.asyncapi.deployment import Deployment
from protoflow.asyncapi.messages import Messages
from protoflow.contract.catalog import Catalog
from protoflow.contract.spec import FileSpec, MessageSpec, MethodSpec


class _Sent(NamedTuple):
    """A message that is published to a topic, and the operation that publishes it."""

    id: str
    topic: str
    message: MessageSpec
    comment: str


class Operations:
    """Makes the operations of a document, and the channels and messages that they need.

    Args:
        catalog: the contract.
        deployment: the facts about the deployed contract.
        comments: the comments of the .proto.
        is_client: whether the document is for clients, which publish what the service receives
            and consume what it publishes.
    """

    def __init__(
        self,
        catalog: Catalog,
        deployment: Deployment,
        channels: Channels,
        messages: Messages,
        comments: Comments,
        *,
        is_client: bool,
    ) -> None:
        self._catalog = catalog
        self._deployment = deployment
        self._channels = channels
        self._messages = messages
        self._comments = comments
        self._is_client = is_client
        names = Counter(_short(method.name) for method in catalog.methods)
        self._ambiguous = {name for name, count in names.items() if count > 1}

    def make(self) -> dict[str, Any]:
        """Returns the operations by id."""
        found: dict[str, Any] = {}
        for method in self._catalog.methods:
            found[self._id(method)] = self._received(method)
        sent = set[tuple[str, str]]()
        for one in self._sent():
            if (one.topic, full_name(one.message)) not in sent:
                sent.add((one.topic, full_name(one.message)))
                found[one.id] = self._operation(one)
        return found

    def _id(self, method: MethodSpec) -> str:
        """Returns `Service.Method`, or the full name if two services have the same name."""
        short = _short(method.name)
        return method.name if short in self._ambiguous else short

    def _received(self, method: MethodSpec) -> dict[str, Any]:
        consumer = self._deployment.consumers[method.name]
        key = self._channels.topic(method.topic, consumer.topic, method.input)
        self._messages.add(method.input)
        operation = self._base("send" if self._is_client else "receive", key, method.input)
        with_fields(operation, described(self._comments.get(method.name, "")))
        if self._is_client:
            return with_fields(operation, self._deployment.bindings.send())
        dead_letters = waiting = None
        if consumer.dead_letters:
            dead_letters = self._channels.dead_letters(method, consumer)
        own: Fields = {}
        if not method.broadcast:  # the group of a broadcast ends with its process
            retries = self._channels.retries(method, consumer)
            waiting = retries if consumer.waits else None
            own = self._deployment.bindings.receive(consumer.topic, consumer.group)
        return with_fields(
            operation,
            {"x-protoflow": extensions.policy(method, consumer, dead_letters)},
            own,
            extensions.recovery(
                method, consumer, waiting=waiting or key, dead_letters=dead_letters
            ),
        )

    def _operation(self, sent: _Sent) -> dict[str, Any]:
        topic = self._deployment.topics.get(sent.topic, sent.topic)
        key = self._channels.topic(sent.topic, topic, sent.message)
        self._messages.add(sent.message)
        operation = self._base("receive" if self._is_client else "send", key, sent.message)
        with_fields(operation, described(sent.comment))
        if self._is_client:
            return operation
        return with_fields(operation, self._deployment.bindings.send())

    def _sent(self) -> Iterator[_Sent]:
        """Yields the publications of handlers, then those of event producers."""
        for method in self._catalog.methods:
            if (output := method.publication) is not None:
                comment = f"What {_short(method.name)} publishes."
                yield _Sent(f"{self._id(method)}.output", output.topic, output.message, comment)
        for file in self._catalog.files:
            for name, producer in _events(file):
                for action, publication in producer.items():
                    comment = self._comments.get(full_name(publication.message), "")
                    yield _Sent(f"{name}.{action}", publication.topic, publication.message, comment)

    def _base(self, action: str, key: str, message: MessageSpec) -> dict[str, Any]:
        return {
            "action": action,
            "channel": channels.reference(key),
            "messages": channels.message_references(key, [message]),
        }


def _events(file: FileSpec) -> Iterator[tuple[str, Any]]:
    """Yields the event producers of a file; its other producers are clients of services."""
    clients = [
        {(method.handler, method.topic) for method in service.methods} for service in file.services
    ]
    for producer in file.producers:
        publications = {(name, one.topic) for name, one in producer.publications.items()}
        if publications not in clients:
            yield producer.name, producer.publications


def _short(name: str) -> str:
    """Returns `Service.Method` for the full name of a method."""
    return ".".join(name.rsplit(".", 2)[-2:])
