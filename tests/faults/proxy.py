"""A TCP proxy on loopback that hurts the connections through it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from urllib.parse import urlsplit

_CHUNK = 65536
_LINGER_ZERO = struct.pack("ii", 1, 0)  # closing sends RST instead of FIN


class FaultProxy:
    """Forwards to one address; as an async context manager it listens while entered.

        async with FaultProxy.to(broker.url) as proxy:
            transport = make(proxy.url)
            proxy.cut()      # connections are reset, new ones refused
            proxy.restore()

    Attributes:
        url: the upstream URL with the proxy's address in it.
        port: where the proxy listens.
        accepted: how many connections were accepted so far.
    """

    def __init__(self, host: str, port: int, *, url: str = "") -> None:
        self.url = url
        self.port = 0
        self.accepted = 0
        self._upstream = host, port
        self._server: asyncio.Server | None = None
        self._refusing = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._delay = 0.0
        self._budget: int | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    def to(cls, url: str) -> FaultProxy:
        """A proxy to the host and port in a URL."""
        parts = urlsplit(url)
        if not parts.hostname or not parts.port:
            raise ValueError("the URL needs a host and a port")
        return cls(parts.hostname, parts.port, url=url)

    async def __aenter__(self) -> FaultProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        if self.url:
            host, port = self._upstream
            self.url = self.url.replace(f"{host}:{port}", f"127.0.0.1:{self.port}", 1)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        self._refusing = True
        self.thaw()
        self.reset()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def reset(self) -> None:
        """Ends every connection with RST; new ones are accepted."""
        for writer in [*self._writers]:
            if (peer := writer.get_extra_info("socket")) is not None:
                with contextlib.suppress(OSError):
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
            writer.transport.abort()

    def refuse(self) -> None:
        """Ends every new connection at once; those that are open live on."""
        self._refusing = True

    def cut(self) -> None:
        """Ends every connection and refuses new ones until `restore`."""
        self.refuse()
        self.reset()

    def restore(self) -> None:
        """New connections are accepted again."""
        self._refusing = False

    def freeze(self) -> None:
        """A black hole: connections stay open, nothing passes until `thaw`."""
        self._flowing.clear()

    def thaw(self) -> None:
        """What was held by `freeze` passes."""
        self._flowing.set()

    def delay(self, seconds: float) -> None:
        """Each chunk waits that long, in both directions; 0 ends it."""
        self._delay = seconds

    def cut_after(self, size: int) -> None:
        """Passes `size` more bytes, counted over all connections and both directions, then
        resets every connection; new ones are accepted."""
        self._budget = size

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self._refusing:
            writer.transport.abort()
            return
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, upstream_writer}
        self._writers |= pair
        if (task := asyncio.current_task()) is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.gather(
                self._pump(reader, upstream_writer), self._pump(upstream_reader, writer)
            )
        finally:
            self._writers -= pair
            for each in pair:
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._flowing.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
                if self._budget is not None:
                    passing, self._budget = data[: self._budget], self._budget - len(data)
                    if self._budget < 0:
                        self._budget = None
                        writer.write(passing)
                        await writer.drain()
                        self.reset()
                        return
                writer.write(data)
                await writer.drain()
            writer.close()
