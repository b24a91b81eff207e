"""Handlers whose effects show exactly once, without generated code."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue
from protoflow import Config, Inbox, Output, testing
from protoflow.contract.spec import (
    BatchPolicy,
    DeliveryPolicy,
    Effects,
    MethodSpec,
    PublicationSpec,
    RetryPolicy,
    ServiceSpec,
)
from protoflow.handler import Handler, HandlerSync

from tests.inbox.databases import Database
from tests.middleware.harness import TO_DONE, TO_WORK, WORK

NAME = "test.v1.Worker.Do"
FAST = DeliveryPolicy(retry=RetryPolicy(max_attempts=3, initial_backoff=0.01, jitter=0.0))

#: Called with the connection, the text of the message and the context.
Do = Callable[[Any, str, Any], Any]


def handler(
    call: Callable[..., Any], *, sync: bool = False, batch: BatchPolicy | None = None,
    publication: PublicationSpec | None = None, streams: bool = False,
    delivery: DeliveryPolicy = FAST,
) -> Handler | HandlerSync:  # fmt: skip
    """A handler of one method."""
    method = MethodSpec(
        name=NAME, handler="do", input=WORK, topic="work", group="workers", delivery=delivery,
        publication=publication, batched=batch is not None, batch=batch or BatchPolicy(),
        streams=streams, effects=Effects.EXACTLY_ONCE,
    )  # fmt: skip
    base = HandlerSync if sync else Handler
    made: type[Any] = type(
        "Worker",
        (base,),
        {
            "__protoflow_spec__": ServiceSpec(name="w", methods=(method,)),
            "do": staticmethod(call),
        },
    )
    instance: Handler | HandlerSync = made()
    return instance


class Writer:
    """Writes what it is given, and what `after` does more; of each kind of database.

    Attributes:
        runs: the texts in the order of the runs.
    """

    def __init__(self, database: Database, after: Callable[..., Any] | None = None) -> None:
        self.database = database
        self.inbox: Inbox[Any] = Inbox(database.resource)
        self.after = after
        self.runs: list[str] = []

    def handler(self, **settings: Any) -> Handler | HandlerSync:
        """The handler for this kind of database."""
        sync = self.database.sync
        return handler(self._sync if sync else self._async, sync=sync, **settings)

    async def _async(self, message: StringValue, context: Any) -> Any:
        self.runs.append(message.value)
        await self.database.write(self.inbox.of(context), message.value)
        if self.after is not None:
            found = self.after(message.value, context)
            return await found if inspect.isawaitable(found) else found
        return None

    def _sync(self, message: StringValue, context: Any) -> Any:
        self.runs.append(message.value)
        self.database.write(self.inbox.of(context), message.value)
        return self.after(message.value, context) if self.after is not None else None


@asynccontextmanager
async def running(
    *handlers: Handler | HandlerSync, inbox: Inbox[Any] | None, **settings: Any
) -> AsyncIterator[testing.TestedService]:
    """A service with these handlers, on a memory broker, in real time."""
    async with testing.run(
        *handlers, config=Config(environ={}, **settings), virtual_time=False, inbox=inbox
    ) as service:
        yield service


async def put(service: testing.TestedService, *values: str, **output: Any) -> list[str]:
    """Publishes work and waits until it is settled."""
    outputs = [Output(StringValue(value=value), **output) for value in values]
    ids = await service.publish_outputs(TO_WORK, outputs)
    await service.settled()
    return ids


async def put_again(service: testing.TestedService, *, source: str | None = None) -> None:
    """Delivers a copy of the first message, as a broker does that lost the acknowledgement."""
    copied = service.messages[0]
    metadata = dict(copied.metadata) | ({"ce_source": source} if source else {})
    transport = service.service._components.transport
    await transport.submit([replace(copied, metadata=metadata)])
    await service.settled()


__all__ = ["FAST", "NAME", "TO_DONE", "Writer", "handler", "put", "put_again", "running"]
