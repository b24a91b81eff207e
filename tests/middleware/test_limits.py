from __future__ import annotations

import asyncio
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from protoflow import Context, DeadLetter
from protoflow.clock import Clock
from protoflow.contract.spec import BatchPolicy, DeliveryPolicy, RetryPolicy
from protoflow.errors import ConfigError
from protoflow.message import Delivery, Message
from protoflow.middleware import default_chain
from protoflow.middleware.circuit_breaker import CircuitBreaker, CircuitState
from protoflow.middleware.concurrency_limit import concurrency_limit
from protoflow.middleware.job_hooks import JobHooks
from protoflow.middleware.rate_limit import rate_limit
from protoflow.outcomes import DONE as DONE_OUTCOME
from protoflow.outcomes import Outcome, Postpone
from protoflow.output import Output
from protoflow.testing import TestedService

from tests.middleware.harness import DONE, NAME, TO_WORK, nothing, put, running, worker


async def test_a_rate_is_kept_and_waiting_is_no_failure() -> None:
    times: list[float] = []

    async def handler(_message: object, _context: Context) -> None:
        times.append(asyncio.get_running_loop().time())

    policy = DeliveryPolicy(timeout=0.05)
    limit = rate_limit(10, burst=3)
    async with running(worker(handler, delivery=policy), middleware=[limit]) as service:
        await put(service, *"abcdefgh")
        stats = service.service.stats()[NAME]
    assert [round(time - times[0], 3) for time in times] == [0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert (stats.handled, stats.failed_runs) == (8, 0)
    assert stats.timings.latency().p99_ns < 50_000_000


async def test_a_wait_for_a_turn_holds_no_worker_and_is_no_run() -> None:
    started: list[str] = []

    async def handler(message: StringValue, _context: Context) -> None:
        started.append(message.value)

    slow = worker(handler, delivery=DeliveryPolicy(concurrency=1, timeout=0.05))
    starts: list[str] = []
    hooks = JobHooks(
        on_job_start=lambda job: starts.append("start"),
        on_job_done=lambda job: starts.append("done"),
    )
    chain = default_chain({"hooks": hooks}).add("rate_limit", rate_limit(2))
    async with running(slow, middleware=chain) as service:
        await put(service, *"abcdef")
        stats = service.service.stats()[NAME]
        assert stats.timings.runs == 6
    assert sorted(started) == list("abcdef")
    assert (stats.handled, stats.failed_runs, stats.skipped) == (6, 0, 0)
    assert starts.count("done") == 6


async def test_a_turn_of_a_lost_message_is_not_kept() -> None:
    seen: list[Outcome] = []

    async def next(_delivery: Delivery, _context: Context) -> Outcome:
        return DONE_OUTCOME

    class Still(Clock):
        """Time does not pass: how loaded the machine is decides nothing."""

        def monotonic(self) -> float:
            return 100.0

    spec = cast("Any", SimpleNamespace(clock=Still(), name="h"))
    limited = rate_limit(1000.0)(next, spec)
    for number in range(50):
        delivery = Delivery(message=Message(id=str(number), topic="t", payload=b""))
        seen.append(await limited(delivery, cast("Any", None)))
    waits = [outcome.delay for outcome in seen if isinstance(outcome, Postpone)]
    assert waits == sorted(waits)
    assert 0 < waits[-1] < 0.06


def test_rates_are_positive() -> None:
    for rate, burst in ((0, 1), (1, 0)):
        with pytest.raises(ConfigError):
            rate_limit(rate, burst=burst)
    with pytest.raises(ConfigError):
        concurrency_limit(0)
    with pytest.raises(ConfigError):
        CircuitBreaker(failure_rate=0)


async def test_a_limit_of_runs_holds_across_handlers() -> None:
    running_now = most = 0

    async def handler(_message: object, _context: Context) -> None:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        await asyncio.sleep(1)
        running_now -= 1

    handlers = (
        worker(handler),
        worker(handler, name="test.v1.Other.Do", group="others"),
        worker(nothing, name="test.v1.Free.Do", input=DONE),
    )
    limit = concurrency_limit(3, handlers=frozenset({NAME, "test.v1.Other.Do"}))
    async with running(*handlers, middleware=[limit]) as service:
        await put(service, *"abcdef")
        assert sum(stats.handled for stats in service.service.stats().values()) == 12
    assert most == 3


async def test_a_circuit_opens_pauses_probes_and_closes() -> None:
    broken = True
    starts: list[float] = []
    changes: list[str] = []

    async def handler(_message: object, _context: Context) -> None:
        starts.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.01)
        if broken:
            raise ConnectionError

    circuit = CircuitBreaker(
        failure_rate=0.5,
        window=4,
        open_for=30,
        on_change=lambda _name, state: changes.append(state),
    )
    chain = default_chain().add("circuit_breaker", circuit, before="timeout")
    policy = DeliveryPolicy(
        concurrency=1, retry=RetryPolicy(max_attempts=20, initial_backoff=0.01, jitter=0.0)
    )
    async with running(worker(handler, delivery=policy), middleware=chain) as service:
        task = asyncio.create_task(put(service, *"abcdefgh"))
        await service.advance(5)
        assert circuit.states == {NAME: CircuitState.OPEN}
        assert len(starts) == 4
        health = service.service.health()
        assert not health.ready
        assert "circuit" in str(health.problems)
        await service.advance(30)
        assert len(starts) == 5  # one probe, which failed
        assert circuit.states == {NAME: CircuitState.OPEN}
        broken = False
        await task
        assert circuit.states == {NAME: CircuitState.CLOSED}
        assert service.service.health().ready
        stats = service.service.stats()[NAME]
    assert (stats.handled, stats.dead_lettered) == (8, 0)
    assert stats.failed_runs == 5
    assert changes == ["open", "half_open", "open", "half_open", "closed"]


