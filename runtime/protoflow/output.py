"""What handlers return and producers publish."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar, overload

from google.protobuf.message import Message as ProtoMessage

if TYPE_CHECKING:
    from datetime import timedelta

    from protoflow.context import Context

T_co = TypeVar("T_co", bound=ProtoMessage, covariant=True)
T = TypeVar("T", bound=ProtoMessage)


@dataclass(frozen=True, slots=True)
class Output(Generic[T_co]):
    """A message to publish, with what the message itself does not say.

    Attributes:
        message: the protobuf message.
        key: the partition key; the contract's key field unless given.
        metadata: string pairs to go beside the payload.
        delay: before this has passed the message is not delivered.
        topic: another topic than the contract's.
        caused_by: in batch handlers, the input that this is an output of.
        id: the message id; made or derived unless given.
    """

    message: T_co
    key: str | bytes | None = field(default=None, kw_only=True)
    metadata: Mapping[str, str] | None = field(default=None, kw_only=True)
    delay: timedelta | None = field(default=None, kw_only=True)
    topic: str | None = field(default=None, kw_only=True)
    caused_by: ProtoMessage | None = field(default=None, kw_only=True)
    id: str | None = field(default=None, kw_only=True)


class Batch(Sequence[T_co]):
    """The messages of one batch, in order, with a context for each.

    Attributes:
        contexts: `contexts[i]` belongs to `batch[i]`.
    """

    __slots__ = ("_messages", "contexts")

    def __init__(self, messages: Sequence[T_co], contexts: Sequence[Context]) -> None:
        self._messages = tuple(messages)
        self.contexts = tuple(contexts)

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | Sequence[T_co]:
        return self._messages[index]

    def __len__(self) -> int:
        return len(self._messages)

    def __repr__(self) -> str:
        return f"Batch({len(self._messages)} messages)"


#: What a handler with one output returns; None is no output this time.
Result: TypeAlias = T | Output[T] | None
#: What a handler with a stream of outputs is: an asynchronous generator.
Results: TypeAlias = AsyncIterator[T | Output[T]]
#: The same for handlers that run in threads.
SyncResults: TypeAlias = Iterator[T | Output[T]]
#: What producers take to publish many.
Messages: TypeAlias = Iterable[T | Output[T]]

#: Any output, where the type of the message does not matter.
AnyOutput: TypeAlias = Output[Any]
