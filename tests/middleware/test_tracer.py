from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int64Value
from opentelemetry import baggage, trace
from opentelemetry.context import attach, detach
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from protoflow import Context, Message, Skip, wire
from protoflow.contract.spec import BatchPolicy
from protoflow.errors import PublishError
from protoflow.middleware import Dependencies, tracer
from protoflow.tracing import find_provider
from protoflow.tracing.propagation import extract, span_context
from protoflow.tracing.spans import PublishTracing

from tests.middleware.harness import DONE, TO_DONE, nothing, put, running, worker

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = PARENT[:-2] + "00"


class Traced:
    def __init__(self, **given: Any) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**given)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.dependencies = Dependencies(tracer_provider=self.provider)

    @property
    def spans(self) -> Sequence[ReadableSpan]:
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span


@pytest.fixture
def traced() -> Iterator[Traced]:
    traced = Traced()
    yield traced
    traced.provider.shutdown()


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None, span.name
    return span.parent.span_id


async def test_one_trace_from_publisher_to_dead_letter_and_replay(traced: Traced) -> None:
    async def first(_message: object, context: Context) -> Int64Value:
        if context.attempt == 1:
            raise ConnectionError
        return Int64Value(value=1)

    fails = True

    async def second(_message: object, _context: Context) -> None:
        if fails:
            raise ValueError("card 4111")

    handlers = (
        worker(first, publication=TO_DONE),
        worker(second, name="test.v1.Second.Do", input=DONE, group="second"),
    )
    async with running(*handlers, dependencies=traced.dependencies) as service:
        await put(service, "a")
        fails = False
        await service.service.dead_letters.replay("done..second..dead")
        await service.settled()

    send = traced.one("send work")
    failed, again = traced.named("process work")
    create = traced.one("create done")
    *_, last, replayed = traced.named("process done")
    dead_letter = traced.one("create done..second..dead")
    assert len({span.context.trace_id for span in traced.spans if span.context}) == 1
    assert send.parent is None
    assert parent_of(failed) == id_of(send)
    assert parent_of(again) == id_of(failed)
    assert [link.context.span_id for link in again.links] == [id_of(send)]
    assert parent_of(create) == id_of(again)
    assert parent_of(traced.named("process done")[0]) == id_of(create)
    assert parent_of(dead_letter) == id_of(last)
    assert parent_of(replayed) == id_of(dead_letter)
    assert [span.kind for span in (send, failed, create)] == [
        SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.PRODUCER,
    ]  # fmt: skip
    assert [span.status.status_code for span in (failed, again)] == [
        StatusCode.ERROR, StatusCode.UNSET,
    ]  # fmt: skip
    assert "4111" not in "".join(span.to_json() for span in traced.spans)


async def test_attributes_are_those_of_the_conventions(traced: Traced) -> None:
    async with running(worker(nothing), dependencies=traced.dependencies) as service:
        (id,) = await put(service, "a", metadata={"correlation_id": "c1"})
    assert dict(traced.one("process work").attributes or {}) == {
        "messaging.system": "memory",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "work",
        "messaging.consumer.group.name": "workers",
        "messaging.message.id": id,
        "messaging.message.conversation_id": "c1",
        "messaging.message.body.size": 3,
        "protoflow.handler": "test.v1.Worker.Do",
    }
    assert dict(traced.one("send work").attributes or {}) == {
        "messaging.system": "memory",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": "work",
        "messaging.message.id": id,
        "messaging.message.conversation_id": "c1",
        "messaging.message.body.size": 3,
    }


async def test_errors_are_reported_by_type_and_skips_are_none(traced: Traced) -> None:
    async def picky(message: Any, _context: Context) -> None:
        raise Skip if message.value == "skip" else ValueError("secret")

    async with running(worker(picky), dependencies=traced.dependencies) as service:
        await put(service, "skip", "bad")
    skipped, *failed = traced.named("process work")
    assert skipped.attributes is not None
    assert skipped.attributes["protoflow.outcome"] == "skip"
    assert skipped.status.status_code is StatusCode.UNSET
    outcomes = [(span.attributes or {})["protoflow.outcome"] for span in failed]
    assert outcomes == ["RetryAfter", "RetryAfter", "Exhausted"]
    assert {(span.attributes or {})["error.type"] for span in failed} == {"ValueError"}
    assert [(span.attributes or {}).get("protoflow.attempt") for span in failed] == [None, 2, 3]


