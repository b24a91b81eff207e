"""What two processes do at the same time, or at the worst moment."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from protoflow.contract.spec import Ordering
from protoflow.message import Delivery, Message
from protoflow.transports.file import group_state, log_appender, subscription
from protoflow.transports.file.claim_queue import ClaimQueue
from protoflow.transports.file.disk import FileLock, write_all
from protoflow.transports.file.journal import Journal

from tests.transports.file.test_directory import url
from tests.transports.harness import Listener, ack, make, messages, opened, settings, take


async def test_what_was_read_before_the_disk_was_full_keeps_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    got: list[Delivery] = []
    async with opened(url(tmp_path)) as transport, opened(url(tmp_path)) as publisher:
        group = await transport.subscribe(settings(), Listener())
        await publisher.submit(messages(1))
        await ack(group, await take(group))

        def full(descriptor: int, data: bytes) -> None:
            write_all(descriptor, data[: len(data) * 2 // 3 + 5])
            reading = asyncio.run_coroutine_threadsafe(take(group, 2), loop)
            got.extend(reading.result(10))
            raise OSError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(log_appender, "write_all", full)
            errors = await publisher.submit(messages(3))
        assert [error is None for error in errors] == [True, True, False]
        await ack(group, got)
        new = [Message(id=f"n{number}", topic="t", payload=b"y" * 40) for number in range(3)]
        assert not any(await publisher.submit(new))
        assert [each.message.id for each in await take(group, 3)] == ["n0", "n1", "n2"]


async def test_a_new_directory_is_opened_twice_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second opens it when the first has written a draft of the file `format`."""
    one, other = make(url(tmp_path)), make(url(tmp_path))
    rename = os.rename

    def renamed(old: str, new: str) -> None:
        monkeypatch.undo()
        other._topics.open()
        rename(old, new)

    monkeypatch.setattr(os, "rename", renamed)
    one._topics.open()
    assert os.listdir(tmp_path / "log") == ["format"]


def test_a_lock_that_was_deleted_has_one_owner(tmp_path: Path) -> None:
    one, other = (FileLock(str(tmp_path / "lock")) for _ in range(2))
    with one:
        pass
    (tmp_path / "lock").unlink()
    entered = threading.Event()

    def enter() -> None:
        with one:
            entered.set()

    thread = threading.Thread(target=enter)
    with other:
        thread.start()
        assert not entered.wait(0.2)
    thread.join(5)
    assert entered.is_set()
    one.close()
    other.close()


@pytest.mark.parametrize("ordering", [Ordering.PER_KEY, Ordering.PER_PARTITION])
async def test_who_can_claim_nothing_does_not_keep_the_journal(
    tmp_path: Path, ordering: Ordering
) -> None:
    """All messages have the key that another member holds."""
    async with opened(url(tmp_path)) as transport, opened(url(tmp_path)) as second:
        owner = await transport.subscribe(settings(ordering=ordering), Listener())
        member = await second.subscribe(settings(ordering=ordering), Listener())
        await transport.submit(messages(5000, key=b"k"))
        await take(owner)
        for fetches in range(1, 4):
            assert not await second._context.consume(member._fetch, 1, 1 << 20)
            most = 1 + fetches * subscription._MOST_READS * subscription._AHEAD
            count = len(member._journal.state.entries)
            assert count == 1 if ordering is Ordering.PER_PARTITION else 1 < count <= most


async def test_a_claim_lasts_a_whole_lease(tmp_path: Path) -> None:
    """Its member has extended its life long ago."""
    async with opened(url(tmp_path)) as transport:
        member = await transport.subscribe(settings(lease=60.0), Listener())
        await transport.submit(messages(2))
        await ack(member, await take(member))
        now = transport._context.settings.clock.now()
        with Journal(member.path).alone() as state:
            state.change("alive", member.member, now + 1.0)
        await take(member)
        with Journal(member.path).alone() as state:
            assert state.members[member.member] >= now + 60.0


def test_a_member_that_claims_nothing_gathers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is paused, and others work."""
    monkeypatch.setattr(group_state, "_MOST_TOUCHED", 50)
    Journal.create(str(tmp_path), 0, 0)
    paused, other = Journal(str(tmp_path)), Journal(str(tmp_path))
    queue = ClaimQueue(Ordering.PER_KEY, "paused")
    with paused.alone() as state:
        assert queue.next(state, 0.0) is None
    for number in range(200):
        with other.alone() as state:
            state.change("read", number + 1, number + 1, 0.0, [(number, 7, 0.0)])
            state.claim("other", number)
            if number < 199:
                state.change("ack", [number])
        with paused.alone() as state:
            assert len(state.touched) <= 50
    assert queue.has_work(state, 0.0)
    assert queue.next(state, 0.0) is None
    with other.alone() as state:
        state.change("gone", "other")
    with paused.alone() as state:
        entry = queue.next(state, 0.0)
        assert entry is not None
        assert entry.position == 199
    paused.close()
    other.close()
