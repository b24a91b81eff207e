"""Positions of groups in topics that are not as the group has left them."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from protoflow.message import Message
from protoflow.transports.file.log_reader import LogReader

from tests.transports.file.logs import NOW, SALT, appender, part, segments
from tests.transports.file.test_directory import publish_each, url
from tests.transports.harness import Listener, ack, opened, settings, take


def short(folder: Path) -> str:
    """Retention removes what groups need."""
    return url(folder, segment_bytes=300, retention_bytes=700, retention_before_groups=True)


async def test_a_group_with_unsettled_messages_goes_on_after_its_position(tmp_path: Path) -> None:
    async with opened(short(tmp_path)) as transport:
        subscription = await transport.subscribe(settings(), Listener())
        await publish_each(transport, 2)
        await take(subscription, 2)
    async with opened(short(tmp_path), on_lost_position="earliest") as transport:
        await publish_each(transport, 20)
        subscription = await transport.subscribe(settings(), Listener())
        assert (await take(subscription))[0].message.id != "m0"


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize("policy", ["stop", "earliest"])
async def test_a_position_is_lost_while_the_group_runs(
    tmp_path: Path, before: int, policy: str
) -> None:
    """`before` messages in the first segment were read."""
    going_on = threading.Event()
    async with (
        opened(short(tmp_path), on_lost_position=policy) as transport,
        opened(short(tmp_path)) as publisher,
    ):
        subscription = await transport.subscribe(settings(), Listener())
        await publisher.submit([Message(id="m", topic="t", payload=b"x" * 300)] * before)
        if before:
            await ack(subscription, await take(subscription))
        receiving = asyncio.ensure_future(subscription.receive(1, 1 << 20))
        while not subscription._journal.state.members:
            await asyncio.sleep(0.01)
        waiting = transport._context.consume(going_on.wait)
        await publish_each(publisher, 20)
        going_on.set()
        await waiting
        async with asyncio.timeout(5):
            if policy == "stop":
                while subscription.health.healthy:
                    await asyncio.sleep(0.01)
                assert "not kept any more" in str(subscription.health.detail)
                await subscription.stop()
                assert not await receiving
            else:
                (delivery,) = await receiving
                assert delivery.unreadable is None


async def test_a_position_within_another_message_is_lost(tmp_path: Path) -> None:
    """A power cut took the end of the log, and longer messages were published then."""
    async with opened(url(tmp_path)) as transport:
        subscription = await transport.subscribe(settings(), Listener())
        await publish_each(transport, 3)
        await ack(subscription, await take(subscription, 3))
    os.truncate(segments(tmp_path / "log" / "t")[0], 10)
    async with opened(url(tmp_path)) as transport:
        await transport.submit([Message(id="new", topic="t", payload=b"x" * 500)])
        subscription = await transport.subscribe(settings(), Listener())
        receiving = asyncio.ensure_future(subscription.receive(1, 1 << 20))
        while subscription.health.healthy and not receiving.done():
            await asyncio.sleep(0.01)
        assert "position of group g in topic t is lost" in str(subscription.health.detail)
        await subscription.stop()
        assert not await receiving


@pytest.mark.parametrize("left", [0, 30])
async def test_a_position_behind_damage_is_not_lost(tmp_path: Path, left: int) -> None:
    """The segment with what was read last is shorter, or a bit of it was changed."""
    small = url(tmp_path, segment_bytes=1 if left else 1000)
    async with opened(small) as transport:
        subscription = await transport.subscribe(settings(), Listener())
        await publish_each(transport, 2)
        await ack(subscription, await take(subscription))
    file = segments(tmp_path / "log" / "t")[0]
    data = bytearray(file.read_bytes())
    data[40] ^= 1
    file.write_bytes(data[:left] if left else data)
    async with opened(small) as transport:
        subscription = await transport.subscribe(settings(), Listener())
        (delivery,) = await take(subscription)
        assert delivery.message.id == "m1"


def test_a_time_is_found_in_the_first_of_several_segments(tmp_path: Path) -> None:
    """After the clock was set back, many messages have one time."""
    log: Any = appender(tmp_path, 100)
    for number in range(6):
        log.append([part(number)], NOW)
    log.close()
    assert len(segments(tmp_path)) > 2
    reader = LogReader(str(tmp_path), SALT)
    assert reader.at_time(NOW) == 0
    reader.close()
