"""The subscription of the PostgreSQL transport."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from protoflow.contract.spec import Ordering
from protoflow.error_codes import LEASE_LOST
from protoflow.errors import TransportError
from protoflow.message import Action, Delivery
from protoflow.transport.interface import SubscriptionListener
from protoflow.transport.kit.queue_source import QueueSource
from protoflow.transport.kit.subscription import QueueSubscription
from protoflow.transport.settings import SubscriptionSettings
from protoflow.transports.postgresql.buckets import Buckets
from protoflow.transports.postgresql.database import Database
from protoflow.transports.postgresql.holdings import InWaiting
from protoflow.transports.postgresql.lost_position import PositionLostError, recover
from protoflow.transports.postgresql.members import Membership, ServerChangedError, end_expired
from protoflow.transports.postgresql.publishing import Limits
from protoflow.transports.postgresql.queue import Queue
from protoflow.transports.postgresql.schema import BUCKETS
from protoflow.transports.postgresql.settling import Settler

_MARKS_OF_LOG = "SELECT marks FROM {s}.failures WHERE group_id = $1 AND seq = $2"
_MARKS_OF_WAITING = "SELECT marks FROM {s}.waiting WHERE id = $1"
_MARK_LOG = """
INSERT INTO {s}.failures (group_id, seq, bucket, marks) VALUES ($1, $2, $3, 1)
ON CONFLICT (group_id, seq) DO UPDATE SET marks = {s}.failures.marks + 1
"""
_MARK_WAITING = "UPDATE {s}.waiting SET marks = marks + 1 WHERE id = $1"
_CLEAR_LOG = "UPDATE {s}.failures SET marks = 0 WHERE group_id = $1 AND seq = $2"
_CLEAR_WAITING = "UPDATE {s}.waiting SET marks = 0 WHERE id = $1"


class PostgresSubscription(QueueSubscription):
    """A member of a group."""

    def __init__(
        self,
        database: Database,
        limits: Limits,
        settings: SubscriptionSettings,
        listener: SubscriptionListener,
        membership: Membership,
        published: Callable[[Collection[str]], None],
    ) -> None:
        self.membership = membership
        self.topic = settings.topic
        self._database = database
        self._rejoining = asyncio.Lock()
        self._ended = False
        self.holdings: Queue | Buckets
        if settings.ordering is Ordering.NONE:
            self.holdings = Queue(database, membership, self.wake_after)
        else:
            self.holdings = Buckets(
                database,
                membership,
                self.wake_after,
                self._revoke,
                lambda: self._ready.paused,
                self._withdraw,
            )
        self.settler = Settler(database, limits, self.holdings, published)
        source = QueueSource(
            fetch=self._fetch,
            settle=self.settler.settle,
            renew=self._renew,
            poll=None,
            lease=membership.seconds,
            expires=False,
            available=self.holdings.claimable,
            shards=frozenset(range(BUCKETS)),
        )
        super().__init__(source, settings, listener, database.clock)

    async def start(self) -> None:
        """Joins the group."""
        await self.membership.join()
        if isinstance(self.holdings, Buckets):
            await self.holdings.start()

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """The delivery itself: its row stays the same."""
        if delivery is None or not self.leases.holds(delivery):
            return None
        receipt = delivery.receipt
        if isinstance(receipt, InWaiting):
            rows = await self._database.fetch(_MARKS_OF_WAITING, receipt.id)
        else:
            rows = await self._database.fetch(_MARKS_OF_LOG, self.membership.group.id, receipt.seq)
        return delivery, rows[0][0] if rows else 0

    async def mark(self, delivery: Delivery) -> None:
        """Adds one start mark to the row."""
        if not self.leases.holds(delivery) or not await self.membership.renew():
            raise TransportError(
                f"the lease of message {delivery.message.id} was lost", code=LEASE_LOST
            )
        receipt = delivery.receipt
        if isinstance(receipt, InWaiting):
            await self._database.fetch(_MARK_WAITING, receipt.id)
        else:
            await self._database.fetch(
                _MARK_LOG, self.membership.group.id, receipt.seq, receipt.bucket
            )

    async def clear(self, delivery: Delivery) -> None:
        """No start marks in the row."""
        receipt = delivery.receipt
        if isinstance(receipt, Action):
            return  # settled, and with it the marks went
        if isinstance(receipt, InWaiting):
            await self._database.fetch(_CLEAR_WAITING, receipt.id)
        else:
            await self._database.fetch(_CLEAR_LOG, self.membership.group.id, receipt.seq)

    async def stop(self) -> None:
        """Claims nothing more; the membership lasts until everything is settled, or `close`."""
        await super().stop()
        await self.settler.flush()
        if not self.leases.held:
            await self._leave()

    async def close(self) -> None:
        """The end: what is still held is free with the membership."""
        await self.stop()
        await self.end()
        await self._leave()

    def abort(self) -> None:
        """The end, without a word to others."""
        self._ended = True
        self.holdings.abort()
        self._renewer.end()
        self.leases.clear()

    async def _leave(self) -> None:
        if not self._ended:
            self._ended = True
            await self.holdings.stop()
            await self.membership.leave()

    async def _fetch(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """Claims; a position that is ahead of the server is replaced, or is an error."""
        member = self.membership
        try:
            return await self.holdings.fetch(max_messages, max_bytes)
        except PositionLostError:
            lost = member.id
            await recover(self._database, member, self._database.settings.on_lost_position)
            await end_expired(self._database)
            await self._rejoin(lost)
            return ()
        except ServerChangedError:
            lost = member.id
            await member.leave()
            await self._rejoin(lost)
            return ()
        except BaseException:
            self.holdings.take_back()
            raise

    async def _rejoin(self, lost: int) -> None:
        """Becomes another member, which holds nothing."""
        async with self._rejoining:
            if self.membership.id == lost and not self._ended:
                self.holdings.clear()
                self.lose()
                await self.membership.join()
                self.holdings.clear()  # deliveries that were taken meanwhile for the old member

    async def _renew(self, _: Sequence[Delivery]) -> Collection[Delivery]:
        """Renews the membership, and ends those of processes that died."""
        lost = self.membership.id
        if not self._ended and not await self.membership.renew():
            await self._rejoin(lost)
        if await end_expired(self._database):
            self.wake()
        return ()

    def _withdraw(self, unwanted: Callable[[Delivery], bool]) -> list[Delivery]:
        """Takes back what was fetched and not handed out."""
        found = [each for each in self.leases.held.values() if unwanted(each)]
        waiting = self._ready.withdraw(found)
        for delivery in waiting:
            self.leases.release(delivery)
        return waiting

    async def _revoke(self, buckets: Collection[int]) -> None:
        """Lets the handlers of buckets finish, and drops what they did not settle."""
        await self._listener.shards_revoked(buckets, self.settings.rebalance_drain)
        await self.settler.flush()
        self.lose([each for each in self.leases.held.values() if each.shard in buckets])
