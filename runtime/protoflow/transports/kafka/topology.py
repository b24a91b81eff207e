"""Topics: made or verified, never changed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from protoflow.errors import TopologyError
from protoflow.transport import Topology, TopologyMode
from protoflow.transports.kafka import names
from protoflow.transports.kafka.context import Context
from protoflow.transports.kafka.topics import SubscriptionTopics

_EXISTS = 36
_WEEK_MS = 7 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedTopic:
    """A topic as it is to be; None leaves the choice to the broker, and any is right."""

    name: str
    partitions: int | None = None
    replication: int | None = None
    configs: dict[str, str] = field(default_factory=dict)


def wanted_topics(topology: Topology, context: Context) -> list[WantedTopic]:
    """Every topic that is consumed, published, retried through or dead-lettered to."""
    options = context.options
    wanted: dict[str, WantedTopic] = {}

    def want(name: str, partitions: int | None, **configs: str) -> None:
        configs = {key.replace("_", "."): value for key, value in configs.items()}
        wanted.setdefault(
            name,
            WantedTopic(
                name=name,
                partitions=partitions,
                replication=options.replication,
                configs=configs,
            ),
        )

    for settings in topology.subscriptions:
        topics = SubscriptionTopics(settings, context.settings.ladder)
        want(topics.main, options.partitions)
        for name, hold in topics.rungs.items():
            # The wait is counted from the broker's own time, and must outlast the retention.
            want(
                name,
                options.retry_partitions or options.partitions,
                message_timestamp_type="LogAppendTime",
                retention_ms=str(_WEEK_MS + int(hold * 1000)),
            )
        if not settings.broadcast:
            for name in topics.dead:
                want(name, options.partitions, retention_ms="-1")
    for topic in topology.topics:
        want(names.physical(topic), options.partitions)
    return list(wanted.values())


async def ensure(topology: Topology, mode: TopologyMode, context: Context) -> None:
    """Makes what is missing (create) or reports it (verify). Raises TopologyError."""
    if mode is TopologyMode.NONE:
        return
    wanted = wanted_topics(topology, context)
    problems = [f"{topic.name} is no name for a topic" for topic in wanted if not _named(topic)]
    if problems:
        raise TopologyError("kafka: " + "; ".join(problems))
    found = await describe(context.admin, [topic.name for topic in wanted])
    missing = [topic for topic in wanted if topic.name not in found]
    for topic in wanted:
        if topic.name in found:
            problems += _differences(topic, found[topic.name])
    if mode is TopologyMode.VERIFY:
        problems += [f"topic {topic.name} is missing" for topic in missing]
    elif not problems:
        problems += await _create(missing, context)
    if problems:
        raise TopologyError("kafka: " + "; ".join(problems))


def _named(topic: WantedTopic) -> bool:
    return names.is_valid(topic.name)


def _differences(topic: WantedTopic, partitions: list[dict[str, Any]]) -> Iterable[str]:
    if topic.partitions is not None and len(partitions) != topic.partitions:
        yield f"topic {topic.name} has {len(partitions)} partitions, not {topic.partitions}"
    replicas = len(partitions[0]["replicas"]) if partitions else 0
    if topic.replication is not None and replicas != topic.replication:
        yield f"topic {topic.name} has {replicas} replicas, not {topic.replication}"


async def describe(
    admin: AIOKafkaAdminClient, topics: list[str]
) -> dict[str, list[dict[str, Any]]]:
    """The partitions of the topics that exist."""
    if not topics:
        return {}
    found = await admin.describe_topics(topics)
    return {item["topic"]: item["partitions"] for item in found if not item["error_code"]}


async def _create(missing: list[WantedTopic], context: Context) -> list[str]:
    """Makes topics and waits until they can be used; what went wrong."""
    if not missing:
        return []
    partitions, replication = await _defaults(context.admin)
    new = [
        NewTopic(
            topic.name,
            topic.partitions or partitions,
            topic.replication or replication,
            topic_configs=topic.configs,
        )
        for topic in missing
    ]
    made: Any = await context.admin.create_topics(new)  # Any: its fields vary by version
    problems = []
    for name, code, *detail in made.topic_errors:
        if code not in (0, _EXISTS):
            reason = (detail[0] if detail else None) or for_code(code).__name__
            problems.append(f"topic {name} cannot be made: {reason}")
    if not problems:
        await _until_known(context, [topic.name for topic in missing])
    return problems


async def _until_known(context: Context, topics: list[str]) -> None:
    """A topic that was just made is not yet known to every broker."""
    try:
        async with asyncio.timeout(context.options.metadata_timeout):
            while not await _have_leaders(context.admin, topics):  # noqa: ASYNC110  broker's
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise TopologyError(
            f"kafka: topics were made but have no leaders yet: {', '.join(topics)}"
        ) from error


async def _have_leaders(admin: AIOKafkaAdminClient, topics: list[str]) -> bool:
    found = await describe(admin, topics)
    return len(found) == len(topics) and all(
        partition["leader"] >= 0 for partitions in found.values() for partition in partitions
    )


async def _defaults(admin: AIOKafkaAdminClient) -> tuple[int, int]:
    """The broker's own numbers of partitions and replicas (aiokafka cannot leave them out)."""
    configs = await _broker_configs(admin)
    return (
        int(configs.get("num.partitions") or 1),
        int(configs.get("default.replication.factor") or 1),
    )


async def broker_limit(admin: AIOKafkaAdminClient) -> int | None:
    """The largest batch that the broker takes, where topics do not say otherwise."""
    value = (await _broker_configs(admin)).get("message.max.bytes")
    return int(value) if value else None


async def _broker_configs(admin: AIOKafkaAdminClient) -> dict[str, str | None]:
    try:
        cluster = await admin.describe_cluster()
        node = str(cluster["brokers"][0]["node_id"])
        return await read_configs(admin, ConfigResourceType.BROKER, node)
    except (KafkaError, LookupError):
        return {}  # not allowed to look


async def read_configs(
    admin: AIOKafkaAdminClient, kind: ConfigResourceType, name: str
) -> dict[str, str | None]:
    """The configuration of a broker or topic; empty where it may not be read."""
    answers: list[Any] = await admin.describe_configs([ConfigResource(kind, name)])
    return {
        entry[0]: entry[1]
        for answer in answers
        for code, _, _, _, entries in answer.resources
        if not code
        for entry in entries
    }


async def topic_limit(admin: AIOKafkaAdminClient, topic: str) -> int | None:
    """The largest batch that a topic takes; None if that is not told."""
    configs = await read_configs(admin, ConfigResourceType.TOPIC, topic)
    value = configs.get("max.message.bytes")
    return int(value) if value else None
