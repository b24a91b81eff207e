"""What users write; no type checker may complain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

from protoflow import Batch, Context, Output, Publisher, Result, SyncContext, SyncPublisher
from shapes import shapes_pb2
from shapes.shapes_protoflow import (
    ShapesEventProducer,
    ShapesEventProducerSync,
    ShapesHandler,
    ShapesHandlerSync,
    ShapesProducer,
)


class Handler(ShapesHandler):
    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    async def one(self, order: shapes_pb2.In, ctx: Context, /) -> None:
        ctx.logger.info("%s %s", self._prefix, order)

    async def one_to_one(
        self, message: shapes_pb2.In, context: Context, /
    ) -> Result[shapes_pb2.Out]:
        if context.attempt > 1:
            return None
        if context.attempt > 2:
            return shapes_pb2.Out()
        return Output(shapes_pb2.Out(), key="k", delay=timedelta(seconds=1))

    async def one_to_many(
        self, message: shapes_pb2.In, context: Context, /
    ) -> AsyncIterator[shapes_pb2.Out | Output[shapes_pb2.Out]]:
        yield shapes_pb2.Out()
        yield Output(shapes_pb2.Out(), metadata={"a": "b"})

    async def many(self, messages: Batch[shapes_pb2.In], context: Context, /) -> None:
        first: shapes_pb2.In = messages[0]
        print(first, len(messages), messages.contexts[0].id)

    async def many_to_one(
        self, messages: Batch[shapes_pb2.In], context: Context, /
    ) -> shapes_pb2.Out:
        return shapes_pb2.Out()

    async def once(self, message: shapes_pb2.In, context: Context, /) -> None:
        return None

    async def many_to_many(
        self, messages: Batch[shapes_pb2.In], context: Context, /
    ) -> AsyncIterator[shapes_pb2.Out]:
        for _ in messages:
            yield shapes_pb2.Out()


class Threads(ShapesHandlerSync):
    def one(self, message: shapes_pb2.In, context: SyncContext, /) -> None:
        print(context.attempt)

    def one_to_one(self, message: shapes_pb2.In, context: SyncContext, /) -> shapes_pb2.Out:
        return shapes_pb2.Out()

    def one_to_many(
        self, message: shapes_pb2.In, context: SyncContext, /
    ) -> Iterator[shapes_pb2.Out]:
        yield shapes_pb2.Out()

    def many(self, messages: Batch[shapes_pb2.In], context: SyncContext, /) -> None: ...

    def many_to_one(self, messages: Batch[shapes_pb2.In], context: SyncContext, /) -> None:
        return None

    def once(self, message: shapes_pb2.In, context: SyncContext, /) -> None:
        return None

    def many_to_many(
        self, messages: Batch[shapes_pb2.In], context: SyncContext, /
    ) -> Iterator[shapes_pb2.Out | Output[shapes_pb2.Out]]:
        yield shapes_pb2.Out()


Handler("x")
Threads()


async def publish(publisher: Publisher, context: Context) -> None:
    one: str = await ShapesProducer(publisher).one(shapes_pb2.In(), key=b"k", id="7")
    await ShapesEventProducer(context).publish_out(shapes_pb2.Out(), metadata={"a": "b"})
    many: list[str] = await ShapesEventProducer(publisher).publish_in_many(
        [shapes_pb2.In(), Output(shapes_pb2.In(), key="k")]
    )
    print(one, many, ShapesHandler.__protoflow_spec__.methods[0].topic)


def publish_sync(publisher: SyncPublisher, context: SyncContext) -> None:
    one: str = ShapesEventProducerSync(publisher).publish_in(shapes_pb2.In())
    many = ShapesEventProducerSync(context).publish_in_many(shapes_pb2.In() for _ in range(2))
    print(one, many[0].upper())
