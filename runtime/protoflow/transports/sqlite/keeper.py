"""The keeper of a session: renews it, and gives up what is held for too long."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from protoflow.errors import ProtoflowError
from protoflow.message import Delivery
from protoflow.transport.interface import SubscriptionSettings
from protoflow.transports.sqlite import sessions
from protoflow.transports.sqlite.sessions import Moment
from protoflow.transports.sqlite.settling import GivenBack, Settling
from protoflow.transports.sqlite.topics import Group, Session

if TYPE_CHECKING:
    from protoflow.transports.sqlite.transport import SqliteTransport

_log = logging.getLogger("protoflow.transports.sqlite")


class Keeper:
    """One timer for all leases of a subscription, at a third of the lease."""

    session: Session

    def __init__(self, transport: SqliteTransport, settings: SubscriptionSettings) -> None:
        self._transport = transport
        self._settings = settings
        self._lease = transport.options.lease or settings.lease
        self._loop = asyncio.get_running_loop()
        self._held: dict[int, Delivery] = {}
        self._seen: dict[int, tuple[Delivery, float]] = {}
        self._owed: list[GivenBack] = []
        self._lost: Callable[[Sequence[Delivery]], None]
        self._timer: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._ending = self._ended = False
        self._beginning = asyncio.Lock()

    async def begin(self) -> None:
        """Begins a session, making the group if need be."""
        clock, client = self._transport.clock, self._transport.client_name
        now, until = Moment.now(clock), Moment.now(clock, self._lease)
        self.session = await self._transport.worker.call(
            lambda connection: sessions.begin(connection, self._settings, client, now, until)
        )

    def start(self, held: dict[int, Delivery], lost: Callable[[Sequence[Delivery]], None]) -> None:
        """Sweeps from now on; `lost` is told which deliveries were lost."""
        self._held = held
        self._lost = lost
        self._schedule()

    async def begin_anew(self, lost: Session) -> None:
        """The session was ended by others, as after a long sleep of this machine."""
        async with self._beginning:
            if self.session is lost:
                self.lose()
                self._owed.clear()
                await self.begin()

    def lose(self) -> None:
        """Everything that is held is lost."""
        lost = list(self._held.values())
        self._held.clear()
        if lost:
            _log.warning(
                "leases were lost: the session was not renewed in time",
                extra={"subscription": self._settings.name, "deliveries": len(lost)},
            )
        self._lost(lost)

    async def end(self) -> None:
        """Ends the session; what it holds is free. Idempotent."""
        if self._ended:
            return
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()
        if self._sweeping is not None:
            await asyncio.wait([self._sweeping])
        id, now = self.session.id, self._transport.clock.now()
        try:
            await self._transport.worker.call(lambda connection: sessions.end(connection, id, now))
        except ProtoflowError as error:
            _log.warning("the session ends when its lease does: %s", error)
        self._ended = True
        self._transport.settled(self._settings.topic, self._settings.group)

    def _schedule(self) -> None:
        self._timer = self._loop.call_later(self._lease / 3, self._start_sweep)

    def _start_sweep(self) -> None:
        self._sweeping = self._loop.create_task(self._sweep())

    async def _sweep(self) -> None:
        session, until = self.session, Moment.now(self._transport.clock, self._lease)
        try:
            renewed = await self._transport.worker.call(
                lambda connection: sessions.renew(connection, session.id, until)
            )
            if not renewed:
                await self.begin_anew(session)
            elif overdue := self._overdue():
                await self._give_up(overdue)
            if self._owed:
                await self.give_back(())
            await self._transport.end_expired()
        except Exception as error:  # whatever it was, the leases must be renewed again
            _log.warning(
                "leases could not be renewed: %s",
                error,
                extra={"subscription": self._settings.name},
                exc_info=None if isinstance(error, ProtoflowError) else error,
            )
        if not self._ending:
            self._schedule()

    def _overdue(self) -> list[Delivery]:
        """What is held for longer than `max_hold`, and what is behind it in its lane."""
        now = self._loop.time()
        seen = self._seen
        self._seen = {
            sequence: entry
            if (entry := seen.get(sequence)) is not None and entry[0] is delivery
            else (delivery, now)
            for sequence, delivery in self._held.items()
        }
        limit = now - self._settings.max_hold
        overdue = {key for key, (_, since) in self._seen.items() if since <= limit}
        if not overdue:
            return []
        lane = self.session.group.lane
        lanes = {lane(self._held[sequence].message.key) for sequence in overdue} - {None}
        return [
            delivery
            for sequence, delivery in sorted(self._held.items())
            if sequence in overdue or lane(delivery.message.key) in lanes
        ]

    async def _give_up(self, overdue: Sequence[Delivery]) -> None:
        """Gives back what was held for too long. Not counted: nothing says that it kills the
        process, and a message that blocks its key is held for long again and again."""
        group = self.session.group
        for delivery in overdue:
            del self._held[delivery.receipt]
        returned = [uncounted(group, delivery) for delivery in overdue]
        self._lost(overdue)
        await self.give_back(returned)

    async def give_back(self, items: Sequence[GivenBack]) -> None:
        """Frees rows that nobody here handles; what fails is repeated at every sweep. Raises
        TransportError."""
        self._owed += items
        session = self.session
        owed = [item for item in self._owed if item.sequence not in self._held]
        settling = Settling(session.group, session.id, self._transport.clock.now())
        settling.given_back = owed
        await self._transport.worker.call(settling.run)
        self._owed = [item for item in self._owed if item not in owed]
        self._transport.settled(self._settings.topic, self._settings.group)


def uncounted(group: Group, delivery: Delivery) -> GivenBack:
    """A delivery as if it had not been handed out."""
    return GivenBack(
        delivery.receipt,
        group.lane(delivery.message.key),
        failures=delivery.failures,
        first_failure=delivery.first_failure,
        uncounted=1,
    )
