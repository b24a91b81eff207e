"""What a process published a moment ago is not read back, and no reader notices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from protoflow.message import Delivery, Message, Settlement
from protoflow.transports.sqlite import recent, rows

from tests.transports.harness import Listener, ack, messages, opened, settings, take


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/queue.db"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages were read back, read by read."""
    counts: list[int] = []
    read = rows.read_range

    def counting(*arguments: Any) -> list[Delivery]:
        found = read(*arguments)
        counts.append(len(found))
        return found

    monkeypatch.setattr(rows, "read_range", counting)
    return counts


def seen(delivery: Delivery) -> tuple[Any, ...]:
    message = delivery.message
    return (
        (message.id, message.topic, message.payload, message.key, message.metadata),
        (message.delay, message.deduplication_id, message.mandatory, message.headers),
        (delivery.deliveries, delivery.failures, delivery.size, delivery.time, delivery.shard),
        delivery.position,
    )


async def test_what_was_kept_is_what_would_have_been_read(url: str, reads: list[int]) -> None:
    async with opened(url) as transport:
        first = await transport.subscribe(settings(group="a"), Listener())
        second = await transport.subscribe(settings(group="b"), Listener())
        metadata = {"ce_type": "ünï", "empty": ""}
        await transport.submit(
            [
                Message(
                    id=str(number),
                    topic="t",
                    payload=payload,
                    key=key,
                    metadata=metadata,
                    deduplication_id="d",
                    mandatory=True,
                )
                for number, (payload, key) in enumerate(
                    [(b"x", b"k"), (None, None), (b"", b""), (bytes(50_000), b"\xff")]
                )
            ]
        )
        kept, read = await take(first, 4), await take(second, 4)
        assert reads == [4], "each is kept for one group"
        for one, other in zip(kept, read, strict=True):
            assert seen(one)[:2] == seen(other)[:2]
            assert one.time == pytest.approx(other.time)
            assert (one.size, one.position, one.receipt) == (
                other.size,
                other.position,
                other.receipt,
            )
        metadata["late"] = "change"
        assert "late" not in kept[0].message.metadata


async def test_outputs_are_kept_too(url: str, reads: list[int]) -> None:
    async with opened(url) as transport:
        subscription = await transport.subscribe(settings(), Listener())
        reader = await transport.subscribe(settings("out"), Listener())
        await transport.submit(messages(1))
        (delivery,) = await take(subscription)
        await subscription.settle([Settlement(delivery, outputs=messages(3, "out"))])
        assert [each.message.id for each in await take(reader, 3)] == ["m0", "m1", "m2"]
        assert reads == []


async def test_what_is_rolled_back_is_forgotten(url: str, reads: list[int]) -> None:
    async with opened(url) as transport:
        subscription = await transport.subscribe(settings(), Listener())

        def publish_and_fail(connection: Any) -> None:
            from protoflow.transports.sqlite.publishing import Limits, Outgoing

            outgoing = Outgoing(transport.recent)
            outgoing.add(messages(3), 1.0, Limits(1000))
            outgoing.write(connection)
            raise ZeroDivisionError

        with pytest.raises(Exception, match="database failed"):
            await transport.worker.call(publish_and_fail)
        await transport.submit([Message(id="other", topic="t", payload=b"")])
        batch = await take(subscription)
        assert [each.message.id for each in batch] == ["other"]
        await ack(subscription, batch)


async def test_a_backlog_is_read_from_the_file(
    url: str, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "_MAX_MESSAGES", 10)
    async with opened(url) as transport:
        subscription = await transport.subscribe(settings(), Listener())
        for _ in range(10):
            await transport.submit(messages(7))
        batch = await take(subscription, 70)
        assert len(batch) == 70
        assert sum(reads) >= 63
        await ack(subscription, batch)
        assert len(transport.recent._deliveries) <= 10


async def test_topics_that_are_not_consumed_here_are_not_kept(url: str) -> None:
    async with opened(url) as transport:
        await transport.submit(messages(5))
        assert transport.recent._deliveries == {}
