"""What a service is made of, and what it needs to run.

Loaded with the first service that is made, and not with the class: modules that define handlers,
or publish through what they are given, only name it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from protoflow import ids
from protoflow.clock import Clock
from protoflow.connection import transport_for, warn_of_memory
from protoflow.errors import ConfigError
from protoflow.middleware import default_chain
from protoflow.pipeline import Chain, Middleware, chain_of
from protoflow.publishing.events import publication_of
from protoflow.publishing.publisher import Publishing
from protoflow.registrations.plan import plan
from protoflow.scheduling.assembly import assemble
from protoflow.scheduling.threads import Threads
from protoflow.service.gc_tuning import collected_rarely
from protoflow.service.shutdown import Shutdown
from protoflow.stats.handlers import Books, classify_error
from protoflow.transport.interface import Topology, Transport

if TYPE_CHECKING:
    from types import FrameType

    from protoflow.config.settings import Config
    from protoflow.contract.spec import ProtoClass
    from protoflow.middleware import Dependencies
    from protoflow.registrations.registration import Registration
    from protoflow.scheduling.scheduler import Scheduler


class Parts:
    """What a service is made of.

    Attributes:
        clock: time and randomness.
        chain: the middlewares that the service begins with.
        transport: the broker, not yet open.
        books: statistics.
        publishing: publishes at once.
        threads: for handlers that are plain functions.
        log: where the service tells of itself.
    """

    def __init__(
        self,
        config: Config,
        middleware: Chain | Sequence[Middleware] | None,
        clock: Clock | None,
        transport: Transport | None,
        dependencies: Dependencies,
    ) -> None:
        self._config = config
        self._tracer_provider = dependencies.get("tracer_provider")
        self.clock = clock or Clock()
        self.chain = _chain(middleware, dependencies)
        self.books = Books()
        self.books.classify = dependencies.get("error_classifier") or classify_error
        if transport is None:
            warn_of_memory(config)
        self.transport = transport or transport_for(config, self.clock)
        self.publishing = Publishing(config, self.transport, self.clock, self.books.sent)
        self.publishing.encode.validator = dependencies.get("validator")
        self.threads = Threads(config.sync_threads)
        self.log = logging.getLogger("protoflow.service")

    async def assemble(
        self,
        registrations: Sequence[Registration],
        messages: Sequence[ProtoClass],
        chain: Chain,
        crashed: Callable[[BaseException], None],
    ) -> list[Scheduler]:
        """The schedulers, not yet started, of all subscriptions; their topology is there.

        Raises:
            ConfigError, RegistrationError, CapabilityError: with all mistakes.
            TransportError: the topology cannot be made, or differs.
        """
        ids.load()
        self.publishing.open(self._tracer_provider)
        plans = plan(registrations, self._config, self.transport.capabilities)
        schedulers = [
            assemble(
                subscription, self._config, chain, self.transport, self.publishing,
                self.threads, self.clock, self.books, crashed,
            )
            for subscription in plans
        ]  # fmt: skip
        topic_of = self.publishing.encode.topic_of
        for message_class in messages:
            topic_of(publication_of(message_class))
        published = {topic_of(item.publication) for item in registrations if item.publication}
        topology = Topology(
            subscriptions=tuple(subscription.settings for subscription in plans),
            topics=tuple(sorted(published)),
        )
        await self.transport.ensure(topology, self._config.topology)
        self.publishing.known(topology.topics)
        return schedulers

    def shutdown(self) -> Shutdown:
        """The deadlines of a shutdown that begins now."""
        return Shutdown(self._config.shutdown_timeout, self.log)

    @contextlib.contextmanager
    def stopping(self, signalled: Callable[[signal.Signals], None]) -> Iterator[asyncio.Event]:
        """What a service runs until. Meanwhile SIGTERM and SIGINT call, if they are handled."""
        with _signals(signalled) if self._config.handle_signals else contextlib.nullcontext():
            yield asyncio.Event()

    def report_start(self, schedulers: Sequence[Scheduler]) -> None:
        """Logs what runs where."""
        count = len(schedulers)
        self.log.info(
            "%d subscription%s on %s: %s", count, "" if count == 1 else "s", self._config.url.safe,
            ", ".join(scheduler.settings.name for scheduler in schedulers) or "it only publishes",
        )  # fmt: skip

    def report_no_handlers(self) -> None:
        """A service that runs until it is stopped, and has nothing to do."""
        self.log.warning(
            "no handler is registered: this service on %s handles nothing", self._config.url.safe
        )

    def exit_now(self, signal: signal.Signals) -> None:
        """Ends the process, with the status that a shell gives for the signal."""
        self.log.critical("%s: exiting at once; what runs is delivered again", signal.name)
        logging.shutdown()
        os._exit(128 + signal)

    def garbage_collected_rarely(self) -> contextlib.AbstractContextManager[None]:
        """As the config says; see `protoflow.garbage`."""
        return collected_rarely(self._config.gc_threshold)


def _chain(middleware: Chain | Sequence[Middleware] | None, dependencies: Dependencies) -> Chain:
    if isinstance(middleware, Chain) and dependencies.keys() & {"hooks", "outbox"}:
        raise ConfigError("a whole chain is given: give hooks and outbox to default_chain, too")
    return chain_of(middleware, default_chain(dependencies))


@contextlib.contextmanager
def _signals(called: Callable[[signal.Signals], None]) -> Iterator[None]:
    """SIGTERM and SIGINT call; the handlers that were there come back."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}

    def fallback(number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(called, signal.Signals(number))

    for number in numbers:
        try:
            loop.add_signal_handler(number, called, number)
        except NotImplementedError:  # Windows
            signal.signal(number, fallback)
    try:
        yield
    finally:
        for number in numbers:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            signal.signal(number, before[number])
