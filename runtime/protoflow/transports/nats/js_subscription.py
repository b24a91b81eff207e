"""One group's deliveries of a topic: handed out, kept leased, settled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import replace
from typing import Any

from protoflow.errors import ConnectionFailedError, TransportError
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.spec import Ordering
from protoflow.transport import SubscriptionListener, SubscriptionSettings
from protoflow.transports.nats.client import FastClient
from protoflow.transports.nats.connection import Connection
from protoflow.transports.nats.js_leases import NAK, Lease, Leases, said
from protoflow.transports.nats.js_puller import Puller
from protoflow.transports.nats.js_settler import Settler, command
from protoflow.transports.nats.reader import Received

_log = logging.getLogger("protoflow.transports.jetstream")
_POLL = 0.1


class JetStreamSubscription:
    """The deliveries of one or several consumers.

    Args:
        retry_topic: the address of the group's retries, where schedules can keep them.
        recover: makes a consumer that is gone anew; raises TransportError if it must not.
        lent: how many messages a consumer has lent to all processes.
        left: called when the subscription is over.
    """

    def __init__(
        self,
        connection: Connection,
        settings: SubscriptionSettings,
        listener: SubscriptionListener,
        *,
        retry_topic: str | None,
        recover: Callable[[Puller], Awaitable[None]],
        lent: Callable[[Puller], Awaitable[int]],
        left: Callable[[], Awaitable[None]],
    ) -> None:
        self.settings = settings
        self.pullers: list[Puller] = []
        self._connection = connection
        self._listener = listener
        self._retry_topic = retry_topic
        self._recover = recover
        self._lent = lent
        self._left = left
        self._leases = Leases(settings, connection.write)
        self._settler = Settler(connection, settings.lease)
        self._wake = asyncio.Event()
        self._error: TransportError | None = None
        self._stopped = False
        self._next = 0
        self._ordered = settings.ordering is not Ordering.NONE
        self._problems: dict[Puller | None, str] = {}
        self._recovering: set[Puller] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """As `Subscription.receive`."""
        while not self._stopped:
            if self._error is not None:
                raise self._error
            if taken := self._take(max_messages, max_bytes):
                return taken
            self._wake.clear()
            await self._wake.wait()
        return ()

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        """As `Subscription.settle`: done when the server has every one of them."""
        commands: list[bytes] = []
        results: list[SettleResult] = []
        leases = self._leases
        for settlement in settlements:
            lease = leases.of(settlement.delivery)
            if lease is None:
                results.append(SettleResult.LOST)
                continue
            leases.release(lease)
            lease.source.buffer.settled(lease)
            if settlement.action is Action.ACK or not self._keep(lease, settlement):
                commands.append(command(lease.reply, settlement))
            results.append(SettleResult.DONE)
        self._pull()
        self._wake.set()
        return self._settler.send(commands, results)

    def _keep(self, lease: Lease, settlement: Settlement) -> bool:
        """Whether it stays here: given back to the server it would come after newer ones."""
        puller = lease.source
        if self._stopped or not puller.window:
            return False
        again = lease.again(settlement, self._connection.clock.monotonic())
        self._leases.add(again)
        puller.buffer.add(again)
        return True

    def defer(self, message: Message, delay: float) -> Message | None:
        """As `Subscription.defer`: a scheduled message to the group's own subject."""
        if self._retry_topic is None:
            return None
        return replace(message, topic=self._retry_topic, delay=delay, mandatory=True)

    def pause(self, shards: Collection[str | int]) -> None:
        """As `Subscription.pause`."""
        for puller in self.pullers:
            puller.paused = puller.paused or puller.shard in shards

    def resume(self, shards: Collection[str | int]) -> None:
        """As `Subscription.resume`."""
        for puller in self.pullers:
            puller.paused = puller.paused and puller.shard not in shards
        self._pull()
        self._wake.set()

    async def stop(self) -> None:
        """As `Subscription.stop`. What was handed out stays leased until it is settled."""
        if self._stopped:
            return
        self._stopped = True
        self._wake.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(puller.stop() for puller in self.pullers))
        for puller in self.pullers:
            self._give_back(puller.buffer.drain())
        with contextlib.suppress(ConnectionFailedError):
            await self._connection.flush()
        await self._settler.wait()
        with contextlib.suppress(TransportError):
            await self._left()

    # What the connection calls.

    async def connected(self, client: FastClient) -> None:
        """Pulls with the new client, and repeats settlements that were not confirmed."""
        for puller in self.pullers:
            await puller.connected(client)
        self._settler.send_again()
        self._report(None, None)

    def disconnected(self, detail: str) -> None:
        """Nothing comes for a while."""
        for puller in self.pullers:
            puller.disconnected()
        if not self._stopped:
            self._report(None, detail)

    def denied(self, subject: str) -> None:
        """Rights are missing, which no new attempt will mend."""
        if any(puller.covers(subject) for puller in self.pullers):
            self._fail(TransportError(f"{self.settings.name}: not authorised for {subject}"))

    def tick(self, now: float) -> None:
        """Renews leases, gives up on settlements, asks again."""
        lost = self._leases.sweep(now, connected=self._connection.is_connected)
        for lease in lost:
            if lease.handed:
                lease.source.buffer.settled(lease)
        if handed := [lease.delivery for lease in lost if lease.handed]:
            self._listener.deliveries_lost(handed)
        self._settler.expire(now)
        if not self._stopped:
            for puller in self.pullers:
                puller.tick(now)
            if self._ordered:
                self._wake.set()  # a lane that waited may be due
        elif not len(self._leases) and not self._settler.open:
            self._connection.leave(self)

    # What pullers call.

    @property
    def credit(self) -> int:
        """How many more messages there may be."""
        return self._leases.credit

    def arrived(self, messages: Sequence[Received], puller: Puller, now: float) -> None:
        """Messages came."""
        topic, leases, buffer = self.settings.topic, self._leases, puller.buffer
        for message in messages:
            lease = Lease.of(message, puller, topic, now)
            leases.add(lease)
            buffer.add(lease)
        self._wake.set()
        if self._problems:
            self._report(puller, None)

    def answered(self, puller: Puller, problem: str | None, *, gone: bool = False) -> None:
        """A puller gets answers, or not."""
        self._report(puller, problem)
        if gone and puller not in self._recovering and not self._stopped:
            self._recovering.add(puller)
            self._run(self._restore(puller))

    def pinned(self, puller: Puller) -> None:
        """A puller became the one; what others hold of its messages is waited for."""
        self._run(self._open(puller))

    def unpinned(self, puller: Puller) -> None:
        """A puller is not the one any more; its messages move."""
        self._give_back(puller.buffer.drain())
        self._run(self._move(puller))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _restore(self, puller: Puller) -> None:
        try:
            await self._recover(puller)
        except ConnectionFailedError:
            pass  # the next refusal tries again
        except TransportError as error:
            self._fail(error)
        finally:
            self._recovering.discard(puller)

    async def _open(self, puller: Puller) -> None:
        """Opens a puller once every message that its consumer has lent is in our hands: older
        ones come again after newer ones, and only then is their order known."""
        pin = puller.pin
        while pin and puller.pin == pin and not puller.open:
            with contextlib.suppress(TransportError):
                if await self._lent(puller) <= puller.held:
                    puller.open = True
                    self._wake.set()
                    return
            await asyncio.sleep(_POLL)

    async def _move(self, puller: Puller) -> None:
        await self._listener.shards_revoked([puller.shard], self.settings.rebalance_drain)
        left = [lease for lease in self._leases if lease.source is puller]
        self._give_back(left)
        puller.compete()

    def _give_back(self, leases: Iterable[Lease]) -> None:
        for lease in leases:
            if self._leases.release(lease):
                lease.source.buffer.settled(lease)
                self._connection.write(said(lease.reply, NAK))

    def _fail(self, error: TransportError) -> None:
        self._error = error
        self._report(None, str(error))
        self._wake.set()

    def _take(self, limit: int, max_bytes: int) -> list[Delivery]:
        leases, pullers = self._leases, self.pullers
        limit = min(limit, self.settings.max_in_flight - leases.handed)
        now = self._connection.clock.monotonic()
        taken: list[Delivery] = []

        def accept(lease: Lease) -> bool:
            nonlocal max_bytes
            if lease.ended:
                return True  # lost while it waited: nothing of it is left
            if len(taken) >= limit or (taken and lease.delivery.size > max_bytes):
                return False
            max_bytes -= lease.delivery.size
            taken.append(leases.hand(lease, now))
            return True

        self._next += 1  # no puller is always the first
        for turn in range(len(pullers)):
            puller = pullers[(self._next + turn) % len(pullers)]
            if puller.paused or not puller.open:
                continue
            if not puller.buffer.take(now, accept):
                break
        return taken

    def _pull(self) -> None:
        for puller in self.pullers:
            puller.pull()

    def _report(self, puller: Puller | None, problem: str | None) -> None:
        """Keeps the list of problems; tells the listener when the first comes or the last
        goes."""
        if problem is None and self._error is None:
            if self._problems.pop(puller, None) is not None and not self._problems:
                self._listener.health_changed(True, "")
        elif problem is not None:
            first = not self._problems
            self._problems[puller] = problem
            if first:
                self._listener.health_changed(False, f"{self.settings.name}: {problem}")