async def test_a_foreign_parent_state_and_baggage_go_through(traced: Traced) -> None:
    seen: list[object] = []

    async def handler(_message: object, _context: Context) -> Int64Value:
        seen.append(baggage.get_baggage("tenant"))
        seen.append(trace.get_current_span().get_span_context().trace_id)
        return Int64Value(value=1)

    metadata = {"traceparent": PARENT, "tracestate": "vendor=1", "baggage": "tenant=acme"}
    async with running(
        worker(handler, publication=TO_DONE), dependencies=traced.dependencies
    ) as service:
        await put(service, "a", metadata=metadata)
        out = next(message for message in service.messages if message.topic == "done")
    trace_id = int(PARENT[3:35], 16)
    assert seen == ["acme", trace_id]
    create = traced.one("create done")
    assert create.context is not None
    assert out.metadata["traceparent"] == f"00-{trace_id:032x}-{id_of(create):016x}-01"
    assert out.metadata["tracestate"] == "vendor=1"
    assert out.metadata["baggage"] == "tenant=acme"


async def test_spans_of_the_handler_are_parents_of_its_outputs(traced: Traced) -> None:
    own = traced.provider.get_tracer("mine")

    async def handler(_message: object, context: Context) -> None:
        with own.start_as_current_span("compute"):
            await context.publish_outputs(TO_DONE, [_output(1)])
        await context.publish(Message(id="raw", topic="done", payload=b""))

    async with running(worker(handler), dependencies=traced.dependencies) as service:
        await put(service, "a")
        raw = next(message for message in service.messages if message.id == "raw")
    compute = traced.one("compute")
    assert parent_of(compute) == id_of(traced.one("process work"))
    first, second = traced.named("create done")
    assert parent_of(first) == id_of(compute)
    assert raw.metadata["traceparent"].split("-")[2] == f"{id_of(second):016x}"


async def test_by_setting_spans_link_instead(traced: Traced) -> None:
    async with running(
        worker(nothing), dependencies=traced.dependencies, trace_links=True
    ) as service:
        await put(service, "a")
    process, send = traced.one("process work"), traced.one("send work")
    assert process.parent is None
    assert [link.context.span_id for link in process.links] == [id_of(send)]


async def test_a_batch_links_to_every_sender(traced: Traced) -> None:
    async def handler(_messages: object, _context: Context) -> None: ...

    batch = worker(handler, batch=BatchPolicy(max_messages=3, max_wait=0.1))
    async with running(batch, dependencies=traced.dependencies) as service:
        await put(service, "a", "b", "c")
    process = traced.one("process work")
    assert process.parent is None
    assert [link.context.span_id for link in process.links] == [
        id_of(span) for span in traced.named("send work")
    ]
    assert (process.attributes or {})["messaging.batch.message_count"] == 3


async def test_what_the_sender_did_not_sample_is_not_sampled() -> None:
    async def handler(_message: object, _context: Context) -> Int64Value:
        return Int64Value(value=1)

    traced = Traced()  # the default sampler follows the parent
    handlers = worker(handler, publication=TO_DONE)
    async with running(handlers, dependencies=traced.dependencies) as service:
        await put(service, "a", metadata={"traceparent": UNSAMPLED})
        sent = service.messages[0].metadata["traceparent"]
        service.service._components.publisher.tracing = None
        await put(service, "b", metadata={"traceparent": UNSAMPLED})
        outs = [message for message in service.messages if message.topic == "done"]
    assert not traced.spans
    # No span is made below one that is not sampled: the parent stays the sender.
    assert sent == UNSAMPLED
    assert [message.metadata["traceparent"] for message in outs] == [UNSAMPLED] * 2


