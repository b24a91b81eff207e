"""Creates or verifies topics; existing topics keep their settings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.errors import IncompatibleBrokerVersion, for_code

from protoflow.counted import counted
from protoflow.errors import TopologyError
from protoflow.transport.interface import Topology, TopologyMode
from protoflow.transports.kafka import names
from protoflow.transports.kafka.broker_queries import (
    HEADROOM,
    broker_configs,
    broker_limit,
    describe,
    missing_topics,
    topic_limit,
)
from protoflow.transports.kafka.context import KafkaContext
from protoflow.transports.kafka.requests import CreateTopics
from protoflow.transports.kafka.topics import SubscriptionTopics

_log = logging.getLogger("protoflow.transports.kafka")
_EXISTS = 36
_THEIRS = "a source names it, so the program that owns it creates it, protoflow does not"
_WEEK_MS = 7 * 24 * 3600 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedTopic:
    """The required form of a topic; None means that every value of the broker is accepted.

    Attributes:
        like: the topic with which it must share the number of partitions.
        roomy_for: the topic whose messages it must store together with hop state.
        foreign: whether it belongs to other programs, so that it is only looked up.
    """

    name: str
    partitions: int | None = None
    replication: int | None = None
    configs: dict[str, str] = field(default_factory=dict)
    like: str | None = None
    roomy_for: str | None = None
    foreign: bool = False


def wanted_topics(topology: Topology, context: KafkaContext) -> list[WantedTopic]:
    """Returns all topics that are consumed, published, retried through or dead-lettered to."""
    options = context.options
    wanted: dict[str, WantedTopic] = {}

    def want(name: str, partitions: int | None, configs: dict[str, str], **more: Any) -> None:
        topic = WantedTopic(
            name=name,
            partitions=partitions,
            replication=options.replication,
            configs=configs,
            **more,
        )
        wanted.setdefault(name, topic)

    for settings in topology.subscriptions:
        topics = SubscriptionTopics(settings, context.settings.ladder)
        want(topics.main, options.partitions, {}, foreign=settings.source is not None)
        for name, hold in topics.rungs.items():
            # A wait is counted from the broker's own time, and retention must exceed it.
            configs = {
                "message.timestamp.type": "LogAppendTime",
                "retention.ms": str(_WEEK_MS + int(hold * 1000)),
            }
            if name == topics.replays:
                want(name, options.partitions, configs, like=topics.main, roomy_for=topics.main)
            else:
                partitions = options.retry_partitions or options.partitions
                want(name, partitions, configs, roomy_for=topics.main)
        for name in topics.dead:
            want(name, options.partitions, {"retention.ms": "-1"}, roomy_for=topics.main)
    for topic in topology.topics:
        foreign = context.settings.sources.of(topic) is not None
        want(context.physical(topic), options.partitions, {}, foreign=foreign)
    return list(wanted.values())


async def ensure(topology: Topology, mode: TopologyMode, context: KafkaContext) -> None:
    """Creates missing topics (create) or reports them (verify). Raises TopologyError."""
    wanted = wanted_topics(topology, context)
    context.roomy |= {topic.name for topic in wanted if topic.roomy_for}
    problems = [f"{topic.name} is not a valid topic name" for topic in wanted if not _named(topic)]
    problems += [
        f"Kafka treats {one} and {other} as the same topic; rename one of them"
        for one, other in names.clashes(topic.name for topic in wanted)
    ]
    problems += shared_names(topology, context)
    if problems:
        raise TopologyError("kafka: " + "; ".join(problems))
    if mode is TopologyMode.NONE:
        return
    found = await describe(context.admin, [topic.name for topic in wanted])
    absent = [topic for topic in wanted if topic.name not in found]
    for topic in wanted:
        if topic.name in found and not topic.foreign:
            problems += _differences(topic, found)
    if mode is TopologyMode.VERIFY:
        lacking = await missing_topics(context, [topic.name for topic in absent])
        theirs = {topic.name for topic in absent if topic.foreign}
        problems += [
            f"topic {name} is missing{f'; {_THEIRS}' if name in theirs else ''}" for name in lacking
        ]
        problems += _too_few(wanted, found)
    elif missing := [topic.name for topic in absent if topic.foreign]:
        problems += [f"topic {name} is missing; {_THEIRS}" for name in missing]
    elif not problems:
        problems += await create(absent, found, context)
        if not problems:
            await _grow(wanted, found, context)
    if problems:
        raise TopologyError("kafka: " + "; ".join(problems))


def shared_names(topology: Topology, context: KafkaContext) -> list[str]:
    """Returns names that two subscriptions would share: each would handle the other's messages."""
    owners: dict[str, str] = {}
    problems = []
    others = {context.physical(settings.topic) for settings in topology.subscriptions}
    others |= {context.physical(topic) for topic in topology.topics}
    for settings in topology.subscriptions:
        topics = SubscriptionTopics(settings, context.settings.ladder)
        others |= set(topics.dead)
        for name in topics.rungs:
            owner = owners.setdefault(name, settings.name)
            if owner != settings.name:
                problems.append(f"{owner} and {settings.name} would share the topic {name}")
    problems += [
        f"the topic {name} is the retry topic of {owner}; rename it"
        for name, owner in owners.items()
        if name in others
    ]
    return problems


def _named(topic: WantedTopic) -> bool:
    return names.is_valid(topic.name)


