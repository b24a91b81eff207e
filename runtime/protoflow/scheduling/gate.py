"""The solo gate: one suspect runs at a time in a whole process, with nothing beside it.

Only what was running alone when the process died is a killer. So the gate closes every
subscription of the process, not only the suspect's own, and opens for the suspect when nothing
runs any more and everything that is finished is settled.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Protocol

#: Why nothing starts while the gate is closed.
SOLO: Final = "a suspect runs alone"


class Member(Protocol):
    """A subscription of the process."""

    def close_gate(self, reason: str, /) -> None:
        """Starts nothing more, for a reason."""

    def open_gate(self, reason: str, /) -> None:
        """Ends `close_gate`."""

    async def quiet(self) -> None:
        """Waits until nothing runs and every settlement is answered."""


class SoloGate:
    """Closed for everybody while a suspect runs. First come, first served."""

    def __init__(self) -> None:
        self._members: dict[Member, None] = {}  # in an order that is the same in every run
        self._turn = asyncio.Lock()
        self._closed = False

    def join(self, member: Member) -> None:
        """From now on the member waits for the suspects of the process."""
        self._members[member] = None
        if self._closed:
            member.close_gate(SOLO)

    def leave(self, member: Member) -> None:
        """Ends `join`."""
        self._members.pop(member, None)

    @asynccontextmanager
    async def alone(self, patience: float) -> AsyncIterator[bool]:
        """Closes the process for what is done within. Gives False when it did not become
        quiet within `patience` seconds: then nothing may run alone. It never waits without
        bound, for a handler in a thread may never end, and handlers may await each other."""
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
    """The gate of this process: shared by all services that run on the current event loop. A loop
    that simulates several processes names the one that is running (`protoflow_process`)."""
    loop = asyncio.get_running_loop()
    process: object = getattr(loop, "protoflow_process", loop)
    gate = _gates.get(process)
    if gate is None:
        gate = _gates[process] = SoloGate()
    return gate
