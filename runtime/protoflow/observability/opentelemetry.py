"""OpenTelemetry metrics, for services that do not export Prometheus metrics.

https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/ (1.44, development)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from protoflow import __version__, semconv
from protoflow.context import Context
from protoflow.errors import MissingExtraError
from protoflow.message import Delivery
from protoflow.observability.report import Reporter
from protoflow.outcomes import DONE, Outcome, Postpone, Skip
from protoflow.pipeline import HandlerSpec, Middleware, Next
from protoflow.routing.routes import system_of
from protoflow.scheduling.scheduler import Scheduler
from protoflow.stats.latency import BOUNDS

try:
    from opentelemetry.metrics import Meter, MeterProvider, Observation, get_meter_provider
except ImportError as error:
    raise MissingExtraError("tracing", "opentelemetry") from error

_Value = Callable[[], Iterable[Observation]]


def process_duration(provider: MeterProvider | None = None) -> Middleware:
    """A middleware that records `messaging.process.duration`; put it after `metrics`.

    The API has no observable histogram, so this one is written for each message.
    """

    def measure(next: Next, spec: HandlerSpec) -> Next:
        record = (
            _meter(provider)
            .create_histogram(
                "messaging.process.duration",
                unit="s",
                description="Duration of processing operation.",
                explicit_bucket_boundaries_advisory=BOUNDS,
            )
            .record
        )
        now = spec.clock.monotonic
        fixed = {
            semconv.SYSTEM: system_of(spec.config, spec.transport),
            semconv.OPERATION_NAME: "process",
            semconv.DESTINATION: spec.topic,
            semconv.GROUP: spec.group,
            semconv.HANDLER: spec.name,
        }

        async def run(delivery: Delivery, context: Context) -> Outcome:
            start = now()
            outcome = await next(delivery, context)
            if type(outcome) is Postpone:  # the handler did not run
                return outcome
            attributes: Mapping[str, str] = fixed
            if outcome is not DONE and not isinstance(outcome, Skip):
                cause = outcome.__cause__ or outcome
                attributes = {**fixed, semconv.ERROR_TYPE: type(cause).__name__}
            record(now() - start, attributes)
            return outcome

        return run

    return measure


def observe(reporter: Reporter, provider: MeterProvider | None = None) -> None:
    """Makes instruments that read the counters of a service when they are exported.

    Args:
        reporter: `service.reporter`.
        provider: the meter provider; by default the global one.
    """
    meter = _meter(provider)
    instruments = _Instruments(reporter)
    for name, unit, description, read in instruments.counters():
        meter.create_observable_counter(name, [_callback(read)], unit, description)
    for name, unit, description, read in instruments.gauges():
        meter.create_observable_gauge(name, [_callback(read)], unit, description)


def _callback(read: _Value) -> Callable[[Any], Iterable[Observation]]:
    return lambda _options: read()


class _Instruments:
    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def counters(self) -> Iterable[tuple[str, str, str, _Value]]:
        """Returns name, unit, description and reader of each counter."""
        return (
            (
                "messaging.client.consumed.messages", "{message}",
                "Number of messages that were delivered to the application.", self._consumed,
            ),
            (
                "messaging.client.sent.messages", "{message}",
                "Number of messages producer attempted to send to the broker.", self._sent,
            ),
            ("protoflow.messages", "{message}", "Outcomes of messages.", self._messages),
            ("protoflow.dead_letters", "{message}", "Dead letters confirmed.", self._dead_letters),
        )  # fmt: skip

    def gauges(self) -> Iterable[tuple[str, str, str, _Value]]:
        """Returns the same for values that can fall."""
        return (
            (
                "protoflow.in_flight", "{message}", "Deliveries not settled yet.",
                lambda: self._subscriptions(lambda scheduler: scheduler.in_flight.count),
            ),
            (
                "protoflow.subscription.healthy", "1", "1 if it works.",
                lambda: self._subscriptions(lambda scheduler: int(not scheduler.problems)),
            ),
            (
                "protoflow.dead_letters.waiting", "{message}", "Dead letters that wait.",
                self._waiting,
            ),
        )  # fmt: skip

    def _consumed(self) -> Iterable[Observation]:
        for scheduler in self._reporter.host.counted:
            system = self._reporter.system_of(scheduler.settings.transport)
            fixed = {semconv.SYSTEM: system, semconv.OPERATION_NAME: "receive"}
            yield Observation(scheduler.in_flight.received, fixed | _labels(scheduler))

    def _sent(self) -> Iterable[Observation]:
        for topic, count in self._reporter.host.counters.sent.by_topic().items():
            system = self._reporter.system_with(topic)
            fixed = {semconv.SYSTEM: system, semconv.OPERATION_NAME: "send"}
            yield Observation(count, fixed | {semconv.DESTINATION: topic})

    def _messages(self) -> Iterable[Observation]:
        for scheduler in self._reporter.host.counted:
            for route in scheduler.router.all:
                labels = _labels(scheduler) | {semconv.HANDLER: route.spec.name}
                for outcome in ("handled", "dead_lettered", "dropped", "skipped"):
                    count = getattr(route.spec.stats, outcome)
                    yield Observation(count, labels | {semconv.OUTCOME: outcome})

    def _dead_letters(self) -> Iterable[Observation]:
        for topic, counters in self._reporter.host.counters.dead_letters.topics.items():
            yield Observation(counters.received, {semconv.DESTINATION: topic})

    def _waiting(self) -> Iterable[Observation]:
        for topic, counters in self._reporter.host.counters.dead_letters.topics.items():
            yield Observation(counters.current, {semconv.DESTINATION: topic})

    def _subscriptions(self, value: Callable[[Scheduler], int]) -> Iterable[Observation]:
        for scheduler in self._reporter.host.subscriptions:
            yield Observation(value(scheduler), _labels(scheduler))


def _labels(scheduler: Scheduler) -> dict[str, str]:
    settings = scheduler.settings
    return {semconv.DESTINATION: settings.topic, semconv.GROUP: settings.group}


def _meter(provider: MeterProvider | None) -> Meter:
    return (provider or get_meter_provider()).get_meter("protoflow", __version__)
