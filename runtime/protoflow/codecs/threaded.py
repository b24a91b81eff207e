"""Decodes large payloads in a thread, because this takes seconds for megabytes of JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

#: The size in bytes above which decoding in a thread is worthwhile.
LARGE: Final = 1_000_000


async def decode_in_thread(decode: Callable[[Any], Any], context: Any) -> None:
    """Decodes the input of a run into `context.decoded`, unless it is decoded already.

    Args:
        decode: see `HandlerSpec`; it stores the result in the context.
        context: the `Context` of the run.

    Raises:
        DecodeError: the payload is not a message of its type.
    """
    if context.decoded is None:
        await asyncio.to_thread(decode, context)
