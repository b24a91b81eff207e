"""Messages that wait for confirmation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Message
from protoflow.transport.kit.submission import Submission
from protoflow.transports.nats.wire import headers as wire_headers

_TOO_LARGE = 10054
_HEADERS_TOO_LARGE = 10097
_SCHEDULES_REFUSED = range(10188, 10194)


class Pending:
    """A message that is not confirmed.

    Attributes:
        number: its place in the order of all submitted messages.
        block: its headers, as they stand on the wire.
        repeatable: the server drops a second copy.
        deadline: when nobody waits for it any more.
        sent: a server may have it.
        misses: how many times no stream took it.
        needs_group: it is an error if no group consumes its topic.
        delayed: it is a schedule.
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
        """It is confirmed, or given up."""
        self.batch.done(self.index, error)

    def fail(self, detail: str) -> None:
        """It may be published again later."""
        self.done(PublishError(f"{self.topic}: {detail}"))

    def size_error(self, limit: int) -> PublishError | None:
        """Why no stream of a server with this limit takes it; None: one does."""
        headers = wire_headers.STREAM_HEADERS
        if len(self.block) > headers:
            text = f"{len(self.block)} bytes of headers are more than the {headers} of a stream"
            return PublishRefusedError(f"{self.topic}: {text}; move metadata into the payload")
        problem = wire_headers.too_large(self.block, self.payload, limit)
        return PublishRefusedError(f"{self.topic}: {problem}") if problem else None


def give_up(waiting: list[Pending], some: Sequence[Pending], detail: str) -> None:
    """Fails some of those that wait, except where their time was up in the meantime."""
    for pending in some:
        if pending in waiting:
            waiting.remove(pending)
            pending.fail(detail)


def refusal(topic: str, payload: bytes) -> PublishError | None:
    """What the answer of a stream says; None is that it has the message. Raises ValueError for
    what is no answer of a stream: anybody may answer to a subject."""
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
    """Whether an answer is surely a stream's, which has the message."""
    return payload.startswith(b'{"stream":') and b'"error"' not in payload and b'"seq":' in payload
