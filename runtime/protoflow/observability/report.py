"""Reports on handlers, in the shape of the Go runtime's `HandlerInfo` JSON."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from protoflow.clock import Clock
from protoflow.config.named_transports import DEFAULT
from protoflow.config.settings import Config
from protoflow.dataclass_record import dataclass_record
from protoflow.errors import TopologyError, TransportError
from protoflow.observability.resources import ResourceMeter, ResourceUsage
from protoflow.outbox import OutboxRelay
from protoflow.pipeline import HandlerSpec
from protoflow.routing.routes import system_of
from protoflow.routing.transport import RoutedTransport, part_of, parts_of
from protoflow.scheduling.scheduler import Scheduler
from protoflow.stats.dead_letters import timestamp
from protoflow.stats.handlers import Counters, ErrorBreakdown
from protoflow.stats.latency import LatencyMetrics, ThroughputMetrics
from protoflow.transport.dead_letters import KeepsDeadLetters
from protoflow.transport.interface import SubscriptionSettings, Transport
from protoflow.transport.lag import Lag, LagReader

_log = logging.getLogger("protoflow.observability")

DEPENDENCY_UNKNOWN = "unknown"
DEPENDENCY_HEALTHY = "healthy"
DEPENDENCY_DEGRADED = "degraded"

#: Within this many seconds, the broker is not asked again for lag and for dead letters. Counting
#: dead letters may require reading them all, so it takes at most a hundredth of the time.
_FRESH_LAG = 1.0
_FRESH_DEAD_DEAD_LETTERS = 15.0
_SHARE = 100


@dataclass_record
class BacklogMetrics:
    """Waiting messages of the subscription; handlers of one topic and group have the same.

    Attributes:
        in_flight: deliveries not settled yet.
        max_in_flight: the highest number of them so far.
        last_queue_depth: messages of the group that wait at the broker; -1 is unknown.
        estimated_lag_millis: the age of the oldest message, otherwise an estimate from the
            throughput; -1: unknown.
    """

    in_flight: int = 0
    max_in_flight: int = 0
    last_queue_depth: int = -1
    estimated_lag_millis: int = -1


@dataclass_record
class DependencyHealth:
    """The state of a handler's dependency."""

    name: str
    status: str
    last_checked: str | None
    details: str = ""


@dataclass_record
class HandlerReport:
    """The state of a handler. Messages and attempts are counted separately."""

    messages_processed: int
    messages_failed: int
    attempts: int
    attempts_failed: int
    counters: Mapping[str, int]
    total_processing_time_ns: int
    last_processed_at: str | None
    latency: LatencyMetrics
    throughput: ThroughputMetrics
    errors: ErrorBreakdown
    resource: ResourceUsage
    backlog: BacklogMetrics
    dependencies: tuple[DependencyHealth, ...]


@dataclass_record
class HandlerInfo:
    """A handler with its topics and its state."""

    name: str
    consume_queue: str
    publish_queue: str
    group: str
    stats: HandlerReport

    def as_dict(self) -> dict[str, Any]:
        """Returns the data as JSON, under the Go runtime's names."""
        return asdict(self)


class Host(Protocol):
    """The part of a service that reports use."""

    counters: Counters

    @property
    def transport(self) -> Transport:
        """The broker."""
        ...

    @property
    def subscriptions(self) -> Sequence[Scheduler]:
        """The running subscriptions."""
        ...

    @property
    def counted(self) -> Sequence[Scheduler]:
        """The subscriptions with counters: the running ones, afterwards those that ended."""
        ...

    @property
    def watched(self) -> Sequence[SubscriptionSettings]:
        """The subscriptions whose lag is read: running ones, or all of a contract."""
        ...

    def publish_topic(self, spec: HandlerSpec) -> str:
        """Returns the topic that a handler publishes to; empty if there is none."""
        ...


