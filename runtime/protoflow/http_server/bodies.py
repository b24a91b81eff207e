"""Reads the bodies of requests, within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

#: Seconds for a whole request, and between two requests on one connection.
PATIENCE: Final = 15.0


class BodyError(Exception):
    """A body that was not read.

    Attributes:
        status: the status code of the answer.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def announced_size(value: str | None) -> int | None:
    """Returns the size in a value of `Content-Length`; None if there is none."""
    valid = value and value.isascii() and value.isdecimal()
    return int(value[:20]) if value and valid else None


async def read_body(
    parts: Callable[[], AsyncIterator[bytes]], announced: str | None, limit: int
) -> bytes:
    """Returns a whole body.

    Args:
        parts: yields the body as it arrives. It raises BodyError if the body ends early.
        announced: the value of `Content-Length`. A body that is announced as too large is not read.
        limit: the largest body in bytes.

    Raises:
        BodyError: the body is too large, too slow, or incomplete.
    """
    if (announced_size(announced) or 0) > limit:
        raise _too_large(limit)
    read: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in parts():
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                read.append(part)
    except TimeoutError:
        raise BodyError(408, "the body did not come in time") from None
    return b"".join(read)


def _too_large(limit: int) -> BodyError:
    return BodyError(413, f"the body is larger than {limit} bytes")
