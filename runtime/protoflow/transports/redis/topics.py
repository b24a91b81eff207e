"""Creates and verifies topics and groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from protoflow.contract.spec import Ordering, Start
from protoflow.error_codes import OTHER_VERSION, TOPOLOGY_MISSING
from protoflow.errors import TopologyError
from protoflow.transport.interface import SubscriptionSettings, Topology, TopologyMode
from protoflow.transports.redis import names
from protoflow.transports.redis.connection import RedisConnection
from protoflow.transports.redis.foreign_stream import group_of
from protoflow.transports.redis.scripts import JOIN

#: The version of the layout of a topic's keys.
_VERSION: Final = b"1"
MODES: Final = {Ordering.NONE: "none", Ordering.PER_KEY: "key", Ordering.PER_PARTITION: "all"}


class Topics:
    """The known topics, with the number of streams of each."""

    def __init__(self, connection: RedisConnection) -> None:
        self.prefix = connection.options.prefix
        self._connection = connection
        self._sources = connection.settings.sources
        self._shards: dict[str, int] = {}
        self._kept: set[str] = set()

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Creates or verifies topics and groups. Raises TopologyError."""
        subscriptions = [self.own(each) for each in topology.subscriptions if not each.broadcast]
        kept = {name for each in topology.subscriptions for name in each.dead_letter_topics}
        self._kept |= kept
        joined = {self.own(each).topic for each in topology.subscriptions}
        problems: list[str] = []
        if mode is not TopologyMode.NONE:
            problems += await self._source_problems(topology)
        published = {topic for topic in topology.topics if self._sources.of(topic) is None}
        for topic in sorted({*published, *joined, *kept}):
            if mode is TopologyMode.CREATE:
                await self._make(topic, kept=topic in kept)
            if mode is not TopologyMode.NONE:
                problems += await self._topic_problems(topic, kept=topic in kept)
        for settings in subscriptions:
            if mode is TopologyMode.CREATE and not problems:
                await self.join(settings)
            elif mode is TopologyMode.VERIFY:
                problems += await self._group_problems(settings)
        if problems:
            raise TopologyError(f"{self._connection.settings.url.safe}: {'; '.join(problems)}")

    def own(self, settings: SubscriptionSettings) -> SubscriptionSettings:
        """Returns a subscription to a stream of ours: of the topic, or of the group's retries."""
        if settings.source is None:
            return settings
        return replace(settings, topic=names.retry_topic(settings.topic, settings.group))

    async def places(self, topic: str, group: str) -> list[tuple[str, str]]:
        """Returns the streams that a group consumes, each with its consumer group."""
        found = [(each, self._sources.consumer(topic, group)) for each in await self.streams(topic)]
        if (own := self.own_topic(topic, group)) != topic:
            found += [(each, group) for each in await self.streams(own)]
        return found

    def is_own(self, topic: str) -> bool:
        """Whether the stream of a topic is ours."""
        return self._sources.of(topic) is None

    def is_source(self, stream: str, topic: str) -> bool:
        """Whether a stream is the source of a topic."""
        return stream == self._sources.place(topic)

    def group_at(self, stream: str, topic: str, group: str) -> str:
        """Returns the consumer group at one of the streams from which a group consumes a topic."""
        return self._sources.consumer(topic, group) if self.is_source(stream, topic) else group

    def own_topic(self, topic: str, group: str) -> str:
        """Returns the topic of ours from which a group gets its replays."""
        return topic if self._sources.of(topic) is None else names.retry_topic(topic, group)

    async def _source_problems(self, topology: Topology) -> list[str]:
        problems = []
        for each in topology.subscriptions:
            if (source := each.source) is not None:
                group = self._sources.consumer(each.topic, each.group)
                try:
                    await group_of(self._connection, source.name, group)
                except TopologyError as error:
                    problems.append(str(error))
        return problems

    async def shards(self, topic: str) -> int:
        """Returns the number of streams of a topic; creates the topic if necessary."""
        if (known := self._shards.get(topic)) is None:
            if (known := await self.find(topic)) is None:
                await self._make(topic, kept=topic in self._kept)
                known = await self.find(topic) or 1
            self._shards[topic] = known
        return known

    def forget(self) -> None:
        """Forgets the known topics, because the server has lost its data."""
        self._shards.clear()

    async def find(self, topic: str) -> int | None:
        """Returns the number of streams of a topic, or None if it does not exist.

        Raises TopologyError if another version of Protoflow created the topic.
        """
        key = names.record(self.prefix, topic)
        version, shards = await self._connection.command("HMGET", key, "version", "shards")
        if version is None:
            return None
        if version != _VERSION:
            raise TopologyError(
                f"topic {topic} was made by another version of Protoflow (its layout is"
                f" {version.decode(errors='replace')!r:.20}, this one knows 1)",
                code=OTHER_VERSION,
            )
        return int(shards)

    async def streams(self, topic: str) -> list[str]:
        """Returns the streams of a topic that exists. Raises TopologyError."""
        if source := self._sources.of(topic):
            return [source.name]
        if (shards := await self.find(topic)) is None:
            raise TopologyError(f"topic {topic} does not exist", code=TOPOLOGY_MISSING)
        return [names.stream(self.prefix, topic, shard) for shard in range(shards)]

    async def groups(self, stream: str) -> dict[str, dict[str, Any]]:
        """Returns the groups of a stream, by name."""
        if await self._connection.command("TYPE", stream) == b"none":
            return {}
        found = await self._connection.command("XINFO", "GROUPS", stream)
        groups = [
            dict(zip(map(bytes.decode, each[::2]), each[1::2], strict=True)) for each in found
        ]
        return {each["name"].decode(): each for each in groups}

    async def join(
        self, settings: SubscriptionSettings, *, group: str = "", start: str = ""
    ) -> None:
        """Creates a group if it is missing.

        Args:
            settings: the subscription.
            group: the group of a member that joins now; for a broadcast, a group of its own.
            start: the position of a new group; default: as in the settings.
        """
        start = start or ("$" if settings.start is Start.LATEST else "0")
        lease = round(settings.lease * 1000) if settings.broadcast else 0
        mode = MODES[settings.ordering] if group else ""
        for shard in range(await self.shards(settings.topic)):
            stream = names.stream(self.prefix, settings.topic, shard)
            await self._connection.call(
                JOIN, stream, group or settings.group, "", mode, start, lease
            )

    async def _make(self, topic: str, *, kept: bool) -> None:
        key, command = names.record(self.prefix, topic), self._connection.command
        shards = 1 if kept else self._connection.options.shards
        await command("HSETNX", key, "shards", shards)
        if kept:
            await command("HSETNX", key, "kept", 1)
        # written last, because readers of the version rely on the other fields
        await command("HSETNX", key, "version", _VERSION)

    async def _topic_problems(self, topic: str, *, kept: bool) -> Sequence[str]:
        wanted = 1 if kept else self._connection.options.shards
        found = await self.find(topic)
        if found is None:
            return [f"topic {topic} is missing; start once with topology mode create"]
        if found == wanted:
            return []
        if kept:
            problem = "a dead-letter topic must have 1; use a name of its own for it"
            return [f"topic {topic} has {found} shards, {problem}"]
        if await self._connection.command("HEXISTS", names.record(self.prefix, topic), "kept"):
            return []
        advice = (
            f"set option shards to {found}; or stop its publishers, let all groups handle its"
            f" messages, stop them, and delete the keys {names.stream(self.prefix, topic, 0)}*"
        )
        return [f"topic {topic} has {found} shards, not {wanted}: {advice}"]

    async def _group_problems(self, settings: SubscriptionSettings) -> Sequence[str]:
        for shard in range(await self.find(settings.topic) or 0):
            stream = names.stream(self.prefix, settings.topic, shard)
            if settings.group not in await self.groups(stream):
                what = f"group {settings.group} of topic {settings.topic}"
                return [f"{what} is missing; start once with topology mode create"]
        return []
