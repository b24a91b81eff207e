"""Dead letters by the transport's hands, with everything that is done counted."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from protoflow.clock import Clock
from protoflow.errors import CapabilityError, DeadLetterNotFoundError
from protoflow.stats.handlers import Counters
from protoflow.transport.dead_letters import DeadLetter, DeadLetters
from protoflow.transport.interface import Transport


class DeadLetterDesk:
    """The dead letters of a service's handlers. Topics are dead-letter topics of the contract,
    namespace included; no other topic can be read or purged through here.
    """

    def __init__(self, transport: Transport, counters: Counters, clock: Clock) -> None:
        self._transport = transport
        self._counters = counters
        self._clock = clock

    @property
    def topics(self) -> Sequence[str]:
        """The dead-letter topics of the handlers."""
        return tuple(sorted(self._counters.dead_letters.topics))

    @property
    def available(self) -> bool:
        """Whether the transport can list, show, replay and purge."""
        return self._transport.capabilities.dead_letters and isinstance(
            self._transport, DeadLetters
        )

    async def count(self, topic: str) -> int:
        """How many letters wait; the counters have it from now on."""
        count = await self._letters(topic).count_dead_letters(topic)
        self._counters.dead_letters.topic(topic).set_current(count, None, self._clock.now())
        return count

    async def list(self, topic: str, *, limit: int = 100) -> Sequence[DeadLetter]:
        """The oldest letters first."""
        return await self._letters(topic).list_dead_letters(topic, limit=limit)

    async def show(self, topic: str, id: str) -> DeadLetter:
        """One letter. Raises DeadLetterNotFoundError."""
        return await self._letters(topic).show_dead_letter(topic, id)

    async def replay(
        self, topic: str, ids: Collection[str] | None = None, *, to_origin: bool = False
    ) -> int:
        """Gives letters (None: all) back to the group that failed; how many."""
        count = await self._letters(topic).replay_dead_letters(topic, ids, to_origin=to_origin)
        self._counters.dead_letters.topic(topic).replay(count, self._clock.now())
        return count

    async def purge(self, topic: str, ids: Collection[str] | None = None) -> int:
        """Deletes letters (None: all); how many."""
        count = await self._letters(topic).purge_dead_letters(topic, ids)
        self._counters.dead_letters.topic(topic).purge(count, self._clock.now())
        return count

    def _letters(self, topic: str) -> DeadLetters:
        if topic not in self._counters.dead_letters.topics:
            raise DeadLetterNotFoundError(f"{topic}: no handler has dead letters there")
        if not self.available or not isinstance(self._transport, DeadLetters):
            raise CapabilityError("this transport cannot list its dead letters")
        return self._transport
