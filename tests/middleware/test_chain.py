from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int64Value
from protoflow import Context, Message
from protoflow.errors import ConfigError
from protoflow.middleware import current_correlation_id, default_chain, metrics, poison_queue, retry
from protoflow.outcomes import DONE
from protoflow.pipeline import Chain, Named

from tests.middleware.harness import NAME, TO_DONE, nothing, put, running, worker

ORDER = (
    "recoverer", "correlation_id", "tracer", "metrics", "log_messages", "poison_queue", "retry",
    "job_hooks", "timeout", "proto_validate", "outbox",
)  # fmt: skip


def mark(seen: list[str], name: str) -> Any:
    def middleware(next: Any, _spec: Any) -> Any:
        async def run(delivery: Any, context: Any) -> Any:
            seen.append(name)
            return await next(delivery, context)

        return run

    return middleware


def test_the_default_order() -> None:
    assert default_chain().names == ORDER


async def test_middlewares_of_ones_own_stand_next_to_the_handler_or_where_they_are_put() -> None:
    seen: list[str] = []
    chain = (
        default_chain()
        .add("inner", mark(seen, "inner"))
        .add("outer", mark(seen, "outer"), before="recoverer")
        .add("between", mark(seen, "between"), after="poison_queue")
        .replace("log_messages", mark(seen, "log"))
        .drop("job_hooks", "outbox")
    )
    async with running(worker(nothing), middleware=chain) as service:
        await put(service, "a")
    assert seen == ["outer", "log", "between", "inner"]
    assert chain.names[7] == "between"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda chain: chain.add("retry", retry), "already in the chain"),
        (lambda chain: chain.add("x", retry, before="nobody"), "nobody: not in the chain"),
        (lambda chain: chain.drop("nobody"), "not in the chain"),
        (lambda chain: chain.replace("nobody", retry), "not in the chain"),
    ],
)
def test_mistakes_are_reported(change: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        change(default_chain())


@pytest.mark.parametrize(
    ("chain", "text"),
    [
        (default_chain().drop("poison_queue"), "lacks poison_queue"),
        (Chain((Named("retry", retry), Named("poison_queue", poison_queue))), "outside"),
    ],
)
async def test_a_chain_that_would_lose_dead_letters_is_refused(chain: Chain, text: str) -> None:
    """Trap B5: a poison queue that only ever sees the first failure."""
    with pytest.raises(ConfigError, match=text):
        async with running(worker(nothing), middleware=chain):
            pass


async def test_correlation_and_causation_are_carried_on() -> None:
    seen: list[str | None] = []

    async def handler(_message: object, context: Context) -> Int64Value:
        seen.append(current_correlation_id())
        assert context.correlation_id == seen[-1]
        return Int64Value(value=1)

    async with running(worker(handler, publication=TO_DONE)) as service:
        given = {"correlation_id": "c1", "protoflow_delay": "1h", "mine": "x"}
        (first,) = await put(service, "a", metadata=given)
        (second,) = await put(service, "b")
        out = [message for message in service.messages if message.topic == "done"]
    assert seen == ["c1", second]
    assert [message.metadata["correlation_id"] for message in out] == ["c1", second]
    assert [message.metadata["causation_id"] for message in out] == [first, second]
    # Trap B29: attempts, delays and the input's own metadata are not inherited.
    assert not {"protoflow_delay", "mine"} & out[0].metadata.keys()
    assert out[0].metadata["ce_type"] == "google.protobuf.Int64Value"
    assert current_correlation_id() is None


async def test_without_metrics_messages_are_counted_all_the_same() -> None:
    async with running(worker(nothing), middleware=default_chain().drop("metrics")) as service:
        await put(service, "a")
        stats = service.service.stats()[NAME]
    assert (stats.handled, stats.timings.runs) == (1, 0)
    assert metrics.__doc__ is not None


async def test_a_middleware_may_answer_itself() -> None:
    def cached(_next: Any, _spec: Any) -> Any:
        async def run(_delivery: Any, context: Context) -> Any:
            await context.publish(Message(id="1", topic="done", payload=b""))
            return DONE

        return run

    async def never(_message: object, _context: Context) -> None:
        raise AssertionError

    async with running(worker(never), middleware=[cached]) as service:
        await put(service, "a")
        assert [message.id for message in service.messages if message.topic == "done"] == ["1"]
