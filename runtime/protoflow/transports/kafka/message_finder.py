"""Finds a message by its id: reads logs from the time that the id contains, without a group."""

from __future__ import annotations

import contextlib

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from protoflow import wire
from protoflow.errors import TopologyError
from protoflow.transport.message_finder import (
    NO_TIME,
    FoundMessages,
    GroupState,
    MessageQuery,
)
from protoflow.transport.settings import SubscriptionSettings
from protoflow.transport.topic_reader import TopicRecord
from protoflow.transports.kafka import names
from protoflow.transports.kafka.commit_metadata import UnknownMetadataError
from protoflow.transports.kafka.context import KafkaContext
from protoflow.transports.kafka.errors import transport_error
from protoflow.transports.kafka.groups import committed
from protoflow.transports.kafka.topic_scan import as_record, identity_of, open_scan

#: The state of a group before and after its commits have passed the message.
_SETTLED, _UNSETTLED = "settled", "not settled yet"


class KafkaMessageFinder:
    """Implements `MessageFinder` for one search.

    Args:
        context: the context of the transport.
        query: the message to find.
    """

    def __init__(self, context: KafkaContext, query: MessageQuery) -> None:
        self._context = context
        self._query = query
        self._found = FoundMessages()

    async def find(self) -> FoundMessages:
        """Searches topics, then the retry topics of their groups."""
        query, found = self._query, self._found
        if query.since is None:
            found.not_searched = [f"{topic}: {NO_TIME}" for topic in query.topics]
            return found
        for topic in query.topics:
            records = await self._search(
                topic, self._context.physical(topic), query.since + query.within
            )
            for settings in query.subscriptions:
                if settings.topic == topic:
                    retries = await self._search_retries(settings)
                    await self._judge(settings, [*records, *retries])
        return found

    async def _search_retries(self, settings: SubscriptionSettings) -> list[ConsumerRecord]:
        topic, group = settings.topic, settings.group
        return [
            record
            for name in sorted(self._context.existing)
            if names.step_of(name, topic, group) is not None
            for record in await self._search(topic, name, None, group)
        ]

    async def _search(
        self, topic: str, physical: str, until: float | None, group: str = ""
    ) -> list[ConsumerRecord]:
        """Searches the records of the message in one topic of the broker."""
        query, found = self._query, self._found
        mine: list[ConsumerRecord] = []
        try:
            async with open_scan(self._context, physical) as scan:
                ends = await scan.ends()
                starts = await scan.starts(query.since or 0.0, ends)
                if until is not None:
                    ends = await scan.starts(until, ends)
                count = 0
                async with contextlib.aclosing(scan.records(starts, ends)) as records:
                    async for record in records:
                        count += 1
                        if count > query.limit:
                            break
                        if self._sees(record, topic, physical, group):
                            mine.append(record)
        except TopologyError:
            found.not_searched.append(f"topic {physical} does not exist")
        except KafkaError as error:
            found.not_searched.append(f"{physical}: {transport_error(error, 'topic', topic)}")
        else:
            found.add_place(physical, count, query)
        return mine

    def _sees(self, record: ConsumerRecord, topic: str, physical: str, group: str) -> bool:
        """Whether a record is the message itself; also records messages that it caused."""
        id, metadata = identity_of(record)
        if self._query.id not in (id, metadata.get(wire.CAUSATION_ID)):
            return False  # this is the usual case, and cheaper than a whole record
        return self._found.add(
            as_record(TopicRecord, topic, record), physical, self._query, group=group
        )

    async def _judge(self, settings: SubscriptionSettings, records: list[ConsumerRecord]) -> None:
        """Determines whether the group has settled all of these records."""
        if not records or settings.broadcast:
            return
        tps = {TopicPartition(record.topic, record.partition) for record in records}
        try:
            group = self._context.group_id(settings)
            positions = await committed(self._context.admin, group, tps)
        except (KafkaError, UnknownMetadataError) as error:
            self._found.not_searched.append(f"positions of group {settings.group}: {error}")
            return
        done = True
        for record in records:
            offset, metadata = positions.get(
                TopicPartition(record.topic, record.partition), (0, None)
            )
            finished = metadata is not None and record.offset in metadata.finished
            done = done and (record.offset < offset or finished)
        self._found.searched.append(f"positions of group {settings.group}")
        state = _SETTLED if done else _UNSETTLED
        self._found.groups.append(
            GroupState(topic=settings.topic, group=settings.group, state=state)
        )
