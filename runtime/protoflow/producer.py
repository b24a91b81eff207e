"""The base classes of generated producers, and the publishers that they use.

A generated producer declares the types of its methods and holds their specification; the bases
make the methods from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, TypeVar

from google.protobuf.message import Message as ProtoMessage

from protoflow.contract.spec import PublicationSpec
from protoflow.error_codes import DATABASE
from protoflow.errors import ConfigError
from protoflow.output import AnyOutput, Messages, Output

if TYPE_CHECKING:
    from datetime import timedelta

    from protoflow.contract.spec import MessageSpec, ProducerSpec, ServiceSpec

_DELIVERED = "Every group subscribed there gets the message."
#: The types of methods that publish one message, and many messages.
_Methods: TypeAlias = tuple[Callable[..., Any], Callable[..., Any]]

T_contra = TypeVar("T_contra", bound=ProtoMessage, contravariant=True)


class Publisher(Protocol):
    """The interface that producers publish through: a `Service`, a `Connection` or a `Context`."""

    async def publish_outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        """Publishes the outputs in this order and returns their ids. Raises PublishError."""
        ...


class SyncPublisher(Protocol):
    """A publisher for code without an event loop: a `SyncConnection` or a `SyncContext`."""

    def publish_outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        """Publishes the outputs in this order and returns their ids. Raises PublishError."""
        ...


class Publish(Protocol[T_contra]):
    """A producer's method that publishes one message."""

    async def __call__(
        self,
        message: T_contra,
        *,
        key: str | bytes | None = None,
        metadata: Mapping[str, str] | None = None,
        delay: timedelta | None = None,
        id: str | None = None,
        in_: object | None = None,
    ) -> str:
        """Publishes the message and returns its id. Raises PublishError.

        `in_` is a database connection or session; the message is published in its open
        transaction."""
        ...


class PublishMany(Protocol[T_contra]):
    """A producer's method that publishes many messages."""

    async def __call__(
        self, messages: Messages[T_contra], *, in_: object | None = None
    ) -> list[str]:
        """Publishes the messages in this order and returns their ids. Raises PublishError."""
        ...


class PublishSync(Protocol[T_contra]):
    """A producer's method that publishes one message, for code without an event loop."""

    def __call__(
        self,
        message: T_contra,
        *,
        key: str | bytes | None = None,
        metadata: Mapping[str, str] | None = None,
        delay: timedelta | None = None,
        id: str | None = None,
        in_: object | None = None,
    ) -> str:
        """Publishes the message and returns its id. Raises PublishError.

        `in_` is a database connection or session; the message is published in its open
        transaction."""
        ...


class PublishManySync(Protocol[T_contra]):
    """A producer's method that publishes many messages, for code without an event loop."""

    def __call__(self, messages: Messages[T_contra], *, in_: object | None = None) -> list[str]:
        """Publishes the messages in this order and returns their ids. Raises PublishError."""
        ...


def own_topic(message: MessageSpec) -> PublicationSpec:
    """Returns the publication of a message to its own topic."""
    return PublicationSpec(topic=message.topic or "", message=message)


def events(**messages: MessageSpec) -> dict[str, PublicationSpec]:
    """Returns the publications of an event producer, by method: each message has its own topic."""
    return {method: own_topic(message) for method, message in messages.items()}


def consumed_by(service: ServiceSpec) -> dict[str, PublicationSpec]:
    """Returns the publications of a service's client: the inputs of its methods."""
    return {
        method.handler: PublicationSpec(topic=method.topic, message=method.input)
        for method in service.methods
    }


class _Base:
    """Makes the methods that a generated class declares, from its specification."""

    __slots__ = ("__protoflow_publisher__",)
    __protoflow_spec__: ClassVar[ProducerSpec]

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "__protoflow_spec__" not in cls.__dict__:
            return  # the class inherits from a generated one
        for name, publication in cls.__protoflow_spec__.publications.items():
            method, many = cls.__protoflow_methods__(publication)
            what = f"{publication.message.type} to `{publication.topic}`"
            _define(cls, name, method, f"Publishes {what}.\n\n{_DELIVERED} Returns its id.")
            _define(cls, f"{name}_many", many, f"Publishes many {what}, in this order.")

    @staticmethod
    def __protoflow_methods__(publication: PublicationSpec) -> _Methods:
        raise NotImplementedError


class Producer(_Base):
    """Base of generated producers. Its only state is the publisher."""

    __slots__ = ()

    def __init__(self, publisher: Publisher) -> None:
        self.__protoflow_publisher__ = publisher

    @staticmethod
    def __protoflow_methods__(publication: PublicationSpec) -> _Methods:
        async def publish(
            self: Producer,
            message: Any,  # Any: the class of the publication
            *,
            key: str | bytes | None = None,
            metadata: Mapping[str, str] | None = None,
            delay: timedelta | None = None,
            id: str | None = None,
            in_: object | None = None,
        ) -> str:
            output = Output(message, key=key, metadata=metadata, delay=delay, id=id)
            publisher = self.__protoflow_publisher__
            if in_ is not None:
                publisher = _bound(publisher, in_)
            return (await publisher.publish_outputs(publication, (output,)))[0]

        async def publish_many(
            self: Producer, messages: Iterable[Any], *, in_: object | None = None
        ) -> list[str]:
            publisher = self.__protoflow_publisher__
            if in_ is not None:
                publisher = _bound(publisher, in_)
            return await publisher.publish_outputs(publication, _outputs(messages))

        return publish, publish_many


class ProducerSync(_Base):
    """Base of generated producers for code without an event loop."""

    __slots__ = ()

    def __init__(self, publisher: SyncPublisher) -> None:
        self.__protoflow_publisher__ = publisher

    @staticmethod
    def __protoflow_methods__(publication: PublicationSpec) -> _Methods:
        def publish(
            self: ProducerSync,
            message: Any,  # Any: the class of the publication
            *,
            key: str | bytes | None = None,
            metadata: Mapping[str, str] | None = None,
            delay: timedelta | None = None,
            id: str | None = None,
            in_: object | None = None,
        ) -> str:
            output = Output(message, key=key, metadata=metadata, delay=delay, id=id)
            publisher = self.__protoflow_publisher__
            if in_ is not None:
                publisher = _bound(publisher, in_)
            return publisher.publish_outputs(publication, (output,))[0]

        def publish_many(
            self: ProducerSync, messages: Iterable[Any], *, in_: object | None = None
        ) -> list[str]:
            publisher = self.__protoflow_publisher__
            if in_ is not None:
                publisher = _bound(publisher, in_)
            return publisher.publish_outputs(publication, _outputs(messages))

        return publish, publish_many


def _define(cls: type, name: str, method: Callable[..., Any], doc: str) -> None:
    method.__name__ = name
    method.__qualname__ = f"{cls.__qualname__}.{name}"
    method.__module__ = cls.__module__
    method.__doc__ = doc
    setattr(cls, name, method)


def _outputs(messages: Iterable[Any]) -> list[AnyOutput]:
    return [item if isinstance(item, Output) else Output(item) for item in messages]


def _bound(publisher: Any, connection: object) -> Any:
    """Returns the publisher for a connection's transaction. Raises ConfigError."""
    bind = getattr(publisher, "bind", None)
    if bind is None:
        raise ConfigError(
            f"{type(publisher).__name__} cannot publish in a transaction; leave out in_=, or make "
            "the producer with the service or with the result of protoflow.connect",
            code=DATABASE,
        )
    return bind(connection)
