"""Message ids: ULIDs, sortable by time (https://github.com/ulid/spec)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
#: Ten bits as text.
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]
#: The counting bits of an id within a millisecond, and their highest start value.
_COUNTED = 20
_FIRST = 1 << _COUNTED - 1
#: `hashlib.blake2b`; it is loaded at the first derived id because hashlib loads OpenSSL.
_hash: Callable[..., Any] | None = None


class _Millisecond:
    """The ids of one millisecond. The first is random, and each next id is higher by one, as the
    specification defines monotonic ids. Threads may share it."""

    __slots__ = ("number", "numbers", "prefix")

    def __init__(self, number: int) -> None:
        encode = _encode or _encoder()
        random = os.urandom(10)
        self.number = number
        self.prefix = encode(number.to_bytes(6, "big") + random)[: -_COUNTED // 5]
        self.numbers: Iterator[int] = count(int.from_bytes(random[-3:], "big") % _FIRST)


_current: _Millisecond | None = None
_encode: Callable[[bytes], str] | None = None


def _encoder() -> Callable[[bytes], str]:
    # Imported at the first id, because importing a `_pb2` must not load it.
    global _encode
    from ulid import base32

    _encode = base32.encode
    return _encode


def _text(digest: bytes) -> str:
    """Returns 16 bytes as 26 characters of 5 bits. They hold 130 bits, so the first is at most
    7."""
    # Three numbers, because arithmetic with larger ones is slow.
    high, middle = int.from_bytes(digest[:6], "big"), int.from_bytes(digest[6:11], "big")
    low = int.from_bytes(digest[11:], "big")
    pairs = _PAIRS
    return (
        f"{pairs[high >> 40]}{pairs[high >> 30 & 1023]}{pairs[high >> 20 & 1023]}"
        f"{pairs[high >> 10 & 1023]}{pairs[high & 1023]}"
        f"{pairs[middle >> 30]}{pairs[middle >> 20 & 1023]}{pairs[middle >> 10 & 1023]}"
        f"{pairs[middle & 1023]}"
        f"{pairs[low >> 30]}{pairs[low >> 20 & 1023]}{pairs[low >> 10 & 1023]}{pairs[low & 1023]}"
    )


def new_id() -> str:
    """Returns a new ULID."""
    global _current
    number = int(time.time() * 1000)
    current = _current
    if current is None or current.number != number:
        current = _current = _Millisecond(number)
    counted = next(current.numbers)
    try:
        return current.prefix + _PAIRS[counted >> 10] + _PAIRS[counted & 1023]
    except IndexError:  # after half a million ids in a millisecond
        forget()
        return new_id()


def derived_id(*parts: object) -> str:
    """Returns the id that is derived from these parts.

    A repeated run gives its outputs the same ids, so that consumers can drop duplicates. The id
    looks like a ULID, but contains no time.
    """
    hashed = _hash or _load_hash()
    # The parts may come from messages: a lone surrogate in them is no reason to fail.
    text = "\x1f".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return _text(hashed(text, digest_size=16).digest())


def time_of(id: str) -> float | None:
    """Returns the time in a ULID, in seconds since the epoch; None if the text is no ULID. For a
    derived id, the time is arbitrary."""
    if len(id) != 26 or not set(id) <= set(_ALPHABET) or id[0] > "7":
        return None
    milliseconds = 0
    for character in id[:10]:
        milliseconds = milliseconds << 5 | _ALPHABET.index(character)
    return milliseconds / 1000


def load() -> None:
    """Loads the ULID library and the hash, so that the first message does not wait for them."""
    new_id()
    derived_id()


def _load_hash() -> Callable[..., Any]:
    global _hash
    from hashlib import blake2b

    _hash = blake2b
    return blake2b


def forget() -> None:
    """Forgets the current millisecond: the next id starts with new random bits."""
    global _current
    _current = None


# A forked child would continue from the same number as its parent.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget)
