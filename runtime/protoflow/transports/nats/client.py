"""The client: nats-py's, with a faster way for what comes in great numbers.

Only what nats-py has had unchanged since 2.10 is used of its inside; a test names all of it.
"""

from __future__ import annotations

import asyncio

from nats import errors
from nats.aio.client import PING_PROTO, Client

from protoflow.transports.nats.reader import Reader, Sink


class FastClient(Client):
    """A client that hands on messages many at a time, and whose flush confirms."""

    def __init__(self) -> None:
        super().__init__()
        self._sinks: dict[bytes, Sink] = {}
        self._ps = Reader(self, self._sinks)

    async def listen(self, subject: str, sink: Sink, queue: str = "") -> bytes:
        """Subscribes; the number of the subscription. Raises errors.Error.

        nats-py drops what its queues do not hold. Here are none: who calls this bounds what
        it keeps.
        """
        if self.is_closed:
            raise errors.ConnectionClosedError
        if len(subject.split()) != 1 or len(queue.split()) > 1:
            raise errors.BadSubjectError  # it would be read as words of the protocol
        self._sid += 1
        number = str(self._sid)
        self._sinks[number.encode()] = sink
        await self.write(f"SUB {subject} {queue} {number}\r\n".encode())
        return number.encode()

    async def unlisten(self, number: bytes) -> None:
        """Ends a subscription; returns when everything that the server sent for it has come.
        Raises errors.Error."""
        if self.is_closed:
            raise errors.ConnectionClosedError
        await self.write(b"UNSUB %b\r\n" % number)
        await self.flush()
        self._sinks.pop(number, None)

    async def write(self, commands: bytes) -> None:
        """Writes what is in the words of the protocol already. Raises errors.Error."""
        if not self.is_connected:
            raise errors.ConnectionClosedError
        await self._send_command(commands)
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    async def ping(self) -> asyncio.Future[bool]:
        """Done when the server has read everything that was written before; never, if the
        client is lost first. Not to be cancelled: nats-py's reader would fail of it."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        await self._send_ping(future)
        return future

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        # nats-py writes the ping before what it has not written yet, so the answer would
        # confirm nothing of that: no subscription, no message.
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        self._pending.append(PING_PROTO)
        self._pending_data_size += len(PING_PROTO)
        await self._flush_pending()
