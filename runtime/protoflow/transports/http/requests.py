"""A request and its answer, as the receiver sees them, whatever server they come through."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """A request.

    Attributes:
        method: the method, in upper case.
        path: the path without the query, percent-decoded.
        headers: the headers by lower-case name.
        read: returns the body, if it has at most this many bytes. Raises BodyError.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    read: Callable[[int], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer.

    Attributes:
        status: the status code.
        detail: why, for errors.
        headers: further headers.
    """

    status: int
    detail: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        """A problem document (RFC 9457); empty for a success."""
        if not self.detail:
            return b""
        return json.dumps({"status": self.status, "detail": self.detail}).encode()

    @property
    def all_headers(self) -> dict[str, str]:
        """The headers, with those of the body."""
        if not self.detail:
            return dict(self.headers)
        return {**self.headers, "Content-Type": "application/problem+json"}


class Refusal(Exception):  # noqa: N818  an answer to the sender, and no error of ours
    """A request that is refused, with its answer."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer = Answer(status, detail, names)

    @classmethod
    def of(cls, answer: Answer) -> Refusal:
        """Returns a refusal with this answer."""
        return cls(answer.status, answer.detail, **answer.headers)


def later(status: int, detail: str, seconds: int) -> Answer:
    """Returns the answer that asks the sender to come again after some seconds."""
    return Answer(status, detail, {"Retry-After": str(seconds)})
