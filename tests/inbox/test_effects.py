"""Effects on every kind of database, with messages from memory."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from google.protobuf.wrappers_pb2 import Int64Value
from protoflow import BatchFailed, DeadLetter, Inbox, Skip
from protoflow.contract.spec import BatchPolicy, DeliveryPolicy, RetryPolicy
from protoflow.database.postgresql import AsyncpgConnection
from protoflow.errors import ConfigError, ProtoflowError
from protoflow.inbox.entries import Entry
from protoflow.inbox.table import Table
from protoflow.inbox.transaction import QuickOpener
from protoflow.outcomes import Postpone
from sqlalchemy.ext.asyncio import create_async_engine

from tests.inbox.databases import Database, until
from tests.inbox.harness import NAME, TO_DONE, Writer, handler, put, put_again, running


async def test_a_copy_has_no_effect(database: Database) -> None:
    writer = Writer(database)
    async with running(writer.handler(), inbox=writer.inbox) as service:
        await put(service, "a", "b")
        await put_again(service)
        stats = service.service.stats()[NAME]
    assert await database.effects() == ["a", "b"]
    assert await database.noted() == 2
    assert sorted(writer.runs) == ["a", "b"]
    assert (stats.handled, stats.skipped) == (2, 1)


async def test_a_failed_run_leaves_nothing(database: Database) -> None:
    def fail(text: str, _context: Any) -> None:
        if writer.runs.count(text) < 3:
            raise OSError("not yet")

    writer = Writer(database, fail)
    async with running(writer.handler(), inbox=writer.inbox) as service:
        await put(service, "a")
        stats = service.service.stats()[NAME]
    assert await database.effects() == ["a"]
    assert (stats.handled, stats.failed_runs) == (1, 2)


@pytest.mark.parametrize("ends", [DeadLetter("bad"), Skip("not mine")])
async def test_an_outcome_rolls_back(database: Database, ends: Exception) -> None:
    def end(_text: str, _context: Any) -> None:
        raise ends

    writer = Writer(database, end)
    async with running(writer.handler(), inbox=writer.inbox) as service:
        await put(service, "a")
        assert len(service.dead_letters) == isinstance(ends, DeadLetter)
        writer.after = None
        await service.replay_dead_letters()
        await service.settled()
    # A dead letter is not noted, so its replay runs.
    assert await database.effects() == (["a"] if isinstance(ends, DeadLetter) else [])


async def test_a_handler_must_not_commit(database: Database) -> None:
    def commit(_text: str, context: Any) -> Any:
        return database.execute(writer.inbox.of(context), "COMMIT")

    writer = Writer(database, commit)
    async with running(writer.handler(), inbox=writer.inbox) as service:
        await put(service, "a")
        (record,) = service.dead_letters
    assert record.message.metadata["pf_error_type"] in (
        "TransactionEnded", "PendingRollbackError", "InvalidRequestError",
    )  # fmt: skip


async def test_a_statement_that_failed_is_not_taken_for_a_commit(database: Database) -> None:
    """PostgreSQL answers COMMIT with ROLLBACK then, and drivers say nothing."""

    def swallow(text: str, context: Any) -> Any:
        if writer.runs.count(text) > 1:
            return None
        connection = writer.inbox.of(context)
        if not database.sync:
            return _swallowed(connection)
        with contextlib.suppress(Exception):
            database.execute(connection, "SELECT * FROM nowhere")
        return None

    async def _swallowed(connection: Any) -> None:
        with contextlib.suppress(Exception):
            await database.execute(connection, "SELECT * FROM nowhere")

    writer = Writer(database, swallow)
    async with running(writer.handler(), inbox=writer.inbox) as service:
        await put(service, "a")
        assert not service.dead_letters
    assert await database.effects() == ["a"]
    assert await database.noted() == 1


async def test_a_connection_that_is_lost_while_a_handler_runs_is_a_failure(
    database: Database,
) -> None:
    """It is no transaction that the handler ended, which would be dead-lettered."""
    if Inbox(database.resource).dialect == "sqlite":
        return
    ended = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'idle in transaction'"""

    async def lose(text: str) -> None:
        if writer.runs.count(text) == 1:
            await database.read(ended)
            await asyncio.sleep(0.1)

    def after(text: str, _context: Any) -> Any:
        return asyncio.run(lose(text)) if database.sync else lose(text)

    writer = Writer(database, after)
    async with running(writer.handler(), inbox=writer.inbox) as service:
        await put(service, "a")
        assert not service.dead_letters
    assert await database.effects() == ["a"]


