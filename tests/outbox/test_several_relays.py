"""Several relays of one outbox: each key in order, nothing lost, nothing twice without a crash."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import asyncpg
import pytest
from protoflow import Message
from protoflow.errors import TransportError
from protoflow.outbox import OutboxRelay, PostgresOutbox, SQLiteOutbox, postgresql_lease, schema
from protoflow.outbox.tables import store_in
from protoflow.testing.transports.processes import program_environment

from tests.database import users

COUNT, KEYS = 300, 5

pytestmark = pytest.mark.timeout(120)


class Outbox:
    """An outbox, what was published of it, and the processes that relay it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "outbox.db"
        self.log = directory / "published"
        self.log.touch()
        self.store = SQLiteOutbox(self.path)
        self._numbers = itertools.count()
        self._processes: list[asyncio.subprocess.Process] = []

    async def fill(self, count: int) -> None:
        """Stores numbered messages over some keys."""
        await self.store.store(
            [
                Message(id=str(number), topic="t", payload=b"x", key=b"k%d" % (number % KEYS))
                for number in itertools.islice(self._numbers, count)
            ],
            None,
        )

    async def relay(self) -> asyncio.subprocess.Process:
        """Starts one more process that relays."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.outbox.relay_process", str(self.path), str(self.log)),
            env=program_environment(),
        )
        self._processes.append(process)
        return process

    @property
    def published(self) -> list[tuple[int, int]]:
        """Process and number of each publication, in order."""
        lines = self.log.read_text().splitlines()
        return [(int(pid), int(number)) for pid, number in map(str.split, lines)]

    async def until(self, count: int) -> int:
        """Waits until so many were published; returns the process that published last."""
        async with asyncio.timeout(60):
            while len({number for _, number in self.published}) < count:
                await asyncio.sleep(0.01)
        return self.published[-1][0]

    async def empty(self) -> None:
        """Waits until nothing is left."""
        async with asyncio.timeout(60):
            while (await self.store.backlog())[0]:
                await asyncio.sleep(0.01)

    def check(self, count: int) -> Counter[int]:
        """Asserts that nothing is lost and keys are in order; how often each was published."""
        numbers = [number for _, number in self.published]
        first = dict.fromkeys(numbers)
        assert sorted(first) == list(range(count))
        for key in range(KEYS):
            lane = [number for number in first if number % KEYS == key]
            assert lane == sorted(lane), "a key lost its order"
        return Counter(numbers)

    async def end(self) -> None:
        """Kills what is left."""
        for process in self._processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
        await self.store.close()


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[Outbox]:
    outbox = Outbox(tmp_path)
    yield outbox
    await outbox.end()


class Confirming:
    """A broker that takes everything."""

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[list[None]]:
        done: asyncio.Future[list[None]] = asyncio.get_running_loop().create_future()
        done.set_result([None] * len(messages))
        return done


async def test_relays_that_start_and_stop_in_order_publish_nothing_twice(outbox: Outbox) -> None:
    await outbox.fill(COUNT // 2)
    first, second = await outbox.relay(), await outbox.relay()
    for count in (20, 60):
        pid = await outbox.until(count)
        stopped = first if first.pid == pid else second
        stopped.send_signal(signal.SIGTERM)
        assert await stopped.wait() == 0
        first, second = (second if stopped is first else first), await outbox.relay()
    await outbox.fill(COUNT // 2)
    await outbox.empty()
    assert set(outbox.check(COUNT).values()) == {1}
    assert len({pid for pid, _ in outbox.published}) >= 3, "others took over"


async def test_another_takes_over_from_a_killed_relay(outbox: Outbox) -> None:
    await outbox.fill(COUNT)
    first, second = await outbox.relay(), await outbox.relay()
    pid = await outbox.until(50)
    killed = first if first.pid == pid else second
    killed.kill()
    await killed.wait()
    before = len(outbox.published)
    await outbox.empty()
    times = outbox.check(COUNT)
    twice = {number for number, count in times.items() if count > 1}
    assert twice <= {number for _, number in outbox.published[:before]}
    assert max(times.values()) <= 2
    # What was confirmed is deleted every 0.2 s, and each key had one on its way.
    assert len(twice) < 0.2 / 0.005 * KEYS + KEYS


async def test_a_relay_that_stands_still_is_not_overtaken(outbox: Outbox) -> None:
    await outbox.fill(100)
    first, second = await outbox.relay(), await outbox.relay()
    pid = await outbox.until(20)
    still = first if first.pid == pid else second
    still.send_signal(signal.SIGSTOP)
    await asyncio.sleep(0.5)
    assert {number for _, number in outbox.published} < set(range(100))
    still.send_signal(signal.SIGCONT)
    await outbox.empty()
    assert set(outbox.check(100).values()) == {1}


async def test_two_relays_of_one_process_do_not_mix(tmp_path: Path) -> None:
    one, two = SQLiteOutbox(tmp_path / "o.db"), SQLiteOutbox(tmp_path / "o.db")
    first, second = object(), object()
    assert await one.claim(first)
    assert await one.claim(first), "it still has it"
    assert not await one.claim(second)
    assert not await two.claim(second)
    await one.release(second)
    assert not await two.claim(second), "nobody releases what is another's"
    await one.release(first)
    assert await two.claim(second)
    await two.close()
    assert await one.claim(first), "a store that is closed has no claim"
    await one.close()


async def test_relays_that_come_by_a_link_do_not_mix(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "o.db")
    one, two = SQLiteOutbox(tmp_path / "o.db"), SQLiteOutbox(tmp_path / "link.db")
    assert await one.claim(one)
    assert not await two.claim(two)
    await one.close()
    await two.close()


async def test_what_was_published_is_deleted_before_another_may_have_it(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PostgresOutbox(postgres_url)
    relay = OutboxRelay(store, Confirming())  # type: ignore[arg-type]
    await store.store([Message(id="1", topic="t", payload=b"")], None)
    with monkeypatch.context() as patched:
        patched.setattr("protoflow.outbox.postgresql._DELETE", "SELECT 1/0, $1::bigint[]")
        with pytest.raises(TransportError):
            await relay.relay()
    claim, left = store.claim, -1

    async def claiming(owner: object) -> bool:
        nonlocal left
        left = (await store.backlog())[0]
        return await claim(owner)

    monkeypatch.setattr(store, "claim", claiming)
    await relay.relay()
    assert left == 0
    await store.close()


async def test_relays_of_postgresql_share_the_buckets(postgres_url: str) -> None:
    log: list[tuple[str, str]] = []
    stores = {name: PostgresOutbox(postgres_url, lease=1.0) for name in ("a", "b")}

    class Broker:
        def __init__(self, name: str) -> None:
            self.name = name

        def submit(self, messages: Sequence[Message]) -> asyncio.Future[list[None]]:
            log.extend((self.name, message.id) for message in messages)
            done: asyncio.Future[list[None]] = asyncio.get_running_loop().create_future()
            done.set_result([None] * len(messages))
            return done

    relays = {
        name: OutboxRelay(store, Broker(name))  # type: ignore[arg-type]
        for name, store in stores.items()
    }
    numbers = itertools.count()

    async def fill_until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not condition():
                messages = [
                    Message(id=str(n), topic="t", payload=b"", key=b"%d" % (n % 50))
                    for n in itertools.islice(numbers, 50)
                ]
                await stores["a"].store(messages, None)
                await asyncio.sleep(0.05)

    async with relays["a"]:
        await fill_until(lambda: len(log) > 50)
        async with relays["b"]:
            await fill_until(lambda: {"a", "b"} == {name for name, _ in log[-50:]})
        gone = len(log)
        await fill_until(lambda: len({number for _, number in log[gone:]}) > 100)
        async with asyncio.timeout(10):
            while (await stores["a"].backlog())[0]:
                await asyncio.sleep(0.02)
    numbered = [int(number) for _, number in log]
    assert sorted(numbered) == list(range(next(numbers))), "each once"
    for key in range(50):
        lane = [number for number in numbered if number % 50 == key]
        assert lane == sorted(lane), "a key lost its order"
    for store in stores.values():
        await store.close()


async def test_two_that_begin_at_once_own_no_bucket_both(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one's statement is older than the second one's joining, and locks later."""
    await users.execute(postgres_url, schema("postgresql"))
    taking = postgresql_lease._TAKE.replace(
        "UPDATE",
        "WITH s AS MATERIALIZED (SELECT CASE WHEN $1::bigint = 1 THEN pg_sleep(0.5) END) UPDATE",
        1,
    ).replace("WHERE bucket IN", "WHERE EXISTS (SELECT FROM s) AND bucket IN")
    monkeypatch.setattr(postgresql_lease, "_TAKE", taking)
    first, second = (PostgresOutbox(postgres_url) for _ in range(2))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(first.claim(first))
        await asyncio.sleep(0.2)
        tasks.create_task(second.claim(second))
    owned = [*first._lease.buckets, *second._lease.buckets]
    assert sorted(owned) == sorted(set(owned)), "both would publish from these"
    await first.close()
    await second.close()


