"""Messages that wait for a confirmation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from protoflow.error_codes import TOO_LARGE
from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Message
from protoflow.transport.kit.submission import Submission
from protoflow.transports.nats.wire import headers as wire_headers

_TOO_LARGE = 10054
_HEADERS_TOO_LARGE = 10097
_SCHEDULES_REFUSED = range(10188, 10194)


class Pending:
    """An unconfirmed message.

    Attributes:
        number: its position in the order of all submitted messages.
        block: its headers as sent on the wire.
        repeatable: whether the server drops a second copy.
        deadline: the time when its submission fails.
        sent: whether a server may have received it.
        misses: how often no stream stored it.
        needs_group: whether a topic without a group is an error.
        delayed: whether it is a schedule.
    """

    __slots__ = (
        "batch", "block", "deadline", "delayed", "index", "misses", "needs_group", "number",
        "payload", "repeatable", "sent", "subject", "topic",
    )  # fmt: skip

    def __init__(
        self, batch: Submission, index: int, message: Message, subject: str, block: bytes
    ) -> None:
        self.batch = batch
        self.index = index
        self.topic = message.topic
        self.subject = subject
        self.payload = message.payload or b""
        self.block = block
        self.repeatable = message.deduplication_id is not None
        self.delayed = message.delay > 0
        self.number = 0
        self.deadline = 0.0
        self.sent = False
        self.misses = 0
        self.needs_group = False

    def done(self, error: PublishError | None = None) -> None:
        """Confirms it, or marks it as given up."""
        self.batch.done(self.index, error)

    def fail(self, detail: str) -> None:
        """Fails it; it may be published again later."""
        self.done(PublishError(f"{self.topic}: {detail}"))

    def size_error(self, limit: int) -> PublishError | None:
        """Returns why no stream of a server with this limit stores it; None if a stream can."""
        headers = wire_headers.STREAM_HEADERS
        if len(self.block) > headers:
            text = f"{len(self.block)} bytes of headers are more than the {headers} of a stream"
            return PublishRefusedError(
                f"{self.topic}: {text}; move metadata into the payload", code=TOO_LARGE
            )
        problem = wire_headers.too_large(self.block, self.payload, limit)
        return PublishRefusedError(f"{self.topic}: {problem}") if problem else None


def give_up(waiting: list[Pending], some: Sequence[Pending], detail: str) -> None:
    """Fails some waiting messages, except those whose time has ended meanwhile."""
    for pending in some:
        if pending in waiting:
            waiting.remove(pending)
            pending.fail(detail)


def refusal(topic: str, payload: bytes) -> PublishError | None:
    """Returns the error in a stream's answer; None if the message is stored. Raises ValueError if
    the answer is not from a stream, because any client may answer on a subject."""
    answer: Any = json.loads(payload)
    if not isinstance(answer, dict):
        raise ValueError("no answer of a stream")
    error = answer.get("error")
    if not isinstance(error, dict):
        if "seq" in answer and "stream" in answer:
            return None
        raise ValueError("no answer of a stream")
    code = error.get("err_code", 0)
    for_good = code in (_TOO_LARGE, _HEADERS_TOO_LARGE) or code in _SCHEDULES_REFUSED
    kind = PublishRefusedError if for_good else PublishError
    return kind(f"{topic}: {error.get('description')}")


def is_plain(payload: bytes) -> bool:
    """Whether an answer certainly comes from a stream that has stored the message."""
    return payload.startswith(b'{"stream":') and b'"error"' not in payload and b'"seq":' in payload
