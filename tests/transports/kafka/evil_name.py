"""A header name that other clients can write and aiokafka cannot read."""

from __future__ import annotations


class Name(str):
    """A name that is written as bytes which are no UTF-8."""

    def encode(self, *_: object, **__: object) -> bytes:
        return b"\xff\xfe" + bytes(str(self), "ascii")
