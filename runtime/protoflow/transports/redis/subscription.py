"""A subscription, which claims, settles and renews entries with scripts."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from protoflow.contract.spec import Ordering
from protoflow.error_codes import LEASE_LOST
from protoflow.errors import ProtoflowError, TopologyError, TransportError
from protoflow.message import Delivery, Settlement, SettleResult
from protoflow.transport.interface import SubscriptionListener, SubscriptionSettings
from protoflow.transport.kit.queue_source import QueueSource
from protoflow.transport.kit.subscription import QueueSubscription
from protoflow.transports.redis import names
from protoflow.transports.redis.claims import Claim, action_of, delivery_of, ids_of
from protoflow.transports.redis.connection import RedisConnection
from protoflow.transports.redis.scripts import (
    AVAILABLE,
    FETCH,
    LEAVE,
    MARK,
    RECOVER,
    RENEW,
    SETTLE,
    SWEEP,
    Script,
)
from protoflow.transports.redis.topics import MODES, Topics

_ANSWERS = (SettleResult.LOST, SettleResult.DONE)


class RedisSubscription(QueueSubscription):
    """A member of a group, with one consumer in each stream of the topic.

    Args:
        group: the group; for a broadcast, a group of its own.
        shards: the number of streams of the topic.
    """

    def __init__(
        self,
        connection: RedisConnection,
        topics: Topics,
        settings: SubscriptionSettings,
        listener: SubscriptionListener,
        group: str,
        shards: int,
    ) -> None:
        source = QueueSource(
            fetch=self._fetch,
            settle=self._settle,
            renew=self._renew,
            poll=connection.options.poll_interval,
            available=self._claimable,
            shards=frozenset(range(shards)),
        )
        super().__init__(source, settings, listener, connection.settings.clock)
        self.streams = [
            names.stream(topics.prefix, settings.topic, shard) for shard in range(shards)
        ]
        self.group = group
        self._connection = connection
        self._topics = topics
        consumer = f"{connection.settings.client_name}-{uuid.uuid4().hex[:12]}"
        self._who = (group, consumer)
        self._ordered = settings.ordering is not Ordering.NONE
        self._first = 0
        #: The number of lost calls of each shard. The server refuses lost calls that arrive late.
        self._turns = [0] * shards
        self._unsure: set[int] = set()
        #: The position in each shard from which the next renewal checks lanes without a holder.
        self._lanes: list[bytes] = [b"0"] * shards
        self._taken: list[Delivery] = []
        self._tasks: dict[object, asyncio.Task[None]] = {}
        self._left = False

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """Returns the delivery itself, because its entry keeps its id."""
        if delivery is None or not self.leases.holds(delivery):
            return None
        marks = await self._mark("get", delivery.receipt)
        return None if marks < 0 else (delivery, marks)

    async def mark(self, delivery: Delivery) -> None:
        """Adds a start mark."""
        if not self.leases.holds(delivery) or await self._mark("add", delivery.receipt) < 0:
            raise TransportError(
                f"the lease of message {delivery.message.id} was lost", code=LEASE_LOST
            )

    async def clear(self, delivery: Delivery) -> None:
        """Removes the start marks, except those of a later holder."""
        # otherwise the delivery is settled, which removed its marks
        if isinstance(delivery.receipt, Claim):
            await self._mark("clear", delivery.receipt)

    async def stop(self) -> None:
        """Stops claiming, and leaves the group after every delivery is settled."""
        self.stopped = True
        await self._end_tasks()
        await super().stop()
        if not self.leases.held:
            await self._leave()

    async def close(self) -> None:
        """Ends the subscription. Held entries become free; their deliveries count."""
        try:
            await self.stop()
        finally:
            await self.end()
        await self._leave()

    async def _mark(self, action: str, claim: Claim) -> int:
        marks = await self._call(MARK, claim.shard, action, claim.id, claim.deliveries)
        return int(marks)

    async def _call(self, script: Script, shard: int, *arguments: Any) -> Any:
        return await self._connection.call(script, self.streams[shard], *self._who, *arguments)

    # Called by the kit.

    async def _fetch(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        taken = self._taken  # also has entries that were claimed before a shard failed
        self._first += 1  # begins with another shard each time
        for turn in range(len(self.streams)):
            shard = (self._first + turn) % len(self.streams)
            if shard in self._ready.paused:
                continue
            room = max_messages - len(taken), max_bytes - sum(each.size for each in taken)
            if min(room) < 1:
                break
            try:
                await self._fetch_shard(shard, *room)
            except TransportError as error:
                self.health.set(("shard", shard), str(error))
                if not taken:
                    raise
                break  # deliver the entries of other shards without waiting for this one
            self.health.set(("shard", shard), None)
        self._taken = []
        return taken

    async def _fetch_shard(self, shard: int, most: int, max_bytes: int) -> None:
        try:
            if shard in self._unsure:
                await self._recover(shard)
            self._unsure.add(shard)  # until the answer says what was claimed
            turn = self._turns[shard]
            last, wait, entries = await self._call(FETCH, shard, turn, most, max_bytes)
        except TopologyError:
            await self._begin_again()
            raise
        self._unsure.discard(shard)
        if wait >= 0:
            self.wake_after(wait / 1000)
        if last and not self.stopped and shard not in self._tasks:
            self._start(shard, self._watch(shard, last))
        self._taken += [delivery_of(self.settings.topic, shard, *entry) for entry in entries]

    async def _recover(self, shard: int) -> None:
        """Gives back the entries of a claim whose answer was lost."""
        self._turns[shard] += 1
        turn, place = self._turns[shard], b"-"
        known = ids_of([*self.receipts(), *(each.receipt for each in self._taken)], shard)
        while place:
            place = await self._call(RECOVER, shard, turn, place, *known)

    async def _settle(self, settlements: Sequence[Settlement]) -> Sequence[SettleResult]:
        if len(self.streams) == 1:
            return await self._settle_shard(0, settlements)
        shards: dict[int, list[int]] = defaultdict(list)
        for index, settlement in enumerate(settlements):
            shards[settlement.delivery.receipt.shard].append(index)
        results = [SettleResult.UNKNOWN] * len(settlements)
        for shard, indexes in shards.items():
            with contextlib.suppress(TransportError):  # their outcome stays unknown
                answers = await self._settle_shard(shard, [settlements[each] for each in indexes])
                for index, answer in zip(indexes, answers, strict=True):
                    results[index] = answer
        return results

    async def _settle_shard(
        self, shard: int, settlements: Sequence[Settlement]
    ) -> Sequence[SettleResult]:
        arguments: list[Any] = []
        for each in settlements:
            _, id, deliveries = each.delivery.receipt
            arguments += (id, deliveries, action_of(each, ordered=self._ordered))
        try:
            waits, answers = await self._call(SETTLE, shard, *arguments)
        except TopologyError:  # the group was deleted, and its claims with it
            return [SettleResult.LOST] * len(settlements)
        if waits:
            self.wake()
        return [_ANSWERS[answer] for answer in answers]

    async def _renew(self, deliveries: Sequence[Delivery]) -> Collection[Delivery]:
        held: dict[int, list[Delivery]] = defaultdict(list)
        for delivery in deliveries:
            if isinstance(delivery.receipt, Claim):
                held[delivery.receipt.shard].append(delivery)
        shards = range(len(self.streams))
        answers = await asyncio.gather(
            *(self._renew_shard(shard, held[shard]) for shard in shards), return_exceptions=True
        )
        failures = [each for each in answers if isinstance(each, BaseException)]
        if failures:  # the leases of the shards that answered were renewed
            raise failures[0]
        return [each for lost in answers if not isinstance(lost, BaseException) for each in lost]

    async def _renew_shard(self, shard: int, held: Sequence[Delivery]) -> Sequence[Delivery]:
        now = self._clock.monotonic()
        arguments: list[Any] = [
            MODES[self.settings.ordering],
            round(self.settings.lease * 1000),
            self._lanes[shard],
        ]
        for each in held:
            arguments += (each.receipt.id, each.receipt.deliveries)
        try:
            ended, self._lanes[shard], answers = await self._call(RENEW, shard, *arguments)
        except TopologyError:
            return held
        if ended:
            self._start(("sweep", shard), self._sweep(shard))
        lost = [each for each, gone in zip(held, answers, strict=True) if gone]
        self.leases.renewed([each for each in held if each not in lost], now)
        return lost

    async def _claimable(self) -> int:
        return sum([int(await self._call(AVAILABLE, each)) for each in range(len(self.streams))])

    # Background tasks.

    def _start(self, name: object, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        if (old := self._tasks.get(name)) is not None:
            old.cancel()
        self._tasks[name] = task
        task.add_done_callback(lambda ended: self._ended(name, ended))

    def _ended(self, name: object, task: asyncio.Task[None]) -> None:
        if self._tasks.get(name) is task:  # a new task of this name may have replaced it
            del self._tasks[name]

    async def _watch(self, shard: int, last: bytes) -> None:
        """Wakes receivers when a message is published."""
        with contextlib.suppress(ProtoflowError):  # the next fetch reports the problem
            while not self.stopped:
                if await self._connection.news(self.streams[shard], last):
                    self.wake()
                    return

    async def _sweep(self, shard: int) -> None:
        """Removes entries that only a deleted group still needed."""
        after: bytes = b"-"
        with contextlib.suppress(ProtoflowError):  # the next group that ends sweeps again
            while after:
                after = await self._call(SWEEP, shard, after)

    async def _begin_again(self) -> None:
        """Creates the group again if no message is lost by it, or the configuration allows it."""
        ways = {"earliest": "0", "latest": "$"}
        policy = self._connection.settings.on_lost_position
        if self.settings.broadcast or policy in ways:
            self._topics.forget()
            await self._topics.join(self.settings, group=self.group, start=ways.get(policy, "$"))

    async def _end_tasks(self) -> None:
        tasks = [*self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _leave(self) -> None:
        if self._left:
            return
        self._left = True
        with contextlib.suppress(ProtoflowError):  # the leases of the member expire anyway
            for shard in range(len(self.streams)):
                while (ended := await self._call(LEAVE, shard)) < 0:
                    pass
                if ended:
                    await self._sweep(shard)
