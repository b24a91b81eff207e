from __future__ import annotations

from typing import Any

from google.protobuf.wrappers_pb2 import Int64Value
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from protoflow import Context
from protoflow.middleware import default_chain
from protoflow.observability.opentelemetry import observe, process_duration

from tests.middleware.harness import NAME, TO_DONE, put, running, worker


async def bill(message: Any, _context: Context) -> Int64Value:
    if message.value == "bad":
        raise ValueError("secret")
    return Int64Value(value=1)


async def test_metrics_follow_the_conventions() -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    chain = default_chain().add("otel", process_duration(provider), after="metrics")
    async with running(worker(bill, publication=TO_DONE), middleware=chain) as service:
        observe(service.service.reporter, provider)
        await put(service, "good", "bad")
        data: Any = reader.get_metrics_data()
    found = {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    points = {
        name: {frozenset(point.attributes.items()): point for point in metric.data.data_points}
        for name, metric in found.items()
    }
    process = {
        "messaging.system": "memory",
        "messaging.operation.name": "process",
        "messaging.destination.name": "work",
        "messaging.consumer.group.name": "workers",
        "protoflow.handler": NAME,
    }
    durations = points["messaging.process.duration"]
    assert found["messaging.process.duration"].unit == "s"
    assert durations[frozenset(process.items())].count == 1
    failed = durations[frozenset({**process, "error.type": "ValueError"}.items())]
    assert failed.count == 3
    assert list(failed.explicit_bounds)[:2] == [0.005, 0.01]
    (consumed,) = points["messaging.client.consumed.messages"].values()
    assert consumed.value == 2
    assert {point.value for point in points["messaging.client.sent.messages"].values()} == {1, 2}
    outcomes = {
        point.attributes["protoflow.outcome"]: point.value
        for point in points["protoflow.messages"].values()
    }
    assert outcomes == {"handled": 1, "dead_lettered": 1, "dropped": 0, "skipped": 0}
    (waiting,) = points["protoflow.dead_letters.waiting"].values()
    assert waiting.value == 1
    (healthy,) = points["protoflow.subscription.healthy"].values()
    assert healthy.value == 1
    assert "secret" not in str(data.to_json())
    provider.shutdown()
