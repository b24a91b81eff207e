"""The stored data of a simulated broker of logs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from protoflow.message import Message
from protoflow.transports.memory.broker import Broker, MemoryOptions
from protoflow.transports.memory.group import Group

Shard = int | str
#: The number of partitions of a topic.
PARTITIONS = 4


class LogMember(Protocol):
    """A subscription, as the broker sees it."""

    name: str
    #: The generation of the group that it has joined; 0 if none.
    generation: int

    @property
    def reachable(self) -> bool:
        """Returns whether its process runs."""
        ...

    @property
    def dead(self) -> bool:
        """Returns whether its process is dead."""
        ...

    def rebalancing(self) -> None:
        """Notifies it that the group rebalances, so that it must join again."""

    def wake(self) -> None:
        """Notifies it that there may be messages to read."""


@dataclass(slots=True)
class Record:
    """A message at its offset."""

    message: Message
    time: float


@dataclass(slots=True)
class GroupState:
    """The broker's data about a group."""

    handle: Group
    logs: dict[Shard, list[Record]]
    committed: dict[Shard, tuple[int, Any]] = field(default_factory=dict)
    finished: dict[Shard, set[int]] = field(default_factory=dict)
    members: dict[LogMember, float] = field(default_factory=dict)
    joined: dict[LogMember, None] = field(default_factory=dict)
    assigned: dict[LogMember, tuple[Shard, ...]] = field(default_factory=dict)
    generation: int = 1
    balanced: bool = True


def share(shards: Iterable[Shard], at: int, members: int) -> list[Shard]:
    """Returns the shards that the member at this index owns.

    A partition has the same owner as the replays of its keys.
    """
    share: list[Shard] = []
    for number, shard in enumerate(shards):
        _, _, partition = str(shard).partition("/")
        if int(partition or number) % members == at:
            share.append(shard)
    return share


class LogState(Broker):
    """Topics and dead letters; dead letters are replayed into logs."""

    def __init__(
        self, replay: Callable[[Group, Message], None], store: Callable[[Message], object]
    ) -> None:
        super().__init__()
        self._replay = replay
        self._store = store

    def publish(
        self, messages: Sequence[Message], options: MemoryOptions, now: float,
        sizes: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        """See `Broker.publish`."""
        for message in messages:
            if self.topic(message.topic).dead_letters is None:
                self._store(message)
            else:
                super().publish([message], options, now)

    def publish_to(self, group: Group, message: Message, now: float) -> None:
        """See `Broker.publish_to`."""
        self._replay(group, message)
