"""Publishing from code without an event loop: `connect_sync`."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack

from protoflow.clock import Clock
from protoflow.config.settings import Config
from protoflow.connection.connection import Connection, configured, transport_for
from protoflow.connection.loop_thread import LoopThread, closed
from protoflow.database import adapt_sync
from protoflow.publishing.publisher import MessagePublisher

if TYPE_CHECKING:
    from google.protobuf.message import Message as ProtoMessage

    from protoflow.contract.spec import PublicationSpec
    from protoflow.events import CloudEvent
    from protoflow.message import Message
    from protoflow.outbox.binding import SyncBoundPublisher
    from protoflow.output import AnyOutput
    from protoflow.publishing.event_publisher import PublishOptions

T = TypeVar("T")


def connect_sync(url: str | None = None, **settings: Any) -> SyncConnection:
    """A connection for producers in code without an event loop; see `connect` for the arguments.

    All threads may share it. It connects at its first use in each process, so it may be a global
    variable of a program that forks. It is closed by `close`, by the end of `with`, or when the
    process ends."""
    return SyncConnection(configured(url, settings))


class SyncConnection:
    """A connection whose event loop runs in a thread of its own."""

    def __init__(self, config: Config) -> None:
        # made so that mistakes are reported here, not at the first use
        clock = Clock()
        MessagePublisher(config, transport_for(config, clock), clock)
        self._config = config
        self._lock = threading.Lock()
        self._session: _Session | None = None
        self._closed = False
        self._entered = 0
        _connections.add(self)

    def publish_outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        """Publishes outputs and returns their ids. See `SyncPublisher`."""
        return self._run(lambda opened: opened.publish_outputs(publication, outputs))

    def publish(self, *messages: Message) -> None:
        """Publishes raw messages. Raises PublishError."""
        self._run(lambda opened: opened.publish(*messages))

    def publish_proto(
        self, topic: str, message: ProtoMessage, metadata: Mapping[str, str] | None = None
    ) -> str:
        """Publishes a protobuf message to a topic; returns its id. Raises PublishError."""
        return self._run(lambda opened: opened.publish_proto(topic, message, metadata))

    def publish_event(self, event: CloudEvent, *, topic: str | None = None) -> str:
        """Publishes a CloudEvent to `topic`, by default its type; returns its id."""
        return self._run(lambda opened: opened.publish_event(event, topic=topic))

    def publish_data(
        self, type: str, source: str, data: Any, **options: Unpack[PublishOptions]
    ) -> str:
        """Publishes data as a CloudEvent to the topic with the name of its type; returns its id."""
        return self._run(lambda opened: opened.publish_data(type, source, data, **options))

    def bind(self, connection: object) -> SyncBoundPublisher:
        """Returns a publisher for the transaction that is open on a database connection: of
        psycopg, sqlite3, or Django or SQLAlchemy with these drivers. If the messages go to the
        outbox, the broker need not be there."""
        from protoflow.outbox.binding import SyncBoundPublisher

        adapted = adapt_sync(connection)
        session = self._begun()
        destination = session.connection.destination
        if destination.log_of(adapted.dialect) is not None:
            session = self._opened()
        return SyncBoundPublisher(
            session.connection.message_publisher, destination, adapted,
            session.thread.run, session.thread.call,
        )  # fmt: skip

    def open(self) -> None:
        """Connects now instead of at the first use. Raises ConnectionFailedError,
        AuthenticationError."""
        with self._lock:
            self._closed = False
        self._opened()

    def close(self) -> None:
        """Flushes and disconnects within `shutdown_timeout`. It is idempotent; `open` and `with`
        connect again."""
        with self._lock:
            session, self._session, self._closed = self._session, None, True
        if session is not None:
            session.close(self._config.shutdown_timeout)

    def __enter__(self) -> SyncConnection:
        self.open()
        with self._lock:
            self._entered += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._entered -= 1
            left = self._entered  # other threads may be within `with`
        if not left:
            self.close()

    def _run(self, call: Callable[[Connection], Awaitable[T]]) -> T:
        session = self._opened()

        async def called() -> T:
            return await call(session.connection)

        return session.thread.run(called())

    def _opened(self) -> _Session:
        """Returns the open session of this process; threads that come meanwhile wait for it."""
        session = self._session
        if session is not None and session.open:
            return session
        session = self._begun()
        try:
            session.wait()
        except BaseException:
            if session.failed:  # not only this caller was interrupted
                self._forget(session)
            raise
        return session

    def _begun(self) -> _Session:
        """Returns the session of this process, open or not."""
        with self._lock:
            if self._closed:
                raise closed()
            if self._session is None:
                self._session = _Session(self._config)
            return self._session

    def _forget(self, session: _Session) -> None:
        """Lets the next call connect anew."""
        with self._lock:
            if self._session is session:
                self._session = None
        session.thread.end()

    def _forked(self) -> None:
        """Forgets in a child process what belongs to its parent."""
        self._lock = threading.Lock()  # a thread that the child does not have may hold it
        if self._session is not None:
            _inherited.append(self._session)
            self._session = None


class _Session:
    """A connection and its event loop, in one process."""

    def __init__(self, config: Config) -> None:
        self.connection = Connection(config)
        self.thread = LoopThread("protoflow-connection")
        self.open = False
        self._lock = threading.Lock()
        self._opening: Future[None] | None = None

    @property
    def failed(self) -> bool:
        """Whether it could not connect."""
        opening = self._opening
        if opening is None or not opening.done():
            return False
        return opening.cancelled() or opening.exception() is not None

    def wait(self) -> None:
        """Opens the connection, or waits for the thread that does. Raises its error."""
        with self._lock:
            opening = self._opening
            if opening is None:
                opening = self._opening = self.thread.submit(self.connection.open())
        try:
            opening.result()
        except CancelledError:
            raise closed() from None
        self.open = True

    def close(self, seconds: float) -> None:
        """Closes the connection if it was opened, and ends the thread."""
        opening = self._opening
        try:
            if opening is not None and not opening.cancel() and not self.failed:
                with contextlib.suppress(TimeoutError):
                    self.thread.run(self.connection.close(), seconds)
        finally:
            self.thread.end()


_connections: Final[weakref.WeakSet[SyncConnection]] = weakref.WeakSet()
#: Sessions of the parent: a child that collected them would end what the parent still uses.
_inherited: Final[list[_Session]] = []


def _close_all() -> None:
    for connection in tuple(_connections):
        connection.close()


def _forget_all() -> None:
    for connection in tuple(_connections):
        connection._forked()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
