"""The HTTP pages of `run --workers`: the parent binds the port and answers for all workers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import shutil
import tempfile
import threading
from pathlib import Path
from types import TracebackType

from protoflow.config import Config

#: The path of a Unix socket has at most 107 bytes, on macOS 103.
_LONGEST_FOLDER = 80


class WorkerPages:
    """Serves the pages in a thread of the parent; a context manager.

    Args:
        config: the addresses to bind, tokens and origins.
        count: the number of workers.

    Attributes:
        port: the port, after the start.
    """

    def __init__(self, config: Config, count: int) -> None:
        self.port = 0
        self._config = config
        self._folder = _folder()
        self._sockets = [str(self._folder / f"{number}.sock") for number in range(1, count + 1)]
        self._loop = asyncio.new_event_loop()
        self._ended = asyncio.Event()
        self._thread: threading.Thread | None = None

    def environ(self, number: int) -> dict[str, str]:
        """Returns the environment variables for a worker: each serves on a separate socket."""
        return {
            "PROTOFLOW_HTTP_SOCKET": self._sockets[number - 1],
            "PROTOFLOW_HTTP_PORT": "0",
            "PROTOFLOW_METRICS_PORT": "0",
        }

    def __enter__(self) -> WorkerPages:
        bound: concurrent.futures.Future[int] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=lambda: self._loop.run_until_complete(self._serve(bound)),
            name="protoflow-pages", daemon=True,
        )  # fmt: skip
        self._thread.start()
        try:
            self.port = bound.result()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._loop.call_soon_threadsafe(self._ended.set)
        self._close()

    def _close(self) -> None:
        if self._thread is not None:
            self._thread.join()
        self._loop.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _serve(self, bound: concurrent.futures.Future[int]) -> None:
        try:
            from protoflow.web.workers.server import served

            async with served(self._config, self._sockets) as port:
                bound.set_result(port)
                await self._ended.wait()
        except BaseException as error:
            if bound.done():
                raise
            bound.set_exception(error)


def _folder() -> Path:
    """Creates a folder that only this user may enter."""
    found = Path(tempfile.mkdtemp(prefix="protoflow-"))
    if len(str(found)) <= _LONGEST_FOLDER:
        return found
    found.rmdir()
    return Path(tempfile.mkdtemp(prefix="protoflow-", dir="/tmp"))
