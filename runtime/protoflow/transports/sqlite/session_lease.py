"""The session of a subscription: one row is the lease of all its messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from protoflow.errors import ProtoflowError
from protoflow.message import Delivery
from protoflow.transport.settings import SubscriptionSettings
from protoflow.transports.sqlite import sessions
from protoflow.transports.sqlite.database import Database
from protoflow.transports.sqlite.sessions import Moment
from protoflow.transports.sqlite.topics import Session

_log = logging.getLogger("protoflow.transports.sqlite")


class SessionLease:
    """Begins a session, renews it, and ends it.

    Attributes:
        session: the last session.
        seconds: the duration of a lease in seconds.
    """

    session: Session

    def __init__(self, database: Database, settings: SubscriptionSettings) -> None:
        self.seconds = database.options.lease or settings.lease
        self._database = database
        self._settings = settings
        self._ended = False
        self._beginning = asyncio.Lock()

    async def begin(self) -> None:
        """Begins a session; creates the group if necessary."""
        clock, client = self._database.clock, self._database.client_name
        now, until = Moment.now(clock), Moment.now(clock, self.seconds)
        self.session = await self._database.worker.call(
            lambda connection: sessions.begin(connection, self._settings, client, now, until)
        )

    async def begin_again(self, lost: Session, lose: Callable[[], None]) -> None:
        """Begins another session after other processes ended this one, for example after a long
        sleep of this machine. `lose` is called before."""
        async with self._beginning:
            if self.session is lost:
                lose()
                await self.begin()

    async def renew(self, lose: Callable[[], None]) -> Sequence[Delivery]:
        """Renews the session and ends those of dead processes. Messages of a session are only lost
        all together, which `lose` reports."""
        session, until = self.session, Moment.now(self._database.clock, self.seconds)
        if not await self._database.worker.call(
            lambda connection: sessions.renew(connection, session.id, until)
        ):
            await self.begin_again(session, lose)
        await self._database.end_expired()
        return ()

    async def end(self) -> None:
        """Ends the session and frees its messages. It is idempotent."""
        if self._ended:
            return
        id, now = self.session.id, self._database.clock.now()
        try:
            await self._database.worker.call(lambda connection: sessions.end(connection, id, now))
        except ProtoflowError as error:
            _log.warning(
                "a session was not ended, and lasts until its lease ends",
                extra={"error": str(error)},
            )
        self._ended = True
        self._database.settled(self._settings.topic, self._settings.group)
