"""The solo queue of an unordered group: messages that must run alone in a process.

A message has no permanent identity here, so a suspect is moved to a queue that is read one message
at a time, while nothing else runs in the process. Its start marks are metadata: to write one, the
message is sent again, the old copy is deleted, and the new copy is taken.
"""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from collections.abc import Mapping
from typing import Final

from protoflow import wire
from protoflow.clock import Clock
from protoflow.errors import TransportError
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transport.interface import SubscriptionSettings
from protoflow.transport.kit.leases import LeaseTable
from protoflow.transports.sqs.claims import MARKS, TOKEN, Claim
from protoflow.transports.sqs.names import address
from protoflow.transports.sqs.publisher import LONGEST_DELAY, SqsPublisher
from protoflow.transports.sqs.queue_client import QueueClient
from protoflow.transports.sqs.resources import Resources

#: Seconds for which a request waits; SQS may miss messages if it does not wait.
_WAIT: Final = 1
#: The most start marks of this process that are remembered.
_REMEMBERED: Final = 1000


class SoloQueue:
    """The solo queue of one subscription.

    Attributes:
        queue: its name.
    """

    def __init__(
        self,
        client: QueueClient,
        resources: Resources,
        publisher: SqsPublisher,
        settings: SubscriptionSettings,
        clock: Clock,
    ) -> None:
        self.queue = resources.solo_queue(settings)
        self._clock = clock
        self._client = client
        self._retries = resources.retry_queue(settings)
        self._publisher = publisher
        self._settings = settings
        self._turn = asyncio.Lock()
        #: Marks that this process wrote prove nothing while it lives.
        self._alive: dict[str, int] = {}

    @property
    def writing(self) -> bool:
        """Whether a start mark is being written, so that no copy of the message is held."""
        return self._turn.locked()

    async def written(self) -> None:
        """Waits until no start mark is being written."""
        async with self._turn:
            pass

    def holds(self, delivery: Delivery) -> bool:
        """Whether a delivery came from this queue."""
        return isinstance(delivery.receipt, Claim) and delivery.receipt.queue == self.queue

    def marks(self, delivery: Delivery) -> int:
        """Returns the start marks of a delivery from this queue."""
        claim: Claim = delivery.receipt
        return self._alive.get(claim.token, claim.marks)

    async def move(self, delivery: Delivery) -> None:
        """Sends the message of a delivery to this queue. Raises TransportError."""
        hop = _hop(str(delivery.failures), f"{delivery.first_failure:.3f}")
        await self._send(delivery.message, self.queue, hop | _copy(uuid.uuid4().hex, 0))

    async def take(self) -> Delivery | None:
        """Takes the next message. Raises TransportError."""
        async with self._turn:
            return await self._receive()

    async def write(self, delivery: Delivery, leases: LeaseTable, *, add: int = 0) -> bool:
        """Adds start marks, or removes them; False: the delivery is not held any more."""
        async with self._turn:
            if not (self.holds(delivery) and leases.holds(delivery)):
                return False
            old: Claim = delivery.receipt
            marks = self.marks(delivery) + add if add else 0
            if marks == old.marks:
                self._alive.pop(old.token, None)
                return True
            token = uuid.uuid4().hex
            await self._send(
                delivery.message, self.queue, _hop_of(delivery.message) | _copy(token, marks)
            )
            leases.release(delivery)
            self._alive.pop(old.token, None)
            if add:
                self._remember(token, marks - add)
            await self._client.settle((Settlement(delivery),))
            return await self._take_copy(delivery, leases, token)

    async def give_back(self, settlement: Settlement) -> SettleResult:
        """Returns a held message to the group. Its start marks are gone."""
        delivery = settlement.delivery
        hop = _hop(str(settlement.failures), f"{settlement.first_failure:.3f}")
        delay = settlement.delay if settlement.action is Action.NACK else 0.0
        try:
            await self._send(delivery.message, self._retries, hop, delay)
        except TransportError:  # `health` reports it
            return SettleResult.UNKNOWN
        (result,) = await self._client.settle((Settlement(delivery),))
        return result

    async def _take_copy(self, delivery: Delivery, leases: LeaseTable, token: str) -> bool:
        """Holds the new copy in place of the old one; False: another process took it first."""
        loop, others = asyncio.get_running_loop(), list[str]()
        deadline = loop.time() + self._settings.lease
        try:
            while loop.time() < deadline:
                found = await self._receive()
                if found is None:
                    continue
                claim: Claim = found.receipt
                if claim.token == token:
                    delivery.receipt = claim
                    leases.add((delivery,), self._clock.monotonic())
                    return True
                others.append(claim.handle)  # hidden until the copy is found
            return False
        finally:
            if others:
                await self._client.hide(self.queue, others, 0)

    async def _receive(self) -> Delivery | None:
        found = await self._client.receive(
            self._settings.topic,
            self.queue,
            1,
            wait=_WAIT,
            lease=self._settings.lease,
            own=True,
        )
        return found[0] if found else None

    async def _send(
        self, message: Message, queue: str, hop: Mapping[str, str], delay: float = 0.0
    ) -> None:
        """Sends a message to a queue of the group. Raises TransportError."""
        metadata = {
            name: text
            for name, text in message.metadata.items()
            if not name.startswith(wire.PF_PREFIX)
        }
        metadata |= {wire.PF_GROUP: self._settings.group, wire.PF_ORIGINAL_TOPIC: message.topic}
        sent = dataclasses.replace(
            message,
            topic=address(queue),
            metadata={**metadata, **hop},
            delay=min(delay, float(LONGEST_DELAY)),
            mandatory=True,
        )
        (error,) = await self._publisher.submit((sent,))
        if error is not None:
            raise error

    def _remember(self, token: str, marks: int) -> None:
        if len(self._alive) >= _REMEMBERED:
            del self._alive[next(iter(self._alive))]
        self._alive[token] = marks


def _copy(token: str, marks: int) -> dict[str, str]:
    return {TOKEN: token, MARKS: str(marks)}


def _hop(attempt: str, first_failure: str) -> dict[str, str]:
    return {wire.PF_ATTEMPT: attempt, wire.PF_FIRST_FAILURE: first_failure}


def _hop_of(message: Message) -> dict[str, str]:
    """The attempts that a message of an own queue names."""
    metadata = message.metadata
    return _hop(metadata.get(wire.PF_ATTEMPT, "0"), metadata.get(wire.PF_FIRST_FAILURE, "0"))
