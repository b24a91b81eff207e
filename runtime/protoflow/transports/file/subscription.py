"""A subscription: messages are claimed, settled and renewed in the journal of the group."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from protoflow.contract.spec import Ordering
from protoflow.error_codes import LEASE_LOST
from protoflow.errors import ProtoflowError, TopologyError, TransportError
from protoflow.message import Action, Delivery, Settlement, SettleResult
from protoflow.transport.interface import SubscriptionListener, SubscriptionSettings
from protoflow.transport.kit.queue_source import QueueSource
from protoflow.transport.kit.subscription import QueueSubscription
from protoflow.transports.file.claim_queue import ClaimQueue
from protoflow.transports.file.context import FileContext
from protoflow.transports.file.group_state import Entry, GroupState
from protoflow.transports.file.journal import Journal
from protoflow.transports.file.log_reader import LogReader, LostPositionError
from protoflow.transports.file.lost_position import go_on, verify
from protoflow.transports.file.records import Record
from protoflow.transports.file.topics import remove_group

#: The most reads without a claimable message before other members get the journal, and the most
#: messages of each.
_MOST_READS: Final = 5
_AHEAD: Final = 256
#: A member lives longer than a claim, so that not every claim has to extend its life.
_LONGER: Final = 7 / 6


class Claim(NamedTuple):
    """The receipt of a delivery."""

    position: int
    number: int


class FileSubscription(QueueSubscription):
    """A member of a group.

    Args:
        context: the threads, settings and options of the transport.
        settings: the settings of the subscription.
        listener: the scheduler.
        path: the folder of the group; for a broadcast, one of its own.
        reader: reads the topic.
    """

    def __init__(
        self,
        context: FileContext,
        settings: SubscriptionSettings,
        listener: SubscriptionListener,
        path: str,
        reader: LogReader,
    ) -> None:
        source = QueueSource(
            fetch=lambda messages, size: context.consume(self._fetch, messages, size),
            settle=lambda settlements: context.consume(self._settle, settlements),
            renew=lambda deliveries: context.consume(self._renew, deliveries),
            available=lambda: context.consume(self._claimable),
            poll=context.options.poll_interval,
        )
        super().__init__(source, settings, listener, context.settings.clock)
        self.member = uuid.uuid4().hex[:12]
        self.path = path
        self._context = context
        self._journal = Journal(path)
        self._reader = reader
        self._queue = ClaimQueue(settings.ordering, self.member)
        self._verified = GroupState()
        self._read: dict[int, Record] = {}
        self._left = False

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """Returns the delivery itself, because its position never changes."""
        if delivery is None or not self.leases.holds(delivery):
            return None
        marks = await self._context.consume(self._marks, delivery.receipt)
        return None if marks is None else (delivery, marks)

    async def mark(self, delivery: Delivery) -> None:
        """Adds a start mark."""
        held = self.leases.holds(delivery)
        if not held or not await self._context.consume(self._mark, delivery.receipt, 1):
            raise TransportError(
                f"the lease of message {delivery.message.id} was lost", code=LEASE_LOST
            )

    async def clear(self, delivery: Delivery) -> None:
        """Removes the start marks."""
        if isinstance(delivery.receipt, Claim):  # else it is settled, and the marks are gone
            await self._context.consume(self._mark, delivery.receipt, 0)

    async def stop(self) -> None:
        """Stops claiming, and leaves the group after every delivery is settled."""
        await super().stop()
        if not self.leases.held:
            await self._leave()

    async def close(self) -> None:
        """Ends the subscription. Held messages become free; their deliveries count."""
        try:
            await self.stop()
        finally:
            await self.end()
        await self._leave()
        await self._context.consume(self._close)

    async def end_session(self) -> None:
        """Ends the membership, as other members do when the lease has ended."""
        await self._context.consume(self._end_membership)

    def sync(self) -> None:
        """Writes to the disk what the group has read, and then its journal."""
        self._reader.sync()
        self._journal.sync()

    # Called in the thread for consuming.

    def _fetch(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        now = self._clock.now()
        if not self._has_news(now):
            return ()
        taken: list[Delivery] = []
        self._read.clear()
        with self._journal.alone() as state:
            self._keep_membership(state, now)
            if self._verified is not state:
                verify(self._context.settings, self._reader, state, self.settings)
                self._verified = state
            reads = 0
            while len(taken) < max_messages and reads < _MOST_READS:
                entry = self._queue.next(state, now)
                if entry is None:
                    most = _AHEAD if reads else max_messages - len(taken)
                    if not self._read_more(state, most):
                        break
                    reads += 1
                    continue
                reads = 0
                record = self._record(state, entry)
                max_bytes -= record.size
                if taken and max_bytes < 0:
                    break
                taken.append(self._delivery(record, state.claim(self.member, entry.position)))
            wait = 0.0 if reads == _MOST_READS else self._queue.waiting(now)
        if wait is not None:
            self._loop.call_soon_threadsafe(self.wake_after, wait)
        return taken

    def _has_news(self, now: float) -> bool:
        state = self._journal.state
        return (
            self._verified is not state
            or self._queue.has_work(state, now)
            or self._journal.changed()
            or self._reader.has(state.cursor)
            or bool(state.expired(now))
        )

    def _keep_membership(self, state: GroupState, now: float) -> None:
        for member in state.expired(now):
            state.change("gone", member)
        if state.members.get(self.member, 0.0) < now + self.settings.lease:  # that of new claims
            state.change("alive", self.member, now + self.settings.lease * _LONGER)

    def _read_more(self, state: GroupState, most: int) -> bool:
        """Reads new messages. Returns False if there are none, or too many or the lane wait."""
        most_entries = self._context.options.max_set_aside + self.settings.max_in_flight
        room = most_entries - len(state.entries)
        if room < 1:
            return False
        alone = self.settings.ordering is Ordering.PER_PARTITION
        if alone and any(each.member != self.member for each in state.entries.values()):
            return False
        try:
            found = self._reader.read(state.cursor, min(most, room))
        except LostPositionError as error:
            go_on(self._context.settings, self._reader, state, self.settings, str(error))
            return True
        if not found:
            return False
        mine = [each for each in found if each.group in (None, self.settings.group)]
        added = [(each.position, each.lane, each.due) for each in mine if not each.is_marker]
        last = max(found, key=lambda each: each.sequence)  # damaged ones have none
        end, time = found[-1].end, found[-1].time
        state.change("read", end, last.sequence or state.sequence, time, added)
        self._read = {each.position: each for each in mine}
        return True

    def _record(self, state: GroupState, entry: Entry) -> Record:
        if (known := self._read.get(entry.position)) is not None:
            return known
        return self._reader.read(entry.position, 1)[0]

    def _delivery(self, record: Record, entry: Entry) -> Delivery:
        return Delivery(
            message=record.message(self.settings.topic),
            failures=entry.failures,
            first_failure=entry.first_failure,
            deliveries=entry.deliveries,
            position=record.position,
            time=record.time,
            size=record.size,
            receipt=Claim(entry.position, entry.claim),
            own_place=record.group is not None,
            suspect=entry.marks > 0,
            anonymous=record.damage is not None,
            unreadable=record.damage,
        )

    def _settle(self, settlements: Sequence[Settlement]) -> Sequence[SettleResult]:
        lost, done, now = SettleResult.LOST, SettleResult.DONE, self._clock.now()
        try:
            with self._journal.alone() as state:
                results = [
                    done if self._holds(state, each.delivery.receipt) else lost
                    for each in settlements
                ]
                mine = [
                    each for each, result in zip(settlements, results, strict=True) if not result
                ]
                acked = [each for each in mine if each.action is Action.ACK]
                if acked:
                    state.change("ack", [each.delivery.receipt.position for each in acked])
                for each in mine:
                    if each.action is not Action.ACK:
                        _give_back(state, each, now)
        except TopologyError:  # the group is gone, and with it what was held
            return [lost] * len(settlements)
        if len(acked) < len(settlements) or self.settings.ordering is not Ordering.NONE:
            self._loop.call_soon_threadsafe(self.wake)
        return results

    def _renew(self, deliveries: Sequence[Delivery]) -> Collection[Delivery]:
        with self._journal.alone() as state:
            state.change("alive", self.member, self._clock.now() + self.settings.lease)
            return [
                each
                for each in deliveries
                if isinstance(each.receipt, Claim) and not self._holds(state, each.receipt)
            ]

    def _holds(self, state: GroupState, claim: Claim) -> bool:
        entry = state.entries.get(claim.position)
        return entry is not None and entry.claim == claim.number

    def _claimable(self) -> int:
        now = self._clock.now()
        with self._journal.alone() as state:
            due = sum(1 for each in state.entries.values() if not each.claim and each.due <= now)
            return due + self._reader.count(state.cursor, state.sequence)

    def _marks(self, claim: Claim) -> int | None:
        with self._journal.alone() as state:
            return state.entries[claim.position].marks if self._holds(state, claim) else None

    def _mark(self, claim: Claim, more: int) -> bool:
        with self._journal.alone() as state:
            if not self._holds(state, claim):
                return False
            if (marks := state.entries[claim.position].marks) or more:
                state.change("mark", claim.position, marks + 1 if more else 0)
        if more and self._context.options.fsync != "never":
            self._journal.sync()
        return True

    def _end_membership(self) -> None:
        with contextlib.suppress(TopologyError), self._journal.alone() as state:
            if self.member in state.members:
                state.change("gone", self.member)

    async def _leave(self) -> None:
        if self._left:
            return
        self._left = True
        with contextlib.suppress(ProtoflowError):  # the lease ends by itself
            await self._context.consume(self._end_membership)

    def _close(self) -> None:
        with contextlib.suppress(OSError):
            self.sync()
        self._journal.close()
        self._reader.close()
        if self.settings.broadcast:
            remove_group(self.path)


def _give_back(state: GroupState, settlement: Settlement, now: float) -> None:
    position = settlement.delivery.receipt.position
    deliveries = state.entries[position].deliveries
    due = now + settlement.delay if settlement.delay > 0 else 0.0
    if settlement.action is Action.RELEASE:
        deliveries, due = deliveries - 1, 0.0
    state.change("back", position, due, deliveries, settlement.failures, settlement.first_failure)
