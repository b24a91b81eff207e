"""Settings, options and threads that all parts of the transport share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from protoflow.error_codes import NOT_OPEN
from protoflow.errors import TransportError
from protoflow.transport.interface import TransportSettings
from protoflow.transports.file.options import FileOptions

P = ParamSpec("P")
T = TypeVar("T")


async def all_of(calls: Iterable[asyncio.Future[None]]) -> None:
    """Waits for all calls, then raises the first error."""
    for result in await asyncio.gather(*calls, return_exceptions=True):
        if result is not None:
            raise result


class FileContext:
    """One thread publishes, another consumes and reads, so neither waits for the other's disk.

    Attributes:
        settings: the settings from the runtime.
        options: the options of the transport.
        root: the directory of the URL.
        closed: whether `shut_down` was called.
    """

    def __init__(self, settings: TransportSettings, options: FileOptions) -> None:
        self.settings = settings
        self.options = options
        self.root = settings.url.path.rstrip("/") or "/"
        self.closed = False
        self._publishing = ThreadPoolExecutor(1, "protoflow-file-publish")
        self._consuming = ThreadPoolExecutor(1, "protoflow-file-consume")

    def publish(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Runs a call in the thread for publishing. Errors are TransportErrors."""
        return self._run(self._publishing, call, *args, **kwargs)

    def consume(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Runs a call in the thread for consuming. Errors are TransportErrors."""
        return self._run(self._consuming, call, *args, **kwargs)

    def shut_down(self) -> None:
        """Ends the threads after their last calls."""
        self.closed = True
        self._publishing.shutdown(wait=False)
        self._consuming.shutdown(wait=False)

    def _run(
        self, executor: ThreadPoolExecutor, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        def translated() -> T:
            try:
                return call(*args, **kwargs)
            except OSError as error:
                raise TransportError(f"{self.root}: {error}") from error

        try:
            return asyncio.get_running_loop().run_in_executor(executor, translated)
        except RuntimeError as error:  # it was shut down
            raise TransportError(f"{self.root}: the transport is closed", code=NOT_OPEN) from error
