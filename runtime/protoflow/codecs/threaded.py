"""Large payloads are decoded in a thread: megabytes of JSON take seconds, and all else on the
event loop would wait for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

#: Bytes of a delivery from which on it is worth the way to a thread and back.
LARGE: Final = 1_000_000


async def decode_in_thread(decode: Callable[[Any], Any], context: Any) -> None:
    """Decodes the input of a run into `context.decoded`, unless it is there.

    Args:
        decode: as in `HandlerSpec`; it keeps what it decoded in the context.
        context: the `Context` of the run.

    Raises:
        DecodeError: it is no message of its type.
    """
    if context.decoded is None:
        await asyncio.to_thread(decode, context)
