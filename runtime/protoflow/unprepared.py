"""A control flow: an output cannot be encoded before something is awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Unprepared(Exception):  # noqa: N818  the name states what happened
    """An output cannot be encoded yet; after `prepare` the same call succeeds.

    It is raised on the event loop, and encoding has changed nothing.

    Args:
        prepare: what is awaited first. It raises ProtoflowError.
    """

    def __init__(self, prepare: Callable[[], Awaitable[None]]) -> None:
        import asyncio  # imported here, because modules of handlers load this one

        super().__init__("the output is not prepared; this error is for the runtime")
        self.prepare = prepare
        self._loop = asyncio.get_running_loop()

    def prepare_from_thread(self) -> None:
        """Prepares on the event loop, and waits for that in another thread."""
        import asyncio

        async def on_loop() -> None:
            await self.prepare()

        asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result()
