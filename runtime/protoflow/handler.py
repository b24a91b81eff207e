"""The base classes of generated handlers, and the argument of batch handlers."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, TypeVar, overload

from google.protobuf.message import Message as ProtoMessage

from protoflow.contract.spec import ServiceSpec

if TYPE_CHECKING:
    from protoflow.context import Context

T_co = TypeVar("T_co", bound=ProtoMessage, covariant=True)


class Handler(abc.ABC):
    """Base of generated handler classes; methods run on the event loop."""

    __slots__ = ()
    __protoflow_spec__: ClassVar[ServiceSpec]


class HandlerSync(abc.ABC):
    """Base of generated handler classes whose methods run in threads."""

    __slots__ = ()
    __protoflow_spec__: ClassVar[ServiceSpec]


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
        from protoflow.counted import counted  # imported here, because contracts need no such texts

        return f"Batch({counted(len(self._messages), 'message')})"
