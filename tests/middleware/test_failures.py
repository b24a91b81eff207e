"""recoverer, retry, poison_queue and timeout: from errors to outcomes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest
from protoflow import Context, DeadLetter, Retry, RetryAfter, Skip, Unprocessable
from protoflow.contract.spec import DeadLetterPolicy, DeliveryPolicy, OnExhausted, RetryPolicy
from protoflow.message import Delivery
from protoflow.middleware import default_chain
from protoflow.outcomes import Outcome
from protoflow.pipeline import HandlerSpec, Next

from tests.middleware.harness import NAME, put, running, worker


def policy(**retry: Any) -> DeliveryPolicy:
    return DeliveryPolicy(retry=RetryPolicy(jitter=0.0, **retry))


async def outcomes(error: Exception, delivery: DeliveryPolicy, **chain: Any) -> list[Any]:
    """Every run of a handler that raises this: when it was, and what came of it."""

    async def handler(_message: object, _context: Context) -> None:
        raise error

    async with running(worker(handler, delivery=delivery), **chain) as service:
        started = service.clock.now()
        await put(service, "a")
        return [(round(run.time - started, 3), type(run.outcome).__name__) for run in service.runs]


async def test_retries_back_off_and_end_in_the_dead_letters() -> None:
    runs = await outcomes(
        ValueError(), policy(max_attempts=4, initial_backoff=1, backoff_multiplier=3, max_backoff=4)
    )
    assert [kind for _, kind in runs] == ["RetryAfter", "RetryAfter", "RetryAfter", "Exhausted"]
    assert [at for at, _ in runs] == pytest.approx([0, 1, 4, 8], abs=0.01)


@pytest.mark.parametrize(
    ("error", "kinds"),
    [
        (Retry("soon"), ["RetryAfter", "Exhausted"]),
        (RetryAfter(30, "later"), ["RetryAfter", "Exhausted"]),
        (DeadLetter("no"), ["DeadLetter"]),
        (Unprocessable("no"), ["Unprocessable"]),
        (Skip("no"), ["Skip"]),
        (ValueError("no"), ["RetryAfter", "Exhausted"]),
    ],
)
async def test_what_a_handler_raises_decides(error: Exception, kinds: list[str]) -> None:
    runs = await outcomes(error, policy(max_attempts=2, initial_backoff=1))
    assert [kind for _, kind in runs] == kinds
    if isinstance(error, RetryAfter):
        assert runs[-1][0] == pytest.approx(30, abs=0.1)


async def test_exhausted_messages_are_dropped_where_the_policy_says_so() -> None:
    delivery = DeliveryPolicy(
        retry=RetryPolicy(max_attempts=1),
        dead_letter=DeadLetterPolicy(on_exhausted=OnExhausted.DROP),
    )

    async def handler(_message: object, _context: Context) -> None:
        raise ValueError

    async with running(worker(handler, delivery=delivery)) as service:
        await put(service, "a")
        stats = service.service.stats()[NAME]
        assert not service.dead_letters
    assert (stats.dropped, stats.errors.other) == (1, 1)


async def test_a_timeout_is_a_failed_run_that_can_be_retried() -> None:
    deadlines: list[float] = []

    async def handler(_message: object, context: Context) -> None:
        assert context.deadline is not None
        deadlines.append(context.deadline - asyncio.get_running_loop().time())
        if context.attempt == 1:
            await asyncio.sleep(60)

    delivery = DeliveryPolicy(timeout=5.0, retry=RetryPolicy(initial_backoff=0.01))
    async with running(worker(handler, delivery=delivery)) as service:
        await put(service, "a")
        stats = service.service.stats()[NAME]
    assert deadlines == pytest.approx([5.0, 5.0])
    assert (stats.handled, stats.failed_runs, stats.errors.downstream) == (1, 1, 1)


async def test_a_timeout_of_the_handlers_own_is_its_own() -> None:
    async def handler(_message: object, _context: Context) -> None:
        async with asyncio.timeout(0.1):
            await asyncio.sleep(1)

    delivery = DeliveryPolicy(timeout=5.0, retry=RetryPolicy(max_attempts=1))
    async with running(worker(handler, delivery=delivery)) as service:
        await put(service, "a")
        (run,) = service.runs
    assert "timed out after 5" not in str(run.outcome.__cause__)


async def test_an_error_of_a_middleware_is_handled_like_a_handlers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Trap B35: a panic in a middleware."""

    def broken(next: Next, _spec: HandlerSpec) -> Next:
        async def run(delivery: Delivery, context: Context) -> Outcome:
            if context.attempt < 3:
                raise KeyError("secret")
            return await next(delivery, context)

        return run

    async def handler(_message: object, _context: Context) -> None: ...

    chain = default_chain().add("broken", broken, before="tracer")
    async with running(worker(handler), middleware=chain) as service:
        await put(service, "a")
        assert service.service.stats()[NAME].handled == 1
        assert service.service.health().live
    records = [one for one in caplog.records if one.getMessage() == "a middleware failed"]
    assert {record.__dict__["error"] for record in records} == {"KeyError"}


async def test_a_cancellation_that_nobody_asked_for_is_an_error() -> None:
    runs = await outcomes(_Cancel(), policy(max_attempts=2, initial_backoff=0.01))
    assert [kind for _, kind in runs] == ["RetryAfter", "Exhausted"]

    async def cancels_itself(_message: object, _context: Context) -> None:
        raise asyncio.CancelledError

    async with running(worker(cancels_itself)) as service:
        await put(service, "a")
        (dead_letter,) = service.dead_letters
    assert dead_letter.message.metadata["pf_attempt"] == "3"


class _Cancel(Exception):
    pass


async def test_the_chain_is_logged_without_the_message(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def handler(message: Any, _context: Context) -> None:
        with contextlib.suppress(ZeroDivisionError):
            _ = 1 / 0
        raise ValueError(f"cannot use {message.value}")

    async with running(worker(handler)) as service:
        await put(service, "4111-1111")
        (dead_letter,) = service.dead_letters
    assert "4111" not in caplog.text
    assert dead_letter.message.metadata["pf_error_message"] == "cannot use ***"
