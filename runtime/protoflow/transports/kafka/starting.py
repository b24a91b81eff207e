"""Where partitions start: their positions, what the notes beside them say, and topics that are
not the same any more."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition

from protoflow.contract.spec import Ordering, Start
from protoflow.errors import TopologyError, TransportError
from protoflow.transports.kafka.context import Context
from protoflow.transports.kafka.feed import Feed
from protoflow.transports.kafka.groups import Groups
from protoflow.transports.kafka.identities import Identities
from protoflow.transports.kafka.note import Note, UnknownNoteError
from protoflow.transports.kafka.partition import Partition

_log = logging.getLogger("protoflow.transports.kafka")


class Starting:
    """Makes partitions of what the broker knows of them.

    Attributes:
        identities: the ids of the topics that are read.
    """

    def __init__(
        self, group: str, consumer: AIOKafkaConsumer, groups: Groups, context: Context
    ) -> None:
        self._group = group
        self._consumer = consumer
        self._groups = groups
        self._policy = context.settings.on_lost_position
        self.identities = Identities(context.admin)

    async def look_up(
        self, feeds: Mapping[TopicPartition, Feed]
    ) -> dict[TopicPartition, Partition]:
        """The partitions as they start. Raises KafkaError; TransportError where it makes no
        sense to try again."""
        if not feeds:
            return {}
        ids = await self.identities.of({tp.topic for tp in feeds})
        try:
            places = await self._groups.committed(self._group, feeds)
        except UnknownNoteError as error:
            raise TopologyError(
                f"kafka: the positions of group {self._group} were written by another version of"
                f" Protoflow (note {error}); let that version handle what is under way, then"
                " delete the group or set its offsets anew"
            ) from error
        partitions = {}
        for tp, (offset, note) in places.items():
            now = ids.get(tp.topic, "")
            if note.topic and now and note.topic != now:
                try:
                    offset, note = await self.made_anew(tp, offset), Note()
                except TransportError as error:
                    feeds[tp].fail(error)
            partitions[tp] = feeds[tp].make(tp, offset, note)
        partitions |= await self._without_position(
            {tp: feed for tp, feed in feeds.items() if tp not in places}
        )
        partitions = {tp: item for tp, item in partitions.items() if feeds[tp].open}
        for tp, partition in partitions.items():
            partition.topic = ids.get(tp.topic, "")
            if not partition.born:
                partition.born = len(self._consumer.partitions_for_topic(tp.topic) or ())
        await self._judge(partitions)
        return partitions

    async def made_anew(self, tp: TopicPartition, offset: int) -> int:
        """Where a topic starts that was deleted and made anew. Raises TransportError."""
        where = f"{tp.topic}[{tp.partition}] at {offset}"
        if self._policy == "stop":
            raise TransportError(
                f"kafka: group {self._group}: topic {tp.topic} was deleted and made anew, so the"
                f" position {where} means nothing; set on_lost_position to earliest or latest, or"
                " set the group's offsets"
            )
        _log.warning(
            "a topic was deleted and made anew: the group starts anew",
            extra={"group": self._group, "lost": where, "on_lost_position": self._policy},
        )
        if self._policy == "earliest":
            places = await self._consumer.beginning_offsets([tp])
        else:
            places = await self._consumer.end_offsets([tp])
        return int(places[tp])

    async def _without_position(
        self, feeds: Mapping[TopicPartition, Feed]
    ) -> dict[TopicPartition, Partition]:
        """Partitions that the group has never read; a retry topic is never skipped."""
        latest: list[TopicPartition] = []
        born: dict[TopicPartition, int] = {}
        for topic, feed in {tp.topic: feed for tp, feed in feeds.items()}.items():
            if topic != feed.topics.main:
                continue
            count = await self._born(topic)
            for tp in feeds:
                if tp.topic != topic:
                    continue
                born[tp] = count
                if feed.settings.start is Start.LATEST and (not count or tp.partition < count):
                    latest.append(tp)
            self._warn(feed, topic, count)
        offsets = await self._consumer.end_offsets(latest) if latest else {}
        earliest = [tp for tp in feeds if tp not in offsets]
        if earliest:
            offsets |= await self._consumer.beginning_offsets(earliest)
        return {
            tp: feeds[tp].make(tp, offset, Note(born=born.get(tp, 0)))
            for tp, offset in offsets.items()
        }

    async def _born(self, topic: str) -> int:
        """How many partitions the topic had when the group began with it; 0 is that it has not
        begun. What was added since starts at its beginning, or messages would be skipped."""
        tps = [TopicPartition(topic, item) for item in self._numbers(topic)]
        places = await self._groups.committed(self._group, tps)
        return min((note.born for _, note in places.values() if note.born), default=0)

    def _numbers(self, topic: str) -> Collection[int]:
        return self._consumer.partitions_for_topic(topic) or ()

    def _warn(self, feed: Feed, topic: str, born: int) -> None:
        now = len(self._numbers(topic))
        if born and now > born and feed.settings.ordering is Ordering.PER_KEY:
            _log.warning(
                "topic %s has grown from %d partitions to %d: keys have moved, and what was"
                " published before may be handled after what comes now; to keep order per key,"
                " drain the group before partitions are added",
                topic, born, now, extra={"subscription": feed.settings.name},
            )  # fmt: skip

    async def _judge(self, partitions: Mapping[TopicPartition, Partition]) -> None:
        """Is careful with partitions whose starts ended badly, if there was work in them."""
        suspicious = [tp for tp, item in partitions.items() if item.is_suspicious]
        ends = await self._consumer.end_offsets(suspicious) if suspicious else {}
        for tp, end in ends.items():
            partition = partitions[tp]
            if end <= partition.watermark:
                partition.trust()
            else:
                partition.begin_careful(partition.feed.settings.max_in_flight)
                _log.warning(
                    "a partition was started repeatedly without an end: one message at a time",
                    extra={"subscription": partition.feed.settings.name, "partition": str(tp)},
                )
