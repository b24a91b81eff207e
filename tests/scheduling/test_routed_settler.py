"""Outputs to several transports: one that does not answer holds up only its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Message, Settlement, SettleResult
from protoflow.publishing.output_routes import OutputRoutes
from protoflow.routing.transport import RoutedTransport
from protoflow.scheduling.job import Job
from protoflow.scheduling.routed_settler import RoutedSettler
from protoflow.stats.handlers import SentMessages
from protoflow.transport import Capabilities

from tests.scheduling.test_settler import Broker, job


def note(confirmed: list[str], name: str, _refused: object) -> None:
    confirmed.append(name)


class Routes:
    """The transport of a topic is its first letter."""

    def of_topic(self, topic: str) -> str:
        return topic[0]


class Harness:
    def __init__(self) -> None:
        self.brokers = {name: Broker() for name in "ab"}
        for broker in self.brokers.values():
            broker.capabilities = Capabilities(max_message_bytes=10)  # type: ignore[attr-defined]
        parts: Any = self.brokers
        routes: Any = Routes()
        self.routes = OutputRoutes(RoutedTransport(parts, routes), "a", SentMessages())
        self.settled: list[str] = []
        subscription: Any = self.brokers["a"]
        self.settler = RoutedSettler(self.routes, subscription, self.note, self.failed)

    def note(self, jobs: Sequence[Job], _results: Sequence[SettleResult]) -> None:
        self.settled += [one.message.id for one in jobs]

    def failed(self, _job: Job, error: Exception) -> None:
        raise error

    def calls(self, name: str) -> list[list[str]]:
        return [[item.id for item in items] for kind, items in self.brokers[name].calls
                if kind == "submit"]  # fmt: skip

    async def answer(self, name: str, result: Any) -> None:
        async with asyncio.timeout(10):
            while not self.brokers[name].futures:
                await asyncio.sleep(0.005)
        self.brokers[name].futures.pop(0).set_result(result)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def message(id: str, topic: str, payload: bytes = b"") -> Message:
    return Message(id=id, topic=topic, payload=payload)


async def test_a_transport_that_does_not_answer_holds_up_only_its_own_outputs() -> None:
    harness, confirmed = Harness(), list[str]()
    for name, topics in (("1", "a"), ("2", "b"), ("3", "ab"), ("4", "a")):
        outputs = [message(name + topic, topic) for topic in topics]
        harness.settler.publish(job(name), outputs, partial(note, confirmed, name))
    await asyncio.sleep(0)
    assert harness.calls("a") == [["1a", "3a", "4a"]], "the order of calls, in one submission"
    assert harness.calls("b") == [["2b", "3b"]]
    await harness.answer("a", [None] * 3)
    assert confirmed == ["1", "4"]
    assert harness.settler.busy
    await harness.answer("b", [PublishError("down"), PublishError("down")])
    assert confirmed == ["1", "4"]
    await harness.answer("b", [None] * 2)
    assert harness.calls("b") == [["2b", "3b"]] * 2, "only what is unconfirmed is repeated"
    assert confirmed == ["1", "4", "2", "3"]
    await harness.settler.drained()
    assert not harness.settler.busy


async def test_a_refusal_is_reported_once_all_shares_are_answered() -> None:
    harness, answers = Harness(), list[Any]()
    harness.settler.publish(job("1"), [message("x", "a"), message("y", "b")], answers.append)
    await asyncio.sleep(0)
    refused = PublishRefusedError("too large")
    await harness.answer("b", [refused])
    assert answers == []
    await harness.answer("a", [None])
    assert answers == [refused]


async def test_a_retry_and_a_settlement_stay_on_the_transport_of_the_message() -> None:
    harness = Harness()
    one = job("1")
    harness.settler.publish_retry(one, message("retry", "b..retry"), lambda _: None)
    harness.settler.settle(one, Settlement(one.delivery))
    await asyncio.sleep(0)
    assert [kind for kind, _ in harness.brokers["a"].calls] == ["submit", "settle"]
    assert harness.brokers["b"].calls == []
    await harness.answer("a", [None])
    await harness.answer("a", [SettleResult.DONE])
    await harness.settler.drained()
    assert harness.settled == ["1"]


async def test_what_waits_is_named_suspended_and_taken() -> None:
    harness = Harness()
    harness.settler.suspend()
    one = job("1")
    harness.settler.publish(one, [message("x", "b")], lambda _: None)
    await asyncio.sleep(0)
    assert harness.calls("b") == []
    harness.settler.resume()
    assert harness.calls("b") == [["x"]]
    problem = harness.settler.problem(0.0)
    assert problem is not None
    assert problem.startswith("transport b: the broker has confirmed nothing for")
    await harness.answer("b", [PublishError("down")])
    assert harness.settler.take(lambda _job: True) == ([one], [])
    assert not harness.settler.busy


async def test_the_limits_of_each_transport_hold_for_its_outputs() -> None:
    harness = Harness()
    parts: dict[str, Any] = harness.routes.parts  # type: ignore[assignment]
    parts["b"] = SimpleNamespace(capabilities=Capabilities(max_message_bytes=2))
    small, large = message("1", "a", b"xxx"), message("2", "b", b"xxx")
    assert harness.routes.refusal([small]) is None
    assert "the broker takes 2" in str(harness.routes.refusal([small, large]))
    assert harness.routes.elsewhere([small]) is None
    assert harness.routes.elsewhere([small, large]) == "b"
