"""Settling: one submit and one settle a turn, outputs first, each entry answered by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from protoflow.errors import PublishError, PublishRefusedError, TransportError
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.publishing.submitter import Submitter
from protoflow.scheduling.job import Job
from protoflow.scheduling.settler import Settler
from protoflow.stats.handlers import SentMessages

from tests.waiting import run_virtually


class Broker:
    """A transport and a subscription that answer on request."""

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
    stats = SimpleNamespace(unknown=0)
    route: Any = SimpleNamespace(spec=SimpleNamespace(stats=stats), gatherer=None)
    return Job(Delivery(message=message(id)), message(id), route, None)


class Harness:
    """A settler, and everything that it says."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.answers: list[tuple[str, SettleResult]] = []
        self.failures: list[tuple[str, Exception]] = []
        broker: Any = self.broker
        self.settler = Settler(
            Submitter(broker, SentMessages()),
            broker,
            self.settled,
            lambda job, error: self.failures.append((job.message.id, error)),
        )

    def settled(self, jobs: Sequence[Job], results: Sequence[SettleResult]) -> None:
        self.answers += [
            (job.message.id, result) for job, result in zip(jobs, results, strict=True)
        ]

    def settle(self, one: Job) -> Settlement:
        settlement = Settlement(one.delivery)
        self.settler.settle(one, settlement)
        return settlement

    async def answer(self, result: Any) -> None:
        """Answers the next call of the settler, which may be a repetition."""
        async with asyncio.timeout(10):
            while not self.broker.futures:
                await asyncio.sleep(0.005)
        future = self.broker.futures.pop(0)
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def harness() -> tuple[Settler, Broker, list[tuple[str, SettleResult]]]:
    made = Harness()
    return made.settler, made.broker, made.answers


async def test_everything_of_one_turn_goes_out_together_outputs_first() -> None:
    settler, broker, answers = harness()
    confirmed: list[Any] = []
    for name in ("a", "b"):
        one = job(name)
        settler.settle(one, Settlement(one.delivery))
        settler.publish(one, [message(name + "1"), message(name + "2")], confirmed.append)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [kind for kind, _ in broker.calls] == ["submit", "settle"]
    assert [item.id for item in broker.calls[0][1]] == ["a1", "a2", "b1", "b2"]
    broker.futures[0].set_result([None] * 4)
    broker.futures[1].set_result([SettleResult.DONE, SettleResult.LOST])
    await settler.drained()
    assert confirmed == [None, None]
    assert answers == [("a", SettleResult.DONE), ("b", SettleResult.LOST)]


@given(st.lists(st.lists(st.sampled_from("grt"), min_size=1, max_size=4), min_size=1, max_size=6))
def test_each_entry_of_a_flush_is_answered_by_itself(groups: list[list[str]]) -> None:
    """g: taken, r: refused for good, t: not taken this time, and taken when it is repeated."""

    async def run() -> None:
        made = Harness()
        got: dict[int, Any] = {}
        refusal, passing = PublishRefusedError("never"), PublishError("not now")
        for index, group in enumerate(groups):
            made.settler.publish(
                job(str(index)),
                [message(f"{index}.{at}") for at in range(len(group))],
                lambda result, index=index: got.__setitem__(index, result),  # type: ignore[misc]
            )
        made.settler.flush()
        results = {"g": None, "r": refusal, "t": passing}
        await made.answer([results[kind] for group in groups for kind in group])
        expected: dict[int, Any] = {}
        again: list[str] = []
        for index, group in enumerate(groups):
            if "r" in group:
                expected[index] = refusal
            elif "t" in group:
                again += [f"{index}.{at}" for at in range(group.index("t"), len(group))]
            else:
                expected[index] = None
        assert got == expected, "what is not taken now is no error"
        if again:
            await made.answer([None] * len(again))
            assert [one.id for one in made.broker.calls[-1][1]] == again, "the same, in order"
        await made.settler.drained()
        assert got == {index: expected.get(index) for index in range(len(groups))}

    run_virtually(run())


