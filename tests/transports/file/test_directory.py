"""The directory: rights, foreign files, a full disk, no right to write, retention."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from protoflow.contract.spec import Start
from protoflow.errors import (
    ConfigError,
    ConnectionFailedError,
    PublishError,
    TopologyError,
    TransportError,
)
from protoflow.message import Message
from protoflow.transport import Topology, TopologyMode

from tests.transports.file.logs import segments
from tests.transports.harness import Listener, ack, make, messages, opened, settings, take

NOBODY = 65534


def url(folder: Path, **options: Any) -> str:
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"file://{folder}/log?{query}"


async def test_only_the_owner_may_read(tmp_path: Path) -> None:
    os.umask(old := os.umask(0))
    try:
        async with opened(url(tmp_path)) as transport:
            subscription = await transport.subscribe(settings(), Listener())
            await transport.submit(messages(1))
            await ack(subscription, await take(subscription))
    finally:
        os.umask(old)
    for path in (tmp_path / "log").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & 0o077 == 0, (path, oct(mode))


async def test_a_directory_of_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "notes.txt").write_text("mine")
    with pytest.raises(ConnectionFailedError, match="has other files and no file format"):
        await make(url(tmp_path)).open()
    assert [each.name for each in (tmp_path / "log").iterdir()] == ["notes.txt"]


async def test_verify_names_everything_that_is_missing(tmp_path: Path) -> None:
    async with opened(url(tmp_path)) as transport:
        dead = settings("a", dead_letter_topics=("a..g..dead",))
        topology = Topology(subscriptions=(dead,), topics=("b",))
        with pytest.raises(TopologyError) as caught:
            await transport.ensure(topology, TopologyMode.VERIFY)
        text = str(caught.value)
        assert "topic a, topic a..g..dead, topic b, group g of topic a; start once with" in text
        await transport.ensure(topology, TopologyMode.NONE)
        assert not (tmp_path / "log" / "a").exists()


async def test_foreign_files_are_ignored(tmp_path: Path) -> None:
    async with opened(url(tmp_path)) as transport:
        await transport.submit(messages(2))
    topic = tmp_path / "log" / "t"
    for name in ("notes.txt", ".DS_Store", "00000000000000000000.log.bak", "1.log", "x.torn"):
        (topic / name).write_bytes(b"\xff" * 50)
    (topic / "groups" / "README").write_text("mine")
    (tmp_path / "log" / "lost+found").mkdir()
    async with opened(url(tmp_path)) as transport:
        await transport.ensure(Topology(subscriptions=(settings(),)), transport_mode())
        subscription = await transport.subscribe(settings(), Listener())
        await transport.submit(messages(1))
        await ack(subscription, await take(subscription, 3))


def transport_mode() -> TopologyMode:
    return TopologyMode.CREATE


async def test_a_link_is_not_followed(tmp_path: Path) -> None:
    async with opened(url(tmp_path)) as transport:
        await transport.submit(messages(1))
    segment = segments(tmp_path / "log" / "t")[0]
    segment.rename(tmp_path / "elsewhere")
    segment.symlink_to(tmp_path / "elsewhere")
    before = (tmp_path / "elsewhere").read_bytes()
    async with opened(url(tmp_path)) as transport:
        (error,) = await transport.submit(messages(1))
        assert isinstance(error, PublishError)
        assert transport.health() is not None
    assert (tmp_path / "elsewhere").read_bytes() == before


@pytest.mark.parametrize("text", ['{"version": 2}', "{", "[]"])
async def test_another_format_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "format").write_text(text)
    with pytest.raises(ConnectionFailedError, match=r"another version|cannot use"):
        await make(url(tmp_path)).open()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process may become larger, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    async with opened(url(tmp_path)) as transport:
        subscription = await transport.subscribe(settings(), Listener())
        assert not any(await transport.submit(messages(3)))
        size = segments(tmp_path / "log" / "t")[0].stat().st_size
        with largest_file(size + 20):
            errors = await transport.submit(messages(2))
            assert all(type(error) is PublishError for error in errors)
            assert "File too large" in str(transport.health())
        assert segments(tmp_path / "log" / "t")[0].stat().st_size == size
        assert not any(await transport.submit(messages(4)[3:]))
        assert transport.health() is None
        batch = await take(subscription, 4)
        assert [each.message.id for each in batch] == ["m0", "m1", "m2", "m3"]
        journal = tmp_path / "log" / "t" / "groups" / "g" / "journal"
        with largest_file(journal.stat().st_size + 5):
            settling = subscription.settle([])
            await settling
            with pytest.raises(AssertionError, match="UNKNOWN"):
                await ack_or_unknown(subscription, batch)
        await ack(subscription, batch)
    async with opened(url(tmp_path)) as transport:
        assert (await transport.lag("t", "g")).messages == 0


async def test_readiness_returns_without_another_publish(tmp_path: Path) -> None:
    """An application that gets no requests while it is not ready publishes nothing."""
    async with opened(url(tmp_path, fsync_interval=0.02)) as transport:
        assert not any(await transport.submit(messages(9)))
        file = segments(tmp_path / "log" / "t")[0]
        with largest_file(file.stat().st_size + 20):
            assert all(await transport.submit(messages(2)))
            assert not any(await transport.submit(messages(1, topic="u")))
            await asyncio.sleep(0.1)
            assert "File too large" in str(transport.health()), "another topic does not hide it"
        async with asyncio.timeout(5):
            while transport.health() is not None:
                await asyncio.sleep(0.01)
    assert [each.name for each in (tmp_path / "log").rglob(".*")] == []


async def test_retention_of_one_topic_does_not_depend_on_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One was deleted, one is damaged; the last was published to before its limit applied."""
    monkeypatch.setattr("protoflow.transports.file.transport._RETENTION", 0.02)
    small = url(tmp_path, segment_bytes=300, retention=0.2, fsync_interval=0.02)
    async with opened(small) as transport:
        for topic in ("deleted", "damaged", "t"):
            await publish_each(transport, 12, topic)
        shutil.rmtree(tmp_path / "log" / "deleted")
        described = tmp_path / "log" / "damaged" / "topic.json"
        text = described.read_text()
        described.write_text("{")
        async with asyncio.timeout(5):
            while len(segments(tmp_path / "log" / "t")) > 1:
                await asyncio.sleep(0.01)
            while transport.health() is None:
                await asyncio.sleep(0.01)
            assert "damaged/topic.json is damaged" in str(transport.health())
            described.write_text(text)
            while transport.health() is not None:
                await asyncio.sleep(0.01)


