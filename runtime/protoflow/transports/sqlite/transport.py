"""The SQLite transport."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import weakref
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from protoflow.errors import ConnectionFailedError, ProtoflowError, PublishError, TopologyError
from protoflow.message import Delivery, Message
from protoflow.transport.interface import (
    Capabilities,
    SubscriptionListener,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    TransportSettings,
)
from protoflow.transport.lag import Lag
from protoflow.transports.sqlite import place, sessions, topics
from protoflow.transports.sqlite.acknowledging import Settlements
from protoflow.transports.sqlite.dead_letters import SqliteDeadLetterStore
from protoflow.transports.sqlite.keeper import Keeper
from protoflow.transports.sqlite.options import SqliteOptions
from protoflow.transports.sqlite.publishing import Limits, Publication
from protoflow.transports.sqlite.recent import Recent
from protoflow.transports.sqlite.schema import connect, prepare
from protoflow.transports.sqlite.sessions import Moment
from protoflow.transports.sqlite.subscription import SqliteSubscription
from protoflow.transports.sqlite.transaction import SqliteTransaction, transaction
from protoflow.transports.sqlite.watcher import Watcher
from protoflow.transports.sqlite.worker import Worker

_OLDEST_SQLITE: Final = (3, 35, 0)
_MAINTENANCE: Final = 30.0

#: The open transports of this process by file: they tell each other what was published.
_open: dict[str, weakref.WeakSet[SqliteTransport]] = {}


class SqliteTransport:
    """Topics and groups in a file that several processes may share."""

    def __init__(self, settings: TransportSettings, path: str, options: SqliteOptions) -> None:
        self.path = path
        self.options = options
        self.clock = settings.clock
        self.client_name = settings.client_name
        self.require_subscriber = settings.require_subscriber
        self.worker: Worker
        self.dead_letters = SqliteDeadLetterStore(self)
        self.recent = Recent()
        self.limits = Limits(options.max_message_bytes)
        self._place: place.Place | None = None
        self._subscriptions: list[SqliteSubscription] = []
        self._loop: asyncio.AbstractEventLoop
        self._watcher: Watcher
        self._maintenance: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._opened = False
        self.capabilities = Capabilities(
            durable=True,
            processes=True,
            per_key=True,
            per_partition=True,
            retains=True,
            delayed_publish=True,
            broker_retry=True,
            retry_lateness=1.0,
            remembers_failures=True,
            counts_deliveries=True,
            atomic=True,
            dead_letters=True,
            leases=True,
            lag=True,
            broadcast=True,
            max_message_bytes=options.max_message_bytes,
            proves_killers=True,
        )

    async def open(self) -> None:
        """Opens the file, making or migrating its tables."""
        if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
            raise ConnectionFailedError(
                f"SQLite {sqlite3.sqlite_version} is too old, 3.35 or newer is needed"
            )
        self._loop = asyncio.get_running_loop()
        self.worker = Worker(
            self._connect,
            self.check_place,
            max(0.001, self.options.busy_timeout),
            self.recent.clear,
        )
        await self.worker.start()
        self._opened = True
        self._watcher = Watcher(self.worker, self.options.poll_interval, self._wake_waiting)
        _open.setdefault(self.path, weakref.WeakSet()).add(self)
        self._maintain()

    async def close(self) -> None:
        """Gives back what was not settled, writes what was submitted, and disconnects."""
        if not self._opened:
            return
        self._opened = False
        _open[self.path].discard(self)
        if not _open[self.path]:
            del _open[self.path]
        if self._maintenance is not None:
            self._maintenance.cancel()
        self._watcher.stop()
        self.worker.hurry()
        subscriptions, self._subscriptions = self._subscriptions, []
        try:
            await asyncio.gather(*(each.abandon() for each in subscriptions))
            if self._tasks:
                await asyncio.wait(self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
            await self.worker.stop()

    async def ensure(self, topology: Topology, mode: TopologyMode) -> None:
        """Makes topics and groups, or tells which are missing."""
        self.dead_letters.sources.add(topology.subscriptions)
        if mode is TopologyMode.CREATE:
            await self.worker.call(lambda connection: topics.make(connection, topology))
        elif mode is TopologyMode.VERIFY:
            lacking = await self.worker.call(
                lambda connection: topics.missing(connection, topology), writes=False
            )
            if lacking:
                raise TopologyError(
                    f"missing in {os.path.basename(self.path)}: {', '.join(lacking)}"
                )

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """Publishes with what else is being written."""
        job = self.worker.pending(Publication)
        if not isinstance(job, Publication) or job.full:
            job = Publication(self.recent, self.published, self.require_subscriber)
            self.worker.add(job, Publication)
        return job.submit(messages, self.clock.now(), self.limits)

    async def subscribe(
        self, settings: SubscriptionSettings, listener: SubscriptionListener
    ) -> SqliteSubscription:
        """Joins the group, which is made if need be."""
        keeper = Keeper(self, settings)
        await keeper.begin()
        subscription = SqliteSubscription(self, settings, listener, keeper)
        self._subscriptions.append(subscription)
        self.recent.topics |= {settings.topic}
        self.limits.dead_letter_topics |= {*settings.dead_letter_topics}
        return subscription

    def health(self) -> str | None:
        """Why the file cannot be written or read; None again when something was written."""
        return self.worker.problem if self._opened else "the transport is not open"

    async def lag(self, topic: str, group: str) -> Lag:
        """What the group has not finished."""
        messages, oldest = await self.worker.call(
            lambda connection: topics.lag(connection, topic, group), writes=False
        )
        age = None if oldest is None else max(0.0, self.clock.now() - oldest)
        return Lag(messages=messages, seconds=age)

    def transaction(self) -> AbstractAsyncContextManager[SqliteTransaction]:
        """Commits on leaving, rolls back on an exception."""
        return transaction(self)

    def settlements_for(self, delivery: Delivery) -> Settlements | None:
        """A job for settling a delivery in a transaction of the application, if a
        subscription here holds it."""
        for subscription in self._subscriptions:
            if subscription.held.get(delivery.receipt) is delivery:
                return subscription.new_settlements(None)
        return None

    def published(self, names: Collection[str]) -> None:
        """Wakes the subscriptions of topics, in every transport of this process."""
        for transport in tuple(_open.get(self.path, ())):
            if transport is self:
                self._wake_topics(names)
            else:
                transport.call_soon(transport._wake_topics, names)

    def settled(self, topic: str, group: str) -> None:
        """Wakes the subscriptions of a group, in every transport of this process."""
        for transport in tuple(_open.get(self.path, ())):
            if transport is self:
                self._wake_group(topic, group)
            else:
                transport.call_soon(transport._wake_group, topic, group)

    def watch(self) -> None:
        """A subscription waits: what other processes publish is looked for."""
        self._watcher.start()

    async def end_expired(self) -> None:
        """Ends the sessions of processes that died."""
        now = Moment.now(self.clock)
        if await self.worker.call(lambda connection: sessions.end_expired(connection, now)):
            self._wake_waiting()

    def call_soon(self, callback: Callable[..., object], *arguments: object) -> None:
        """Calls on the loop of this transport, from any thread."""
        with contextlib.suppress(RuntimeError):  # that loop is closed
            self._loop.call_soon_threadsafe(callback, *arguments)

    def check_place(self) -> None:
        """Raises TransportError if the file is no longer the one that was opened."""
        if self._place is not None:
            self._place.check()

    def _connect(self) -> sqlite3.Connection:
        if self._place is None:
            place.make(self.path)
        else:
            self._place.check_file()
        connection = connect(self.path, self.options)
        try:
            prepare(connection)
            if self._place is None:
                self._place = place.Place(self.path)
            else:
                self._place.connected_again()
        except BaseException:
            connection.close()
            raise
        return connection

    def _wake_topics(self, names: Collection[str]) -> None:
        for subscription in self._subscriptions:
            if subscription.topic in names:
                subscription.wake()

    def _wake_group(self, topic: str, group: str) -> None:
        for subscription in self._subscriptions:
            if subscription.topic == topic and subscription.group_name == group:
                subscription.wake()

    def _wake_waiting(self) -> bool:
        """Whether anybody waits."""
        waiting = [each for each in self._subscriptions if each.waiting]
        for subscription in waiting:
            subscription.wake()
        return bool(waiting)

    def _maintain(self) -> None:
        task = self._loop.create_task(self._clean())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._maintenance = self._loop.call_later(_MAINTENANCE, self._maintain)

    async def _clean(self) -> None:
        before, most = self.clock.now() - self.options.retention, self.options.retained_messages
        with contextlib.suppress(ProtoflowError):  # `health` tells; tried again in a while
            await self.worker.call(
                lambda connection: topics.drop_retained(connection, before, most)
            )
