"""Topics, queues and subscriptions at AWS: found, made and compared."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from protoflow.errors import ProtoflowError, TopologyError
from protoflow.transport.interface import SubscriptionSettings, Topology, TopologyMode
from protoflow.transports.sqs.connection import AwsConnection, RefusedError
from protoflow.transports.sqs.names import Names
from protoflow.transports.sqs.options import USUAL_BYTES
from protoflow.transports.sqs.policies import allows, queue_policy

#: Used only by requests without a time of their own, so a handler's policy changes no queue.
_VISIBILITY: Final = 30
#: Seconds for which the number of subscribers of a topic is remembered.
_REMEMBERED: Final = 10.0
_MOST_REMEMBERED: Final = 1000
_THEIRS: Final = "is missing; a source names it, so the program that owns it creates it"
_MISSING: Final = "is missing; start once with topology mode create"
#: The attributes of a queue with the numbers of waiting, taken and delayed messages.
_COUNTS: Final = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)


class Resources:
    """What belongs to topics and groups.

    Attributes:
        names: the names of topics and queues.
        kept: the known dead-letter topics.
        sources: the queues of other programs that topics are consumed from.
    """

    def __init__(self, connection: AwsConnection) -> None:
        self.names = Names(connection.options.prefix, fifo=connection.options.is_fifo)
        self.kept: set[str] = set()
        self.sources = connection.settings.sources
        self._connection = connection
        self._options = connection.options
        self._urls: dict[str, str] = {}
        self._subscribed: dict[str, tuple[float, int]] = {}

    # Names that AWS takes.

    def topic_arn(self, topic: str) -> str:
        """Returns the ARN of a topic."""
        return self._connection.arn("sns", self.names.topic(topic))

    def main_queue(self, topic: str, group: str) -> str:
        """Returns the queue of a group, or the queue of other programs that it consumes."""
        return self.sources.place(topic) or self.names.group(topic, group)

    def retry_queue(self, settings: SubscriptionSettings) -> str:
        """Returns the queue of a group's retries and replays."""
        return self.names.retry(settings.topic, settings.group)

    def solo_queue(self, settings: SubscriptionSettings) -> str:
        """Returns the queue of a group's messages that must run alone."""
        return self.names.solo(settings.topic, settings.group)

    def own_queues(self, settings: SubscriptionSettings) -> Sequence[str]:
        """Returns the queues to which only members of a group write."""
        if settings.broadcast:
            return ()
        solo = () if self._options.is_fifo else (self.solo_queue(settings),)
        return (self.retry_queue(settings), *solo)

    async def url(self, queue: str) -> str:
        """Returns the URL of a queue. Raises TopologyError if there is none."""
        if (url := self._urls.get(queue)) is None:
            found = await self._connection.call("sqs", "get_queue_url", QueueName=queue)
            url = self._urls[queue] = found["QueueUrl"]
        return url

    async def counts(self, queue: str) -> tuple[int, int, int]:
        """Returns about how many messages wait, are taken, and are delayed."""
        found = await self._attributes(queue, _COUNTS)
        waiting, taken, delayed = (int(found.get(name, 0)) for name in _COUNTS)
        return waiting, taken, delayed

    async def subscribers(self, topic: str) -> int:
        """Returns the number of queues of a topic, at most 100; it may be 10 s old."""
        now = asyncio.get_running_loop().time()
        since, number = self._subscribed.get(topic, (-math.inf, 0))
        if now - since > _REMEMBERED:
            try:
                found = await self._connection.call(
                    "sns", "list_subscriptions_by_topic", TopicArn=self.topic_arn(topic)
                )
                number = len(found.get("Subscriptions", ()))
            except TopologyError:
                number = 0
            if len(self._subscribed) >= _MOST_REMEMBERED:  # a message may name any topic
                self._subscribed.clear()
            self._subscribed[topic] = now, number
        return number

    # Making.

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Makes or verifies topics and queues. Raises TopologyError."""
        joined = topology.subscriptions
        kept = {name for each in joined for name in each.dead_letter_topics}
        self.kept |= kept
        topics = {*topology.topics, *(each.topic for each in joined)} - kept
        topics = {topic for topic in topics if self.sources.of(topic) is None}
        lasting = [each for each in joined if not each.broadcast]
        problems: list[str] = []
        if mode is TopologyMode.CREATE:
            await asyncio.gather(*map(self.make_topic, topics))
            await asyncio.gather(*map(self.make_queue, map(self.names.dead_letters, kept)))
            for found in await asyncio.gather(*map(self.make_group, lasting)):
                problems += found
        elif mode is TopologyMode.VERIFY:
            for found in await asyncio.gather(
                *(self._topic_problems(topic) for topic in sorted(topics)),
                *(self._queue_problems(self.names.dead_letters(topic)) for topic in sorted(kept)),
                *map(self._group_problems, lasting),
            ):
                problems += found
        if problems:
            raise TopologyError(f"{self._connection.settings.url.safe}: {'; '.join(problems)}")

    async def make_topic(self, topic: str) -> None:
        """Creates a topic if it is missing."""
        if await self._has_topic(topic):
            return
        attributes: dict[str, str] = {}
        if self._options.is_fifo:
            attributes = {"FifoTopic": "true", "ContentBasedDeduplication": "false"}
        if self._options.max_message_bytes > USUAL_BYTES:
            attributes["MaximumMessageSize"] = str(self._options.max_message_bytes)
        name = self.names.topic(topic)
        await self._connection.call("sns", "create_topic", Name=name, Attributes=attributes)

    async def make_group(self, settings: SubscriptionSettings) -> Sequence[str]:
        """Creates the missing queues of a group, and subscribes it; returns problems."""
        for queue in self.own_queues(settings):
            await self.make_queue(queue)
        if self.sources.of(settings.topic):
            return await self._group_problems(settings)
        queue = self.names.group(settings.topic, settings.group)
        problems, _ = await self.join(settings, queue)
        return problems

    async def join(self, settings: SubscriptionSettings, queue: str) -> tuple[Sequence[str], str]:
        """Subscribes a queue to its topic; both are created if they are missing.

        Returns:
            The problems that hinder the subscription, and its ARN.
        """
        self._subscribed.pop(settings.topic, None)
        topic, arn = self.topic_arn(settings.topic), self._connection.arn("sqs", queue)
        await self.make_topic(settings.topic)
        made = await self.make_queue(queue, {"Policy": queue_policy(arn, topic)})
        problems = [] if made else await self._policy_problems(queue, topic)
        try:
            found = await self._connection.call(
                "sns",
                "subscribe",
                TopicArn=topic,
                Protocol="sqs",
                Endpoint=arn,
                Attributes={"RawMessageDelivery": "true"},
                ReturnSubscriptionArn=True,
            )
        except RefusedError as error:
            return [*problems, f"queue {queue} cannot be subscribed: {error}"], ""
        return problems, found["SubscriptionArn"]

    async def leave(self, queue: str, subscription: str) -> None:
        """Removes the queue of a broadcast's process. An operator may have removed it."""
        with contextlib.suppress(ProtoflowError):
            await self._connection.call("sns", "unsubscribe", SubscriptionArn=subscription)
        with contextlib.suppress(ProtoflowError):
            await self._connection.call("sqs", "delete_queue", QueueUrl=await self.url(queue))
        self.forget(queue)

    def forget(self, queue: str) -> None:
        """Forgets the URL of a queue that is gone."""
        self._urls.pop(queue, None)

    async def make_queue(self, queue: str, attributes: Mapping[str, str] | None = None) -> bool:
        """Creates a queue if it is missing; returns whether it was."""
        try:
            await self.url(queue)
        except TopologyError:
            pass
        else:
            return False
        options = self._options
        wanted = {
            "VisibilityTimeout": str(_VISIBILITY),
            "MessageRetentionPeriod": str(options.retention),
            "MaximumMessageSize": str(options.max_queue_message_bytes),
            **({"FifoQueue": "true"} if queue.endswith(".fifo") else {}),
            **(attributes or {}),
        }
        made = await self._connection.call(
            "sqs", "create_queue", QueueName=queue, Attributes=wanted
        )
        self._urls[queue] = made["QueueUrl"]
        return True

    # Comparing.

    async def _attributes(self, queue: str, names: Iterable[str]) -> Mapping[str, str]:
        found = await self._connection.call(
            "sqs",
            "get_queue_attributes",
            QueueUrl=await self.url(queue),
            AttributeNames=[*names],
        )
        attributes: Mapping[str, str] = found.get("Attributes", {})
        return attributes

    async def _has_topic(self, topic: str) -> bool:
        try:
            await self._connection.call(
                "sns", "get_topic_attributes", TopicArn=self.topic_arn(topic)
            )
        except TopologyError:
            return False
        return True

    async def _topic_problems(self, topic: str) -> Sequence[str]:
        if await self._has_topic(topic):
            return []
        return [f"topic {topic} ({self.names.topic(topic)}) {_MISSING}"]

    async def _queue_problems(self, queue: str) -> Sequence[str]:
        try:
            await self.url(queue)
        except TopologyError:
            return [f"queue {queue} {_MISSING}"]
        return []

    async def _policy_problems(self, queue: str, topic_arn: str) -> list[str]:
        found = await self._attributes(queue, ["Policy"])
        if allows(found.get("Policy", ""), topic_arn):
            return []
        wanted = queue_policy(self._connection.arn("sqs", queue), topic_arn)
        return [f"queue {queue} does not let its topic send to it; set its policy to {wanted}"]

    async def _group_problems(self, settings: SubscriptionSettings) -> Sequence[str]:
        if source := self.sources.of(settings.topic):
            missing = await self._queue_problems(source.name)
            problems = [text.replace(_MISSING, _THEIRS) for text in missing]
            for own in self.own_queues(settings):
                problems += await self._queue_problems(own)
            return problems
        queue = self.names.group(settings.topic, settings.group)
        topic_arn = self.topic_arn(settings.topic)
        problems = [*await self._queue_problems(queue)]
        for own in self.own_queues(settings):
            problems += await self._queue_problems(own)
        if problems:
            return [f"group {settings.group} of topic {settings.topic}: {'; '.join(problems)}"]
        problems = await self._policy_problems(queue, topic_arn)
        try:
            raw = await self._raw_delivery(queue, topic_arn)
        except TopologyError:
            return problems  # the topic is missing, which is a problem of its own
        if raw is None:
            problems.append(f"the subscription of queue {queue} to its topic {_MISSING}")
        elif not raw:
            problems.append(
                f"the subscription of queue {queue} has no raw message delivery; set"
                " RawMessageDelivery to true"
            )
        return problems

    async def _raw_delivery(self, queue: str, topic_arn: str) -> bool | None:
        """Whether the subscription of a queue delivers as published; None: there is none."""
        arn, page = self._connection.arn("sqs", queue), dict[str, Any]()
        while True:
            found = await self._connection.call(
                "sns", "list_subscriptions_by_topic", TopicArn=topic_arn, **page
            )
            for each in found.get("Subscriptions", ()):
                if each["Endpoint"] == arn:
                    details = await self._connection.call(
                        "sns",
                        "get_subscription_attributes",
                        SubscriptionArn=each["SubscriptionArn"],
                    )
                    raw: bool = details["Attributes"].get("RawMessageDelivery") == "true"
                    return raw
            if not (token := found.get("NextToken")):
                return None
            page = {"NextToken": token}
