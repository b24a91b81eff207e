"""Connections that end, servers that turn read-only, statements that take too long."""

from __future__ import annotations

import asyncio
import uuid

import pytest
from protoflow.contract.spec import Ordering
from protoflow.errors import PublishError, TransportError
from protoflow.transports.postgresql.subscription import PostgresSubscription

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

_END = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE application_name = $1 AND pid <> pg_backend_pid()
"""


@pytest.mark.parametrize("ordering", [Ordering.NONE, Ordering.PER_KEY])
async def test_connections_that_an_operator_ends_are_made_again(
    place: TestSchema, ordering: Ordering
) -> None:
    name = f"n{uuid.uuid4().hex[:8]}"
    transport = await place.open(settings={"client_name": name})
    member = await join(transport, settings_of(ordering))
    await publish(transport, *range(10))
    held = await take(member, 10)
    assert len(await place.admin.fetch(_END, name)) >= 2
    for _ in range(20):
        try:
            await acknowledge(member, held)
            break
        except Exception:
            await asyncio.sleep(0.1)
    for _ in range(20):
        if await transport.submit(messages(10)) == [None]:
            break
        await asyncio.sleep(0.1)
    assert 10 in numbers(await take(member, 1))


async def test_readiness_returns_without_another_publish(
    place: TestSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application that gets no requests while it is not ready publishes nothing."""
    monkeypatch.setattr("protoflow.transports.postgresql.transport._CHECK", 0.05)
    transport = await place.open()
    with pytest.raises(TransportError):
        await transport._database.fetch("SELECT 1 / 0")
    assert transport.health() is not None
    async with asyncio.timeout(5):
        while transport.health() is not None:
            await asyncio.sleep(0.01)


async def test_a_server_that_turns_read_only_refuses_until_it_is_a_primary_again(
    place: TestSchema,
) -> None:
    name = f"r{uuid.uuid4().hex[:8]}"
    await (await place.open()).close()
    await place.admin.execute(f"CREATE ROLE {name} LOGIN SUPERUSER")
    try:
        url = place.url.replace("postgres@", f"{name}@")
        transport = await place.open(url)
        await publish(transport, 0)
        await place.admin.execute(f"ALTER ROLE {name} SET default_transaction_read_only = on")
        await transport._database._pool.expire_connections()
        (error,) = await transport.submit(messages(1))
        assert isinstance(error, PublishError)
        assert "read-only" in str(error)
        await place.admin.execute(f"ALTER ROLE {name} RESET default_transaction_read_only")
        await publish(transport, 1)
        await transport.close()
    finally:
        await place.admin.execute(f"DROP ROLE {name}")


async def test_a_statement_that_takes_too_long_is_an_error_and_no_end(place: TestSchema) -> None:
    transport = await place.open(command_timeout=3.0)
    await publish(transport, 0)
    async with place.admin.transaction():
        await place.admin.execute(f"LOCK TABLE {place.schema}.log IN ACCESS EXCLUSIVE MODE")
        (error,) = await transport.submit(messages(1))
    assert isinstance(error, PublishError)
    await publish(transport, 1)
    member = await join(transport, settings_of())
    assert {0, 1} <= set(numbers(await take(member, 2)))


async def test_the_server_ends_what_a_process_that_is_gone_has_locked(place: TestSchema) -> None:
    """A claim locks the position of the whole group."""
    transport = await place.open(command_timeout=1.0)
    member = await join(transport, settings_of())
    assert isinstance(member, PostgresSubscription)
    transaction = member.membership.claiming()
    connection, _ = await transaction.__aenter__()
    setting = "SELECT current_setting('idle_in_transaction_session_timeout')"
    assert await connection.fetchval(setting) == "1s"
    await transaction.__aexit__(None, None, None)
    async with transport._database.transaction(relaxed=True) as connection:
        assert await connection.fetchval(setting) == "1s"
    async with transport._database.transaction() as connection:
        assert await connection.fetchval(setting) != "1s"
