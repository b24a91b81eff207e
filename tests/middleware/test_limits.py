from __future__ import annotations

import asyncio

import pytest
from protoflow import Context, DeadLetter
from protoflow.errors import ConfigError
from protoflow.middleware import default_chain
from protoflow.middleware.circuit_breaker import CircuitBreaker, CircuitState
from protoflow.middleware.concurrency_limit import concurrency_limit
from protoflow.middleware.rate_limit import rate_limit
from protoflow.spec import DeliveryPolicy, RetryPolicy

from tests.middleware.kit import DONE, NAME, nothing, put, running, worker


async def test_a_rate_is_kept_and_waiting_is_no_failure() -> None:
    times: list[float] = []

    async def handler(_message: object, _context: Context) -> None:
        times.append(asyncio.get_running_loop().time())

    chain = default_chain().add("rate_limit", rate_limit(10, burst=3), before="tracer")
    policy = DeliveryPolicy(timeout=0.05)
    async with running(worker(handler, delivery=policy), middleware=chain) as service:
        await put(service, *"abcdefgh")
        stats = service.service.stats()[NAME]
    assert [round(time - times[0], 3) for time in times] == [0, 0, 0, 0.1, 0.2, 0.3, 0.4, 0.5]
    assert (stats.handled, stats.failed_runs) == (8, 0)
    assert stats.timings.latency().p99_ns < 50_000_000


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
