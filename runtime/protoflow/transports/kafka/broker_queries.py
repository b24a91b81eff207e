"""Queries for topics and for the configuration of brokers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Collection, Sequence
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaError,
    TopicAuthorizationFailedError,
)
from aiokafka.protocol.metadata import MetadataRequest

from protoflow.transports.kafka.context import KafkaContext
from protoflow.transports.kafka.requests import TopicIds

#: Bytes by which messages in retry and dead-letter topics may be larger, for the hop state.
HEADROOM = 64 * 1024
#: Seconds for a query to one of several brokers.
_ASKING = 3.0
_NOT_ALLOWED = (ClusterAuthorizationFailedError, TopicAuthorizationFailedError)


async def refresh_existing(context: KafkaContext) -> None:
    """Updates the set of topics that exist, from a query that is sent after this call. Calls that
    wait at the same time share one query. Raises KafkaError."""
    listing = context.listing
    before = listing.asked
    async with listing.turn:
        if listing.answered > before:
            return
        listing.asked += 1
        context.existing = set(await context.admin.list_topics())
        listing.answered = listing.asked


async def missing_topics(context: KafkaContext, topics: Sequence[str]) -> list[str]:
    """Returns the missing topics. In a cluster one node may lag behind the others, so the query is
    repeated until `metadata_timeout`. Raises KafkaError."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + context.options.metadata_timeout
    lacking = list(topics)
    while lacking:
        found = await describe(context.admin, lacking)
        lacking = [topic for topic in lacking if topic not in found]
        alone = len(context.admin._client.cluster.brokers()) < 2
        if alone or loop.time() > deadline:
            break
        if lacking:
            await asyncio.sleep(0.25)
    return lacking


async def describe(
    admin: AIOKafkaAdminClient, topics: list[str]
) -> dict[str, list[dict[str, Any]]]:
    """Returns the partitions of existing topics."""
    if not topics:
        return {}
    found = await admin.describe_topics(topics)
    return {item["topic"]: item["partitions"] for item in found if not item["error_code"]}


async def broker_limit(admin: AIOKafkaAdminClient) -> int | None:
    """Returns the broker's largest batch, which applies if topics set no limit."""
    value = (await broker_configs(admin)).get("message.max.bytes")
    return int(value) if value else None


async def broker_configs(admin: AIOKafkaAdminClient) -> dict[str, str | None]:
    """Returns the configuration of a broker; empty if this user may not read it.

    Raises KafkaError if no broker answers.
    """
    problem: Exception | None = None
    for node in random.sample(list(admin._client.cluster.brokers()), k=len(nodes_of(admin))):
        try:
            async with asyncio.timeout(_ASKING):
                return await read_configs(admin, ConfigResourceType.BROKER, str(node.nodeId))
        except _NOT_ALLOWED:
            return {}
        except (KafkaError, TimeoutError, LookupError) as error:
            problem = error
    if problem is not None:
        raise KafkaError(f"no broker returns its configuration: {problem!r}") from problem
    return {}


def nodes_of(admin: AIOKafkaAdminClient) -> list[int]:
    """Returns the ids of the known brokers."""
    return [node.nodeId for node in admin._client.cluster.brokers()]


async def any_broker_answers(admin: AIOKafkaAdminClient, seconds: float) -> bool:
    """Whether one of the brokers answers within this many seconds."""
    asking = {
        asyncio.ensure_future(admin._client.send(node, MetadataRequest([])))
        for node in nodes_of(admin)
    }
    waiting = set(asking)
    deadline = asyncio.get_running_loop().time() + seconds
    try:
        while waiting:
            left = deadline - asyncio.get_running_loop().time()
            done, waiting = await asyncio.wait(
                waiting, timeout=max(left, 0), return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                return False
            if any(not task.cancelled() and task.exception() is None for task in done):
                return True
        return False
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def read_configs(
    admin: AIOKafkaAdminClient, kind: ConfigResourceType, name: str
) -> dict[str, str | None]:
    """Returns the configuration of a broker or topic; empty if this user may not read it."""
    answers: list[Any] = await admin.describe_configs([ConfigResource(kind, name)])
    return {
        entry[0]: entry[1]
        for answer in answers
        for code, _, _, _, entries in answer.resources
        if not code
        for entry in entries
    }


async def topic_limit(admin: AIOKafkaAdminClient, topic: str) -> int | None:
    """Returns the largest batch of a topic; None if the broker does not report it."""
    configs = await read_configs(admin, ConfigResourceType.TOPIC, topic)
    value = configs.get("max.message.bytes")
    return int(value) if value else None


async def topic_ids(admin: AIOKafkaAdminClient, topics: Collection[str]) -> dict[str, str]:
    """Returns the ids of existing topics; empty text if the broker has no ids. A topic that is
    deleted and created again has another id. Raises KafkaError."""
    if not topics:
        return {}
    try:
        answer: Any = await admin._send_request(TopicIds(sorted(topics)))
    except (NotImplementedError, IncompatibleBrokerVersion):
        return dict.fromkeys(topics, "")  # an old broker, which has no ids
    return {name: id for code, name, id, *_ in answer.topics if not code}
