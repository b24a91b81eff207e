"""The values that handlers return and producers publish."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

from google.protobuf.message import Message as ProtoMessage

if TYPE_CHECKING:
    from datetime import timedelta

T_co = TypeVar("T_co", bound=ProtoMessage, covariant=True)
T = TypeVar("T", bound=ProtoMessage)


@dataclass(frozen=True, slots=True)
class Output(Generic[T_co]):
    """A message to publish, with its key, metadata and delay.

    Attributes:
        message: the protobuf message.
        key: the partition key; by default the contract's key field.
        metadata: text headers, in addition to those of the runtime.
        delay: the message is not delivered before this time has passed.
        topic: a topic other than the contract's.
        caused_by: in batch handlers, the input of this output.
        id: the message id; by default it is generated or derived.
    """

    message: T_co
    key: str | bytes | None = field(default=None, kw_only=True)
    metadata: Mapping[str, str] | None = field(default=None, kw_only=True)
    delay: timedelta | None = field(default=None, kw_only=True)
    topic: str | None = field(default=None, kw_only=True)
    caused_by: ProtoMessage | None = field(default=None, kw_only=True)
    id: str | None = field(default=None, kw_only=True)


#: The result of a handler with one output; None means no output this time.
Result: TypeAlias = T | Output[T] | None
#: The result of a handler with a stream of outputs: an asynchronous generator.
Results: TypeAlias = AsyncIterator[T | Output[T]]
#: The same for handlers that run in threads.
SyncResults: TypeAlias = Iterator[T | Output[T]]
#: The argument of producers that publish many messages.
Messages: TypeAlias = Iterable[T | Output[T]]

#: Any output, for code that does not depend on the message type.
AnyOutput: TypeAlias = Output[Any]
