"""Publishing: each message goes to the targets of its topic, and to nobody without one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias
from urllib.parse import quote

import aiohttp

from protoflow.error_codes import NO_DELAY, NOT_OPEN
from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Message
from protoflow.transport.interface import TransportSettings
from protoflow.transport.kit.submission import Submission
from protoflow.transports.http.address_guard import AddressGuard
from protoflow.transports.http.codec import encode
from protoflow.transports.http.options import HttpOptions, Target
from protoflow.transports.http.targets import DisabledTargets, GoneError, TargetQueue, shown

#: With more queues than this, those without work are forgotten: topics may be without number.
_MOST_QUEUES: Final = 1000
#: Takes a message without a target; returns its result.
Otherwise: TypeAlias = Callable[[Message], PublishError | None]


class HttpPublisher:
    """Sends messages to their targets.

    Attributes:
        dead_letter_topics: the topics of dead letters, which are not for `*`.
        disabled: the targets that answered 410.
        dropped: the number of messages that nobody got.
    """

    def __init__(self, settings: TransportSettings, options: HttpOptions) -> None:
        self.dead_letter_topics: set[str] = set()
        self.disabled = DisabledTargets(options.disabled_file)
        self.dropped = 0
        self._settings = settings
        self._options = options
        self._session: aiohttp.ClientSession | None = None
        self._queues: dict[tuple[Target, str], TargetQueue] = {}

    def open(self) -> None:
        """Makes the session of all requests. Raises ConfigError for files that cannot be read."""
        self.disabled.load()
        options = self._options
        guard = AddressGuard(options.allowed_networks)
        encrypted = any(target.url.startswith("https:") for target in options.targets)
        tls = options.tls_context("http", "https", encrypted=encrypted)
        connector = aiohttp.TCPConnector(
            socket_factory=guard.socket, limit=0, ssl=True if tls is None else tls
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, connect=options.connect_timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "protoflow", "Accept-Encoding": "identity"},
            skip_auto_headers=("Content-Type",),
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Ends the requests. Idempotent."""
        session, self._session = self._session, None
        queues, self._queues = self._queues, {}
        await asyncio.gather(*(queue.close() for queue in queues.values()))
        if session is not None:
            await session.close()

    def submit(
        self, messages: Sequence[Message], otherwise: Otherwise
    ) -> asyncio.Future[Sequence[PublishError | None]]:
        """Sends messages. A message without a target goes to `otherwise`."""
        submission = Submission(len(messages))
        for index, message in enumerate(messages):
            try:
                self._send(message, otherwise, _Results(submission, index))
            except PublishError as error:
                submission.done(index, error)
        return submission.future

    def has_target(self, topic: str) -> bool:
        """Whether a topic has a target."""
        return bool(self._targets_of(topic))

    def _targets_of(self, topic: str) -> Sequence[Target]:
        return self._options.targets_of(topic, of_a_group=topic in self.dead_letter_topics)

    def warnings(self) -> dict[str, str]:
        """Returns the targets in use that answered 410, by part and URL."""
        urls = {url for _, url in self._queues} | {target.url for target in self._options.targets}
        return {
            f"target {shown(url)}": f"answered 410 at {self.disabled.urls[url]}, and is disabled"
            for url in sorted(urls)
            if url in self.disabled.urls
        }

    def drop(self, message: Message) -> PublishError | None:
        """Drops a message that nobody gets, unless somebody must get it."""
        if message.mandatory or self._settings.require_subscriber:
            return PublishError(
                f"{message.topic} has no target, and HTTP keeps no messages; add it to targets"
            )
        self.dropped += 1
        return None

    def _send(self, message: Message, otherwise: Otherwise, results: _Results) -> None:
        if self._session is None:
            raise PublishError("the transport is not open", code=NOT_OPEN)
        if message.delay > 0:
            raise PublishRefusedError(
                f"{message.topic}: HTTP has no delayed publish", code=NO_DELAY
            )
        targets = self._targets_of(message.topic)
        if not targets:
            results.submission.done(results.index, otherwise(message))
            return
        queues = [self._queue(target, message.topic, self._session) for target in targets]
        limit = self._options.max_message_bytes
        sent = [(queue, encode(message, queue.mode, limit)) for queue in queues]
        results.left = len(sent)
        results.nobody = lambda: otherwise(message)
        for queue, encoded in sent:
            queue.send(encoded, results.add)

    def _queue(self, target: Target, topic: str, session: aiohttp.ClientSession) -> TargetQueue:
        url = target.url.replace("{topic}", quote(topic, safe=""))
        queue = self._queues.get((target, url))
        if queue is None:
            if len(self._queues) >= _MOST_QUEUES:
                self._queues = {key: one for key, one in self._queues.items() if not one.is_idle}
            clock = self._settings.clock
            queue = TargetQueue(target, url, self._options, clock, session, self.disabled)
            self._queues[target, url] = queue
        return queue


class _Results:
    """The results of one message at its targets."""

    def __init__(self, submission: Submission, index: int) -> None:
        self.submission = submission
        self.index = index
        self.left = 0
        self.nobody: Callable[[], PublishError | None] = lambda: None
        self._gone = 0
        self._sent = 0
        self._error: PublishError | None = None

    def add(self, result: PublishError | None) -> None:
        """Adds the result of one target. An error that may pass has priority."""
        self.left -= 1
        if isinstance(result, GoneError):
            self._gone += 1
        elif result is None:
            self._sent += 1
        elif self._error is None or isinstance(self._error, PublishRefusedError):
            self._error = result
        if self.left:
            return
        error = self._error
        if error is None and not self._sent:
            error = self.nobody()
        self.submission.done(self.index, error)
