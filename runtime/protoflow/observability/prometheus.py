"""Prometheus: a custom collector that reads the counters when it is scraped.

Names and labels follow https://prometheus.io/docs/practices/naming/ and, where OpenTelemetry has
a convention, its translation. Labels come from the contract only, never from messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from protoflow.errors import MissingExtraError
from protoflow.observability.application_metrics import add_application_metrics
from protoflow.observability.report import Reporter
from protoflow.pipeline import HandlerSpec
from protoflow.scheduling.scheduler import Scheduler
from protoflow.transport.interface import ReportsWarnings

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        Metric,
    )
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector
except ImportError as error:
    raise MissingExtraError("metrics", "prometheus_client") from error

_HANDLER = ("topic", "group", "handler")
_SUBSCRIPTION = ("topic", "group")
_DEAD_LETTER_TOPIC = ("dead_letter_topic",)
_PROCESS = (
    "messaging_system",
    "messaging_operation_name",
    "messaging_destination_name",
    "messaging_consumer_group_name",
    "protoflow_handler",
)
_CONSUME = _PROCESS[:4]
_SEND = _PROCESS[:3]
#: Outcomes of messages; each message has one of them.
_OUTCOMES = ("handled", "dead_lettered", "dropped", "skipped", "unhandled", "tombstones")


class ServiceCollector(Collector):
    """The counters of one service as metrics."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def describe(self) -> Iterable[Metric]:
        """Returns nothing, because registering must not read the counters."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yields all metrics; lag and dead letters are those of the last refresh."""
        schedulers = self._reporter.host.subscriptions
        specs = [route.spec for scheduler in schedulers for route in scheduler.router.all]
        yield from self._messaging(schedulers, specs)
        yield from _handlers(specs)
        yield from _subscriptions(schedulers)
        yield from self._lag(schedulers)
        yield from self._dead_letters()
        yield from self._outbox()
        if isinstance(transport := self._reporter.host.transport, ReportsWarnings):
            yield GaugeMetricFamily(
                "protoflow_transport_warnings",
                "Problems of the transport that do not affect readiness.",
                len(transport.warnings()),
            )

    def _messaging(
        self, schedulers: Sequence[Scheduler], specs: Sequence[HandlerSpec]
    ) -> Iterator[Metric]:
        system_of = self._reporter.system_of
        durations = HistogramMetricFamily(
            "messaging_process_duration_seconds", "Duration of runs of handlers.", labels=_PROCESS
        )
        for spec in specs:
            durations.add_metric(
                (system_of(spec.transport), "process", spec.topic, spec.group, spec.name),
                [(_bound(bound), count) for bound, count in spec.stats.timings.histogram()],
                spec.stats.timings.seconds,
            )
        consumed = CounterMetricFamily(
            "messaging_client_consumed_messages", "Messages handed over by the broker.",
            labels=_CONSUME,
        )  # fmt: skip
        for scheduler in schedulers:
            settings = scheduler.settings
            consumed.add_metric(
                (system_of(settings.transport), "receive", settings.topic, settings.group),
                scheduler.in_flight.received,
            )
        sent = CounterMetricFamily(
            "messaging_client_sent_messages", "Messages that the broker confirmed.", labels=_SEND
        )
        for topic, count in self._reporter.host.counters.sent.by_topic().items():
            sent.add_metric((self._reporter.system_with(topic), "send", topic), count)
        return iter((durations, consumed, sent))

    def _lag(self, schedulers: Sequence[Scheduler]) -> Iterator[Metric]:
        messages = GaugeMetricFamily(
            "protoflow_lag_messages", "Messages of a group that wait at the broker.",
            labels=_SUBSCRIPTION,
        )  # fmt: skip
        seconds = GaugeMetricFamily(
            "protoflow_lag_seconds",
            "Age of the oldest message that waits at the broker.",
            labels=_SUBSCRIPTION,
        )
        for scheduler in schedulers:
            lag = self._reporter.lag.get(scheduler.settings.name)
            if lag is not None:
                messages.add_metric(_labels(scheduler), lag.messages)
                if lag.seconds is not None:
                    seconds.add_metric(_labels(scheduler), lag.seconds)
        return iter((messages, seconds))

    def _outbox(self) -> Iterator[Metric]:
        relay = self._reporter.relay
        if relay is not None:
            yield GaugeMetricFamily(
                "protoflow_outbox_pending", "Messages that wait in the outbox.", relay.waiting
            )
            yield GaugeMetricFamily(
                "protoflow_outbox_oldest_timestamp_seconds",
                "Time of the oldest message in the outbox; 0 if there is none.",
                relay.oldest_at,
            )
            yield CounterMetricFamily(
                "protoflow_outbox_parked",
                "Messages that the relay parked since the process started.",
                relay.parked,
            )

    def _dead_letters(self) -> Iterator[Metric]:
        for name, kind, help, attribute in _DEAD_LETTER_METRICS:
            family = kind(name, help, labels=_DEAD_LETTER_TOPIC)
            for topic, counters in self._reporter.host.counters.dead_letters.topics.items():
                family.add_metric((topic,), float(getattr(counters, attribute)))
            yield family


