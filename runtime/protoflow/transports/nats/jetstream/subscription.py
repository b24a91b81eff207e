"""A subscription: one topic read by one group."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Sequence
from dataclasses import replace

from protoflow.contract.spec import Ordering
from protoflow.errors import ConnectionFailedError, TransportError
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transport.interface import SubscriptionListener
from protoflow.transport.kit.health_reporter import HealthReporter
from protoflow.transports.nats.jetstream.buffers import Lease
from protoflow.transports.nats.jetstream.consumers import Consumers
from protoflow.transports.nats.jetstream.lease_renewer import LeaseRenewer
from protoflow.transports.nats.jetstream.puller import Puller
from protoflow.transports.nats.jetstream.settler import Settler, Settling
from protoflow.transports.nats.jetstream.start_marks import StartMarks
from protoflow.transports.nats.wire.client import FastClient
from protoflow.transports.nats.wire.reader import Received

_log = logging.getLogger("protoflow.transports.jetstream")


class JetStreamSubscription:
    """The deliveries of one or several consumers.

    Args:
        consumers: manages the consumers at the server.
        retry_topic: the address of the group's retries, if they are published there.
        schedules: whether the server keeps their waits; otherwise this process does.
        marks: the start marks of the group; None for a group that ends with its process.
    """

    def __init__(
        self,
        consumers: Consumers,
        listener: SubscriptionListener,
        *,
        retry_topic: str | None = None,
        schedules: bool = True,
        marks: StartMarks | None = None,
    ) -> None:
        settings = self.settings = consumers.settings
        self.pullers: list[Puller] = []
        #: The subject of the missing right, at the last check.
        self.missing_right = ""
        self._connection = consumers.connection
        self._retry_topic = retry_topic
        self._schedules = schedules
        self._consumers = consumers
        self._marks = marks
        self._renewer = LeaseRenewer(consumers, listener, self.pullers, self._fail)
        self._leases = self._renewer.leases
        self._settler = Settler(self._connection, settings.lease)
        self._health = HealthReporter(listener, settings.name)
        self._error: TransportError | None = None
        self._stopped = False
        self._next = 0
        self._ordered = settings.ordering is not Ordering.NONE

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """As `Subscription.receive`."""
        while not self._stopped:
            if self._error is not None:
                raise self._error
            if taken := self._take(max_messages, max_bytes):
                return taken
            self._renewer.wake.clear()
            await self._renewer.wake.wait()
        return ()

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        """See `Subscription.settle`: it is done when the consumer's leader has every settlement."""
        settling = Settling()
        leases = self._leases
        for settlement in settlements:
            lease = leases.of(settlement.delivery)
            if lease is not None:
                leases.release(lease)
                lease.source.buffer.settled(lease)
                if settlement.action is not Action.ACK and self._keep(lease, settlement, settling):
                    continue
            elif (lease := self._settler.held(settlement.delivery)) is None:
                settling.known(SettleResult.LOST)
                continue
            settling.send(lease, settlement)
        self._pull()
        self._renewer.wake.set()
        return self._settler.send(settling)

    def _keep(self, lease: Lease, settlement: Settlement, settling: Settling) -> bool:
        """Whether nothing may be sent: the message is lost, or later ones would overtake it."""
        puller = lease.source
        if self._renewer.is_over(lease):
            settling.known(SettleResult.LOST)
            return True
        if self._stopped or not puller.window:
            return False
        self._leases.add(again := lease.again(settlement, self._connection.clock.monotonic()))
        puller.buffer.add(again)
        settling.known(SettleResult.DONE)
        return True

    def defer(self, message: Message, delay: float) -> Message | None:
        """As `Subscription.defer`: a scheduled message to the group's own subject."""
        if self._retry_topic is None:
            return None
        wait = delay if self._schedules else 0.0
        return replace(message, topic=self._retry_topic, delay=wait, mandatory=True)

    def pause(self, shards: Collection[str | int]) -> None:
        """As `Subscription.pause`."""
        for puller in self.pullers:
            puller.paused = puller.paused or puller.shard in shards

    def resume(self, shards: Collection[str | int]) -> None:
        """As `Subscription.resume`."""
        for puller in self.pullers:
            puller.paused = puller.paused and puller.shard not in shards
        self._pull()
        self._renewer.wake.set()

    async def stop(self) -> None:
        """See `Subscription.stop`. Messages that were handed out keep their leases until
        settled."""
        if self._stopped:
            return
        self._stopped = True
        self._renewer.stop()
        try:
            await asyncio.gather(*(puller.stop() for puller in self.pullers))
        finally:
            for puller in self.pullers:
                self._renewer.give_back(puller.buffer.drain())
        answers = False
        with contextlib.suppress(ConnectionFailedError):
            await self._connection.flush()
            answers = True
        await self._settler.wait()
        if answers:  # otherwise it would only wait again
            with contextlib.suppress(TransportError):
                await self._consumers.left(self.pullers)

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """See `Isolation.isolate`: a message keeps its sequence, so it runs without being moved."""
        if delivery is None:
            return None
        return delivery, 0 if self._marks is None else await self._marks.count(delivery)

    async def mark(self, delivery: Delivery) -> None:
        """As `Isolation.mark`."""
        if self._marks is not None:
            await self._marks.add(delivery, await self._marks.count(delivery))

    async def clear(self, delivery: Delivery) -> None:
        """As `Isolation.clear`."""
        if self._marks is not None:
            await self._marks.clear(delivery)

    async def available(self) -> int | None:
        """As `Availability.available`: the messages that wait in the consumers of this process, and
        those that arrived and were not handed out."""
        if not self._connection.is_connected:
            return None
        ours = [puller for puller in self.pullers if puller.pin or not puller.pin_timeout]
        try:
            waiting = sum([await self._consumers.waiting(puller) for puller in ours])
        except TransportError:
            return None
        now = self._connection.clock.monotonic()
        return waiting + sum(puller.buffer.ready(now) for puller in ours if puller.open)

    # Calls of the connection.

    async def connected(self, client: FastClient) -> None:
        """Pulls with the new client, and repeats unconfirmed settlements."""
        await self._settler.connected(client)
        for puller in self.pullers:
            await puller.connected(client)
            self._renewer.once(puller, self._consumers.check)
        self._health.set(None, None)

    def disconnected(self, detail: str) -> None:
        """Notes that no messages arrive for a while."""
        self._settler.disconnected()
        for puller in self.pullers:
            puller.disconnected()
        if not self._stopped:
            self._health.set(None, detail)

    def denied(self, subject: str) -> None:
        """Handles a missing right: it is requested again, less often."""
        for puller in self.pullers:
            if puller.covers(subject):
                self.missing_right = subject
                puller.refused(subject)

    def tick(self, now: float) -> None:
        """Renews leases, gives up late settlements, and repeats requests."""
        self._renewer.sweep(now)
        self._settler.tick(now)
        if not self._stopped:
            for puller in self.pullers:
                puller.tick(now)
                if self._consumers.is_due(puller, now):
                    self._renewer.once(puller, self._consumers.check)
            if self._ordered:
                self._renewer.wake.set()  # a waiting lane may be due
        elif not len(self._leases) and not self._settler.open:
            self._connection.leave(self)

    # Calls of pullers.

    @property
    def credit(self) -> int:
        """Returns how many more messages may arrive."""
        return self._leases.credit

    def arrived(self, messages: Sequence[Received], puller: Puller, now: float) -> None:
        """Receives messages."""
        self._renewer.sweep(now)  # messages that were lost meanwhile are handled before new ones
        if self._renewer.in_doubt:
            return
        topic, leases, buffer = self.settings.topic, self._leases, puller.buffer
        for message in messages:
            try:
                lease = Lease.of(message, puller, topic, now)
                if not self._settler.is_done(lease):
                    leases.add(lease)
                    buffer.add(lease)
            except Exception:  # the message is redelivered, and others are not held up
                _log.exception("jetstream: a message was not taken")
        self._renewer.wake.set()
        if not self._health.healthy:
            self._health.set(puller, None)

    def late(self) -> None:
        """Handles a long time without messages, compared with the lease."""
        self._renewer.doubt()

    def answered(self, puller: Puller, problem: str | None, *, gone: bool = False) -> None:
        """Notes whether a puller gets answers."""
        self._health.set(puller, problem)
        if gone and not self._stopped:
            self._renewer.once(puller, self._consumers.recover)

    def pinned(self, puller: Puller) -> None:
        """Handles that a puller now gets the messages; unsettled ones of others are awaited."""
        self._renewer.run(self._renewer.open(puller))

    def unpinned(self, puller: Puller) -> None:
        """Handles that a puller no longer gets the messages, which move."""
        self._renewer.give_back(puller.buffer.drain())
        self._renewer.run(self._renewer.move(puller))

    def _fail(self, error: TransportError) -> None:
        """Ends the subscription: its waiting messages go to other processes."""
        self._error = error
        self._health.fail(str(error))
        for puller in self.pullers:
            self._renewer.give_back(puller.buffer.drain())
            self._renewer.run(puller.stop())
        self._renewer.wake.set()

    def _take(self, limit: int, max_bytes: int) -> list[Delivery]:
        leases, pullers = self._leases, self.pullers
        now = self._connection.clock.monotonic()
        self._renewer.sweep(now)  # after a standstill, lost messages are not handed out
        limit = min(limit, self.settings.max_in_flight - leases.handed)
        oldest = now - self.settings.lease
        taken: list[Delivery] = []

        def accept(lease: Lease) -> bool:
            nonlocal max_bytes
            if lease.ended:
                return True  # the message was lost while it waited
            if lease.renewed <= oldest or len(taken) >= limit:
                return False
            if taken and lease.delivery.size > max_bytes:
                return False
            max_bytes -= lease.delivery.size
            taken.append(leases.hand_out(lease, now))
            return True

        self._next += 1  # so that no puller is always the first
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
