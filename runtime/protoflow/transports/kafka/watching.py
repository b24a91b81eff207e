"""Watches the topics that are consumed: deleted, or deleted and made anew."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from protoflow.errors import TransportError
from protoflow.transports.kafka.context import Context
from protoflow.transports.kafka.feed import Feed
from protoflow.transports.kafka.identities import Identities
from protoflow.transports.kafka.starting import Starting

if TYPE_CHECKING:
    from protoflow.transports.kafka.membership import Membership

_log = logging.getLogger("protoflow.transports.kafka")
#: How often in a row a topic must be missing: one node may lag behind the others.
_SURE = 3


class TopicWatch:
    """Compares the ids of the topics with those that the positions were made for."""

    def __init__(
        self,
        membership: Membership,
        starting: Starting,
        identities: Identities,
        context: Context,
    ) -> None:
        self._membership = membership
        self._starting = starting
        self._identities = identities
        self._interval = context.options.health_interval
        self._missing: dict[str, int] = {}

    async def run(self) -> None:
        """Looks by interval, for ever."""
        while True:
            await asyncio.sleep(self._interval)
            try:
                async with asyncio.timeout(self._interval):
                    ids = await self._identities.of(self._membership.topics)
                await self._compare(ids)
            except (KafkaError, TimeoutError, OSError) as error:
                _log.debug("topics cannot be looked at", extra={"error": repr(error)})
            except Exception:  # whatever it is, it looks again
                _log.exception("topics cannot be looked at")

    async def _compare(self, ids: dict[str, str]) -> None:
        back = False
        for topic in self._membership.topics:
            before = self._missing.get(topic, 0)
            back = back or (topic in ids and before >= _SURE)
            self._missing[topic] = 0 if topic in ids else before + 1
        for feed in list(self._membership.feeds):
            self._tell_missing(feed)
            await self._compare_partitions(feed, ids)
        if back:
            self._membership.look_again()

    async def _compare_partitions(self, feed: Feed, ids: dict[str, str]) -> None:
        for tp, partition in list(feed.partitions.items()):
            now = ids.get(tp.topic, "")
            if not now or not partition.live:
                continue
            if not partition.topic:
                partition.topic = now
            elif partition.topic != now:
                try:
                    offset = await self._starting.made_anew(tp, partition.watermark)
                except TransportError as error:
                    self._membership.reader.end(tp.topic, error)
                    return
                partition.topic = now
                await self._membership.reader.relocate(tp, offset)

    def _tell_missing(self, feed: Feed) -> None:
        gone = [name for name in feed.topics.all if self._missing.get(name, 0) >= _SURE]
        for name in gone:
            if name in feed.topics.earlier:  # nobody needs it any more
                self._membership.forget(name)
        lost = [name for name in gone if name not in feed.topics.earlier]
        # Their positions can be committed no longer, which would hold up those of the others.
        self._membership.drop([item for tp, item in feed.partitions.items() if tp.topic in gone])
        feed.set_problem(
            "topics",
            f"topics are missing, maybe deleted: {', '.join(lost)}; make them anew or restart"
            if lost
            else None,
        )