async def test_what_waits_for_the_probe_burns_no_attempt() -> None:
    ran: Counter[str] = Counter()

    async def handler(message: StringValue, _context: Context) -> None:
        ran[message.value] += 1
        await asyncio.sleep(0.2)
        raise ConnectionError

    policy = DeliveryPolicy(
        concurrency=8,
        timeout=0.5,  # shorter than the circuit is open
        retry=RetryPolicy(max_attempts=3, initial_backoff=0.05, jitter=0.0),
    )
    circuit = CircuitBreaker(window=4, open_for=1.0)
    async with running(worker(handler, delivery=policy), middleware=[circuit]) as service:
        task = asyncio.create_task(put(service, *(f"{n:02}" for n in range(60))))
        await service.advance(20)
        stats = service.service.stats()[NAME]
        assert stats.failed_runs == sum(ran.values())
        assert all(ran[dead_letter] == 3 for dead_letter in dead_letter_topic(service))
        task.cancel()


async def test_a_run_that_outlasts_the_open_circuit_is_no_probe() -> None:
    async def handler(message: StringValue, _context: Context) -> None:
        if message.value == "slow":
            await asyncio.sleep(5)
        raise ConnectionError

    changes: list[str] = []
    circuit = CircuitBreaker(
        window=2, open_for=4, on_change=lambda _name, state: changes.append(str(state))
    )
    policy = DeliveryPolicy(retry=RetryPolicy(max_attempts=1))
    async with running(worker(handler, delivery=policy), middleware=[circuit]) as service:
        await service.publish_outputs(
            TO_WORK, [Output(StringValue(value=v)) for v in ("slow", "a", "b")]
        )
        await service.advance(6)
    assert changes == ["open", "half_open"]


async def test_a_callback_that_fails_leaves_the_circuit_working() -> None:
    def fail(_name: str, _state: CircuitState) -> None:
        raise RuntimeError("theirs")

    broken = True

    async def handler(_message: object, _context: Context) -> None:
        if broken:
            raise ConnectionError

    circuit = CircuitBreaker(window=2, open_for=1, on_change=fail)
    policy = DeliveryPolicy(retry=RetryPolicy(max_attempts=9, initial_backoff=0.1, jitter=0.0))
    async with running(worker(handler, delivery=policy), middleware=[circuit]) as service:
        task = asyncio.create_task(put(service, *"ab"))
        await service.advance(0.5)
        assert circuit.states == {NAME: CircuitState.OPEN}
        broken = False
        await task
    assert circuit.states == {NAME: CircuitState.CLOSED}


async def test_a_circuit_outside_of_retry_sees_failures_too() -> None:
    async def handler(_message: object, _context: Context) -> None:
        raise ConnectionError

    circuit = CircuitBreaker(window=2)
    chain = default_chain().add("circuit_breaker", circuit, before="tracer")
    async with running(worker(handler), middleware=chain) as service:
        task = asyncio.create_task(put(service, *"ab"))
        await service.advance(1)
        assert circuit.states == {NAME: CircuitState.OPEN}
        task.cancel()


async def test_a_batch_is_put_off_whole_and_comes_again() -> None:
    sizes: list[int] = []

    async def handler(batch: Any, _context: Context) -> None:
        sizes.append(len(batch))

    handler_ = worker(handler, batch=BatchPolicy(max_messages=2, max_wait=0.01))
    async with running(handler_, middleware=[rate_limit(5)]) as service:
        await put(service, *"abcdef")
        stats = service.service.stats()[NAME]
    assert sum(sizes) == 6
    assert (stats.handled, stats.failed_runs, stats.skipped) == (6, 0, 0)


def dead_letter_topic(service: TestedService) -> list[str]:
    return [
        StringValue.FromString(dead_letter.message.payload or b"").value
        for dead_letter in service.dead_letters
    ]


async def test_what_a_handler_decides_does_not_open_the_circuit() -> None:
    async def handler(_message: object, _context: Context) -> None:
        raise DeadLetter("no")

    circuit = CircuitBreaker(window=2)
    async with running(worker(handler), middleware=[circuit]) as service:
        await put(service, *"abcd")
    assert circuit.states == {NAME: CircuitState.CLOSED}


async def test_runs_beyond_the_probes_wait_and_then_go_on() -> None:
    broken = True

    async def handler(_message: object, _context: Context) -> None:
        await asyncio.sleep(0.01)
        if broken:
            raise ConnectionError

    circuit = CircuitBreaker(failure_rate=1, window=2, open_for=10, probes=2)
    async with running(worker(handler), middleware=[circuit]) as service:
        task = asyncio.create_task(put(service, *"abcdefghijkl"))
        await service.advance(1)
        broken = False
        await task
        assert (
            service.service.stats()[NAME].handled + service.service.stats()[NAME].dead_lettered
            == 12
        )
    assert circuit.states == {NAME: CircuitState.CLOSED}
