"""A subscription: long polls of the group's queues, and settling in batches."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Final

from protoflow.error_codes import LEASE_LOST
from protoflow.errors import ProtoflowError, TopologyError, TransportError
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transport.interface import SubscriptionListener, SubscriptionSettings, TopologyMode
from protoflow.transport.kit.queue_source import QueueSource
from protoflow.transport.kit.subscription import QueueSubscription
from protoflow.transports.sqs.connection import BATCH, AwsConnection
from protoflow.transports.sqs.names import address
from protoflow.transports.sqs.publisher import LONGEST_DELAY, SqsPublisher
from protoflow.transports.sqs.queue_client import QueueClient
from protoflow.transports.sqs.resources import Resources
from protoflow.transports.sqs.solo_queue import SoloQueue

_log = logging.getLogger("protoflow.sqs")
#: Seconds between looks at a solo queue that was empty.
_CHECK: Final = 60.0


class SqsSubscription(QueueSubscription):
    """A member of a group.

    Args:
        queue: the queue that is subscribed to the topic.
    """

    def __init__(
        self,
        connection: AwsConnection,
        resources: Resources,
        publisher: SqsPublisher,
        settings: SubscriptionSettings,
        listener: SubscriptionListener,
        queue: str,
    ) -> None:
        source = QueueSource(
            fetch=self._fetch,
            settle=self._settle,
            renew=self._renew,
            poll=0.0,  # `fetch` waits
            defer=self._deferred,
            available=self._waiting,
        )
        super().__init__(source, settings, listener, connection.settings.clock)
        self._connection = connection
        self._resources = resources
        self._client = QueueClient(connection, resources)
        self._wait = connection.options.wait_time
        self.queue = queue
        self._retries = None if settings.broadcast else resources.retry_queue(settings)
        self._solo: SoloQueue | None = None
        if not (settings.broadcast or connection.options.is_fifo):
            clock = connection.settings.clock
            self._solo = SoloQueue(self._client, resources, publisher, settings, clock)
        self._polls: dict[str, asyncio.Task[None]] = {}
        self._checked = -math.inf

    async def begin(self) -> None:
        """Looks for messages that must run alone."""
        if self._solo is not None:
            await self._check(self._solo)

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """The delivery from the solo queue, to which a suspect is moved; a broadcast has none."""
        solo = self._solo
        if delivery is not None:
            if not self.leases.holds(delivery):
                return None
            if solo is None:
                return delivery, 0
            if solo.holds(delivery):
                return delivery, solo.marks(delivery)
            await solo.move(delivery)
            self._checked = -math.inf
            await super().settle((Settlement(delivery),))
        if solo is None or (found := await solo.take()) is None:
            return None
        self.leases.add((found,), self._clock.monotonic())
        return found, solo.marks(found)

    async def mark(self, delivery: Delivery) -> None:
        """One start mark more, in a new copy of the message."""
        if self._solo is not None and not await self._solo.write(delivery, self.leases, add=1):
            raise TransportError(
                f"the lease of message {delivery.message.id} was lost", code=LEASE_LOST
            )

    async def clear(self, delivery: Delivery) -> None:
        """No start marks."""
        if self._solo is not None:
            await self._solo.write(delivery, self.leases)

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        """See `Subscription.settle`; it waits until no start mark is being written."""
        if self._solo is None or not self._solo.writing:
            return super().settle(settlements)
        return self._loop.create_task(self._settle_later(settlements))

    async def _settle_later(self, settlements: Sequence[Settlement]) -> Sequence[SettleResult]:
        assert self._solo is not None  # noqa: S101  it is writing
        await self._solo.written()
        return await super().settle(settlements)

    async def stop(self) -> None:
        """Requests no more messages, and gives back those that were not handed out.

        Requests that wait for messages are not cancelled: the messages of an answer that nobody
        reads would be hidden until their lease ends.
        """
        self.stopped = True
        polls = [*self._polls.values()]
        try:
            if polls:
                await asyncio.wait(polls)  # a gather would wait for what it cancels
        finally:
            for poll in polls:
                if not poll.cancel() and not poll.cancelled():
                    poll.exception()  # a failure does not matter any more
        await super().stop()

    # What the kit calls.

    async def _fetch(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """Waits until one of the queues has answered; `_poll` hands out its messages."""
        if self.stopped:  # `stop` waits for the requests that it knows
            return ()
        for queue in (self.queue, *((self._retries,) if self._retries else ())):
            if queue not in self._polls:
                self._polls[queue] = self._loop.create_task(self._poll(queue, max_messages))
        await asyncio.wait(self._polls.values(), return_when=asyncio.FIRST_COMPLETED)
        done = [queue for queue, poll in self._polls.items() if poll.done()]
        failures = [self._polls.pop(queue).exception() for queue in done]
        for failure in failures:
            if failure is not None:
                if isinstance(failure, TopologyError):
                    await self._begin_again()
                raise failure
        return ()

    async def _poll(self, queue: str, max_messages: int) -> None:
        found = await self._client.receive(
            self.settings.topic,
            queue,
            min(BATCH, max_messages),
            wait=self._wait,
            lease=self.settings.lease,
            own=queue == self._retries,
        )
        if found:
            self.accept(found)

    async def _settle(self, settlements: Sequence[Settlement]) -> Sequence[SettleResult]:
        solo = self._solo
        if solo is None:
            return await self._client.settle(settlements)
        results: dict[int, SettleResult] = {}
        plain: dict[int, Settlement] = {}
        for index, each in enumerate(settlements):
            if each.action is not Action.ACK and solo.holds(each.delivery):
                results[index] = await solo.give_back(each)
            else:
                plain[index] = each
        answers = await self._client.settle([*plain.values()])
        results.update(zip(plain, answers, strict=True))
        return [results[index] for index in range(len(settlements))]

    async def _renew(self, deliveries: Sequence[Delivery]) -> Collection[Delivery]:
        now = self._clock.monotonic()
        results = await self._client.renew(deliveries, self.settings.lease)
        found: dict[SettleResult, list[Delivery]] = defaultdict(list)
        for each, result in zip(deliveries, results, strict=True):
            found[result].append(each)
        if found[SettleResult.UNKNOWN]:
            self.leases.renewed(found[SettleResult.DONE], now)  # the kit notes all or none
            raise TransportError("some leases were not renewed", code=LEASE_LOST)
        if self._solo is not None and not self.stopped:
            await self._check_later(self._solo)
        return found[SettleResult.LOST]

    async def _check_later(self, solo: SoloQueue) -> None:
        """Looks at the solo queue; what hinders it does not end leases."""
        try:
            await self._check(solo)
        except TopologyError:
            await self._begin_again()
        except TransportError:
            pass  # `health` reports it

    async def _check(self, solo: SoloQueue) -> None:
        """Reports messages that must run alone, once they can be taken."""
        now = self._clock.monotonic()
        if now - self._checked < _CHECK:
            return
        waiting, taken, _ = await self._resources.counts(solo.queue)
        if waiting:
            self._listener.suspects_waiting()
        if not (waiting or taken):
            self._checked = now

    def _deferred(self, message: Message, delay: float) -> Message | None:
        """The message for the group's retry queue; the rest of a long wait begins there again."""
        if self._retries is None or not self.settings.needs_broker_retry:
            return None
        return dataclasses.replace(
            message,
            topic=address(self._retries),
            delay=min(delay, float(LONGEST_DELAY)),
            mandatory=True,
        )

    async def _waiting(self) -> int | None:
        try:
            waiting = (await self._resources.counts(self.queue))[0]
            if self._retries is not None:
                waiting += (await self._resources.counts(self._retries))[0]
        except TransportError:
            return None
        return waiting

    async def _begin_again(self) -> None:
        """Makes the group again, whose queues an operator has removed."""
        if self._connection.settings.topology is not TopologyMode.CREATE:
            return
        try:
            for queue in self._resources.own_queues(self.settings):
                self._resources.forget(queue)
            if self.settings.broadcast:
                await self._resources.join(self.settings, self.queue)
            else:
                await self._resources.make_group(self.settings)
        except ProtoflowError as error:
            _log.warning(
                "queues were not made again",
                extra={"subscription": self.settings.name, "error": str(error)},
            )
