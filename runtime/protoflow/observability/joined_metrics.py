"""Joins the metrics of several processes in one text; counters are summed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from protoflow.errors import MissingExtraError
from protoflow.observability.application_metrics import add_application_metrics

try:
    from prometheus_client import CollectorRegistry, Metric, generate_latest
    from prometheus_client.exposition import CONTENT_TYPE_LATEST
    from prometheus_client.parser import text_string_to_metric_families
except ImportError as error:
    raise MissingExtraError("metrics", "prometheus_client") from error


def _earliest(values: Iterable[float]) -> float:
    return min((value for value in values if value), default=0.0)


#: These metrics have the same value in all processes, so they are not summed.
_JOIN: Final[Mapping[str, Callable[[Sequence[float]], float]]] = {
    "protoflow_lag_messages": max,
    "protoflow_lag_seconds": max,
    "protoflow_dead_letters_waiting": max,
    "protoflow_dead_letters_oldest_timestamp_seconds": _earliest,
    "protoflow_dead_letters_newest_timestamp_seconds": max,
    "protoflow_outbox_pending": max,
    "protoflow_transport_warnings": max,
    "protoflow_outbox_oldest_timestamp_seconds": _earliest,
    "protoflow_subscription_healthy": min,
}


def joined(texts: Sequence[bytes]) -> tuple[bytes, str]:
    """Returns one text from the texts of several processes, and its content type."""
    registry = CollectorRegistry()
    registry.register(_Joined([text.decode() for text in texts]))
    add_application_metrics(registry)
    return generate_latest(registry), CONTENT_TYPE_LATEST


class _Joined:
    """Collects the families of all texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts

    def collect(self) -> Iterator[Metric]:
        """Yields each family once."""
        families: dict[str, Metric] = {}
        values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], list[float]]] = {}
        for text in self._texts:
            for found in text_string_to_metric_families(text):
                families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                samples = values.setdefault(found.name, {})
                for sample in found.samples:
                    key = (sample.name, tuple(sample.labels.items()))
                    samples.setdefault(key, []).append(sample.value)
        for name, family in families.items():
            join = _JOIN.get(name, sum)
            for (sample_name, labels), found_values in values[name].items():
                family.add_sample(sample_name, dict(labels), join(found_values))
            yield family
