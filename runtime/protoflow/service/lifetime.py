"""The lifetime of a service: start, run until a signal, drain, close."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack

from protoflow.error_codes import TOO_LATE
from protoflow.errors import ProtoflowError
from protoflow.routing.routes import shown_transports
from protoflow.scheduling.scheduler import Scheduler
from protoflow.service.gc_tuning import raised_threshold
from protoflow.service.shutdown import Shutdown
from protoflow.service.signals import handled_signals
from protoflow.service.startup import Components

_log = logging.getLogger("protoflow.service")


class Lifetime:
    """Starts and stops one service, once.

    Args:
        components: the components of the service.
        lifespan: makes the context that is entered before anything is consumed.
    """

    def __init__(
        self,
        components: Components,
        lifespan: Callable[[], AbstractAsyncContextManager[object]] | None,
    ) -> None:
        self._components = components
        self._config = components.config
        self._running = components.running
        self._lifespan = lifespan
        self._resources = AsyncExitStack()
        self._stop_requested: asyncio.Event | None = None
        self._began = False
        self._opened = False
        self._signals = 0

    async def run(self) -> None:
        """Runs until SIGTERM, SIGINT or `request_stop`, then drains."""
        self._stop_requested = asyncio.Event()
        handled = self._config.handle_signals
        with handled_signals(self._signalled) if handled else contextlib.nullcontext():
            await self.start()
            try:
                if not (self._components.registry.registrations or self._config.outbox_url):
                    _log.warning(
                        "the service started without handlers, so it consumes no messages",
                        extra={"transport": shown_transports(self._config)},
                    )
                with raised_threshold(self._config.gc_threshold):
                    await self._stop_requested.wait()
            finally:
                await self.stop()
        if self._running.crash is not None:
            raise self._running.crash

    def request_stop(self) -> None:
        """Makes `run` drain and return."""
        if self._stop_requested is not None:
            self._stop_requested.set()

    async def start(self) -> None:
        """Connects, creates or verifies the topology, and starts consuming."""
        if self._began:
            raise ProtoflowError(
                "the service was started already; create a new service", code=TOO_LATE
            )
        self._began = self._components.registry.closed = True
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Drains and closes, within `shutdown_timeout`. It is idempotent."""
        running = self._running
        running.started = False
        self._components.inspection.end_streams()
        shutdown = Shutdown(self._config.shutdown_timeout, _log)
        try:
            await shutdown.drain(running.subscriptions)
        finally:
            running.ended = running.subscriptions or running.ended
            running.subscriptions = ()
            await self._close(shutdown)

    def crashed(self, error: BaseException) -> None:
        """Handles the death of an internal task: the process drains and ends with the error."""
        if self._running.crash is None:
            self._running.crash = error
            _log.critical(
                "a part of the runtime died", extra={"error": repr(error)}, exc_info=error
            )
        self.request_stop()

    async def _start(self) -> None:
        components, running = self._components, self._running
        components.registry.chain.check()
        await components.transport.open()
        self._opened = True
        components.journaling.open()
        schedulers = await components.assemble(self.crashed)
        await components.inspection.start_relay(self._resources)
        if self._lifespan is not None:
            await self._resources.enter_async_context(self._lifespan())
        await components.open_inbox(self._resources)
        # All subscriptions join before any begins, so that later rebalances meet no run.
        running.subscriptions = tuple(schedulers)
        await join_groups(schedulers)
        for scheduler in schedulers:
            scheduler.begin()
        running.started = True
        await components.inspection.meet_neighbours(self._resources)
        await components.inspection.start_configured_web()
        self._report_start(schedulers)

    async def _close(self, shutdown: Shutdown) -> None:
        components = self._components
        try:
            await shutdown.close("the web server", components.inspection.stop_web_ui)
            # Called separately: a deadline cancels only once, so later closing would have none.
            await shutdown.close("the lifespan", self._resources.aclose)
        finally:
            if self._opened:
                await shutdown.close("the connection to the broker", components.transport.close)
            components.close_publishers()
            components.threads.close()
            await shutdown.close("the journal", components.journaling.close)

    def _report_start(self, schedulers: Sequence[Scheduler]) -> None:
        _log.info(
            "the service started",
            extra={
                "transport": shown_transports(self._config),
                "subscriptions": ", ".join(scheduler.settings.name for scheduler in schedulers),
            },
        )

    def _signalled(self, signal: signal.Signals) -> None:
        """The first signal drains, the second cancels the handlers, the third ends the process."""
        self._signals += 1
        if self._signals == 1:
            _log.info(
                "a signal began the drain; the next one cancels the handlers",
                extra={"signal": signal.name},
            )
            self.request_stop()
        elif self._signals == 2:
            _log.warning(
                "a signal cancelled the handlers; the next one exits", extra={"signal": signal.name}
            )
            for scheduler in self._running.subscriptions:
                scheduler.cancel_runs()
        else:
            _log.critical(
                "a signal ended the process; the broker redelivers unsettled messages",
                extra={"signal": signal.name},
            )
            logging.shutdown()
            os._exit(128 + signal)  # the exit status that a shell reports for this signal


async def join_groups(schedulers: Sequence[Scheduler]) -> None:
    """Joins all groups at once, because a broker may let each wait for seconds. The subscriptions
    of one group join in turn, because they may share a member."""
    groups: dict[str, list[Scheduler]] = {}
    for scheduler in schedulers:
        groups.setdefault(scheduler.settings.group, []).append(scheduler)

    async def join(group: Sequence[Scheduler]) -> None:
        for scheduler in group:
            await scheduler.join()

    joining = [asyncio.ensure_future(join(group)) for group in groups.values()]
    try:
        await asyncio.gather(*joining)
    except BaseException:
        for task in joining:
            task.cancel()
        await asyncio.gather(*joining, return_exceptions=True)
        raise
