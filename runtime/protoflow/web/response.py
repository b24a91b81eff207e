"""A response from a route, and errors as RFC 9457 problem details."""

from __future__ import annotations

import asyncio
import http
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from protoflow.error_codes import BUSY, CONFLICT, FORBIDDEN, NOT_FOUND, PAGE_FAILED, REQUEST

JSON: Final = "application/json"
PROBLEM: Final = "application/problem+json"
NDJSON: Final = "application/x-ndjson"
HTML: Final = "text/html"
EVENTS: Final = "text/event-stream"
#: Seconds in which a client must read a part of a stream, because streams are limited in number.
TAKING: float = 30.0
#: The code of each status; other statuses report a request that is wrong.
_CODES: Final = {
    **dict.fromkeys((401, 403), FORBIDDEN),
    404: NOT_FOUND,
    409: CONFLICT,
    **dict.fromkeys((429, 503, 504), BUSY),
    500: PAGE_FAILED,
}


@dataclass(slots=True, kw_only=True)
class Response:
    """One HTTP response.

    Attributes:
        status: the status code.
        body: the whole body.
        stream: instead of `body`, its parts as they come.
        content_type: of the body.
        headers: further headers.
        cookies: values of `Set-Cookie`.
        ended: called once, when a stream is closed.
    """

    status: int = 200
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    cookies: Sequence[str] = ()
    ended: Callable[[], None] | None = None

    async def write_to(self, write: Callable[[bytes], Awaitable[object]]) -> None:
        """Writes the parts of the stream. Raises TimeoutError if the client does not read."""
        if self.stream is not None:
            async for part in self.stream:
                async with asyncio.timeout(TAKING):
                    await write(part)

    async def close(self) -> None:
        """Ends the stream, even if it was not read completely. It is idempotent."""
        ended, self.ended = self.ended, None
        stream, self.stream = self.stream, None
        try:
            if isinstance(stream, AsyncGenerator):
                await stream.aclose()
        finally:
            if ended is not None:
                ended()


def as_json(value: Any, status: int = 200) -> Response:
    """Returns a value as JSON."""
    return Response(status=status, body=encoded(value))


class Problem(Exception):  # noqa: N818  the word of RFC 9457
    """An error response for a client.

    Attributes:
        status: the status code.
        headers: further headers.

    Args:
        detail: what happened, and what to do.
        more: further members of the document.
        code: the kind of error, if the status does not say it.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        more: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})
        self._detail = detail
        self._more = dict(more or {})
        self._code = code or _CODES.get(status, REQUEST)

    @property
    def response(self) -> Response:
        """The problem as a document."""
        content = {
            "type": "about:blank",
            "title": http.HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self._detail,
            "code": self._code,
            **self._more,
        }
        return Response(
            status=self.status, body=encoded(content), content_type=PROBLEM, headers=self.headers
        )


def encoded(value: Any) -> bytes:
    """Returns a value as JSON; characters outside of text are escaped."""
    return json.dumps(value, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")
