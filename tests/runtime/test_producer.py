"""Generated producers: the bases make real methods from the specification."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import pytest
from google.protobuf.duration_pb2 import Duration
from protoflow import Output, gencode
from protoflow.contract.spec import MethodSpec, ProducerSpec, PublicationSpec, ServiceSpec
from protoflow.output import AnyOutput

SPAN = gencode.MessageSpec(message_class=Duration, type="google.protobuf.Duration", topic="spans")
SERVICE = ServiceSpec(
    name="v1.Timers",
    methods=(
        MethodSpec(name="v1.Timers.Start", handler="start", input=SPAN, topic="timers", group="g"),
    ),
)


class SpanEventProducer(gencode.Producer):
    """Publishes spans."""

    __protoflow_spec__ = ProducerSpec(
        name="SpanEventProducer", publications=gencode.events(publish_span=SPAN)
    )

    publish_span: gencode.Publish[Duration]
    publish_span_many: gencode.PublishMany[Duration]


class TimersProducerSync(gencode.ProducerSync):
    """Publishes what the timers consume."""

    __protoflow_spec__ = ProducerSpec(
        name="TimersProducer", publications=gencode.consumed_by(SERVICE)
    )

    start: gencode.PublishSync[Duration]
    start_many: gencode.PublishManySync[Duration]


class Log:
    """A publisher that records what it gets."""

    def __init__(self) -> None:
        self.published: list[tuple[str, AnyOutput]] = []

    async def publish_outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        self.published += [(publication.topic, output) for output in outputs]
        return [str(len(self.published))] * len(outputs)


class SyncLog(Log):
    """The same without an event loop."""

    def publish_outputs(  # type: ignore[override]  # a SyncPublisher
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        self.published += [(publication.topic, output) for output in outputs]
        return [str(len(self.published))] * len(outputs)


async def test_an_event_goes_to_its_own_topic() -> None:
    log = Log()
    producer = SpanEventProducer(log)
    assert await producer.publish_span(Duration(seconds=1), key="k", id="i") == "1"
    assert log.published == [("spans", Output(Duration(seconds=1), key="k", id="i"))]


async def test_many_keep_their_order_and_their_options() -> None:
    log = Log()
    second = Output(Duration(seconds=2), key="k")
    many: list[Duration | Output[Duration]] = [Duration(seconds=1), second]
    assert len(await SpanEventProducer(log).publish_span_many(many)) == 2
    assert [output for _, output in log.published] == [Output(Duration(seconds=1)), second]


def test_a_client_publishes_to_the_consumed_topic() -> None:
    log = SyncLog()
    assert TimersProducerSync(log).start(Duration(seconds=3)) == "1"
    assert TimersProducerSync(log).start_many([Duration()]) == ["2"]
    assert [topic for topic, _ in log.published] == ["timers", "timers"]


def test_methods_are_those_that_python_knows() -> None:
    method = vars(SpanEventProducer)["publish_span"]
    assert inspect.iscoroutinefunction(method)
    assert list(inspect.signature(method).parameters) == [
        *("self", "message", "key", "metadata", "delay", "id", "in_"),
    ]
    assert method.__qualname__ == "SpanEventProducer.publish_span"
    assert method.__module__ == __name__
    assert method.__doc__.startswith("Publishes google.protobuf.Duration to `spans`.")
    assert not inspect.iscoroutinefunction(vars(TimersProducerSync)["start"])


async def test_a_subclass_may_replace_a_method() -> None:
    class Quiet(SpanEventProducer):
        async def publish_span(self, message: Duration, **options: object) -> str:  # type: ignore[override]
            return "none"

    log = Log()
    assert await Quiet(log).publish_span(Duration()) == "none"
    assert await Quiet(log).publish_span_many([Duration()]) == ["1"]


def test_producers_take_no_further_state() -> None:
    with pytest.raises(TypeError):
        SpanEventProducer()  # type: ignore[call-arg]
