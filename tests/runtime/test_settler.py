"""Settling: one submit and one settle a turn, outputs before settlements, errors to the right."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from protoflow.errors import PublishError, TransportError
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.scheduling.job import Job
from protoflow.scheduling.settler import Settler


class Broker:
    """A transport and a subscription that answer when told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[Any]]] = []
        self.futures: list[asyncio.Future[Any]] = []
        self.broken: Exception | None = None

    def _call(self, kind: str, items: Sequence[Any]) -> asyncio.Future[Any]:
        if self.broken is not None:
            raise self.broken
        self.calls.append((kind, list(items)))
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.futures.append(future)
        return future

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Any]:
        return self._call("submit", messages)

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Any]:
        return self._call("settle", settlements)


def message(id: str) -> Message:
    return Message(id=id, topic="t", payload=b"")


def job(id: str) -> Job:
    route: Any = None
    return Job(Delivery(message=message(id)), message(id), route, None)


def bench() -> tuple[Settler, Broker, list[tuple[str, SettleResult]]]:
    broker: Any = Broker()
    answers: list[tuple[str, SettleResult]] = []

    def settled(jobs: Sequence[Job], results: Sequence[SettleResult]) -> None:
        answers.extend((job.message.id, result) for job, result in zip(jobs, results, strict=True))

    settler = Settler(broker, broker, settled)
    return settler, broker, answers


async def test_everything_of_one_turn_goes_out_together_outputs_first() -> None:
    settler, broker, answers = bench()
    confirmed: list[Any] = []
    for name in ("a", "b"):
        one = job(name)
        settler.settle(one, Settlement(one.delivery))
        settler.publish([message(name + "1"), message(name + "2")], confirmed.append)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [kind for kind, _ in broker.calls] == ["submit", "settle"]
    assert [item.id for item in broker.calls[0][1]] == ["a1", "a2", "b1", "b2"]
    broker.futures[0].set_result([None] * 4)
    broker.futures[1].set_result([SettleResult.DONE, SettleResult.LOST])
    await settler.drained()
    assert confirmed == [None, None]
    assert answers == [("a", SettleResult.DONE), ("b", SettleResult.LOST)]


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=4), max_size=8))
def test_an_error_reaches_exactly_the_publisher_whose_message_it_was(
    groups: list[list[bool]],
) -> None:
    async def run() -> None:
        settler, broker, _ = bench()
        got: dict[int, Any] = {}
        error = PublishError("no")
        for index, group in enumerate(groups):
            settler.publish(
                [message(str(index))] * len(group),
                lambda result, index=index: got.__setitem__(index, result),  # type: ignore[misc]
            )
        settler.flush()
        if groups:
            flat = [None if good else error for group in groups for good in group]
            broker.futures[0].set_result(flat)
        await settler.drained()
        assert got == {i: None if all(group) else error for i, group in enumerate(groups)}

    asyncio.run(run())


async def test_when_settling_fails_nothing_is_known_of_any() -> None:
    for failure in (TransportError("cut"), KeyError("a bug")):
        settler, broker, answers = bench()
        one = job("a")
        settler.settle(one, Settlement(one.delivery))
        settler.flush()
        broker.futures[0].set_exception(failure)
        await settler.drained()
        assert answers == [("a", SettleResult.UNKNOWN)]


async def test_a_transport_that_raises_hangs_nobody() -> None:
    settler, broker, answers = bench()
    broker.broken = ValueError("a bug of a transport")
    confirmed: list[Any] = []
    one = job("a")
    settler.settle(one, Settlement(one.delivery))
    settler.publish([message("b")], confirmed.append)
    await settler.drained()
    assert answers == [("a", SettleResult.UNKNOWN)]
    assert isinstance(confirmed[0], PublishError)
    assert not settler.busy


async def test_a_cancelled_publication_is_an_error_not_a_confirmation() -> None:
    settler, broker, _ = bench()
    confirmed: list[Any] = []
    settler.publish([message("b")], confirmed.append)
    settler.flush()
    broker.futures[0].cancel()
    await settler.drained()
    assert isinstance(confirmed[0], PublishError)
