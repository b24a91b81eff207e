"""The solo gate: it runs one suspect at a time, alone in the whole process.

A message is proved to kill the process only if it ran alone when the process died. So the gate
closes every subscription of the process. The suspect starts when no other handler runs and all
finished work is settled.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

#: The reason why no run starts while the gate is closed.
SOLO: Final = "a suspect runs alone"


class Member(Protocol):
    """A subscription of the process."""

    def close_gate(self, reason: str, /) -> None:
        """Starts no more runs, for a reason."""

    def open_gate(self, reason: str, /) -> None:
        """Ends `close_gate`."""

    async def quiet(self) -> None:
        """Waits until no handler runs and every settlement is answered."""


class SoloGate:
    """Closed for all subscriptions while a suspect runs. Suspects run in order of arrival."""

    def __init__(self) -> None:
        self._members: dict[Member, None] = {}  # a dict keeps the same order in every run
        self._turn = asyncio.Lock()
        self._closed = False

    def join(self, member: Member) -> None:
        """Adds a member, which from now on waits for suspects of the process."""
        self._members[member] = None
        if self._closed:
            member.close_gate(SOLO)

    def leave(self, member: Member) -> None:
        """Ends `join`."""
        self._members.pop(member, None)

    @asynccontextmanager
    async def alone(self, patience: float) -> AsyncIterator[bool]:
        """Closes the process while the block runs, so that one message can run alone.

        Yields False if the process did not become quiet within `patience` seconds; then no message
        may run alone. The wait is limited, because a handler in a thread may never end, and
        handlers may wait for each other.
        """
        async with self._turn:
            self._closed = True
            for member in self._members:
                member.close_gate(SOLO)
            try:
                yield await self._quiet(patience)
            finally:
                self._closed = False
                for member in self._members:
                    member.open_gate(SOLO)

    async def _quiet(self, patience: float) -> bool:
        try:
            async with asyncio.timeout(patience):
                for member in tuple(self._members):
                    await member.quiet()
        except TimeoutError:
            return False
        return True


_gates: weakref.WeakKeyDictionary[object, SoloGate] = weakref.WeakKeyDictionary()


def solo_gate() -> SoloGate:
    """Returns the gate of this process, which all services on the current event loop share.

    A loop that simulates several processes names the running one (`protoflow_process`).
    """
    loop = asyncio.get_running_loop()
    process: object = getattr(loop, "protoflow_process", loop)
    gate = _gates.get(process)
    if gate is None:
        gate = _gates[process] = SoloGate()
    return gate