async def test_dead_letters_are_removed_although_a_segment_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has removed the segment, or it cannot be removed."""
    dead = settings(dead_letter_topics=("dead",))
    async with opened(url(tmp_path, segment_bytes=100)) as transport:
        await transport.ensure(Topology(subscriptions=(dead,)), transport_mode())
        await publish_each(transport, 5, "dead")

        def unlink(path: str) -> None:
            raise PermissionError(path)

        with monkeypatch.context() as patch:
            patch.setattr(os, "unlink", unlink)
            assert await transport.dead_letters.clear("dead") == 5
        assert await transport.dead_letters.count("dead") == 0


async def ack_or_unknown(subscription: Any, batch: Any) -> None:
    try:
        await ack(subscription, batch)
    except TransportError as error:
        raise AssertionError(f"UNKNOWN: {error}") from error


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """This process may read the folder and nothing more, even as root."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o500 if path.is_dir() else 0o400)
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o700)


async def test_a_directory_without_the_right_to_write_can_be_read() -> None:
    folder = Path(tempfile.mkdtemp(prefix="protoflow-file-"))
    try:
        async with opened(url(folder)) as transport:
            await transport.ensure(Topology(subscriptions=(settings(),)), transport_mode())
            await transport.submit(messages(3))
        folder.chmod(0o755)
        with read_only(folder / "log"):
            async with opened(url(folder)) as transport:
                records = transport.read_topic("t", start=Start.EARLIEST, follow=False)
                assert [each.message.id async for each in records] == ["m0", "m1", "m2"]
                assert (await transport.lag("t", "g")).messages == 3
                (error,) = await transport.submit(messages(1))
                assert type(error) is PublishError
                assert "Permission denied" in str(error)
                listener = Listener()
                subscription = await transport.subscribe(settings(), listener)
                receiving = asyncio.ensure_future(subscription.receive(1, 1 << 20))
                while subscription.health.healthy:
                    await asyncio.sleep(0.01)
                await subscription.stop()
                assert not await receiving
    finally:
        shutil.rmtree(folder)


async def test_retention_keeps_what_a_group_needs(tmp_path: Path) -> None:
    small = url(tmp_path, segment_bytes=150, retention_bytes=700)
    topic = tmp_path / "log" / "t"
    async with opened(small) as transport:
        subscription = await transport.subscribe(settings(), Listener())
        await publish_each(transport, 20)
        kept = len(segments(topic))
        assert kept > 5
        batch = await take(subscription, 20)
        await ack(subscription, batch[:10])
        await ack(subscription, batch[11:])
        await publish_each(transport, 5)
        assert segments(topic)[0].name > f"{0:020d}.log"  # but one is not settled yet
        assert len(segments(topic)) > 5
        await ack(subscription, batch[10:11])
        await ack(subscription, await take(subscription, 5))
        await publish_each(transport, 5)
        assert sum(each.stat().st_size for each in segments(topic)) < 1100
        assert len(await take(subscription, 5)) == 5