_DEAD_LETTER_METRICS = (
    ("protoflow_dead_letters", CounterMetricFamily, "Dead letters confirmed.", "received"),
    (
        "protoflow_dead_letter_attempts", CounterMetricFamily,
        "Failed runs of all dead letters together.", "attempts",
    ),
    ("protoflow_dead_letters_replayed", CounterMetricFamily, "Dead letters replayed.", "replayed"),
    ("protoflow_dead_letters_purged", CounterMetricFamily, "Dead letters deleted.", "purged"),
    ("protoflow_dead_letters_waiting", GaugeMetricFamily, "Dead letters that wait.", "current"),
    (
        "protoflow_dead_letters_oldest_timestamp_seconds", GaugeMetricFamily,
        "Time of the oldest dead letter; 0 if there is none.", "oldest_at",
    ),
    (
        "protoflow_dead_letters_newest_timestamp_seconds", GaugeMetricFamily,
        "Time of the newest dead letter; 0 if there is none.", "newest_at",
    ),
)  # fmt: skip


def _handlers(specs: Sequence[HandlerSpec]) -> Iterator[Metric]:
    messages = CounterMetricFamily(
        "protoflow_messages", "Outcomes of messages.", labels=(*_HANDLER, "outcome")
    )
    errors = CounterMetricFamily(
        "protoflow_errors", "Failed runs and bad messages.", labels=(*_HANDLER, "category")
    )
    failures = CounterMetricFamily(
        "protoflow_settle_failures", "Settlements that the broker did not store.",
        labels=(*_HANDLER, "result"),
    )  # fmt: skip
    plain = {
        "retried": CounterMetricFamily("protoflow_retries", "Runs repeated.", labels=_HANDLER),
        "failed_runs": CounterMetricFamily(
            "protoflow_failed_runs", "Runs of handlers that failed.", labels=_HANDLER
        ),
        "published": CounterMetricFamily(
            "protoflow_outputs", "Outputs confirmed by the broker.", labels=_HANDLER
        ),
        "released": CounterMetricFamily(
            "protoflow_released", "Messages given back unfinished.", labels=_HANDLER
        ),
    }
    for spec in specs:
        labels, stats = (spec.topic, spec.group, spec.name), spec.stats
        for outcome in _OUTCOMES:
            messages.add_metric((*labels, outcome), getattr(stats, outcome))
        for category, count in stats.errors.by_category().items():
            errors.add_metric((*labels, category), count)
        for result in ("lost", "unknown"):
            failures.add_metric((*labels, result), getattr(stats, result))
        for name, family in plain.items():
            family.add_metric(labels, getattr(stats, name))
    return iter((messages, errors, failures, *plain.values()))


def _subscriptions(schedulers: Sequence[Scheduler]) -> Iterator[Metric]:
    gauges = (
        ("protoflow_in_flight", "Deliveries not settled yet.", lambda s: s.in_flight.count),
        ("protoflow_in_flight_bytes", "Their size.", lambda s: s.in_flight.bytes),
        ("protoflow_in_flight_limit", "Their bound.", lambda s: s.settings.max_in_flight),
        ("protoflow_running_handlers", "Running handlers.", lambda s: s.running),
        ("protoflow_waiting_retries", "Messages waiting in memory.", lambda s: s.waiting),
        ("protoflow_subscription_healthy", "1 if it works.", lambda s: not s.problems),
        ("protoflow_subscription_paused", "1 if an operator paused it.", lambda s: s.paused),
    )
    for name, help, value in gauges:
        family = GaugeMetricFamily(name, help, labels=_SUBSCRIPTION)
        for scheduler in schedulers:
            family.add_metric(_labels(scheduler), float(value(scheduler)))
        yield family


class Exposition:
    """A separate registry with the metrics of one service, and its text.

    Two services in one process do not share series, and the global registry stays unchanged.

    Args:
        reporter: `service.reporter`.
        application: whether to add the metrics of the application in PROMETHEUS_MULTIPROC_DIR.
    """

    def __init__(self, reporter: Reporter, *, application: bool = True) -> None:
        self.registry: Final = CollectorRegistry()
        self.registry.register(ServiceCollector(reporter))
        if application:
            add_application_metrics(self.registry)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """Returns the text and its content type: OpenMetrics if the client accepts it."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type


def _labels(scheduler: Scheduler) -> tuple[str, str]:
    return (scheduler.settings.topic, scheduler.settings.group)


def _bound(seconds: float) -> str:
    return "+Inf" if seconds == float("inf") else repr(seconds)