async def test_an_unsampled_sender_does_not_strip_attributes_of_a_sampled_span() -> None:
    traced = Traced(sampler=ALWAYS_ON)
    chain_only = Dependencies(tracer_provider=traced.provider)
    async with running(worker(nothing), dependencies=chain_only) as service:
        service.service._components.publisher.tracing = None
        await put(service, "a", metadata={"traceparent": UNSAMPLED})
    assert "messaging.message.id" in (traced.one("process work").attributes or {})


async def test_what_is_sampled_out_at_its_root_is_so_for_all_that_follows() -> None:
    traced = Traced(sampler=ALWAYS_OFF)
    async with running(worker(nothing), dependencies=traced.dependencies) as service:
        await put(service, "a", "b")
        sent = [message.metadata["traceparent"] for message in service.messages]
    assert not traced.spans
    assert all(not int(header[-2:], 16) & 1 for header in sent)
    assert sent[0] != sent[1]


async def test_a_failed_publish_is_a_failed_span(traced: Traced) -> None:
    tracing = PublishTracing(traced.provider, lambda _topic: "memory")
    messages = [Message(id=str(i), topic="t", payload=b"") for i in range(2)]

    async def submit(_messages: Sequence[Message]) -> Sequence[PublishError | None]:
        return [None, PublishError("no")]

    await tracing.publish(messages, submit)
    good, bad = traced.named("send t")
    assert good.status.status_code is StatusCode.UNSET
    assert bad.status.status_code is StatusCode.ERROR

    async def broken(_messages: Sequence[Message]) -> Sequence[PublishError | None]:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        await tracing.publish(messages, broken)
    assert [span.status.status_code for span in traced.named("send t")[2:]] == [
        StatusCode.ERROR
    ] * 2


async def test_publishing_joins_the_current_trace(traced: Traced) -> None:
    async with running(worker(nothing), dependencies=traced.dependencies) as service:
        with traced.provider.get_tracer("web").start_as_current_span("GET /"):
            token = attach(baggage.set_baggage("tenant", "acme"))
            await put(service, "a")
            detach(token)
        assert service.messages[0].metadata["baggage"] == "tenant=acme"
    assert parent_of(traced.one("send work")) == id_of(traced.one("GET /"))


def test_without_a_provider_the_chain_has_no_tracer() -> None:
    async def last(*_: object) -> Any: ...

    assert find_provider(NoOpTracerProvider()) is None
    assert tracer(NoOpTracerProvider())(last, None) is last  # type: ignore[arg-type]
    assert tracer()(last, None) is last  # type: ignore[arg-type]


def test_without_a_provider_nothing_is_imported() -> None:
    program = (
        "import sys, asyncio\n"
        "from protoflow import Service, Config\n"
        "service = Service(Config(environ={}, transport='memory://'))\n"
        "async def main():\n"
        "    async with service: pass\n"
        "asyncio.run(main())\n"
        "names = ('opentelemetry', 'prometheus_client', 'aiohttp', 'protovalidate')\n"
        "sys.exit(' '.join(n for n in names if n in sys.modules) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "header",
    [
        PARENT,
        UNSAMPLED,
        "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-the-future-holds",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        PARENT + "-extra",
        PARENT[:-1],
        PARENT.upper(),
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "",
        "nonsense",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff",
    ],
)
def test_headers_are_read_as_the_api_reads_them(header: str) -> None:
    theirs = trace.get_current_span(
        TraceContextTextMapPropagator().extract({"traceparent": header})
    ).get_span_context()
    ours = span_context(header, None)
    if not theirs.is_valid:
        assert ours is None
    else:
        assert ours is not None
        assert (ours.trace_id, ours.span_id) == (theirs.trace_id, theirs.span_id)
        assert ours.trace_flags.sampled == theirs.trace_flags.sampled
        assert ours.is_remote


def test_no_header_is_no_parent() -> None:
    assert extract({}) is None
    state = extract({wire.TRACEPARENT: PARENT, wire.TRACESTATE: "a=1,b=2"})
    assert state is not None
    assert state.trace_state.to_header() == "a=1,b=2"


def _output(value: int) -> Any:
    from protoflow import Output

    return Output(Int64Value(value=value))