async def publish_each(transport: Any, count: int, topic: str = "t") -> None:
    for message in messages(count, topic):
        assert not any(await transport.submit([message]))


@pytest.mark.parametrize("policy", ["stop", "earliest", "latest"])
async def test_retention_before_groups_loses_their_position(tmp_path: Path, policy: str) -> None:
    small = url(tmp_path, segment_bytes=300, retention_bytes=700, retention_before_groups=True)
    async with opened(small, on_lost_position=policy) as transport:
        await transport.ensure(Topology(subscriptions=(settings(),)), transport_mode())
        await publish_each(transport, 20)
        listener = Listener()
        subscription = await transport.subscribe(settings(), listener)
        if policy == "stop":
            receiving = asyncio.ensure_future(subscription.receive(1, 1 << 20))
            while subscription.health.healthy:
                await asyncio.sleep(0.01)
            assert "position of group g in topic t is lost" in str(subscription.health.detail)
            await subscription.stop()
            await receiving
            return
        if policy == "latest":
            await asyncio.sleep(0)
            receiving = asyncio.ensure_future(take(subscription))
            await asyncio.sleep(0.2)
            await transport.submit([Message(id="new", topic="t", payload=b"")])
            (delivery,) = await receiving
            assert delivery.message.id == "new"
            return
        (first,) = await take(subscription)
        assert first.message.id not in ("m0", "m19")


async def test_a_topic_that_is_shorter_than_a_group_remembers(tmp_path: Path) -> None:
    """As after a power cut with `fsync` = `never`."""
    async with opened(url(tmp_path)) as transport:
        subscription = await transport.subscribe(settings(), Listener())
        await publish_each(transport, 3)
        await ack(subscription, await take(subscription, 3))
    segment = segments(tmp_path / "log" / "t")[0]
    os.truncate(segment, 10)
    for others in (0, 3):
        async with opened(url(tmp_path)) as transport:
            await publish_each(transport, others)
            subscription = await transport.subscribe(settings(), Listener())
            receiving = asyncio.ensure_future(subscription.receive(1, 1 << 20))
            while subscription.health.healthy and not receiving.done():
                await asyncio.sleep(0.01)
            if others == 0:
                assert not subscription.health.healthy
            await subscription.stop()
            await receiving
    async with opened(url(tmp_path), on_lost_position="earliest") as transport:
        subscription = await transport.subscribe(settings(), Listener())
        await publish_each(transport, 1)
        assert await take(subscription, 1)


async def test_dead_letters_of_removed_segments(tmp_path: Path) -> None:
    small = url(tmp_path, segment_bytes=300, retention=0.001)
    dead = settings(dead_letter_topics=("dead",))
    topic = tmp_path / "log" / "dead"
    async with opened(small) as transport:
        await transport.ensure(Topology(subscriptions=(dead,)), transport_mode())
        for message in messages(12, topic="dead"):
            await transport.submit([message])
        store = transport.dead_letters
        assert await store.count("dead") == 12  # retention does not touch them
        async with store.scan("dead") as scan:
            records = await scan.take(20)
            await scan.remove(records[:8])
            await scan.remove(records[10:11])
        assert await store.count("dead") == 3
        assert segments(topic)[0].name > f"{0:020d}.log"
    async with opened(small) as transport:
        assert await transport.dead_letters.count("dead") == 3
        assert await transport.dead_letters.clear("dead") == 3
        assert await transport.dead_letters.count("dead") == 0
        assert len(segments(topic)) <= 2


async def test_a_topic_that_was_deleted_and_made_again_gets_readable_messages(
    tmp_path: Path,
) -> None:
    async with opened(url(tmp_path)) as transport, opened(url(tmp_path)) as other:
        await publish_each(transport, 1)
        shutil.rmtree(tmp_path / "log" / "t")
        await publish_each(other, 1)
        (error,) = await transport.submit(messages(1))
        assert "was deleted and made again" in str(error)
        await publish_each(transport, 1)
        records = other.read_topic("t", start=Start.EARLIEST, follow=False)
        assert [each.message.id async for each in records] == ["m0", "m0"]


async def test_a_broadcast_whose_group_was_deleted_closes(tmp_path: Path) -> None:
    async with opened(url(tmp_path)) as transport:
        await transport.subscribe(settings(broadcast=True), Listener())
        (group,) = (tmp_path / "log" / "t" / "groups").iterdir()
        shutil.rmtree(group)


