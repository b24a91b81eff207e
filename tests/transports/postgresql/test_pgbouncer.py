"""Services behind pgbouncer in transaction mode: nothing is kept in a session of the server."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest
from protoflow import Config, Context, Message, Retry, Service, connect
from protoflow.contract.spec import DeliveryPolicy, Ordering, RetryPolicy
from protoflow.transports.postgresql.connecting import Connector

from tests.brokers import skip_or_fail, start_own
from tests.brokers.base import BrokerUnavailable, RunningBroker
from tests.brokers.pgbouncer import PgBouncer
from tests.brokers.postgresql import PostgresBroker

USER = "pooled"
KEYS, EACH = 10, 12
#: What outlives a transaction. pgbouncer itself sends the settings of its clients, and asyncpg
#: turns `jit` off and on again while it looks types up.
SESSION = re.compile(
    r"\b(LISTEN|PREPARE|DISCARD|RESET)\b|pg_(try_)?advisory_lock\("
    r"|set_config\('(?!jit)[^)]*false|(^(statement|execute \S+): |;)\s*"
    r"SET (?!LOCAL|application_name|client_encoding)",
    re.IGNORECASE,
)
RETRIES = RetryPolicy(max_attempts=3, initial_backoff=0.02, max_backoff=0.05)


@pytest.fixture
def server() -> Iterator[RunningBroker]:
    """A server that logs each statement with the role that sent it."""
    settings = ("log_statement=all", "log_line_prefix=%u|")
    try:
        with start_own(PostgresBroker(settings=settings)) as server:
            yield server
    except BrokerUnavailable as error:
        skip_or_fail("postgresql", error)


@pytest.fixture
async def admin(server: RunningBroker) -> AsyncIterator[Any]:  # Any: asyncpg has no types
    connection = await asyncpg.connect(server.url)
    await connection.execute(f"CREATE ROLE {USER} LOGIN SUPERUSER")
    yield connection
    await connection.close()


@pytest.fixture
def pooler(server: RunningBroker, admin: Any) -> Iterator[RunningBroker]:
    """The pooler, whose clients share four connections to the server."""
    try:
        with start_own(PgBouncer(server.url, user=USER, size=4)) as pooler:
            yield pooler
    except BrokerUnavailable as error:
        skip_or_fail("postgresql", error)


class Handled:
    """What two services have handled, by handler."""

    def __init__(self) -> None:
        self.ordered: dict[str, list[int]] = {}
        self.jobs: list[str] = []
        self.outputs: list[str] = []

    async def handle_ordered(self, message: Message, context: Context) -> Message:
        key, number = (message.payload or b"").decode().split()
        if number == "3" and context.attempt == 1:
            raise Retry
        if number == "5":
            raise ValueError("always")
        self.ordered.setdefault(key, []).append(int(number))
        return Message(id=f"out-{message.id}", topic="outputs", payload=message.payload)

    async def handle_job(self, message: Message, context: Context) -> None:
        self.jobs.append(message.id)

    async def handle_output(self, message: Message, context: Context) -> None:
        self.outputs.append(message.id)

    def service(self, url: str, listen_url: str) -> Service:
        """A service that finds messages by notifications only."""
        options = {"listen_url": listen_url, "poll_interval": 3600}
        config = Config(
            transport=url, transport_options=options, environ={}, handle_signals=False, lease=20
        )
        service = Service(config)
        per_key = DeliveryPolicy(ordering=Ordering.PER_KEY, retry=RETRIES)
        service.register_message_handler("sink", "orders", self.handle_ordered, delivery=per_key)
        service.register_message_handler("jobs", "orders", self.handle_job)
        service.register_message_handler("out", "outputs", self.handle_output)
        return service


def orders() -> list[list[Message]]:
    """Rounds with a message of each key."""
    return [
        [
            Message(
                id=f"m{key}-{number}",
                topic="orders",
                payload=f"{key} {number}".encode(),
                key=str(key).encode(),
                delay=0.3 if (key, number) == (0, EACH - 1) else 0.0,
            )
            for key in range(KEYS)
        ]
        for number in range(EACH)
    ]


def statements(server: RunningBroker) -> list[str]:
    """What the server got through the pooler: `statement: ...` or `execute NAME: ...`."""
    assert server.directory is not None
    log = (server.directory / "postgresql.log").read_text()
    lines = re.findall(rf"^{USER}\|LOG:  ((?:statement|execute).*(?:\n[^|\n]*$)*)", log, re.M)
    return [line for line in lines if line]


async def test_all_paths_leave_nothing_in_a_session(
    server: RunningBroker, pooler: RunningBroker
) -> None:
    handled = Handled()
    services = [handled.service(pooler.url, server.url) for _ in range(2)]
    count = KEYS * EACH
    async with services[0], services[1], connect(pooler.url, environ={}) as connection:
        for group in orders():
            await connection.publish(*group)
        async with asyncio.timeout(60):
            while len(handled.jobs) < count or len(handled.outputs) < count - KEYS:
                await asyncio.sleep(0.02)
            while len(await connection.dead_letters.list("orders..sink..dead")) < KEYS:
                await asyncio.sleep(0.02)
        replayed = await connection.dead_letters.list("orders..sink..dead", limit=1)
        assert len(replayed) == 1
    expected = [number for number in range(EACH) if number != 5]
    assert handled.ordered == {str(key): expected for key in range(KEYS)}
    assert len(set(handled.jobs)) == len(handled.jobs) == count
    sent = statements(server)
    assert any("pg_notify" in each for each in sent)
    assert [each for each in sent if SESSION.search(each)] == []
    assert [each for each in sent if re.match(r"execute (?!<unnamed>)", each)] == []


async def test_statements_are_prepared_unless_a_pooler_stands_between(
    server: RunningBroker, pooler: RunningBroker
) -> None:
    direct = server.url.replace("postgres@", f"{USER}@")
    cases = ((pooler.url, None, 0), (direct, False, 0), (direct, None, 3), (direct, True, 3))
    before = 0
    for url, option, expected in cases:
        options = {"prepared_statements": option, "connections": 3}
        async with connect(url, transport_options=options, environ={}) as connection:
            for number in range(3):
                await connection.publish(Message(id=f"m{number}", topic="orders", payload=b"x"))
        sent = [each for each in statements(server) if ".publish(" in each]
        named = [each for each in sent[before:] if re.match(r"execute (?!<unnamed>)", each)]
        assert (url, option, len(named)) == (url, option, expected)
        before = len(sent)


async def test_a_pooler_that_keeps_prepared_statements_may_get_them(
    server: RunningBroker, pooler: RunningBroker
) -> None:
    """This one keeps none, so a statement is prepared and used in one transaction."""
    connection = await Connector(True)(pooler.url)
    async with connection.transaction():
        assert await connection.fetchval("SELECT 40 + $1::int", 2) == 42
    await connection.close()
    (sent,) = [each for each in statements(server) if "SELECT 40" in each]
    assert not sent.startswith("execute <unnamed>")


async def test_a_restarted_pooler_is_found_again(
    server: RunningBroker, pooler: RunningBroker
) -> None:
    handled = Handled()
    first, *rest = orders()
    async with handled.service(pooler.url, server.url), connect(server.url, environ={}) as direct:
        await direct.publish(*first)
        kind, directory = PgBouncer(server.url, user=USER), pooler.directory
        assert pooler.process is not None
        assert directory is not None
        pooler.process.kill()
        pooler.process.wait()
        for group in rest[:3]:
            await direct.publish(*group)
        port = int(pooler.url.rpartition(":")[2].partition("/")[0])
        pooler.process = (await asyncio.to_thread(kind.start, directory, port)).process
        async with asyncio.timeout(60):
            while len(set(handled.jobs)) < 4 * KEYS or sum(map(len, handled.ordered.values())) < 4:
                await asyncio.sleep(0.02)
