"""Who creates the tables, and which rights the others need."""

from __future__ import annotations

import re
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from protoflow.contract.spec import Ordering
from protoflow.errors import ConnectionFailedError, TopologyError
from protoflow.message import Message
from protoflow.transport import Topology, TopologyMode
from protoflow.transports.postgresql import schema

from tests.transports.postgresql.harness import (
    TestSchema,
    acknowledge,
    join,
    numbers,
    publish,
    settings_of,
    take,
)

VERIFY = {"topology": TopologyMode.VERIFY}
_DOCS = Path(__file__).parents[3] / "docs" / "security.md"


def documented(role: str) -> str:
    """The statements that docs/security.md gives for a role."""
    section = _DOCS.read_text().partition("## PostgreSQL")[2].partition("\n## ")[0]
    for block in re.findall(r"```sql\n(.*?)```", section, re.DOTALL):
        if f"TO {role};" in block:
            return str(block)
    raise AssertionError(f"nothing for {role}")


class Roles:
    """Roles with the documented rights."""

    def __init__(self, place: TestSchema) -> None:
        self.place = place
        self.made: list[str] = []

    async def url(self, documented_as: str) -> str:
        """The URL of a new role."""
        place, name = self.place, f"r{uuid.uuid4().hex[:10]}"
        await place.admin.execute(f"CREATE ROLE {name} LOGIN")
        self.made.append(name)
        text = documented(documented_as).replace(f" TO {documented_as};", f" TO {name};")
        await place.admin.execute(re.sub(r"\bprotoflow\b", place.schema, text))
        return place.url.replace("postgres@", f"{name}@")


@pytest.fixture
async def roles(place: TestSchema) -> AsyncIterator[Roles]:
    roles = Roles(place)
    yield roles
    for name in roles.made:
        await place.admin.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_a_role_without_create_runs_a_service(place: TestSchema, roles: Roles) -> None:
    settings = settings_of(Ordering.PER_KEY)
    owner = place.transport()
    await owner.apply_tables()
    await owner.open()
    await owner.ensure(Topology(subscriptions=(settings,)), TopologyMode.CREATE)
    url = await roles.url("orders_app")
    transport = await place.open(url, settings=VERIFY)
    await transport.ensure(Topology(subscriptions=(settings,)), TopologyMode.VERIFY)
    member = await join(transport, settings)
    await publish(transport, *range(10))
    await acknowledge(member, await take(member, 10))
    queue = await join(transport, settings_of(topic="mails"))
    await publish(transport, 1, topic="mails")
    await acknowledge(queue, await take(queue, 1))
    assert (await transport.lag("mails", "billing")).messages == 0
    dead = Message(id="d", topic="orders..billing..dead", payload=b"7", key=b"k")
    assert await transport.submit([dead]) == [None]
    assert await transport.dead_letters.count("orders..billing..dead") == 1
    await transport._database.fetch("SELECT {s}.rotate($1)", 3600.0)
    for forbidden in ("INSERT INTO {s}.log SELECT * FROM {s}.log", "TRUNCATE {s}.log_0"):
        with pytest.raises(Exception, match="permission denied"):
            await transport._database.fetch(forbidden)


async def test_a_role_that_only_publishes_reads_nothing(place: TestSchema, roles: Roles) -> None:
    owner = await place.open()
    member = await join(owner, settings_of())
    transport = await place.open(await roles.url("shop_publisher"), settings=VERIFY)
    await publish(transport, 1, 2)
    held = await take(member, 2)
    assert numbers(held) == [1, 2]
    for forbidden in ("SELECT * FROM {s}.log", "DELETE FROM {s}.members"):
        with pytest.raises(Exception, match="permission denied"):
            await transport._database.fetch(forbidden)


async def test_without_tables_a_start_that_only_verifies_says_what_to_do(place: TestSchema) -> None:
    with pytest.raises(ConnectionFailedError, match="run `protoflow topology apply`"):
        await place.open(settings=VERIFY)
    assert not await place.run("SELECT 1 FROM pg_namespace WHERE nspname = '{s}'")


async def test_tables_of_another_version_stop_the_start(
    place: TestSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await place.open()).close()
    now = schema.VERSION
    await place.run(f"UPDATE {{s}}.meta SET version = {now + 1}")
    with pytest.raises(ConnectionFailedError, match=f"{now + 1}, and this Protoflow needs {now}; "):
        await place.open()
    with pytest.raises(TopologyError, match="update Protoflow"):
        await place.transport().apply_tables()
    await place.run(f"UPDATE {{s}}.meta SET version = {now}")
    monkeypatch.setattr(schema, "VERSION", now + 1)
    monkeypatch.setattr(schema, "MIGRATIONS", {now: "ALTER TABLE {s}.topics ADD note text"})
    with pytest.raises(ConnectionFailedError, match=f"{now + 1}; run `protoflow topology apply`"):
        await place.open()
    await place.transport().apply_tables()
    await publish(await place.open(), 1)
    assert await place.run("SELECT note FROM {s}.topics")


async def test_tables_of_the_first_version_are_brought_to_this_one(place: TestSchema) -> None:
    await (await place.open()).close()
    await place.run("ALTER TABLE {s}.meta DROP shift, DROP system, DROP started")
    await place.run("CREATE FUNCTION {s}.adopt() RETURNS void LANGUAGE sql AS ''")
    await place.run("DROP FUNCTION {s}.check_server")
    await place.run("UPDATE {s}.meta SET version = 1")
    await place.transport().apply_tables()
    transport = await place.open()
    await publish(transport, 1)
    assert numbers(await take(await join(transport, settings_of()), 1)) == [1]


async def test_two_services_on_two_schemas_do_not_meet(place: TestSchema) -> None:
    first = await place.open()
    other = TestSchema(place.url, f"{place.schema}x", place.admin)
    try:
        second = await other.open()
        mine, theirs = await join(first, settings_of()), await join(second, settings_of())
        await publish(first, 1)
        await publish(second, 2)
        assert numbers(await take(mine, 1)) == [1]
        assert numbers(await take(theirs, 1)) == [2]
    finally:
        await other.close()
