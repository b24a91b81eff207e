"""A dump that is restored on another server, whose transactions have lower ids."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from subprocess import PIPE
from typing import Any

import asyncpg
import pytest
from protoflow.contract.spec import Ordering

from tests.brokers import skip_or_fail, start_own
from tests.brokers.base import BrokerUnavailable
from tests.brokers.postgresql import client
from tests.transports.postgresql.harness import (
    TestSchema,
    acknowledge,
    join,
    messages,
    numbers,
    publish,
    settings_of,
    take,
)

#: Both servers are started once, for all.
pytestmark = pytest.mark.xdist_group("restore")

BOTH = (settings_of(), settings_of(Ordering.PER_KEY, group="mails"))
_USE_IDS = """
DO $$ BEGIN FOR number IN 1..{count} LOOP
  PERFORM pg_current_xact_id(); COMMIT;
END LOOP; END $$
"""


@asynccontextmanager
async def schema_on(url: str) -> AsyncIterator[TestSchema]:
    """The schema `protoflow` on a server."""
    admin = await asyncpg.connect(url)
    place = TestSchema(url, "protoflow", admin)
    try:
        yield place
    finally:
        await place.close()
        await admin.close()


async def get_ahead(place: TestSchema, other: TestSchema) -> None:
    """Other transactions of a server use so many ids that it is 3,000 ahead of another one."""
    count = 3000 + max(0, await high_id(other) - await high_id(place))
    await place.run(_USE_IDS.replace("{count}", str(count)))


async def high_id(place: TestSchema) -> int:
    """The first id that the server has not used."""
    rows = await place.run("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8")
    return int(rows[0][0])


def restore(old: TestSchema, new: TestSchema) -> None:
    """Restores a dump of the first server on the second."""
    dump = subprocess.run([client("pg_dump"), "-Fc", old.url], stdout=PIPE, check=True)
    subprocess.run([client("pg_restore"), "-d", new.url], input=dump.stdout, check=True)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[str, str]]:
    """The URLs of two servers."""
    try:
        with start_own("postgresql") as old, start_own("postgresql") as new:
            yield old.url, new.url
    except BrokerUnavailable as error:
        skip_or_fail("postgresql", error)


async def test_groups_go_on_after_a_restore_and_lose_nothing(servers: Any) -> None:
    async with schema_on(servers[0]) as old, schema_on(servers[1]) as new:
        await get_ahead(old, new)
        transport = await old.open()
        held = [await join(transport, settings) for settings in BOTH]
        await publish(transport, *range(5))
        for member in held:
            await acknowledge(member, await take(member, 5))
        await publish(transport, *range(5, 8))  # in the dump, not handled
        early = await transport.insertion(messages(8))
        await transport.close()
        restore(old, new)
        # The first to publish need not be Protoflow; its id is below those of the dump.
        await new.admin.executemany(early.statement, early.rows)
        await get_ahead(new, old)  # its ids show nothing any more
        transport = await new.open()
        await publish(transport, 9)
        for settings in BOTH:
            member = await join(transport, settings)
            found = await take(member, 5)
            assert numbers(found) == [5, 6, 7, 8, 9]
            await acknowledge(member, found)
            assert (await transport.lag(settings.topic, settings.group)).messages == 0


async def test_it_is_reported(servers: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with schema_on(servers[0]) as old, schema_on(servers[1]) as new:
        await get_ahead(old, new)
        transport = await old.open()
        await publish(transport, 1)
        await transport.close()
        restore(old, new)
        for _ in range(2):
            await (await new.open()).close()
        found = [each for each in caplog.records if "restored from a dump" in each.message]
        assert len(found) == 1
        rows = await new.run("SELECT shift FROM {s}.meta")
        assert rows[0][0] > 0


async def test_a_server_whose_ids_are_higher_needs_no_shift(servers: Any) -> None:
    async with schema_on(servers[0]) as old, schema_on(servers[1]) as new:
        transport = await old.open()
        await acknowledge_one(transport)
        await transport.close()
        await get_ahead(new, old)
        restore(old, new)
        transport = await new.open()
        await publish(transport, 2)
        assert numbers(await take(await join(transport, settings_of()), 1)) == [2]
        assert (await new.run("SELECT shift FROM {s}.meta"))[0][0] == 0


async def acknowledge_one(transport: Any) -> None:
    """Publishes a message, which is handled."""
    member = await join(transport, settings_of())
    await publish(transport, 1)
    await acknowledge(member, await take(member, 1))


async def test_a_snapshot_is_shifted_with_all_its_ids(place: TestSchema) -> None:
    await place.open()
    rows = await place.run(
        "SELECT {s}.shifted('5:9:5,7', 100)::text, {s}.shifted('5:5:', 100)::text"
    )
    assert tuple(rows[0]) == ("105:109:105,107", "105:105:")