@given(st.lists(st.lists(st.sampled_from(list(SettleResult)), min_size=3, max_size=3), max_size=5))
def test_a_settlement_of_which_nothing_is_known_is_repeated_as_it_is(
    rounds: list[list[SettleResult]],
) -> None:
    async def run() -> None:
        made = Harness()
        jobs = {name: job(name) for name in "abc"}
        open_ones = {name: made.settle(one) for name, one in jobs.items()}
        made.settler.flush()
        known: dict[str, SettleResult] = {}
        for results in [*rounds, [SettleResult.DONE] * 3]:
            if not open_ones:
                break
            now = dict(zip(open_ones, results, strict=False))
            await made.answer([now[name] for name in open_ones])
            sent = made.broker.calls[-1][1]
            assert sent == list(open_ones.values()), "the very same settlements"
            known |= {n: r for n, r in now.items() if r is not SettleResult.UNKNOWN}
            open_ones = {n: s for n, s in open_ones.items() if n not in known}
        await made.settler.drained()
        assert dict(made.answers) == known
        assert len(made.answers) == 3, "each has exactly one answer"

    with patch("protoflow.scheduling.settler._FIRST_WAIT", 0.001):
        run_virtually(run())


async def test_when_settling_fails_as_a_whole_it_is_repeated() -> None:
    for failure in (TransportError("cut"), KeyError("a bug")):
        made = Harness()
        made.settle(job("a"))
        made.settler.flush()
        await made.answer(failure)
        assert made.answers == []
        await made.answer([SettleResult.DONE])
        assert made.answers == [("a", SettleResult.DONE)]


async def test_a_transport_that_raises_hangs_nobody_and_is_asked_again() -> None:
    made = Harness()
    made.broker.broken = ValueError("a bug of a transport")
    confirmed: list[Any] = []
    made.settle(job("a"))
    made.settler.publish(job("b"), [message("b")], confirmed.append)
    await asyncio.sleep(0.01)
    assert made.settler.busy
    made.broker.broken = None
    await made.answer([None])
    await made.answer([SettleResult.DONE])
    assert (confirmed, made.answers) == ([None], [("a", SettleResult.DONE)])
    assert not made.settler.busy


async def test_a_cancelled_publication_is_repeated_not_confirmed() -> None:
    made = Harness()
    confirmed: list[Any] = []
    made.settler.publish(job("b"), [message("b")], confirmed.append)
    made.settler.flush()
    made.broker.futures.pop(0).cancel()
    await asyncio.sleep(0.01)
    assert confirmed == []
    await made.answer([None])
    assert confirmed == [None]


async def test_a_callback_that_raises_is_the_failure_of_its_own_job() -> None:
    made = Harness()
    confirmed: list[Any] = []

    def broken(_result: object) -> None:
        raise RuntimeError("a bug of a callback")

    made.settler.publish(job("a"), [message("a")], broken)
    made.settler.publish(job("b"), [message("b")], confirmed.append)
    made.settler.flush()
    await made.answer([None, None])
    assert confirmed == [None]
    assert [name for name, _error in made.failures] == ["a"]


async def test_what_is_taken_out_is_not_repeated() -> None:
    made = Harness()
    lost, kept = job("lost"), job("kept")
    confirmed: list[Any] = []
    made.settle(lost)
    made.settle(kept)
    made.settler.publish(lost, [message("lost")], confirmed.append)
    made.settler.flush()
    await made.answer([PublishError("not now")])
    await made.answer([SettleResult.UNKNOWN] * 2)
    assert made.settler.take(lambda one: one is lost) == ([lost], [lost])
    await made.answer([SettleResult.DONE])
    assert made.answers == [("kept", SettleResult.DONE)]
    assert confirmed == []
    assert not made.settler.busy


async def test_what_is_not_confirmed_for_long_is_a_problem() -> None:
    made = Harness()
    made.settle(job("a"))
    made.settler.flush()
    assert made.settler.problem(10.0) is None
    assert "confirmed nothing" in str(made.settler.problem(0.0))
    await made.answer([SettleResult.UNKNOWN])
    assert "1 settlements" in str(made.settler.problem(0.0))
    await made.answer([SettleResult.DONE])
    assert made.settler.problem(0.0) is None


async def test_while_it_is_suspended_everything_waits() -> None:
    made = Harness()
    made.settler.suspend()
    made.settle(job("a"))
    await asyncio.sleep(0.01)
    assert made.broker.calls == []
    made.settler.resume()
    assert [kind for kind, _ in made.broker.calls] == ["settle"]