async def test_tables_that_could_not_be_made_are_made_later(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PostgresOutbox(postgres_url)
    with monkeypatch.context() as patched:
        patched.setattr("protoflow.outbox.postgresql.POSTGRESQL", "SELECT 1/0")
        with pytest.raises(TransportError):
            await store.claim(store)
    assert await store.claim(store)
    await store.close()


async def test_roles_with_few_rights_publish_and_relay(postgres_url: str) -> None:
    await users.execute(postgres_url, schema("postgresql"))
    suffix = secrets.token_hex(4)
    writer, relay = f"writer_{suffix}", f"relay_{suffix}"
    await users.execute(
        postgres_url,
        f"""CREATE ROLE {writer} LOGIN; CREATE ROLE {relay} LOGIN;
        GRANT USAGE ON SCHEMA public TO {writer}, {relay};
        GRANT INSERT ON protoflow_outbox TO {writer};
        GRANT SELECT, INSERT, UPDATE, DELETE ON protoflow_outbox, protoflow_outbox_relays,
            protoflow_outbox_buckets TO {relay};
        GRANT SELECT ON SEQUENCE protoflow_outbox_position_seq TO {relay};""",
    )
    try:
        connection = await asyncpg.connect(postgres_url.replace("postgres@", f"{writer}@"))
        async with connection.transaction():
            await store_in(connection, [Message(id="1", topic="t", payload=b"")])
        await connection.close()
        store = PostgresOutbox(postgres_url.replace("postgres@", f"{relay}@"), create=False)
        assert await store.claim(store)
        (pending,) = await store.pending(10)
        await store.park(pending.position, "why")
        await store.unpark([pending.position])
        (pending,) = await store.pending(10)
        await store.delete([pending.position])
        assert await store.backlog() == (0, 0.0)
        await store.close()
    finally:
        await users.execute(
            postgres_url, f"DROP OWNED BY {writer}, {relay}; DROP ROLE {writer}, {relay};"
        )
