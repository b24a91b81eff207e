"""Message ids: ULIDs, sortable by time (https://github.com/ulid/spec)."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable

_encode: Callable[[bytes], str] | None = None


def _encoder() -> Callable[[bytes], str]:
    # Imported at the first id: importing a `_pb2` must not pay for it.
    global _encode
    if _encode is None:
        from ulid import base32

        _encode = base32.encode
    return _encode


def new_id() -> str:
    """A new ULID."""
    encode = _encode or _encoder()
    return encode(int(time.time() * 1000).to_bytes(6, "big") + os.urandom(10))


def derived_id(*parts: object) -> str:
    """The id that follows from these parts, always the same: a redone run repeats its
    outputs' ids, so consumers can drop the copies. It looks like a ULID but tells no time.
    """
    text = "\x1f".join(map(str, parts))
    encode = _encode or _encoder()
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    # The first character of a ULID is at most 7: 128 bits in 26 characters of 5.
    return encode(digest)