def _differences(topic: WantedTopic, found: Mapping[str, list[dict[str, Any]]]) -> Iterable[str]:
    partitions = found[topic.name]
    wanted = None if topic.like in found else topic.partitions
    if wanted is not None and len(partitions) > wanted:
        _log.warning(
            "a topic has more partitions than the option asks for",
            extra={"topic": topic.name, "partitions": len(partitions), "wanted": wanted},
        )
    elif wanted is not None and len(partitions) < wanted:
        yield (
            f"topic {topic.name} has {counted(len(partitions), 'partition')}, not {wanted}; add"
            " partitions (drain its ordered groups before: keys move), or lower the option"
        )
    replicas = len(partitions[0]["replicas"]) if partitions else 0
    if topic.replication is not None and replicas != topic.replication:
        yield f"topic {topic.name} has {counted(replicas, 'replica')}, not {topic.replication}"


def _too_few(
    wanted: Iterable[WantedTopic], found: Mapping[str, list[dict[str, Any]]]
) -> Iterable[str]:
    """Returns topics with fewer partitions than their main topic."""
    for topic in wanted:
        if topic.like is None or topic.like not in found or topic.name not in found:
            continue
        has, needs = len(found[topic.name]), len(found[topic.like])
        if has < needs:
            yield (
                f"topic {topic.name} has {counted(has, 'partition')}, not {needs} as"
                f" {topic.like} has; add partitions, or start with topology create"
            )


async def _grow(
    wanted: Iterable[WantedTopic], found: Mapping[str, list[dict[str, Any]]], context: KafkaContext
) -> None:
    """Adds partitions to the replay topic when its main topic has grown."""
    grown = {
        topic.name: NewPartitions(len(found[topic.like]))
        for topic in wanted
        if topic.like is not None
        and topic.like in found
        and len(found.get(topic.name, found[topic.like])) < len(found[topic.like])
    }
    if grown:
        _log.warning(
            "topics got the partitions of their main topics", extra={"topics": ", ".join(grown)}
        )
        await context.admin.create_partitions(grown)
        await _until_known(context, list(grown))


async def create(
    absent: list[WantedTopic], found: Mapping[str, list[dict[str, Any]]], context: KafkaContext
) -> list[str]:
    """Creates topics and waits until they can be used; returns the problems."""
    # The limit of retry and dead-letter topics is that of their main topic. The broker's own limit
    # cannot be used, because only privileged users may read it.
    for portion in (
        [topic for topic in absent if topic.roomy_for is None],
        [topic for topic in absent if topic.roomy_for is not None],
    ):
        if portion and (problems := await _create(portion, found, context)):
            return problems
    return []


async def _create(
    absent: list[WantedTopic], found: Mapping[str, list[dict[str, Any]]], context: KafkaContext
) -> list[str]:
    """Creates topics in one request."""
    limits: dict[str, int | None] = {}
    new: list[Any] = []
    for topic in absent:
        partitions = topic.partitions
        if topic.like is not None and topic.like in found:
            partitions = len(found[topic.like])
        configs = dict(topic.configs)
        if topic.roomy_for is not None:
            if topic.roomy_for not in limits:
                limit = await topic_limit(context.admin, topic.roomy_for)
                limits[topic.roomy_for] = limit or await broker_limit(context.admin)
            if limit := limits[topic.roomy_for]:
                configs["max.message.bytes"] = str(limit + HEADROOM)
        new.append((topic.name, partitions or -1, topic.replication or -1, [], [*configs.items()]))
    made = await _send_create(new, context)
    problems = []
    for name, code, *detail in made.topic_errors:
        if code not in (0, _EXISTS):
            reason = (detail[0] if detail else None) or for_code(code).__name__
            problems.append(f"topic {name} cannot be created: {reason}")
    if not problems:
        await _until_known(context, [topic.name for topic in absent])
    return problems


async def _send_create(new: list[Any], context: KafkaContext) -> Any:
    timeout_ms = int(context.options.request_timeout * 1000)
    try:
        return await context.admin._send_to_controller(CreateTopics(new, timeout_ms))
    except (NotImplementedError, IncompatibleBrokerVersion):
        # A broker before 2.4 needs the numbers that it would use by default.
        partitions, replication = await _defaults(context.admin)
        topics = [
            NewTopic(
                name,
                partitions if count < 0 else count,
                replication if replicas < 0 else replicas,
                topic_configs=dict(configs),
            )
            for name, count, replicas, _, configs in new
        ]
        return await context.admin.create_topics(topics)


async def _until_known(context: KafkaContext, topics: list[str]) -> None:
    """Waits until every broker knows the new topics."""
    try:
        async with asyncio.timeout(context.options.metadata_timeout):
            while not await _have_leaders(context.admin, topics):  # noqa: ASYNC110  broker's
                await asyncio.sleep(0.05)
    except TimeoutError as error:
        raise TopologyError(
            f"kafka: topics were created but have no leaders yet: {', '.join(topics)}"
        ) from error


async def _have_leaders(admin: AIOKafkaAdminClient, topics: list[str]) -> bool:
    found = await describe(admin, topics)
    return len(found) == len(topics) and all(
        partition["leader"] >= 0 for partitions in found.values() for partition in partitions
    )


async def _defaults(admin: AIOKafkaAdminClient) -> tuple[int, int]:
    """Returns the broker's own defaults, which old brokers require in the request."""
    configs = await broker_configs(admin)
    return (
        int(configs.get("num.partitions") or 1),
        int(configs.get("default.replication.factor") or 1),
    )
