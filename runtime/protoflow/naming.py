"""Names at the broker: injective, within a charset and a length.

Topics and groups are made of `[A-Za-z0-9._-]`. A name that has to be changed or cut gets a
suffix from its hash, so two names never become one by being changed alike.
"""

from __future__ import annotations

import hashlib

_HASH_LENGTH = 10


def fit(name: str, limit: int) -> str:
    """The name, cut to `limit` characters with a hash as suffix if it is longer."""
    return name if len(name) <= limit else f"{name[: limit - _HASH_LENGTH - 1]}-{digest(name)}"


def without_dots(name: str, limit: int) -> str:
    """The name with `_` for `.`; a hash as suffix where that would not be injective."""
    flat = name.replace(".", "_")
    if "." in name and "_" in name:
        flat = f"{flat}-{digest(name)}"
    return fit(flat, limit)


def digest(name: str) -> str:
    """A short hash of a name, of lower-case letters and digits."""
    return hashlib.sha256(name.encode()).hexdigest()[:_HASH_LENGTH]