class Reporter:
    """Reads the counters of a service and queries its broker."""

    def __init__(self, host: Host, clock: Clock, config: Config) -> None:
        self.host = host
        self.clock = clock
        self._config = config
        self.lag: dict[str, Lag] = {}
        #: Empties the outbox; None if there is none.
        self.relay: OutboxRelay | None = None
        self._meter = ResourceMeter()
        self._next_lag = self._next_dead_letters = float("-inf")

    def system_of(self, transport: str) -> str:
        """Returns the kind of broker of a transport, `messaging.system`."""
        return system_of(self._config, transport)

    def system_with(self, topic: str) -> str:
        """Returns the kind of broker to which messages of a topic are sent."""
        return system_of(self._config, self._transport_with(topic))

    def _transport_with(self, topic: str) -> str:
        transport = self.host.transport
        if isinstance(transport, RoutedTransport):
            return transport.routes.of_sent(topic)
        return DEFAULT

    async def refresh(self) -> None:
        """Queries lag and dead letters, unless the last answer is recent."""
        now = self.clock.monotonic()
        counting = now >= self._next_dead_letters
        if counting:
            self._next_dead_letters = float("inf")  # no other task asks until this is done
        lagging = now >= self._next_lag
        if lagging:
            self._next_lag = now + _FRESH_LAG
        try:
            await asyncio.gather(
                *(
                    self._refresh_from(name, part, lagging=lagging, counting=counting)
                    for name, part in parts_of(self.host.transport).items()
                )
            )
        finally:
            if counting:
                took = self.clock.monotonic() - now
                self._next_dead_letters = now + max(_FRESH_DEAD_DEAD_LETTERS, _SHARE * took)
        if self.relay is not None:
            await self.relay.refresh()

    async def _refresh_from(
        self, name: str, transport: Transport, *, lagging: bool, counting: bool
    ) -> None:
        """Asks one transport; the name is empty if there is only one."""
        try:
            if lagging:
                await self._refresh_lag(name, transport)
            if counting:
                await self._refresh_dead_letters(name, transport)
        except TransportError as error:
            extra = {"error": str(error), "transport": name or DEFAULT}
            _log.warning("lag and dead letters were not read", extra=extra)

    async def _refresh_lag(self, name: str, transport: Transport) -> None:
        if not (transport.capabilities.lag and isinstance(transport, LagReader)):
            return
        for settings in self.host.watched:
            if settings.broadcast or name not in ("", settings.transport):
                continue
            try:
                self.lag[settings.name] = await transport.lag(settings.topic, settings.group)
            except TopologyError:  # the contract's service has not started yet
                self.lag.pop(settings.name, None)

    async def _refresh_dead_letters(self, name: str, transport: Transport) -> None:
        if not (transport.capabilities.dead_letters and isinstance(transport, KeepsDeadLetters)):
            return
        store = transport.dead_letters
        for topic, counters in self.host.counters.dead_letters.topics.items():
            if name not in ("", self._transport_with(topic)):
                continue
            try:
                count = await store.count(topic)
            except TopologyError:  # see above
                count = 0
            oldest: float | None = None
            if counters.oldest_unknown(count):
                async with store.scan(topic) as scan:
                    first = await scan.take(1)
                oldest = first[0].time if first else 0.0
            counters.set_current(count, oldest, self.clock.now())

    def handlers(self) -> list[HandlerInfo]:
        """Returns the state of every handler; lag and dead letters are from the last `refresh`."""
        resource = self._meter.read()
        return [
            HandlerInfo(
                name=route.spec.name,
                consume_queue=route.spec.topic,
                publish_queue=self.host.publish_topic(route.spec),
                group=route.spec.group,
                stats=self._report(scheduler, route.spec, resource),
            )
            for scheduler in self.host.subscriptions
            for route in scheduler.router.all
        ]

    def _report(
        self, scheduler: Scheduler, spec: HandlerSpec, resource: ResourceUsage
    ) -> HandlerReport:
        stats = spec.stats
        monotonic = self.clock.monotonic()
        throughput = stats.timings.throughput(monotonic)
        ago = monotonic - stats.timings.last_at
        return HandlerReport(
            messages_processed=stats.handled,
            messages_failed=stats.dead_lettered + stats.dropped,
            attempts=stats.timings.runs,
            attempts_failed=stats.failed_runs,
            counters=stats.as_dict(),
            total_processing_time_ns=int(stats.timings.seconds * 1e9),
            last_processed_at=timestamp(self.clock.now() - ago) if stats.timings.last_at else None,
            latency=stats.timings.latency(),
            throughput=throughput,
            errors=stats.errors,
            resource=resource,
            backlog=self._backlog(scheduler, throughput.current_rps),
            dependencies=self._dependencies(scheduler),
        )

    def _backlog(self, scheduler: Scheduler, rate: float) -> BacklogMetrics:
        lag = self.lag.get(scheduler.settings.name)
        millis = -1
        if lag is not None and lag.seconds is not None:
            millis = int(lag.seconds * 1000)
        elif lag is not None and (rate or not lag.messages):
            millis = int(lag.messages / rate * 1000) if lag.messages else 0
        return BacklogMetrics(
            in_flight=scheduler.in_flight.count,
            max_in_flight=scheduler.in_flight.most,
            last_queue_depth=lag.messages if lag is not None else -1,
            estimated_lag_millis=millis,
        )

    def _dependencies(self, scheduler: Scheduler) -> tuple[DependencyHealth, ...]:
        now = timestamp(self.clock.now())
        name = scheduler.settings.transport
        broken = part_of(self.host.transport, name).health()
        problems = "; ".join(scheduler.problems.values())
        # It is unknown whether a paused subscription would work.
        quiet = DEPENDENCY_UNKNOWN if scheduler.paused else DEPENDENCY_HEALTHY
        return tuple(
            DependencyHealth(
                name=name,
                status=DEPENDENCY_DEGRADED if wrong else good,
                last_checked=now,
                details=wrong or "",
            )
            for name, wrong, good in (
                (self.system_of(name), broken, DEPENDENCY_HEALTHY),
                (f"subscription {scheduler.settings.name}", problems, quiet),
            )
        )
