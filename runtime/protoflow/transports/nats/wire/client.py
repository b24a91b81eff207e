"""nats-py's client with a faster path for messages.

Of its internals, only names that have not changed since nats-py 2.10 are used; a test lists them.
"""

from __future__ import annotations

import asyncio
from typing import Any

from nats import errors
from nats.aio.client import PING_PROTO, Client

from protoflow.transports.nats.wire.reader import Reader, Sink

#: Tenths of seconds to wait for the end of a subscription.
_PATIENCE = 50


def publication(subject: bytes, payload: bytes, reply: bytes = b"", block: bytes = b"") -> bytes:
    """Returns the protocol command that publishes a message; `block` contains its headers."""
    if block:
        size = len(block)
        return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (
            subject, reply, size, size + len(payload), block, payload,
        )  # fmt: skip
    return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(payload), payload)


class FastClient(Client):
    """A client that passes on many messages at once, and whose flush confirms."""

    def __init__(self) -> None:
        super().__init__()
        #: Other servers of the cluster, as `host:port`.
        self.announced: list[object] = []
        #: The server is about to stop, and asks its clients to use another one.
        self.lame_duck = False
        self._sinks: dict[bytes, Sink] = {}
        self._ps = Reader(self, self._sinks)

    async def listen(self, subject: str, sink: Sink, queue: str = "") -> bytes:
        """Subscribes, and returns the number of the subscription. Raises errors.Error.

        nats-py drops messages when its queues are full. Here there are no queues: the caller limits
        the number of kept messages.
        """
        if self.is_closed:
            raise errors.ConnectionClosedError
        if len(subject.split()) != 1 or len(queue.split()) > 1:
            raise errors.BadSubjectError  # it would be read as a protocol command
        self._sid += 1
        number = str(self._sid)
        self._sinks[number.encode()] = sink
        await self.write(f"SUB {subject} {queue} {number}\r\n".encode())
        return number.encode()

    async def unlisten(self, number: bytes) -> None:
        """Ends a subscription. Returns when all its messages have arrived, or if the server does
        not answer. Raises errors.Error."""
        if self.is_closed:
            raise errors.ConnectionClosedError
        await self.write(b"UNSUB %b\r\n" % number)
        pong = await self.ping()
        for _ in range(_PATIENCE):
            if (await asyncio.wait({pong}, timeout=0.1))[0] or not self.is_connected:
                break
        self._sinks.pop(number, None)

    async def write(self, commands: bytes) -> None:
        """Writes protocol commands. Raises errors.Error."""
        if not self.is_connected:
            raise errors.ConnectionClosedError
        await self._send_command(commands)
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    async def ping(self) -> asyncio.Future[bool]:
        """Waits until the server has read all earlier commands; if the client is lost first, it
        never ends. It must not be cancelled, because nats-py's reader would then fail."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        await self._send_ping(future)
        return future

    def abort(self) -> None:
        """Closes the connection immediately, for a server that does not answer."""
        for name in ("_reading_task", "_ping_interval_task", "_flusher_task"):
            if (task := getattr(self, name, None)) is not None:
                task.cancel()
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if isinstance(urls := info.get("connect_urls"), list):
            self.announced = urls
        if info.get("ldm") and not initial_connection:
            self.lame_duck = True
        await super()._process_info(info, initial_connection)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        # nats-py writes the ping before its unwritten data, so the answer would confirm no
        # subscription and no message of it.
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        self._pending.append(PING_PROTO)
        self._pending_data_size += len(PING_PROTO)
        await self._flush_pending()
