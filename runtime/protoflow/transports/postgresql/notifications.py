"""Waking subscriptions: notifications of publishers, and polling beneath.

A NOTIFY inside the transaction of a publisher would make all commits wait for each other. So a
publisher notifies after its commit, at most every `notify_interval`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from typing import Any

import asyncpg

from protoflow.errors import ProtoflowError
from protoflow.transport.kit.backoff import Backoff
from protoflow.transport.kit.supervisor import Supervisor
from protoflow.transports.postgresql import members, positions, retention
from protoflow.transports.postgresql.database import Database

_log = logging.getLogger("protoflow.transports.postgresql")
_FIRST_RETRY, _LAST_RETRY = 0.1, 5.0
_CHECK_ALIVE = 10.0


class Notifications:
    """Notifies other processes, and gets their notifications.

    Args:
        wake: wakes the subscriptions of topics; None: all of them.
    """

    def __init__(self, database: Database, wake: Callable[[Collection[str] | None], None]) -> None:
        self._database = database
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._retention = retention.Retention(database)
        self._pending: set[str] = set()
        self._notifying: asyncio.Task[None] | None = None
        self._polling: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None]
        self._listening = Supervisor[Any](
            self._listen,
            self._watch,
            up=lambda _: self._wake(None),
            down=lambda reason: _log.info(
                "the connection for notifications was lost", extra={"reason": reason}
            ),
            clock=database.clock,
            backoff=Backoff(_FIRST_RETRY, _LAST_RETRY, database.clock.random),
        )
        self._connection: Any = None  # Any: asyncpg has no types

    async def start(self) -> None:
        """Listens and polls from now on. Idempotent."""
        if self._polling is not None:
            return
        self._polling = self._loop.create_task(self._poll())
        try:
            connection = await self._listen()
        except Exception as error:  # polling replaces it
            _log.warning("notifications are not received: %s", error)
        else:
            self._listening.start(connection)

    async def stop(self) -> None:
        """Ends both."""
        tasks = [task for task in (self._polling, self._notifying) if task is not None]
        self.abort()
        # A gather would wait for what it cancels: a server that is frozen answers to nothing.
        await asyncio.wait([*tasks, self._ending])
        if self._connection is not None:
            self._connection.terminate()  # one that was made meanwhile

    def abort(self) -> None:
        """Ends both, and waits for nothing."""
        self._ending = self._loop.create_task(self._listening.stop())
        for task in (self._polling, self._notifying):
            if task is not None:
                task.cancel()
        if self._connection is not None:
            self._connection.terminate()

    def published(self, topics: Collection[str]) -> None:
        """Something was published to topics."""
        self._wake(topics)
        self._pending.update(topics)
        if self._notifying is None:
            self._notifying = self._loop.create_task(self._notify())

    async def _notify(self) -> None:
        try:
            while self._pending:
                topics, self._pending = self._pending, set()
                names = ",".join(sorted(topics))
                with contextlib.suppress(ProtoflowError, OSError):  # others poll
                    await self._database.fetch(
                        "SELECT pg_notify($1, $2)", self._database.schema, names[:7000]
                    )
                await asyncio.sleep(self._database.options.notify_interval)
        finally:
            self._notifying = None

    async def _listen(self) -> Any:  # Any: asyncpg has no types
        arguments: dict[str, Any] = self._database.arguments()
        if self._database.options.listen_url:
            arguments = {"dsn": self._database.options.listen_url}
        if self._connection is not None:
            self._connection.terminate()
        self._connection = connection = await asyncpg.connect(**arguments)
        await connection.add_listener(self._database.schema, self._notified)
        return connection

    async def _watch(self, connection: Any) -> str:
        ended = self._loop.create_future()
        connection.add_termination_listener(
            lambda _: ended.done() or self._loop.call_soon_threadsafe(ended.set_result, None)
        )
        while not connection.is_closed() and not ended.done():
            await asyncio.wait([ended], timeout=_CHECK_ALIVE)
            if not ended.done():
                # Not `wait_for`: it forgets a cancellation if the statement fails with it.
                async with asyncio.timeout(_CHECK_ALIVE):
                    await connection.execute("SELECT 1")
        return "the server closed it"

    def _notified(self, _connection: object, _pid: int, _channel: str, names: str) -> None:
        self._wake(names.split(",") if names else None)

    async def _poll(self) -> None:
        """Looks whether anything was committed, and ends the memberships of dead processes."""
        seen: object = None
        expire_at = 0.0
        rotate_at = self._loop.time() + self._database.clock.random() * retention.INTERVAL
        while True:
            with contextlib.suppress(ProtoflowError):  # `Database.problem` keeps it
                if (state := await positions.look(self._database)) != seen:
                    seen = state
                    self._wake(None)
                if self._loop.time() >= expire_at:
                    expire_at = self._loop.time() + 1.0
                    if await members.end_expired(self._database):
                        self._wake(None)
                if self._loop.time() >= rotate_at:
                    rotate_at = self._loop.time() + retention.INTERVAL
                    await self._retention.apply()
            await asyncio.sleep(self._database.options.poll_interval)
