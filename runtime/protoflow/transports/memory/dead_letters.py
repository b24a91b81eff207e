"""The dead letters of the memory transport."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from protoflow import wire
from protoflow.clock import Clock
from protoflow.errors import DeadLetterNotFoundError, TopologyError
from protoflow.message import Message
from protoflow.transport.dead_letters import DeadLetter
from protoflow.transport.kit.replay import replayed
from protoflow.transports.memory.broker import Broker, MemoryOptions
from protoflow.transports.memory.group import Group


class MemoryDeadLetters:
    """Counts, lists, replays and purges what lies in dead-letter topics."""

    broker: Broker
    clock: Clock
    options: MemoryOptions

    async def count_dead_letters(self, topic: str) -> int:
        """How many letters wait."""
        with self.broker.lock:
            return len(self.broker.letters(topic))

    async def list_dead_letters(self, topic: str, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The oldest letters first."""
        with self.broker.lock:
            return [letter for _, letter in self.broker.letters(topic)[:limit]]

    async def show_dead_letter(self, topic: str, id: str) -> DeadLetter:
        """One letter."""
        with self.broker.lock:
            return self._find(topic, (id,))[0][1]

    async def replay_dead_letters(
        self, topic: str, ids: Collection[str] | None = None, *, to_origin: bool = False
    ) -> int:
        """Gives letters back to their groups, or to their original topics."""
        with self.broker.lock:
            found = self._find(topic, ids)
            messages = [self._replayed(letter, to_origin) for _, letter in found]
            now = self.clock.now()
            for message, group in messages:
                if group is None:
                    self.broker.publish((message,), self.options, now)
                else:
                    self.broker.publish_to(group, message, now)
            return self._remove(topic, found)

    async def purge_dead_letters(self, topic: str, ids: Collection[str] | None = None) -> int:
        """Deletes letters."""
        with self.broker.lock:
            return self._remove(topic, self._find(topic, ids))

    def _find(self, topic: str, ids: Collection[str] | None) -> list[tuple[int, DeadLetter]]:
        letters = self.broker.letters(topic)
        if ids is None:
            return list(letters)
        found = [item for item in letters if item[1].message.id in ids]
        if missing := sorted({*ids} - {letter.message.id for _, letter in found}):
            raise DeadLetterNotFoundError(f"no dead letter {', '.join(missing)} in {topic}")
        return found

    def _remove(self, topic: str, found: list[tuple[int, DeadLetter]]) -> int:
        letters = self.broker.topic(topic).letters or {}
        for sequence, _ in found:
            letters.pop(sequence, None)
        return len(found)

    def _replayed(self, letter: DeadLetter, to_origin: bool) -> tuple[Message, Group | None]:
        message = replayed(letter.message)
        if message is None:
            raise TopologyError(
                f"dead letter {letter.message.id} names no original topic, so it cannot be "
                "replayed; publish it anew and purge it"
            )
        message = dataclasses.replace(message)
        if to_origin:
            return message, None
        name = letter.message.metadata.get(wire.PF_GROUP, "")
        group = self.broker.topic(message.topic).groups.get(name)
        if group is None:
            raise TopologyError(
                f"dead letter {letter.message.id} failed in the group {name!r} of "
                f"{message.topic}, which does not exist; replay it to its original topic"
            )
        return message, group
