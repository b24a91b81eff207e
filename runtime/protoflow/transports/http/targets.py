"""The targets of messages, and the requests to each."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import aiohttp

from protoflow.clock import Clock
from protoflow.error_codes import NOT_OPEN, TRANSPORT_OPTION
from protoflow.errors import ConfigError, PublishError, PublishRefusedError
from protoflow.transports.http.codec import EncodedMessage
from protoflow.transports.http.options import HttpOptions, Target
from protoflow.transports.http.signatures import Signer, signature_headers

_log = logging.getLogger("protoflow.transports.http")

#: The most of an answer that is read, so that its connection can be used again.
_MOST_READ: Final = 64 * 1024
#: Seconds that the rest of an answer may take; after that its connection is closed.
_REST: Final = 1.0
#: The longest wait that a target may ask for.
_LONGEST_WAIT: Final = 3600.0
#: The answers to a message that will get the same answer again.
_REFUSED: Final = frozenset((400, 413, 415, 422))


class GoneError(PublishError):
    """The target has answered 410, and gets nothing more."""


@dataclass(slots=True)
class _Post:
    message: EncodedMessage
    deadline: float
    done: Callable[[PublishError | None], None]


class DisabledTargets:
    """The URLs of targets that answered 410.

    Args:
        path: the file that keeps them; None: they are enabled when the process ends.
    """

    def __init__(self, path: str | None) -> None:
        self._path = None if path is None else Path(path)
        self.urls: dict[str, str] = {}

    def load(self) -> None:
        """Reads the file. Raises ConfigError if it cannot be read."""
        try:
            self.urls = self._read()
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(
                f"transport: http: option disabled_file: {self._path} cannot be read: {error}",
                code=TRANSPORT_OPTION,
            ) from error

    def _read(self) -> dict[str, str]:
        if self._path is None or not self._path.exists():
            return {}
        found = json.loads(self._path.read_text())
        return {str(url): str(time) for url, time in found.items()}

    def add(self, url: str, now: float) -> None:
        """Disables a URL."""
        self.urls[url] = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        if self._path is None:
            return
        draft = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            # Other processes write the file, too.
            found = self._read() | {url: self.urls[url]}
            draft.write_text(json.dumps(found, indent=1))
            draft.replace(self._path)
        except (OSError, ValueError, AttributeError):
            _log.exception("disabled targets were not written", extra={"path": str(self._path)})


class TargetQueue:
    """Sends messages to one URL, several at the same time. Their order is not kept.

    Args:
        target: the target.
        url: its URL, with the topic filled in.
    """

    def __init__(
        self, target: Target, url: str, options: HttpOptions, clock: Clock,
        session: aiohttp.ClientSession, disabled: DisabledTargets,
    ) -> None:  # fmt: skip
        self.mode = target.mode
        self._url = url
        self._shown = shown(url)
        self._options = options
        self._clock = clock
        self._session = session
        self._disabled = disabled
        self._signers = [Signer(secret) for secret in target.secrets]
        self._token = target.token
        self._queue: deque[_Post] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._not_before = 0.0

    @property
    def is_disabled(self) -> bool:
        """Whether the target has answered 410."""
        return self._url in self._disabled.urls

    @property
    def is_idle(self) -> bool:
        """Whether nothing is lost if the queue is forgotten."""
        return not (self._queue or self._workers or self._not_before > self._clock.monotonic())

    def send(self, message: EncodedMessage, done: Callable[[PublishError | None], None]) -> None:
        """Sends a message; `done` gets its result."""
        deadline = self._clock.monotonic() + self._options.publish_timeout
        self._queue.append(_Post(message, deadline, done))
        if len(self._workers) < self._options.concurrent_requests:
            worker = asyncio.get_running_loop().create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def close(self) -> None:
        """Ends the requests. Their messages fail."""
        workers = [*self._workers]
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        while self._queue:
            self._queue.popleft().done(PublishError("the transport was closed", code=NOT_OPEN))

    async def _work(self) -> None:
        while self._queue:
            post = self._queue.popleft()
            result: PublishError | None = PublishError("the transport was closed", code=NOT_OPEN)
            try:
                result = await self._send(post)
            except Exception as error:
                _log.exception("a message was not sent", extra={"url": self._shown})
                result = PublishError(f"{self._shown}: {type(error).__name__}: {error}")
            finally:
                post.done(result)

    async def _send(self, post: _Post) -> PublishError | None:
        if self.is_disabled:
            return self._gone()
        now = self._clock.monotonic()
        if self._not_before > now:
            if self._not_before > post.deadline:
                wait = self._not_before - now
                return PublishError(f"{self._shown} asked to wait for another {wait:.0f} s")
            await self._clock.sleep(self._not_before - now)
        try:
            timeout = min(self._options.request_timeout, post.deadline - self._clock.monotonic())
            async with asyncio.timeout(max(0.0, timeout)) as limit:
                return await self._request(post.message, limit)
        except TimeoutError:
            return PublishError(f"{self._shown} did not answer in time")
        except aiohttp.InvalidURL:  # its text is the whole URL
            return PublishError(f"{self._shown} is not a URL")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return PublishError(f"{self._shown}: {error or type(error).__name__}")

    async def _request(
        self, message: EncodedMessage, limit: asyncio.Timeout
    ) -> PublishError | None:
        headers = dict(message.headers)
        if self._signers:
            now = int(self._clock.now())
            headers |= signature_headers(self._signers, message.id, now, message.body)
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.reveal()}"
        async with self._session.post(
            self._url, data=message.body, headers=headers, allow_redirects=False
        ) as response:
            status = response.status
            if 200 <= status < 300:
                # The target has the message, whatever becomes of the rest of its answer.
                limit.reschedule(asyncio.get_running_loop().time() + 2 * _REST)
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with asyncio.timeout(_REST):
                        await response.content.read(_MOST_READ)
                return None
            return self._failure(status, response.headers)

    def _failure(self, status: int, headers: Mapping[str, str]) -> PublishError:
        if status == 410:
            self._disabled.add(self._url, self._clock.now())
            _log.error("a target is gone, and gets no more messages", extra={"url": self._shown})
            return self._gone()
        wait = retry_after(headers.get("Retry-After"), self._clock.now())
        if status in (429, 503) and wait:
            self._not_before = self._clock.monotonic() + min(wait, _LONGEST_WAIT)
        if 300 <= status < 400:
            return PublishError(f"{self._shown} answered {status}; redirects are not followed")
        if status in _REFUSED:
            return PublishRefusedError(f"{self._shown} refused the message with {status}")
        return PublishError(f"{self._shown} answered {status}")

    def _gone(self) -> GoneError:
        return GoneError(f"{self._shown} answered 410, and is disabled")


def shown(url: str) -> str:
    """Returns a URL for people: without its query, which may contain a secret."""
    return url.partition("#")[0].partition("?")[0]


def retry_after(value: str | None, now: float) -> float:
    """Returns the seconds that `Retry-After` asks for: a number or a date; 0 if it is neither."""
    text = (value or "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return 0.0