async def test_a_purge_keeps_what_a_group_of_the_topic_needs(tmp_path: Path) -> None:
    watching = settings(topic="dead", group="watch")
    topology = Topology(subscriptions=(settings(dead_letter_topics=("dead",)), watching))
    async with opened(url(tmp_path, segment_bytes=300)) as transport:
        await transport.ensure(topology, transport_mode())
        await publish_each(transport, 12, topic="dead")
        assert await transport.dead_letters.clear("dead") == 12
        assert await transport.dead_letters.count("dead") == 0
        subscription = await transport.subscribe(watching, Listener())
        batch = await take(subscription, 12)
        assert [each.message.id for each in batch] == [f"m{number}" for number in range(12)]


@pytest.mark.parametrize("mode", [TopologyMode.CREATE, TopologyMode.NONE])
async def test_retention_spares_dead_letters_in_a_topic_that_was_made_before(
    tmp_path: Path, mode: TopologyMode
) -> None:
    small = url(tmp_path, segment_bytes=300, retention_bytes=500)
    async with opened(small) as transport:
        await publish_each(transport, 1, topic="dead")
        topology = Topology(subscriptions=(settings(dead_letter_topics=("dead",)),))
        await transport.ensure(topology, mode)
        await publish_each(transport, 12, topic="dead")
        assert await transport.dead_letters.count("dead") == 13
    if mode is TopologyMode.CREATE:  # other processes know it from the file
        async with opened(small) as transport:
            await publish_each(transport, 12, topic="dead")
            assert await transport.dead_letters.count("dead") == 25


@pytest.mark.parametrize("age", [0, 3600])
async def test_a_broadcast_that_was_killed_before_it_read_is_removed(
    tmp_path: Path, age: int
) -> None:
    groups = tmp_path / "log" / "t" / "groups"
    async with opened(url(tmp_path)) as killed, opened(url(tmp_path)) as transport:
        await killed._context.consume(killed._topics.join, settings(broadcast=True))
        (left,) = groups.iterdir()
        then = time.time() - age
        os.utime(left / "journal", (then, then))
        await transport.subscribe(settings(broadcast=True), Listener())
        assert left.exists() == (age == 0)


@pytest.mark.parametrize(
    ("option", "text"),
    [("fsync=sometimes", "always, interval or never"), ("segment_bytes=0", "must be above 0")],
)
def test_wrong_options_are_reported(tmp_path: Path, option: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make(f"file://{tmp_path}/log?{option}")


@pytest.mark.parametrize("policy", ["always", "interval", "never"])
async def test_a_publish_is_confirmed_after_its_policy(
    tmp_path: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    monkeypatch.setattr(
        os, "fdatasync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}"))
    )
    log = url(tmp_path, fsync=policy, fsync_interval=0.05)
    async with opened(log) as transport:
        await transport.submit(messages(1))
        at_once = [*synced]
        async with asyncio.timeout(5):
            while policy == "interval" and not synced:
                await asyncio.sleep(0.01)
    segment = str(segments(tmp_path / "log" / "t")[0])
    assert at_once == ([segment] if policy == "always" else [])
    assert (segment in synced) == (policy != "never")


async def test_the_age_of_a_damaged_message_is_that_of_the_next(tmp_path: Path) -> None:
    async with opened(url(tmp_path)) as transport:
        await transport.ensure(Topology(subscriptions=(settings(),)), transport_mode())
        await publish_each(transport, 2)
        file = segments(tmp_path / "log" / "t")[0]
        data = bytearray(file.read_bytes())
        data[30] ^= 1
        file.write_bytes(data)
        lag = await transport.lag("t", "g")
        assert lag.messages == 2
        assert lag.seconds < 60


async def test_a_group_with_many_waiting_messages_reads_no_new_ones(tmp_path: Path) -> None:
    async with opened(url(tmp_path, max_set_aside=2)) as transport:
        member = await transport.subscribe(settings(max_in_flight=1), Listener())
        waiting = messages(3, delay=0.3)
        assert not any(await transport.submit([*waiting, Message(id="n", topic="t", payload=b"")]))
        assert [each.message.id for each in await take(member)] == ["m0"], "n was not read"


async def test_messages_of_another_process_are_found_at_the_next_poll(tmp_path: Path) -> None:
    async with (
        opened(url(tmp_path, poll_interval=0.5)) as transport,
        opened(url(tmp_path)) as other,
    ):
        member = await transport.subscribe(settings(), Listener())
        receiving = asyncio.ensure_future(take(member))
        await asyncio.sleep(0.1)
        await other.submit(messages(1))
        await asyncio.sleep(0.2)
        assert not receiving.done()
        assert await receiving