async def test_outputs_are_committed_with_the_effects(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(text: str, _context: Any) -> Any:
        if writer.runs.count(text) == 1:
            raise OSError("not yet")
        return _answered() if not database.sync else Int64Value(value=7)

    async def _answered() -> Int64Value:
        return Int64Value(value=7)

    writer = Writer(database, answer)
    async with running(writer.handler(publication=TO_DONE), inbox=writer.inbox) as service:
        await put(service, "a")
    rows = await database.read("SELECT topic, id FROM protoflow_outbox")
    assert [row[0] for row in rows] == ["done"]
    assert await database.effects() == ["a"]
    assert "this service does not relay" in caplog.text


async def test_outputs_without_a_table_stop_the_start(sqlite_database: Database) -> None:
    inbox: Inbox[Any] = Inbox(sqlite_database.resource)
    await inbox.open(create=True)
    with pytest.raises(ConfigError, match="the table protoflow_outbox does not exist"):
        await inbox.open(create=False, outbox=True)
    await inbox.close()


async def test_a_timeout_rolls_back(database: Database) -> None:
    def wait(text: str, context: Any) -> Any:
        if writer.runs.count(text) > 1:
            return None
        if database.sync:
            context.cancelled.wait(5)
            return None
        return asyncio.sleep(5)

    writer = Writer(database, wait)
    policy = DeliveryPolicy(timeout=0.1, retry=RetryPolicy(initial_backoff=0.01))
    async with running(writer.handler(delivery=policy), inbox=writer.inbox) as service:
        await put(service, "a")
        stats = service.service.stats()[NAME]
    assert await database.effects() == ["a"]
    assert stats.handled == 1
    assert stats.failed_runs >= 1


class Conflict(Exception):
    sqlstate = "40001"


async def test_a_conflict_is_repeated_at_once_and_not_counted(database: Database) -> None:
    def conflict(text: str, _context: Any) -> None:
        if writer.runs.count(text) < 4:
            raise Conflict

    writer = Writer(database, conflict)
    async with running(writer.handler(), inbox=writer.inbox) as service:
        await put(service, "a")
        stats = service.service.stats()[NAME]
    assert writer.runs == ["a"] * 4
    assert await database.effects() == ["a"]
    assert (stats.handled, stats.failed_runs) == (1, 0)


async def test_a_batch_is_one_transaction(database: Database) -> None:
    seen: list[list[str]] = []
    inbox: Inbox[Any] = Inbox(database.resource)

    def checked(texts: list[str]) -> None:
        seen.append(texts)
        if len(texts) == 3:
            raise BatchFailed({1: ValueError("bad")})

    async def asynchronous(messages: Any, context: Any) -> None:
        for each in messages:
            await database.write(inbox.of(context), each.value)
        checked([each.value for each in messages])

    def synchronous(messages: Any, context: Any) -> None:
        for each in messages:
            database.write(inbox.of(context), each.value)
        checked([each.value for each in messages])

    call = synchronous if database.sync else asynchronous
    batch = BatchPolicy(max_messages=3, max_wait=0.2)
    async with running(handler(call, sync=database.sync, batch=batch), inbox=inbox) as service:
        await put(service, "a", "b", "c")
        assert sorted(map(len, seen)) == [1, 1, 1, 3]  # one by one after the failure
        del seen[:]
        transport = service.service._components.transport
        await transport.submit([service.messages[0]])
        await put(service, "d", "e")
    assert await database.effects() == ["a", "b", "c", "d", "e"]
    assert sorted(text for texts in seen for text in texts) == ["d", "e"]


async def test_two_sources_may_number_alike(sqlite_database: Database) -> None:
    writer = Writer(sqlite_database)
    async with running(writer.handler(), inbox=writer.inbox) as service:
        await put(service, "a")
        await put_again(service, source="/other")
    assert await sqlite_database.effects() == ["a", "a"]


async def test_the_same_entry_elsewhere_is_waited_for(
    asyncpg_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox: Inbox[Any] = Inbox(asyncpg_database.resource, lock_timeout=timedelta(seconds=0.1))
    runs: list[str] = []

    async def work(message: Any, context: Any) -> None:
        runs.append(message.value)
        timeout = await inbox.of(context).fetchval("SHOW lock_timeout")
        await asyncpg_database.write(inbox.of(context), timeout)

    refused: list[Exception] = []
    assert isinstance(inbox.opener, QuickOpener)
    begin_with = inbox.opener.begin_with

    async def beginning(statements: str) -> Any:
        try:
            return await begin_with(statements)
        except asyncpg.LockNotAvailableError as error:
            refused.append(error)
            raise

    async def waited_for() -> bool:
        return len(refused) >= 2

    monkeypatch.setattr(inbox.opener, "begin_with", beginning)
    async with running(handler(work), inbox=inbox) as service:
        await put(service, "before")
        source = service.messages[0].metadata["ce_source"]
        async with asyncpg_database.resource.acquire() as other:
            held = other.transaction()
            await held.start()
            await other.execute(
                "INSERT INTO protoflow_inbox (day, consumer, handler, source, id)"
                " VALUES (0, 'workers', $1, $2, 'x')",
                NAME,
                source,
            )
            putting = asyncio.create_task(put(service, "a", id="x"))
            await until(waited_for)
            assert service.service.health().ready, "a copy runs elsewhere, the database works"
            await held.rollback()
        await putting
        assert service.service.health().ready
        assert service.service.stats()[NAME].failed_runs == 0
    assert runs == ["before", "a"]
    # The bound of the wait does not hold for the handler.
    assert await asyncpg_database.effects() == ["0", "0"]


async def test_a_message_is_recorded_together_with_begin(asyncpg_database: Database) -> None:
    """Whatever its texts hold; the handler's limit is as before."""
    pool = asyncpg_database.resource
    inbox: Inbox[Any] = Inbox(pool)
    await inbox.open(create=True)
    entry = Entry(20_000, "/it's \\', (SELECT 1)); DROP TABLE effects; --", "$1 {id} %s")
    assert isinstance(inbox.opener, QuickOpener)
    for again, inserted in ((False, True), (False, False), (True, True)):
        statements = inbox.table.text("g", "h", entry, again)
        transaction, found = await inbox.opener.begin_with(statements)
        assert found is inserted
        if found:
            assert await transaction.connection.fetchval("SHOW lock_timeout") == "0"
            await transaction.commit()
        await transaction.close()
    rows = await pool.fetch("SELECT day, consumer, handler, source, id, run FROM protoflow_inbox")
    assert [tuple(row) for row in rows] == [(20_000, "g", "h", entry.source, entry.id, 2)]
    await inbox.close()


async def test_a_batch_waits_for_none_of_its_entries_without_bound(
    asyncpg_database: Database,
) -> None:
    pool = asyncpg_database.resource
    inbox: Inbox[Any] = Inbox(pool)
    await inbox.open(create=True)
    table = Table("postgresql", 0.1)
    entries = [Entry(0, "", "1"), Entry(0, "", "2")]
    async with pool.acquire() as one, pool.acquire() as other, asyncio.timeout(10):
        adapted, held = AsyncpgConnection(one), other.transaction()
        await held.start()
        await table.enter(AsyncpgConnection(other), "g", "h", entries[1:], [False])
        with pytest.raises(asyncpg.LockNotAvailableError):
            async with one.transaction():
                await table.enter(adapted, "g", "h", entries, [False, False])
        await held.rollback()
        async with one.transaction():
            found = await table.enter(adapted, "g", "h", entries, [False, False])
            assert found == set(entries)
            assert await one.fetchval("SHOW lock_timeout") == "0"
    await inbox.close()


async def test_one_of_a_batch_that_is_run_again_is_not_forgotten(database: Database) -> None:
    """Beside a copy that is not; and it is remembered for as long as a new one."""
    inbox: Inbox[Any] = Inbox(database.resource)
    entry = Entry(0, "", "1")

    async def entered(again: list[bool]) -> set[Entry]:
        if inbox.opener is None:
            assert inbox.sync_opener is not None
            with contextlib.closing(inbox.sync_opener.begin_sync()) as own:
                found = inbox.table.enter_sync(own.database, "g", "h", [entry] * len(again), again)
                own.commit()
                return found
        transaction = await inbox.opener.begin()
        found = await inbox.table.enter(transaction.database, "g", "h", [entry] * len(again), again)
        await transaction.commit()
        await transaction.close()
        return found

    await inbox.open(create=True)
    times = "SELECT run, handled_at FROM protoflow_inbox"
    assert await entered([False]) == {entry}
    ((_, first),) = await database.read(times)
    await asyncio.sleep(0.05)
    assert await entered([False]) == set()
    assert await entered([True, False]) == {entry}
    ((run, last),) = await database.read(times)
    assert (run, last > first) == (2, True)
    await inbox.close()


async def test_an_engine_that_commits_by_itself_is_refused(tmp_path: Path) -> None:
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{tmp_path / 'app.db'}", isolation_level="AUTOCOMMIT"
    )
    with pytest.raises(ConfigError, match="commits each statement separately"):
        await Inbox(engine).open(create=True)
    await engine.dispose()


async def test_an_inbox_that_cannot_be_used(sqlite_database: Database) -> None:
    writer = Writer(sqlite_database)
    with pytest.raises(ConfigError, match="Do: its effects are exactly once, which needs an inbox"):
        async with running(writer.handler(), inbox=None):
            pass
    short: Inbox[Any] = Inbox(sqlite_database.resource, retention=timedelta(hours=1))
    with pytest.raises(ConfigError, match="the inbox forgets messages after 3600 s"):
        async with running(writer.handler(), inbox=short):
            pass
    with pytest.raises(ConfigError, match="the supported kinds are an asyncpg Pool"):
        Inbox(7)
    with pytest.raises(ConfigError, match="table protoflow_inbox cannot be used"):
        await writer.inbox.open(create=False)


async def test_an_async_pool_for_a_handler_in_threads(asyncpg_database: Database) -> None:
    inbox: Inbox[Any] = Inbox(asyncpg_database.resource)
    with pytest.raises(ConfigError, match="it runs in a thread"):
        async with running(handler(lambda m, c: None, sync=True), inbox=inbox):
            pass


async def test_outside_of_a_run(sqlite_database: Database) -> None:
    contexts: list[Any] = []
    writer = Writer(sqlite_database, lambda _text, context: contexts.append(context))
    async with running(writer.handler(), inbox=writer.inbox) as service:
        await put(service, "a")
    with pytest.raises(ProtoflowError, match="no transaction of an inbox is open"):
        writer.inbox.of(contexts[0])


async def test_old_entries_are_removed(database: Database) -> None:
    from protoflow.inbox.cleanup import Cleanup

    writer = Writer(database)
    async with running(writer.handler(), inbox=writer.inbox) as service:
        await put(service, "a")
    for retention, left in ((60.0, 1), (0.0, 0)):
        inbox: Inbox[Any] = Inbox(database.resource)
        await asyncio.sleep(0.01)
        cleanup = Cleanup(inbox.opener, inbox.sync_opener, inbox.table, retention)
        assert await cleanup.portion() == 1 - left
        assert await database.noted() == left
        await inbox._closes()


async def test_an_unknown_commit_is_decided_by_the_inbox(
    sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from protoflow.inbox.sqlite import SQLiteTransaction

    commit = SQLiteTransaction.commit
    lost: list[int] = []

    async def losing(self: SQLiteTransaction) -> None:
        await commit(self)
        if len(lost) == 0 and len(writer.runs) == 1:
            lost.append(1)
            raise ConnectionResetError("gone")

    monkeypatch.setattr(SQLiteTransaction, "commit", losing)
    writer = Writer(sqlite_database)
    async with running(writer.handler(), inbox=writer.inbox) as service:
        await put(service, "a")
        stats = service.service.stats()[NAME]
        assert not any(isinstance(run.outcome, Postpone) for run in service.runs)
    assert lost
    assert writer.runs == ["a"]
    assert await sqlite_database.effects() == ["a"]
    assert (stats.skipped, stats.failed_runs) == (1, 0)
