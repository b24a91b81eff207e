"""The subscription of the SQLite transport."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from protoflow.error_codes import LEASE_LOST
from protoflow.errors import TransportError
from protoflow.message import Action, Delivery, Settlement, SettleResult
from protoflow.transport.interface import SubscriptionListener
from protoflow.transport.kit.queue_source import QueueSource
from protoflow.transport.kit.subscription import QueueSubscription
from protoflow.transport.settings import SubscriptionSettings
from protoflow.transports.sqlite.claiming import Claim, Claimed, claimable
from protoflow.transports.sqlite.database import Database
from protoflow.transports.sqlite.recent import Recent
from protoflow.transports.sqlite.session_lease import SessionLease
from protoflow.transports.sqlite.settle_job import SettleJob
from protoflow.transports.sqlite.settling import change_mark, read_mark


class SqliteSubscription(QueueSubscription):
    """A member of a group: claims rows, and settles them together with other writes."""

    def __init__(
        self,
        database: Database,
        settings: SubscriptionSettings,
        listener: SubscriptionListener,
        session_lease: SessionLease,
    ) -> None:
        source = QueueSource(
            fetch=self._claim,
            settle=self._settle,
            renew=lambda _: session_lease.renew(self.lose),
            poll=None,
            lease=session_lease.seconds,
            expires=False,
            available=self._claimable,
        )
        super().__init__(source, settings, listener, database.clock)
        self.session_lease = session_lease
        self._database = database
        self._doubtful: set[int] = set()
        self._unsure = False

    def new_job(self, recent: Recent | None) -> SettleJob:
        """Returns a job that settles held messages."""
        return SettleJob(
            self.session_lease.session,
            self._doubtful,
            self._settled,
            self.lose,
            recent,
            require_subscriber=self._database.require_subscriber,
        )

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """Returns the delivery itself, because its row stays the same."""
        if delivery is None or not self.leases.holds(delivery):
            return None
        marks = await self._database.worker.call(
            partial(read_mark, self.session_lease.session, delivery.receipt), writes=False
        )
        return None if marks is None else (delivery, marks)

    async def mark(self, delivery: Delivery) -> None:
        """Adds one start mark to the row."""
        call = partial(change_mark, self.session_lease.session, delivery.receipt, 1)
        if not self.leases.holds(delivery) or not await self._database.worker.call(call):
            raise TransportError(
                f"the lease of message {delivery.message.id} was lost", code=LEASE_LOST
            )

    async def clear(self, delivery: Delivery) -> None:
        """Removes the start marks of the row; marks of a later holder stay."""
        if isinstance(delivery.receipt, Action):
            return  # the message is settled, and its marks are removed
        await self._database.worker.call(
            partial(change_mark, self.session_lease.session, delivery.receipt, 0)
        )

    async def stop(self) -> None:
        """Claims no more; the session lasts until everything is settled, or until `close`."""
        await super().stop()
        if not self.leases.held:
            await self.session_lease.end()

    async def close(self) -> None:
        """Ends the session, which frees held messages."""
        await self.stop()
        await self.end()
        await self.session_lease.end()

    async def _claim(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        database, session = self._database, self.session_lease.session
        now, known = database.clock.now(), self.receipts() if self._unsure else None
        claim = Claim(
            session.group, session.id, max_messages, max_bytes, now, database.recent, known
        )
        self._unsure = True  # until the result of the write is known
        claimed: Claimed | None = await database.worker.call(claim.run)
        self._unsure = False
        if claimed is None:
            await self.session_lease.begin_again(session, self.lose)
            self.wake()
            return ()
        if claimed.next_due is not None:
            self.wake_after(claimed.next_due - database.clock.now())
        if not claimed.deliveries:
            database.watch()
        return claimed.deliveries

    def _settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        worker, session = self._database.worker, self.session_lease.session
        job = worker.pending(session)
        if not isinstance(job, SettleJob):
            job = self.new_job(self._database.recent)
            worker.add(job, session)
        return job.add(settlements, self._database.clock.now(), self._database.limits)

    async def _claimable(self) -> int:
        session, now = self.session_lease.session, self._database.clock.now()
        return await self._database.worker.call(
            lambda connection: claimable(connection, session.group, session.id, now), writes=False
        )

    def _settled(self, topics: set[str], claimable: bool) -> None:
        if topics:
            self._database.published(topics)
        if claimable:
            self._database.settled(self.settings.topic, self.settings.group)
