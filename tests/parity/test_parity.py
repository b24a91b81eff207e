"""Every item of the Go runtime has a counterpart, and a test that proves it."""

from __future__ import annotations

import ast
import functools
import importlib
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from protoflow import CloudEvent, Context, EventContext, Message, testing
from protoflow.errors import ConfigError
from protoflow.message import Delivery
from protoflow.outcomes import Outcome
from protoflow.pipeline import HandlerSpec, Next
from protoflow.service import Service
from protoflow.stats.dead_letters import DLQMetrics
from protoflow.stats.handlers import ErrorCategory

from tests.parity.items import ITEMS, Item, table

ROOT = Path(__file__).parents[2]


@functools.cache
def _tests(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text())
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, functions))


@pytest.mark.parametrize("item", ITEMS, ids=[item.go for item in ITEMS])
def test_every_item_has_its_counterpart_and_its_test(item: Item) -> None:
    module, _, name = item.python.partition(":")
    if not module.startswith("tests/"):
        functools.reduce(getattr, name.split("."), importlib.import_module(module))
    path, _, test = item.test.partition("::")
    assert test in _tests(path), f"{item.test} is not there"


def test_the_page_is_what_the_list_says() -> None:
    assert (ROOT / "docs/parity.md").read_text() == table(), "run: make docs"


def test_a_message_class_is_its_own_factory() -> None:
    assert StringValue() == StringValue.FromString(b"")


async def test_errors_are_classified_as_reported() -> None:
    async def handle(event: EventContext) -> None:
        raise ConnectionError

    def classify(error: BaseException | None) -> ErrorCategory:
        return ErrorCategory.DOWNSTREAM

    def setup(service: Service) -> None:
        service.register_cloudevents_handler("handle", "t", handle, max_attempts=1)

    async with testing.run(setup=setup, error_classifier=classify) as tested:
        await tested.service.publish_data("t", "/s", 1)
        await tested.settled()
        errors = tested.service.stats()["handle"].errors
        assert errors.by_category()["downstream"] == 1


async def test_data_of_another_content_type() -> None:
    seen: list[CloudEvent] = []

    async def handle(event: EventContext) -> None:
        seen.append(event.event)

    def setup(service: Service) -> None:
        service.consume_events("t", handle)

    async with testing.run(setup=setup) as tested:
        await tested.service.publish_data("t", "/s", "plain", data_content_type="text/plain")
        event = CloudEvent(type="t", source="/s", data=b"raw", data_content_type="image/png")
        await tested.service.publish_event(event)
        await tested.settled()
    reported = [(event.data_content_type, event.data) for event in seen]
    assert reported == [("text/plain", b"plain"), ("image/png", b"raw")]


async def test_dead_letters_are_counted_replayed_purged_and_reset() -> None:
    metrics = DLQMetrics()
    topic = metrics.topic("orders.dead")
    topic.add(3, 100.0)
    topic.add(5, 200.0)
    topic.replay(1, 300.0)
    topic.purge(1, 400.0)
    assert (topic.current, topic.average_retries) == (0, 3.0)
    snapshot: Any = metrics.snapshot()
    assert (snapshot["total_messages"], snapshot["total_replayed"], snapshot["total_purged"]) == (
        2, 1, 1,
    )  # fmt: skip
    metrics.reset()
    empty: Any = metrics.snapshot()
    assert empty["total_messages"] == 0


async def test_a_middleware_is_registered_where_it_is_put() -> None:
    order: list[str] = []

    def note(name: str) -> Any:
        def middleware(next: Next, spec: HandlerSpec) -> Next:
            async def run(delivery: Delivery, context: Context) -> Outcome:
                order.append(name)
                return await next(delivery, context)

            return run

        return middleware

    async def handle(message: Message, context: Context) -> None:
        order.append("handler")

    def setup(service: Service) -> None:
        service.register_message_handler("handle", "t", handle)
        service.register_middleware("inner", note("inner"))
        service.register_middleware("outer", note("outer"), before="retry")
        with pytest.raises(ConfigError, match="inner"):
            service.register_middleware("inner", note("again"))

    async with testing.run(setup=setup) as tested:
        await tested.service.publish(Message(id="1", topic="t", payload=b""))
        await tested.settled()
    assert order == ["outer", "inner", "handler"]


async def test_a_registered_message_is_checked_when_it_is_published() -> None:
    checked: list[Any] = []

    class Validator:
        def validate(self, message: Any, /) -> None:
            checked.append(message)

    def setup(service: Service) -> None:
        service.register_proto_message(StringValue)

    async with testing.run(setup=setup, validator=Validator()) as tested:
        await tested.service.publish_proto("t", StringValue(value="x"))
    assert StringValue(value="x") in checked
