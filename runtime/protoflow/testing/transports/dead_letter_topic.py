"""A fixture for cases about dead letters: a topic, a group, and its dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from protoflow import wire
from protoflow.dead_letters import DeadLetterRecord, dead_letters_of
from protoflow.message import Message
from protoflow.testing.transports.harness import TransportHarness


class DeadLetterTopic:
    """A topic with a group, and dead letters as the scheduler publishes them."""

    def __init__(self, harness: TransportHarness) -> None:
        self.harness = harness
        self.topic = harness.topic()
        self.group = harness.group()
        self.name = harness.dead_letter_topic(self.topic)
        self.dead_letters = dead_letters_of(harness.transport)

    def message(
        self,
        payload: bytes,
        metadata: Mapping[str, str] | None = None,
        *,
        key: bytes | None = b"k",
    ) -> Message:
        """Returns a dead letter; `metadata` overrides its usual metadata."""
        return self.harness.message(
            self.name,
            payload,
            key=key,
            metadata={
                wire.CE_TYPE: "shop.v1.OrderPlaced",
                wire.CORRELATION_ID: "c-1",
                wire.PF_DEAD_LETTER: "true",
                wire.PF_GROUP: self.group,
                wire.PF_ORIGINAL_TOPIC: self.topic,
                wire.PF_ATTEMPT: "5",
                wire.PF_ERROR_CLASS: "exhausted",
                wire.PF_ERROR_MESSAGE: "it broke",
                **(metadata or {}),
            },
        )

    async def fill(self, *messages: Message) -> list[str]:
        """Publishes dead letters one by one; returns their ids as soon as the broker counts all."""
        before = await self.dead_letters.count(self.name)
        for message in messages:
            await self.harness.publish(message)
        await self.counts(before + len(messages))
        return [message.id for message in messages]

    async def add(self, *payloads: bytes) -> list[str]:
        """Publishes a dead letter for each payload."""
        return await self.fill(*map(self.message, payloads))

    async def counts(self, expected: int) -> None:
        """Waits until the broker counts this many dead letters."""
        async with asyncio.timeout(10 * self.harness.target.patience):
            while await self.dead_letters.count(self.name) != expected:
                await asyncio.sleep(0.05)

    async def ids(self, **selection: Any) -> list[str]:  # Any: as in `DeadLetters.list`
        """Returns the ids of a page; takes the arguments of `DeadLetters.list`."""
        return ids(await self.dead_letters.list(self.name, **selection))


def ids(records: Sequence[DeadLetterRecord]) -> list[str]:
    """Returns the message ids of records."""
    return [record.message.id for record in records]
