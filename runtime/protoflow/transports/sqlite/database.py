"""The open file, as the subscriptions and transactions of a transport use it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import weakref
from collections.abc import Callable, Collection
from typing import Any

from protoflow.transport.kit.subscription import QueueSubscription
from protoflow.transport.settings import TransportSettings
from protoflow.transports.sqlite import location, sessions
from protoflow.transports.sqlite.options import SqliteOptions
from protoflow.transports.sqlite.publishing import Limits
from protoflow.transports.sqlite.recent import Recent
from protoflow.transports.sqlite.schema import connect, prepare
from protoflow.transports.sqlite.sessions import Moment
from protoflow.transports.sqlite.watcher import Watcher
from protoflow.transports.sqlite.worker import Worker

#: The open databases of this process by file: they wake each other's subscriptions.
_open: dict[str, weakref.WeakSet[Database]] = {}


class Database:
    """One file in one process: its connection, its settings and its subscriptions.

    Attributes:
        path: the absolute path of the file.
        recent: the last messages that this process published.
        limits: the limits of message sizes.
        worker: the thread with the connection; `connect_file` creates it.
        members: the subscriptions of this transport.
    """

    worker: Worker

    def __init__(self, settings: TransportSettings, path: str, options: SqliteOptions) -> None:
        self.path = path
        self.options = options
        self.clock = settings.clock
        self.client_name = settings.client_name
        self.require_subscriber = settings.require_subscriber
        self.recent = Recent()
        self.limits = Limits(options.max_message_bytes)
        self.members: list[QueueSubscription] = []
        self._location: location.Location | None = None
        self._loop: asyncio.AbstractEventLoop
        self._watcher: Watcher

    async def connect_file(self) -> None:
        """Opens the file; creates or migrates its tables. Raises ConnectionFailedError."""
        self._loop = asyncio.get_running_loop()
        self.worker = Worker(
            self._connect,
            self.check_location,
            max(0.001, self.options.busy_timeout),
            self.recent.clear,
        )
        await self.worker.start()
        self._watcher = Watcher(self.worker, self.options.poll_interval, self.wake_all)
        _open.setdefault(self.path, weakref.WeakSet()).add(self)

    def leave(self) -> None:
        """Stops waking others, and stops waiting for a file that cannot be written."""
        _open[self.path].discard(self)
        if not _open[self.path]:
            del _open[self.path]
        self._watcher.stop()
        self.worker.hurry()

    def published(self, names: Collection[str]) -> None:
        """Wakes the subscriptions of topics, in every transport of this process."""
        self._everywhere(Database._wake_topics, names)

    def settled(self, topic: str, group: str) -> None:
        """Wakes the subscriptions of a group, in every transport of this process."""
        self._everywhere(Database._wake_group, topic, group)

    def watch(self) -> None:
        """Watches for messages of other processes, until some are found."""
        self._watcher.start()

    def wake_all(self) -> None:
        """Wakes every subscription."""
        for member in self.members:
            member.wake()

    async def end_expired(self) -> None:
        """Ends the sessions of processes that died."""
        now = Moment.now(self.clock)
        if await self.worker.call(lambda connection: sessions.end_expired(connection, now)):
            self.wake_all()

    def check_location(self) -> None:
        """Raises TransportError if the file is no longer the one that was opened."""
        if self._location is not None:
            self._location.check()

    def _everywhere(self, wake: Callable[..., object], *arguments: Any) -> None:
        for database in tuple(_open.get(self.path, ())):
            if database is self:
                wake(self, *arguments)
            else:
                with contextlib.suppress(RuntimeError):  # its event loop is closed
                    database._loop.call_soon_threadsafe(wake, database, *arguments)

    def _wake_topics(self, names: Collection[str]) -> None:
        for member in self.members:
            if member.settings.topic in names:
                member.wake()

    def _wake_group(self, topic: str, group: str) -> None:
        for member in self.members:
            if (member.settings.topic, member.settings.group) == (topic, group):
                member.wake()

    def _connect(self) -> sqlite3.Connection:
        if self._location is None:
            location.make(self.path)
        else:
            self._location.check_file()
        connection = connect(self.path, self.options)
        try:
            prepare(connection)
            if self._location is None:
                self._location = location.Location(self.path)
            else:
                self._location.connected_again()
        except BaseException:
            connection.close()
            raise
        return connection
