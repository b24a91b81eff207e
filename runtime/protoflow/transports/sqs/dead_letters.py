"""Dead letters: they are taken from their queue, sorted, and made visible again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final

from protoflow import wire
from protoflow.error_codes import ARGUMENT, HELD_DEAD_LETTERS, coded
from protoflow.errors import (
    DeadLetterNotFoundError,
    NotReplayableError,
    TopologyError,
    TransportError,
)
from protoflow.message import Message
from protoflow.transport.dead_letters import DeadLetterRecord
from protoflow.transport.kit.replay import (
    DeadLetterSources,
    check_names,
    publish_with,
    replay_in_order,
)
from protoflow.transports.sqs.connection import BATCH
from protoflow.transports.sqs.names import address
from protoflow.transports.sqs.publisher import SqsPublisher
from protoflow.transports.sqs.queue_client import QueueClient
from protoflow.transports.sqs.records import decode
from protoflow.transports.sqs.resources import Resources

_POSITION: Final = re.compile(r"[0-9]{13,20}-[A-Za-z0-9-]{1,100}")
#: Seconds for which dead letters stay hidden if the process of a scan is killed.
_HIDDEN: Final = 120.0
#: Seconds that a request waits for dead letters that are left.
_WAIT: Final = 1


class SqsDeadLetterStore:
    """Implements `DeadLetterStore`.

    Attributes:
        sources: whose dead letters lie where.
        resources: topics and queues.
        client: the requests to queues.
        publisher: publishes replays.
        fifo: whether replays go through the ordered queue of their group.
    """

    def __init__(
        self, client: QueueClient, resources: Resources, publisher: SqsPublisher, limit: int,
        *, fifo: bool,
    ) -> None:  # fmt: skip
        self.sources = DeadLetterSources()
        self.client = client
        self.resources = resources
        self.publisher = publisher
        self.fifo = fifo
        self._limit = limit
        # another scan would not see messages that this one has taken
        self._scanning = asyncio.Lock()

    async def count(self, topic: str) -> int:
        """Returns about how many dead letters there are, taken ones included."""
        try:
            return sum(await self.resources.counts(self.resources.names.dead_letters(topic)))
        except TopologyError:
            return 0

    @asynccontextmanager
    async def scan(
        self, topic: str, *, after: str = "", ids: Collection[str] | None = None
    ) -> AsyncIterator[SqsScan]:
        """Begins a scan: takes all dead letters, up to the limit, whatever `ids` says."""
        if after and not _POSITION.fullmatch(after):
            raise ValueError(
                coded(f"after: {after!r:.100} is not the position of a dead letter", ARGUMENT)
            )
        async with self._scanning:
            scan = SqsScan(self, topic)
            renewing: asyncio.Task[None] | None = None
            try:
                await scan.fill(self._limit)
                scan.skip(after)
                renewing = asyncio.get_running_loop().create_task(scan.renew())
                yield scan
            finally:
                if renewing is not None:
                    renewing.cancel()
                    await asyncio.gather(renewing, return_exceptions=True)
                await scan.give_back()

    async def clear(self, topic: str) -> int:
        """Removes all that are not taken by others, and counts them."""
        queue, removed = self.resources.names.dead_letters(topic), 0
        async with self._scanning:
            while await self.count(topic):
                raw = await self.client.receive_raw(queue, BATCH, wait=_WAIT, lease=_HIDDEN)
                if not raw:
                    break
                await self.client.delete(queue, [each["ReceiptHandle"] for each in raw])
                removed += len(raw)
        return removed


class SqsScan:
    """Implements `DeadLetterScan`. Others do not see its dead letters until it ends."""

    def __init__(self, store: SqsDeadLetterStore, topic: str) -> None:
        self._store = store
        self._topic = topic
        self._queue = store.resources.names.dead_letters(topic)
        #: Position -> receipt handle of what is taken.
        self._handles: dict[str, str] = {}
        self._records: list[DeadLetterRecord] = []
        self._next = 0

    async def fill(self, limit: int) -> None:
        """Takes dead letters, at most `limit`, and sorts them. Raises TransportError: some are
        taken by others."""
        expected = await self._store.count(self._topic)
        while len(self._handles) < min(limit, expected):
            raw = await self._store.client.receive_raw(
                self._queue, BATCH, wait=_WAIT, lease=_HIDDEN
            )
            if not raw:
                break
            for each in raw:
                self._add(each)
        self._records.sort(key=lambda record: record.position)
        if not self._handles and expected:
            raise TransportError(
                f"the {expected} dead letters of {self._topic} are held by another process that "
                f"reads them; try again when it ends, or {_HIDDEN:.0f} s after it was killed",
                code=HELD_DEAD_LETTERS,
            )

    def skip(self, after: str) -> None:
        """Skips the records up to a position."""
        while self._next < len(self._records) and self._records[self._next].position <= after:
            self._next += 1

    async def renew(self) -> None:
        """Keeps the dead letters hidden."""
        while True:
            await asyncio.sleep(_HIDDEN / 3)
            await self._store.client.hide(self._queue, [*self._handles.values()], _HIDDEN)

    async def give_back(self) -> None:
        """Makes visible what was not removed."""
        handles, self._handles = [*self._handles.values()], {}
        await self._store.client.hide(self._queue, handles, 0)

    async def take(self, limit: int) -> Sequence[DeadLetterRecord]:
        """Returns the next records."""
        found = self._records[self._next : self._next + limit]
        self._next += len(found)
        return found

    async def replay(
        self, records: Sequence[DeadLetterRecord], *, to_origin: bool
    ) -> Sequence[Exception | None]:
        """Publishes records, and removes those that are confirmed."""
        address = partial(self._address, to_origin=to_origin)
        publish = publish_with(self._store.publisher.submit)
        return await replay_in_order(records, address, publish, self.remove)

    async def remove(self, records: Sequence[DeadLetterRecord]) -> None:
        """Deletes records."""
        handles = [
            handle
            for record in records
            if (handle := self._handles.pop(record.position, None)) is not None
        ]
        await self._store.client.delete(self._queue, handles)

    def _add(self, raw: Mapping[str, Any]) -> None:
        message, _, _ = decode(self._topic, raw)
        sent = int(raw.get("Attributes", {}).get("SentTimestamp", 0))
        position = f"{sent:013d}-{raw['MessageId']}"
        if position not in self._handles:  # SQS may deliver one twice: the later handle counts
            record = DeadLetterRecord(message=message, position=position, time=sent / 1000)
            self._records.append(record)
        self._handles[position] = raw["ReceiptHandle"]

    async def _address(self, record: DeadLetterRecord, *, to_origin: bool) -> Message:
        """Returns the message to publish. A dead letter never selects a queue by name."""
        store = self._store
        if record.position not in self._handles:
            raise DeadLetterNotFoundError(f"{record.message.id!r:.100} was removed")
        message, group = store.sources.replayed(record, to_origin=to_origin)
        check_names(message, group, to_origin=to_origin)
        if to_origin:
            return message
        names = store.resources.names
        if not store.fifo:
            queue = names.retry(message.topic, group)
        elif wire.PF_REPROCESS in message.metadata:
            raise NotReplayableError(
                "a FIFO queue cannot ask for a message to be handled again although the inbox has"
                " it; remove it from the inbox, and replay it"
            )
        else:
            queue = names.group(message.topic, group)
        return replace(message, topic=address(queue), mandatory=True)
