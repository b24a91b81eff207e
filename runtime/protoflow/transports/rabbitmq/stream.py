"""The stream from which aiormq reads a connection.

The frames of messages are passed to aiormq as body frames, which it forwards undecoded. The library
that decodes other frames closes the connection for a value that it cannot decode, and a message can
contain anything. `Channel` decodes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from struct import Struct
from typing import Any

from aiormq.connection import TCPTransportFactory, TLSTransportFactory, TransportFactory
from yarl import URL

from protoflow.transports.rabbitmq.reading import DELIVER, GOT, RETURNED

_START = Struct(">BHI")
_METHOD, _HEADER, _BODY = 1, 2, 3
_FOREIGN = b"AMQP"  # a server that does not use this protocol begins in this way
_WITH_CONTENT = frozenset((DELIVER, GOT, RETURNED))
_BLOCKED, _UNBLOCKED = b"\0\x0a\0\x3c", b"\0\x0a\0\x3d"

#: Called with the reason when the server blocks publishers, and with None at the end.
BlockedCallback = Callable[[str | None], None]


class Wire(TransportFactory):
    """Opens the socket of one connection."""

    def __init__(self, scheme: str, blocked: BlockedCallback) -> None:
        self._factory = TLSTransportFactory() if scheme == "amqps" else TCPTransportFactory()
        self._blocked = blocked
        self._writer: asyncio.StreamWriter | None = None

    async def create(
        self,
        url: URL,
        **kwargs: Any,  # Any: aiormq's own arguments are passed on
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connects."""
        reader, self._writer = await self._factory.create(url, **kwargs)
        # The ignore: aiormq uses only these three methods of a reader.
        return FrameStream(reader, self._blocked), self._writer  # type: ignore[return-value]

    def abort(self) -> None:
        """Ends the connection without a protocol close."""
        if self._writer is not None:
            self._writer.transport.abort()


class FrameStream:
    """A stream of whole frames."""

    def __init__(self, reader: asyncio.StreamReader, blocked: BlockedCallback) -> None:
        self._reader = reader
        self._blocked = blocked
        self._frame = b""
        self._at = 0

    def at_eof(self) -> bool:
        """Whether all data was read."""
        return self._at >= len(self._frame) and self._reader.at_eof()

    async def readexactly(self, size: int) -> bytes:
        """Returns the next bytes. Raises asyncio.IncompleteReadError."""
        if self._at >= len(self._frame):
            await self._next()
        start = self._at
        self._at = start + size
        return self._frame[start : start + size]

    async def read(self, size: int = -1) -> bytes:
        """Returns the available bytes."""
        return await self._reader.read(size)

    async def _next(self) -> None:
        start = await self._reader.readexactly(_START.size)
        self._at = 0
        if start[:4] == _FOREIGN:
            self._frame = start
            return
        kind, channel, size = _START.unpack(start)
        rest = await self._reader.readexactly(size + 1)
        if kind == _HEADER or (kind == _METHOD and rest[:4] in _WITH_CONTENT):
            start = _START.pack(_BODY, channel, size)
        elif kind == _METHOD and channel == 0:
            self._look(rest)
        self._frame = start + rest

    def _look(self, method: bytes) -> None:
        if method[:4] == _BLOCKED:
            self._blocked(method[5 : 5 + method[4]].decode("utf-8", "replace"))
        elif method[:4] == _UNBLOCKED:
            self._blocked(None)
