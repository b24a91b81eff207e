"""The bases of generated producers, and what they publish through."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from protoflow.output import AnyOutput, Output

if TYPE_CHECKING:
    from datetime import timedelta

    from google.protobuf.message import Message as ProtoMessage

    from protoflow.contract.spec import ProducerSpec, PublicationSpec


class Publisher(Protocol):
    """What producers publish through: a `Service`, what `connect` gives, or a `Context`."""

    async def publish_outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        """Publishes in this order; the message ids. Raises PublishError."""
        ...


class SyncPublisher(Protocol):
    """The same for code without an event loop: `connect_sync`, or a `SyncContext`."""

    def publish_outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        """Publishes in this order; the message ids. Raises PublishError."""
        ...


class Producer:
    """Base of generated producers. Its only state is the publisher."""

    __slots__ = ("__protoflow_publisher",)
    __protoflow_spec__: ClassVar[ProducerSpec]

    def __init__(self, publisher: Publisher) -> None:
        self.__protoflow_publisher = publisher

    async def __protoflow_publish__(
        self,
        method: str,
        message: ProtoMessage,
        key: str | bytes | None,
        metadata: Mapping[str, str] | None,
        delay: timedelta | None,
        id: str | None,
    ) -> str:
        publication = self.__protoflow_spec__.publications[method]
        output = Output(message, key=key, metadata=metadata, delay=delay, id=id)
        return (await self.__protoflow_publisher.publish_outputs(publication, (output,)))[0]

    async def __protoflow_publish_many__(self, method: str, messages: Iterable[Any]) -> list[str]:
        publication = self.__protoflow_spec__.publications[method]
        return await self.__protoflow_publisher.publish_outputs(publication, _outputs(messages))


class ProducerSync:
    """Base of generated producers for code without an event loop."""

    __slots__ = ("__protoflow_publisher",)
    __protoflow_spec__: ClassVar[ProducerSpec]

    def __init__(self, publisher: SyncPublisher) -> None:
        self.__protoflow_publisher = publisher

    def __protoflow_publish__(
        self,
        method: str,
        message: ProtoMessage,
        key: str | bytes | None,
        metadata: Mapping[str, str] | None,
        delay: timedelta | None,
        id: str | None,
    ) -> str:
        publication = self.__protoflow_spec__.publications[method]
        output = Output(message, key=key, metadata=metadata, delay=delay, id=id)
        return self.__protoflow_publisher.publish_outputs(publication, (output,))[0]

    def __protoflow_publish_many__(self, method: str, messages: Iterable[Any]) -> list[str]:
        publication = self.__protoflow_spec__.publications[method]
        return self.__protoflow_publisher.publish_outputs(publication, _outputs(messages))


def _outputs(messages: Iterable[Any]) -> list[AnyOutput]:
    return [item if isinstance(item, Output) else Output(item) for item in messages]
