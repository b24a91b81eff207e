"""Mistakes that type checkers have to find: each has mypy's code and pyright's rule above it."""

from __future__ import annotations

from protoflow import Batch, Context, Output, Publisher, SyncContext
from shapes import shapes_pb2
from shapes.shapes_protoflow import ShapesEventProducer, ShapesHandler


class Wrong(ShapesHandler):
    # E: override reportIncompatibleMethodOverride
    async def one(self, message: shapes_pb2.Out, context: Context, /) -> None: ...

    # E: override reportIncompatibleMethodOverride
    async def one_to_one(self, message: shapes_pb2.In, context: Context, /) -> shapes_pb2.In:
        return shapes_pb2.In()

    # E: override reportIncompatibleMethodOverride
    async def one_to_many(self, message: shapes_pb2.In, context: Context, /) -> shapes_pb2.Out:
        return shapes_pb2.Out()

    # E: override reportIncompatibleMethodOverride
    async def many(self, messages: shapes_pb2.In, context: Context, /) -> None: ...

    # E: override reportIncompatibleMethodOverride
    def many_to_one(self, messages: Batch[shapes_pb2.In], context: Context, /) -> shapes_pb2.Out:
        return shapes_pb2.Out()

    # E: override reportIncompatibleMethodOverride
    async def many_to_many(self, messages: Batch[shapes_pb2.In], ctx: SyncContext, /) -> None: ...


class Unfinished(ShapesHandler):
    async def one(self, message: shapes_pb2.In, context: Context, /) -> None: ...


# E: abstract reportAbstractUsage
Unfinished()


async def publish(publisher: Publisher) -> None:
    producer = ShapesEventProducer(publisher)
    # E: arg-type reportArgumentType
    await producer.publish_in(shapes_pb2.Out())
    # E: arg-type reportArgumentType
    await producer.publish_in(shapes_pb2.In(), key=1)
    # E: call-arg|misc reportCallIssue
    await producer.publish_in(shapes_pb2.In(), "key")
    # E: call-arg reportCallIssue
    await producer.publish_in(shapes_pb2.In(), topic="x")
    # E: list-item|arg-type reportArgumentType
    await producer.publish_in_many([Output(shapes_pb2.Out())])
    # E: attr-defined reportAttributeAccessIssue
    await producer.publish_nothing(shapes_pb2.In())
    # E: arg-type reportArgumentType
    ShapesEventProducer(object())
    # E: attr-defined reportAttributeAccessIssue
    print(producer.publish_in(shapes_pb2.In()).upper())
