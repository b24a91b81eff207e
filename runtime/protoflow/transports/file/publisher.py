"""Publishing: while one lot is written, the next gathers, so one write to the disk serves many."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from protoflow.error_codes import NO_SUBSCRIBER, NOT_OPEN
from protoflow.errors import PublishError, PublishRefusedError, TransportError
from protoflow.message import Message
from protoflow.transport.kit.submission import Submission
from protoflow.transports.file.context import FileContext, all_of
from protoflow.transports.file.disk import check_space
from protoflow.transports.file.log_appender import Appended, LogAppender
from protoflow.transports.file.records import encode
from protoflow.transports.file.topics import Topics

#: The most bytes of one write, unless one message is larger.
_MOST_BYTES: Final = 4 * 1024 * 1024


class _Outgoing(NamedTuple):
    """A message on its way."""

    message: Message
    part: bytes
    submission: Submission
    place: int


class FilePublisher:
    """Publishes in the order of `submit`.

    Args:
        context: the threads, settings and options of the transport.
        topics: the topics.
        published: called on the event loop after messages were written.
    """

    def __init__(
        self, context: FileContext, topics: Topics, published: Callable[[], object]
    ) -> None:
        self._context = context
        self._topics = topics
        self._published = published
        self._queue: list[_Outgoing] = []
        self._writing: asyncio.Task[None] | None = None
        self._appenders: dict[str, LogAppender] = {}
        self._unsynced: set[LogAppender] = set()
        self._problems: dict[str, str] = {}

    @property
    def problem(self) -> str | None:
        """Why a topic cannot be written."""
        return next(iter(self._problems.values()), None)

    def submit(
        self, messages: Sequence[Message], group: str = ""
    ) -> asyncio.Future[Sequence[PublishError | None]]:
        """See `Transport.submit`. If a group is named, no other group gets the messages."""
        submission = Submission(len(messages))
        limit, now = self._context.options.max_message_bytes, self._context.settings.clock.now()
        for index, message in enumerate(messages):
            try:
                # A dead letter is larger than its message.
                part = encode(message, limit * (1 + message.mandatory), now, group)
            except PublishRefusedError as error:
                submission.done(index, error)
                continue
            self._queue.append(_Outgoing(message, part, submission, index))
        if self._queue and self._writing is None:
            self._writing = asyncio.get_running_loop().create_task(self._write_all())
        return submission.future

    async def append(self, topic: str, parts: Sequence[bytes]) -> None:
        """Appends records that are no messages. Raises TransportError."""
        written = await self._context.publish(self._append, topic, parts)
        if written.error is not None:
            raise _as_publish_error(written.error)

    async def apply_retention(self) -> None:
        """Removes old segments of the topics that were written to here. Raises TransportError."""
        drop, topics = self._topics.drop_old_segments, [*self._appenders]
        await all_of([self._context.publish(drop, topic) for topic in topics])

    async def check(self) -> None:
        """Checks topics that could not be written: an idle process publishes nothing more."""
        for topic in [*self._problems]:
            with contextlib.suppress(TransportError):  # the problem stays
                await self._context.publish(self._check, topic)
                self._problems.pop(topic, None)

    async def sync(self) -> None:
        """Writes to the disk what was confirmed before, with `fsync` = `interval`."""
        await self._context.publish(self._sync)

    async def heal(self, topics: Sequence[str]) -> None:
        """Cuts off what killed processes have written in part, and removes old segments."""
        for topic in topics:
            await self._context.publish(self._heal, topic)

    async def close(self) -> None:
        """Writes what was submitted."""
        if (writing := self._writing) is not None:
            await asyncio.wait([writing])
        with contextlib.suppress(TransportError):
            await self._context.publish(self._close)

    async def _write_all(self) -> None:
        queue: list[_Outgoing] = []
        error = PublishError("the transport was closed", code=NOT_OPEN)
        try:
            while self._queue:
                queue, self._queue = self._queue, []
                await self._write(queue)
                self._published()
        except Exception as failure:  # each message gets a result
            error = _as_publish_error(failure)
        finally:
            self._writing = None
            for each in (*queue, *self._queue):
                each.submission.done(each.place, error)
            self._queue = []

    async def _write(self, queue: Sequence[_Outgoing]) -> None:
        by_topic: dict[str, list[_Outgoing]] = defaultdict(list)
        for each in queue:
            by_topic[each.message.topic].append(each)
        for topic, items in by_topic.items():
            for lot in _lots(items):
                written, error = 0, None
                try:
                    written, failed, _ = await self._context.publish(
                        self._append_messages, topic, lot
                    )
                    error = None if failed is None else _as_publish_error(failed)
                except Exception as failure:
                    error = _as_publish_error(failure)
                if isinstance(error, PublishRefusedError | None):
                    self._problems.pop(topic, None)
                else:
                    self._problems[topic] = str(error)
                for index, each in enumerate(lot):
                    each.submission.done(each.place, None if index < written else error)

    # Called in the thread for publishing.

    def _append_messages(self, topic: str, lot: Sequence[_Outgoing]) -> Appended:
        if self._context.settings.require_subscriber and not (
            self._topics.exists(topic) and self._topics.journals(topic)
        ):
            raise PublishRefusedError(
                f"no group consumes {topic}, and require_subscriber is set", code=NO_SUBSCRIBER
            )
        return self._append(topic, [each.part for each in lot])

    def _append(self, topic: str, parts: Sequence[bytes]) -> Appended:
        appender = self._appender(topic)
        try:
            appended = appender.append(parts, self._context.settings.clock.now())
        except FileNotFoundError:  # the topic was deleted; the next time it is made
            self._appenders.pop(topic).close()
            raise
        policy = self._context.options.fsync
        if policy == "always":
            appender.sync()
        elif policy == "interval":
            self._unsynced.add(appender)
        if appended.begun:
            self._drop_old_segments(topic)
        return appended

    def _appender(self, topic: str) -> LogAppender:
        if (known := self._appenders.get(topic)) is None:
            known = self._appenders[topic] = self._topics.appender(topic)
        return known

    def _heal(self, topic: str) -> None:
        self._appender(topic).heal()
        self._drop_old_segments(topic)

    def _check(self, topic: str) -> None:
        if self._topics.exists(topic):
            self._appender(topic).heal()
            check_space(self._topics.folder(topic))
        else:  # the next publish makes it
            check_space(self._context.root)

    def _drop_old_segments(self, topic: str) -> None:
        """Ignores errors, so that the append succeeds; `apply_retention` reports them."""
        with contextlib.suppress(OSError, TransportError):
            self._topics.drop_old_segments(topic)

    def _sync(self) -> None:
        unsynced, self._unsynced = self._unsynced, set()
        failure: OSError | None = None
        for appender in unsynced:
            try:
                appender.sync()
            except OSError as error:
                failure = error
                self._unsynced.add(appender)
        if failure is not None:
            raise failure

    def _close(self) -> None:
        try:
            self._sync()
        finally:
            for appender in self._appenders.values():
                appender.close()


def _lots(items: Sequence[_Outgoing]) -> list[list[_Outgoing]]:
    """Splits messages of one topic by bytes."""
    lots: list[list[_Outgoing]] = [[]]
    size = 0
    for each in items:
        size += len(each.part)
        if size > _MOST_BYTES and lots[-1]:
            lots.append([])
            size = len(each.part)
        lots[-1].append(each)
    return lots


def _as_publish_error(failure: Exception) -> PublishError:
    if isinstance(failure, PublishError):
        return failure
    error = PublishError(f"the messages were not written: {failure}")
    error.__cause__ = failure
    return error
