"""The subscription of the SQLite transport."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING

from protoflow.errors import ProtoflowError, TransportError
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transport.interface import SubscriptionListener, SubscriptionSettings
from protoflow.transports.sqlite.acknowledging import Settlements
from protoflow.transports.sqlite.available import claimable
from protoflow.transports.sqlite.claiming import Claim, Claimed
from protoflow.transports.sqlite.keeper import Keeper, uncounted
from protoflow.transports.sqlite.recent import Recent
from protoflow.transports.sqlite.settling import Settling, change_mark, read_mark
from protoflow.transports.sqlite.worker import Call

if TYPE_CHECKING:
    from protoflow.transports.sqlite.transport import SqliteTransport

_SHARD = 0
_RETRY_AFTER = 1.0
_log = logging.getLogger("protoflow.transports.sqlite")


class SqliteSubscription:
    """A member of a group.

    `_held` are the deliveries that were handed out and not settled, by sequence;
    `_claimed` those that were claimed for a receive that was cancelled.
    """

    def __init__(
        self,
        transport: SqliteTransport,
        settings: SubscriptionSettings,
        listener: SubscriptionListener,
        keeper: Keeper,
    ) -> None:
        self.topic = settings.topic
        self.group_name = settings.group
        self.held: dict[int, Delivery] = {}
        self.keeper = keeper
        self._transport = transport
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._claimed: list[Delivery] = []
        self._doubtful: set[int] = set()
        self._unsure = False
        self._jobs: list[Settlements] = []
        self._claiming: asyncio.Future[Claimed | None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._woken = False
        self._alarm: asyncio.TimerHandle | None = None
        self._settling: set[asyncio.Future[Sequence[SettleResult]]] = set()
        self._paused = False
        self._stopped = False
        self._healthy = True
        keeper.start(self.held, self._lose)

    @property
    def waiting(self) -> bool:
        """Whether a receive waits for something to come."""
        return self._waiter is not None

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """What may be claimed, or what comes first."""
        while not self._stopped:
            if self._claimed and not self._paused:
                return self._hand_out(max_messages, max_bytes)
            self._woken = False
            if not self._paused and await self._claim(max_messages, max_bytes):
                continue
            if not self._woken:
                await self._wait()
        return ()

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        """Settles with what else is being written."""
        now = self._transport.clock.now()
        session = self.keeper.session
        job = self._transport.worker.pending(session)
        if not isinstance(job, Settlements):
            job = self.new_settlements(self._transport.recent)
            self._jobs = [each for each in self._jobs if not each.finished]
            self._jobs.append(job)
            self._transport.worker.add(job, session)
        future = job.add(settlements, now, self._transport.limits)
        self._settling.add(future)
        future.add_done_callback(self._settling.discard)
        return future

    def new_settlements(self, recent: Recent | None) -> Settlements:
        """A job for settling what is held."""
        session = self.keeper.session
        settling = Settling(session.group, session.id, self._transport.clock.now())
        return Settlements(
            settling,
            self.held,
            self._doubtful,
            self._settled,
            self.keeper.lose,
            recent,
            strict=self._transport.require_subscriber,
        )

    def defer(self, message: Message, delay: float) -> Message | None:
        """NACK keeps every wait."""
        return None

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """The delivery itself: its row stays the same."""
        if delivery is None or self.held.get(delivery.receipt) is not delivery:
            return None
        marks = await self._transport.worker.call(
            partial(read_mark, self.keeper.session, delivery.receipt), writes=False
        )
        return None if marks is None else (delivery, marks)

    async def mark(self, delivery: Delivery) -> None:
        """One start mark more in the row."""
        call = partial(change_mark, self.keeper.session, delivery.receipt, 1)
        if self.held.get(delivery.receipt) is not delivery or not await self._transport.worker.call(
            call
        ):
            raise TransportError(f"the lease of message {delivery.message.id} was lost")

    async def clear(self, delivery: Delivery) -> None:
        """No start marks in the row; those that its next holder has made stay."""
        if isinstance(delivery.receipt, Action):
            return  # settled, and with it the marks went
        await self._transport.worker.call(
            partial(change_mark, self.keeper.session, delivery.receipt, 0)
        )

    async def available(self) -> int | None:
        """How much could be claimed now."""
        if self._paused or self._stopped:
            return 0
        session, now = self.keeper.session, self._transport.clock.now()
        waiting = await self._transport.worker.call(
            lambda connection: claimable(connection, session.group, session.id, now), writes=False
        )
        return waiting + len(self._claimed)

    def pause(self, shards: Collection[str | int]) -> None:
        """Claims nothing until `resume`."""
        self._paused = self._paused or _SHARD in shards

    def resume(self, shards: Collection[str | int]) -> None:
        """Claims again."""
        if _SHARD in shards:
            self._paused = False
            self.wake()

    async def stop(self) -> None:
        """Claims nothing more; what was handed out may still be settled, and its lease is
        renewed until then or until the transport is closed."""
        self._stopped = True
        if self._alarm is not None:
            self._alarm.cancel()
        self.wake()
        if self._claiming is not None:
            await asyncio.wait([self._claiming])
        claimed, self._claimed = self._claimed, []
        if claimed:
            await self._return(claimed)
        if self._settling:
            await asyncio.wait(self._settling)
        if not self.held:
            await self.keeper.end()

    async def abandon(self) -> None:
        """The end: what is still held is for others."""
        await self.stop()
        self.held.clear()
        await self.keeper.end()

    def wake(self) -> None:
        """Looks again whether there is something to claim."""
        self._woken = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _claim(self, max_messages: int, max_bytes: int) -> bool:
        """Whether another look is worth while at once."""
        session = self.keeper.session
        if self._claiming is None:
            now = self._transport.clock.now()
            recent = self._transport.recent
            known = self._known() if self._unsure else None
            claim = Claim(session.group, session.id, max_messages, max_bytes, now, recent, known)
            call = Call(claim.run, writes=True)
            self._claiming = call.future
            call.future.add_done_callback(self._keep_claimed)
            self._transport.worker.add(call)
        claiming = self._claiming
        try:
            claimed = await asyncio.shield(claiming)
            self._keep_claimed(claiming)  # its callback may not have run yet
            if claimed is None:
                await self.keeper.begin_anew(session)
                return True
        except ProtoflowError as error:
            self._report(False, str(error))
            self._set_alarm(_RETRY_AFTER)
            return False
        self._report(True, "")
        if claimed.next_due is not None:
            self._set_alarm(claimed.next_due - self._transport.clock.now())
        return bool(claimed.deliveries)

    def _known(self) -> set[int]:
        """What is held here, or being settled; what was claimed was handed out."""
        settling = [
            delivery.receipt for job in self._jobs if not job.finished for delivery, _ in job.taken
        ]
        return {*self.held, *settling, *(delivery.receipt for delivery in self._claimed)}

    def _keep_claimed(self, future: asyncio.Future[Claimed | None]) -> None:
        if self._claiming is not future:
            return
        self._claiming = None
        self._unsure = future.cancelled() or future.exception() is not None
        if not self._unsure:
            claimed = future.result()
            self._claimed += claimed.deliveries if claimed else ()

    def _hand_out(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        claimed = self._claimed
        count = 1
        max_bytes -= claimed[0].size
        for delivery in claimed[1:max_messages]:
            max_bytes -= delivery.size
            if max_bytes < 0:
                break
            count += 1
        taken, self._claimed = claimed[:count], claimed[count:]
        held = self.held
        for delivery in taken:
            held[delivery.receipt] = delivery
        return taken

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        self._transport.watch()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _set_alarm(self, delay: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_later(max(0.0, delay), self.wake)

    async def _return(self, claimed: Sequence[Delivery]) -> None:
        group = self.keeper.session.group
        try:
            await self.keeper.give_back([uncounted(group, delivery) for delivery in claimed])
        except ProtoflowError as error:
            _log.warning("claimed messages come again later: %s", error)

    def _settled(self, topics: set[str], claimable: bool) -> None:
        if topics:
            self._transport.published(topics)
        if claimable:
            self._transport.settled(self.topic, self.group_name)

    def _lose(self, deliveries: Sequence[Delivery]) -> None:
        lost = {id(delivery) for delivery in deliveries}
        self._claimed = [each for each in self._claimed if id(each) not in lost]
        if deliveries:
            self._listener.deliveries_lost(deliveries)
        self.wake()

    def _report(self, healthy: bool, detail: str) -> None:
        if healthy != self._healthy:
            self._healthy = healthy
            self._listener.health_changed(healthy, detail)
