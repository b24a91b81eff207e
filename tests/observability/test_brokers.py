"""What observability promises of real brokers: one trace through them, and counts that are true
after a restart."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from protoflow import Config, Context, Output, Service
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.middleware import Dependencies
from protoflow.observability.prometheus import Exposition

from tests.acceptance.targets import TARGETS, Target
from tests.middleware.harness import DONE, TO_DONE, TO_WORK, worker

FAST = DeliveryPolicy(retry=RetryPolicy(max_attempts=2, initial_backoff=0.05, jitter=0.0))


class Case:
    """A transport with a namespace of its own, in which services come and go."""

    def __init__(self, target: Target, url: str) -> None:
        self.target = target
        self.settings: dict[str, Any] = {
            "transport": url,
            "namespace": f"t{uuid.uuid4().hex[:8]}",
            "environ": {},
            "transport_options": dict(target.options),
            "retry_in_place": 1.0,
        }

    def named(self, topic: str) -> str:
        return f"{self.settings['namespace']}..{topic}"

    @asynccontextmanager
    async def service(self, *handlers: Any, **given: Any) -> AsyncIterator[Service]:
        service = Service(Config(**self.settings), **given)
        service.register(*handlers)
        async with service:
            yield service

    async def until(self, true: Callable[[], Any], seconds: float = 15.0) -> None:
        async with asyncio.timeout(seconds * self.target.patience):
            while not true():
                await asyncio.sleep(0.02)


@pytest.fixture(
    # NATS core and HTTP keep neither retries nor dead letters.
    params=[target for target in TARGETS.values() if target.name not in ("nats", "http")],
    ids=lambda target: target.name,
)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    target: Target = request.param
    url = target.fresh_url(tmp_path)
    if url is None:
        pytest.skip(f"broker: {target.broker}")
    return Case(target, url)


def span_id(span: ReadableSpan) -> int:
    assert span.context is not None
    number: int = span.context.span_id
    return number


async def test_one_trace_from_publisher_to_replay(place: Case) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    fails = True
    ends: list[str] = []

    async def first(_message: object, context: Context) -> Int64Value:
        if context.attempt == 1:
            raise ConnectionError
        return Int64Value(value=1)

    async def second(_message: object, _context: Context) -> None:
        if fails:
            raise ValueError
        ends.append("second")

    handlers = (
        worker(first, publication=TO_DONE, delivery=FAST),
        worker(second, name="test.v1.Second.Do", input=DONE, group="second", delivery=FAST),
    )
    async with place.service(*handlers, **Dependencies(tracer_provider=provider)) as service:
        if not service.capabilities.dead_letters:
            pytest.skip("capability: dead_letters")
        await service.publish_outputs(TO_WORK, [Output(StringValue(value="a"))])
        stats = service.stats()["test.v1.Second.Do"]
        await place.until(lambda: stats.dead_lettered)
        fails = False
        dead = place.named("done..second..dead")
        assert await service.dead_letters.count(dead) == 1
        assert await service.dead_letters.replay(dead) == 1
        await place.until(lambda: ends and stats.handled)

    spans = sorted(exporter.get_finished_spans(), key=lambda span: span.start_time or 0)
    by_id = {span_id(span): span for span in spans}
    assert len({span.context.trace_id for span in spans if span.context}) == 1
    story = [span.name.replace(f"{place.settings['namespace']}..", "") for span in spans]
    assert story == [
        "send work",
        "process work",
        "process work",
        "create done",
        "process done",
        "process done",
        "create done..second..dead",
        "process done",
    ]
    # Each span follows from the one before it in the story.
    for before, after in pairwise(spans):
        assert after.parent is not None
        assert by_id[after.parent.span_id] is before, after.name


async def test_dead_letters_are_counted_after_a_restart(place: Case) -> None:
    async def broken(_message: object, _context: Context) -> None:
        raise ValueError

    handler = worker(broken, delivery=FAST)
    dead = place.named("work..workers..dead")
    async with place.service(handler) as service:
        if not service.capabilities.dead_letters:
            pytest.skip("capability: dead_letters")
        if not service.capabilities.durable:
            pytest.skip("capability: durable")
        outputs = [Output(StringValue(value=value)) for value in "abc"]
        await service.publish_outputs(TO_WORK, outputs)
        stats = service.stats()["test.v1.Worker.Do"]
        await place.until(lambda: stats.dead_lettered == 3)
        assert service.counters.dead_letters.topics[dead].current == 3
    async with place.service(handler) as service:
        book = service.counters.dead_letters.topics[dead]
        assert book.current == 0  # nobody has looked yet
        await service.reporter.refresh()
        assert (book.current, book.received) == (3, 0)
        assert book.oldest_at > 1.7e9
        text = Exposition(service.reporter).render()[0].decode()
        assert f'protoflow_dead_letters_waiting{{dead_letter_topic="{dead}"}} 3.0' in text
        await service.publish_outputs(TO_WORK, outputs[:1])
        stats = service.stats()["test.v1.Worker.Do"]
        await place.until(lambda: stats.dead_lettered == 1)
        assert book.current == 4
        await service.dead_letters.purge(dead)
        assert book.current == 0


async def test_the_backlog_is_what_the_broker_says(place: Case) -> None:
    gate = asyncio.Event()

    async def slow(_message: object, _context: Context) -> None:
        await gate.wait()

    handler = worker(slow, delivery=DeliveryPolicy(concurrency=1))
    place.settings["max_in_flight"] = 2
    async with place.service(handler) as service:
        if not service.capabilities.lag:
            pytest.skip("capability: lag")
        outputs = [Output(StringValue(value=str(index))) for index in range(10)]
        await service.publish_outputs(TO_WORK, outputs)
        await place.until(lambda: service.subscriptions[0].in_flight.count >= 2)
        await service.reporter.refresh()
        (info,) = service.handlers()
        assert info.stats.backlog.last_queue_depth == 10
        assert 1 <= info.stats.backlog.in_flight <= 10
        assert info.stats.backlog.max_in_flight >= info.stats.backlog.in_flight
        assert [item.status for item in info.stats.dependencies] == ["healthy", "healthy"]
        gate.set()
        await place.until(lambda: service.stats()["test.v1.Worker.Do"].handled == 10)
