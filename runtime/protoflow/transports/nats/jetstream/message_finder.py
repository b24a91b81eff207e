"""Finds one message: streams are read by sequence, starting at the time in its id."""

from __future__ import annotations

from collections.abc import Sequence

from protoflow.contract.spec import Ordering
from protoflow.transport.message_finder import (
    NO_TIME,
    FoundMessages,
    GroupState,
    MessageQuery,
)
from protoflow.transport.settings import SubscriptionSettings
from protoflow.transport.topic_reader import TopicRecord
from protoflow.transports.nats.jetstream.api import API, JSON
from protoflow.transports.nats.jetstream.topic_reader import as_record, sequence_at, time_of
from protoflow.transports.nats.names import JetStreamNames


class JetStreamMessageFinder:
    """Implements `MessageFinder` for one search. No consumer is made.

    Args:
        api: sends requests to the server.
        names: the names.
        query: the search.
    """

    def __init__(self, api: API, names: JetStreamNames, query: MessageQuery) -> None:
        self._api = api
        self._names = names
        self._query = query
        self._found = FoundMessages()

    async def find(self) -> FoundMessages:
        """Searches the streams of topics, then those of groups."""
        query, found, names = self._query, self._found, self._names
        if query.since is None:
            found.not_searched = [f"{topic}: {NO_TIME}" for topic in query.topics]
            return found
        for topic in query.topics:
            filter, until = names.all_of(topic), query.since + query.within
            stored = await self._search(names.stream(topic), filter, topic, until=until)
            for settings in query.subscriptions:
                if settings.topic == topic and not settings.broadcast:
                    replays = await self._search_replays(settings)
                    waiting = await self._search_retries(settings)
                    await self._judge(settings, [*stored, *replays], waiting)
        return found

    async def _search_replays(self, settings: SubscriptionSettings) -> list[JSON]:
        """Searches replays of the message to an ordered group, which are in the topic's stream."""
        names = self._names
        if settings.ordering is Ordering.NONE:
            return []
        filter = names.all_of(names.replay_topic(settings.topic, settings.group))
        stream = names.stream(settings.topic)
        return await self._search(stream, filter, settings.topic, settings.group)

    async def _search_retries(self, settings: SubscriptionSettings) -> bool:
        """Checks whether the group's own stream holds the message as a retry or a replay."""
        names = self._names
        address = names.retry_topic(settings.topic, settings.group)
        found: list[JSON] = []
        for filter in (names.all_of(address), names.schedules(address)):
            found += await self._search(
                names.group_stream(settings.group), filter, settings.topic, settings.group
            )
        return bool(found)

    async def _search(
        self, stream: str, filter: str, topic: str, group: str = "", until: float | None = None
    ) -> list[JSON]:
        """Searches the message in the subjects of a stream."""
        query, found = self._query, self._found
        info = await self._api.stream(stream)
        if info is None:
            found.not_searched.append(f"stream {stream}: there is no such stream")
            return []
        sequence, last = info["state"]["first_seq"], info["state"]["last_seq"]
        sequence = await sequence_at(
            self._api, stream, filter, query.since or 0.0, (sequence, last)
        )
        mine, count = list[JSON](), 0
        while count <= query.limit:
            stored = await self._api.next_message(stream, sequence, filter)
            if stored is None or (until is not None and time_of(stored) > until):
                break
            count += 1
            sequence = stored["seq"] + 1
            record = as_record(TopicRecord, topic, stream, stored)
            if found.add(record, f"stream {stream}", query, group=group):
                mine.append(stored)
        found.add_place(f"{filter} in stream {stream}", count, query)
        return mine

    async def _judge(
        self, settings: SubscriptionSettings, stored: Sequence[JSON], waiting: bool
    ) -> None:
        """Determines the state of the message in the group's durables and its own stream."""
        if not stored and not waiting:
            return
        stream, states = self._names.stream(settings.topic), set[str]()
        for each in stored:
            durable = self._durable(settings, each["subject"])
            info = await self._api.consumer(stream, durable)
            states.add(_state(info, each["seq"]))
            self._found.searched.append(f"consumer {durable} of stream {stream}")
        if waiting:  # messages in the group's own stream are not settled
            states.add("not settled yet")
        # one of several copies does not show the state of all
        states = states - {"settled"} or states
        self._found.groups.append(
            GroupState(topic=settings.topic, group=settings.group, state="; ".join(sorted(states)))
        )

    def _durable(self, settings: SubscriptionSettings, subject: str) -> str:
        """Returns the consumer of the shard of a subject."""
        durables = self._names.consumers(settings.topic, settings.group)
        shard = subject.rpartition(".=")[2]
        return durables[int(shard)] if len(durables) > 1 and shard.isdecimal() else durables[0]


def _state(info: JSON | None, sequence: int) -> str:
    """Returns the state of a message at a consumer: all up to its floor is acknowledged."""
    if info is None:
        return "the group has no consumer"
    if sequence <= info["ack_floor"]["stream_seq"]:
        return "settled"
    if sequence > info["delivered"]["stream_seq"]:
        return "waiting"
    floor = info["ack_floor"]["stream_seq"]
    return f"delivered; it is unknown whether it is settled (the floor is {floor})"
