"""Streams and durables: the needed ones are created, or compared with the existing ones.

No setting depends on a retry or dead-letter policy. `max_deliver` is always -1, because JetStream
drops messages at this limit without a notice; the limits of the runtime apply.

Only a group's own stream keeps schedules from the start. A stream with schedules also obeys
`Nats-Rollup`, with which any publisher to a topic could empty the stream. So schedules are enabled
on the stream of a topic only with the first delayed message.
"""

from __future__ import annotations

from typing import Final

from protoflow.contract.spec import Ordering, Start
from protoflow.errors import TopologyError, TransportError
from protoflow.transport.interface import SubscriptionSettings, Topology, TopologyMode
from protoflow.transports.nats.jetstream import foreign_consumer
from protoflow.transports.nats.jetstream.api import API, JSON, APIError
from protoflow.transports.nats.jetstream.durables import adapt, differences, filter_of
from protoflow.transports.nats.jetstream.puller import PIN_GROUP
from protoflow.transports.nats.jetstream.topic_streams import keep_replays, keep_schedules
from protoflow.transports.nats.names import JetStreamNames, is_replays
from protoflow.transports.nats.options import JetStreamOptions

_NS = 1_000_000_000
#: This description marks a stream of dead letters, which are kept regardless of the options.
_DEAD_LETTERS: Final = "protoflow dead letters"
#: A stream with this name, or with these subjects, exists.
_IN_THE_WAY = (10058, 10065)
_KNOWN_STREAMS = 10_000


