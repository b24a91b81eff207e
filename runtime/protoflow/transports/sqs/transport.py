"""The SQS transport: a topic of SNS per topic, a queue per group, and queues of the group's own."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final

from protoflow.errors import CapabilityError, PublishError, TopologyError
from protoflow.message import Message
from protoflow.transport.interface import (
    Capabilities,
    SubscriptionListener,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    TransportSettings,
)
from protoflow.transport.kit.periodic import Periodic
from protoflow.transport.lag import Lag
from protoflow.transports.sqs.connection import AwsConnection
from protoflow.transports.sqs.dead_letters import SqsDeadLetterStore
from protoflow.transports.sqs.options import SqsOptions
from protoflow.transports.sqs.publisher import SqsPublisher
from protoflow.transports.sqs.queue_client import LONGEST_HOLD, QueueClient
from protoflow.transports.sqs.resources import Resources
from protoflow.transports.sqs.rights import policy_of
from protoflow.transports.sqs.subscription import SqsSubscription

#: Seconds between checks of AWS while the last request has failed.
_CHECK: Final = 5.0


class SqsTransport:
    """Implements `Transport`, `KeepsDeadLetters`, `LagReader` and `PrintsPolicy`."""

    def __init__(self, settings: TransportSettings, options: SqsOptions) -> None:
        fifo = options.is_fifo
        self.capabilities = Capabilities(
            durable=True,
            processes=True,
            per_key=options.fifo == "key",
            per_partition=options.fifo == "topic",
            broker_retry=True,
            retry_lateness=2.0,
            counts_deliveries=True,
            dead_letters=True,
            ordered_replays=fifo,
            leases=True,
            lag=True,
            broadcast=True,
            max_message_bytes=options.max_message_bytes * 3 // 4,  # it may be sent as base64
            proves_killers=not fifo,
            sources=not fifo,
            ordering_option="fifo",
        )
        self._connection = AwsConnection(settings, options)
        self._resources = Resources(self._connection)
        self._publisher = SqsPublisher(self._connection, self._resources)
        client = QueueClient(self._connection, self._resources)
        self.dead_letters = SqsDeadLetterStore(
            client, self._resources, self._publisher, options.scan_limit, fifo=fifo
        )
        self._checks = Periodic(_CHECK, self._connection.check)
        self._subscriptions: list[SqsSubscription] = []
        #: Of each broadcast: its queue, and the ARN of its subscription.
        self._processes: dict[str, str] = {}

    async def open(self) -> None:
        """Connects. Raises ConnectionFailedError or AuthenticationError."""
        await self._connection.open()
        self._checks.start()

    async def close(self) -> None:
        """Gives back what was not settled, sends what was submitted, and disconnects."""
        subscriptions, self._subscriptions = self._subscriptions, []
        processes, self._processes = self._processes, {}
        try:
            await self._checks.stop()
            await asyncio.gather(*(each.close() for each in subscriptions))
            await self._publisher.close()
            await asyncio.gather(*(self._resources.leave(*each) for each in processes.items()))
        finally:
            await self._connection.close()

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Makes topics and queues, or reports what is missing or differs."""
        self.dead_letters.sources.add(topology.subscriptions)
        for each in topology.subscriptions:
            if each.max_hold > LONGEST_HOLD:
                raise CapabilityError(
                    [f"SQS holds a message for {LONGEST_HOLD} s at most; lower max_hold"]
                )
        await self._resources.ensure(topology, mode)

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Publishes with what else is on its way."""
        return self._publisher.submit(messages)

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> SqsSubscription:
        """Begins to ask the group's queues; a broadcast has one for each process."""
        names = self._resources.names
        queue = self._resources.main_queue(settings.topic, settings.group)
        if settings.broadcast:
            queue = names.broadcast(settings.topic, settings.group, uuid.uuid4().hex)
            problems, subscription_arn = await self._resources.join(settings, queue)
            if problems:
                raise TopologyError("; ".join(problems))
            self._processes[queue] = subscription_arn
        subscription = SqsSubscription(
            self._connection, self._resources, self._publisher, settings, listener, queue
        )
        self._subscriptions.append(subscription)
        await subscription.begin()
        return subscription

    def health(self) -> str | None:
        """What was wrong with the last call."""
        return self._connection.problem

    async def lag(self, topic: str, group: str) -> Lag:
        """Returns about how many messages of a group are unfinished."""
        names, messages = self._resources.names, 0
        queues = [self._resources.main_queue(topic, group), names.retry(topic, group)]
        if not self._connection.options.is_fifo:
            queues.append(names.solo(topic, group))
        for queue in queues:
            messages += sum(await self._resources.counts(queue))
        return Lag(messages=messages)

    def policy(self, topology: Topology) -> Mapping[str, Any]:
        """See `protoflow.transport.PrintsPolicy`."""
        return policy_of(self._connection, self._resources, topology)
