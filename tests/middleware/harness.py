"""Handlers without generated code, and services around them, for tests of middlewares."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from protoflow import Config, Context, testing
from protoflow.contract.spec import (
    BatchPolicy,
    DeliveryPolicy,
    MessageSpec,
    MethodSpec,
    PublicationSpec,
    RetryPolicy,
    ServiceSpec,
)
from protoflow.handler import Handler
from protoflow.middleware import Dependencies
from protoflow.output import AnyOutput, Output
from protoflow.pipeline import Chain, Middleware

WORK = MessageSpec(
    type="google.protobuf.StringValue",
    message_class=StringValue,
    topic="work",
    sensitive={"google.protobuf.StringValue": ("value",)},
)
DONE = MessageSpec(type="google.protobuf.Int64Value", message_class=Int64Value, topic="done")
TO_WORK = PublicationSpec(topic="work", message=WORK)
TO_DONE = PublicationSpec(topic="done", message=DONE)
NAME = "test.v1.Worker.Do"
FAST = DeliveryPolicy(retry=RetryPolicy(max_attempts=3, initial_backoff=0.01, jitter=0.0))

Do = Callable[[Any, Context], Awaitable[Any]]


class Worker(Handler):
    """One method that does what a test asks."""

    def __init__(self, do: Do) -> None:
        self.do = do


def worker(
    do: Do,
    *,
    name: str = NAME,
    input: MessageSpec = WORK,
    topic: str | None = None,
    group: str = "workers",
    publication: PublicationSpec | None = None,
    delivery: DeliveryPolicy = FAST,
    batch: BatchPolicy | None = None,
    streams: bool = False,
) -> Worker:
    """A handler of one method."""
    method = MethodSpec(
        name=name,
        handler="do",
        input=input,
        topic=topic or input.topic or "",
        group=group,
        delivery=delivery,
        publication=publication,
        batched=batch is not None,
        batch=batch or BatchPolicy(),
        streams=streams,
    )
    made: type[Worker] = type(
        "Worker", (Worker,), {"__protoflow_spec__": ServiceSpec(name="w", methods=(method,))}
    )
    return made(do)


async def nothing(_message: Any, _context: Context) -> None:
    """Handles and does nothing."""


def config(**settings: Any) -> Config:
    """Settings that no environment changes."""
    return Config(environ={}, **settings)


@asynccontextmanager
async def running(
    *handlers: Worker,
    middleware: Chain | Sequence[Middleware] | None = None,
    virtual_time: bool = True,
    dependencies: Dependencies | None = None,
    **settings: Any,
) -> AsyncIterator[testing.TestedService]:
    """A service under test with these handlers."""
    async with testing.run(
        *handlers,
        config=config(**settings),
        middleware=middleware,
        virtual_time=virtual_time,
        **(dependencies or {}),
    ) as service:
        yield service


async def put(service: testing.TestedService, *values: str, **output: Any) -> list[str]:
    """Publishes work and waits until it is settled."""
    outputs: list[AnyOutput] = [Output(StringValue(value=value), **output) for value in values]
    ids = await service.publish_outputs(TO_WORK, outputs)
    await service.settled()
    return ids
