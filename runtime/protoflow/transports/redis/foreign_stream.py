"""A stream and a consumer group of other programs, of which only entries are claimed and settled.

The group keeps its position and the stream its entries: nothing is created, trimmed or deleted.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from protoflow.errors import ProtoflowError, TopologyError
from protoflow.message import Delivery
from protoflow.transport.interface import SubscriptionSettings
from protoflow.transports.redis.connection import RedisConnection
from protoflow.transports.redis.foreign_records import decode_foreign
from protoflow.transports.redis.records import time_of
from protoflow.transports.redis.scripts import FOREIGN_LEAVE, FOREIGN_RENEW, FOREIGN_SETTLE

#: Our consumers, of which the lease is known. Those of other programs do not renew theirs.
_OURS: Final = "protoflow~"


class ForeignClaim(NamedTuple):
    """Identifies a claim of an entry."""

    id: bytes
    deliveries: int


class ForeignStream:
    """One consumer in the group.

    Args:
        connection: the connection.
        settings: the subscription, with its source.
        topic: the topic that the stream stands for.
        shard: the shard of its deliveries.
    """

    def __init__(
        self, connection: RedisConnection, settings: SubscriptionSettings, topic: str, shard: int
    ) -> None:
        sources = connection.settings.sources
        self.name = sources.place(topic)
        self.group = sources.consumer(topic, settings.group)
        self._connection = connection
        self._settings = settings
        self._topic = topic
        self._shard = shard
        self._who = (self.group, f"{_OURS}{connection.settings.client_name}-{uuid.uuid4().hex}")
        self._looked = 0.0

    async def fetch(self, most: int, now: float) -> list[Delivery]:
        """Claims entries that lost consumers left, then new ones."""
        found: list[Delivery] = []
        if now - self._looked > self._settings.lease / 3:
            self._looked = now
            found = await self._abandoned(most)
        if len(found) < most:
            reply = await self._connection.command(
                "XREADGROUP", "GROUP", *self._who, "COUNT", most - len(found),
                "STREAMS", self.name, ">",
            )  # fmt: skip
            entries = reply[0][1] if reply else ()
            found += [self._delivery(id, fields, deliveries=1) for id, fields in entries]
        return found

    async def settle(self, claims: Sequence[ForeignClaim]) -> list[bool]:
        """Acknowledges entries; returns for each whether it was held."""
        if not claims:
            return []
        ids = [claim.id for claim in claims]
        answers = await self._connection.call(FOREIGN_SETTLE, self.name, *self._who, *ids)
        return [bool(answer) for answer in answers]

    async def renew(
        self, deliveries: Sequence[Delivery], *, give_back: bool = False
    ) -> list[Delivery]:
        """Renews claims, or lets other consumers claim the entries; returns those that are lost."""
        if not deliveries:
            return []
        idle = round(self._settings.max_hold * 1000) + 1 if give_back else 0
        ids = [each.receipt.id for each in deliveries]
        answers = await self._connection.call(FOREIGN_RENEW, self.name, *self._who, idle, *ids)
        return [each for each, held in zip(deliveries, answers, strict=True) if not held]

    async def waiting(self) -> int:
        """Returns the number of entries that were not delivered to the group."""
        return int((await group_of(self._connection, self.name, self.group)).get("lag") or 0)

    async def leave(self) -> None:
        """Removes the consumer, unless it still holds entries."""
        with contextlib.suppress(ProtoflowError):  # others claim its entries after the lease
            await self._connection.call(FOREIGN_LEAVE, self.name, *self._who)

    async def _abandoned(self, most: int) -> list[Delivery]:
        """Claims entries of our consumers after a lease, and of others after `max_hold`."""
        lease, hold = (
            round(each * 1000) for each in (self._settings.lease, self._settings.max_hold)
        )
        found: list[Delivery] = []
        for consumer in await self._holders(hold):
            found += await self._claim(lease, most - len(found), consumer)
        return found + await self._claim(hold, most - len(found))

    async def _holders(self, hold: int) -> list[bytes]:
        """Returns our consumers that hold entries; removes those of lost processes."""
        holders: list[bytes] = []
        reply = await self._connection.command("XINFO", "CONSUMERS", self.name, self.group)
        for each in reply:
            found = dict(zip(map(bytes.decode, each[::2]), each[1::2], strict=True))
            name = found["name"]
            if not name.startswith(_OURS.encode()):
                continue
            if found["pending"]:
                holders.append(name)
            elif found["idle"] > hold:  # if its process lives, the server makes it again
                await self._connection.call(FOREIGN_LEAVE, self.name, self.group, name)
        return holders

    async def _claim(self, idle: int, most: int, *consumer: bytes) -> list[Delivery]:
        """Claims entries that a consumer, or any, has not renewed for some milliseconds."""
        found: list[Delivery] = []
        if most < 1:
            return found
        command = self._connection.command
        place = (self.name, self.group, "IDLE", idle, "-", "+", most, *consumer)
        for id, _, _, count in await command("XPENDING", *place):
            claimed = await command("XCLAIM", self.name, *self._who, idle, id)
            # Redis 6.2 answers nil for an entry that its owner deleted.
            entries = (each for each in claimed if each and each[1])
            found += [self._delivery(*each, deliveries=count + 1) for each in entries]
        return found

    def _delivery(self, id: bytes, fields: Sequence[bytes], *, deliveries: int) -> Delivery:
        position = id.decode()
        message, unreadable = decode_foreign(self._topic, f"{self.name}:{position}", fields)
        return Delivery(
            message=message,
            deliveries=deliveries,
            shard=self._shard,
            position=position,
            time=time_of(position),
            size=sum(map(len, fields)),
            receipt=ForeignClaim(id, deliveries),
            unreadable=unreadable,
        )


async def group_of(connection: RedisConnection, stream: str, group: str) -> Mapping[str, Any]:
    """Returns what the server knows of a group. Raises TopologyError with the fix."""
    if await connection.command("TYPE", stream) != b"stream":
        raise TopologyError(f"stream {stream} is missing; a source names it, so its owner makes it")
    for each in await connection.command("XINFO", "GROUPS", stream):
        found = dict(zip(map(bytes.decode, each[::2]), each[1::2], strict=True))
        if found["name"] == group.encode():
            return found
    raise TopologyError(
        f"group {group} of stream {stream} is missing; a source names it, so its owner makes it: "
        f"XGROUP CREATE {stream} {group} $"
    )