class TopologyManager:
    """Knows the streams and durables of a topology.

    Args:
        names: makes the names.
        schedules: whether the server keeps scheduled messages.
    """

    def __init__(self, api: API, names: JetStreamNames, options: JetStreamOptions) -> None:
        self._api = api
        self._names = names
        self._options = options
        self.schedules = False
        self.pins = False
        #: For each known stream: seconds for which it keeps messages (0.0 is for ever), and whether
        #: it drops the oldest messages if it is full.
        self._limits: dict[str, tuple[float, bool]] = {}

    def delay_problem(self, topic: str, delay: float) -> str | None:
        """Returns why a message to a topic cannot wait this long; None if it can."""
        if not self.schedules:
            return "this server has no delayed publish; NATS 2.12 has"
        if topic.startswith("="):
            return None  # a group's own stream has no limits
        if source := self._names.source(topic):
            return f"stream {source.name} of another program keeps no delays; publish it when due"
        options = self._options
        age, drops = self._limits.get(
            self._names.stream(topic), (options.max_age, options.max_bytes is not None)
        )
        if age and delay >= age:
            return (
                f"a delay of {delay:g} s is not shorter than the {age:g} s for which its stream "
                "keeps messages; raise max_age, or publish it when it is due"
            )
        if drops:
            return (
                "its stream drops the oldest messages, even waiting ones, at max_bytes;"
                " remove that limit, or publish the message when it is due"
            )
        return None

    def topic_stream(self, topic: str, *, dead_letters: bool = False) -> JSON:
        """Returns the stream of a topic; one of dead letters has no limits."""
        names, options = self._names, self._options
        replays = [] if dead_letters else names.replays(topic)
        return {
            **self._stream(names.stream(topic), names.subjects(topic) + replays),
            "retention": "limits",
            "max_age": 0 if dead_letters else int(options.max_age * _NS),
            "max_bytes": -1 if dead_letters else options.max_bytes or -1,
            **({"description": _DEAD_LETTERS} if dead_letters else {}),
        }

    def group_stream(self, group: str) -> JSON:
        """Returns the stream of a group's retries and replays; finished messages are removed."""
        retries, waits = self._names.group_subjects(group)
        subjects = [retries, waits] if self.schedules else [retries]
        stream = self._stream(self._names.group_stream(group), subjects)
        if self.schedules:
            stream["allow_msg_schedules"] = True
        return {**stream, "retention": "workqueue", "max_age": 0, "max_bytes": -1}

    def _stream(self, name: str, subjects: list[str]) -> JSON:
        options = self._options
        return {
            "name": name,
            "subjects": subjects,
            "storage": options.storage.value,
            "num_replicas": options.replicas,
            "duplicate_window": int(options.duplicate_window * _NS),
            "max_msgs": -1,
            "discard": "old",
        }

    def durables(self, settings: SubscriptionSettings) -> list[tuple[str, JSON]]:
        """Returns the durables of a subscription, each with its stream: one for each shard, and the
        last one for the retries and replays of its group."""
        names = self._names
        topic, group = settings.topic, settings.group
        stream = names.stream(topic)
        if names.source(topic) is not None:
            (durable,) = names.consumers(topic, group)
            return [(stream, {"durable_name": durable}), self._retries(settings)]
        ordered = settings.ordering is not Ordering.NONE
        subjects = [[subject] for subject in names.subjects(topic)]
        if self._hears_replays(settings):
            replays = names.subjects(names.replay_topic(topic, group))
            subjects = [[*plain, replay] for plain, replay in zip(subjects, replays, strict=True)]
        found = [
            (
                stream,
                self._durable(name, shard, settings) | (self._alone(settings) if ordered else {}),
            )
            for name, shard in zip(names.consumers(topic, group), subjects, strict=True)
        ]
        return [*found, self._retries(settings)]

    def _retries(self, settings: SubscriptionSettings) -> tuple[str, JSON]:
        names, topic = self._names, settings.topic
        address = names.subject(names.retry_topic(topic, settings.group))
        retries = self._durable(names.topic_token(topic), [address], settings)
        return names.group_stream(settings.group), {**retries, "deliver_policy": "all"}

    def _hears_replays(self, settings: SubscriptionSettings) -> bool:
        """Whether replays are delivered with the messages of their keys, to a single client."""
        return self.pins and settings.ordering is not Ordering.NONE

    def _durable(self, name: str, subjects: list[str], settings: SubscriptionSettings) -> JSON:
        return {
            "durable_name": name,
            **filter_of(subjects),
            "deliver_policy": "all" if settings.start is Start.EARLIEST else "new",
            "ack_policy": "explicit",
            "ack_wait": int(settings.lease * _NS),
            "max_deliver": -1,
            "max_ack_pending": self._options.max_ack_pending,
        }

    def _alone(self, settings: SubscriptionSettings) -> JSON:
        """Returns the settings by which a durable delivers to one process at a time."""
        if not self.pins:
            return {"max_ack_pending": 1}
        return {
            "max_ack_pending": self._options.ordered_window,
            "priority_groups": [PIN_GROUP],
            "priority_policy": "pinned_client",
            "priority_timeout": int(settings.lease * _NS),
        }

    def ephemeral(self, settings: SubscriptionSettings) -> JSON:
        """Returns the consumer of a broadcast, which ends soon after its process."""
        return {
            "filter_subject": self._names.all_of(settings.topic),
            "deliver_policy": "new",
            "ack_policy": "explicit",
            "ack_wait": int(settings.lease * _NS),
            "max_deliver": -1,
            "inactive_threshold": int(max(60.0, 2 * settings.lease) * _NS),
            "mem_storage": True,
        }

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Creates or compares all of them. Raises TopologyError naming every difference."""
        problems: list[str] = []
        for stream in self._streams(topology):
            problems += await self._stream_problems(stream, mode)
        for settings in topology.subscriptions:
            if not settings.broadcast:
                # If one is refused, nothing is changed.
                adapts = mode is TopologyMode.CREATE and not problems
                if self._hears_replays(settings):
                    problems += await keep_replays(
                        self._api, self._names, settings.topic, changes=adapts
                    )
                problems += await self.ensure_durables(settings, mode, adapts=adapts)
        if problems:
            raise TopologyError("\n".join(problems))

    def _streams(self, topology: Topology) -> list[JSON]:
        dead_letters = {t for s in topology.subscriptions for t in s.dead_letter_topics}
        topics = {s.topic for s in topology.subscriptions} | set(topology.topics) | dead_letters
        groups = {s.group for s in topology.subscriptions if not s.broadcast}
        return [
            *(
                self.topic_stream(topic, dead_letters=topic in dead_letters)
                for topic in sorted(topics)
                if self._names.source(topic) is None
            ),
            *map(self.group_stream, sorted(groups)),
        ]

    async def has_group(self, topic: str) -> bool:
        """Whether a group consumes the topic."""
        stream = await self._api.stream(self._names.stream(topic))
        return stream is not None and stream["state"]["consumer_count"] > 0

    async def knows(self, topic: str) -> bool:
        """Whether the stream of a topic or of a retry address exists."""
        return await self._api.stream(self._names.stream(topic)) is not None

    async def ensure_topic(self, topic: str) -> list[str]:
        """Creates the stream of a topic that no topology named. Returns the problem. Raises
        TransportError if this is unknown now."""
        if (source := self._names.source(topic)) is not None:
            there = await self._api.stream(source.name) is not None
            return [] if there else [f"stream {source.name} is missing"]
        wanted = self.topic_stream(topic)
        found = await self._api.stream(wanted["name"])
        if found is None:
            try:
                found = await self._api.create_stream(wanted)
            except APIError as error:
                if error.err_code in _IN_THE_WAY:
                    return [f"stream {wanted['name']}: {error}"]
                raise
        return self._compare_stream(wanted, found["config"])

    async def ensure_delays(self, topic: str, *, changes: bool) -> str:
        """Makes the stream of a topic keep schedules, if it may be changed. Returns the problem.
        Raises TransportError if this is unknown now."""
        return await keep_schedules(self._api, self._names, topic, changes=changes)

    async def _stream_problems(self, wanted: JSON, mode: TopologyMode) -> list[str]:
        try:
            found = await self._api.stream(wanted["name"])
            if found is None and mode is TopologyMode.CREATE:
                found = await self._api.create_stream(wanted)
        except TransportError as error:
            return [f"stream {wanted['name']}: {error}"]
        if found is None:
            return [f"stream {wanted['name']} is missing; start once with topology mode create"]
        return self._compare_stream(wanted, found["config"])

    def _compare_stream(self, wanted: JSON, found: JSON) -> list[str]:
        age, room = found.get("max_age", 0), found.get("max_bytes", -1)
        if len(self._limits) >= _KNOWN_STREAMS:
            self._limits.clear()  # topic names can come from data, so the set is bounded
        self._limits[wanted["name"]] = age / _NS, room > 0 or found.get("max_msgs", -1) > 0
        if found.get("description") == _DEAD_LETTERS:
            wanted = {**wanted, "max_age": 0, "max_bytes": -1}
        wanted = {name: value for name, value in wanted.items() if name != "description"}
        subjects = found.get("subjects") or []
        learnt = [s for s in subjects if self._names.is_schedules(s) or is_replays(s)]
        own = [s for s in wanted["subjects"] if not is_replays(s)]
        wanted["subjects"] = [*own, *({*learnt} - {*own})]
        problems = differences(f"stream {wanted['name']}", wanted, found, "nats stream edit")
        if any(problem.startswith(f"stream {wanted['name']}: subjects") for problem in problems):
            problems.append(
                f"stream {wanted['name']}: its subjects are fixed at its creation: to change "
                "option shards or prefix, let all groups handle its messages, stop them, and "
                "delete it"
                f" with nats stream rm {wanted['name']}"
            )
        return problems

    async def ensure_durables(
        self, settings: SubscriptionSettings, mode: TopologyMode, *, adapts: bool = False
    ) -> list[str]:
        """Creates or compares the durables of a subscription and returns the problems. With
        `adapts`, settings from the options or the ordering are changed in place."""
        problems: list[str] = []
        source = self._names.source(settings.topic)
        for stream, wanted in self.durables(settings):
            if source is not None and stream == source.name:
                problems += await foreign_consumer.problems(
                    self._api, stream, wanted["durable_name"]
                )
                continue
            name = f"consumer {wanted['durable_name']} of stream {stream}"
            try:
                found = await self._api.consumer(stream, wanted["durable_name"])
                if found is None and mode is TopologyMode.CREATE:
                    found = await self._api.create_consumer(stream, wanted)
                if found is None:
                    problems.append(f"{name} is missing; start once with topology mode create")
                    continue
                problems += await adapt(self._api, settings, stream, wanted, found, adapts=adapts)
            except TransportError as error:
                problems.append(f"{name}: {error}")
        return problems
