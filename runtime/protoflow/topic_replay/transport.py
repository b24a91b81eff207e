"""The transport of a replayed handler: old messages come in, outputs are captured or published."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from protoflow import wire
from protoflow.errors import PublishError
from protoflow.ids import new_id
from protoflow.message import Message
from protoflow.topic_replay.feed import Feed, current_ticket
from protoflow.transport.interface import (
    Capabilities,
    Subscription,
    SubscriptionListener,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    Transport,
)
from protoflow.transport.kit.submission import submit_by_share


class ReplayTransport:
    """Implements `Transport`. Nothing is acknowledged, retried or dead-lettered at the broker.

    Args:
        broker: the transport of the service, open.
        captures: whether outputs are kept with their messages, and never published.

    Attributes:
        published: the number of messages that the broker has confirmed.
        stray: the number of captured messages that belong to no run.
        feed: hands out the messages; set before the handler starts.
    """

    feed: Feed

    def __init__(self, broker: Transport, *, captures: bool) -> None:
        self._broker = broker
        self._captures = captures
        self._run = f":p{new_id()}"
        self.published = 0
        self.stray = 0
        #: With `atomic`, outputs arrive together with the settlement of their message.
        self.capabilities = replace(
            granted(broker.capabilities), atomic=captures, atomic_on_demand=False
        )

    async def open(self) -> None:
        """Does nothing: the broker is open."""

    async def close(self) -> None:
        """Does nothing: the owner closes the broker."""

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Creates or verifies the topics of outputs, as a service does; no group is touched."""
        if not self._captures:
            await self._broker.ensure(Topology(topics=topology.topics), mode)

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Publishes outputs, or captures them. Dead letters become results."""
        return submit_by_share(messages, self._submit_of)

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> Subscription:
        """Returns the feed."""
        return self.feed

    def health(self) -> str | None:
        """Returns the problem of the broker."""
        return self._broker.health()

    def _submit_of(
        self, message: Message
    ) -> Callable[[Sequence[Message]], asyncio.Future[Sequence[PublishError | None]]]:
        if wire.PF_DEAD_LETTER in message.metadata:
            return self._fail
        return self._capture if self._captures else self._publish

    def _publish(
        self, messages: Sequence[Message]
    ) -> asyncio.Future[Sequence[PublishError | None]]:
        # The id of an output is that of its first publication, which a broker may still remember.
        again = [
            replace(
                message, deduplication_id=f"{message.deduplication_id or message.id}{self._run}"
            )
            for message in messages
        ]
        answer = self._broker.submit(again)
        answer.add_done_callback(self._count)
        return answer

    def _count(self, answer: asyncio.Future[Sequence[PublishError | None]]) -> None:
        if not answer.cancelled() and answer.exception() is None:
            self.published += list(answer.result()).count(None)

    def _capture(
        self, messages: Sequence[Message]
    ) -> asyncio.Future[Sequence[PublishError | None]]:
        """Keeps messages that a handler publishes at once through its service."""
        if (ticket := current_ticket()) is None:
            self.stray += len(messages)
        else:
            ticket.result.outputs += messages
        return _confirmed(messages)

    def _fail(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        for message in messages:
            self.feed.fail(message)
        return _confirmed(messages)


def granted(capabilities: Capabilities) -> Capabilities:
    """Returns what a replay can do: it keeps order in one process, and retries nothing."""
    return replace(
        capabilities,
        at_least_once=True,
        per_key=True,
        per_partition=True,
        retains=True,
        broadcast=True,
        atomic=True,
        atomic_on_demand=False,
        broker_retry=False,
        leases=False,
        proves_killers=False,
    )


def _confirmed(
    messages: Sequence[Message],
) -> asyncio.Future[Sequence[PublishError | None]]:
    answer: asyncio.Future[Sequence[PublishError | None]] = (
        asyncio.get_running_loop().create_future()
    )
    answer.set_result([None] * len(messages))
    return answer
